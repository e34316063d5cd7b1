"""One image in two lights: random but plausible changes of exposure, colour and contrast.

They stand in for the webcams of the Transient Attributes data set, on which GP-GAN (Wu et al. 2017) was trained.
A `Light` holds one change per image as small arrays; `relight` applies it. The arithmetic uses only what NumPy
arrays and torch tensors have in common, so that batches stay where they are (this module itself loads no torch).

Order of the steps, on values 0..1 in the image's own gamma encoding::

    illumination, exposure, white balance   x * gain           gains of linear light, to the power 1/2.2
    saturation, hue                         x @ matrix         keeps Rec. 601 luma
    gamma                                   x ** gamma
    contrast                                pivot + c * (x - pivot)
    haze                                    x * (1 - h) + h * airlight
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LUMA", "Light", "identity_light", "random_light", "relight"]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
ENCODING = 1 / 2.2  # a gain of linear light is this power of itself on encoded values
_SMALLEST = 1e-4  # a power of 0 has no slope


@dataclass(frozen=True)
class Light:
    """A change of light for each of N images.

    Attributes
    ----------
    gain : (N, 3, H, W)
        Exposure, white balance and illumination together, on encoded values.
    matrix : (N, 3, 3)
        Saturation and hue; columns of colours are multiplied from the left.
    gamma, contrast, haze : (N, 1, 1, 1)
        Power; factor about `pivot`; share of `airlight`.
    pivot : (N, 1, 1, 1)
        The grey that contrast leaves alone.
    airlight : (N, 3, 1, 1)
        Colour of the haze.
    """

    gain: Any
    matrix: Any
    gamma: Any
    contrast: Any
    pivot: Any
    haze: Any
    airlight: Any

    def map(self, convert: Callable[[Any], Any]) -> Light:
        """Convert every array, for instance ``light.map(torch.from_numpy)``."""
        return Light(**{field.name: convert(getattr(self, field.name)) for field in fields(self)})


def identity_light(n: int, height: int, width: int) -> Light:
    """The light that changes nothing, for `n` images."""
    one = np.ones((n, 1, 1, 1), np.float32)
    return Light(
        gain=np.ones((n, 3, height, width), np.float32),
        matrix=np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)),
        gamma=one,
        contrast=one,
        pivot=0.5 * one,
        haze=0 * one,
        airlight=np.ones((n, 3, 1, 1), np.float32),
    )


def random_light(
    n: int, height: int, width: int, rng: np.random.Generator, *, strength: float = 1.0, share: float = 0.6
) -> Light:
    """Draw a light for each of `n` images.

    At ``strength`` 1 the ranges are, each used by ``share`` of the images: exposure +-1 stop; white balance
    +-0.4 stop per channel; illumination a smooth field (two slopes, three curvatures) of +-0.5 stop each;
    saturation 0.4..1.6; hue +-12 degrees; gamma 0.67..1.5; contrast 0.6..1.4 about a grey of 0.35..0.65;
    haze 0..0.25 of a pale colour. All distributions are symmetric about "no change" (haze aside).

    Parameters
    ----------
    n, height, width : int
        Number of images and their size.
    rng : numpy.random.Generator
        Where the randomness comes from.
    strength : float
        Scales every range, 0 (no change) to 1.5.
    share : float
        Probability that a given change takes part, 0..1.

    Returns
    -------
    Light
        Arrays of float32.
    """

    def signed(*shape: int) -> NDArray[np.float64]:
        """Numbers in -1..1, zero for the images that this change leaves alone."""
        values = rng.uniform(-1, 1, (n, *shape))
        used = rng.random(n) < share
        return strength * values * used.reshape(n, *(1 for _ in shape))

    stops = 1.0 * signed(1, 1, 1) + 0.4 * signed(3, 1, 1)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    flat = np.ones((height, width))
    # Of mean 0, because exposure is apart.
    basis = np.stack([field * flat for field in (x, y, x * y, x * x - 1 / 3, y * y - 1 / 3)])
    stops = stops + 0.5 * np.einsum("nk,khw->nhw", signed(5), basis)[:, None]

    saturation, hue = 1 + 0.6 * signed(1, 1), np.deg2rad(12) * signed(1, 1)
    light = Light(
        gain=2 ** (stops * ENCODING),
        matrix=_color_matrix(saturation, hue),
        gamma=1.5 ** signed(1, 1, 1),
        contrast=1 + 0.4 * signed(1, 1, 1),
        pivot=0.5 + 0.15 * rng.uniform(-1, 1, (n, 1, 1, 1)),
        haze=0.25 * np.abs(signed(1, 1, 1)),
        airlight=rng.uniform(0.7, 1.0, (n, 1, 1, 1)) + rng.uniform(-0.08, 0.08, (n, 3, 1, 1)),
    )
    return light.map(lambda array: array.astype(np.float32))


def relight(images: Any, light: Light) -> Any:
    """Show images in another light.

    Parameters
    ----------
    images : array or tensor, (N, 3, H, W)
        RGB, 0..1, gamma-encoded as in files.
    light : Light
        One change per image, of the same kind (array or tensor) as `images`.

    Returns
    -------
    array or tensor, (N, 3, H, W)
        A new array, clipped to 0..1.

    Examples
    --------
    >>> grey = np.full((1, 3, 2, 2), 0.25, np.float32)
    >>> bool(np.allclose(relight(grey, identity_light(1, 2, 2)), grey))
    True
    """
    n, channels, height, width = images.shape
    x = images * light.gain
    x = (light.matrix @ x.reshape(n, channels, height * width)).reshape(n, channels, height, width)
    x = x.clip(_SMALLEST, None) ** light.gamma
    x = light.pivot + light.contrast * (x - light.pivot)
    x = x * (1 - light.haze) + light.haze * light.airlight
    return x.clip(0, 1)


def _color_matrix(saturation: NDArray[np.float64], hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale and turn the chroma plane, leaving luma and greys alone: (N, 1, 1) each to (N, 3, 3)."""
    luma = LUMA.astype(np.float64)
    grey = np.tile(luma, (3, 1))  # colour -> (Y, Y, Y)
    chroma = np.eye(3) - grey
    # A turn about the grey axis (Rodrigues), whose change of luma is taken out again by `chroma`.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    axis = np.full((3, 3), 1 / 3)
    turn = np.cos(hue) * np.eye(3) + np.sin(hue) * cross + (1 - np.cos(hue)) * axis
    return grey + saturation * (chroma @ turn @ chroma)
