import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from velatura import catalog
from velatura.nets.features import Features

STRIDES = (1, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Features().eval().requires_grad_(False)


def test_it_costs_little_beside_what_it_trains(net):
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(1, 3, 96, 96))
    assert counter.get_total_flops() / 2 / 96**2 < 60_000  # multiply-adds per pixel
    assert 1_000_000 < sum(p.numel() for p in net.parameters()) < 2_000_000
    stored = sum(tensor.numel() for tensor in net.state_dict().values())
    assert 2 * stored < 4 << 20  # bytes in half precision


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 95)])
def test_shapes(net, size):
    maps = net(torch.rand(2, 3, *size))
    assert tuple(maps) == Features.LAYERS
    for (name, found), stride in zip(maps.items(), STRIDES, strict=True):
        assert found.shape == (2, Features.CHANNELS[name], size[0] // stride, size[1] // stride)
        assert name == f"stride{stride}"


def test_nothing_is_computed_beyond_the_deepest_layer(net):
    ran = []
    hooks = [
        part.register_forward_hook(lambda module, *_, name=name: ran.append(name))
        for name, part in net.named_modules()
        if name.count(".") == 1
    ]
    maps = net(torch.rand(1, 3, 32, 32), layers=["stride4", "stride1"])
    for hook in hooks:
        hook.remove()
    assert tuple(maps) == ("stride1", "stride4")
    assert ran == ["stages.0", "heads.stride1", "stages.1", "stages.2", "heads.stride4"]
    whole = net(torch.rand(1, 3, 32, 32), layers=())
    assert whole == {}


def test_an_image_is_seen_the_same_alone_and_among_others(net):
    images = torch.rand(3, 3, 40, 32)
    alone, among = net(images[1:2]), net(images)
    for name in Features.LAYERS:
        torch.testing.assert_close(among[name][1:2], alone[name])


def test_what_is_refused(net):
    with pytest.raises(ValueError, match="got layer 'conv1_2'; expected some of stride1, stride2"):
        net(torch.rand(1, 3, 32, 32), ["conv1_2"])
    with pytest.raises(ValueError, match="got 31x64 pixels; expected at least 32x32"):
        net(torch.rand(1, 3, 31, 64))
    with pytest.raises(ValueError, match="got 4 widths; expected 5"):
        Features((8, 8, 8, 8))


def test_units_go_there_and_back():
    net = Features((4, 4, 4, 4, 4))
    raw = 3 * torch.randn(2, 64, 5, 5) + 1
    mean, spread = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
    net.calibrate("stride1", mean, spread)
    standardized = net.standardized("stride1", raw)
    torch.testing.assert_close(standardized.mean((0, 2, 3)), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized.std((0, 2, 3)), torch.ones(64))
    activated = net.activated({"stride1": standardized})
    torch.testing.assert_close(activated["stride1"], raw.clamp_min(0))
    assert {"heads.stride1.mean", "heads.stride1.spread"} <= set(net.state_dict())


# --- its gradient -----------------------------------------------------------------------------------------------------


def unevenness(net, layer, period=2):
    """How much the gradient's energy differs between the places of a `period` x `period` cell, over its mean."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 24, 24, generator=random)
    target = functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    image = (target + 0.05 * torch.randn(target.shape, generator=random)).requires_grad_()
    (net(image, [layer])[layer] - net(target, [layer])[layer]).square().mean().backward()
    assert image.grad is not None
    energy = image.grad.square().sum((0, 1))[16:-16, 16:-16]
    cell = energy.unfold(0, period, period).unfold(1, period, period).mean((0, 1))
    return float(cell.std() / cell.mean())


@pytest.mark.parametrize("layer", Features.LAYERS)
def test_the_gradient_has_no_checkerboard(net, layer):
    assert unevenness(net, layer) < 0.03


@pytest.mark.parametrize("layer", Features.LAYERS)
def test_nor_has_that_of_the_shipped_features(layer):
    assert unevenness(catalog.load("features", {"Features": Features}), layer) < 0.03


def test_a_checkerboard_would_be_seen():
    class Skip(nn.Module):
        def forward(self, x):
            return x[..., ::2, ::2]

    torch.manual_seed(0)
    net = Features()
    for stage in list(net.stages)[1:]:
        stage.halve = Skip()
    assert unevenness(net, "stride4") > 0.08


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (33, 34), (2, 3)])
def test_the_low_pass_has_the_slope_of_its_convolution(size):
    halve = Features().stages[1].halve.double()
    image = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    kernel = halve.kernel.expand(4, -1, -1, -1)
    plain = functional.conv2d(image, kernel, stride=2, padding=1, groups=4)
    upstream = torch.randn_like(plain)
    torch.testing.assert_close(halve(image), plain)
    found, expected = (torch.autograd.grad(made, image, upstream)[0] for made in (halve(image), plain))
    torch.testing.assert_close(found, expected)


def test_a_flat_map_has_a_flat_gradient():
    """What comes back from a coarse map is spread evenly over its pixels."""
    halve = Features().stages[1].halve
    x = torch.rand(1, 2, 32, 32, requires_grad=True)
    halve(x).sum().backward()
    inner = x.grad[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.25))
