import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.draw import ellipse as skimage_ellipse
from skimage.draw import polygon2mask

from velatura.ops import masks


def test_centre_square_is_the_papers():
    mask = masks.centre_square(64, 64)
    assert mask.dtype == np.float32
    assert mask.sum() == 32 * 32
    assert mask[16:48, 16:48].all()


def test_centre_square_of_an_oblong_image():
    mask = masks.centre_square(10, 20, 0.6)
    assert mask.sum() == 36
    assert mask[2:8, 7:13].all()


def test_ellipse_equals_scikit_image():
    expected = np.zeros((50, 60), np.float32)
    # Its pixels' centres lie at whole numbers, and it turns the other way.
    expected[skimage_ellipse(21.5, 29.5, 9.3, 17.2, shape=expected.shape, rotation=-0.4)] = 1
    drawn = masks.ellipse(50, 60, (30, 22), (17.2, 9.3), angle=0.4)
    assert np.abs(drawn - expected).sum() <= 2


def test_polygon_equals_scikit_image():
    corners = np.array([[3.2, 4.1], [40.7, 8.3], [30.3, 44.9], [22.4, 17.6], [6.9, 38.2]])
    expected = polygon2mask((48, 48), corners[:, ::-1] - 0.5)
    drawn = masks.polygon(48, 48, corners)
    assert 0.1 < drawn.mean() < 0.6
    assert np.abs(drawn - expected).sum() <= 3  # pixels that an edge meets exactly


@pytest.mark.parametrize("sigma", [0.6, 2.0, 7.5])
def test_soften_equals_scipy(sigma):
    mask = masks.rectangle(40, 30, 0, 5, 12, 25)
    expected = gaussian_filter(mask, sigma, mode="nearest", radius=int(np.ceil(4 * sigma)))
    np.testing.assert_allclose(masks.soften(mask, sigma), expected, atol=1e-5)


def test_random_masks_keep_their_promises():
    rng = np.random.default_rng(3)
    drawn = np.stack([masks.random_mask(64, 64, rng) for _ in range(300)])
    area = drawn.mean(axis=(1, 2))
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert area.min() > 0.01
    assert area.max() < 0.65
    centre = (drawn == masks.centre_square(64, 64)).all(axis=(1, 2)).mean()
    assert 0.08 < centre < 0.2  # a fifth, less those with a soft edge
    soft = ((drawn > 0) & (drawn < 1)).any(axis=(1, 2)).mean()
    assert 0.2 < soft < 0.4
    at_border = (drawn[:, 0].max(1) > 0.5).mean()
    assert 0.02 < at_border < 0.5


def test_the_same_seed_draws_the_same_mask():
    first, second = (masks.random_mask(32, 48, np.random.default_rng(11)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
