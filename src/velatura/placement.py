"""A piece of one picture in its place in another: cut, scaled, matched, and read in windows.

What blending and the studio's preview share. The piece is never drawn as a whole image of the destination's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from velatura.errors import InputError
from velatura.image import LUMA, Picture, in_profile_of, rescaled, white_of
from velatura.ops.pyramid import fill_holes
from velatura.ops.resize import resize

__all__ = ["ColourMap", "Piece", "place"]


@dataclass(frozen=True, slots=True, eq=False)
class ColourMap:
    """How colours change from place to place: ``x`` becomes ``x + matrix x + offset``, in units of white.

    Attributes
    ----------
    planes : numpy.ndarray
        (C*C + C, h, w) float32 on a coarse grid: the matrix by rows, then the offset.
    window : tuple of int
        Top, left, height and width of what the grid covers, in pixels of the destination; beyond it the border counts.
    """

    planes: np.ndarray
    window: tuple[int, int, int, int]

    def apply(self, colours: np.ndarray, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        """Change the colours (C, h, w) of a window of the destination in place; 0..1 in, 0..1 out."""
        top, left, height, width = self.window
        down, down_share = _position(rows, top, height, self.planes.shape[1])
        across, across_share = _position(cols, left, width, self.planes.shape[2])
        # Columns first, on the few coarse rows; no matrix products: BLAS would start threads for each window.
        coarse = self.planes[:, down[0] : down[-1] + 2]
        planes = _between(coarse, across, across_share, -1)
        planes = _between(planes, down - down[0], down_share[:, None], -2)
        channels = len(colours)
        changed = planes[channels**2 :]
        for row in range(channels):
            for column in range(channels):
                changed[row] += planes[row * channels + column] * colours[column]
        colours += changed
        np.clip(colours, 0, 1, out=colours)


def _position(span: tuple[int, int], start: int, extent: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find pixels on a coarse axis that covers ``extent`` of them from ``start`` on: index and share of the next."""
    position = np.clip((np.arange(*span) + 0.5 - start) * (count / extent) - 0.5, 0, count - 1)
    below = np.minimum(position.astype(int), max(count - 2, 0))
    return below, (position - below).astype(np.float32)


def _between(planes: np.ndarray, below: np.ndarray, share: np.ndarray, axis: int) -> np.ndarray:
    """Interpolate linearly along one axis."""
    low = planes.take(below, axis)
    high = planes.take(np.minimum(below + 1, planes.shape[axis] - 1), axis)
    high -= low
    high *= share
    low += high
    return low


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
    colours : ColourMap or None
        Changes the source's colours where they are read.
    """

    source: np.ndarray
    matte: np.ndarray
    top: int
    left: int
    support: tuple[tuple[int, int], tuple[int, int]]
    destination: Picture
    colours: ColourMap | None = None

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
        """Give source minus destination in units of white: (C, h, w) float32, the source in its new colours.

        Beyond the source its border's contrast repeats itself: the seam then has the destination's own gradient.
        """
        (top, bottom), (left, right) = self.bounds
        source, destination = self.source, self.destination.pixels
        if top <= rows[0] and rows[1] <= bottom and left <= cols[0] and cols[1] <= right:
            source = source[rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]
            destination = destination[slice(*rows), slice(*cols)]
        else:
            down, across = np.clip(np.arange(*rows), top, bottom - 1), np.clip(np.arange(*cols), left, right - 1)
            source = source[np.ix_(down - top, across - left)]
            destination = destination[np.ix_(down, across)]
        if self.colours is None:
            return _contrast(source, destination)
        planes = _contrast(source, None)
        self.colours.apply(planes, rows, cols)
        planes -= _contrast(destination, None)
        return planes

    def coloured(self, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        """Give the source in its new colours, in a window that it fills: (C, h, w) float32 in units of white."""
        planes = _contrast(
            self.source[rows[0] - self.top : rows[1] - self.top, cols[0] - self.left : cols[1] - self.left], None
        )
        if self.colours is not None:
            self.colours.apply(planes, rows, cols)
        return planes

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
    matte, alpha = _matte(source, mask)
    height, width = (max(round(size * scale), 1) for size in matte.shape)
    if at is None and (height, width) != destination.pixels.shape[:2]:
        raise InputError(
            f"source: got {width}x{height}{' after scaling' if scale != 1 else ''}, but the destination is "
            f"{_size(destination.pixels)}; say where to place it with --at X,Y"
        )
    left, top = at or (0, 0)
    rows = slice(max(-top, 0), max(min(destination.height - top, height), 0))
    cols = slice(max(-left, 0), max(min(destination.width - left, width), 0))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        raise InputError(
            f"at: the source, {width}x{height} at {left},{top}, lies outside the destination, "
            f"{_size(destination.pixels)}; choose X,Y so that they overlap"
        )
    used = _part(matte, height, width, rows, cols)
    if not used.any():
        where = "" if used.shape == (height, width) else " where it lies on the destination"
        raise InputError(f"mask: it is empty{where}; paint white what to take from the source")
    covered = [np.flatnonzero(used.any(axis)) for axis in (1, 0)]
    support, kept = [], []
    for index, size in zip(covered, used.shape, strict=True):
        support.append((int(index[0]), int(index[-1]) + 1))
        kept.append(slice(max(int(index[0]) - margin, 0), min(int(index[-1]) + 1 + margin, size)))
    down, across = (
        slice(part.start + cut.start, part.start + cut.stop) for part, cut in zip((rows, cols), kept, strict=True)
    )
    top, left = top + down.start, left + across.start
    pixels = _part(source.pixels, height, width, down, across, alpha)
    pixels = _matched(pixels, destination)
    if alpha is not None:
        opacity = _part(alpha, height, width, down, across)
        window = destination.pixels[top : top + len(pixels), left : left + pixels.shape[1]]
        pixels = _continued(pixels, window, opacity > 0)
    return Piece(
        pixels,
        used[*kept],
        top,
        left,
        (
            (support[0][0] - kept[0].start + top, support[0][1] - kept[0].start + top),
            (support[1][0] - kept[1].start + left, support[1][1] - kept[1].start + left),
        ),
        destination,
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _contrast(source: np.ndarray, destination: np.ndarray | None) -> np.ndarray:
    """Subtract (h, w, C) images of one dtype, the second one black for None: (C, h, w) float32 in units of white."""
    out = np.empty((source.shape[2], *source.shape[:2]), np.float32)
    for channel in range(len(out)):
        if destination is None:
            out[channel] = source[..., channel]
        else:
            np.subtract(source[..., channel], destination[..., channel], out=out[channel], dtype=np.float32)
    out *= np.float32(1 / white_of(source.dtype))
    return out


def _matte(source: Picture, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Join mask and alpha: (h, w) uint8; and the alpha by itself, None where the source is opaque."""
    alpha = None if source.alpha is None else rescaled(source.alpha, np.uint8)
    if alpha is None:
        if mask is None:
            raise InputError("mask: none was given and the source has no alpha; give one, white = take the source")
        return mask, None
    if mask is None:
        return alpha, alpha
    return ((mask.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8), alpha


def _part(
    image: np.ndarray, height: int, width: int, rows: slice, cols: slice, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Resample a mask (h, w) or pixels (h, w, C), and give the part that is wanted, in the same dtype."""
    if image.shape[:2] == (height, width):
        return image[rows, cols]
    if alpha is not None:
        # What lies under full transparency is anything; it must not bleed in.
        planes = fill_holes(np.moveaxis(image, -1, 0), alpha > 0)
        image, dtype = np.moveaxis(planes, 0, -1), image.dtype
    else:
        dtype = image.dtype
    kernel = "bicubic" if image.ndim == 3 else "linear"
    part = resize(image, height, width, kernel, rows=rows, cols=cols)
    if dtype.kind != "f":
        np.rint(part, out=part)
    return np.clip(part, 0, white_of(dtype), out=part).astype(dtype)


def _continued(source: np.ndarray, destination: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Give the source colours where it has none: the destination's, changed as at the nearest pixels that have.

    The seam along a cut-out's edge looks one pixel beyond it, at colours that a cut-out leaves black or white.
    """
    if known.all():
        return source
    white = white_of(source.dtype)
    contrast = np.moveaxis(fill_holes(_contrast(source, destination), known), 0, -1)
    colours = destination + contrast * np.float32(white)
    if source.dtype.kind != "f":
        np.rint(colours, out=colours)
    return np.where(known[..., None], source, np.clip(colours, 0, white).astype(source.dtype))


def _matched(pixels: np.ndarray, destination: Picture) -> np.ndarray:
    """Give the source the destination's depth and channels."""
    if pixels.shape[2] > destination.channels:
        luma = pixels @ np.asarray(LUMA, np.float32)
        pixels = (luma if pixels.dtype.kind == "f" else np.rint(luma)).astype(pixels.dtype)[..., None]
    pixels = rescaled(pixels, destination.pixels.dtype)
    return np.broadcast_to(pixels, (*pixels.shape[:2], destination.channels))
