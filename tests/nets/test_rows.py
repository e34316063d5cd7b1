import pytest
import torch
from torch import nn

from velatura.nets.rows import WHOLE, Bands, in_bands
from velatura.nets.rrdb import RRDB
from velatura.nets.srcnn import SRCNN
from velatura.nets.srresnet import SRResNet
from velatura.nets.srvgg import SRVGG


def pieces(image, heights):
    """Cut an image into bands of these heights, the last as high as is left."""
    start = 0
    for height in heights:
        yield image[:, :, start : start + height], False
        start += height
    yield image[:, :, start:], True


def filled(net):
    """A network all of whose weights do something."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.double().eval()


NETWORKS = {
    "srcnn": lambda: SRCNN(),
    "srcnn, no residual": lambda: SRCNN(2, middle=3, residual=False),
    "srresnet": lambda: SRResNet(width=6, blocks=5),
    "srvgg": lambda: SRVGG(width=4, depth=3),
    "srvgg, no enlargement": lambda: SRVGG(1, width=4, depth=1),
    "srresnet, norm": lambda: SRResNet(2, width=4, blocks=2, norm=True, residual=False),
    "rrdb": lambda: RRDB(width=4, growth=2, blocks=2, tail=4),
    "rrdb, no residual": lambda: RRDB(2, width=4, growth=3, blocks=1, tail=4, residual=False),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "heights", [[], [2], [30], [2, 1, 1, 1, 1, 1, 2], [5] * 6, [16, 1, 0, 15]], ids=lambda heights: str(heights)
)
@torch.inference_mode()
def test_bands_give_what_the_whole_gives(name, heights):
    torch.manual_seed(0)
    net, image = filled(NETWORKS[name]()), torch.rand(1, 3, 32, 7, dtype=torch.float64)
    parts = list(in_bands(net, pieces(image, heights)))
    assert all(part.shape[2] for part in parts)
    torch.testing.assert_close(torch.cat(parts, 2), net(image), atol=1e-11, rtol=1e-11)


@torch.inference_mode()
def test_an_image_lower_than_the_reach():
    net, image = filled(SRResNet(width=4, blocks=6)), torch.rand(1, 3, 3, 5, dtype=torch.float64)
    parts = list(in_bands(net, pieces(image, [2])))
    torch.testing.assert_close(torch.cat(parts, 2), net(image), atol=1e-12, rtol=1e-11)


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_height():
    net, rows = filled(SRResNet(width=4, blocks=2)), Bands()
    kept = []
    for _ in range(8):
        net(torch.rand(1, 3, 10, 5, dtype=torch.float64), rows)
        kept.append(sum(x.untyped_storage().nbytes() for x in rows._kept.values()))
    assert kept[2:] == kept[1:-1]


@torch.inference_mode()
def test_convolutions_in_half_precision_leave_the_trunk_alone():
    torch.manual_seed(0)
    net, image = filled(SRResNet(width=8, blocks=3)).float(), torch.rand(1, 3, 24, 9)
    for parameter in net.parameters():
        parameter.mul_(0.3)
    exact = net(image)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.bfloat16()
        if isinstance(module, nn.PReLU):
            module.bfloat16()
    result = torch.cat(list(in_bands(net, pieces(image, [10]))), 2)
    assert result.dtype == torch.float32
    assert 0 < (result - exact).abs().max() < 0.02


def test_whole_images_may_be_trained_on():
    net, image = SRResNet(width=4, blocks=1), torch.rand(2, 3, 6, 6)
    net(image, WHOLE).sum().backward()
    assert net.tail.weight.grad is not None


def test_a_border_that_is_not_known_is_named():
    net = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    with pytest.raises(ValueError, match="got border 'circular'; expected zeros"):
        Bands()(net, torch.rand(1, 3, 4, 4))
