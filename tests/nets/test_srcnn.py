import numpy as np
import pytest
import torch
from receptive_field import seen

from velatura.nets.srcnn import SRCNN, Bicubic, luma
from velatura.ops.resize import resize


@pytest.mark.parametrize(("middle", "weights"), [(1, 8032), (3, 24_416), (5, 57_184)])
def test_the_papers_weights(middle, weights):
    """SRCNN section 4.3.2 counts 8,032, 24,416 and 57,184."""
    assert sum(p.numel() for p in SRCNN(middle=middle).parameters() if p.ndim == 4) == weights


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(9, 14), (2, 3), (1, 5)])
def test_bicubic_is_that_of_ops(scale, height, width):
    image = np.random.default_rng(0).random((height, width, 3))
    expected = resize(image, height * scale, width * scale, "bicubic")
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    got = Bicubic(scale)(tensor)[0].permute(1, 2, 0)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-7)


def test_bicubic_refuses_other_scales():
    with pytest.raises(ValueError, match="got scale 5; expected 2, 3 or 4"):
        Bicubic(5)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("middle", [1, 3, 5])
def test_the_receptive_radius_is_exact(scale, middle):
    net = SRCNN(scale, middle)
    radius = net.receptive_radius
    assert seen(net) == ([-radius] * 2, [radius] * 2)


def test_it_begins_with_the_bicubic_enlargement():
    net, image = SRCNN(), torch.rand(2, 3, 10, 12)
    assert torch.equal(net(image), net.enlarge(image))


@pytest.mark.parametrize("residual", [False, True])
def test_only_luma_changes(residual):
    net, image = SRCNN(residual=residual), torch.rand(1, 3, 10, 12)
    torch.nn.init.normal_(net.reconstruct.weight, std=0.01)
    change = net(image) - net.enlarge(image)
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(change, change[:, :1].expand_as(change), atol=1e-6, rtol=0)
    if not residual:  # what the network gives is the luma itself
        x = luma(net.enlarge(image)) - 0.5
        given = net.reconstruct(torch.relu(net.map(torch.relu(net.extract(x))))) + 0.5
        torch.testing.assert_close(luma(net(image)), given, atol=1e-5, rtol=0)


def test_mixed_precision_keeps_the_picture():
    net, image = SRCNN().to(memory_format=torch.channels_last), torch.rand(1, 3, 16, 16)
    torch.nn.init.normal_(net.reconstruct.weight, std=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(image)
    assert mixed.dtype == torch.float32
    assert (mixed - net(image)).abs().max() < 0.5 / 255


def test_it_is_made_without_memory_and_stores_weights_alone():
    with torch.device("meta"):
        net = SRCNN()
    assert {name.split(".")[0] for name in net.state_dict()} == {"extract", "map", "reconstruct"}
