"""Holes of a photograph: where they are, which lie together, and what of the photograph is known.

A hole is said by a mask, a box, a painted colour, or by transparency. This module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from velatura.errors import InputError
from velatura.image import Picture, rescaled

__all__ = ["Fill", "Region", "compose", "find_coverage", "find_regions", "in_pieces", "is_known"]

NEAR = 8  # px: holes that lie as near are filled together
LEAST_CONTEXT, MOST_CONTEXT = 64, 512  # px around a hole that are looked at: as many as it is long, within these
CELL = 512  # px: side of the pieces that long thin holes, such as scratches, are filled in
THIN = 32  # px: what is as thick is filled at once, however large
CLOSE = 12  # levels of 255 by which a painted colour may be off, in each channel: what JPEG does to it
RIM = 2  # px around a painted colour: where a soft brush mixed it
STRIP = 128  # rows of one band
GIVE = "give a mask, a box (--box X,Y,W,H) or a colour (--mask-color)"

Span2D = tuple[slice, slice]
Box = tuple[int, int, int, int]

#: What is put into the inner part of a region: (h, w, C) float32 in 0..1.
Fill = np.ndarray


# --- where ------------------------------------------------------------------------------------------------------------


def find_coverage(
    picture: Picture, mask: np.ndarray | None, box: Box | None = None, color: str | None = None
) -> np.ndarray:
    """Say how much of each pixel is to be filled: what mask, box and colour say, or what is transparent.

    Parameters
    ----------
    picture : Picture
    mask : numpy.ndarray, optional
        (H, W) uint8.
    box : tuple of int, optional
        X and Y of the upper left corner, width, height.
    color : str, optional
        ``rrggbb``, with or without ``#``.

    Returns
    -------
    numpy.ndarray
        (H, W) uint8: 255 = wholly.

    Raises
    ------
    InputError
        No hole, nothing but hole, a mask of another size, a box outside, a colour for a grey image.
    """
    size = picture.height, picture.width
    coverage = np.zeros(size, np.uint8)
    if mask is not None:
        if mask.shape != size:
            raise InputError(
                f"mask is {mask.shape[1]}x{mask.shape[0]}, image {size[1]}x{size[0]}; expected the same size"
            )
        coverage = mask.copy()
    if box is not None:
        x, y, width, height = box
        if width < 1 or height < 1 or x + width <= 0 or y + height <= 0 or x >= size[1] or y >= size[0]:
            raise InputError(f"box {x},{y},{width},{height} covers nothing of the image, which is {size[1]}x{size[0]}")
        coverage[max(y, 0) : y + height, max(x, 0) : x + width] = 255
    if color is not None:
        coverage |= _painted(picture, color)
    if mask is None and box is None and color is None:
        if picture.alpha is None:
            raise InputError(f"no hole to fill: {GIVE}")
        coverage = (picture.alpha == 0) * np.uint8(255)
    if not coverage.any():
        raise InputError(f"nothing to fill: {_why_nothing(mask, color)}")
    if not is_known(coverage, picture.alpha).any():
        raise InputError("nothing is left to fill from: the whole image is hole")
    return coverage


def _why_nothing(mask: np.ndarray | None, color: str | None) -> str:
    """Say what was looked at, and shows no hole."""
    reasons = ["no pixel of the mask is white"] if mask is not None else []
    if color is not None:
        reasons.append(f"no pixel of the image is painted in {color}")
    return ", and ".join(reasons) or f"no pixel of the image is fully transparent; {GIVE}"


def _painted(picture: Picture, color: str) -> np.ndarray:
    """Give 255 where the image has a colour, and around it."""
    text = color.removeprefix("#")
    wanted = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)])
    if picture.channels == 1:
        if wanted.min() < wanted.max():
            raise InputError(f"the image is grey, and {color} is a colour; give a grey, or a mask")
        wanted = wanted[:1]
    found = np.empty((picture.height, picture.width), bool)
    for top in range(0, picture.height, STRIP):
        rows = rescaled(picture.pixels[top : top + STRIP], np.uint8).astype(np.int16)
        found[top : top + STRIP] = (np.abs(rows - wanted) <= CLOSE).all(-1)
    return ndimage.maximum_filter(found, 2 * RIM + 1) * np.uint8(255)


def is_known(coverage: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Tell what a fill may be made of: what is no hole, and seen.

    Examples
    --------
    >>> is_known(np.uint8([0, 0, 255]), np.uint8([0, 9, 9])).tolist()
    [False, True, False]
    """
    return coverage == 0 if alpha is None else (coverage == 0) & (alpha > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Holes that lie together.

    Attributes
    ----------
    inner, outer : tuple of slice
        Rows and columns of what is filled, and with it of what is looked at.
    own : numpy.ndarray
        (h, w) bool: the pixels of the inner part that are this region's holes; another's may reach into it.
    before : tuple of int
        Regions of the same long hole, by their place in the list, that are filled before it and that it goes on from.
    share : float
        One over the number of pieces of that hole.
    """

    inner: Span2D
    outer: Span2D
    own: np.ndarray
    before: tuple[int, ...] = ()
    share: float = 1.0

    @property
    def within(self) -> Span2D:
        """The inner part, counted from the outer one's corner."""
        rows, cols = (_moved(inner, -outer.start) for inner, outer in zip(self.inner, self.outer, strict=True))
        return rows, cols

    def overlap(self, box: Span2D) -> tuple[Span2D, Span2D]:
        """Give where the inner part and a box overlap, counted from the corner of the box and of the inner part."""
        parts = [
            (slice(max(mine.start, other.start), min(mine.stop, other.stop)), other.start, mine.start)
            for mine, other in zip(self.inner, box, strict=True)
        ]
        (rows, outer_top, inner_top), (cols, outer_left, inner_left) = parts
        in_box = _moved(rows, -outer_top), _moved(cols, -outer_left)
        return in_box, (_moved(rows, -inner_top), _moved(cols, -inner_left))


def find_regions(coverage: np.ndarray, alpha: np.ndarray | None) -> list[Region]:
    """List the holes, those near each other as one; something is known around each."""
    rows, cols = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
    top, left = int(rows[0]), int(cols[0])
    within = coverage[top : rows[-1] + 1, left : cols[-1] + 1] > 0
    labels = np.empty(within.shape, np.int32)
    ndimage.label(ndimage.maximum_filter(within, 2 * NEAR + 1), output=labels)
    regions = []
    for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
        inner = _moved(down, top), _moved(across, left)
        context = min(max(*(part.stop - part.start for part in inner), LEAST_CONTEXT), MOST_CONTEXT)
        outer = _grown(inner, context, coverage.shape)
        # Where all around is transparent, what is seen lies further away.
        while not is_known(coverage[outer], None if alpha is None else alpha[outer]).any():
            context *= 2
            outer = _grown(inner, context, coverage.shape)
        own = (labels[down, across] == number) & within[down, across]
        regions.append(Region(inner, outer, own))
    return regions


def in_pieces(region: Region, known: np.ndarray, first: int) -> list[Region]:
    """Cut a hole that is long and nowhere thick, such as scratches, into cells.

    What is looked at around it would be most of the photograph, and its patches too many to search for each.

    Parameters
    ----------
    region : Region
    known : numpy.ndarray
        (H, W) bool: what a fill may be made of.
    first : int
        Place of the first piece in the list that `before` counts in.

    Returns
    -------
    list of Region
        The region alone if it is short or thick, or if nothing is known near one of its pieces.
    """
    own, (rows, cols) = region.own, region.inner
    if max(own.shape) <= 2 * CELL or ndimage.minimum_filter(own, THIN, mode="constant", cval=0).any():
        return [region]
    pieces: list[Region] = []
    for top in range(0, own.shape[0], CELL):
        for left in range(0, own.shape[1], CELL):
            cell = own[top : top + CELL, left : left + CELL]
            if not cell.any():
                continue
            down, across = ndimage.find_objects(cell.astype(np.uint8))[0]
            inner = _moved(down, rows.start + top), _moved(across, cols.start + left)
            outer = _grown(inner, LEAST_CONTEXT, known.shape)
            if not known[outer].any():
                return [region]
            before = (first + i for i, piece in enumerate(pieces) if _overlap(piece.inner, outer))
            pieces.append(Region(inner, outer, cell[down, across], tuple(before)))
    return [replace(piece, share=1 / len(pieces)) for piece in pieces]


def _overlap(a: Span2D, b: Span2D) -> bool:
    return all(one.start < other.stop and other.start < one.stop for one, other in zip(a, b, strict=True))


def _grown(inner: Span2D, by: int, shape: tuple[int, ...]) -> Span2D:
    """Grow a box, as far as the image reaches."""
    rows, cols = (
        slice(max(part.start - by, 0), min(part.stop + by, size)) for part, size in zip(inner, shape, strict=True)
    )
    return rows, cols


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


# --- rows of the result -----------------------------------------------------------------------------------------------


def compose(picture: Picture, coverage: np.ndarray, regions: list[Region], fills: list[Fill]) -> Iterator[np.ndarray]:
    """Put fills into the rows of a picture; where nothing is covered its samples stay as they are.

    Parameters
    ----------
    picture : Picture
    coverage : numpy.ndarray
        (H, W) uint8, how much of each pixel is filled.
    regions : list of Region
    fills : list of numpy.ndarray
        Of each region's inner part, (h, w, C) float32 in 0..1.

    Yields
    ------
    numpy.ndarray
        (rows, W, C[+ 1]) in the picture's dtype, with alpha last if it has one.
    """
    dtype, white = picture.pixels.dtype, np.float32(picture.white)
    for top in range(0, picture.height, STRIP):
        bottom = min(top + STRIP, picture.height)
        out = picture.pixels[top:bottom].copy()
        for region, fill in zip(regions, fills, strict=True):
            (rows, cols), start = region.inner, region.inner[0].start
            first, last = max(rows.start, top), min(rows.stop, bottom)
            if first >= last:
                continue
            share = coverage[first:last, cols, None] * np.float32(1 / 255)
            base = out[first - top : last - top, cols]
            mixed = base + share * (fill[first - start : last - start] * white - base)
            if dtype.kind != "f":
                np.rint(mixed, out=mixed)
            # Only the region's own holes: another's may reach into this box.
            own = region.own[first - start : last - start, :, None]
            np.copyto(base, np.clip(mixed, 0, white).astype(dtype), where=own)
        if picture.alpha is not None:
            opaque = rescaled(coverage[top:bottom], dtype)
            out = np.concatenate([out, np.maximum(picture.alpha[top:bottom], opaque)[..., None]], -1)
        yield out
