"""Masks to train and to measure with: float32 arrays (H, W), 1 = the place to change, 0 = the rest.

Every random mask takes a `numpy.random.Generator`, so the same seed draws the same mask. Coordinates are those
of pixel centres: pixel ``(i, j)`` lies at ``x = j + 0.5, y = i + 0.5``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "centre_square",
    "ellipse",
    "polygon",
    "random_ellipse",
    "random_mask",
    "random_polygon",
    "random_rectangle",
    "rectangle",
    "soften",
]

Mask = NDArray[np.float32]


def centre_square(height: int, width: int, fraction: float = 0.5) -> Mask:
    """The square in the middle whose side is ``fraction`` of the shorter side.

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    fraction : float
        Side of the square as a share of the shorter side, 0..1.

    Returns
    -------
    ndarray of float32, (height, width)
        1 inside the square, 0 elsewhere.

    Examples
    --------
    >>> centre_square(4, 6)[1]
    array([0., 0., 1., 1., 0., 0.], dtype=float32)
    """
    side = round(min(height, width) * fraction)
    top, left = (height - side) // 2, (width - side) // 2
    return rectangle(height, width, left, top, left + side, top + side)


def rectangle(height: int, width: int, left: float, top: float, right: float, bottom: float) -> Mask:
    """A rectangle, in pixels; it may reach over the border.

    Examples
    --------
    >>> float(rectangle(8, 8, -3, 2, 2, 4).sum())
    4.0
    """
    y, x = _centres(height, width)
    return ((x > left) & (x < right) & (y > top) & (y < bottom)).astype(np.float32)


def ellipse(
    height: int, width: int, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Mask:
    """An ellipse, turned by ``angle``.

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    centre : (float, float)
        x and y of the centre in pixels.
    radii : (float, float)
        Half axes in pixels, the first along ``angle``.
    angle : float
        Direction of the first half axis in radians, from x towards y.

    Returns
    -------
    ndarray of float32, (height, width)
        1 inside, 0 outside.
    """
    y, x = _centres(height, width)
    dx, dy = x - centre[0], y - centre[1]
    cosine, sine = np.cos(angle), np.sin(angle)
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return ((along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1).astype(np.float32)


def polygon(height: int, width: int, corners: NDArray[np.floating]) -> Mask:
    """A closed polygon, filled by the even-odd rule (where it crosses itself, holes appear).

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    corners : ndarray, (n, 2)
        x and y of each corner in pixels, in order.

    Returns
    -------
    ndarray of float32, (height, width)
        1 inside, 0 outside.

    Examples
    --------
    >>> polygon(3, 3, np.array([[0, 0], [3, 0], [0, 3]])).astype(int).tolist()
    [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    y, x = _centres(height, width)
    inside = np.zeros((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue  # a level edge is never crossed by a level ray
        crossing = (y0 > y) != (y1 > y)
        inside ^= crossing & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside.astype(np.float32)


def random_rectangle(height: int, width: int, rng: np.random.Generator) -> Mask:
    """A rectangle of 1/5 to 3/4 of each side, anywhere, partly over the border in some draws."""
    w, h = rng.uniform(0.2, 0.75, 2) * (width, height)
    x, y = rng.uniform(0.05, 0.95, 2) * (width, height)
    return rectangle(height, width, x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def random_ellipse(height: int, width: int, rng: np.random.Generator) -> Mask:
    """An ellipse with half axes of 1/10 to 4/10 of the sides, anywhere, at any angle."""
    radii = rng.uniform(0.1, 0.4, 2) * (width, height)
    centre = rng.uniform(0.1, 0.9, 2) * (width, height)
    return ellipse(height, width, (centre[0], centre[1]), (radii[0], radii[1]), rng.uniform(0, np.pi))


def random_polygon(height: int, width: int, rng: np.random.Generator) -> Mask:
    """A star-shaped polygon of 5 to 12 corners, as irregular as an outline drawn by hand."""
    n = int(rng.integers(5, 13))
    angles = np.sort(rng.uniform(0, 2 * np.pi, n))
    radii = rng.uniform(0.12, 0.5, n) * min(height, width)
    centre = rng.uniform(0.2, 0.8, 2) * (width, height)
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return polygon(height, width, corners)


def soften(mask: Mask, sigma: float) -> Mask:
    """Blur the edge by a Gaussian; the border of the image is continued outwards, so no dark rim appears.

    Parameters
    ----------
    mask : ndarray of float32, (H, W)
        Values 0..1.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    ndarray of float32, (H, W)
        Values 0..1.
    """
    rows, columns = _gaussian_matrix(mask.shape[0], sigma), _gaussian_matrix(mask.shape[1], sigma)
    return np.clip(rows @ mask @ columns.T, 0, 1).astype(np.float32)


def random_mask(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    centre_share: float = 0.2,
    soft_share: float = 0.3,
    smallest: float = 0.02,
    largest: float = 0.6,
) -> Mask:
    """A mask of any kind: centre square, rectangle, ellipse, polygon, or two or three of these together.

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    rng : numpy.random.Generator
        Where the randomness comes from.
    centre_share : float
        Share of centre squares (half the side, as in GP-GAN), 0..1.
    soft_share : float
        Share of the masks whose edge is softened by 0.5 to 2.5 pixels at 64 pixels, 0..1.
    smallest, largest : float
        Share of the image that the mask may cover; others are drawn again.

    Returns
    -------
    ndarray of float32, (height, width)
        Values 0..1.

    Examples
    --------
    >>> mask = random_mask(64, 64, np.random.default_rng(7))
    >>> mask.shape, bool(0.02 <= mask.mean() <= 0.6)
    ((64, 64), True)
    """
    if rng.random() < centre_share:
        mask = centre_square(height, width)
    else:
        shapes = (random_rectangle, random_ellipse, random_polygon)
        while True:
            parts = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
            drawn = [shapes[rng.integers(len(shapes))](height, width, rng) for _ in range(parts)]
            mask = np.maximum.reduce(drawn)
            if smallest <= mask.mean() <= largest:
                break
    if rng.random() < soft_share:
        mask = soften(mask, rng.uniform(0.5, 2.5) * min(height, width) / 64)
    return mask


def _centres(height: int, width: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5


def _gaussian_matrix(n: int, sigma: float) -> NDArray[np.float32]:
    """The blur of one axis as a matrix (n, n): for such small images two products are the quickest way."""
    radius = int(np.ceil(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    matrix = np.zeros((n, n))
    for offset, weight in zip(offsets, kernel, strict=True):
        rows = np.arange(n)
        np.add.at(matrix, (rows, np.clip(rows + offset, 0, n - 1)), weight)
    return matrix.astype(np.float32)
