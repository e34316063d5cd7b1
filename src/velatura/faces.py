"""Find faces, cut them out upright, put them back.

    picture ── find_faces ──► faces ── align ──► crop and transform ──► (a task) ── warp_back ──► window of the picture

Faces are found by `velatura.nets.face_finder` at every size from ``smallest`` up: the picture is first shrunk so that a
face of that size has 16 pixels, then halved again and again until a face that fills it has at most 52. What is found in
several of these pictures is one face.

Places are in pixels of the picture: x to the right, y down, (0, 0) the outer corner of the first pixel, whose middle is
(0.5, 0.5). A face's size is the geometric mean of its box's sides; a box reaches from the forehead to the chin and from
cheek to cheek, about 2.1 by 2.9 times the distance of the eyes.

This module loads no torch until faces are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from velatura.errors import InputError
from velatura.ops.resize import RowResize, resize
from velatura.tiling import Tile, tiles

if TYPE_CHECKING:
    from velatura.image import Picture
    from velatura.nets.face_finder import FaceFinder

__all__ = [
    "TEMPLATE",
    "THRESHOLD",
    "Face",
    "Transform",
    "Window",
    "align",
    "find_faces",
    "fit_similarity",
    "load_finder",
    "paste",
    "suppress",
    "warp_back",
]

Points = NDArray[np.float64]
Floats = NDArray[np.float32]

# Where the landmarks of the aligned faces lie that the models were trained on (faces128, faces256), as shares of the
# crop's side: medians of the teacher's landmarks on the 5,863 training faces of faces128 that it is sure of, and of
# their mirror images. A fit to all five turns these faces by 2.8 degrees and scales them by 3 % (standard deviations).
TEMPLATE: Points = np.array([[0.3475, 0.423], [0.6525, 0.423], [0.5, 0.598], [0.37, 0.736], [0.63, 0.736]])

SHARE = 64  # of the picture's longer side: the default for the smallest face, so that the first look has 1,024 pixels
# Smallest score of a face: .5 finds one in every fiftieth landscape, .6 too few of those that are covered.
THRESHOLD = 0.55
OVERLAP, SAME = 0.3, 0.6  # intersection over union of finds of one face, and of those whose mean is taken
SIDE = 640  # pixels of a tile, without its halo
STRIDE = 8  # of the net; `velatura.nets.face_finder` says so, too, but loads torch
REACH = 12  # pixels beyond what a warp needs: the cubic spline's prefilter falls to .27 with each, so below 1e-6
PAD = 12  # pixels by which the border goes on before the prefilter, as in scipy's own mode "nearest"
BAND_ROWS = 64  # rows of a warp whose places, in float64, exist at a time


@dataclass(frozen=True, slots=True)
class Face:
    """One face.

    Attributes
    ----------
    box : tuple of float
        Left, top, right, bottom; it may reach beyond the picture.
    landmarks : tuple of (float, float)
        x and y of the two eyes, the nose, the two corners of the mouth, each pair from left to right.
    score : float
        0..1.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    score: float

    @property
    def size(self) -> float:
        """Geometric mean of the box's sides, in pixels."""
        left, top, right, bottom = self.box
        return float(np.sqrt((right - left) * (bottom - top)))


class Transform(NamedTuple):
    """A similarity from places in the picture to places in a crop: ``crop = matrix @ place + offset``.

    Attributes
    ----------
    matrix : ndarray of float64, (2, 2)
        Rotation times scale.
    offset : ndarray of float64, (2,)
    """

    matrix: Points
    offset: Points

    @property
    def scale(self) -> float:
        """Pixels of the crop for one pixel of the picture."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    def __call__(self, points: Any) -> Points:
        """Take places (n, 2) from the picture to the crop."""
        return np.asarray(points, np.float64) @ self.matrix.T + self.offset

    def inverse(self) -> Transform:
        """From the crop back to the picture."""
        back = np.linalg.inv(self.matrix).astype(np.float64)
        return Transform(back, -back @ self.offset)


class Window(NamedTuple):
    """What comes back of a crop: a rectangle of the picture.

    Attributes
    ----------
    rows, cols : slice
        Where it lies in the picture.
    pixels : ndarray of float32, (h, w, C)
        The crop, warped; in the crop's units, not clipped.
    mask : ndarray of float32, (h, w)
        How much of it counts, 0..1; 0 outside the crop.
    """

    rows: slice
    cols: slice
    pixels: Floats
    mask: Floats


# --- finding ----------------------------------------------------------------------------------------------------------


def find_faces(
    picture: Picture | np.ndarray,
    finder: FaceFinder | None = None,
    *,
    smallest: float | None = None,
    threshold: float = THRESHOLD,
) -> list[Face]:
    """Find the faces of a picture.

    Parameters
    ----------
    picture : Picture or ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8, uint16, or floats in 0..1; grey or RGB.
    finder : FaceFinder, optional
        From `load_finder`, on any device; the one that comes with the package if none is given.
    smallest : float, optional
        Size of the smallest faces to find, in pixels, at least 16: a 64th of the picture's longer side if not given, so
        that the first look has 1,024 pixels. Half of it takes four times as long.
    threshold : float
        Smallest score, 0..1.

    Returns
    -------
    list of Face
        The surest first.

    Raises
    ------
    InputError
        No picture, or numbers out of range.
    ModelError
        The weights are missing or damaged.
    """
    from velatura.nets.face_finder import BAND

    pixels = _pixels(picture)
    smallest = max(BAND[0], max(pixels.shape[:2]) / SHARE) if smallest is None else smallest
    if smallest < BAND[0] or not 0 < threshold < 1:
        raise InputError(f"got smallest {smallest}, threshold {threshold}; expected {BAND[0]:g} or more, and 0..1")
    net = load_finder() if finder is None else finder
    found = []
    for level in _levels(pixels, BAND[0] / smallest, BAND[1]):
        ratio = np.array([pixels.shape[1] / level.shape[1], pixels.shape[0] / level.shape[0]])
        for tile in tiles(level.shape[0], level.shape[1], SIDE, -(-net.receptive_radius // STRIDE) * STRIDE):
            rows = _look(net, level, tile, threshold)
            rows[:, :14] = (rows[:, :14].reshape(-1, 7, 2) * ratio).reshape(-1, 14)
            found.append(rows)
    return [_face(row) for row in suppress(np.concatenate(found))]


def _look(net: FaceFinder, level: np.ndarray, tile: Tile, threshold: float) -> Points:
    """Find what a tile of one level holds, (n, 15): box, landmarks, score."""
    import torch

    from velatura.nets.face_finder import cells, decode

    device = next(net.parameters()).device
    seen = torch.from_numpy(_floats(level[tile.outer]).transpose(2, 0, 1)[None]).to(device)
    with torch.inference_mode():
        maps = net(seen)
        boxes, landmarks = decode(maps, cells(seen))
        values = torch.cat([boxes[0], landmarks[0].flatten(0, 1), maps[0, :1].sigmoid()]).cpu().numpy()
    rows, cols = (slice(part.start // STRIDE, -(-part.stop // STRIDE)) for part in tile.crop)
    values = values[:, rows, cols].reshape(15, -1).astype(np.float64)
    values = values[:, values[14] >= threshold].T
    start = np.tile([tile.outer_cols[0], tile.outer_rows[0]], 7)
    return np.concatenate([values[:, :14] + start, values[:, 14:]], axis=1)


def load_finder(name_or_path: str | Path = "face-finder", device: str = "cpu") -> FaceFinder:
    """Load a face finder once.

    Raises
    ------
    ModelError
        The weights are missing or damaged.
    """
    return _load_finder(str(name_or_path), device)


@lru_cache(maxsize=2)
def _load_finder(name: str, device: str) -> FaceFinder:
    from velatura import catalog
    from velatura.device import resolve_device
    from velatura.nets.face_finder import FaceFinder

    return catalog.load(name, {"FaceFinder": FaceFinder}, resolve_device(device))


def suppress(found: Points) -> Points:
    """Make one of all finds of the same face.

    The surest find stands for those that overlap it by `OVERLAP` and more; its places become the mean, weighted by the
    scores, of those that overlap it by `SAME` and more, which trembles less than any of them (BlazeFace, Bazarevsky
    et al. 2019, section 3.4).

    Parameters
    ----------
    found : ndarray, (n, 15)
        Box, landmarks, score.

    Returns
    -------
    ndarray, (m, 15)
        The surest first.

    Examples
    --------
    >>> row = np.arange(15.0) + 1
    >>> suppress(np.stack([row, row, row + 100])).shape
    (2, 15)
    """
    found = found[np.argsort(-found[:, 14], kind="stable")]
    kept = []
    while len(found):
        overlap = _overlaps(found[0, :4], found[:, :4])
        overlap[0] = 1  # even of a box without area
        same = found[overlap >= SAME]
        places = np.average(same[:, :14], axis=0, weights=same[:, 14])
        kept.append(np.append(places, found[0, 14]))
        found = found[overlap < OVERLAP]
    return np.stack(kept) if kept else np.zeros((0, 15))


def _overlaps(box: Points, boxes: Points) -> Points:
    """Intersection over union of one box (4,) with others (n, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = (high - low).clip(0).prod(1)
    areas = [(b[..., 2:] - b[..., :2]).clip(0).prod(-1) for b in (box, boxes)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def _face(row: Points) -> Face:
    left, top, right, bottom = (float(value) for value in row[:4])
    landmarks = tuple((float(x), float(y)) for x, y in row[4:14].reshape(5, 2))
    return Face((left, top, right, bottom), landmarks, float(row[14]))


def _levels(pixels: np.ndarray, scale: float, largest: float) -> Iterator[np.ndarray]:
    """Give the picture at ``scale`` (at most 1), at half of that, and so on, until ``largest`` pixels are all of it."""
    level = _shrunk(pixels, min(scale, 1.0))
    yield level
    while max(level.shape[:2]) > largest:
        level = _shrunk(level, 0.5)
        yield level


def _shrunk(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Average to ``scale`` in bands, as uint8; at scale 1 nothing is copied."""
    if scale == 1:
        return pixels
    height, width = pixels.shape[:2]
    new = max(round(height * scale), 1), max(round(width * scale), 1)
    change = RowResize((height, width), new, "area")
    level = np.empty((*new, pixels.shape[2]), np.uint8)
    for start in range(0, new[0], BAND_ROWS):
        rows = start, min(start + BAND_ROWS, new[0])
        first, last = change.needs(rows)
        level[slice(*rows)] = np.rint(change.rows(pixels[first:last], first, rows) * (255 / _white(pixels.dtype)))
    return level


def _floats(pixels: np.ndarray) -> Floats:
    """RGB in 0..1."""
    values = np.asarray(pixels, np.float32) / np.float32(_white(pixels.dtype))
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


# --- warping ----------------------------------------------------------------------------------------------------------


def fit_similarity(points: Any, onto: Any) -> Transform:
    """Give the similarity (no mirroring) that takes points as near as possible to others, in least squares.

    Parameters
    ----------
    points, onto : array_like, (n, 2)
        At least two different ones.

    Returns
    -------
    Transform

    Examples
    --------
    >>> fit_similarity([[0, 0], [1, 0]], [[2, 2], [2, 4]]).matrix.round(6) + 0.0
    array([[ 0., -2.],
           [ 2.,  0.]])
    """
    first, second = np.asarray(points, np.float64), np.asarray(onto, np.float64)
    before, after = first - first.mean(0), second - second.mean(0)
    # As complex numbers a similarity is a product, and its least squares one division.
    along = (before * after).sum()
    across = (before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum()
    cosine, sine = np.array([along, across]) / (before**2).sum()
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    return Transform(matrix, second.mean(0) - matrix @ first.mean(0))


def align(picture: Picture | np.ndarray, face: Face, size: int) -> tuple[Floats, Transform]:
    """Cut a face out upright, as the faces that the models were trained on.

    Parameters
    ----------
    picture : Picture or ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8, uint16, or floats in 0..1.
    face : Face
    size : int
        Side of the crop in pixels.

    Returns
    -------
    crop : ndarray of float32, (size, size, C)
        0..1 (a spline may overshoot a little). What is shrunk is averaged; beyond the picture its border goes on.
    transform : Transform
        From the picture to the crop.

    Raises
    ------
    InputError
        The landmarks are one point.

    Examples
    --------
    >>> face = Face((0, 0, 64, 64), tuple(map(tuple, TEMPLATE * 64)), 1.0)
    >>> picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    >>> crop, transform = align(picture, face, 64)
    >>> bool(np.allclose(crop, picture / 255, atol=1e-4)), round(transform.scale, 6)
    (True, 1.0)
    """
    pixels = _pixels(picture)
    if np.ptp(np.asarray(face.landmarks), axis=0).max() <= 0:
        raise InputError(f"the landmarks of a face are one point, {face.landmarks[0]}; expected five different ones")
    transform = fit_similarity(face.landmarks, TEMPLATE * size)
    return _warped(pixels, transform, size, size), transform


def warp_back(
    crop: np.ndarray, transform: Transform, picture: Picture | np.ndarray, mask: np.ndarray | None = None
) -> Window:
    """Take a crop back to where it comes from.

    The warp is linear: the *change* of a crop may be taken back as well as the crop itself, so that a face that did not
    change stays as it was.

    Parameters
    ----------
    crop : ndarray of float32, (S, S, C)
        Any values.
    transform : Transform
        From `align`.
    picture : Picture or ndarray
        Only its size is used.
    mask : ndarray of float32, (S, S), optional
        How much of the crop counts, 0..1; all of it if none is given.

    Returns
    -------
    Window
        Of the smallest rectangle that holds the crop and lies in the picture; see `paste`.

    Raises
    ------
    InputError
        No part of the crop lies in the picture.
    """
    height, width = _pixels(picture).shape[:2]
    crop = np.asarray(crop, np.float32)
    rows, cols = crop.shape[:2]
    back = transform.inverse()
    corners = back([[0, 0], [cols, 0], [0, rows], [cols, rows]])
    # A crop that ends with a pixel does not touch the next, whatever the last digits say.
    left, top = np.floor(corners.min(0) + 1e-6).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(corners.max(0) - 1e-6).astype(int), (width, height))
    if left >= right or top >= bottom:
        raise InputError(f"the crop lies outside the picture of {width}x{height}; expected one made of it")
    there = Transform(back.matrix, back.offset - (left, top))
    shape = bottom - top, right - left
    weight = np.ones((rows, cols), np.float32) if mask is None else np.asarray(mask, np.float32)
    return Window(
        slice(int(top), int(bottom)),
        slice(int(left), int(right)),
        _warped(crop, there, *shape),
        _warped(weight, there, *shape, order=1)[..., 0].clip(0, 1) * _inside(there.inverse(), *shape, rows, cols),
    )


def paste(picture: Picture | np.ndarray, window: Window) -> np.ndarray:
    """Blend a window into a copy of the picture.

    Parameters
    ----------
    picture : Picture or ndarray, (H, W), (H, W, 1) or (H, W, 3)
    window : Window
        Its pixels in 0..1.

    Returns
    -------
    ndarray
        Like the picture's pixels; bit for bit the same where the window's mask is 0.
    """
    given = np.asarray(getattr(picture, "pixels", picture))
    result = _pixels(picture).copy()
    part = result[window.rows, window.cols]
    white = _white(part.dtype)
    weight = window.mask[..., None]
    mixed = part * (1 - weight) + window.pixels * white * weight
    mixed = np.rint(mixed.clip(0, white)) if part.dtype.kind == "u" else mixed
    part[:] = np.where(weight > 0, mixed.astype(part.dtype), part)
    return result.reshape(given.shape)


def _warped(pixels: np.ndarray, transform: Transform, height: int, width: int, order: int = 3) -> Floats:
    """Sample (H, W[, C]) so that ``transform`` takes its places to those of the result; average where it shrinks."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    back = transform.inverse()
    # Only what the result is made of is ever converted to floats.
    corners = back([[0, 0], [width, 0], [0, height], [width, height]])
    margin = REACH * max(1.0, 1 / transform.scale)
    ends = np.array([corners.min(0) - margin, corners.max(0) + margin])
    (left, top), (right, bottom) = np.rint(ends).astype(int).clip(0, np.array(pixels.shape[1::-1]))
    left, top = min(left, pixels.shape[1] - 1), min(top, pixels.shape[0] - 1)  # of a crop that is wholly outside
    window = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    size = np.array(window.shape[1::-1])
    new = size
    if transform.scale < 1:
        # Shrink first, then turn and move only.
        new = np.maximum(np.rint(size * transform.scale).astype(int), 1)
        window = resize(window, new[1], new[0], "bicubic")
    ratio = new / size
    to_window = Transform(back.matrix * ratio[:, None], (back.offset - (left, top)) * ratio)
    planes = np.asarray(window, np.float32).transpose(2, 0, 1) / np.float32(_white(pixels.dtype))
    if order > 1:
        planes = np.pad(planes, ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
        filtered = np.empty_like(planes)
        for plane, kept in zip(planes, filtered, strict=True):
            spline_filter(plane, order, kept, mode="mirror")  # pyright: ignore[reportArgumentType]
        planes = filtered
        to_window = Transform(to_window.matrix, to_window.offset + PAD)
    result = np.empty((height, width, len(planes)), np.float32)
    for start in range(0, height, BAND_ROWS):
        rows = slice(start, min(start + BAND_ROWS, height))
        places = _places(to_window, rows, width)[::-1] - 0.5
        for channel, plane in enumerate(planes):
            map_coordinates(plane, places, result[rows, :, channel], order, mode="nearest", prefilter=False)
    return result


def _places(transform: Transform, rows: slice, width: int) -> Points:
    """Where ``transform`` takes the middles of the pixels of some rows, (2, h, width): x and y."""
    y, x = np.mgrid[rows, :width] + 0.5
    (a, b), (c, d) = transform.matrix
    return np.stack([a * x + b * y + transform.offset[0], c * x + d * y + transform.offset[1]])


def _inside(back: Transform, height: int, width: int, rows: int, cols: int) -> NDArray[np.bool_]:
    """Say which pixels of a window come from inside the crop of (rows, cols), by their middles."""
    u, v = _places(back, slice(0, height), width)
    return (u >= 0) & (u <= cols) & (v >= 0) & (v <= rows)


def _white(dtype: np.dtype) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def _pixels(picture: Picture | np.ndarray) -> np.ndarray:
    pixels = np.asarray(getattr(picture, "pixels", picture))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise InputError(f"got an array of shape {pixels.shape}; expected a picture, (H, W), (H, W, 1) or (H, W, 3)")
    if pixels.dtype.kind != "f" and pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"got pixels of type {pixels.dtype}; expected uint8, uint16 or floats in 0..1")
    return pixels
