import pytest
import torch
from torch import nn
from upscalers import make

from velatura.errors import MachineError
from velatura.nets.tiles import LEAST, in_tiles


def reader(image):
    return lambda start, stop: image[:, :, start:stop]


class Watched(nn.Module):
    """Keeps the sizes that it saw, and has memory for `most` pixels."""

    def __init__(self, network, most=10**9):
        super().__init__()
        self.network, self.most, self.seen = network, most, []
        self.scale = network.scale
        self.error = torch.OutOfMemoryError("no memory")

    def forward(self, image):
        if image.shape[2] * image.shape[3] > self.most:
            raise self.error
        self.seen.append(tuple(image.shape[2:]))
        return self.network(image)


@pytest.mark.parametrize("side", [7, 16, 40, 100])
@torch.inference_mode()
def test_tiles_with_the_receptive_radius_give_the_whole(side):
    network, image = make("srvgg").double(), torch.rand(1, 3, 33, 50, dtype=torch.float64)
    watched = Watched(network)
    parts = list(in_tiles(watched, reader(image), 33, 50, side, network.receptive_radius))
    torch.testing.assert_close(torch.cat(parts, 2), network(image), atol=1e-12, rtol=0)
    assert [part.shape[2] for part in parts] == [4 * min(side, 33 - top) for top in range(0, 33, side)]
    assert max(max(size) for size in watched.seen) <= side + 2 * network.receptive_radius


@torch.inference_mode()
def test_too_small_a_halo_shows():
    network, image = make("srvgg").double(), torch.rand(1, 3, 33, 50, dtype=torch.float64)
    parts = torch.cat(list(in_tiles(network, reader(image), 33, 50, 16, network.receptive_radius - 2)), 2)
    assert (parts - network(image)).abs().max() > 1e-6


@torch.inference_mode()
def test_out_of_memory_halves_the_tiles_and_says_so():
    network, image = make("srvgg").double(), torch.rand(1, 3, 70, 50, dtype=torch.float64)
    watched = Watched(network, most=(20 + 2 * network.receptive_radius) ** 2)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with tiles of (40|20) pixels") as warned:
        parts = list(in_tiles(watched, reader(image), 70, 50, 80, network.receptive_radius))
    assert len(warned) == 2  # and not once more for every row of tiles
    torch.testing.assert_close(torch.cat(parts, 2), network(image), atol=1e-12, rtol=0)


def test_no_memory_at_all():
    network = Watched(make("srvgg"), most=0)
    tiles = in_tiles(network, reader(torch.rand(1, 3, 40, 40)), 40, 40, LEAST, 5)
    with pytest.raises(MachineError, match="out of memory, even for the smallest tile"):
        next(tiles)


def test_other_errors_pass():
    network = Watched(make("srvgg"), most=0)
    network.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        next(in_tiles(network, reader(torch.rand(1, 3, 40, 40)), 40, 40, 32, 5))


class Windows(nn.Module):
    """Looks at the place of every pixel in its window of 24, as a transformer does."""

    scale, multiple = 1, 24

    def forward(self, image):
        rows, cols = (torch.arange(size) % self.multiple for size in image.shape[2:])
        return image + rows[:, None] + cols


@pytest.mark.parametrize("most", [10**9, 75**2])
@pytest.mark.filterwarnings("ignore:out of memory")
@torch.inference_mode()
def test_tiles_begin_where_windows_do(most):
    network, image = Windows(), torch.rand(1, 3, 100, 130)
    watched = Watched(network, most)
    watched.multiple = network.multiple
    parts = list(in_tiles(watched, reader(image), 100, 130, 48, 24))
    assert torch.equal(torch.cat(parts, 2), network(image))
