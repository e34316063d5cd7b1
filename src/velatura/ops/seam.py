"""The seam between a piece and its new surroundings, closed from coarse to fine (GP-GAN, section 3.3, algorithm 1).

The Gaussian-Poisson equation is solved on every level of a pyramid; the solution of one level is the colour
reference of the next finer one, so that a step of colour at the seam is spread over a wide transition while detail
stays sharp. What is passed on are *corrections* to the two photographs, one for each side of the seam: they are
smooth up to the seam, where the composite itself is not, and double without a ripple.

Only windows that the seam crosses, or in which the correction still bends, are solved: everywhere else the doubled
correction is the solution already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.fft import next_fast_len

from velatura.ops.gaussian_poisson import SIGMA, Form, divergence, halo_of, seam_flux, solve
from velatura.ops.pyramid import double_window, halve
from velatura.tiling import DEFAULT_MEMORY_MIB, Tile, tile_side, tiles

__all__ = ["Equation", "Level", "Seam", "close_seam", "correct_tile", "correct_window", "is_flat"]

WINDOW_BYTES = 150  # of working memory per pixel of a window, RGB; measured: 100-140
FLAT = 0.02 / 255  # curvature below which a doubled correction counts as the solution; of white, times beta


@dataclass(frozen=True, slots=True)
class Equation:
    """Which equation is solved, on windows of which size: ``memory`` (MiB) bounds what one window takes."""

    form: Form = "gradient"
    beta: float = 1.0
    sigma: float = SIGMA
    memory: float = DEFAULT_MEMORY_MIB

    @property
    def halo(self) -> int:
        """Pixels around a window that its solution depends on."""
        return halo_of(self.beta, self.form, self.sigma)

    @property
    def side(self) -> int:
        """Inner side of a window: a wide halo wants a wide window, and the transform a fast length."""
        wanted = max(128, 4 * self.halo) + 2 * self.halo
        fast = (next_fast_len(wanted, real=True) or wanted) - 2 * self.halo
        return min(fast, tile_side(self.memory, WINDOW_BYTES, self.halo))


@dataclass(slots=True)
class Level:
    """One level of the pyramid: (C, h, w) and (h, w), float32, colours in units of white.

    ``difference`` (source minus destination) is filled near the seam only: elsewhere it has no effect.
    """

    mask: np.ndarray
    difference: np.ndarray
    correction: np.ndarray

    def largest(self, rows: tuple[int, int], cols: tuple[int, int]) -> float:
        """Give a bound on the size of the doubled correction in a window of fine pixels."""
        planes = window(self.correction, *_parents(rows, cols))
        return float(max(planes.max(), -planes.min()))


class Seam(Protocol):
    """The full-resolution level, read in windows so that it never has to be held as floats."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        ...

    def mask(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """(h, w) float32 in [0, 1]."""
        ...

    def difference(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """(C, h, w) float32: source minus destination, in units of white."""
        ...


def window(planes: np.ndarray, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    """Give a view of the last two axes."""
    return planes[..., rows[0] : rows[1], cols[0] : cols[1]]


def _parents(rows: tuple[int, int], cols: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give the coarse pixels that doubling reads for a fine window; beyond the image a slice just ends."""
    (top, bottom), (left, right) = ((max(start // 2 - 1, 0), (stop + 1) // 2 + 1) for start, stop in (rows, cols))
    return (top, bottom), (left, right)


def is_flat(mask: np.ndarray) -> bool:
    """Whether a mask is 0 everywhere or 1 everywhere."""
    low, high = mask.min(), mask.max()
    return bool(low == high and high in (0.0, 1.0))


def correct_window(
    mask: np.ndarray | None, difference: np.ndarray | None, reference: np.ndarray, equation: Equation
) -> None:
    """Add to ``reference`` what turns it into the solution of the equation, in place.

    Parameters
    ----------
    mask, difference : numpy.ndarray or None
        (h, w) in [0, 1] and (C, h, w) source minus destination; None where the mask is flat.
    reference : numpy.ndarray
        (C, h, w) the colour reference ``t``; becomes ``c``.
    equation : Equation

    Notes
    -----
    With ``c = t + e`` the equation becomes one for ``e`` whose only source is ``div (r - grad t)``.
    """
    if mask is None or difference is None:
        rows, cols = np.zeros_like(reference), np.zeros_like(reference)
    else:
        rows, cols = (seam_flux(mask, difference, axis) for axis in (-2, -1))
    cols[..., :-1] -= np.diff(reference, axis=-1)
    rows[..., :-1, :] -= np.diff(reference, axis=-2)
    reference += solve(divergence(rows, cols), beta=equation.beta, form=equation.form, sigma=equation.sigma)


def double_correction(
    coarse: Level, rows: tuple[int, int], cols: tuple[int, int], fine_mask: np.ndarray | None
) -> np.ndarray:
    """Double a window of a level's correction, each side of the seam by itself.

    Parameters
    ----------
    coarse : Level
    rows, cols : tuple of int
        The window, half-open, in fine pixels.
    fine_mask : numpy.ndarray or None
        (h, w) the mask of the window; None where the coarse mask is flat around it.

    Returns
    -------
    numpy.ndarray
        (C, h, w) float32, owned by the caller.
    """
    if fine_mask is None:
        return np.ascontiguousarray(double_window(coarse.correction, rows, cols))
    # Work on a cut-out, so that nothing outside the window costs anything.
    cut = _parents(rows, cols)
    (top, _), (left, _) = cut
    rows = (rows[0] - 2 * top, rows[1] - 2 * top)
    cols = (cols[0] - 2 * left, cols[1] - 2 * left)
    correction = window(coarse.correction, *cut)
    mask = window(coarse.mask, *cut)
    jump = window(coarse.difference, *cut) * (mask * (1 - mask))
    # u - s = c - (1 - m) D inside and u - d = c + m D outside, each weighted by how much of it a coarse pixel holds.
    inside = double_window(mask * correction - jump, rows, cols)
    outside = double_window((1 - mask) * correction + jump, rows, cols)
    weight = double_window(mask, rows, cols)
    inside *= fine_mask / np.maximum(weight, 1e-6)
    outside *= (1 - fine_mask) / np.maximum(1 - weight, 1e-6)
    inside += outside
    return np.ascontiguousarray(inside)


def bends(coarse: Level, rows: tuple[int, int], cols: tuple[int, int], equation: Equation) -> bool:
    """Whether the coarse correction bends within the fine window, so that doubling alone is not the solution."""
    planes = window(coarse.correction, *_parents(rows, cols))
    # A second difference on the coarse grid is four times that on the fine one.
    limit = 4 * FLAT * equation.beta
    return any(planes.shape[axis] > 2 and np.abs(np.diff(planes, 2, axis=axis)).max() > limit for axis in (-1, -2))


def close_seam(
    seam: Seam,
    equation: Equation,
    levels: int,
    *,
    tick: Callable[[], None] = lambda: None,
) -> Level:
    """Solve all levels but the full resolution.

    Parameters
    ----------
    seam : Seam
    equation : Equation
    levels : int
        Number of halvings to the coarsest level, at least 1.
    tick : callable
        Called after every window; what it raises stops the work.

    Returns
    -------
    Level
        The level at half the resolution, solved.
    """
    pyramid = [_first_level(seam, levels)]
    for _ in range(levels - 1):
        finer = pyramid[-1]
        difference = halve(finer.difference)
        pyramid.append(Level(halve(finer.mask), difference, np.zeros_like(difference)))
    coarsest = pyramid[-1]
    correct_window(coarsest.mask, coarsest.difference, coarsest.correction, equation)
    for fine, coarse in zip(pyramid[-2::-1], pyramid[:0:-1], strict=True):
        height, width = fine.mask.shape
        for tile in tiles(height, width, equation.side, equation.halo):
            mask, difference = fine.mask[tile.outer], fine.difference[:, *tile.outer]
            if is_flat(mask):
                mask = difference = None
            fine.correction[:, *tile.inner] = correct_tile(mask, difference, coarse, tile, equation)
            tick()
    return pyramid[0]


def correct_tile(
    mask: np.ndarray | None, difference: np.ndarray | None, coarse: Level, tile: Tile, equation: Equation
) -> np.ndarray:
    """Solve the window of one tile.

    Parameters
    ----------
    mask, difference : numpy.ndarray or None
        (h, w) and (C, h, w), of the tile's outer region; None where the mask is flat there.
    coarse : Level
        The next coarser level, solved.
    tile : Tile
    equation : Equation

    Returns
    -------
    numpy.ndarray
        (C, h, w) the correction of the tile's inner region, owned by the caller.
    """
    outer = tile.outer_rows, tile.outer_cols
    if mask is None and not bends(coarse, *outer, equation):
        return double_correction(coarse, tile.inner_rows, tile.inner_cols, None)
    reference = double_correction(coarse, *outer, mask)
    correct_window(mask, difference, reference, equation)
    return reference[:, *tile.crop]


def _first_level(seam: Seam, levels: int) -> Level:
    """Halve the full resolution once, in bands; the difference only where some level will look at it."""
    channels, height, width = seam.shape
    half = (height + 1) // 2, (width + 1) // 2
    mask = np.empty(half, np.float32)
    for rows in _spans(height, 256):
        mask[rows[0] // 2 : (rows[1] + 1) // 2] = halve(seam.mask(rows, (0, width)))
    # Untouched pages of zeros take no memory.
    difference = np.zeros((channels, *half), np.float32)
    reach = 2**levels  # in half-resolution pixels: two pixels of the coarsest level
    for tile in tiles(*half, 64, reach):
        if not is_flat(mask[tile.outer]):
            rows, cols = (
                (2 * start, min(2 * stop, size))
                for (start, stop), size in zip((tile.inner_rows, tile.inner_cols), (height, width), strict=True)
            )
            difference[:, *tile.inner] = halve(seam.difference(rows, cols))
    return Level(mask, difference, np.zeros_like(difference))


def _spans(stop: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, stop, step):
        yield start, min(start + step, stop)
