"""Halving and doubling of planes, aligned at pixel areas: pixel i of a level covers pixels 2i and 2i + 1 below it."""

from __future__ import annotations

import numpy as np

__all__ = ["double", "double_window", "fill_holes", "halve", "halve_adjoint"]


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
    share = halve(known)
    coarse = fill_holes(halve(planes) / np.where(share > 0, share, 1), share > 0)
    return np.where(known, planes, double(coarse, *known.shape))


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
