import pytest
import torch
from receptive_field import seen

from velatura.nets.srresnet import SRResNet


def count(net):
    return sum(p.numel() for p in net.parameters())


def random_tail(net):
    """Let it do something: a new net is the bicubic enlargement."""
    torch.nn.init.normal_(net.tail.weight, std=0.003)
    return net.eval()


def test_the_default_fits_its_place():
    """Counted by hand from figure 4: every PReLU has one weight."""
    width, blocks = 64, 16
    convolution = width * width * 9 + width
    ends = 81 * 3 * width + width, 81 * 3 * width + 3
    assert count(SRResNet()) == sum(ends) + (2 * blocks + 1) * convolution + 2 * 4 * convolution + blocks + 3
    # Batch norm has two numbers per channel instead of one bias.
    assert count(SRResNet(norm=True)) == count(SRResNet()) + (2 * blocks + 1) * width


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("norm", [False, True])
def test_shapes(scale, norm):
    net = SRResNet(scale, width=8, blocks=2, norm=norm, residual=not norm)
    assert net(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def test_other_scales_are_refused():
    with pytest.raises(ValueError, match="got scale 3; expected 2 or 4"):
        SRResNet(3)


@pytest.mark.parametrize(("scale", "blocks", "radius"), [(2, 1, 10), (4, 3, 14), (4, 16, 40)])
def test_the_receptive_radius_is_exact(scale, blocks, radius):
    net = SRResNet(scale, width=2, blocks=blocks)
    assert net.receptive_radius == radius
    assert seen(net) == ([-radius] * 2, [radius] * 2)


@torch.no_grad()
def test_what_lies_beyond_the_radius_changes_nothing():
    net = random_tail(SRResNet(width=8, blocks=2)).double()
    radius, row = net.receptive_radius, 20
    image = torch.rand(1, 3, 32, 10, dtype=torch.float64)
    other = image.clone()
    other[:, :, : row - radius] += 1
    a, b = net(image), net(other)
    assert torch.equal(a[:, :, 4 * row :], b[:, :, 4 * row :])
    assert not torch.equal(a[:, :, 4 * row - 4 : 4 * row], b[:, :, 4 * row - 4 : 4 * row])


@torch.no_grad()
def test_tiles_equal_the_whole():
    net = random_tail(SRResNet(2, width=8, blocks=1)).double()
    image = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    halo = net.receptive_radius
    tile = net(image[:, :, 20 - halo :])[:, :, 2 * halo :]
    torch.testing.assert_close(tile, net(image)[:, :, 40:], atol=1e-12, rtol=0)


def test_it_begins_with_the_bicubic_enlargement():
    net, image = SRResNet(width=8, blocks=2), torch.rand(1, 3, 8, 9)
    assert torch.equal(net(image), net.enlarge(image))


@torch.no_grad()
def test_the_trunk_stays_float32():
    net, image = (
        random_tail(SRResNet(width=16, blocks=3)).to(memory_format=torch.channels_last),
        torch.rand(1, 3, 16, 16),
    )
    trunk, branches = [], []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda _, inputs: trunk.append(inputs[0]))
        block.register_forward_hook(lambda _, inputs, output: branches.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(image)
    assert {x.dtype for x in trunk} == {torch.float32}
    assert {x.dtype for x in branches} == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in trunk)
    assert mixed.dtype == torch.float32
    assert (mixed - net(image)).abs().max() < 1 / 255


def test_it_is_made_without_memory_and_stores_weights_alone():
    with torch.device("meta"):
        net = SRResNet()
    assert {name.split(".")[0] for name in net.state_dict()} == {"head", "blocks", "merge", "up", "tail"}
