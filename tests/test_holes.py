"""Where holes are; what is filled of them is tested with the application."""

import numpy as np
import pytest

from velatura.errors import InputError
from velatura.holes import CELL, LEAST_CONTEXT, Region, compose, find_coverage, find_regions, in_pieces, is_known
from velatura.image import Picture

PICTURE = Picture(np.arange(60 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 3))


def test_mask_box_and_colour_add_up():
    mask = np.zeros((60, 80), np.uint8)
    mask[5, 5] = 100
    painted = PICTURE.pixels.copy()
    painted[40:44, 60:64] = (255, 0, 255)
    coverage = find_coverage(Picture(painted), mask, (20, 10, 4, 3), "ff00ff")
    assert (coverage[5, 5], coverage[10:13, 20:24].min(), coverage[40:44, 60:64].min()) == (100, 255, 255)
    assert mask.sum() == 100  # what is given is never changed


def test_transparent_pixels_are_the_hole_if_nothing_else_is_said():
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:10, :10] = 0
    alpha[20, 20] = 1
    coverage = find_coverage(PICTURE.replace(alpha=alpha), None)
    assert coverage.sum() == 255 * 100
    with pytest.raises(InputError, match="no hole to fill"):
        find_coverage(PICTURE, None)


def test_holes_near_each_other_are_one_region():
    coverage = np.zeros((60, 80), np.uint8)
    coverage[5:8, 5:8] = coverage[5:8, 20:23] = coverage[40:50, 60:70] = 255
    near, far = find_regions(coverage, None)
    # A region's box holds all of its holes, and its surroundings hold the box.
    assert (near.inner[1].start <= 5, near.inner[1].stop >= 23, near.inner[1].stop < 60) == (True, True, True)
    assert far.inner[0].start <= 40
    assert far.outer[0].start <= far.inner[0].start
    rows, cols = far.within
    assert np.array_equal(coverage[far.outer][rows, cols], coverage[far.inner])


@pytest.fixture
def scratch():
    """A line of three pixels across and down 1300 x 1500."""
    coverage = np.zeros((1300, 1500), np.uint8)
    for x in range(1500):
        y = 10 + x * 1270 // 1500
        coverage[y : y + 3, x] = 255
    return coverage


def test_long_thin_holes_are_cut_into_pieces_that_go_on_from_those_before(scratch):
    (region,) = find_regions(scratch, None)
    pieces, owned = in_pieces(region, scratch == 0, 5), np.zeros(scratch.shape, int)
    for number, piece in enumerate(pieces):
        owned[piece.inner] += piece.own
        assert max(part.stop - part.start for part in piece.outer) <= CELL + 2 * LEAST_CONTEXT
        touching = [5 + i for i in range(number) if np.any(owned_by(pieces[i], scratch.shape)[piece.outer])]
        assert set(touching) <= set(piece.before) <= set(range(5, 5 + number))
    assert np.array_equal(owned, scratch > 0)  # each pixel is one piece's
    assert len(pieces) >= 3
    assert any(piece.before for piece in pieces)
    assert sum(piece.share for piece in pieces) == pytest.approx(1)


def owned_by(region, shape):
    found = np.zeros(shape, bool)
    found[region.inner] = region.own
    return found


def test_a_thick_hole_and_one_with_nothing_known_near_it_are_never_cut(scratch):
    known = np.zeros(scratch.shape, bool)
    known[:, :200] = True
    (region,) = find_regions(scratch, known * np.uint8(255))
    assert in_pieces(region, known & (scratch == 0), 0) == [region]
    scratch[520:560, 600:640] = 255  # on the line
    (region,) = find_regions(scratch, None)
    assert in_pieces(region, scratch == 0, 0) == [region]


def test_where_a_region_and_a_box_overlap():
    region = Region((slice(10, 20), slice(30, 50)), (slice(0, 40), slice(0, 60)), np.ones((10, 20), bool))
    here, there = region.overlap((slice(15, 90), slice(0, 35)))
    assert here == (slice(0, 5), slice(30, 35))
    assert there == (slice(5, 10), slice(0, 5))


def test_rows_change_where_something_is_covered_and_nowhere_else():
    coverage = np.zeros((60, 80), np.uint8)
    coverage[5:8, 5:8] = 255
    coverage[30, 30] = 51
    regions = find_regions(coverage, None)
    fills = [np.ones((*coverage[region.inner].shape, 3), np.float32) for region in regions]
    made = np.concatenate(list(compose(PICTURE, coverage, regions, fills)))
    assert (made[5:8, 5:8] == 255).all()
    before = PICTURE.pixels[30, 30].astype(float)
    assert np.abs(made[30, 30] - (before + 0.2 * (255 - before))).max() <= 0.5
    assert np.array_equal(made[coverage == 0], PICTURE.pixels[coverage == 0])


@pytest.mark.parametrize(
    ("has_mask", "color", "complaint"),
    [
        (True, None, "nothing to fill: no pixel of the mask is white$"),
        (False, "123456", "nothing to fill: no pixel of the image is painted in 123456$"),
        (True, "123456", "no pixel of the mask is white, and no pixel of the image is painted in 123456$"),
        (False, None, "nothing to fill: no pixel of the image is fully transparent; give a mask, a box"),
    ],
)
def test_what_shows_no_hole_is_named(has_mask, color, complaint):
    picture = Picture(np.full((9, 9, 3), 200, np.uint8), np.full((9, 9), 255, np.uint8))
    with pytest.raises(InputError, match=complaint):
        find_coverage(picture, np.zeros((9, 9), np.uint8) if has_mask else None, None, color)


@pytest.mark.parametrize(("level", "expected"), [(255, 255), (128, 64 + 128 / 255 * (255 - 64))])
def test_a_hole_within_anothers_box_keeps_its_own_fill(level, expected):
    coverage = np.zeros((160, 170), np.uint8)
    coverage[20:60, 100:140] = coverage[40:140, 20:26] = coverage[134:140, 20:150] = level  # a square, and an L
    picture = Picture(np.full((160, 170, 1), 64, np.uint8))
    regions = find_regions(coverage, None)
    square, corner = sorted(regions, key=lambda region: region.own.sum())[::-1]
    assert (square.own.sum(), corner.own.sum()) == (40 * 40, 100 * 6 + 6 * 124)
    for order in ([square, corner], [corner, square]):
        fills = [np.full((*region.own.shape, 1), region is square, np.float32) for region in order]
        made = np.concatenate(list(compose(picture, coverage, order, fills)))[..., 0]
        assert np.abs(made[20:60, 100:140] - expected).max() <= 0.5
        assert np.abs(made[134:140, 20:150] - 64 * (1 - level / 255)).max() <= 0.5


def test_what_is_not_seen_is_not_known():
    assert is_known(np.uint8([[0, 255, 0]]), np.uint8([[255, 255, 0]])).tolist() == [[True, False, False]]
