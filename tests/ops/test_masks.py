import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
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


def test_halves_make_a_whole():
    left, right, top, bottom = (masks.half(6, 8, side) for side in masks.SIDES)
    assert left[:, :4].all()
    assert top[:3].all()
    for one, other in ((left, right), (top, bottom)):
        np.testing.assert_array_equal(one + other, np.ones((6, 8), np.float32))


def test_random_pixels_are_independent():
    drawn = np.stack([masks.random_pixels(64, 64, np.random.default_rng(seed)) for seed in range(20)])
    assert drawn.mean() == pytest.approx(0.8, abs=0.005)
    neighbours = np.corrcoef(drawn[:, :, 1:].ravel(), drawn[:, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.02


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_blobs_cover_their_share(share):
    drawn = masks.random_blob(64, 64, np.random.default_rng(5), share)
    assert drawn.mean() == pytest.approx(share, abs=0.01)
    # Pixels hang together: few have a neighbour of the other kind.
    assert np.abs(np.diff(drawn, axis=1)).mean() < 0.2


def parts(mask):
    return label(mask)[1]


def test_strokes_and_lesions():
    rng = np.random.default_rng(0)
    strokes = [masks.random_strokes(64, 64, rng) for _ in range(50)]
    lesions = [masks.random_lesion(64, 64, rng) for _ in range(50)]
    assert all(parts(mask) <= 5 for mask in strokes)
    assert all(parts(mask) <= 2 for mask in lesions)  # an outline may cut a corner of itself off
    assert np.mean([parts(mask) == 1 for mask in lesions]) > 0.9
    assert 0.05 < np.mean(strokes) < 0.4
    assert 0.005 < np.mean(lesions) < 0.08


def test_lesions_of_a_given_radius():
    drawn = [masks.random_lesion(64, 64, np.random.default_rng(i), 0.1, 0.1) for i in range(50)]
    round_one = np.pi * 0.1**2
    assert 0.6 * round_one < np.mean(drawn) < round_one  # flattened by 0.6 to 1
    again = masks.random_lesion(64, 64, np.random.default_rng(3), 0.1, 0.1)
    np.testing.assert_array_equal(drawn[3], again)


def test_holes_are_of_every_kind():
    rng = np.random.default_rng(1)
    drawn = np.stack([masks.random_hole(64, 64, rng) for _ in range(400)])
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == {0, 1}
    area = drawn.mean(axis=(1, 2))
    assert area.min() > 0
    assert area.max() < 1
    assert (area < 0.1).mean() > 0.1
    assert (area > 0.85).mean() > 0.05
    centre = (drawn == masks.centre_square(64, 64)).all(axis=(1, 2)).mean()
    halves = np.mean([any((mask == masks.half(64, 64, side)).all() for side in masks.SIDES) for mask in drawn])
    assert 0.04 < centre < 0.14
    assert 0.11 < halves < 0.23
    np.testing.assert_array_equal(drawn[0], masks.random_hole(64, 64, np.random.default_rng(1)))
