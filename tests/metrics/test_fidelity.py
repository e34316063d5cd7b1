"""PSNR, SSIM and CIEDE2000 against scikit-image."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2gray, rgb2lab, rgb2ycbcr
from skimage.data import astronaut
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from velatura.metrics.fidelity import (
    PROTOCOLS,
    RGB,
    Y4,
    Y,
    absolute_error,
    color_error,
    laplacian_deviation,
    psnr,
    ssim,
)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    reference = astronaut()[100:220, 150:300]
    random = np.random.default_rng(0)
    noisy = np.clip(reference + random.normal(0, 12, reference.shape), 0, 255).astype(np.uint8)
    return noisy, reference


def theirs(image: np.ndarray, crop: int, space: str) -> np.ndarray:
    values = rgb2ycbcr(image)[..., :1] if space == "y" else image.astype(float)
    return values[crop : image.shape[0] - crop, crop : image.shape[1] - crop]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_against_scikit_image(pair, protocol):
    a, b = (theirs(image, protocol.crop, protocol.space) for image in pair)
    assert psnr(*pair, protocol) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-4)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    # Its own mean leaves the invalid border out, as ours does.
    assert ssim(*pair, protocol) == pytest.approx(structural_similarity(a, b, channel_axis=2, **options), abs=1e-6)


def test_crop_leaves_the_border_out(pair):
    noisy, reference = pair
    spoiled = noisy.copy()
    spoiled[:4], spoiled[-4:], spoiled[:, :4], spoiled[:, -4:] = 0, 0, 255, 255
    assert psnr(spoiled, reference, Y4) == psnr(noisy, reference, Y4)
    assert ssim(spoiled, reference, Y4) == ssim(noisy, reference, Y4)
    assert psnr(spoiled, reference, Y) < psnr(noisy, reference, Y) - 3


def test_types_say_the_same(pair):
    noisy, reference = pair
    sixteen = tuple(image.astype(np.uint16) * 257 for image in pair)
    unit = (noisy / 255, (reference / 255).astype(np.float32))
    for other in (sixteen, unit):
        assert psnr(*other, RGB) == pytest.approx(psnr(*pair, RGB), abs=1e-9)
        assert color_error(*other) == pytest.approx(color_error(*pair), abs=1e-3)


def test_eight_bits_and_range_before_measuring():
    reference = np.full((32, 32, 3), 0.5)
    assert psnr(reference + 0.3 / 255, np.full_like(reference, 128 / 255), RGB) == float("inf")
    assert psnr(np.full((32, 32), 1.7), np.ones((32, 32)), RGB) == float("inf")


def test_grey_images():
    reference = astronaut()[:64, :64, 0]
    other = reference // 2
    assert psnr(other, reference, RGB) == psnr(other[..., None], reference, RGB)
    colored = tuple(np.repeat(image[..., None], 3, axis=2) for image in (other, reference))
    assert psnr(other, reference, Y) == psnr(*colored, Y)
    assert color_error(other, reference) == pytest.approx(color_error(*colored))


def test_color_error(pair):
    expected = deltaE_ciede2000(rgb2lab(pair[1]), rgb2lab(pair[0]))
    assert color_error(*pair) == pytest.approx(expected.mean())
    where = np.zeros(expected.shape, bool)
    where[10:30, 20:50] = True
    assert color_error(*pair, where) == pytest.approx(expected[where].mean())


def test_absolute_error(pair):
    difference = np.abs(pair[0].astype(float) - pair[1])
    assert absolute_error(*pair) == pytest.approx(difference.mean())
    weights = np.linspace(0, 1, difference.shape[1])[None].repeat(difference.shape[0], 0)
    expected = (difference.mean(axis=2) * weights).sum() / weights.sum()
    assert absolute_error(*pair, weights) == pytest.approx(expected)


def test_laplacian_deviation(pair):
    noisy, reference = pair
    assert laplacian_deviation(reference, reference) == 1
    assert laplacian_deviation(gaussian(reference, 1, channel_axis=2), reference) < 0.5
    assert laplacian_deviation(noisy, reference) > 1.1
    assert laplacian_deviation(reference // 2 * 2 + 1, reference) == pytest.approx(1, abs=0.02)

    half = np.zeros(reference.shape[:2], bool)
    half[:, :70] = True
    spoiled = np.where(half[..., None], reference, 0)
    assert laplacian_deviation(spoiled, reference, where=half) != 1  # the Laplacian of column 69 sees column 70
    half[:, 69] = False
    assert laplacian_deviation(spoiled, reference, where=half) == 1


def test_laplacian_against_scipy():
    from scipy.ndimage import laplace

    reference = rgb2gray(astronaut())
    other = reference**2
    expected = laplace(other)[1:-1, 1:-1].std() / laplace(reference)[1:-1, 1:-1].std()
    assert laplacian_deviation(other, reference) == pytest.approx(expected)


def test_refusals():
    image = np.zeros((12, 12, 3), np.uint8)
    for measure in (absolute_error, color_error, laplacian_deviation):
        with pytest.raises(ValueError, match="expected the same"):
            measure(image, image[:-1])
    with pytest.raises(ValueError, match="expected the same"):
        psnr(image, image[:-1], RGB)
    with pytest.raises(ValueError, match="nothing is left after a crop of 4"):
        psnr(image[:8, :8], image[:8, :8], Y4)
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(image, image, Y4)
    with pytest.raises(ValueError, match=r"got shape \(12, 12, 4\)"):
        psnr(np.zeros((12, 12, 4)), np.zeros((12, 12, 4)), RGB)
    with pytest.raises(ValueError, match="flat"):
        laplacian_deviation(image, image)


def test_protocol_prints_itself():
    assert str(Y4) == ("y4: Y channel (BT.601), 8 bit, border 4 cropped; SSIM 11x11 Gaussian sigma 1.5, valid region")
