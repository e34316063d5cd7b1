import numpy as np
import pytest
from PIL import Image, ImageCms

from velatura.ops.color import from_linear, to_linear

VALUES = np.linspace(0, 1, 4097, dtype=np.float32)


def test_it_is_the_curve_of_the_standard():
    """IEC 61966-2-1, written out in float64."""
    x = VALUES.astype(np.float64)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(to_linear(VALUES), light, atol=2e-7)
    back = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(from_linear(VALUES), back, atol=1e-5)  # the two branches meet within that


def test_both_ways_give_the_value_back_and_keep_the_order():
    light = to_linear(VALUES)
    assert (np.diff(light) > 0).all()
    np.testing.assert_allclose(from_linear(light), VALUES, atol=1e-6)
    assert light.dtype == from_linear(light).dtype == np.float32


def test_it_agrees_with_a_colour_management():
    """LittleCMS's own sRGB, to linear light by way of XYZ: the luminance of greys."""
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    srgb, xyz = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(np.dstack([greys] * 3)), srgb, xyz, outputMode="LAB")
    lightness = np.asarray(lab)[..., 0] / 255 * 100
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    assert np.abs(to_linear(greys.astype(np.float32) / 255) - luminance).max() < 0.006  # 8 bits of lightness


@pytest.mark.parametrize("light", [-0.5, -1e-9])
def test_less_than_black_is_black(light):
    assert from_linear(np.float32([light]))[0] == 0
