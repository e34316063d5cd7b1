"""Halving and doubling of planes, aligned at pixel areas: pixel i of a level covers pixels 2i and 2i + 1 below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["double", "double_window", "fill_holes", "fill_holes_in_bands", "halve", "halve_adjoint"]

LEVELS = 4  # that are made band by band
BAND_UNITS = 8  # rows of the coarsest of them in a band


def halve(planes: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 pixels; a last odd row or column is repeated.

    Parameters
    ----------
    planes : numpy.ndarray
        (..., H, W), any real dtype.

    Returns
    -------
    numpy.ndarray
        (..., ceil(H/2), ceil(W/2)), float32.

    Examples
    --------
    >>> halve(np.array([[0, 4, 2], [8, 4, 2]], np.uint8))
    array([[4., 2.]], dtype=float32)
    """
    height, width = planes.shape[-2:]
    if height % 2 or width % 2:
        padding = [(0, 0)] * (planes.ndim - 2) + [(0, height % 2), (0, width % 2)]
        planes = np.pad(planes, padding, mode="edge")
    rows = planes[..., 0::2, :].astype(np.float32)
    rows += planes[..., 1::2, :]
    out = rows[..., 0::2] + rows[..., 1::2]
    out *= 0.25
    return out


def double(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Double by linear interpolation between pixel centres, the inverse grid of `halve`.

    Parameters
    ----------
    planes : numpy.ndarray
        (..., h, w), float.
    height, width : int
        Size of the result: ``2h`` or ``2h - 1``, ``2w`` or ``2w - 1``.

    Returns
    -------
    numpy.ndarray
        (..., height, width), dtype of ``planes``.
    """
    rows, cols = planes.shape[-2:]
    return double_window(planes, (0, height), (0, width)) if rows and cols else planes


def double_window(planes: np.ndarray, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    """Give the window ``rows`` x ``cols`` (half-open, in fine pixels) of `double`, at the cost of the window alone."""
    return _double_axis(_double_axis(planes, rows, -2), cols, -1)


def _double_axis(planes: np.ndarray, span: tuple[int, int], axis: int) -> np.ndarray:
    def along(start: int | None, stop: int | None, step: int = 1) -> tuple:
        part = slice(start, stop, step)
        return (..., part) if axis == -1 else (..., part, slice(None))

    size = planes.shape[axis]
    first, stop = span[0] // 2, (span[1] + 1) // 2
    # The parents with one neighbour on each side; the border repeats itself.
    low, high = max(first - 1, 0), min(stop + 1, size)
    quarter = planes[along(low, high)] * planes.dtype.type(0.25)
    if low == first:
        quarter = np.concatenate([quarter[along(0, 1)], quarter], axis)
    if high == stop:
        quarter = np.concatenate([quarter, quarter[along(-1, None)]], axis)
    # A fine pixel takes 3/4 of its parent and 1/4 of the parent's neighbour on its own side.
    own = planes[along(first, stop)] * planes.dtype.type(0.75)
    shape = list(own.shape)
    shape[axis] *= 2
    out = np.empty(shape, planes.dtype)
    np.add(own, quarter[along(None, -2)], out=out[along(0, None, 2)])
    np.add(own, quarter[along(2, None)], out=out[along(1, None, 2)])
    return out[along(span[0] - 2 * first, span[1] - 2 * first)]


def fill_holes(planes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill what is not known with a smooth continuation of what is (pull-push, Gortler et al. 1996, section 4).

    Parameters
    ----------
    planes : numpy.ndarray
        (C, H, W) float.
    known : numpy.ndarray
        (H, W) bool.

    Returns
    -------
    numpy.ndarray
        (C, H, W) float32: ``planes`` where known; zero everywhere if nothing is.

    Examples
    --------
    >>> fill_holes(np.array([[[5.0, 0.0, 0.0]]]), np.array([[True, False, False]]))
    array([[[5., 5., 5.]]], dtype=float32)
    """
    planes = np.where(known, planes, 0).astype(np.float32)
    if known.all() or not known.any():
        return planes
    return np.where(known, planes, double(fill_holes(*_known_means(planes, known)), *known.shape))


def fill_holes_in_bands(rows: Callable[[int, int], tuple[np.ndarray, np.ndarray]], height: int) -> Iterator[np.ndarray]:
    """Do what `fill_holes` does, holding a band of rows at a time and the whole at a 16th of its size.

    Parameters
    ----------
    rows : callable
        ``rows(start, stop)`` gives planes (C, stop - start, W) and what of them is known; each row is asked for more
        than once.
    height : int

    Yields
    ------
    numpy.ndarray
        (C, h, W) float32, from top to bottom.

    Examples
    --------
    >>> planes, known = np.full((1, 200, 3), 5.0), np.arange(600).reshape(200, 3) % 7 == 0
    >>> bands = fill_holes_in_bands(lambda start, stop: (planes[:, start:stop], known[start:stop]), 200)
    >>> np.array_equal(np.concatenate(list(bands), 1), fill_holes(planes, known))
    True
    """
    unit = 2**LEVELS
    starts = range(0, height, BAND_UNITS * unit)
    small = [_pulled(*rows(start, min(start + starts.step, height)))[-1] for start in starts]
    coarse = fill_holes(*(np.concatenate(parts, -2) for parts in zip(*small, strict=True)))
    for start in starts:
        stop = min(start + starts.step, height)
        # One row of the coarsest level more on each side: what lacks a neighbour there is cut off again.
        first, last = max(start - unit, 0), min(stop + unit, height)
        levels = _pulled(*rows(first, last))
        filled = coarse[..., first // unit : -(-last // unit), :]
        for planes, known in reversed(levels[:-1]):
            filled = np.where(known, planes, double(filled, *known.shape))
        yield filled[..., start - first : stop - first, :]


def _known_means(planes: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve: the means of what is known, and where there are any."""
    share = halve(known)
    return halve(planes) / np.where(share > 0, share, 1), share > 0


def _pulled(planes: np.ndarray, known: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Halve `LEVELS` times; the finest level comes first."""
    levels = [(np.where(known, planes, 0).astype(np.float32), known)]
    for _ in range(LEVELS):
        levels.append(_known_means(*levels[-1]))
    return levels


def halve_adjoint(planes: np.ndarray, first: int, rows: slice, height: int, *, out: np.ndarray) -> None:
    """Write the rows of the adjoint of `double`, divided by 4, that belong to the fine rows ``rows``.

    Parameters
    ----------
    planes : numpy.ndarray
        (h, W): fine rows from ``first`` on, holding ``rows`` and, inside the image, one row more on each side.
    first : int
        Fine row at which ``planes`` begins.
    rows : slice
        Fine rows; starts at an even row and, but at the end of the image, stops at one.
    height : int
        Rows of the fine grid.
    out : numpy.ndarray
        (ceil(height/2), ceil(W/2)).
    """
    top, bottom = rows.start - first, rows.stop - first
    even, odd = planes[top:bottom:2], planes[top + 1 : bottom : 2]
    half = np.array(even)
    half[: len(odd)] += odd
    half *= 0.75
    half[:-1] += 0.25 * even[1:]
    half[1:] += 0.25 * odd[: len(half) - 1]
    # What the neighbouring bands hold; the border repeats itself.
    half[0] += 0.25 * (planes[top - 1] if top else even[0])
    if rows.stop < height:
        half[-1] += 0.25 * planes[bottom]
    elif len(odd) == len(even):
        half[-1] += 0.25 * odd[-1]
    _halve_adjoint_last(half, out=out[rows.start // 2 : (rows.stop + 1) // 2])


def _halve_adjoint_last(planes: np.ndarray, *, out: np.ndarray) -> None:
    even, odd = planes[..., 0::2], planes[..., 1::2]
    out[:] = even
    out[..., : odd.shape[-1]] += odd
    out *= 0.75
    out[..., :-1] += 0.25 * even[..., 1:]
    out[..., 1:] += 0.25 * odd[..., : out.shape[-1] - 1]
    out[..., 0] += 0.25 * even[..., 0]
    if odd.shape[-1] == even.shape[-1]:
        out[..., -1] += 0.25 * odd[..., -1]
    out *= 0.25
