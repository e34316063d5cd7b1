import pytest
import torch

from velatura.nets.tiles import in_tiles
from velatura.nets.unet import UNet

BUILDS = [((4, 6), (1, 2)), ((4, 4, 4), (1, 0, 1)), ((4,), (2,)), ((2, 2, 2, 2), (1, 1, 1, 1))]


def seen(net, phase):
    """How far the output at a place depends on the input, measured by its gradient."""
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.02, 0.1)  # nothing cancels
    side = 2 * net.receptive_radius + 4 * net.multiple
    middle = side // 2 // net.multiple * net.multiple + phase
    image = torch.rand(1, net.enter.in_channels, side, side, dtype=torch.float64, requires_grad=True)
    net.double()(image)[:, :, middle, middle].sum().backward()
    where = image.grad.abs().sum((0, 1)).nonzero() - middle
    return int(where.abs().max())


@pytest.mark.parametrize(("widths", "blocks"), BUILDS)
def test_the_receptive_radius_is_exact(widths, blocks):
    net = UNet(2, 1, widths, blocks)
    assert max(seen(net, phase) for phase in range(net.multiple)) == net.receptive_radius


def random_net(widths=(4, 6, 8), blocks=(1, 1, 1)):
    torch.manual_seed(0)
    net = UNet(3, 3, widths, blocks).double()
    torch.nn.init.normal_(net.leave.weight)
    net.scale = 1
    return net


def tiled(net, image, halo):
    height, width = image.shape[2:]
    parts = in_tiles(net, lambda start, stop: image[:, :, start:stop], height, width, 5 * net.multiple, halo)
    return torch.cat(list(parts), 2)


@torch.inference_mode()
def test_tiles_give_what_the_whole_gives():
    net = random_net()
    image = torch.rand(1, 3, 75, 90, dtype=torch.float64)
    halo = -(-net.receptive_radius // net.multiple) * net.multiple
    torch.testing.assert_close(tiled(net, image, halo), net(image), atol=1e-12, rtol=0)
    assert (tiled(net, image, net.multiple) - net(image)).abs().max() > 1e-6


@torch.inference_mode()
def test_sides_that_are_no_multiples_are_repeated():
    net = random_net()
    image = torch.rand(1, 3, 13, 9, dtype=torch.float64)
    padded = torch.nn.functional.pad(image, (0, 3, 0, 3), mode="replicate")
    torch.testing.assert_close(net(image), net(padded)[..., :13, :9])


def test_it_starts_at_zero_and_every_weight_learns():
    net = UNet(3, 1, (4, 6), (1, 1))
    image = torch.rand(2, 3, 12, 12)
    assert not net(image).any()
    torch.nn.init.normal_(net.leave.weight)
    net(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_one_number_of_blocks_per_level():
    with pytest.raises(ValueError, match="got 2 widths and 3 numbers of blocks; expected one per level"):
        UNet(3, 3, (4, 4), (1, 1, 1))
