import numpy as np
import pytest

from velatura.image import Picture
from velatura.placement import ColourMap, place


@pytest.fixture
def piece():
    rng = np.random.default_rng(0)
    source = Picture(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    destination = Picture(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 12:41] = 255
    return place(source, destination, mask, at=(60, 20), margin=4), source, destination, mask


def test_the_piece_is_cut_to_its_mask_and_margin(piece):
    piece, source, _, mask = piece
    assert piece.support == ((30, 50), (72, 101))
    assert piece.bounds == ((26, 54), (68, 105))
    np.testing.assert_array_equal(piece.source, source.pixels[6:34, 8:45])
    np.testing.assert_array_equal(piece.matte, mask[6:34, 8:45])


def test_windows_are_cut_from_the_whole(piece):
    piece, *_ = piece
    everything = (0, 90), (0, 120)
    coverage, contrast = piece.coverage(*everything), piece.contrast(*everything)
    rng = np.random.default_rng(1)
    for _ in range(30):
        top, left = rng.integers(0, 85), rng.integers(0, 115)
        rows, cols = (top, rng.integers(top + 1, 91)), (left, rng.integers(left + 1, 121))
        np.testing.assert_array_equal(piece.coverage(rows, cols), coverage[slice(*rows), slice(*cols)])
        np.testing.assert_array_equal(piece.contrast(rows, cols), contrast[:, slice(*rows), slice(*cols)])


def test_contrast_is_source_minus_destination(piece):
    piece, source, destination, _ = piece
    (top, bottom), (left, right) = piece.bounds
    expected = source.pixels[6:34, 8:45].astype(float) - destination.pixels[top:bottom, left:right]
    got = np.moveaxis(piece.contrast((top, bottom), (left, right)), 0, -1)
    np.testing.assert_allclose(got, expected / 255, atol=1e-6)


@pytest.mark.parametrize("window", [((0, 90), (0, 120)), ((24, 70), (60, 110)), ((31, 50), (75, 100))])
@pytest.mark.parametrize("most", [7, 20, 200])
def test_thinning_takes_the_same_grid_of_both(piece, window, most):
    piece, *_ = piece
    thin = piece.thinned(*window, most)
    steps = [max((stop - start) // most, 1) for start, stop in window]
    whole = (0, thin.shape[1]), (0, thin.shape[2])
    for name in ("coverage", "contrast"):
        expected = getattr(piece, name)(*window)[..., :: steps[0], :: steps[1]]
        got = getattr(thin, name)(*whole)
        # Outside of the mask the source's border repeats itself, on either grid another pixel of it.
        inside = piece.coverage(*window)[:: steps[0], :: steps[1]] > 0
        np.testing.assert_array_equal(got[..., inside], expected[..., inside])


def test_a_colour_map_is_linear_interpolation_of_matrices_and_offsets(piece):
    from dataclasses import replace

    from scipy.ndimage import map_coordinates

    piece, *_ = piece
    rng = np.random.default_rng(2)
    planes = rng.normal(0, 0.1, (12, 8, 9)).astype(np.float32)
    window = (10, 50, 60, 65)
    coloured = replace(piece, colours=ColourMap(planes, window))
    rows, cols = (24, 57), (66, 110)
    y, x = np.mgrid[slice(*rows), slice(*cols)]
    grid = [(y + 0.5 - 10) * 8 / 60 - 0.5, (x + 0.5 - 50) * 9 / 65 - 0.5]
    fine = np.stack([map_coordinates(plane, grid, order=1, mode="nearest") for plane in planes])
    destination = np.moveaxis(piece.destination.pixels[slice(*rows), slice(*cols)], -1, 0) / 255.0
    # Beyond the source its border's contrast repeats itself, with the colours that are looked up there.
    (top, bottom), (left, right) = piece.bounds
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    source = piece.contrast(rows, cols) + destination
    expected = source + np.einsum("ijhw,jhw->ihw", fine[:9].reshape(3, 3, *y.shape), source) + fine[9:]
    got = coloured.contrast(rows, cols) + destination
    np.testing.assert_allclose(got[:, inside], np.clip(expected, 0, 1)[:, inside], atol=1e-5)
