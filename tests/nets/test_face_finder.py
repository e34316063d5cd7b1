import pytest
import torch
from torch import nn

from velatura.nets.face_finder import CHANNELS, STRIDE, UNIT, FaceFinder, cells, decode


def all_positive(net):
    """Nothing cancels, and no ReLU is closed."""
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.02, 0.1)
    return net.double()


@pytest.mark.parametrize("blocks", [(1, 3), (0, 1), (2, 2)])
def test_a_cell_sees_its_radius_and_no_more(blocks):
    net = all_positive(FaceFinder((2, 3), 4, blocks))
    count = 2 * (net.receptive_radius // STRIDE + 2) + 1
    image = (1 + torch.rand(1, 3, STRIDE * count, STRIDE * count, dtype=torch.float64)).requires_grad_()
    maps = net.last(net.body(net.first(image)))  # forward() gives float32, which is too coarse for this
    middle = count // 2
    maps[0, :, middle, middle].sum().backward()
    place = int(cells(image)[0, middle, middle])
    seen = image.grad.abs().sum((0, 1)).nonzero() - place
    assert seen.amin().item() == -net.receptive_radius
    assert seen.amax().item() == net.receptive_radius


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 9), (61, 80), (64, 7)])
def test_any_size_has_one_cell_for_every_eight_pixels(height, width):
    maps = FaceFinder((2, 2), 4, (0, 1))(torch.rand(2, 3, height, width))
    assert maps.shape == (2, CHANNELS, -(-height // STRIDE), -(-width // STRIDE))
    assert cells(torch.rand(height, width)).shape[1:] == maps.shape[2:]


def test_decoding_undoes_encoding():
    places = cells(torch.rand(40, 24))
    box, points = torch.tensor([3.0, -5.0, 43.0, 60.0]), torch.rand(5, 2) * 40
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    maps = torch.zeros(1, CHANNELS, *places.shape[1:])
    maps[0, 1:3] = (centre[:, None, None] - places) / UNIT
    maps[0, 3:5] = (size / UNIT).log()[:, None, None]
    maps[0, 5:] = ((points[..., None, None] - places) / UNIT).flatten(0, 1)
    boxes, landmarks = decode(maps, places)
    torch.testing.assert_close(boxes[0], box[:, None, None].expand_as(boxes[0]), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(landmarks[0], points[..., None, None].expand_as(landmarks[0]), atol=1e-4, rtol=1e-5)


def test_it_begins_sure_of_nothing_and_does_not_know_the_others_of_a_batch():
    torch.manual_seed(0)
    net, images = FaceFinder().eval(), torch.rand(3, 3, 32, 32)
    maps = net(images)
    assert maps[:, 0].sigmoid().max() < 0.1
    torch.testing.assert_close(net(images[1:2]), maps[1:2], atol=1e-5, rtol=1e-5)


def test_it_is_small():
    assert 0.1e6 <= sum(parameter.numel() for parameter in FaceFinder().parameters()) <= 0.3e6
