import io
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.special import j1
from skimage.data import astronaut

from velatura.ops import degrade

PHOTO = astronaut()[100:292, 100:292]
UNIT = (PHOTO / 255).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- blur -------------------------------------------------------------------------------------------------------------


def test_a_round_gaussian_is_scipys():
    blurred = degrade.blur(UNIT, degrade.gaussian_kernel(1.5))
    expected = ndimage.gaussian_filter(UNIT, (1.5, 1.5, 0), radius=4, mode="reflect")
    np.testing.assert_allclose(blurred, expected, atol=2e-5)
    assert blurred.dtype == np.float32


def test_a_long_gaussian_has_its_moments():
    kernel = degrade.gaussian_kernel(2.0, 0.8, angle=np.pi / 6).astype(float)
    y, x = np.mgrid[-6:7, -6:7]
    moments = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
    long, wide = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]), np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6)])
    expected = 4 * np.outer(long, long) + 0.64 * np.outer(wide, wide)
    np.testing.assert_allclose(moments, expected, atol=0.06)


def test_power_flattens_or_lengthens():
    kernels = [degrade.gaussian_kernel(2.0, power=power) for power in (0.5, 1.0, 4.0)]
    top = [kernel[6, 7] / kernel[6, 6] for kernel in kernels]
    end = [kernel[6, 12] / kernel[6, 6] for kernel in kernels]
    np.testing.assert_allclose(top, np.exp([-0.25, -0.125, -0.5 / 4**4]), rtol=1e-5)
    np.testing.assert_allclose(end, np.exp([-1.5, -0.5 * 9, -0.5 * 9**4]), rtol=1e-5, atol=1e-12)


def test_blur_is_a_mirrored_convolution():
    kernel = rng().random((5, 3)).astype(np.float32)
    image = rng(1).random((9, 14, 3)).astype(np.float32)
    expected = np.stack([ndimage.convolve(image[..., c], kernel, mode="reflect") for c in range(3)], 2)
    np.testing.assert_allclose(degrade.blur(image, kernel), expected, atol=1e-5)


def test_the_sinc_is_a_low_pass():
    """Below the cutoff waves stay, above they go."""
    kernel = degrade.sinc_kernel(np.pi / 2, 10)
    assert kernel.shape == (21, 21)
    assert kernel[10, 13] / kernel[10, 10] == pytest.approx(4 * j1(1.5 * np.pi) / (1.5 * np.pi) / 2, abs=1e-6)
    x = np.arange(64)
    for frequency, gain in ((np.pi / 4, 1.0), (np.pi * 0.8, 0.0)):
        wave = np.broadcast_to(np.cos(frequency * x)[None, :, None], (64, 64, 1)).astype(np.float32)
        passed = degrade.blur(wave, kernel)[20:44, 20:44, 0]
        assert np.abs(passed).max() == pytest.approx(gain, abs=0.12)


# --- noise ------------------------------------------------------------------------------------------------------------


def test_gaussian_noise_is_as_strong_as_asked():
    grey = np.full((200, 200, 3), 0.5, np.float32)
    noise = degrade.gaussian_noise(grey, rng(), 0.1) - grey
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    same = degrade.gaussian_noise(grey, rng(), 0.1, grey=True) - grey
    np.testing.assert_allclose(same[..., 0], same[..., 2], atol=1e-7)


def test_poisson_noise_grows_with_light():
    for value in (0.1, 0.8):
        grey = np.full((200, 200, 3), value, np.float32)
        for no_color in (False, True):
            noise = degrade.poisson_noise(grey, rng(), 400, grey=no_color) - grey
            assert noise.var() == pytest.approx(value / 400, rel=0.03)
            assert noise.mean() == pytest.approx(0, abs=5e-4)


def test_speckle_grows_with_light_and_leaves_black():
    ramp = np.broadcast_to(np.float32([0, 0.2, 0.8])[:, None, None, None], (3, 200, 200, 3))
    stds = [(degrade.speckle_noise(grey, rng(), 0.1) - grey).std() for grey in ramp]
    np.testing.assert_allclose(stds, [0, 0.02, 0.08], rtol=0.02)
    same = degrade.speckle_noise(ramp[2], rng(), 0.1, grey=True)
    np.testing.assert_array_equal(same[..., 0], same[..., 2])


def test_salt_and_pepper_are_even_and_rare():
    noisy = degrade.salt_and_pepper(np.full((300, 300, 3), 0.5, np.float32), rng(), 0.1)
    values, counts = np.unique(noisy, return_counts=True)
    np.testing.assert_array_equal(values, [0, 0.5, 1])
    np.testing.assert_allclose(counts / counts.sum(), [0.05, 0.9, 0.05], atol=0.005)


def test_grain_is_as_strong_as_asked():
    """All four kinds, at middle grey; salt and pepper is apart."""
    grey = np.full((64, 64, 3), 0.5, np.float32)
    stds = [(degrade.random_grain(grey, rng(seed), (0.08, 0.08)) - grey).std() for seed in range(60)]
    assert np.mean(np.abs(np.array(stds) - 0.08) < 0.006) > 0.8
    assert len({round(float(std), 3) for std in stds}) > 5


# --- JPEG -------------------------------------------------------------------------------------------------------------


def pillow(image, quality, subsampling):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).astype(float)


@pytest.mark.parametrize("quality", [10, 40, 50, 75, 95])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("size", [(192, 192), (101, 83)])
def test_jpeg_is_pillows(quality, subsample, size):
    image = np.ascontiguousarray(PHOTO[: size[0], : size[1]])
    expected = pillow(image, quality, 2 if subsample else 0)
    ours = 255 * degrade.jpeg(image / np.float32(255), quality, subsample=subsample)
    lost = np.abs(expected - image).mean()
    error = np.abs(ours - expected).mean()
    assert error < 0.75
    assert error < 0.25 * lost or quality == 95
    assert lost > 0.4


def test_the_tables_are_pillows():
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=50)
    luma, chroma = (Image.open(file).quantization[i] for i in range(2))
    assert sorted(np.ravel(degrade.LUMA_TABLE)) == sorted(luma)
    assert sorted(np.ravel(degrade.CHROMA_TABLE)) == sorted(chroma)
    np.testing.assert_array_equal(np.reshape(luma, (8, 8)), degrade.LUMA_TABLE)


def test_a_quality_that_is_none_is_refused():
    with pytest.raises(ValueError, match="got quality 0; expected 1 to 100"):
        degrade.jpeg(UNIT, 0)


# --- print and age ----------------------------------------------------------------------------------------------------


def test_halftone_keeps_tones_in_two_inks():
    for value in (0.25, 0.5, 0.7):
        printed = degrade.halftone(np.full((120, 120, 3), value, np.float32), 6.0, 0.4, softness=0.05)
        assert printed.mean() == pytest.approx(value, abs=0.01)
        assert ((printed < 0.02) | (printed > 0.98)).mean() > 0.9
        np.testing.assert_array_equal(printed[..., 0], printed[..., 1])
    colored = degrade.halftone(np.broadcast_to(np.float32([0.5, 0.5, 0.6]), (40, 40, 3)), 4.0, 0.0)
    assert np.abs(colored[..., 0] - colored[..., 1]).max() > 0.5


def test_halftone_has_the_period_asked_for():
    printed = degrade.halftone(np.full((64, 64, 3), 0.5, np.float32), 8.0, 0.0)[..., 0]
    power = np.abs(np.fft.rfft(printed, axis=1)).sum(0)
    assert power[1:].argmax() + 1 == 8


def test_fading_comes_back():
    fading = degrade.Fading((0.1, 0.05, 0.0), (0.95, 0.9, 0.7), (1.1, 0.9, 1.0), 0.6)
    faded = degrade.fade(UNIT, fading)
    assert faded.dtype == np.float32
    np.testing.assert_allclose(degrade.unfade(faded, fading), UNIT, atol=2e-3)
    assert np.abs(faded - UNIT).mean() > 0.03
    assert degrade.fade(UNIT, degrade.UNFADED) is UNIT


def test_fading_takes_white_and_black_where_it_says():
    fading = degrade.Fading((0.1, 0.05, 0.02), (0.95, 0.9, 0.7), (1.1, 0.9, 1.0), 0.6)
    ends = degrade.fade(np.float32([[[0, 0, 0], [1, 1, 1]]]), fading)[0]
    np.testing.assert_allclose(ends, [fading.black, fading.white], atol=1e-6)


def test_prints_fade_within_bounds():
    for seed in range(200):
        fading = degrade.random_fading(rng(seed))
        assert all(0 <= b < w <= 1 for b, w in zip(fading.black, fading.white, strict=True))
        assert 0.3 < fading.saturation <= 1
    assert degrade.random_fading(rng(), 0.0) == degrade.UNFADED


# --- all of it --------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "blur": degrade.random_blur,
    "ringing": degrade.random_ringing,
    "noise": degrade.random_noise,
    "jpeg": degrade.random_jpeg,
    "resize": partial(degrade.random_resize, height=100, width=90),
    "grain": degrade.random_grain,
    "reduction": degrade.random_reduction,
    "halftone": degrade.random_halftone,
    "unstructured": degrade.unstructured,
    "second order": partial(degrade.second_order, height=48, width=48),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_function_of_image_and_generator(name):
    operation, before = OPERATIONS[name], UNIT.copy()
    once, again, others = operation(UNIT, rng(3)), operation(UNIT, rng(3)), [operation(UNIT, rng(i)) for i in range(3)]
    np.testing.assert_array_equal(once, again)
    assert any((once != other).any() for other in others)
    assert once.dtype == np.float32
    np.testing.assert_array_equal(UNIT, before)


def test_nothing_shifts_the_mean_colour():
    """In the mean over many: noise comes and goes."""
    means = [degrade.second_order(UNIT, rng(seed), 48, 48).mean((0, 1)) for seed in range(20)]
    np.testing.assert_allclose(np.mean(means, 0), UNIT.mean((0, 1)), atol=1.5 / 255)


def test_nothing_shifts_the_place():
    """What is left is still most like the original where it is."""
    small = degrade.resize(UNIT, 48, 48, "area").mean(2)
    worn = np.mean([degrade.second_order(UNIT, rng(seed), 48, 48) for seed in range(12)], 0).mean(2)
    errors = {
        (y, x): np.abs(np.roll(worn, (y, x), (0, 1)) - small)[2:-2, 2:-2].mean() for y in (-1, 0, 1) for x in (-1, 0, 1)
    }
    assert min(errors, key=errors.get) == (0, 0)


def test_what_comes_out_is_eight_bit():
    worn = degrade.second_order(UNIT, rng(), 40, 56)
    assert worn.shape == (40, 56, 3)
    np.testing.assert_allclose(255 * worn, np.rint(255 * worn), atol=1e-4)
    assert worn.min() >= 0
    assert worn.max() <= 1


def test_sometimes_and_shuffled():
    counted = []

    def note(name, image, rng):
        counted.append(name)
        return image

    operation = degrade.shuffled(partial(note, "a"), degrade.sometimes(partial(note, "b"), 0.3))
    generator = rng()
    for _ in range(400):
        degrade.chain(UNIT, generator, operation)
    assert counted.count("a") == 400
    assert 90 < counted.count("b") < 150
    first = sum(one == "b" and two == "a" for one, two in pairwise(counted))
    assert first > 40


def test_the_upscalers_chain_is_what_it_was():
    """Its held-out photographs were worn by it: the same seed must go on to wear them alike."""
    sums = [float(degrade.second_order(UNIT, rng(seed), 48, 48).sum(dtype=np.float64)) for seed in range(3)]
    np.testing.assert_allclose(sums, [2960.553, 2947.5177, 2962.9726], rtol=0, atol=0.02)
