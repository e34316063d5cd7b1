"""A piece of one picture in its place in another: cut, scaled, matched, and read in windows.

What blending and the studio's preview share. The piece is never drawn as a whole image of the destination's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from velatura.errors import InputError
from velatura.image import Picture, in_profile_of, rescaled
from velatura.ops.resize import resize

__all__ = ["Piece", "place"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The source cut to its mask, in its place in the destination.

    Its `shape`, `mask` and `difference` make it a `velatura.ops.seam.Seam`.

    Attributes
    ----------
    source : numpy.ndarray
        (h, w, C), dtype and channels of the destination.
    matte : numpy.ndarray
        (h, w) uint8.
    top, left : int
        Where it lies; wholly inside the destination.
    support : tuple of two (int, int)
        Rows and columns of the destination, half-open, outside of which the matte is 0.
    destination : Picture
    """

    source: np.ndarray
    matte: np.ndarray
    top: int
    left: int
    support: tuple[tuple[int, int], tuple[int, int]]
    destination: Picture

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the destination."""
        return self.destination.channels, self.destination.height, self.destination.width

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the destination that the piece covers, half-open."""
        height, width = self.matte.shape
        return (self.top, self.top + height), (self.left, self.left + width)

    def coverage(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Give the matte in a window of the destination: (h, w) uint8, a view where the piece fills the window."""
        (top, bottom), (left, right) = self.bounds
        if top <= rows[0] and rows[1] <= bottom and left <= cols[0] and cols[1] <= right:
            return self.matte[rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]
        out = np.zeros((rows[1] - rows[0], cols[1] - cols[0]), np.uint8)
        first, last = max(rows[0], top), min(rows[1], bottom)
        start, stop = max(cols[0], left), min(cols[1], right)
        if first < last and start < stop:
            out[first - rows[0] : last - rows[0], start - cols[0] : stop - cols[0]] = self.matte[
                first - top : last - top, start - left : stop - left
            ]
        return out

    def opacity(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray | None:
        """Give the destination's alpha in a window as (h, w) float32 in [0, 1]; None where it has none."""
        alpha = self.destination.alpha
        return None if alpha is None else rescaled(alpha[slice(*rows), slice(*cols)], np.float32)

    def mask(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Give the share of the source in the colour of each pixel: (h, w) float32 in [0, 1].

        That is the mask; over a destination that is partly transparent, the share by the rule of "over".
        """
        mask = np.divide(self.coverage(rows, cols), 255, dtype=np.float32)
        opacity = self.opacity(rows, cols)
        return mask if opacity is None else mask / np.maximum(mask + (1 - mask) * opacity, 1e-6)

    def contrast(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Give source minus destination in units of white: (C, h, w) float32; the source's border repeats itself."""
        source = self.source
        (top, bottom), (left, right) = self.bounds
        if top <= rows[0] and rows[1] <= bottom and left <= cols[0] and cols[1] <= right:
            source = source[rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]
        else:
            height, width = self.matte.shape
            index = np.clip(np.arange(*rows) - top, 0, height - 1), np.clip(np.arange(*cols) - left, 0, width - 1)
            source = source[np.ix_(*index)]
        destination = self.destination.pixels[slice(*rows), slice(*cols)]
        out = np.empty((source.shape[2], *source.shape[:2]), np.float32)
        for channel in range(len(out)):
            np.subtract(source[..., channel], destination[..., channel], out=out[channel], dtype=np.float32)
        out *= np.float32(1 / self.destination.white)
        return out

    def faded(self, contrast: np.ndarray, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Let a `contrast` fade where the destination is transparent: there is no colour to match."""
        opacity = self.opacity(rows, cols)
        return contrast if opacity is None else contrast * opacity

    def difference(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Give what the seam has to bridge: (C, h, w) float32."""
        return self.faded(self.contrast(rows, cols), rows, cols)

    def thinned(self, rows: tuple[int, int], cols: tuple[int, int], most: int) -> Piece:
        """Take every k-th row and column of a window, so that twice ``most`` of them or fewer are left."""
        origin = rows[0], cols[0]
        steps = [max((stop - start) // most, 1) for start, stop in (rows, cols)]
        # Source and destination must be thinned on the same grid.
        first = [
            (start - corner) % step for start, corner, step in zip(origin, (self.top, self.left), steps, strict=True)
        ]
        top, left = (
            (corner + skip - start) // step
            for corner, skip, start, step in zip((self.top, self.left), first, origin, steps, strict=True)
        )
        grid = slice(first[0], None, steps[0]), slice(first[1], None, steps[1])
        window = slice(*rows, steps[0]), slice(*cols, steps[1])
        alpha = self.destination.alpha
        destination = Picture(self.destination.pixels[window], None if alpha is None else alpha[window])
        return Piece(self.source[grid], self.matte[grid], top, left, self.support, destination)

    def flat_share(self, rows: tuple[int, int], cols: tuple[int, int]) -> int | None:
        """Give 0 where a window holds nothing of the source, 1 where nothing else; None where both."""
        coverage = self.coverage(rows, cols)
        low, high = coverage.min(), coverage.max()
        if low == high == 0:
            return 0
        return 1 if low == high == 255 else None


def place(
    source: Picture,
    destination: Picture,
    mask: np.ndarray | None = None,
    at: tuple[int, int] | None = None,
    scale: float = 1.0,
    *,
    margin: int = 1,
) -> Piece:
    """Scale the source, put it in its place, match it to the destination, and cut it to its mask.

    Parameters
    ----------
    source, destination : Picture
        The destination's depth, channels and profile count.
    mask : numpy.ndarray, optional
        (h, w) uint8, of the source's size; multiplied with the source's alpha, which alone counts without it.
    at : tuple of int, optional
        X, Y of the source's top left corner in the destination; may be negative. None: the sizes are equal.
    scale : float
        Enlarges source and mask first.
    margin : int
        Pixels of the source that are kept around the mask where there are any.

    Raises
    ------
    InputError
        A mask of another size or an empty one, no mask and no alpha, sizes that differ without ``at``, a piece that
        lies outside.
    """
    if mask is not None and mask.shape != source.pixels.shape[:2]:
        raise InputError(
            f"mask: got {_size(mask)}, but the source is {_size(source.pixels)}; give a mask of the source's size"
        )
    source = in_profile_of(source, destination)
    matte = _matte(source, mask)
    pixels = source.pixels
    if scale != 1:
        pixels, matte = _scaled(pixels, matte, scale)
    if at is None and pixels.shape[:2] != destination.pixels.shape[:2]:
        raise InputError(
            f"source: got {_size(pixels)}{' after scaling' if scale != 1 else ''}, but the destination is "
            f"{_size(destination.pixels)}; say where to place it with --at X,Y"
        )
    left, top = at or (0, 0)
    rows = slice(max(-top, 0), max(min(destination.height - top, len(matte)), 0))
    cols = slice(max(-left, 0), max(min(destination.width - left, matte.shape[1]), 0))
    used = matte[rows, cols]
    if not used.size:
        raise InputError(
            f"at: the source, {_size(pixels)} at {left},{top}, lies outside the destination, "
            f"{_size(destination.pixels)}; choose X,Y so that they overlap"
        )
    if not used.any():
        where = "" if used.shape == matte.shape else " where it lies on the destination"
        raise InputError(f"mask: it is empty{where}; paint white what to take from the source")
    covered = [np.flatnonzero(used.any(axis)) for axis in (1, 0)]
    kept = [
        slice(part.start + max(index[0] - margin, 0), part.start + min(index[-1] + 1 + margin, size))
        for part, index, size in zip((rows, cols), covered, used.shape, strict=True)
    ]
    support = [
        (corner + part.start + int(index[0]), corner + part.start + int(index[-1]) + 1)
        for corner, part, index in zip((top, left), (rows, cols), covered, strict=True)
    ]
    return Piece(
        _matched(pixels[*kept], destination),
        matte[*kept],
        top + kept[0].start,
        left + kept[1].start,
        (support[0], support[1]),
        destination,
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _matte(source: Picture, mask: np.ndarray | None) -> np.ndarray:
    """Join mask and alpha: (h, w) uint8."""
    alpha = None if source.alpha is None else rescaled(source.alpha, np.uint8)
    if alpha is None:
        if mask is None:
            raise InputError("mask: none was given and the source has no alpha; give one, white = take the source")
        return mask
    if mask is None:
        return alpha
    return ((mask.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _scaled(pixels: np.ndarray, matte: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Resample the source and its matte; colours under a matte of 0 do not bleed in."""
    height, width = (max(round(size * scale), 1) for size in matte.shape)
    weight = np.maximum(matte[..., None], 1e-3).astype(np.float32)
    colours = resize(pixels * weight, height, width) / np.maximum(resize(weight, height, width), 1e-4)
    white = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    colours = np.clip(colours, 0, white)
    if pixels.dtype.kind != "f":
        np.rint(colours, out=colours)
    matte = np.rint(np.clip(resize(matte, height, width, "linear"), 0, 255)).astype(np.uint8)
    return colours.astype(pixels.dtype), matte


def _matched(pixels: np.ndarray, destination: Picture) -> np.ndarray:
    """Give the source the destination's depth and channels."""
    if pixels.shape[2] > destination.channels:
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
        pixels = (luma if pixels.dtype.kind == "f" else np.rint(luma)).astype(pixels.dtype)[..., None]
    pixels = rescaled(pixels, destination.pixels.dtype)
    return np.broadcast_to(pixels, (*pixels.shape[:2], destination.channels))
