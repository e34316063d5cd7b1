"""What an enlargement says about its original, and what it only supposes.

A photograph that was shrunk fixes the sums that shrinking took, and nothing else: an enlargement splits into the one
smallest image with these sums (the *range* of the pseudo-inverse) and a rest that shrinking cannot see (its *null
space*). Projecting replaces the first part and keeps the second (back-projection: Irani and Peleg 1991; as a range and
null space: Schwab et al. 2019, Wang et al. 2022).

Shrinking is separable, ``D = vertical (x) horizontal``, so the pseudo-inverse is, too: ``D^T (D D^T)^-1`` with one
small matrix per axis. What a row adds to one far away falls off by about half from row to row, so windows with a few
pixels of margin give what the whole image gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from velatura.ops.resize import Kernel, weights

__all__ = ["MARGIN", "Shrinking", "ShrinkingWindow"]

MARGIN = 12  # pixels of the small image; measured: what lies beyond changes a result by 1e-4 grey levels at most
ROUNDS = 40  # of projecting, at most
# Of the shrunken result. Measured: with it other windows change a pixel by 1 grey level at most, with six times as much
# by 10.
TOLERANCE = 0.05 / 255


@dataclass(frozen=True, slots=True)
class _Axis:
    """Shrinking along one axis, or along some rows of it."""

    shrink: sparse.csr_array
    inverse: np.ndarray

    def down(self, x: np.ndarray) -> np.ndarray:
        """Shrink the first axis of (N, M)."""
        return self.shrink @ x

    def up(self, x: np.ndarray) -> np.ndarray:
        """Give the smallest array that shrinks to ``x``."""
        return self.shrink.T @ (self.inverse @ x)


def _axis(matrix: Any) -> _Axis:
    # Dense, although it could be solved as a band: windows are small, and products of matrices much faster.
    inverse = np.linalg.inv((matrix @ matrix.T).toarray())
    single: Any = matrix.astype(np.float32)
    return _Axis(single, inverse.astype(np.float32))


class Shrinking:
    """Shrink an image to a size, and the way back.

    Parameters
    ----------
    size : tuple of int
        Height and width of the large image.
    small : tuple of int
        Of the small one; neither side larger.
    kernel : {"bicubic", "area", "linear", "lanczos"}
        Antialiased, as `velatura.ops.resize.resize` has it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> large, small = rng.random((32, 32, 1), np.float32), rng.random((8, 8, 1), np.float32)
    >>> whole = Shrinking((32, 32), (8, 8), "area").window((0, 8), (0, 8))
    >>> bool(abs(whole.down(whole.project(large, small, clip=False)) - small).max() < 1e-5)
    True
    """

    def __init__(self, size: tuple[int, int], small: tuple[int, int], kernel: Kernel = "bicubic") -> None:
        self.size, self.small = size, small
        self._matrices = tuple(weights(*pair, kernel) for pair in zip(size, small, strict=True))
        self._axes: dict[tuple[int, int, int], tuple[tuple[int, int], _Axis]] = {}

    def window(self, rows: tuple[int, int], cols: tuple[int, int]) -> ShrinkingWindow:
        """Give the part that makes these rows and columns of the small image; a margin is the caller's to add."""
        return ShrinkingWindow(*self._part(0, *rows), *self._part(1, *cols))

    def _part(self, axis: int, start: int, stop: int) -> tuple[tuple[int, int], _Axis]:
        key = axis, start, stop
        if key not in self._axes:
            if not axis:
                # Rows pass by once, columns come again in every strip.
                self._axes = {known: part for known, part in self._axes.items() if known[0]}
            matrix = self._matrices[axis][start:stop]
            span = int(matrix.indices.min()), int(matrix.indices.max()) + 1
            self._axes[key] = span, _axis(matrix[:, span[0] : span[1]])
        return self._axes[key]


@dataclass(frozen=True, slots=True)
class ShrinkingWindow:
    """Shrinking of a window of a large image to one of the small one.

    Attributes
    ----------
    row_span, col_span : tuple of int
        What of the large image it reads.
    """

    row_span: tuple[int, int]
    vertical: _Axis
    col_span: tuple[int, int]
    horizontal: _Axis

    def down(self, large: np.ndarray) -> np.ndarray:
        """Shrink (H, W, C) float32, the window of the large image."""
        return _columns(self.vertical.down, _rows(self.horizontal.down, large))

    def up(self, small: np.ndarray) -> np.ndarray:
        """Give the smallest (H, W, C) that shrinks to ``small``, (h, w, C): its pseudo-inverse."""
        return _rows(self.horizontal.up, _columns(self.vertical.up, small))

    def project(
        self, large: np.ndarray, small: np.ndarray, *, clip: bool = True, tolerance: float = TOLERANCE
    ) -> np.ndarray:
        """Change an image as little as possible so that it shrinks to ``small``.

        Parameters
        ----------
        large : numpy.ndarray
            (H, W, C) float32 in [0, 1].
        small : numpy.ndarray
            (h, w, C) float32 in [0, 1].
        clip : bool
            Whether the result has to lie in [0, 1]: then it is the nearest image there, by rounds of projecting.
        tolerance : float
            Error of the shrunken result that ends the rounds.

        Returns
        -------
        numpy.ndarray
            (H, W, C) float32.
        """
        if not clip:
            return large + self.up(small - self.down(large))
        # Of all images in [0, 1] that shrink alike exactly one is nearest: `large` plus something in the range of the
        # transpose (the Lagrange multipliers), clipped. So what is clipped is never carried on to the next round, and
        # neither where a window ends nor how many rounds it took decides which image is found.
        ahead, free, speed = large, large, 1.0
        for _ in range(ROUNDS):
            missing = small - self.down(np.clip(ahead, 0, 1))
            if np.abs(missing).max() <= tolerance:
                break
            # Accelerated gradients (Beck and Teboulle 2009): plain ones take ten times as many.
            before, free = free, ahead + self.up(missing)
            faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
            ahead = free + np.float32((speed - 1) / faster) * (free - before)
            speed = faster
        return np.clip(ahead, 0, 1)


def _columns(change: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Apply a function to every column of (H, W, C)."""
    return change(image.reshape(len(image), -1)).reshape(-1, *image.shape[1:])


def _rows(change: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Apply a function to every row of (H, W, C)."""
    return _columns(change, np.ascontiguousarray(image.transpose(1, 0, 2))).transpose(1, 0, 2)
