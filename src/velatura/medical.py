"""Volumes of the brain: NIfTI in, holes filled slice by slice, NIfTI out, nothing else changed.

    volume, mask ── upright slices of 0..1 ──► velatura.Inpaint ──► the voxels of the hole, in the file's own type

**This is research, not diagnosis.** A model puts into a hole what the brains that it saw make likely; what was there in
this patient it cannot know.

The models saw axial slices of skull-stripped T1 scans, the front of the head up, the brain over .82 of the side, black
around it (`brain96`). A volume is brought to that: its slices are turned upright by its affine matrix, cut to the
brain, and its intensities scaled by two percentiles. Files are read by nibabel: ``pip install 'velatura[medical]'``.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velatura.errors import InputError, MachineError
from velatura.task import Progress, no_progress
from velatura.tasks.inpaint import Inpaint

__all__ = [
    "MODEL",
    "NOTICE",
    "Filled",
    "Volume",
    "fill_file",
    "fill_volume",
    "is_volume",
    "read_volume",
    "write_volume",
]

MODEL = "vae-brain"
NOTICE = "research, not diagnosis: a model put there what is likely in the brains that it saw, not what was there"

SUFFIXES = (".nii", ".nii.gz")
BLACK, BRIGHT = 0.5, 99.5  # percentiles: of all known voxels, and of those that are not black
BRIGHT_LEVEL = 0.945  # what the 99.5th percentile of the brain is in brain96, of white; median over its slices
DARK = 0.03  # of the way from black to the brightest: what is darker is no brain
BRAIN = 0.82  # of a training slice's side that the brain takes: 78 of 96 pixels, median of brain96
UNEQUAL = 1.25  # times as far apart in one direction as in the other: pixels that are longer would squeeze the brain
AXIAL = 2  # the direction from foot to head, of right, front and head

Hole = NDArray[np.bool_]


def is_volume(path: str | Path | None) -> bool:
    """Tell by its name whether a file is a volume.

    Examples
    --------
    >>> is_volume("brain.NII.gz"), is_volume("brain.png"), is_volume(None)
    (True, False, False)
    """
    return path is not None and str(path).lower().endswith(SUFFIXES)


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A NIfTI file, whole: what is written back differs from it in filled voxels alone.

    Attributes
    ----------
    name : str
        The file's, for messages.
    content : bytes
        The file, unpacked, up to its last voxel.
    shape : tuple of int
        (X, Y, Z) in voxels.
    dtype : numpy.dtype
        Of the voxels as they are stored, with their byte order.
    offset : int
        Where they begin.
    slope, intercept : float
        ``value = slope * stored + intercept``.
    affine : numpy.ndarray
        (4, 4), from voxels to millimetres: right, front, head.
    """

    name: str
    content: bytes
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]

    @property
    def stored(self) -> NDArray:
        """The voxels as they are stored, (X, Y, Z); cannot be written to."""
        return self.voxels_of(self.content)

    def voxels_of(self, content: bytes | bytearray) -> NDArray:
        """View the voxels of a file like this one."""
        return np.ndarray(self.shape, self.dtype, content, self.offset, order="F")

    @property
    def values(self) -> NDArray[np.float32]:
        """What the voxels mean, (X, Y, Z); what is not finite is 0."""
        values = self.stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
        return np.nan_to_num(values, copy=False, posinf=0, neginf=0)


def read_volume(path: str | Path, *, max_megavoxels: float = 100) -> Volume:
    """Read a NIfTI file.

    Parameters
    ----------
    path : str or path
        ``.nii`` or ``.nii.gz``, NIfTI-1 or NIfTI-2.
    max_megavoxels : float
        A larger volume is refused unread.

    Raises
    ------
    InputError
        No such file, not NIfTI, more than one volume, colours, too large, or damaged.
    MachineError
        nibabel is not installed.
    """
    path, nibabel = Path(path), _nibabel()
    if not is_volume(path):
        raise InputError(f"{path}: expected a volume, .nii or .nii.gz")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the name and the folder")
    refusals = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
    )
    try:
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise InputError(f"{path}: is {type(image).__name__}, not NIfTI; convert it first")
        voxels, shape = image.dataobj, image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise InputError(f"{path}: has the shape {image.shape}; expected one volume of three axes")
        if voxels.dtype.kind not in "iuf":
            raise InputError(f"{path}: holds {voxels.dtype}; expected whole or real numbers")
        if (count := math.prod(shape)) > max_megavoxels * 1e6:
            raise InputError(
                f"{path}: {count / 1e6:.0f} million voxels are more than {max_megavoxels:g}; allow more with "
                "--max-megapixels"
            )
        size = int(voxels.offset) + count * voxels.dtype.itemsize
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_packed else path.open("rb") as file:
            content = file.read(size)
    except refusals as error:
        raise InputError(f"{path}: is not NIfTI as it should be ({error}); export it anew") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is damaged ({error}); fetch it anew") from None
    if len(content) < size:
        raise InputError(f"{path}: ends after {len(content)} of {size} bytes; fetch it anew")
    slope, intercept = float(voxels.slope), float(voxels.inter)
    offset = int(voxels.offset)
    return Volume(path.name, content, tuple(shape), voxels.dtype, offset, slope, intercept, np.array(image.affine))


def write_volume(volume: Volume, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a volume; the file appears whole or not at all.

    Parameters
    ----------
    volume : Volume
    path : str or path
        ``.nii``, or ``.nii.gz`` to pack it.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        The name is no volume's, its folder is missing, or the file exists.
    """
    path = Path(path)
    _check_out(path, overwrite)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Without a name and a time in the packed file, the same voxels give the same bytes.
    content = gzip.compress(volume.content, mtime=0) if path.suffix.lower() == ".gz" else volume.content
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _check_out(path, overwrite)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _check_out(path: Path, overwrite: bool) -> None:
    if not is_volume(path):
        raise InputError(f"{path}: expected the name of a volume, .nii or .nii.gz")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or allow it to be replaced with --overwrite")


def _nibabel() -> ModuleType:
    try:
        import nibabel
        import nibabel.filebasedimages
        import nibabel.spatialimages
        import nibabel.wrapstruct
    except ImportError:
        raise MachineError("reading volumes needs nibabel; pip install 'velatura[medical]'") from None
    return nibabel


# --- filling ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filled:
    """What was done.

    Attributes
    ----------
    volume : Volume
        With its holes filled.
    slices, voxels : int
        How many of them were filled.
    """

    volume: Volume
    slices: int
    voxels: int


def fill_file(
    source: str | Path,
    mask: str | Path,
    out: str | Path,
    *,
    model: str | Path = MODEL,
    axis: int | None = None,
    overwrite: bool = False,
    device: str = "auto",
    max_megavoxels: float = 100,
    progress: Progress = no_progress,
    **params: Any,
) -> Filled:
    """Fill the holes of a volume, from file to file.

    Parameters
    ----------
    source, mask : str or path
        Volumes of one shape and place; what is over 0 in the mask is filled.
    out : str or path
        The file to write; never one of the inputs.
    model : str or path
        Of `velatura.Inpaint`.
    axis, progress, **params
        As of `fill_volume`.
    overwrite : bool
        Whether an existing file may be replaced.
    device : str
    max_megavoxels : float
        Larger volumes are refused unread.

    Returns
    -------
    Filled
        Affine, header and type are those of the source, and so is every voxel outside the mask, bit for bit.

    Raises
    ------
    InputError
        Volumes that cannot be read or do not fit, an empty mask, or an output that cannot be written.
    ModelError
        The model is unknown or refused.
    MachineError
        nibabel is not installed.
    """
    out = Path(out)
    _check_out(out, overwrite)
    if any(out.exists() and Path(one).exists() and out.samefile(one) for one in (source, mask)):
        raise InputError(f"{out} is an input of this work and is never written onto; choose another output")
    volume, holes = (read_volume(one, max_megavoxels=max_megavoxels) for one in (source, mask))
    if volume.shape != holes.shape:
        raise InputError(f"{holes.name} has the shape {holes.shape}, {volume.name} {volume.shape}; expected the same")
    if not np.allclose(volume.affine, holes.affine, rtol=0, atol=1e-2):
        raise InputError(f"{holes.name} lies elsewhere than {volume.name} (their affine matrices differ); resample it")
    task = Inpaint.from_pretrained(model, device=device)
    filled = fill_volume(task, volume, holes.values > 0, axis=axis, progress=progress, **params)
    write_volume(filled.volume, out, overwrite=overwrite)
    return filled


def fill_volume(
    task: Inpaint,
    volume: Volume,
    mask: Hole,
    *,
    axis: int | None = None,
    progress: Progress = no_progress,
    **params: Any,
) -> Filled:
    """Fill the holes of a volume slice by slice.

    Parameters
    ----------
    task : Inpaint
        With a model of brains, or of texture.
    volume : Volume
    mask : numpy.ndarray
        (X, Y, Z) bool.
    axis : int, optional
        Axis of the array that slices are cut across: 0, 1 or 2; if it is not given, the one from foot to head, which
        gives axial slices, those that the models know.
    progress : callable
        ``progress(done, total, stage)`` after every slice; may raise to stop.
    **params
        Fields of `velatura.tasks.inpaint.InpaintParams`.

    Returns
    -------
    Filled

    Raises
    ------
    InputError
        An empty mask, a volume without a brain, a slice that is nothing but hole, a bad axis, or voxels that are much
        longer than wide within a slice.

    Notes
    -----
    Intensities: black is the 0.5th percentile of what is known; the 99.5th percentile of what is brighter becomes
    .945 of white, as in the slices that the models saw. So a few voxels that are far too bright do not matter. What
    is found is put back by the inverse, rounded where the file holds whole numbers.

    The hole of each slice is filled by itself: nothing makes neighbouring slices agree.
    """
    if mask.shape != volume.shape:
        raise InputError(f"the mask has the shape {mask.shape}, {volume.name} {volume.shape}; expected the same")
    if not mask.any():
        raise InputError("nothing to fill: no voxel of the mask is over 0")
    if axis not in (None, 0, 1, 2):
        raise InputError(f"axis {axis}: expected 0, 1 or 2")
    turn = _Turn.of(volume.affine, axis)
    turn.check(volume)
    values, holes = turn.upright(volume.values), turn.upright(mask)
    black, white = _range(values, holes, volume.name)
    rows, cols = _window((values > black + DARK * (white - black)) & ~holes, holes)
    content = bytearray(volume.content)
    made = turn.upright(volume.voxels_of(content))
    chosen = np.flatnonzero(holes.any((1, 2)))
    for done, index in enumerate(chosen):
        progress(done, len(chosen), "filling slices")
        hole = _cut(holes[index], rows, cols)
        image = _cut(((values[index] - black) / (white - black)).clip(0, 1), rows, cols)
        filled = task(image, hole.astype(np.uint8) * 255, progress=_only(progress, done, len(chosen)), **params).image
        found = black + (white - black) * np.asarray(filled, np.float64).reshape(hole.shape)[hole]
        # The window holds all holes, in the same order.
        made[index][holes[index]] = _as_stored(found, volume)
    progress(len(chosen), len(chosen), "filling slices")
    return Filled(replace(volume, content=bytes(content)), len(chosen), int(mask.sum()))


@dataclass(frozen=True, slots=True)
class _Turn:
    """How an array of voxels is turned into upright slices.

    Attributes
    ----------
    flipped : tuple of int
        Axes of the array that run left, back or to the foot.
    order : tuple of int
        Axes of the array: that across the slices, then those that run right (or front) and front (or to the head).
    """

    flipped: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, affine: NDArray[np.float64], axis: int | None) -> _Turn:
        found = _nibabel().io_orientation(affine)
        if not np.isfinite(found).all():
            found = np.array([[0, 1], [1, 1], [2, 1]])
        direction = [int(one) for one in found[:, 0]]
        across = direction.index(AXIAL) if axis is None else axis
        within = sorted((one for one in range(3) if one != across), key=direction.__getitem__)
        return cls(tuple(int(one) for one in np.flatnonzero(found[:, 1] < 0)), (across, *within))

    def upright(self, voxels: NDArray) -> NDArray:
        """View voxels as slices: rows from the front (or the head) down, columns to the right (or the front)."""
        slices = np.flip(voxels, self.flipped).transpose(self.order)
        return slices.swapaxes(1, 2)[:, ::-1]

    def check(self, volume: Volume) -> None:
        lengths = np.linalg.norm(volume.affine[:3, :3], axis=0)[list(self.order[1:])]
        if lengths.min() > 0 and lengths.max() > UNEQUAL * lengths.min():
            raise InputError(
                f"{volume.name}: within a slice voxels are {lengths[0]:.3g} x {lengths[1]:.3g} mm; resample it to "
                "equal sides, or choose another axis"
            )


def _range(values: NDArray[np.float32], holes: Hole, name: str) -> tuple[float, float]:
    """Say which values become black and white."""
    known = values[~holes]
    if known.size:
        black, top = np.percentile(known, [BLACK, 99.9])
        brain = known[known > black + DARK * (top - black)]
        if brain.size:
            bright = float(np.percentile(brain, BRIGHT))
            return float(black), float(black) + (bright - float(black)) / BRIGHT_LEVEL
    raise InputError(f"{name}: nothing is to be seen outside the mask; is it the right volume?")


def _window(brain: Hole, holes: Hole) -> tuple[slice, slice]:
    """Say which square holds the brain as the models saw it, and all holes; it may reach beyond the slices."""
    box = _box((brain | holes).any(0))
    side = round(max(stop - start for start, stop in box) / BRAIN)
    rows, cols = (slice(start, start + side) for start in ((first + last - side) // 2 for first, last in box))
    return rows, cols


def _box(plane: Any) -> list[tuple[int, int]]:
    return [(int(where[0]), int(where[-1]) + 1) for where in map(np.flatnonzero, (plane.any(1), plane.any(0)))]


def _cut(plane: NDArray, rows: slice, cols: slice) -> NDArray:
    """Cut a window out; beyond the plane it is 0."""
    window = np.zeros((rows.stop - rows.start, cols.stop - cols.start), plane.dtype)
    inside = tuple(slice(max(one.start, 0), min(one.stop, n)) for one, n in zip((rows, cols), plane.shape, strict=True))
    there = tuple(
        slice(part.start - one.start, part.stop - one.start) for part, one in zip(inside, (rows, cols), strict=True)
    )
    window[there] = plane[inside]
    return window


def _as_stored(values: NDArray[np.float64], volume: Volume) -> NDArray:
    stored = (values - volume.intercept) / volume.slope
    if volume.dtype.kind in "iu":
        limits = np.iinfo(volume.dtype)
        stored = np.rint(stored).clip(limits.min, limits.max)
    return stored.astype(volume.dtype)


def _only(progress: Progress, done: int, total: int) -> Progress:
    """Let a slice be stopped, and show no progress of its own."""
    return lambda *_: progress(done, total, "filling slices")
