"""From a photograph of any size to the small square that a model fills, and back: nothing but the hole changes.

    photograph ── look_for_faces ──► place ── cut ──► 64x64 ──► (filled, enlarged) ── put_back ──► the hole

Completion with super-resolution: the square is filled as Yeh et al. 2017 (arXiv 1607.07539) do it, enlarged four times,
turned back to where it comes from, and joined to the photograph by Poisson's equation at the photograph's own size.

What is shrunk is averaged over known pixels only, so that a hole never bleeds into what the model sees.
This module loads no torch until faces are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from velatura.faces import TEMPLATE, Face, Transform, align, find_faces, fit_similarity, warp_back
from velatura.holes import Span2D
from velatura.image import LUMA, Picture
from velatura.ops.poisson import membrane, ring
from velatura.ops.pyramid import fill_holes
from velatura.ops.resize import resize, weights

__all__ = [
    "Place",
    "as_channels",
    "covers",
    "cut",
    "holds",
    "look_for_faces",
    "place_of_face",
    "place_of_whole",
    "put_back",
]

LOOK = 1024  # pixels of the longer side that faces are looked for in
FRAME = 4  # a grey frame of one part in so many: measured, without it half of the faces that fill a picture are missed
NEAR_FULL = 4  # times the model's size: larger crops are reduced to it before they are turned upright
KNOWN = 0.25  # share of a small pixel that has to be known for its mean to count
CLEAR = 0.75  # share of a small pixel that has to be hole for the model to have something to say there
LEAST_PIXELS = 6  # of the small square: smaller holes lie below what the model can draw
LEAST_HOLE, LEAST_FACE = 1 / 4, 1 / 16  # of the hole that lies on a face, or of the face that is hole, to belong to it
TOLERANCE = 0.3 / 255  # of white: estimated error of a joined fill
REACH = 12  # pixels beyond what a warp needs, see `velatura.faces`
STRIP = 128  # rows that are averaged at a time

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a square that a model fills lies in a photograph.

    Attributes
    ----------
    transform : Transform
        From the photograph to the square.
    size : int
        Side of the square in pixels.
    face : Face or None
        None if the square is the whole photograph, padded.
    """

    transform: Transform
    size: int
    face: Face | None = None

    @property
    def side(self) -> float:
        """Side of the square in pixels of the photograph."""
        return self.size / self.transform.scale

    def enlarged(self, factor: float) -> Transform:
        """From the photograph to the square made larger."""
        return Transform(self.transform.matrix * factor, self.transform.offset * factor)


def place_of_face(face: Face, size: int) -> Place:
    """Give the upright square of a face, as `velatura.faces.align` cuts it."""
    return Place(fit_similarity(face.landmarks, TEMPLATE * size), size, face)


def place_of_whole(height: int, width: int, size: int) -> Place:
    """Give the smallest square around the whole photograph, which lies in its middle.

    Examples
    --------
    >>> place_of_whole(32, 64, 64).transform([[0, 0], [64, 32]]).tolist()
    [[0.0, 16.0], [64.0, 48.0]]
    """
    side = max(height, width)
    scale = size / side
    padding = np.array([(side - width) // 2, (side - height) // 2], np.float64)
    return Place(Transform(np.eye(2) * scale, padding * scale), size)


# --- faces ------------------------------------------------------------------------------------------------------------


def look_for_faces(picture: Picture, known: np.ndarray, finder: Any = None) -> list[Face]:
    """Find the faces of a photograph with holes: a smooth filling lies over them.

    Parameters
    ----------
    picture : Picture
    known : numpy.ndarray
        (H, W) bool.
    finder : FaceFinder, optional
        See `velatura.faces.find_faces`.

    Returns
    -------
    list of Face
        The surest first; down to about a 43rd of the longer side, and 16 pixels.
    """
    height, width = picture.height, picture.width
    ratio = min(LOOK / max(height, width), 1.0)
    new = max(round(height * ratio), 1), max(round(width * ratio), 1)
    seen, _ = _known_mean(picture, known, (slice(0, height), slice(0, width)), new)
    margin = math.ceil(max(new) / FRAME)
    framed = np.pad(seen.clip(0, 1), ((margin, margin), (margin, margin), (0, 0)), constant_values=0.5)
    back = np.array([width / new[1], height / new[0]])
    return [_moved(face, -margin, back) for face in find_faces(framed, finder)]


def holds(face: Face, hole: np.ndarray, part: Span2D, shape: tuple[int, int], size: int) -> bool:
    """Tell whether holes are for the model of a face to fill.

    Parameters
    ----------
    face : Face
    hole : numpy.ndarray
        (h, w) bool.
    part : tuple of slice
        Rows and columns where it lies.
    shape : tuple of int
        Height and width of the photograph.
    size : int
        Side of the model's square: holes that are too small for it are not.

    Returns
    -------
    bool
    """
    rows, cols = part
    left, top, right, bottom = (round(value) for value in face.box)
    inside = hole[
        max(top - rows.start, 0) : max(bottom - rows.start, 0), max(left - cols.start, 0) : max(right - cols.start, 0)
    ]
    covered = int(inside.sum())
    if not covered or (covered < LEAST_HOLE * hole.sum() and covered < LEAST_FACE * face.size**2):
        return False
    place = place_of_face(face, size)
    if not covers(place, part, shape)[hole].any():
        return False
    scale = min(place.transform.scale, 1.0)
    # A rim that is no hole: a line stays thinner than a pixel.
    inside = np.pad(inside, math.ceil(1 / scale))
    height, width = (max(round(length * scale), 1) for length in inside.shape)
    return bool((resize(inside, height, width, "area") >= CLEAR).sum() >= LEAST_PIXELS)


def _moved(face: Face, by: float, scale: np.ndarray) -> Face:
    """Give the face in a photograph that lies elsewhere, and is larger."""
    left, top, right, bottom = (float(value) for value in ((np.reshape(face.box, (2, 2)) + by) * scale).ravel())
    landmarks = tuple((float(x), float(y)) for x, y in (np.asarray(face.landmarks) + by) * scale)
    return Face((left, top, right, bottom), landmarks, face.score)


# --- there ------------------------------------------------------------------------------------------------------------


def cut(picture: Picture, known: np.ndarray, place: Place) -> tuple[Floats, Floats]:
    """Cut the square out.

    Parameters
    ----------
    picture : Picture
    known : numpy.ndarray
        (H, W) bool: nothing else is looked at.
    place : Place

    Returns
    -------
    image : numpy.ndarray
        (C, S, S) float32 in 0..1; smooth where nothing is known.
    mask : numpy.ndarray
        (S, S) float32: 1 = hole. Around a face what lies beyond the photograph is hole, too; around a whole photograph
        its border goes on.
    """
    if place.face is None:
        whole = slice(0, picture.height), slice(0, picture.width)
        colours, share = _known_mean(picture, known, whole, (place.size, place.size), square=True)
    else:
        colours, share = _cut_face(picture, known, place, place.face)
    return np.ascontiguousarray(np.moveaxis(colours.clip(0, 1), -1, 0)), (share < KNOWN).astype(np.float32)


def _cut_face(picture: Picture, known: np.ndarray, place: Place, face: Face) -> tuple[Floats, Floats]:
    # Twice the size, then means of four: as the training images were reduced.
    size = 2 * place.size
    part = _bounds(place, picture, margin=0.1 * place.side)
    whole = tuple(one.stop - one.start for one in part)
    ratio = min(NEAR_FULL * place.transform.scale, 1.0)
    new = tuple(max(round(length * ratio), 1) for length in whole)
    seen, share = _known_mean(picture, known, part, new)
    corner = np.array([part[1].start, part[0].start])
    by = np.array([new[1] / whole[1], new[0] / whole[0]])
    face = replace(face, landmarks=tuple((np.asarray(face.landmarks) - corner) * by))
    colours, transform = align(seen, face, size)
    share, _ = align(share, face, size)
    y, x = np.mgrid[:size, :size] + 0.5
    places = transform.inverse()(np.stack([x.ravel(), y.ravel()], 1))
    inside = ((places >= 0) & (places <= (new[1], new[0]))).all(1).reshape(size, size)
    return _halved(colours), _halved(share * inside[..., None])[..., 0]


def _bounds(place: Place, picture: Picture, margin: float) -> Span2D:
    """Give the smallest rectangle of the photograph that holds the square and a margin."""
    size = place.size
    corners = place.transform.inverse()([[0, 0], [size, 0], [0, size], [size, size]])
    left, top = np.floor(corners.min(0) - margin).astype(int)
    right, bottom = np.ceil(corners.max(0) + margin).astype(int)
    rows, cols = (
        slice(min(max(int(start), 0), length - 1), max(min(int(stop), length), min(max(int(start), 0), length - 1) + 1))
        for start, stop, length in ((top, bottom, picture.height), (left, right, picture.width))
    )
    return rows, cols


def _known_mean(
    picture: Picture, known: np.ndarray, part: Span2D, new: tuple[int, int], *, square: bool = False
) -> tuple[Floats, Floats]:
    """Average the known pixels of a part of the photograph to a new size; a smooth filling where there are none.

    Returns
    -------
    colours : numpy.ndarray
        (h, w, C) float32 in 0..1.
    share : numpy.ndarray
        (h, w) float32: how much of each new pixel is known, of what lies in the photograph; 1 beyond it.
    """
    rows, cols = part
    height, width = rows.stop - rows.start, cols.stop - cols.start
    side = max(height, width)
    vertical, horizontal = (
        weights(side, length, "area")[:, (side - old) // 2 :][:, :old] if square else weights(old, length, "area")
        for length, old in zip(new, (height, width), strict=True)
    )
    there = np.outer(vertical.sum(1), horizontal.sum(1)).astype(np.float32)
    channels = picture.channels
    narrow = np.zeros((new[0], width * (channels + 1)), np.float32)
    for start in range(0, height, STRIP):
        band = slice(rows.start + start, min(rows.start + start + STRIP, rows.stop)), cols
        mine = known[band].astype(np.float32)[..., None]
        planes = np.concatenate([picture.pixels[band] * (mine / np.float32(picture.white)), mine], -1)
        narrow += vertical[:, start : start + STRIP].astype(np.float32) @ planes.reshape(len(planes), -1)
    turned = narrow.reshape(new[0], width, -1).transpose(1, 0, 2).reshape(width, -1)
    sums = (horizontal.astype(np.float32) @ turned).reshape(new[1], new[0], -1).transpose(2, 1, 0)
    share = np.where(there > 0, sums[-1] / np.maximum(there, 1e-6), 1)
    enough = sums[-1] > 1e-3
    colours = fill_holes(sums[:-1] / np.where(enough, sums[-1], 1), enough)
    return np.moveaxis(colours, 0, -1), share.astype(np.float32)


def _halved(planes: Floats) -> Floats:
    """Average 2 x 2 pixels of (H, W, C)."""
    height, width, channels = planes.shape
    return planes.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def as_channels(image: np.ndarray, channels: int) -> Floats:
    """Turn (..., C, H, W) into another number of channels: grey is alike in all three, colour becomes its luma.

    Examples
    --------
    >>> as_channels(np.ones((3, 2, 2), np.float32), 1).shape, as_channels(np.ones((1, 2, 2), np.float32), 3).shape
    ((1, 2, 2), (3, 2, 2))
    """
    if image.shape[-3] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-3)
    return np.tensordot(np.array(LUMA, np.float32), image, (0, -3))[..., None, :, :]


def covers(place: Place, part: Span2D, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Say which pixels of a part of the photograph a square can fill: they and their neighbours lie in it.

    Parameters
    ----------
    place : Place
    part : tuple of slice
    shape : tuple of int
        Height and width of the photograph; beyond it there are no neighbours.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.

    Examples
    --------
    >>> place = place_of_whole(64, 64, 64)
    >>> covers(place, (slice(0, 1), slice(61, 64)), (64, 64)).tolist()
    [[True, True, True]]
    >>> covers(place, (slice(0, 1), slice(61, 64)), (64, 80)).tolist()
    [[True, True, False]]
    """
    wide, inner = _widened(part, shape)
    y, x = (np.arange(one.start, one.stop) + 0.5 for one in wide)
    (a, b), (c, d) = place.transform.matrix
    u = a * x + b * y[:, None] + place.transform.offset[0]
    v = c * x + d * y[:, None] + place.transform.offset[1]
    inside = (u >= 0) & (u <= place.size) & (v >= 0) & (v <= place.size)
    return np.asarray(binary_erosion(inside, border_value=1), bool)[inner]


def _widened(part: Span2D, shape: tuple[int, ...]) -> tuple[Span2D, Span2D]:
    """Widen a part by one pixel, as far as the photograph goes; say where the part lies in it, too."""
    rows, cols = (slice(max(one.start - 1, 0), min(one.stop + 1, n)) for one, n in zip(part, shape, strict=True))
    down, across = (
        slice(one.start - wide.start, one.stop - wide.start) for one, wide in zip(part, (rows, cols), strict=True)
    )
    return (rows, cols), (down, across)


# --- and back ---------------------------------------------------------------------------------------------------------


def put_back(
    square: Floats,
    place: Place,
    picture: Picture,
    known: np.ndarray,
    part: Span2D,
    before: tuple[Floats, NDArray[np.bool_]] | None = None,
    *,
    tick: Callable[[], None] = lambda: None,
) -> Floats:
    """Turn a filled square back, and join it to the photograph at the photograph's size (Perez et al. 2003).

    Parameters
    ----------
    square : numpy.ndarray
        (S, S, C) float32 in 0..1; S any multiple of the place's size.
    place : Place
    picture : Picture
    known : numpy.ndarray
        (H, W) bool.
    part : tuple of slice
        Rows and columns that hold holes to be filled.
    before : tuple of numpy.ndarray, optional
        (h, w, C) float32 and (h, w) bool: what others filled in the part, and where; it stays, and is joined to, too.
    tick : callable
        Called now and then; what it raises stops the work.

    Returns
    -------
    numpy.ndarray
        (h, w, C) float32 in 0..1 of the part; the fill where nothing is known and the square `covers` it.
    """
    # One pixel more: the photograph's own pixels are the boundary.
    wide, inner = _widened(part, known.shape)
    given = picture.pixels[wide] * np.float32(1 / picture.white)
    told = known[wide].copy()
    if before is not None:
        filled, there = before
        np.copyto(given[inner], filled, where=(there & ~told[inner])[..., None])
        told[inner] |= there
    free = np.zeros_like(told)
    free[inner] = ~told[inner] & covers(place, part, (picture.height, picture.width))
    made = _turned_back(square, place, picture, wide)
    # What nobody knows is no boundary: there the fill counts as it is.
    told &= ring(free)
    error = np.moveaxis(np.where(told[..., None], given - made, 0), -1, 0)
    correction = membrane(np.ascontiguousarray(error), free, tolerance=TOLERANCE, tick=tick)
    joined = np.where(free[..., None], made + np.moveaxis(correction, 0, -1), given)
    return joined[inner].clip(0, 1)


def _turned_back(square: Floats, place: Place, picture: Picture, wide: Span2D) -> Floats:
    """Give what the square says of a part of the photograph; zero beyond the square."""
    transform = place.enlarged(len(square) / place.size)
    if np.array_equal(transform.matrix, np.eye(2)) and not transform.offset.any():
        return square[wide]
    made = np.zeros((*(one.stop - one.start for one in wide), square.shape[-1]), np.float32)
    # No more of the square than this part of the photograph shows.
    corners = transform([[x, y] for x in (wide[1].start, wide[1].stop) for y in (wide[0].start, wide[0].stop)])
    left, top = np.floor(corners.min(0) - REACH).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(0) + REACH).astype(int).clip(0)
    square, transform = square[top:bottom, left:right], transform._replace(offset=transform.offset - (left, top))
    if not square.size:
        return made
    window = warp_back(square, transform, picture)
    there = window.rows, window.cols
    common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(wide, there, strict=True)]
    if all(one.start < one.stop for one in common):
        here, from_there = (
            tuple(slice(one.start - a.start, one.stop - a.start) for one, a in zip(common, origin, strict=True))
            for origin in (wide, there)
        )
        made[here] = window.pixels[from_there]
    return made
