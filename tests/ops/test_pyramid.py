import numpy as np
import pytest

from velatura.ops.pyramid import double, double_window, fill_holes, fill_holes_in_bands, halve, halve_adjoint

SIZES = [(1, 1), (1, 6), (2, 3), (7, 9), (8, 10), (16, 5)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_halving_keeps_the_mean_of_even_sizes_and_any_constant(height, width):
    planes = np.random.default_rng(0).random((2, height, width))
    if height % 2 == width % 2 == 0:
        np.testing.assert_allclose(halve(planes).mean((1, 2)), planes.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(halve(np.full((height, width), 3.5)), 3.5)


def test_doubling_is_exact_on_a_ramp_away_from_the_border():
    fine = np.arange(16, dtype=np.float64)[None, None].repeat(4, 1)
    doubled = double(halve(fine), 4, 16)
    np.testing.assert_allclose(doubled[..., 1:-1], fine[..., 1:-1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_window_is_cut_from_the_whole(height, width):
    rng = np.random.default_rng(1)
    planes = rng.random((2, (height + 1) // 2, (width + 1) // 2))
    whole = double(planes, height, width)
    assert whole.shape == (2, height, width)
    for _ in range(20):
        top, bottom = sorted(rng.integers(0, height + 1, 2))
        left, right = sorted(rng.integers(0, width + 1, 2))
        if top < bottom and left < right:
            np.testing.assert_array_equal(
                double_window(planes, (top, bottom), (left, right)), whole[:, top:bottom, left:right]
            )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_adjoint_in_bands(height, width):
    rng = np.random.default_rng(2)
    coarse = rng.random((1, (height + 1) // 2, (width + 1) // 2))
    fine = rng.random((height, width))
    got = np.empty(coarse.shape[1:])
    for start in range(0, height, 4):
        rows = slice(start, min(start + 4, height))
        first = max(start - 1, 0)
        halve_adjoint(fine[first : rows.stop + 1], first, rows, height, out=got)
    assert (double(coarse, height, width)[0] * fine).sum() == pytest.approx(4 * (coarse[0] * got).sum())


def test_holes_are_filled_smoothly_and_the_known_is_kept():
    rng = np.random.default_rng(3)
    known = rng.random((40, 53)) < 0.3
    known[10:30, 10:40] = False
    flat = np.full((2, 40, 53), 7.0)
    np.testing.assert_allclose(fill_holes(np.where(known, flat, 99), known), flat, rtol=1e-6)
    planes = rng.random((2, 40, 53)).astype(np.float32)
    filled = fill_holes(np.where(known, planes, np.nan), known)
    np.testing.assert_array_equal(filled[:, known], planes[:, known])
    assert filled.min() >= 0
    assert filled.max() <= 1
    assert not fill_holes(planes, np.zeros((40, 53), bool)).any()


@pytest.mark.parametrize(("height", "width"), [*SIZES, (128, 4), (129, 33), (500, 37)])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 1])
def test_holes_are_filled_in_bands_as_in_the_whole(height, width, share):
    rng = np.random.default_rng(3)
    planes, known = rng.random((2, height, width), np.float32), rng.random((height, width)) < share
    known[height // 2 :] &= share == 1  # a hole that is larger than a band
    asked = []

    def rows(start, stop):
        asked.append(stop - start)
        return planes[:, start:stop], known[start:stop]

    bands = list(fill_holes_in_bands(rows, height))
    np.testing.assert_array_equal(np.concatenate(bands, 1), fill_holes(planes, known))
    assert max(asked) <= 160
