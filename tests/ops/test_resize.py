import numpy as np
import pytest
from skimage.transform import resize as skimage_resize

from velatura.ops.resize import RowResize, resize, weights


@pytest.mark.parametrize("kernel", ["area", "linear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "new_size"), [(7, 3), (3, 7), (12, 4), (5, 5), (1, 9), (9, 1)])
def test_rows_sum_to_one(kernel, size, new_size):
    matrix = weights(size, new_size, kernel)
    assert matrix.shape == (new_size, size)
    np.testing.assert_allclose(matrix.sum(1), 1)


def test_area_is_the_mean_of_blocks():
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    blocks = image.reshape(4, 3, 5, 4, 3).mean((1, 3))
    np.testing.assert_allclose(resize(image, 4, 5, "area"), blocks, rtol=1e-6)


def test_linear_enlargement_matches_scikit_image():
    image = np.random.default_rng(1).random((9, 11))
    expected = skimage_resize(image, (27, 22), order=1, mode="symmetric", anti_aliasing=False)
    np.testing.assert_allclose(resize(image, 27, 22, "linear"), expected, atol=1e-12)


def test_bicubic_by_the_formula_of_keys():
    # Enlarging by 2: a new pixel lies 1/4 beside an old one; Keys 1981 with a = -0.5 at 1.25, .25, .75, 1.75.
    matrix = weights(8, 16, "bicubic").toarray()
    np.testing.assert_allclose(matrix[8, 2:6], [-0.0234375, 0.2265625, 0.8671875, -0.0703125])


def test_shrinking_widens_the_kernel():
    # A pattern of single pixels must become grey, not alias.
    stripes = np.tile([0.0, 1.0], 32)[None].repeat(8, 0)
    small = resize(stripes, 8, 13, "bicubic")
    np.testing.assert_allclose(small[:, 2:-2], 0.5, atol=0.03)


@pytest.mark.parametrize("kernel", ["area", "linear", "bicubic"])
def test_a_part_is_cut_from_the_whole(kernel):
    image = np.random.default_rng(2).integers(0, 256, (17, 500, 3), dtype=np.uint8)
    whole = resize(image, 40, 31, kernel)
    part = resize(image, 40, 31, kernel, rows=slice(5, 22), cols=slice(0, 9))
    np.testing.assert_allclose(part, whole[5:22, :9], rtol=1e-6)


@pytest.mark.parametrize("kernel", ["area", "linear", "bicubic", "lanczos"])
@pytest.mark.parametrize("new_size", [(70, 55), (23, 90), (9, 4), (40, 30)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_rows_that_pass_by_give_the_whole(kernel, new_size, channels):
    image = np.random.default_rng(3).random((40, 30, *channels)).astype(np.float32)
    whole, change = resize(image, *new_size, kernel), RowResize((40, 30), new_size, kernel)
    last = 0
    for top in range(0, new_size[0], 7):
        rows = top, min(top + 7, new_size[0])
        start, stop = change.needs(rows)
        assert 0 <= last <= start < stop <= 40  # windows only move down
        np.testing.assert_allclose(change.rows(image[start:stop], start, rows), whole[slice(*rows)], atol=1e-6)
        # More rows than needed do no harm.
        np.testing.assert_allclose(change.rows(image[start:], start, rows), whole[slice(*rows)], atol=1e-6)
        last = start


def test_rows_keep_double_precision():
    image = np.random.default_rng(3).random((9, 9))
    change = RowResize((9, 9), (5, 5))
    assert change.rows(image, 0, (0, 5)).dtype == np.float64
    np.testing.assert_allclose(change.rows(image, 0, (0, 5)), resize(image, 5, 5), atol=1e-15)


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
@pytest.mark.parametrize("new_size", [13, 40, 77])
def test_against_the_kernel_evaluated_for_every_pair(kernel, new_size):
    """Dense and in float64: antialiased, mirrored beyond the border, weights summing to one (MATLAB's imresize)."""
    size = 31
    formulas = {
        "bicubic": lambda x: np.where(
            x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x <= 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
        ),
        "lanczos": lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0),
    }
    stretch = max(size / new_size, 1)
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    places = np.arange(-size, 2 * size)
    dense = formulas[kernel](np.abs(places - centres[:, None]) / stretch)
    dense /= dense.sum(1, keepdims=True)
    mirrored = dense[:, :size][:, ::-1] + dense[:, size : 2 * size] + dense[:, 2 * size :][:, ::-1]
    np.testing.assert_allclose(weights(size, new_size, kernel).toarray(), mirrored, atol=1e-12)
