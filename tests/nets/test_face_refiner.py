import pytest
import torch
from torch.nn import functional

from velatura.nets.face_refiner import FaceRefiner, Modulated

SMALL = (4, 6, 8)


def awake(seed=0, side=16):
    """A small refiner whose last layer does something."""
    torch.manual_seed(seed)
    net = FaceRefiner(side, SMALL, (1, 1, 2)).eval()
    torch.nn.init.normal_(net.leave.weight, std=0.2)
    return net


def test_it_fits_into_four_mebibytes():
    with torch.device("meta"):
        assert 2 * sum(parameter.numel() for parameter in FaceRefiner().parameters()) < 4 << 20


def test_it_begins_with_the_face():
    face = torch.rand(2, 3, 16, 16)
    assert torch.equal(FaceRefiner(16, SMALL, (1, 1, 2))(face), face)


def test_every_weight_takes_part():
    net = awake()
    net(torch.rand(2, 3, 16, 16)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_faces_of_a_batch_do_not_meet():
    net, faces = awake(), torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        together, apart = net(faces), torch.cat([net(face[None]) for face in faces])
        torch.testing.assert_close(together, apart)
        net.train()
        torch.testing.assert_close(net(faces), together)  # no statistics that a batch changes


def test_every_pixel_sees_the_whole_face():
    net, face = awake(), torch.rand(1, 3, 16, 16)
    changed = face.clone()
    changed[..., 0, 0] += 0.5
    with torch.no_grad():
        assert (net(changed) - net(face))[..., -1, -1].abs().max() > 0


def test_modulation_is_that_of_the_paper():
    torch.manual_seed(1)
    block, x, maps = Modulated(5), torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    expected = x
    with torch.no_grad():
        for convolution, modulation in zip(block.convolutions, block.modulations, strict=True):
            gamma, beta = modulation(maps).chunk(2, 1)
            normal = torch.stack([place / place.square().mean().add(1e-4).sqrt() for place in places(expected)])
            normal = normal.reshape(2, 4, 4, 5).permute(0, 3, 1, 2)
            expected = convolution(functional.leaky_relu((1 + gamma) * normal + beta, 0.1))
        torch.testing.assert_close(block(x, maps), x + expected)


def places(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@pytest.mark.parametrize(("side", "widths", "blocks"), [(18, SMALL, (1, 1, 1)), (16, SMALL, (1, 1))])
def test_what_does_not_fit_is_refused(side, widths, blocks):
    with pytest.raises(ValueError, match=f"got side {side}, 3 widths, {len(blocks)} blocks"):
        FaceRefiner(side, widths, blocks)


def test_faces_of_another_size_are_refused():
    with pytest.raises(ValueError, match="got a face of 24x16; expected 16x16"):
        awake()(torch.rand(1, 3, 16, 24))
