import numpy as np
import pytest

from velatura.tiling import RowBuffer, tile_side, tiles


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


def bands(heights):
    """Rows of (h, 2, 3), numbered."""
    top = 0
    for height in heights:
        yield np.arange(top, top + height)[:, None, None] * np.ones((1, 2, 3), int)
        top += height


def numbers(rows):
    return rows[:, 0, 0].tolist()


@pytest.mark.parametrize("heights", [[20], [1] * 20, [7, 0, 6, 7], [3, 17]])
def test_windows_of_rows_that_pass_by(heights):
    rows = RowBuffer(bands(heights))
    for start, stop in ((0, 3), (0, 8), (2, 4), (2, 9), (8, 9), (8, 20), (11, 12), (19, 20)):
        assert numbers(rows.window(start, stop)) == list(range(start, stop))


def test_rows_may_be_left_out():
    rows = RowBuffer(bands([4] * 5))
    assert numbers(rows.window(13, 15)) == [13, 14]
    assert numbers(rows.window(15, 20)) == list(range(15, 20))


def test_no_more_rows_are_taken_and_kept_than_needed():
    taken = []

    def counted():
        for band in bands([2] * 10):
            taken.append(len(band))
            yield band

    rows = RowBuffer(counted())
    rows.window(0, 3)
    assert sum(taken) == 4
    rows.window(8, 9)
    assert sum(taken) == 10
    assert sum(len(band) for band in rows._kept) == 2


def test_rows_that_are_gone_or_never_come_are_named():
    rows = RowBuffer(bands([4, 4]))
    rows.window(4, 6)
    with pytest.raises(ValueError, match="row 3 is gone; the first that is kept is 4"):
        rows.window(3, 6)
    with pytest.raises(ValueError, match="rows end at 8; 9 were asked for"):
        rows.window(5, 9)
