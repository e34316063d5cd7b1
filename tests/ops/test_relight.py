from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.color import rgb2yuv

from velatura.ops.relight import LUMA, identity_light, random_light, relight


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0.1, 0.9, (5, 3, 8, 8)).astype(np.float32)


def test_identity_changes_nothing(images):
    np.testing.assert_allclose(relight(images, identity_light(5, 8, 8)), images, atol=1e-6)


def test_the_input_is_not_modified(images):
    before = images.copy()
    relight(images, random_light(5, 8, 8, np.random.default_rng(1)))
    np.testing.assert_array_equal(images, before)


def test_tensors_and_arrays_agree(images):
    light = random_light(5, 8, 8, np.random.default_rng(1))
    tensor = relight(torch.from_numpy(images), light.map(torch.from_numpy))
    np.testing.assert_allclose(tensor.numpy(), relight(images, light), atol=1e-6)


def test_exposure_acts_on_linear_light():
    """One stop up doubles the light behind the encoded values."""

    class OneStop:
        def uniform(self, low, high, size):
            return np.ones(size) if size == (1, 1, 1, 1) else np.zeros(size)

        def random(self, size):
            return np.zeros(size)  # below any share: every change takes part

    light = random_light(1, 4, 4, OneStop())
    # Exposure, gamma and contrast are drawn as (1, 1, 1, 1); only the first is looked at here.
    exposed = relight(np.full((1, 3, 4, 4), 0.4, np.float32), replace(identity_light(1, 4, 4), gain=light.gain))
    np.testing.assert_allclose(exposed**2.2, 2 * 0.4**2.2, rtol=1e-5)


def test_saturation_and_hue_keep_luma_and_greys(images):
    matrix = random_light(5, 8, 8, np.random.default_rng(4), share=1.0).matrix
    light = replace(identity_light(5, 8, 8), matrix=matrix)
    muted = 0.4 + 0.2 * images  # nothing is clipped
    before, after = (rgb2yuv(x.transpose(0, 2, 3, 1))[..., 0] for x in (muted, relight(muted, light)))
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert np.abs(relight(muted, light) - muted).max() > 0.01
    np.testing.assert_allclose(matrix.sum(2), 1, atol=1e-6)
    np.testing.assert_allclose(LUMA @ matrix, np.broadcast_to(LUMA, (5, 1, 3))[:, 0], atol=1e-6)


def test_contrast_gamma_and_haze():
    light = replace(
        identity_light(1, 1, 1),
        gamma=np.full((1, 1, 1, 1), 2, np.float32),
        contrast=np.full((1, 1, 1, 1), 1.5, np.float32),
        haze=np.full((1, 1, 1, 1), 0.2, np.float32),
    )
    colour = np.array([0.6, 0.7, 0.8], np.float32).reshape(1, 3, 1, 1)
    expected = (0.5 + 1.5 * (np.array([0.36, 0.49, 0.64]) - 0.5)) * 0.8 + 0.2
    np.testing.assert_allclose(relight(colour, light).ravel(), expected, rtol=1e-5)


def test_strength_zero_is_no_change(images):
    light = random_light(5, 8, 8, np.random.default_rng(2), strength=0.0)
    np.testing.assert_allclose(relight(images, light), images, atol=1e-6)


def test_ranges_and_seed():
    light = random_light(2000, 8, 8, np.random.default_rng(9))
    again = random_light(2000, 8, 8, np.random.default_rng(9))
    for name in ("gain", "matrix", "gamma", "contrast", "haze"):
        np.testing.assert_array_equal(getattr(light, name), getattr(again, name))
    assert 1 / 1.5 - 1e-4 <= light.gamma.min() < 0.7
    assert 1.45 < light.gamma.max() <= 1.5 + 1e-4
    assert light.contrast.min() >= 0.6 - 1e-4
    assert light.contrast.max() <= 1.4 + 1e-4
    assert light.haze.max() <= 0.25
    assert abs(np.log2(light.gain).mean()) < 0.02  # brighter as often as darker
    unchanged = (light.gamma == 1).mean()
    assert 0.35 < unchanged < 0.45
