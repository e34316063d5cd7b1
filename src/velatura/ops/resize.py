"""Resampling by separable kernels, antialiased: the kernel widens when an image shrinks (as MATLAB's imresize does)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy import sparse

__all__ = ["Kernel", "RowResize", "resize", "weights"]

Kernel = Literal["area", "linear", "bicubic", "lanczos"]

STRIP = 1024  # samples of a row that are converted at a time

_SUPPORT = {"area": 0.5, "linear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


def _kernel(x: np.ndarray, kernel: Kernel) -> np.ndarray:
    x = np.abs(x)
    match kernel:
        case "linear":
            return np.maximum(1 - x, 0)
        case "bicubic":  # Keys 1981, a = -0.5
            near = (1.5 * x - 2.5) * x**2 + 1
            far = ((-0.5 * x + 2.5) * x - 4) * x + 2
            return np.where(x <= 1, near, np.where(x < 2, far, 0))
        case "lanczos":
            return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
        case _:
            raise ValueError(f"unknown kernel {kernel!r}")


@lru_cache(maxsize=32)
def weights(size: int, new_size: int, kernel: Kernel = "bicubic") -> sparse.csr_array:
    """Give the matrix that resamples one axis.

    Parameters
    ----------
    size, new_size : int
        Pixels before and after; pixel centres lie at ``(i + 0.5) / size``.
    kernel : {"area", "linear", "bicubic", "lanczos"}
        ``area`` averages exactly what a new pixel covers.

    Returns
    -------
    scipy.sparse.csr_array
        (new_size, size), float64; rows sum to 1. Beyond the border the image is mirrored.

    Examples
    --------
    >>> weights(4, 2, "area").toarray()
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    ratio = size / new_size
    if kernel == "area":
        # Overlap of the new pixel [i, i + 1) * ratio with each old one.
        start, stop = np.arange(new_size) * ratio, np.arange(1, new_size + 1) * ratio
        first = np.floor(start).astype(int)
        index = first[:, None] + np.arange(int(np.ceil(ratio)) + 1)
        value = np.minimum(index + 1, stop[:, None]) - np.maximum(index, start[:, None])
    else:
        stretch = max(ratio, 1.0)
        centre = (np.arange(new_size) + 0.5) * ratio - 0.5
        reach = _SUPPORT[kernel] * stretch
        first = np.floor(centre - reach).astype(int)
        index = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
        value = _kernel((index - centre[:, None]) / stretch, kernel)
    value = np.where(np.abs(value) > 1e-12, np.maximum(value, 0) if kernel == "area" else value, 0)
    value /= value.sum(1, keepdims=True)
    index = np.mod(index, 2 * size)
    index = np.where(index < size, index, 2 * size - 1 - index)
    row = np.repeat(np.arange(new_size), index.shape[1])
    matrix = sparse.csr_array((value.ravel(), (row, index.ravel())), shape=(new_size, size))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def resize(
    image: np.ndarray,
    height: int,
    width: int,
    kernel: Kernel = "bicubic",
    *,
    rows: slice = slice(None),
    cols: slice = slice(None),
) -> np.ndarray:
    """Resample an image.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) or (H, W, C), any real dtype.
    height, width : int
        The new size.
    kernel : {"area", "linear", "bicubic", "lanczos"}
    rows, cols : slice
        The part of the new image that is wanted, at the cost of that part.

    Returns
    -------
    numpy.ndarray
        The part, (h, w[, C]), float32 (float64 in: float64); not clipped, so that kernels with negative lobes may
        overshoot.
    """
    vertical = weights(image.shape[0], height, kernel)[rows]
    return _resampled(image, vertical, weights(image.shape[1], width, kernel)[cols])


class RowResize:
    """`resize` of an image that comes in rows, and goes in rows.

    Parameters
    ----------
    size, new_size : tuple of int
        Height and width before and after.
    kernel : {"area", "linear", "bicubic", "lanczos"}

    Examples
    --------
    >>> image, change = np.arange(8.0).reshape(4, 2), RowResize((4, 2), (2, 2), "area")
    >>> change.needs((1, 2)), change.rows(image[2:], 2, (1, 2)).tolist()
    ((2, 4), [[5.0, 6.0]])
    """

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int], kernel: Kernel = "bicubic") -> None:
        self._vertical = weights(size[0], new_size[0], kernel)
        self._horizontal = weights(size[1], new_size[1], kernel)

    def needs(self, rows: tuple[int, int]) -> tuple[int, int]:
        """Give the span of rows before that rows after are made of."""
        used = self._vertical[rows[0] : rows[1]].indices
        return int(used.min()), int(used.max()) + 1

    def rows(self, window: np.ndarray, start: int, rows: tuple[int, int]) -> np.ndarray:
        """Make rows.

        Parameters
        ----------
        window : numpy.ndarray
            (h, W) or (h, W, C): at least the rows that are needed.
        start : int
            Which row before is its first.
        rows : tuple of int
            Which rows after are wanted.

        Returns
        -------
        numpy.ndarray
            As `resize` gives them.
        """
        vertical = self._vertical[rows[0] : rows[1], start : start + len(window)]
        return _resampled(window, vertical, self._horizontal)


def _resampled(image: np.ndarray, vertical: Any, horizontal: Any) -> np.ndarray:
    """Resample by one matrix per axis."""
    dtype = np.float64 if image.dtype == np.float64 else np.float32
    vertical, horizontal = vertical.astype(dtype), horizontal.astype(dtype)
    planes = image[..., None] if image.ndim == 2 else image
    old_height, old_width, channels = planes.shape
    new_height = vertical.shape[0]
    flat = planes.reshape(old_height, -1)
    narrow = np.empty((new_height, flat.shape[1]), dtype)
    # In strips, so that the whole image is never held as floats.
    for start in range(0, flat.shape[1], STRIP):
        strip = slice(start, start + STRIP)
        narrow[:, strip] = vertical @ flat[:, strip].astype(dtype)
    turned = narrow.reshape(new_height, old_width, channels).transpose(1, 0, 2).reshape(old_width, -1)
    out = (horizontal @ turned).reshape(-1, new_height, channels).transpose(1, 0, 2)
    return np.ascontiguousarray(out[..., 0] if image.ndim == 2 else out)
