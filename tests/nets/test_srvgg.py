import pytest
import torch
from receptive_field import seen
from torch.nn import functional

from velatura.nets.srvgg import SRVGG


def test_the_default_fits_its_place():
    """Counted by hand: a PReLU has one weight per channel."""
    width, depth, scale = 64, 16, 4
    first, last = 27 * width + width, 9 * width * 3 * scale**2 + 3 * scale**2
    body = depth * (9 * width**2 + width)
    net = SRVGG()
    assert sum(p.numel() for p in net.parameters()) == first + body + last + (depth + 1) * width
    assert list(net.state_dict())[:4] == ["body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight"]
    assert list(net.state_dict())[-1] == f"body.{2 * depth + 2}.bias"


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(scale, channels):
    net = SRVGG(scale, width=8, depth=2, channels=channels)
    assert net(torch.rand(2, channels, 5, 7)).shape == (2, channels, 5 * scale, 7 * scale)


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match="got scale 0"):
        SRVGG(0)
    with pytest.raises(ValueError, match="and depth -1"):
        SRVGG(depth=-1)


@pytest.mark.parametrize(("scale", "depth"), [(1, 0), (2, 1), (4, 5)])
def test_the_receptive_radius_is_exact(scale, depth):
    net = SRVGG(scale, width=2, depth=depth)
    assert net.receptive_radius == depth + 2
    assert seen(net) == ([-depth - 2] * 2, [depth + 2] * 2)


@torch.no_grad()
def test_it_is_the_definition_written_out():
    torch.manual_seed(0)
    net, image = SRVGG(3, width=4, depth=1), torch.rand(1, 3, 5, 6)
    state = net.state_dict()
    x = image
    for at in (0, 2):
        x = functional.conv2d(x, state[f"body.{at}.weight"], state[f"body.{at}.bias"], padding=1)
        x = torch.where(x < 0, x * state[f"body.{at + 1}.weight"][:, None, None], x)
    x = functional.conv2d(x, state["body.4.weight"], state["body.4.bias"], padding=1)
    expected = torch.empty(1, 3, 15, 18)
    for channel in range(3):
        for row in range(3):
            for column in range(3):
                place = x[:, 9 * channel + 3 * row + column]
                expected[:, channel, row::3, column::3] = image[:, channel] + place
    torch.testing.assert_close(net(image), expected)
