"""Task, Params, Result: one way through every application.

A task is called with images in any form (paths, PIL, NumPy, torch) and gives a `Result` in the form of its
leading image; `Task.to_file` streams the same work from file to file, and is what the command line and batches
use. Both drive the same generator of rows, so that they cannot differ.
"""

from __future__ import annotations

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from velatura.errors import InputError
from velatura.image import Picture, RowWriter, check_output, open_image, save_image, to_form
from velatura.image.encode import file_of, write_file
from velatura.tiling import DEFAULT_MEMORY_MIB

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = [
    "Bands",
    "ImageLike",
    "Input",
    "Output",
    "Params",
    "Progress",
    "Result",
    "SaveOptions",
    "Task",
    "check_apart",
    "check_files",
    "parse_params",
]

#: What a task accepts as an image; see `velatura.image.open_image` for shapes and ranges.
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor | Picture"

#: ``progress(done, total, stage)``; raising `velatura.Cancelled` in it stops the work and frees its memory.
Progress = Callable[[int, int, str], None]


def no_progress(done: int, total: int, stage: str) -> None:
    """Ignore the progress: the default hook."""


class Params(BaseModel):
    """Options of one application, declared once.

    The CLI flags, the JSON schema, the form of the studio and the table in the docs are made from the fields: each
    has a default, a range where there is one, and one line of help (``description``); a unit stands in
    ``json_schema_extra={"unit": ...}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


P = TypeVar("P", bound=Params)


def parse_params(kind: type[P], values: Mapping[str, Any]) -> P:
    """Build ``kind`` from keyword values, or say in one line what is wrong with the first bad one.

    Raises
    ------
    InputError
        An unknown name (the nearest known one is given) or a value out of range.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise InputError(describe_validation_error(kind, error)) from None


def describe_validation_error(kind: type[BaseModel], error: ValidationError) -> str:
    """Put pydantic's report of the first error into one line that names the option."""
    first = error.errors()[0]
    # The option alone: where in a list or pair the bad part stands is in the value.
    name = str(first["loc"][0]) if first["loc"] else kind.__name__
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, kind.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(kind.model_fields)
        return f"unknown option {name!r}; {hint}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"option {name!r}: got {first['input']!r}; {reason[:1].lower()}{reason[1:]}"


@dataclass(frozen=True, slots=True)
class Input:
    """One image that a task reads, as the command line and batches see it.

    Attributes
    ----------
    name : str
        Name of the argument.
    help : str
        One line for ``--help`` and the docs.
    required : bool
    leading : bool
        The output takes its form, size, profile and metadata from this one.
    """

    name: str
    help: str
    required: bool = True
    leading: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A picture that a task can give beside its result, such as a map.

    Attributes
    ----------
    name : str
        Key of `Bands.maps` and `Result.maps`; a switch of this name in the task's `Params` asks for it, and the flag
        of this name on the command line takes the file to write.
    help : str
        One line for ``--help`` and the docs.
    """

    name: str
    help: str


@dataclass(slots=True)
class Bands:
    """An output while it is made: rows from top to bottom.

    Attributes
    ----------
    like : Picture
        Where form, ICC profile and metadata of the output come from.
    height, width : int
    rows : iterator of numpy.ndarray
        (h, width, C) or (h, width, C + 1) with alpha last, in order, together ``height`` rows, dtype of ``like``.
    channels : int
        C: 1 or 3.
    alpha : bool
        Whether the rows carry alpha.
    made_by : str or None
        The trained model whose work the pixels hold; None for plain mathematics.
    maps : dict of str to callable
        What was asked for of the task's `outputs`, and the task's `alternatives`: functions that give their bands once
        all rows are used up. At most as large as the output.
    extras : dict
        What the application adds to its `Result`; complete once all rows are used up.
    files : dict of Path to callable
        Files that the task's options name (`Task.further_outputs`): functions that give what they hold once all rows
        are used up.
    """

    like: Picture
    height: int
    width: int
    rows: Iterator[np.ndarray]
    channels: int = 3
    alpha: bool = False
    made_by: str | None = None
    maps: dict[str, Callable[[], Bands]] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    files: dict[Path, Callable[[], bytes]] = field(default_factory=dict)

    def gather(self) -> Picture:
        """Collect the rows into one picture."""
        depth = self.channels + self.alpha
        whole = np.empty((self.height, self.width, depth), self.like.pixels.dtype)
        top = 0
        for band in self.rows:
            whole[top : top + len(band)] = band
            top += len(band)
        if top != self.height:
            raise AssertionError(f"bands gave {top} rows of {self.height}")
        alpha = whole[..., -1] if self.alpha else None
        return self.like.replace(pixels=whole[..., : self.channels], alpha=alpha)


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How an output file is written.

    Attributes
    ----------
    format : str or None
        ``png``, ``jpeg``, ``webp``, ``tiff``, ``avif``, ``bmp``, ``gif``; None takes the suffix of the path.
    quality : int or None
        1..100 for the lossy formats; None takes the format's default.
    overwrite : bool
        Replace an existing file. An input is never replaced.
    mark : bool
        Note in the XMP metadata that a trained model made the pixels (IPTC ``DigitalSourceType``), where one did.
    """

    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    mark: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a task gives back.

    Attributes
    ----------
    picture : Picture
        Pixels with profile and metadata.
    made_by : str or None
        Name of the trained model whose work the pixels hold.
    params : Params
        The options that were used, defaults included.
    inputs : tuple of Path
        The files that the inputs were read from; `save` never replaces them.
    maps : dict of str to Picture
        What was asked for of the task's `outputs`.
    """

    picture: Picture
    params: Params
    made_by: str | None = None
    inputs: tuple[Path, ...] = ()
    maps: Mapping[str, Picture] = field(default_factory=dict)

    @property
    def image(self) -> Any:
        """The image in the form that came in: a path gives a PIL image (16 bit: a NumPy array)."""
        return to_form(self.picture)

    def save(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        quality: int | None = None,
        overwrite: bool = False,
        mark: bool = True,
    ) -> Path:
        """Write the image with its profile and metadata; see `SaveOptions` for the options.

        Raises
        ------
        InputError
            The path exists and ``overwrite`` is False, or is an input, or the format is unknown.
        """
        check_output(path, inputs=self.inputs, overwrite=overwrite, format=format)
        made_by = self.made_by if mark else None
        return save_image(self.picture, path, format=format, quality=quality, overwrite=overwrite, made_by=made_by)


class Task(ABC):
    """One application: ``Task.from_pretrained()`` once, then ``task(image, ..., **params) -> Result``."""

    #: Name of the application: the command, and the basename of its files on every floor.
    name: ClassVar[str]
    #: The options, declared once.
    Params: ClassVar[type[Params]]
    #: The images it reads, in the order of its arguments.
    inputs: ClassVar[tuple[Input, ...]]
    #: The pictures that it can give beside its result.
    outputs: ClassVar[tuple[Output, ...]] = ()
    #: The catalog's name of the model that it takes where none is named; None where there is none.
    default_model: ClassVar[str | None] = None

    #: Larger files are refused before they are decoded; set it on the task where you trust them.
    max_megapixels: float = 100

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first; empty where a task lists none."""
        return ()

    def __init__(  # noqa: B027  a task without a model and without options of its own needs nothing
        self, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> None:
        """Take what `from_pretrained` is given."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make the task with a model of the catalog or from a file; None takes the default. ``memory`` is in MiB."""
        return cls(name_or_path, device=device, memory=memory)

    def prepare(self, params: Any) -> None:  # noqa: B027  most tasks need nothing
        """Load what the options need, so that a wrong model or device is refused once, before the first image."""

    @abstractmethod
    def bands(self, images: tuple[Any, ...], params: Any, progress: Progress) -> Bands:
        """Do the work that needs the whole image, and hand out the rows.

        ``images`` are what `read` gave: they follow `inputs`; each is a `Picture`, a mask array, or None where it was
        left out. `plan` has passed them. What else can be refused is refused here, before the first row.
        """

    def plan(self, images: tuple[Any, ...], params: Any) -> Mapping[str, tuple[int, int]]:
        """Refuse images and options that do not fit together, before any work is done for them.

        Returns
        -------
        dict of str to (int, int)
            Height and width of the outputs that are known by now: of those of `outputs` by name, of the result as
            ``""``. Name here what work in `bands` is done for, so that it is refused first where it cannot be written.
        """
        return {}

    def stages(self, params: Any) -> tuple[str, ...]:
        """Name what the progress counts, one after another, where that is more than one thing."""
        return ()

    def read(self, values: tuple[Any, ...], params: Any, *, max_megapixels: float) -> tuple[Any, ...]:
        """Read the inputs; override where options name further ones."""
        return self.open(values, max_megapixels=max_megapixels)

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read the inputs; override where one of them is not a picture (a mask, a list of styles)."""
        return tuple(
            None if value is None else open_image(value, max_megapixels=max_megapixels, name=spec.name)
            for spec, value in zip(self.inputs, values, strict=True)
        )

    def run(
        self,
        values: tuple[ImageLike | None, ...],
        params: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> Result:
        """Do the work in memory; ``__call__`` of every task ends here."""
        checked = parse_params(self.Params, params)
        _check_beside(self.further_outputs(checked), (*values, *self.further_inputs(checked)), overwrite=False)
        self.prepare(checked)
        images = self.read(values, checked, max_megapixels=self.max_megapixels)
        self.plan(images, checked)
        bands = self.bands(images, checked, progress or no_progress)
        result = self.result(bands, checked)
        _write_beside(bands, overwrite=False)
        files = (file_of(value) for value in values)
        return replace(result, inputs=tuple(file.absolute() for file in files if file))

    def result(self, bands: Bands, params: Params) -> Result:
        """Gather the rows; override to return the application's own kind of result."""
        picture = bands.gather()
        maps = {name: make().gather() for name, make in bands.maps.items()}
        return Result(picture, params, bands.made_by, maps=maps)

    def to_file(
        self,
        *values: ImageLike | None,
        out: str | Path,
        save: SaveOptions | None = None,
        maps: Mapping[str, str | Path] | None = None,
        max_megapixels: float | None = None,
        progress: Progress | None = None,
        **params: Any,
    ) -> Path:
        """Do the same work from file to file, written row band by row band.

        Parameters
        ----------
        *values : path or image
            The inputs, in the order of the call; trailing optional ones may be left out.
        out : path
            The file to write; it appears whole or not at all.
        save : SaveOptions, optional
        maps : mapping of str to path, optional
            Files for what the task can give beside its result (`outputs`), by name; naming one asks for it.
        max_megapixels : float, optional
            Larger files are refused before they are decoded; None takes the task's own ``max_megapixels``.
        progress : callable, optional
        **params
            The application's options.

        Returns
        -------
        pathlib.Path
            The file that was written.

        Raises
        ------
        InputError
            Bad image, option or output path.
        MachineError
            The disk is full; nothing is left behind.
        """
        checked = parse_params(self.Params, {**params, **dict.fromkeys(maps or {}, True)})
        self.write(values, out, checked, save, maps=maps, max_megapixels=max_megapixels, progress=progress)
        return Path(out)

    @classmethod
    def further_inputs(cls, params: Any) -> tuple[str | Path, ...]:
        """Name the files that are read because an option says so: like inputs, they are never written."""
        return ()

    @classmethod
    def further_models(cls, params: Any) -> tuple[str | Path, ...]:
        """Name the models that an option asks for, beside that of `from_pretrained`: names of the catalog, or files."""
        return ()

    @classmethod
    def single_outputs(cls, params: Any) -> tuple[str, ...]:
        """Name the options given that have one file or folder written beside the result: a batch refuses them."""
        return ()

    @classmethod
    def further_outputs(cls, params: Any) -> tuple[str | Path, ...]:
        """Name the files that are written because an option says so; see `Bands.files`."""
        return ()

    @classmethod
    def alternatives(cls, params: Any, out: str) -> dict[str, str]:
        """Name the files beside ``out``, a path or a URL, of further results in its form: by their `Bands.maps`."""
        return {}

    def write(
        self,
        values: tuple[ImageLike | None, ...],
        out: str | Path,
        params: Any,
        save: SaveOptions | None = None,
        *,
        maps: Mapping[str, str | Path] | None = None,
        max_megapixels: float | None = None,
        progress: Progress | None = None,
    ) -> Bands:
        """Do the work of `to_file` with checked ``params``, and give what was written; its rows are used up.

        ``maps`` may say where `alternatives` go, too; if not, they lie beside ``out``.
        """
        save, alternatives = save or SaveOptions(), self.alternatives(params, str(out))
        maps = {**alternatives, **(maps or {})}
        values = (*values, *(None for _ in range(len(self.inputs) - len(values))))
        inputs = (*values, *self.further_inputs(params))
        check_files(inputs, out, save, maps, alternatives)
        _check_beside(self.further_outputs(params), inputs, (out, *maps.values()), overwrite=save.overwrite)
        self.prepare(params)
        limit = self.max_megapixels if max_megapixels is None else max_megapixels
        images = self.read(values, params, max_megapixels=limit)
        self._check_room(self.plan(images, params), images, out, save, maps)
        bands = self.bands(images, params, progress or no_progress)
        check_output(
            out,
            inputs=inputs,
            overwrite=save.overwrite,
            height=bands.height,
            width=bands.width,
            format=save.format,
            bits=bands.like.bits,
        )
        for name, path in maps.items():
            check_output(
                path,
                inputs=inputs,
                overwrite=save.overwrite,
                height=bands.height,
                width=bands.width,
                format=save.format if name in alternatives else None,
            )
        _write(bands, out, save)
        for name, path in maps.items():
            _write(bands.maps[name](), path, save if name in alternatives else replace(save, format=None))
        _write_beside(bands, overwrite=save.overwrite)
        return bands

    def _check_room(
        self,
        sizes: Mapping[str, tuple[int, int]],
        images: tuple[Any, ...],
        out: str | Path,
        save: SaveOptions,
        maps: Mapping[str, str | Path],
    ) -> None:
        """Refuse what no format or disk holds."""
        bits = next((image.bits for image, one in zip(images, self.inputs, strict=False) if one.leading), 8)
        for name, (height, width) in sizes.items():
            path, format = (maps.get(name), None) if name else (out, save.format)
            if path is not None:
                check_output(path, overwrite=save.overwrite, height=height, width=width, format=format, bits=bits)


def check_files(
    values: Iterable[ImageLike | None],
    out: str | Path,
    save: SaveOptions,
    maps: Mapping[str, str | Path],
    alternatives: Collection[str] = (),
) -> None:
    """Refuse inputs that are not there and outputs that cannot be written, before anything is loaded.

    Parameters
    ----------
    values, out, save, maps
        As in `Task.to_file`.
    alternatives : collection of str, optional
        Names in ``maps`` of what is written in the result's format.

    Raises
    ------
    InputError
        No such input, or an output whose name, folder or format cannot be.
    MachineError
        The disk is full.
    """
    values = tuple(values)
    check_output(out, inputs=values, overwrite=save.overwrite, format=save.format)
    check_apart(out, maps)
    for name, path in maps.items():
        format = save.format if name in alternatives else None
        check_output(path, inputs=values, overwrite=save.overwrite, format=format)
    for value in values:
        if isinstance(value, str | os.PathLike) and not Path(value).exists():
            raise InputError(f"{value}: no such file; check the name and the folder")


def check_apart(out: str | Path, maps: Mapping[str, str | Path]) -> None:
    """Refuse one file for two pictures; URLs stay as different as they are when they are read as paths."""
    taken = {Path(out).resolve(): "the result and its"}
    for name, path in maps.items():
        file = Path(path).resolve()
        if file in taken:
            raise InputError(f"{path}: is to hold {taken[file]} {name}; name two files")
        taken[file] = f"{name} and"


def _check_beside(
    files: Iterable[str | Path], inputs: Iterable[ImageLike | None], outs: Iterable[str | Path] = (), *, overwrite: bool
) -> None:
    """Refuse files that options name, where they are read, are there already or have no folder."""
    read = {file.resolve() for file in map(file_of, inputs) if file}
    taken = {Path(out).resolve() for out in outs}
    for file in map(Path, files):
        if file.resolve() in read:
            raise InputError(f"{file} is an input, which is never written; name another file")
        if file.resolve() in taken:
            raise InputError(f"{file}: is to hold two things; name two files")
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists; name another file, or add --overwrite")
        if not file.absolute().parent.is_dir():
            raise InputError(f"{file.parent}: no such folder; make it first")
        taken.add(file.resolve())


def _write_beside(bands: Bands, *, overwrite: bool) -> None:
    """Write the files that options name; each appears whole or not at all."""
    for path, content in bands.files.items():
        write_file(path, content(), overwrite=overwrite)


def _write(bands: Bands, out: str | Path, save: SaveOptions) -> None:
    """Write the rows as they come; the file appears whole or not at all."""
    with RowWriter(
        out,
        bands.like,
        bands.height,
        bands.width,
        bands.channels,
        bands.like.pixels.dtype,
        alpha=bands.alpha,
        format=save.format,
        quality=save.quality,
        overwrite=save.overwrite,
        made_by=bands.made_by if save.mark else None,
    ) as writer:
        for rows in bands.rows:
            writer.write(rows)
