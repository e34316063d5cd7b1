"""What is told from a photograph's colours about how it has faded, and how that is undone: for the whole image at once.

Fading is `velatura.ops.degrade.Fading`: black, white and a gamma for each channel, and a loss of saturation. It is told
from a thumbnail, by its `statistics`; `velatura.nets.fading` makes the ten numbers of them. What is undone is the same
everywhere, so that no place gets another tint than its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from velatura.ops.degrade import UNFADED, Fading, unfade
from velatura.ops.pyramid import fill_holes
from velatura.ops.resize import RowResize

__all__ = ["COUNT", "SIDE", "from_numbers", "statistics", "thumbnail", "to_numbers", "tone_only", "undone"]

SIDE = 64  # pixels of a thumbnail: the mean over so many hides noise, and keeps what lies on one plane of colour
#: Shares of the pixels below each quantile; the ends are left to noise and dust.
QUANTILES = np.array([0, 0.005, 0.02, 0.05, *np.linspace(0.1, 0.9, 9), 0.95, 0.98, 0.995, 1])
PARTS = 8  # of the pixels, from dark to light: the tint of shadows is not that of lights
#: How many numbers `statistics` gives.
COUNT = 7 * len(QUANTILES) + 4 * PARTS
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
LEAST_KNOWN = 0.1  # of a thumbnail's pixel: where less is known, it is as good as unknown

Rows = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]


def thumbnail(rows: Rows, height: int, width: int) -> NDArray[np.float32]:
    """Shrink an image to `SIDE` x `SIDE` pixels, whatever its sides, leaving out what is damaged.

    Parameters
    ----------
    rows : callable
        ``rows(start, stop)`` gives colours (stop - start, W, C), 0..1, and how much of each pixel is known,
        (stop - start, W), 0..1.
    height, width : int
        Of the image.

    Returns
    -------
    ndarray of float32, (SIDE, SIDE, C)
        Means over what is known; where nothing is, what lies around.

    Examples
    --------
    >>> colours, known = np.full((90, 70, 3), 0.5, np.float32), np.ones((90, 70), np.float32)
    >>> small = thumbnail(lambda start, stop: (colours[start:stop], known[start:stop]), 90, 70)
    >>> small.shape, bool(np.allclose(small, 0.5))
    ((64, 64, 3), True)
    """
    cells = RowResize((height, width), (SIDE, SIDE), "area")
    means, shares = [], []
    for row in range(SIDE):
        start, stop = cells.needs((row, row + 1))
        colours, known = rows(start, stop)
        share = cells.rows(known, start, (row, row + 1))
        sums = cells.rows(colours * known[..., None], start, (row, row + 1))
        means.append(sums / np.maximum(share, LEAST_KNOWN)[..., None])
        shares.append(share)
    mean, known = np.concatenate(means), np.concatenate(shares) >= LEAST_KNOWN
    if known.all() or not known.any():
        return mean.astype(np.float32)
    return np.moveaxis(fill_holes(np.moveaxis(mean, 2, 0), known), 0, 2).astype(np.float32)


def statistics(images: NDArray[np.floating]) -> NDArray[np.float32]:
    """Give what is told of the colours of images, wherever in them they are.

    Of red, green, blue, luma, red and blue less luma, and largest less smallest channel: quantiles. Of red and blue
    less luma, in eight parts from dark to light: mean and deviation.

    Parameters
    ----------
    images : ndarray of float32, (N, pixels, 3)
        RGB, 0..1.

    Returns
    -------
    ndarray of float32, (N, COUNT)

    Examples
    --------
    >>> statistics(np.random.default_rng(0).random((2, 64, 3))).shape == (2, COUNT)
    True
    """
    images = np.asarray(images, np.float32)
    luma = images @ LUMA
    red, green, blue = np.moveaxis(images, -1, 0)
    tints = np.stack([red - luma, blue - luma], 1)
    ranges = images.max(-1) - images.min(-1)
    planes = np.concatenate([np.stack([red, green, blue, luma], 1), tints, ranges[:, None]], 1)
    last = images.shape[1] - 1
    quantiles = np.sort(planes, -1)[..., np.rint(QUANTILES * last).astype(int)]
    order = np.argsort(luma, 1, kind="stable")
    parts = np.array_split(np.take_along_axis(tints, order[:, None], 2), PARTS, 2)
    moments = [np.stack([part.mean(2), part.std(2)], 2) for part in parts]
    found = np.concatenate([quantiles.reshape(len(images), -1), np.stack(moments, 3).reshape(len(images), -1)], 1)
    return found.astype(np.float32)


def to_numbers(fading: Fading) -> NDArray[np.float32]:
    """Write a fading as ten numbers: black, white, the logarithms of gamma and of saturation.

    Examples
    --------
    >>> to_numbers(UNFADED).tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    gamma, saturation = np.log(fading.gamma), np.log(fading.saturation)
    return np.array([*fading.black, *fading.white, *gamma, saturation], np.float32)


def from_numbers(numbers: NDArray[np.floating]) -> Fading:
    """Undo `to_numbers`.

    Examples
    --------
    >>> from_numbers(to_numbers(UNFADED)) == UNFADED
    True
    """
    black, white, gamma = (tuple(map(float, part)) for part in np.split(np.asarray(numbers, float)[:9], 3))
    return Fading(black, white, tuple(np.exp(gamma).tolist()), float(np.exp(numbers[9])))  # type: ignore[arg-type]


def tone_only(fading: Fading) -> Fading:
    """Give all channels their mean: what is done to a photograph without colour.

    Examples
    --------
    >>> tone_only(Fading(black=(0.3, 0.0, 0.0))).black
    (0.1, 0.1, 0.1)
    """
    mean = to_numbers(fading).reshape(-1)[:9].reshape(3, 3).astype(float).mean(1).repeat(3)
    return from_numbers(np.append(mean.round(6), 0.0))


def undone(image: NDArray[np.float32], fading: Fading) -> NDArray[np.float32]:
    """Undo a fading in rows (h, W, C) of an image of one or three channels, 0..1: float32.

    Examples
    --------
    >>> grey = np.full((1, 1, 1), 0.6, np.float32)
    >>> undone(grey, Fading(black=(0.2,) * 3)).round(3).tolist()
    [[[0.5]]]
    """
    if fading == UNFADED:
        return image
    if image.shape[2] == 3:
        return unfade(image, fading).astype(np.float32)
    return unfade(image.repeat(3, 2), tone_only(fading))[..., :1].astype(np.float32)
