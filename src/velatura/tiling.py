"""Tiles with a halo, sized by a memory budget; rows that pass by once.

The default budget is a constant, never what happens to be free, so that the same input gives the same tiles and
the same bytes on every machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["DEFAULT_MEMORY_MIB", "RowBuffer", "Tile", "tile_side", "tiles"]

#: Working memory that a task may take beside the images themselves.
DEFAULT_MEMORY_MIB = 512


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: ``inner`` is written, ``outer`` (inner grown by the halo, cut at the border) is read.

    All four bounds are half-open ``(start, stop)`` in pixels of the whole image.
    """

    inner_rows: tuple[int, int]
    inner_cols: tuple[int, int]
    outer_rows: tuple[int, int]
    outer_cols: tuple[int, int]

    @property
    def outer(self) -> tuple[slice, slice]:
        """Index of the outer region in the whole image."""
        return slice(*self.outer_rows), slice(*self.outer_cols)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Index of the inner region in the whole image."""
        return slice(*self.inner_rows), slice(*self.inner_cols)

    @property
    def crop(self) -> tuple[slice, slice]:
        """Index of the inner region inside the outer one."""
        top, left = self.outer_rows[0], self.outer_cols[0]
        return (
            slice(self.inner_rows[0] - top, self.inner_rows[1] - top),
            slice(self.inner_cols[0] - left, self.inner_cols[1] - left),
        )


def tiles(height: int, width: int, side: int, halo: int) -> Iterator[Tile]:
    """Cut ``height`` x ``width`` into tiles of at most ``side`` pixels (inner), row by row.

    Examples
    --------
    >>> [tile.outer_cols for tile in tiles(4, 10, side=4, halo=1)]
    [(0, 5), (3, 9), (7, 10)]
    """
    if side < 1 or halo < 0:
        raise ValueError(f"got side {side} and halo {halo}; expected side >= 1 and halo >= 0")
    for top in range(0, height, side):
        bottom = min(top + side, height)
        for left in range(0, width, side):
            right = min(left + side, width)
            yield Tile(
                (top, bottom),
                (left, right),
                (max(top - halo, 0), min(bottom + halo, height)),
                (max(left - halo, 0), min(right + halo, width)),
            )


def tile_side(memory_mib: float, bytes_per_pixel: float, halo: int, *, multiple: int = 16) -> int:
    """Side of the largest square tile whose outer region fits the budget.

    Parameters
    ----------
    memory_mib : float
        Budget in MiB.
    bytes_per_pixel : float
        Working memory per pixel of the outer region.
    halo : int
        Pixels added on each side.
    multiple : int
        The side is a multiple of it, and at least it.

    Examples
    --------
    >>> tile_side(64, bytes_per_pixel=64, halo=16)
    992
    """
    outer = int((memory_mib * 2**20 / bytes_per_pixel) ** 0.5)
    return max((outer - 2 * halo) // multiple * multiple, multiple)


class RowBuffer:
    """Rows that come from top to bottom, read in windows that only move down.

    Parameters
    ----------
    bands : iterator of numpy.ndarray
        (h, ...) each, any heights.

    Examples
    --------
    >>> rows = RowBuffer(iter([np.arange(3), np.arange(3, 5), np.arange(5, 9)]))
    >>> rows.window(1, 5).tolist(), rows.window(4, 8).tolist()
    ([1, 2, 3, 4], [4, 5, 6, 7])
    """

    def __init__(self, bands: Iterator[np.ndarray]) -> None:
        self._bands = bands
        self._kept: deque[np.ndarray] = deque()
        self._first = self._next = 0  # the first row kept, and the first that has not come yet

    def window(self, start: int, stop: int) -> np.ndarray:
        """Give rows ``start`` to ``stop``, at least one; those before ``start`` are forgotten.

        Raises
        ------
        ValueError
            A row was forgotten, or there are not so many.
        """
        if start < self._first:
            raise ValueError(f"row {start} is gone; the first that is kept is {self._first}")
        while self._kept and self._first + len(self._kept[0]) <= start:
            self._first += len(self._kept.popleft())
        while self._next < stop:
            band = next(self._bands, None)
            if band is None:
                raise ValueError(f"rows end at {self._next}; {stop} were asked for")
            self._next += len(band)
            self._kept.append(band)
            if self._next <= start:
                self._first += len(self._kept.popleft())
        parts, first = [], self._first
        for band in self._kept:
            if first < stop:
                parts.append(band[max(start - first, 0) : stop - first])
            first += len(band)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
