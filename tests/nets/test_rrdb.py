import pytest
import torch
from receptive_field import seen

from velatura.nets.rows import WHOLE, in_bands
from velatura.nets.rrdb import RRDB


def count(net):
    return sum(p.numel() for p in net.parameters())


def random_last(net):
    """Let it do something: a new net is the bicubic enlargement."""
    torch.nn.init.normal_(net.conv_last.weight, std=0.003)
    return net.eval()


def convolution(inputs, outputs):
    return 9 * inputs * outputs + outputs


def test_the_papers_network_is_one_of_these():
    """16,697,987 weights: what the authors' RRDB_ESRGAN_x4 has."""
    with torch.device("meta"):
        net = RRDB(4, width=64, growth=32, blocks=23, tail=64, residual=False)
    dense = sum(convolution(64 + 32 * i, 32) for i in range(4)) + convolution(64 + 4 * 32, 64)
    ends = convolution(3, 64) + 4 * convolution(64, 64) + convolution(64, 3)
    assert count(net) == 23 * 3 * dense + ends == 16_697_987
    names = [f"body.0.rdb1.conv{i}" for i in range(1, 6)]
    names += ["conv_first", "body.22.rdb3.conv5", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert {f"{name}.{kind}" for name in names for kind in ("weight", "bias")} <= set(net.state_dict())
    assert len(net.state_dict()) == 2 * (23 * 15 + 6)


def test_a_dense_block_by_its_equations():
    """Figure 4, written out once more from the weights alone."""
    net = RRDB(width=6, growth=4, blocks=1).double()
    dense = net.body[0].rdb2
    torch.nn.init.normal_(dense.conv5.weight)
    x = torch.rand(1, 6, 7, 8, dtype=torch.float64)
    seen_so_far = [x]
    for layer in (dense.conv1, dense.conv2, dense.conv3, dense.conv4):
        y = torch.nn.functional.conv2d(torch.cat(seen_so_far, 1), layer.weight, layer.bias, padding=1)
        seen_so_far.append(torch.where(y > 0, y, 0.2 * y))
    expected = x + 0.2 * dense.conv5(torch.cat(seen_so_far, 1))
    torch.testing.assert_close(dense(x, WHOLE), expected)
    inner = net.body[0].rdb3(dense(net.body[0].rdb1(x, WHOLE), WHOLE), WHOLE)
    torch.testing.assert_close(net.body[0](x, WHOLE), x + 0.2 * inner)


@pytest.mark.parametrize(("scale", "unshuffle"), [(4, 1), (2, 1), (2, 2), (1, 4), (1, 2)])
def test_shapes(scale, unshuffle):
    net = RRDB(scale, width=8, growth=4, blocks=1, tail=8, residual=scale > 1, unshuffle=unshuffle)
    assert net(torch.rand(2, 3, 8, 12)).shape == (2, 3, 8 * scale, 12 * scale)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 3}, "got scale 3 and unshuffle 1; expected a product of 2 or 4"),
        ({"scale": 4, "unshuffle": 2}, "got scale 4 and unshuffle 2"),
        ({"scale": 1, "unshuffle": 1}, "got scale 1 and unshuffle 1"),
        ({"scale": 1, "unshuffle": 4}, "expected residual=False"),
    ],
)
def test_what_it_cannot_do_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        RRDB(**values, width=4, growth=2, blocks=1, tail=4)


@pytest.mark.parametrize(("scale", "blocks", "radius"), [(2, 1, 19), (4, 1, 19), (4, 2, 34)])
def test_the_receptive_radius_is_exact(scale, blocks, radius):
    net = RRDB(scale, width=2, growth=1, blocks=blocks, tail=2)
    assert net.receptive_radius == radius
    assert seen(net) == ([-radius] * 2, [radius] * 2)


@pytest.mark.parametrize(("scale", "unshuffle"), [(2, 2), (1, 4), (1, 2)])
def test_the_receptive_radius_is_exact_behind_an_unshuffle(scale, unshuffle):
    """The farthest that any of the `unshuffle` pixels of a place sees."""
    net = RRDB(scale, width=2, growth=1, blocks=1, tail=2, residual=False, unshuffle=unshuffle).double()
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.02, 0.1)
    side = 4 * unshuffle * (net.receptive_radius // unshuffle // 2 + 2)
    up, down = [], []
    for row in range(side // 2, side // 2 + unshuffle):
        image = (1 + torch.rand(1, 3, side, unshuffle, dtype=torch.float64)).requires_grad_()
        net(image)[:, :, row * scale : (row + 1) * scale].square().sum().backward()
        rows = image.grad.abs().sum((0, 1, 3)).nonzero() - row
        up.append(-int(rows.min()))
        down.append(int(rows.max()))
    assert max(up) == max(down) == net.receptive_radius


@torch.no_grad()
def test_tiles_equal_the_whole():
    net = random_last(RRDB(2, width=8, growth=4, blocks=1, tail=8)).double()
    image = torch.rand(1, 3, 50, 30, dtype=torch.float64)
    halo = net.receptive_radius
    tile = net(image[:, :, 25 - halo :])[:, :, 2 * halo :]
    torch.testing.assert_close(tile, net(image)[:, :, 50:], atol=1e-12, rtol=0)


def test_it_begins_with_the_bicubic_enlargement():
    net, image = RRDB(width=8, growth=4, blocks=2), torch.rand(1, 3, 8, 9)
    assert torch.equal(net(image), net.enlarge(image))


@torch.no_grad()
def test_the_trunk_stays_float32():
    net = random_last(RRDB(width=16, growth=8, blocks=2)).to(memory_format=torch.channels_last)
    image, trunk, branches = torch.rand(1, 3, 16, 16), [], []
    for block in net.body:
        for dense in block.children():
            dense.register_forward_pre_hook(lambda _, inputs: trunk.append(inputs[0]))
            dense.conv5.register_forward_pre_hook(lambda _, inputs: branches.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(image)
    assert {x.dtype for x in trunk} == {torch.float32}
    assert {x.dtype for x in branches} == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in trunk)
    assert mixed.dtype == torch.float32
    assert (mixed - net(image)).abs().max() < 1 / 255


@torch.no_grad()
def test_without_the_bicubic_enlargement_the_image_is_not_rounded():
    net = RRDB(2, width=8, growth=4, blocks=1, residual=False)
    torch.nn.init.constant_(net.conv_last.bias, 0.7)
    torch.nn.init.zeros_(net.conv_last.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(torch.rand(1, 3, 6, 6)), torch.full((1, 3, 12, 12), 0.7))
    assert net.full_precision == ("conv_last",)


def test_it_is_made_without_memory_and_stores_weights_alone():
    with torch.device("meta"):
        net = RRDB()
    parts = {"conv_first", "body", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"}
    assert {name.split(".")[0] for name in net.state_dict()} == parts


@torch.inference_mode()
def test_bands_of_whole_places_pass_an_unshuffle():
    net = RRDB(2, width=4, growth=2, blocks=1, tail=4, unshuffle=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.rand(1, 3, 24, 6)
    parts = list(in_bands(net, [(image[:, :, :8], False), (image[:, :, 8:12], False), (image[:, :, 12:], True)]))
    torch.testing.assert_close(torch.cat(parts, 2), net(image), atol=1e-5, rtol=1e-5)
