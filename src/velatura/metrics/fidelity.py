"""How near an image is to its original: PSNR, SSIM, CIEDE2000, and how much of its detail is left.

A figure means nothing without its protocol: the same model reads 30.04 dB in RGB and 32.02 dB in Y. So `psnr` and
`ssim` take a named, frozen `Protocol`, and reports print it beside every figure.

NumPy only; scikit-image serves CIEDE2000.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PROTOCOLS",
    "RGB",
    "Y2",
    "Y3",
    "Y4",
    "Protocol",
    "Y",
    "absolute_error",
    "color_error",
    "laplacian_deviation",
    "psnr",
    "ssim",
]

PEAK = 255.0
# BT.601 luma of 8-bit RGB, 16..235; the figures of the super-resolution papers are of this Y.
LUMA = np.array([65.481, 128.553, 24.966]) / 255
LUMA_OFFSET = 16.0

WINDOW = 11  # Wang et al. 2004, section III-C: 11x11 Gaussian weights of 1.5 pixels
SIGMA = 1.5
K1, K2 = 0.01, 0.03  # Wang et al. 2004, section III-B


@dataclass(frozen=True, slots=True)
class Protocol:
    """What PSNR and SSIM are measured on. Both images are rounded to 8 bits first.

    Attributes
    ----------
    name : str
        As the command line knows it.
    space : {"rgb", "y"}
        All three channels, or the BT.601 luma ``Y = (65.481 R + 128.553 G + 24.966 B)/255 + 16``, not rounded.
    crop : int
        Pixels left out at every border; the super-resolution papers leave out as many as the scale.
    """

    name: str
    space: Literal["rgb", "y"]
    crop: int = 0

    def __str__(self) -> str:
        """Name it as a report prints it."""
        space = "Y channel (BT.601)" if self.space == "y" else "RGB"
        border = f"border {self.crop} cropped" if self.crop else "whole image"
        return f"{self.name}: {space}, 8 bit, {border}; SSIM {WINDOW}x{WINDOW} Gaussian sigma {SIGMA}, valid region"


RGB = Protocol("rgb", "rgb")
Y = Protocol("y", "y")
Y2 = Protocol("y2", "y", crop=2)
Y3 = Protocol("y3", "y", crop=3)
Y4 = Protocol("y4", "y", crop=4)

PROTOCOLS = {protocol.name: protocol for protocol in (RGB, Y, Y2, Y3, Y4)}


def psnr(image: NDArray, reference: NDArray, protocol: Protocol) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(255^2 / MSE)``; infinite for equal images.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1.
    protocol : Protocol

    Raises
    ------
    ValueError
        The sizes differ, or nothing is left after the crop.

    Examples
    --------
    >>> grey = np.full((16, 16, 3), 100, np.uint8)
    >>> round(psnr(grey, grey + np.uint8(1), RGB), 2)
    48.13
    """
    a, b = _prepare(image, reference, protocol)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(image: NDArray, reference: NDArray, protocol: Protocol) -> float:
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004), mean over channels and the valid region.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1; at least 11x11 after the crop.
    protocol : Protocol

    Returns
    -------
    float
        At most 1, for equal images.

    Raises
    ------
    ValueError
        The sizes differ, or too little is left after the crop.

    Examples
    --------
    >>> grey = np.full((16, 16, 3), 100, np.uint8)
    >>> ssim(grey, grey, Y)
    1.0
    """
    a, b = _prepare(image, reference, protocol)
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"got {a.shape[0]}x{a.shape[1]} after the crop; SSIM needs at least {WINDOW}x{WINDOW}")
    mean_a, mean_b = _smooth(a), _smooth(b)
    variance_a = _smooth(a * a) - mean_a**2
    variance_b = _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(np.mean(luminance * structure))


def color_error(image: NDArray, reference: NDArray, where: NDArray | None = None) -> float:
    """Mean colour difference CIEDE2000 of sRGB images; 1 is about what an eye just sees.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1.
    where : ndarray, (H, W), optional
        Only where it is true; soft edges of a mask count as weights.

    Raises
    ------
    ValueError
        The sizes differ.

    Examples
    --------
    >>> red, blue = np.array([[[1.0, 0, 0]]]), np.array([[[0, 0, 1.0]]])
    >>> round(color_error(red, blue), 1)
    52.9
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    _check_sizes(image, reference)
    difference = deltaE_ciede2000(rgb2lab(_rgb(_unit(image))), rgb2lab(_rgb(_unit(reference))))
    return float(np.average(difference, weights=_weights(where, difference.shape)))


def absolute_error(image: NDArray, reference: NDArray, where: NDArray | None = None) -> float:
    """Mean absolute difference over pixels and channels, in grey levels of 8 bits (0..255), without rounding.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1.
    where : ndarray, (H, W), optional
        Only where it is true; soft edges of a mask count as weights.

    Raises
    ------
    ValueError
        The sizes differ.

    Examples
    --------
    >>> absolute_error(np.zeros((2, 2)), np.ones((2, 2)), where=np.eye(2))
    255.0
    """
    _check_sizes(image, reference)
    difference = np.abs(_rgb(_unit(image)) - _rgb(_unit(reference))).mean(axis=2) * PEAK
    return float(np.average(difference, weights=_weights(where, difference.shape)))


def laplacian_deviation(image: NDArray, reference: NDArray, where: NDArray | None = None) -> float:
    """How much detail is left: standard deviation of the Laplacian over that of the reference's.

    Below 1 the image has become softer, above 1 sharper or noisier. The Laplacian is the five-point one, of every
    channel, without the outermost pixels.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1.
    where : ndarray, (H, W), optional
        Only pixels where it is true, for instance the background of a composite.

    Raises
    ------
    ValueError
        The sizes differ, or the reference has no detail at all.
    """
    _check_sizes(image, reference)
    inner = np.ones(np.shape(image)[:2], bool) if where is None else np.asarray(where).astype(bool)
    inner = inner[1:-1, 1:-1]
    before = float(np.std(_laplacian(_rgb(_unit(reference)))[inner]))
    if before == 0:
        raise ValueError("the reference is flat; its Laplacian has no deviation to compare with")
    return float(np.std(_laplacian(_rgb(_unit(image)))[inner])) / before


def _prepare(image: NDArray, reference: NDArray, protocol: Protocol) -> tuple[NDArray, NDArray]:
    """Bring both to 8 bits, to the colour space and to the crop of the protocol: float64 (H, W, C), 0..255."""
    _check_sizes(image, reference)
    height, width = np.shape(image)[:2]
    crop = protocol.crop
    if min(height, width) <= 2 * crop:
        raise ValueError(f"got {height}x{width} pixels; nothing is left after a crop of {crop} at every border")
    pair = []
    for one in (image, reference):
        eight = np.rint(np.clip(_unit(one), 0, 1) * PEAK)
        values = (_rgb(eight) @ LUMA + LUMA_OFFSET)[..., None] if protocol.space == "y" else eight
        pair.append(values[crop : height - crop, crop : width - crop])
    return pair[0], pair[1]


def _check_sizes(image: NDArray, reference: NDArray) -> None:
    if np.shape(image)[:2] != np.shape(reference)[:2]:
        raise ValueError(f"got sizes {np.shape(image)[:2]} and {np.shape(reference)[:2]}; expected the same")
    for one in (image, reference):
        if np.ndim(one) not in (2, 3) or (np.ndim(one) == 3 and np.shape(one)[2] not in (1, 3)):
            raise ValueError(f"got shape {np.shape(one)}; expected (H, W), (H, W, 1) or (H, W, 3)")


def _unit(image: NDArray) -> NDArray[np.float64]:
    """Bring the whole range of the type to 0..1, in float64, (H, W, C)."""
    image = np.asarray(image)
    top = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    values = image.astype(np.float64) / top
    return values[..., None] if values.ndim == 2 else values


def _rgb(image: NDArray) -> NDArray:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _weights(where: NDArray | None, shape: tuple[int, ...]) -> NDArray:
    return np.ones(shape) if where is None else np.asarray(where, dtype=np.float64).reshape(shape)


def _smooth(values: NDArray) -> NDArray:
    """Weigh (H, W, C) by the Gaussian window; only where the window lies inside."""
    x = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-0.5 * (x / SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = values.shape[axis] - WINDOW + 1
        parts = (weight * values.take(range(i, i + length), axis) for i, weight in enumerate(kernel))
        values = functools.reduce(np.add, parts)
    return values


def _laplacian(values: NDArray) -> NDArray:
    middle = values[1:-1, 1:-1]
    return values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle
