import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from skimage import data

from velatura.ops.consistency import MARGIN, Shrinking
from velatura.ops.resize import resize, weights
from velatura.tiling import tiles

KERNELS = ["bicubic", "area", "linear", "lanczos"]
SIZES = [((32, 40), (8, 10)), ((33, 47), (10, 14)), ((20, 20), (20, 10)), ((9, 30), (1, 7))]


def whole(size, small, kernel):
    return Shrinking(size, small, kernel).window((0, small[0]), (0, small[1]))


def random(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "small"), SIZES)
def test_down_is_the_resampling(kernel, size, small):
    large = random(*size, 3)
    np.testing.assert_allclose(whole(size, small, kernel).down(large), resize(large, *small, kernel), atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "small"), SIZES)
def test_up_is_the_pseudo_inverse(kernel, size, small):
    """Against NumPy's, by singular values."""
    values = random(*small, 2)
    vertical, horizontal = (np.linalg.pinv(weights(*pair, kernel).toarray()) for pair in zip(size, small, strict=True))
    expected = np.einsum("yh,xw,hwc->yxc", vertical, horizontal, values.astype(np.float64))
    np.testing.assert_allclose(whole(size, small, kernel).up(values), expected, atol=2e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_projecting_changes_as_little_as_possible(kernel):
    """What is added lies in the range of the transpose: every change that shrinking cannot see is a right angle off."""
    window, large, small = whole((24, 28), (6, 7), kernel), random(24, 28, 1), random(6, 7, 1)
    change = window.project(large, small, clip=False) - large
    np.testing.assert_allclose(window.down(large + change), small, atol=1e-5)
    unseen = random(24, 28, 1)
    unseen = unseen - window.up(window.down(unseen))
    np.testing.assert_allclose(window.down(unseen), 0, atol=1e-5)
    cosine = (change * unseen).sum() / np.linalg.norm(change) / np.linalg.norm(unseen)
    assert abs(cosine) < 1e-4


def test_projecting_twice_changes_nothing_more():
    window, large, small = whole((24, 28), (6, 7), "bicubic"), random(24, 28, 3), random(6, 7, 3)
    once = window.project(large, small, clip=False)
    np.testing.assert_allclose(window.project(once, small, clip=False), once, atol=1e-5)


@pytest.mark.parametrize("kernel", ["bicubic", "area", "lanczos"])
@pytest.mark.parametrize("scale", [2, 3.3, 4])
def test_within_black_and_white_the_tolerance_is_met(kernel, scale):
    small = 40, 50
    size = round(40 * scale), round(50 * scale)
    photo = data.coffee()[: size[0], 200 : 200 + size[1]].astype(np.float32) / 255
    given = resize(photo, *small, kernel).clip(0, 1)
    start = np.clip(resize(given, *size, "linear") * 1.2 - 0.1, 0, 1)
    result = whole(size, small, kernel).project(start, given)
    assert result.min() >= 0
    assert result.max() <= 1
    assert np.abs(resize(result, *small, kernel) - given).max() <= 0.31 / 255


@pytest.mark.parametrize("kernel", ["bicubic", "area", "lanczos"])
def test_windows_with_the_margin_give_what_the_whole_gives(kernel):
    size, small = (160, 24), (40, 6)
    large, given = random(*size, 1), random(*small, 1)
    shrinking = Shrinking(size, small, kernel)
    expected = shrinking.window((0, 40), (0, 6)).project(large, given, clip=False)
    for top, bottom in ((0, 8), (15, 25), (32, 40)):
        around = max(top - MARGIN, 0), min(bottom + MARGIN, 40)
        window = shrinking.window(around, (0, 6))
        first, last = window.row_span
        made = window.project(large[first:last], given[slice(*around)], clip=False)
        rows = slice(4 * top - first, 4 * bottom - first)
        assert np.abs(made[rows] - expected[4 * top : 4 * bottom]).max() * 255 < 0.01
    assert window.col_span == (0, 24)


def test_it_is_the_same_from_strip_to_strip():
    """Parts of columns are kept, those of rows are not: neither may change what comes out."""
    shrinking = Shrinking((40, 40), (10, 10))
    large, small = random(40, 40, 1), random(10, 10, 1)
    first = shrinking.window((0, 10), (0, 10)).up(small)
    shrinking.window((2, 5), (0, 10))
    np.testing.assert_array_equal(shrinking.window((0, 10), (0, 10)).up(small), first)
    assert large.dtype == first.dtype


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_between_black_and_white_it_is_the_nearest_image(kernel):
    """Against scipy's solver of quadratic programmes."""
    size, small = (12, 12), (3, 3)
    window, large = whole(size, small, kernel), random(*size, 1)
    # Bright enough to be cut at white, and made by shrinking, so that there is an answer.
    given = window.down(np.clip(random(*size, 1) * 1.6, 0, 1))
    matrix = np.kron(*(weights(*pair, kernel).toarray() for pair in zip(size, small, strict=True)))
    start = large.ravel().astype(np.float64)
    found = minimize(
        lambda y: ((y - start) ** 2).sum(),
        start,
        jac=lambda y: 2 * (y - start),
        method="SLSQP",
        bounds=[(0, 1)] * start.size,
        constraints={"type": "eq", "fun": lambda y: matrix @ y - given.ravel(), "jac": lambda _: matrix},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert found.success
    assert (found.x > 1 - 1e-6).sum() > 10
    result = window.project(large, given, tolerance=1e-6)
    np.testing.assert_allclose(result.ravel(), found.x, atol=1 / 255)


def bright():
    """Whites are cut, and it was made by shrinking."""
    return np.clip(resize(data.coffee()[:384, :576], 96, 144, "bicubic") / 255 * 2.2, 0, 1).astype(np.float32)


def sharpened():
    """No image between black and white shrinks to it."""
    plain = data.astronaut()[60:170, 150:290] / 255
    return np.clip(2 * plain - gaussian_filter(plain, (1, 1, 0)), 0, 1).astype(np.float32)


@pytest.mark.parametrize("make", [bright, sharpened])
def test_windows_do_not_decide_what_becomes_of_clipped_whites(make):
    given = make()
    height, width, _ = given.shape
    noise = np.random.default_rng(0).normal(0, 0.03, (4 * height, 4 * width, 3))
    large = np.clip(resize(given, 4 * height, 4 * width, "lanczos") + noise, 0, 1).astype(np.float32)
    shrinking = Shrinking(large.shape[:2], given.shape[:2])

    def by_windows(side):
        made = np.empty(large.shape, np.int64)
        for tile in tiles(height, width, side, MARGIN):
            window = shrinking.window(tile.outer_rows, tile.outer_cols)
            (top, bottom), (left, right) = window.row_span, window.col_span
            part = window.project(large[top:bottom, left:right], given[tile.outer])
            (first, last), (near, far) = ([4 * side for side in inner] for inner in (tile.inner_rows, tile.inner_cols))
            made[first:last, near:far] = np.rint(part[first - top : last - top, near - left : far - left] * 255)
        return made

    expected = by_windows(max(height, width))
    assert np.isin(expected, (0, 255)).mean() > 0.02  # or nothing was cut
    assert max(np.abs(by_windows(side) - expected).max() for side in (64, 40)) <= 1
