"""What the commands share: options of every image command, progress, and the command made from a task.

A command of an application is a few lines::

    upscale = image_command(Upscale, examples="velatura upscale photo.jpg -o large.png --scale 4")

Its arguments are the task's inputs, its flags the fields of the task's ``Params``, with the help, the ranges, the
choices and the defaults declared there.
"""

from __future__ import annotations

import glob
import inspect
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number
from pydantic.fields import FieldInfo

from velatura import schema, storage
from velatura.batch import Engine, LocalEngine, RayEngine, WorkSpec, output_suffix, run_batch
from velatura.device import limit_threads, threads
from velatura.errors import Cancelled, InputError
from velatura.task import (
    Input,
    Output,
    Params,
    Progress,
    SaveOptions,
    Task,
    check_apart,
    check_files,
    no_progress,
    parse_params,
)
from velatura.tiling import DEFAULT_MEMORY_MIB

__all__ = ["ImageOptions", "RunOptions", "flag", "image_command", "print_json", "progress_bar"]

_INPUTS = Group("Images", sort_key=1)
_TASK = Group("Options", sort_key=2)
_OUTPUT = Group("Output", sort_key=3)
_BATCH = Group("Folders", sort_key=4, help="An input that is a folder makes a batch; -o is then a folder too.")
_MACHINE = Group("Machine", sort_key=5)

# Whether the machine has it is for `velatura.device.resolve_device` to say, once a task needs torch at all.
_DEVICES = r"auto|cpu|mps|(cuda|xpu)(:\d+)?"

_OVER_ZERO = Number(gt=0)
_AT_LEAST_ONE = Number(gte=1)


_switch = partial(Parameter, negative=(), show_default=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of every command that makes pictures; the help of each stands beside it."""

    overwrite: Annotated[
        bool, _switch(group=_OUTPUT, help="Replace outputs that exist; an input is never replaced.")
    ] = False
    no_mark: Annotated[
        bool, _switch(group=_OUTPUT, help="Leave out the metadata note that a trained model made the pixels.")
    ] = False
    quiet: Annotated[bool, _switch(name=["--quiet", "-q"], group=_OUTPUT, help="Print errors only.")] = False
    json: Annotated[bool, _switch(group=_OUTPUT, help="Print the result as one JSON line on stdout.")] = False

    device: Annotated[str, Parameter(group=_MACHINE, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps or xpu.")] = (
        "auto"
    )
    threads: Annotated[
        int | None,
        Parameter(group=_MACHINE, validator=_AT_LEAST_ONE, metavar="N", help="Default: all processors."),
    ] = None

    def __post_init__(self) -> None:
        """Refuse a device that there is on no machine."""
        if not re.fullmatch(_DEVICES, self.device):
            raise InputError(f"unknown device {self.device!r}; expected auto, cpu, cuda, cuda:1, mps or xpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions(RunOptions):
    """Options of every command that works on images."""

    format: Annotated[
        Literal["png", "jpeg", "webp", "tiff", "avif", "bmp", "gif"] | None,
        Parameter(group=_OUTPUT, help="File format; default: by the suffix of OUT, in a batch that of the image."),
    ] = None
    quality: Annotated[
        int | None,
        Parameter(group=_OUTPUT, validator=Number(gte=1, lte=100), metavar="1..100", help="Of JPEG, WebP and AVIF."),
    ] = None

    resume: Annotated[
        bool, _switch(group=_BATCH, help="Go on with a batch: what is unfinished, failed or changed.")
    ] = False
    jobs: Annotated[
        int | None,
        Parameter(
            group=_BATCH,
            validator=_AT_LEAST_ONE,
            metavar="N",
            help="Images at a time, each in a process; default: as many as are worth their start.",
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        Parameter(group=_BATCH, help="Where the work runs: this machine, or a Ray cluster (velatura[ray])."),
    ] = "local"
    address: Annotated[
        str | None,
        Parameter(group=_BATCH, metavar="HOST:PORT", help="Of the Ray cluster; default: one is started here."),
    ] = None

    threads: Annotated[
        int | None,
        Parameter(
            group=_MACHINE,
            validator=_AT_LEAST_ONE,
            metavar="N",
            help="Of one process; default: all processors, over the jobs; with --resume what the batch was begun with.",
        ),
    ] = None
    memory: Annotated[
        float,
        Parameter(
            group=_MACHINE,
            validator=_OVER_ZERO,
            metavar="MIB",
            help="Working memory at most, the images not counted; upscaling by bands takes no more than 128 of it, as "
            "larger bands are slower.",
        ),
    ] = DEFAULT_MEMORY_MIB
    max_megapixels: Annotated[
        float,
        Parameter(group=_MACHINE, validator=_OVER_ZERO, metavar="N", help="Larger inputs are refused unread."),
    ] = 100

    def work(self, task: type[Task], params: Params, model: str | None) -> WorkSpec:
        """Put what was asked for into the form that engines take."""
        return WorkSpec(
            task=f"{task.__module__}:{task.__qualname__}",
            params=params.model_dump(mode="json"),
            model=model,
            device=self.device,
            memory=self.memory,
            threads=self.threads,
            save=SaveOptions(self.format, self.quality, self.overwrite, mark=not self.no_mark),
            max_megapixels=self.max_megapixels,
        )


# --- a command from a task --------------------------------------------------------------------------------------------


def image_command(
    task: type[Task],
    *,
    examples: str,
    by_flag: Collection[str] = (),
    has_model: bool = True,
    rest: str | None = None,
    instead: Callable[[WorkSpec, Sequence[str | None], Path, ImageOptions], int | None] | None = None,
) -> App:
    """Make the command of an application.

    Parameters
    ----------
    task : type of Task
    examples : str
        One command per line, for ``--help``.
    by_flag : collection of str, optional
        Names of inputs that are given by a flag instead of by position.
    has_model : bool, optional
        Whether there is a ``--model``.
    rest : str, optional
        Name of a repeated option whose values follow the inputs, without a flag.
    instead : callable, optional
        Is asked first, for inputs that are no images; gives the exit code, or None if they are images.

    Returns
    -------
    cyclopts.App
        ``velatura <task.name> INPUTS... -o OUT [options]``; a folder among the inputs makes a batch.
    """
    beside = {output.name for output in task.outputs}
    # An input of an option's name takes the option's words, too: `--scratches off`.
    options = task.Params.model_fields
    words = {one.name: schema.choices(options[one.name]) for one in task.inputs if one.name in options}
    fields = {name: field for name, field in options.items() if name not in words}
    inputs = [_input(one, one.name in by_flag, words.get(one.name, ())) for one in task.inputs]
    inputs += [_rest(rest, fields[rest])] if rest else []
    out = Parameter(
        name=["--output", "-o"],
        group=_INPUTS,
        metavar="OUT",
        help=f"The file to write, or a folder: a batch keeps its names there, one image is called NAME-{task.name}.",
    )
    model = Parameter(group=_TASK, metavar="NAME|FILE", help=_models(task))
    signature = inspect.Signature(
        [
            # What goes by position comes first, as a signature wants it.
            *sorted(inputs, key=lambda parameter: parameter.kind),
            _keyword("out", str, out, inspect.Parameter.empty),
            *(_option(name, field) for name, field in fields.items() if name not in {*beside, rest}),
            *(_map(output) for output in task.outputs),
            *([_keyword("model", str | None, model)] if has_model else []),
            _keyword("shared", ImageOptions, Parameter(name="*"), ImageOptions()),
        ]
    )

    def command(*args: Any, **kwargs: Any) -> int:
        given = signature.bind(*args, **kwargs).arguments
        shared = given.get("shared", ImageOptions())
        maps = {name: given[name] for name in beside if given.get(name) is not None}
        asked = {name: given[name] for name in fields if given.get(name) is not None} | dict.fromkeys(maps, True)
        asked |= {name: given[name] for name, known in words.items() if given.get(name) in known}
        work = replace(shared.work(task, parse_params(task.Params, asked), given.get("model")), maps=maps)
        paths = [None if one.name in asked else given.get(one.name) for one in task.inputs]
        batch = any(path is not None and storage.kind_of(storage.place(path)) == "folder" for path in paths)
        out = storage.place(given["out"])
        if not batch and given["out"].endswith(("/", os.sep)) and storage.kind_of(out) != "folder":
            raise InputError(f"{given['out']}: no such folder; make it first, or name a file")
        if not batch:
            work = replace(work, threads=work.threads or threads())
        if instead is not None and (code := instead(work, paths, Path(out), shared)) is not None:
            return code
        return (_run_batch if batch else _run_one)(work, paths, out, shared)

    # The parser reads names and defaults from the one, types and help from the other.
    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    usage = " ".join(_usage(one, one.name in by_flag) for one in task.inputs)
    usage += f" [{rest.upper()}...]" if rest else ""
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    app = App(
        name=task.name,
        help=inspect.cleandoc(task.__doc__ or "").split("\n\n")[0],
        usage=f"Usage: velatura {task.name} {usage} -o OUT [options]",
        help_epilogue=f"Examples:\n{lines}",
    )
    app.default(command)
    return app


def _keyword(name: str, kind: Any, parameter: Parameter, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, parameter]
    )


def _input(one: Input, by_flag: bool, words: tuple[str, ...] = ()) -> inspect.Parameter:
    """Declare an input: a path, which may be a folder, or one of some words."""
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY if by_flag else inspect.Parameter.POSITIONAL_ONLY,
        default=inspect.Parameter.empty if one.required else None,
        annotation=Annotated[
            str if one.required else str | None,
            Parameter(group=_INPUTS, metavar="|".join((*words, "FILE")) if by_flag else None, help=_sentence(one.help)),
        ],
    )


def _rest(name: str, field: FieldInfo) -> inspect.Parameter:
    """Declare what may follow the inputs."""
    parameter = Parameter(group=_INPUTS, help=_sentence(field.description or ""))
    return inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=Annotated[str, parameter])


def _map(output: Output) -> inspect.Parameter:
    """Declare the flag that takes the file, or in a batch the folder, for a picture beside the result."""
    parameter = Parameter(group=_OUTPUT, metavar="FILE", help=_sentence(output.help))
    return _keyword(output.name, str | None, parameter)


def _models(task: type[Task]) -> str:
    """Say what ``--model`` takes."""
    if names := task.models():
        return f"{', '.join(names)}, or a file [default: {names[0]}]"
    return "See `velatura models list`; default: the task's own."


def _usage(one: Input, by_flag: bool) -> str:
    word = f"--{one.name} FILE" if by_flag else one.name.upper()
    return word if one.required else f"[{word}]"


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Declare the flag of one field of ``Params``.

    Words and switches are the parser's to check, so that it can list and complete them. Any other value stays one
    token for pydantic to read: there is one set of rules, and ``--at -10,5`` is neither two tokens nor a flag.
    """
    kind = schema.without_none(field.annotation)
    extra = field.json_schema_extra
    token = tuple[str, ...] if isinstance(extra, dict) and extra.get("repeated") else str
    typed = kind if kind is bool or schema.choices(field) else token
    return _keyword(name, typed | None, flag(field))


def flag(field: FieldInfo, *names: str, metavar: str = "VALUE") -> Parameter:
    """Declare what the parser says of one field of ``Params``: its help, its range and its default.

    Parameters
    ----------
    field : pydantic.fields.FieldInfo
    *names : str, optional
        The flags; by default one of the field's name.
    metavar : str
        What stands for the value in the help; words and switches need none.
    """
    is_switch, is_word = schema.without_none(field.annotation) is bool, bool(schema.choices(field))
    usual, values = schema.default(field), "" if is_word else schema.limits(field)
    notes = [note for note in (values, f"default: {usual}" if usual else "") if note]
    return Parameter(
        name=names or None,
        group=_TASK,
        help=_sentence(field.description or "") + (f" [{'; '.join(notes)}]" if notes else ""),
        show_default=False,
        negative=None if is_switch else (),
        metavar=None if is_switch or is_word else metavar,
        allow_leading_hyphen=not (is_switch or is_word),
    )


def _sentence(text: str) -> str:
    """Write a line of help as a sentence; declarations leave out the capital and the full stop.

    Examples
    --------
    >>> _sentence("how much of it"), _sentence("gp-gan: by a network; paste")
    ('How much of it.', 'gp-gan: by a network; paste.')
    """
    if not text:
        return ""
    # A choice or a compound is a name, to be typed as it stands.
    is_name = any(mark in text.partition(" ")[0] for mark in "-:")
    return f"{text[:1] if is_name else text[:1].upper()}{text[1:].rstrip('.')}."


# --- doing the work ---------------------------------------------------------------------------------------------------


def _run_one(work: WorkSpec, paths: Sequence[str | None], out: str, shared: ImageOptions) -> int:
    """Make one image and say what was written."""
    kind = work.kind
    if shared.resume or shared.jobs or shared.engine != "local" or shared.address:
        raise InputError("--resume, --jobs, --engine and --address are for folders; no input is one")
    if storage.kind_of(out) == "folder":
        leading = PurePosixPath(
            next(path for one, path in zip(kind.inputs, paths, strict=True) if one.leading and path)
        )
        out = storage.join(out, f"{leading.stem}-{kind.name}{output_suffix(leading, work.save.format)}")
    params = work.checked()
    alternatives = kind.alternatives(params, out)
    maps = alternatives | {name: storage.place(file) for name, file in work.maps.items()}
    check_apart(out, maps)
    for path in (out, *maps.values()):
        if storage.is_url(path) and not shared.overwrite and storage.find(path) is not None:
            raise InputError(f"{path} exists; choose another name or allow it to be replaced with --overwrite")
    start = time.perf_counter()
    hushed = warnings.catch_warnings(action="ignore" if shared.quiet else None)
    with (
        limit_threads(work.threads),
        hushed,
        progress_bar(quiet=shared.quiet) as progress,
        storage.borrowed([path and storage.place(path) for path in paths], [out, *maps.values()]) as loan,
    ):
        file, *others = loan.outputs
        beside = dict(zip(maps, others, strict=True))
        # Before the model is loaded: a slip in a name is told at once.
        check_files(loan.inputs, file, work.save, beside, alternatives)
        task = work.build()
        written = task.write(loan.inputs, file, params, work.save, maps=beside, progress=progress)
        size = file.stat().st_size
    seconds = time.perf_counter() - start
    if shared.json:
        print_json(
            output=out,
            maps={**alternatives, **work.maps},
            width=written.width,
            height=written.height,
            seconds=round(seconds, 3),
            params=work.params,
            made_by=written.made_by,
        )
    elif not shared.quiet:
        print(f"{out}: {written.width} x {written.height}, {_in_words(size)}, {seconds:.1f} s{_beside(maps)}")
    return 0


def _run_batch(work: WorkSpec, paths: Sequence[str | None], out: str, shared: ImageOptions) -> int:
    """Make a folder of images and report; 1 if any failed."""
    if shared.address is not None and shared.engine != "ray":
        raise InputError("--address is of a Ray cluster; add --engine ray")
    engine: Engine = LocalEngine(shared.jobs)
    if shared.engine == "ray":
        engine = RayEngine(shared.address, shared.jobs)
    try:
        with progress_bar(quiet=shared.quiet) as progress:
            report = run_batch(work, paths, out, engine=engine, resume=shared.resume, progress=progress)
    except KeyboardInterrupt:
        raise Cancelled("interrupted; the same command with --resume (without --overwrite) does the rest") from None
    if not shared.quiet:
        for text, names in report.warnings.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            print(f"velatura: warning: {names[0]}{more}: {text}", file=sys.stderr)
    for outcome in report.failed:
        print(f"velatura: failed: {outcome.job.name}: {outcome.error}", file=sys.stderr)
    # Of each image there is one: what its name is like, as `glob` finds it.
    folder = out if storage.is_url(out) else glob.escape(out)
    alternatives = work.kind.alternatives(work.checked(), storage.join(folder, "**/*.*"))
    maps = {**alternatives, **work.maps}
    if shared.json:
        print_json(
            output=out,
            maps=maps,
            done=report.done,
            skipped=report.skipped,
            failed=[{"name": outcome.job.name, "error": outcome.error} for outcome in report.failed],
            seconds=round(report.seconds, 3),
            params=work.params,
        )
    elif not shared.quiet:
        counts = [f"{report.done} done"]
        counts += [f"{report.skipped} done before"] if report.skipped else []
        counts += [f"{len(report.failed)} failed"] if report.failed else []
        print(f"{out}: {', '.join(counts)}, {report.seconds:.1f} s{_beside(maps)}")
    return 1 if report.failed else 0


def _beside(maps: Mapping[str, str]) -> str:
    """Name the files, or in a batch the folders, of what was made beside the result."""
    return "".join(f"; {name}: {path}" for name, path in maps.items())


def _in_words(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"


def print_json(**values: Any) -> None:
    """Print one JSON object on one line of stdout: the result, for scripts."""
    print(json.dumps(values))


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Give a progress hook that draws a bar on stderr where that is a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # transient: the bar goes when the work is done, so that the terminal keeps the result only.
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("", total=None)

        def show(done: int, total: int, stage: str) -> None:
            bar.update(row, completed=done, total=total, description=stage)

        yield show
