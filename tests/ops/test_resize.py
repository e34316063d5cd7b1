import numpy as np
import pytest
from skimage.transform import resize as skimage_resize

from velatura.ops.resize import resize, weights


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
