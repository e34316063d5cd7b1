import numpy as np
import pytest

from velatura.tiling import tile_side, tiles


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 17), (64, 64), (100, 33)])
@pytest.mark.parametrize("side", [1, 16, 200])
@pytest.mark.parametrize("halo", [0, 3, 40])
def test_inner_regions_cover_everything_once(height, width, side, halo):
    image = np.arange(height * width).reshape(height, width)
    out = np.full_like(image, -1)
    for tile in tiles(height, width, side, halo):
        assert (out[tile.inner] == -1).all()
        outer = image[tile.outer]
        assert outer.shape <= (side + 2 * halo, side + 2 * halo)
        out[tile.inner] = outer[tile.crop]
    np.testing.assert_array_equal(out, image)


def test_the_halo_is_there_wherever_the_image_is():
    for tile in tiles(50, 70, 16, 5):
        for inner, outer, size in ((tile.inner_rows, tile.outer_rows, 50), (tile.inner_cols, tile.outer_cols, 70)):
            assert outer == (max(inner[0] - 5, 0), min(inner[1] + 5, size))


@pytest.mark.parametrize(("side", "halo"), [(0, 1), (4, -1)])
def test_nonsense_is_refused(side, halo):
    with pytest.raises(ValueError, match="expected side"):
        next(tiles(4, 4, side, halo))


def test_the_budget_is_kept():
    for budget in (8, 64, 512):
        side = tile_side(budget, bytes_per_pixel=60, halo=12)
        assert side % 16 == 0
        assert (side + 24) ** 2 * 60 <= budget * 2**20
    assert tile_side(0.001, bytes_per_pixel=60, halo=12) == 16  # something must be possible
