"""Masks to train and to measure with: float32 arrays (H, W), 1 = the place to change, 0 = the rest.

Every random mask takes a `numpy.random.Generator`, so the same seed draws the same mask. Coordinates are those
of pixel centres: pixel ``(i, j)`` lies at ``x = j + 0.5, y = i + 0.5``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SIDES",
    "centre_square",
    "ellipse",
    "half",
    "polygon",
    "random_blob",
    "random_ellipse",
    "random_hole",
    "random_lesion",
    "random_mask",
    "random_pixels",
    "random_polygon",
    "random_rectangle",
    "random_strokes",
    "rectangle",
    "soften",
]

Mask = NDArray[np.float32]
Side = Literal["left", "right", "top", "bottom"]

SIDES: tuple[Side, ...] = ("left", "right", "top", "bottom")


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


def half(height: int, width: int, side: Side) -> Mask:
    """One half of the image, as Yeh et al. 2017 (arXiv 1607.07539, section 4) leave it out.

    Examples
    --------
    >>> half(2, 4, "right")[0]
    array([0., 0., 1., 1.], dtype=float32)
    """
    left, top = width / 2 * (side == "right"), height / 2 * (side == "bottom")
    right, bottom = width / 2 * (1 + (side != "left")), height / 2 * (1 + (side != "top"))
    return rectangle(height, width, left, top, right, bottom)


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


def random_pixels(height: int, width: int, rng: np.random.Generator, share: float = 0.8) -> Mask:
    """Pixels by themselves, each with the chance `share`: 80 % in Yeh et al. 2017, section 4."""
    return (rng.random((height, width)) < share).astype(np.float32)


def random_blob(height: int, width: int, rng: np.random.Generator, share: float = 0.25) -> Mask:
    """Patches of no shape that cover `share` of the image: the random pattern of Yeh et al. 2017, section 4.

    White noise, blurred by 1/32 to 1/10 of the shorter side, cut at its own quantile.
    """
    sigma = rng.uniform(1 / 32, 1 / 10) * min(height, width)
    noise = rng.standard_normal((height, width), np.float32)
    smooth = _gaussian_matrix(height, sigma) @ noise @ _gaussian_matrix(width, sigma).T
    return (smooth > np.quantile(smooth, 1 - share)).astype(np.float32)


def random_strokes(height: int, width: int, rng: np.random.Generator) -> Mask:
    """One to five strokes of a brush, each of two to five bends, 1/32 to 1/6 of the shorter side wide."""
    y, x = _centres(height, width)
    side = min(height, width)
    painted = np.zeros((height, width), dtype=bool)
    for _ in range(int(rng.integers(1, 6))):
        radius = rng.uniform(1 / 64, 1 / 12) * side
        angle = rng.uniform(0, 2 * np.pi)
        x0, y0 = rng.uniform(0, 1, 2) * (width, height)
        for _ in range(int(rng.integers(2, 6))):
            angle += rng.normal(0, 0.7)
            length = rng.uniform(0.1, 0.35) * side
            dx, dy = length * np.cos(angle), length * np.sin(angle)
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / length**2, 0, 1)
            painted |= (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 < radius**2
            x0, y0 = x0 + dx, y0 + dy
    return painted.astype(np.float32)


def random_lesion(
    height: int, width: int, rng: np.random.Generator, smallest: float = 1 / 20, largest: float = 1 / 5
) -> Mask:
    """A round patch with a wavy outline, as lesions are drawn, its centre in the middle three fifths.

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    rng : numpy.random.Generator
        Where the randomness comes from.
    smallest, largest : float
        Range of the radius, as shares of the shorter side.

    Returns
    -------
    ndarray of float32, (height, width)
        1 inside, 0 outside.

    Examples
    --------
    >>> mask = random_lesion(64, 64, np.random.default_rng(7), 0.1, 0.1)
    >>> bool(0.01 < mask.mean() < 0.04)
    True
    """
    y, x = _centres(height, width)
    radius = rng.uniform(smallest, largest) * min(height, width)
    cx, cy = rng.uniform(0.2, 0.8, 2) * (width, height)
    flat, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    dx, dy = x - cx, y - cy
    along, across = dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / flat
    angle = np.arctan2(across, along)
    outline = np.ones_like(angle)
    for waves in range(2, 7):
        outline += rng.normal(0, 0.25 / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return (np.hypot(along, across) < radius * outline).astype(np.float32)


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


def random_hole(height: int, width: int, rng: np.random.Generator) -> Mask:
    """A hole to be filled, of any kind and size: what inpainting trains with.

    A sixth each are centre squares (1/4 to 3/4 of the side, every second as in the paper), halves, and single pixels
    (50 to 95 %); the others are rectangles, ellipses and polygons, blobs, strokes and lesions, or almost everything.

    Parameters
    ----------
    height, width : int
        Size of the mask in pixels.
    rng : numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    ndarray of float32, (height, width)
        0 or 1; at least one pixel of each.

    Examples
    --------
    >>> np.unique(random_hole(64, 64, np.random.default_rng(7)))
    array([0., 1.], dtype=float32)
    """
    while True:
        mask = _any_hole(height, width, rng)
        if 0 < mask.sum() < mask.size:
            return mask


def _any_hole(height: int, width: int, rng: np.random.Generator) -> Mask:
    match int(rng.integers(12)):
        case 0:
            return centre_square(height, width)
        case 1:
            return centre_square(height, width, rng.uniform(0.25, 0.75))
        case 2 | 3:
            return half(height, width, SIDES[rng.integers(4)])
        case 4 | 5:
            return random_pixels(height, width, rng, 0.8 if rng.random() < 0.5 else rng.uniform(0.5, 0.95))
        case 6 | 7:
            return random_mask(height, width, rng, centre_share=0, soft_share=0)
        case 8:
            return random_blob(height, width, rng, rng.uniform(0.05, 0.6))
        case 9:
            return random_strokes(height, width, rng)
        case 10:
            return random_lesion(height, width, rng)
        case _:
            # Almost everything: what is left is a window, or a patch.
            shape = random_rectangle if rng.random() < 0.5 else random_lesion
            return 1 - shape(height, width, rng)


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
