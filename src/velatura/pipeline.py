"""Several applications in a row, in memory: restore, then upscale, then stylize.

What one step makes is the next one's photograph, as if it had been written to a file of the same depth and read again;
only the last step's rows are streamed. All steps, their files and the sizes that they give are checked before the first
one begins.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, runtime_checkable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import BeforeValidator, Field

from velatura import schema, tasks
from velatura.errors import Cancelled, InputError, VelaturaError
from velatura.hidden import on_paper
from velatura.image import SUFFIXES, Picture, probe, rescaled
from velatura.ops.resize import RowResize
from velatura.task import (
    Bands,
    ImageLike,
    Input,
    Output,
    Params,
    Progress,
    Result,
    SaveOptions,
    Task,
    parse_params,
)
from velatura.tiling import DEFAULT_MEMORY_MIB

__all__ = ["Pipeline", "PipelineParams", "Step", "applications"]

UNITS = 1000  # of progress: what every step counts
STRIP = 64  # rows of the sheet that are made at a time
PAPER, INK = 1.0, 0.2  # of the sheet
SMALLEST = 8  # px: type that can still be read


# --- what is asked for ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One application and what is asked of it.

    Attributes
    ----------
    application : str
        Its name, as on the command line.
    options : mapping of str to Any
        Fields of the application's ``Params``; ``model`` for its ``from_pretrained``; and by their names the other
        images that it reads.

    Examples
    --------
    >>> Step.parse("upscale:scale=2,model=bicubic")
    Step(application='upscale', options={'scale': '2', 'model': 'bicubic'})
    >>> Step.parse("blend:source=boat.png,at=40,25").options["at"]
    '40,25'
    """

    application: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME`` or ``NAME:option=value,option=value``; a part without ``=`` belongs to the value before it.

        Raises
        ------
        ValueError
            The first option has no ``=``, or an option is given twice.
        """
        name, _, rest = text.partition(":")
        options: dict[str, str] = {}
        key = ""
        for part in rest.split(",") if rest else ():
            word, found, value = part.partition("=")
            if found:
                key = word.strip().replace("-", "_")
                if key in options:
                    raise ValueError(f"{word.strip()} is given twice")
                options[key] = value
            elif key:
                options[key] += f",{part}"
            else:
                raise ValueError("expected NAME or NAME:option=value,option=value")
        return cls(name.strip(), options)

    def __str__(self) -> str:
        options = " ".join(
            f"{key}={value}" for key, value in self.options.items() if isinstance(value, str | int | float)
        )
        return f"{self.application} {options}".rstrip()


def _step(value: Any) -> Any:
    return Step.parse(value) if isinstance(value, str) else value


class PipelineParams(Params):
    """Options of `Pipeline`."""

    step: tuple[Annotated[Step, BeforeValidator(_step)], ...] = Field(
        (),
        description="an application and its options, NAME:option=value,option=value; once for each step, in order",
        json_schema_extra={"repeated": True},
    )
    compare: bool = Field(False, description="sheet of the image, enlarged to the result's size, beside the result")


def applications() -> dict[str, type[Task]]:
    """Give the applications that a step can be, by name: those that are there and change one image."""
    return {name: kind for name in _modules() if (kind := _application(name)) is not None}


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(tasks.__path__)]


def _application(name: str) -> type[Task] | None:
    """Find the task of a name; None where it changes no image."""
    module = importlib.import_module(f"{tasks.__name__}.{name}")
    for public in module.__all__:
        kind = getattr(module, public)
        if isinstance(kind, type) and issubclass(kind, Task) and any(one.leading for one in kind.inputs):
            return kind
    return None


# --- a step that was checked ------------------------------------------------------------------------------------------


@runtime_checkable
class _Resizing(Protocol):
    """Options that give the result another size than the image."""

    def target(self, height: int, width: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class _Stage:
    """One step with its task, its options and its other images."""

    number: int
    step: Step
    kind: type[Task]
    params: Params
    model: Any
    others: Mapping[str, ImageLike]

    @classmethod
    def of(cls, number: int, step: Step) -> Self:
        """Check a step without loading anything."""
        kind = _application(step.application) if step.application in _modules() else None
        if kind is None:
            known = ", ".join(applications())
            raise InputError(f"step {number}: there is no application {step.application!r} here; there are {known}")
        with _named(number, step.application):
            inputs = {one.name: one for one in kind.inputs if not one.leading}
            others = {
                name: value
                for name, value in step.options.items()
                if name in inputs and not _is_word(kind, name, value)
            }
            for one in inputs.values():
                if one.required and one.name not in others:
                    raise InputError(f"needs {one.name} ({one.help}); give {step.application}:{one.name}=FILE")
            given = {
                name: _several(kind, name, value)
                for name, value in step.options.items()
                if name not in others and name != "model"
            }
            for output in kind.outputs:
                if output.name in given:
                    raise InputError(
                        f"{output.name} is a picture beside the result, and a pipeline keeps only the result; "
                        f"run velatura {step.application} for it"
                    )
            params = parse_params(kind.Params, given)
            if kind.alternatives(params, "result"):
                raise InputError(
                    f"one result only goes on to the next step; run velatura {step.application} for several"
                )
        return cls(number, step, kind, params, step.options.get("model"), others)

    @property
    def files(self) -> list[Path]:
        """The other images that are files."""
        named = (*self.others.values(), *self.kind.further_inputs(self.params))
        return [Path(value) for value in named if isinstance(value, str | Path)]

    @property
    def models(self) -> list[str | Path]:
        """The models that it loads, as far as options name them or there is a usual one."""
        usual = self.model or self.kind.default_model
        return [*([usual] if isinstance(usual, str | Path) else []), *self.kind.further_models(self.params)]

    def named(self) -> Any:
        """Name the step in errors."""
        return _named(self.number, self.step.application)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Give the size of the result, from that of the image."""
        return self.params.target(height, width) if isinstance(self.params, _Resizing) else (height, width)

    @property
    def place(self) -> int:
        """Where the image that goes through all steps stands among the images of this one."""
        return next(i for i, one in enumerate(self.kind.inputs) if one.leading)

    def read(self, task: Task, *, max_megapixels: float) -> tuple[Any, ...]:
        """Open the other images; where the image stands that is not there yet lies one of a single pixel."""
        values = (_stand_in(1, 1, 1) if one.leading else self.others.get(one.name) for one in self.kind.inputs)
        return task.read(tuple(values), self.params, max_megapixels=max_megapixels)

    def among(self, images: tuple[Any, ...], picture: Picture) -> tuple[Any, ...]:
        """Put the image among the others."""
        return (*images[: self.place], picture, *images[self.place + 1 :])


def _stand_in(height: int, width: int, channels: int) -> Picture:
    """Give a picture that has a size and takes no memory."""
    return Picture(np.broadcast_to(np.zeros(1, np.uint8), (height, width, channels)))


def _is_word(kind: type[Task], name: str, value: Any) -> bool:
    """Tell a word that an input of an option's name takes from an image: ``scratches=off``."""
    field = kind.Params.model_fields.get(name)
    return field is not None and isinstance(value, str) and value in schema.choices(field)


def _several(kind: type[Task], name: str, value: Any) -> Any:
    """Split what is given once for each on the command line: ``also=b.jpg,c.jpg``."""
    field = kind.Params.model_fields.get(name)
    extra = field.json_schema_extra if field is not None else None
    repeated = isinstance(extra, dict) and bool(extra.get("repeated"))
    return tuple(value.split(",")) if repeated and isinstance(value, str) else value


@contextmanager
def _named(number: int, application: str) -> Iterator[None]:
    """Begin errors with the step that they come from."""
    try:
        yield
    except Cancelled:
        raise
    except VelaturaError as error:
        raise type(error)(f"step {number} ({application}): {error}") from error


class _Share:
    """A step's part of the progress; it never goes back, and what a step counts one after another shares it."""

    def __init__(self, progress: Progress, index: int, count: int, label: str, stages: tuple[str, ...]) -> None:
        self._progress, self._index, self._count, self._label = progress, index, count, label
        self._stages, self._reached = stages, 0

    def __call__(self, done: int, total: int, stage: str) -> None:
        passed, several = self._stages.index(stage) if stage in self._stages else 0, max(len(self._stages), 1)
        self._reached = max(self._reached, int(UNITS * (passed + done / max(total, 1)) / several))
        self._tell(stage)

    def finish(self) -> None:
        """Say that the step is done."""
        self._reached = UNITS
        self._tell(self._label)

    def _tell(self, stage: str) -> None:
        words = f"step {self._index + 1} of {self._count}, {stage or self._label}"
        self._progress(UNITS * self._index + self._reached, UNITS * self._count, words)


# --- the pipeline -----------------------------------------------------------------------------------------------------


class Pipeline(Task):
    """Run several applications on IMAGE, one after the other.

    Parameters
    ----------
    steps : sequence of str or Step
        In their order; ``"upscale:scale=2,model=bicubic"`` is `Step.parse` of it. Python values need a `Step`.
    device : str
        Where networks run.
    memory : float
        MiB at most for the work of a step. What lies between two steps is held whole on top of it.

    Notes
    -----
    Two steps give what two commands give that are run one after the other through a lossless file of the same depth.
    Depth, alpha, profile and metadata are the image's, as far as the applications keep them.

    What lies between two steps may have ``max_megapixels`` at most, as if it were read from a file.

    Examples
    --------
    >>> photo = np.full((6, 8, 3), 128, np.uint8)
    >>> wide = Step("upscale", {"size": (48, None), "model": "lanczos"})
    >>> pipeline = Pipeline(["upscale:scale=2,model=bicubic", wide])
    >>> pipeline(photo).image.shape
    (36, 48, 3)
    """

    name = "pipeline"
    Params = PipelineParams
    inputs = (Input("image", "the photograph to work on", leading=True),)
    outputs = (Output("compare", "the image, enlarged to the result's size, beside the result: a before/after sheet"),)

    def __init__(
        self,
        steps: Sequence[str | Step] = (),
        *,
        device: str = "auto",
        memory: float = DEFAULT_MEMORY_MIB,
    ) -> None:
        self.steps = parse_params(PipelineParams, {"step": tuple(steps)}).step
        self._device, self._memory = device, memory
        self._tasks: dict[tuple[str, str | None], Task] = {}
        _stages(self.steps)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make a pipeline whose steps come with each call; its models are those of the steps."""
        if name_or_path is not None:
            raise InputError("a pipeline has no model of its own; name it in a step, as in upscale:model=bicubic")
        return cls(device=device, memory=memory)

    @staticmethod
    def check(params: PipelineParams) -> None:
        """Refuse wrong steps without loading anything.

        Raises
        ------
        InputError
            No step, an unknown application or option, an image that is missing; it names the step.
        """
        if not params.step:
            raise InputError("a pipeline needs steps; give --step upscale:scale=2, once for each")
        _stages(params.step)

    @classmethod
    def further_inputs(cls, params: PipelineParams) -> tuple[str | Path, ...]:
        """Name the files of all steps."""
        return tuple(file for stage in _each(params.step) for file in stage.files)

    @classmethod
    def further_outputs(cls, params: PipelineParams) -> tuple[str | Path, ...]:
        """Name what the options of all steps write."""
        return tuple(file for stage in _each(params.step) for file in stage.kind.further_outputs(stage.params))

    @classmethod
    def further_models(cls, params: PipelineParams) -> tuple[str | Path, ...]:
        """Name the models of all steps."""
        return tuple(model for stage in _each(params.step) for model in stage.models)

    @classmethod
    def single_outputs(cls, params: PipelineParams) -> tuple[str, ...]:
        """Name what steps write beside the result."""
        return tuple(name for stage in _each(params.step) for name in stage.kind.single_outputs(stage.params))

    def prepare(self, params: PipelineParams) -> None:
        """Check all steps and load what they need."""
        for stage in self._asked(params):
            with stage.named():
                self._task(stage).prepare(stage.params)

    def bands(self, images: tuple[Any, ...], params: PipelineParams, progress: Progress) -> Bands:
        """Do all steps but the last, and hand out the last one's rows."""
        picture, others, _ = images
        stages = self._asked(params)
        now, makers, made = picture, [], None
        files: dict[Path, Callable[[], bytes]] = {}
        for index, stage in enumerate(stages):
            task = self._task(stage)
            share = _Share(progress, index, len(stages), stage.step.application, task.stages(stage.params))
            with stage.named():
                made = task.bands(stage.among(others[index], now), stage.params, share)
                makers += [made.made_by] if made.made_by else []
                files |= made.files
                # The step before lives on in `made` alone, until its rows are gathered.
                if index < len(stages) - 1:
                    now = made.gather()
                    share.finish()
                else:
                    made = replace(made, rows=_rows(made.rows, stage, share))
        assert made is not None
        made = replace(made, made_by=", then ".join(makers) or None, maps={}, extras={}, files=files)
        return _compared(made, picture, stages) if params.compare else made

    def read(self, values: tuple[Any, ...], params: PipelineParams, *, max_megapixels: float) -> tuple[Any, ...]:
        """Read the image, and the other images of all steps; what lies between two steps has the same limit."""
        (picture,) = self.open(values, max_megapixels=max_megapixels)
        others = []
        for stage in self._asked(params):
            with stage.named():
                others.append(stage.read(self._task(stage), max_megapixels=max_megapixels))
        return picture, others, max_megapixels

    def plan(self, images: tuple[Any, ...], params: PipelineParams) -> Mapping[str, tuple[int, int]]:
        """Check the sizes, and what each step can see before it is its turn: its options and its other images."""
        picture, others, limit = images
        stages, size = self._asked(params), (picture.height, picture.width)
        for stage, beside in zip(stages, others, strict=True):
            with stage.named():
                seen = stage.among(beside, _stand_in(*size, picture.channels))
                self._task(stage).plan(seen, stage.params)
                size = stage.size(*size)
                megapixels, last = size[0] * size[1] / 1e6, stage is stages[-1]
                if megapixels > limit and (params.compare or not last):
                    reason = "the sheet" if last else "the next step"
                    raise InputError(
                        f"makes {size[1]} x {size[0]}, {megapixels:.0f} megapixels, to be held for {reason}; the limit "
                        f"is {limit:g}, --max-megapixels raises it"
                    )
        return {"": size, "compare": _Layout(*size).size}

    def write(
        self,
        values: tuple[ImageLike | None, ...],
        out: str | Path,
        params: PipelineParams,
        save: SaveOptions | None = None,
        **options: Any,
    ) -> Bands:
        """Do the work of `to_file`, by the pipeline's own steps if ``params`` have none."""
        steps = params.step or self.steps
        return super().write(values, out, params.model_copy(update={"step": steps}), save, **options)

    def __call__(self, image: ImageLike, *, compare: bool = False, progress: Progress | None = None) -> Result:
        """Run the steps on ``image``.

        Parameters
        ----------
        image : image
            (H, W[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        compare : bool
            Make a before/after sheet too: ``maps["compare"]``.
        progress : callable, optional
            ``progress(done, total, stage)`` over all steps.

        Returns
        -------
        Result

        Raises
        ------
        InputError
            A step refuses the image or what is asked of it; the message names the step.
        """
        return self.run((image,), {"step": self.steps, "compare": compare}, progress)

    def _asked(self, params: PipelineParams) -> list[_Stage]:
        """Give the steps of a call, or the pipeline's own."""
        steps = params.step or self.steps
        self.check(params.model_copy(update={"step": steps}))
        return _stages(steps)

    def _task(self, stage: _Stage) -> Task:
        """Give the task of a step; steps of the same application and model share it."""
        key = stage.step.application, None if stage.model is None else str(stage.model)
        if key not in self._tasks:
            self._tasks[key] = stage.kind.from_pretrained(stage.model, device=self._device, memory=self._memory)
        return self._tasks[key]


def _stages(steps: Sequence[Step]) -> list[_Stage]:
    """Check all steps, and that the files that they read are images."""
    stages = _each(steps)
    for stage in stages:
        with stage.named():
            for file in stage.files:
                if not file.exists():
                    raise InputError(f"{file}: no such file; check the name and the folder")
                if file.suffix.lower() in SUFFIXES:  # what else a task reads is its own affair
                    probe(file, max_megapixels=float("inf"))
    return stages


def _each(steps: Sequence[Step]) -> list[_Stage]:
    return [_Stage.of(number, step) for number, step in enumerate(steps, start=1)]


def _rows(rows: Iterator[np.ndarray], stage: _Stage, share: _Share) -> Iterator[np.ndarray]:
    with stage.named():
        yield from rows
    share.finish()


# --- before and after -------------------------------------------------------------------------------------------------


def _compared(made: Bands, before: Picture, stages: list[_Stage]) -> Bands:
    """Keep the rows as they pass by, for the sheet."""
    depth = made.channels + made.alpha
    whole = np.empty((made.height, made.width, depth), made.like.pixels.dtype)

    def passing() -> Iterator[np.ndarray]:
        top = 0
        for band in made.rows:
            whole[top : top + len(band)] = band
            top += len(band)
            yield band

    def sheet() -> Bands:
        after = made.like.replace(
            pixels=whole[..., : made.channels], alpha=whole[..., -1] if made.alpha else None, exif=None, xmp=None
        )
        larger = ", enlarged" if (before.height, before.width) != whole.shape[:2] else ""
        words = f"before: {before.width} x {before.height}{larger}", f"after: {', '.join(str(s.step) for s in stages)}"
        return _sheet(before, after, words, made.made_by)

    return replace(made, rows=passing(), maps={"compare": sheet})


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things lie on a sheet of two pictures of one size, in pixels."""

    height: int
    width: int

    @property
    def text(self) -> int:
        """Height of the type."""
        return int(np.clip(min(self.height, self.width) // 20, 12, 48))

    @property
    def gap(self) -> int:
        """Width of the margins."""
        return self.text // 2

    @property
    def head(self) -> int:
        """Height of the strip with the labels."""
        return self.text + 2 * self.gap

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sheet."""
        return self.head + self.height + self.gap, 2 * self.width + 3 * self.gap

    @property
    def columns(self) -> tuple[slice, slice]:
        """Where the two pictures lie in a row."""
        return tuple(slice(left, left + self.width) for left in (self.gap, 2 * self.gap + self.width))  # type: ignore[return-value]


def _sheet(before: Picture, after: Picture, words: tuple[str, str], made_by: str | None) -> Bands:
    """Lay two pictures side by side, the first at the size of the second, each below its label, on white."""
    layout, dtype = _Layout(after.height, after.width), after.pixels.dtype
    channels = max(before.channels, after.channels)
    resized = RowResize((before.height, before.width), (after.height, after.width))

    def paper(height: int) -> np.ndarray:
        return np.full((height, layout.size[1], channels), PAPER, np.float32)

    def rows() -> Iterator[np.ndarray]:
        head, font = paper(layout.head), _font(words, layout)
        for column, label in zip(layout.columns, words, strict=True):
            head[:, column] = _label(label, font, layout)[..., None]
        yield rescaled(head, dtype)
        for top in range(0, after.height, STRIP):
            bottom = min(top + STRIP, after.height)
            band, (start, stop) = paper(bottom - top), resized.needs((top, bottom))
            left, right = layout.columns
            band[:, left] = resized.rows(_on_paper(before, start, stop), start, (top, bottom)).clip(0, 1)
            band[:, right] = _on_paper(after, top, bottom)
            yield rescaled(band, dtype)
        yield rescaled(paper(layout.gap), dtype)

    return Bands(after, *layout.size, rows(), channels=channels, made_by=made_by)


def _on_paper(picture: Picture, start: int, stop: int) -> np.ndarray:
    """Give rows as floats, what is transparent laid on the paper."""
    return on_paper(picture.pixels[start:stop], None if picture.alpha is None else picture.alpha[start:stop])


def _font(words: tuple[str, str], layout: _Layout) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Choose the largest type in which both labels fit, or the smallest."""
    fonts = (ImageFont.load_default(size) for size in range(layout.text, SMALLEST, -1))
    fitting = (font for font in fonts if max(map(font.getlength, words)) <= layout.width)
    return next(fitting, ImageFont.load_default(SMALLEST))


def _label(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, layout: _Layout) -> np.ndarray:
    """Write words in the middle of a strip: (height, width), 0..1."""
    strip = Image.new("L", (layout.width, layout.head), round(255 * PAPER))
    ImageDraw.Draw(strip).text((layout.width / 2, layout.head / 2), words, round(255 * INK), font, anchor="mm")
    return np.asarray(strip, np.float32) / 255
