import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut, coffee

from velatura.ops.degrade import UNFADED, Fading, fade, grey, random_fading
from velatura.ops.fading import (
    COUNT,
    QUANTILES,
    SIDE,
    from_numbers,
    statistics,
    thumbnail,
    to_numbers,
    tone_only,
    undone,
)
from velatura.ops.resize import resize


@pytest.fixture(scope="module")
def photo():
    return coffee()[:300, :450].astype(np.float32) / 255


def small_of(image, known=None):
    known = np.ones(image.shape[:2], np.float32) if known is None else known
    return thumbnail(lambda start, stop: (image[start:stop], known[start:stop]), *image.shape[:2])


@pytest.mark.parametrize("shape", [(300, 450), (64, 64), (1, 7), (203, 31)])
def test_a_thumbnail_is_the_mean_over_its_cells(photo, shape):
    image = photo[: shape[0], : shape[1]]
    np.testing.assert_allclose(small_of(image), resize(image, SIDE, SIDE, "area"), atol=1e-5)


def test_what_is_damaged_is_left_out(photo):
    rng = np.random.default_rng(0)
    image = gaussian_filter(photo, (3, 3, 0))
    known = (rng.random(image.shape[:2]) > 0.3).astype(np.float32)
    known[100:140, 200:260] = 0  # whole cells
    hurt = np.where(known[..., None] > 0, image, np.float32(1))
    np.testing.assert_array_equal(small_of(hurt, known), small_of(np.where(known[..., None] > 0, image, 0.0), known))
    inside = np.abs(small_of(hurt, known) - small_of(image)).mean()
    assert inside < 0.01 < np.abs(small_of(hurt) - small_of(image)).mean()
    assert np.isfinite(small_of(hurt, np.zeros_like(known))).all()


def test_statistics_against_counting():
    colours = np.random.default_rng(1).random((2, 800, 3)).astype(np.float32)
    found = statistics(colours)
    assert found.shape == (2, COUNT)
    red = np.sort(colours[1, :, 0])[np.rint(QUANTILES * 799).astype(int)]
    np.testing.assert_array_equal(found[1, : len(QUANTILES)], red)
    luma = colours[1] @ np.float32([0.299, 0.587, 0.114])
    dark = np.argsort(luma)[:100]
    tints = colours[1, :, 0] - luma, colours[1, :, 2] - luma
    moments = found[1, 7 * len(QUANTILES) :].reshape(2, 2, 8)
    for channel, tint in enumerate(tints):
        assert moments[channel, 0, 0] == pytest.approx(tint[dark].mean(), abs=1e-5)
        assert moments[channel, 1, 0] == pytest.approx(tint[dark].std(), abs=1e-5)


def test_statistics_do_not_ask_where():
    colours = np.random.default_rng(2).random((1, 512, 3)).astype(np.float32)
    np.testing.assert_allclose(statistics(colours[:, ::-1]), statistics(colours), atol=1e-6)


def test_numbers_there_and_back():
    rng = np.random.default_rng(3)
    for _ in range(20):
        fading = random_fading(rng)
        again = from_numbers(to_numbers(fading))
        np.testing.assert_allclose(to_numbers(again), to_numbers(fading), atol=1e-6)
        assert all(black < white for black, white in zip(again.black, again.white, strict=True))


def test_undoing_gives_the_photograph_back(photo):
    rng = np.random.default_rng(4)
    for _ in range(5):
        fading = random_fading(rng)
        np.testing.assert_allclose(undone(fade(photo, fading), fading), photo, atol=2e-3)
    assert undone(photo, UNFADED) is photo


def test_one_channel_is_three_equal_ones():
    plane = astronaut()[:50, :60, :1].astype(np.float32) / 255
    fading = random_fading(np.random.default_rng(5))
    one = undone(plane, fading)
    assert one.shape == plane.shape
    three = undone(plane.repeat(3, 2), tone_only(fading))
    np.testing.assert_allclose(three, one.repeat(3, 2), atol=1e-6)


def test_tone_only_keeps_grey_grey(photo):
    fading = random_fading(np.random.default_rng(6))
    toned = fade(grey(photo), tone_only(fading))
    assert np.ptp(toned, axis=2).max() < 1e-6
    assert np.ptp(fade(grey(photo), fading), axis=2).max() > 0.02
    assert np.allclose(to_numbers(tone_only(fading))[:3], np.mean(fading.black), atol=1e-5)
    assert tone_only(UNFADED) == UNFADED
    assert tone_only(Fading(saturation=0.5)) == UNFADED
