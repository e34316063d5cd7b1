"""``velatura imagine``: pictures from words, so a text goes in and a folder comes out."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from velatura.cli.common import print_json, progress_bar
from velatura.device import limit_threads
from velatura.errors import InputError
from velatura.image import SUFFIXES, check_output
from velatura.task import parse_params
from velatura.tasks.imagine import MODEL, Imagine, ImagineParams

__all__ = ["imagine"]

_IMAGES = Group("Images", sort_key=1)
_OPTIONS = Group("Options", sort_key=2)
_OUTPUT = Group("Output", sort_key=3)
_MACHINE = Group("Machine", sort_key=4)

_DEVICES = r"auto|cpu|mps|(cuda|xpu)(:\d+)?"

_EXAMPLES = """\
Examples:
  velatura imagine "a red flower with a yellow centre" -n 4 --seed 7 -o flowers/
  velatura imagine "this flower has blue petals" --style photo.jpg -n 4 -o flowers/ --upscale 4
  velatura imagine --interpolate "a yellow flower" "a blue flower" --frames 12 -o between/ --grid between.png
  velatura imagine "smiling cat" --model emoji -n 16 -o cats/"""

imagine = App(
    name="imagine",
    help="Make pictures from TEXT.",
    usage='Usage: velatura imagine "TEXT" -n COUNT -o DIR [options]',
    help_epilogue=_EXAMPLES,
)


def _option(field: str, *names: str, metavar: str = "VALUE") -> Parameter:
    """Declare a flag whose value `ImagineParams` reads."""
    declared = ImagineParams.model_fields[field]
    text = declared.description or ""
    note = "" if declared.default is None else f" [default: {declared.default}]"
    return Parameter(
        name=list(names) or [f"--{field}"],
        group=_OPTIONS,
        metavar=metavar,
        help=f"{text[:1].upper()}{text[1:]}.{note}",
        show_default=False,
        negative=(),
    )


def _switch(text: str, *names: str) -> Parameter:
    return Parameter(name=list(names) or None, group=_OUTPUT, negative=(), show_default=False, help=text)


@imagine.default
def _imagine(
    text: Annotated[str | None, Parameter(group=_IMAGES, help="What is to be seen, in English.")] = None,
    /,
    *,
    out: Annotated[
        str,
        Parameter(
            name=["--output", "-o"], group=_IMAGES, metavar="DIR", help="Folder of the pictures, made if need be."
        ),
    ],
    count: Annotated[str | None, _option("count", "--count", "-n", metavar="COUNT")] = None,
    seed: Annotated[str | None, _option("seed")] = None,
    style: Annotated[
        str | None,
        Parameter(group=_OPTIONS, metavar="IMAGE", help="Take background and pose from this picture."),
    ] = None,
    interpolate: Annotated[tuple[str, str] | None, _option("interpolate", metavar="TEXT")] = None,
    frames: Annotated[str | None, _option("frames")] = None,
    upscale: Annotated[str | None, _option("upscale")] = None,
    model: Annotated[
        str | None, Parameter(group=_OPTIONS, metavar="NAME|FILE", help=f"flowers, emoji, or a file; default: {MODEL}.")
    ] = None,
    grid: Annotated[
        str | None, Parameter(group=_OUTPUT, metavar="FILE", help="Write all pictures as one, side by side, too.")
    ] = None,
    overwrite: Annotated[bool, _switch("Replace outputs that exist; an input never is.")] = False,
    no_mark: Annotated[bool, _switch("Leave out the metadata note that a trained model made the pixels.")] = False,
    quiet: Annotated[bool, _switch("Print errors only.", "--quiet", "-q")] = False,
    json: Annotated[bool, _switch("Print the result as one JSON line on stdout.")] = False,
    device: Annotated[
        str, Parameter(group=_MACHINE, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps or xpu.")
    ] = "auto",
    threads: Annotated[
        int | None,
        Parameter(group=_MACHINE, validator=Number(gte=1), metavar="N", help="Default: all processors."),
    ] = None,
) -> int:
    """Make pictures and say what was written."""
    if not re.fullmatch(_DEVICES, device):
        raise InputError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1, mps or xpu")
    given: dict[str, Any] = {
        "count": count,
        "seed": seed,
        "interpolate": interpolate,
        "frames": frames,
        "upscale": upscale,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    params = parse_params(ImagineParams, asked)
    if params.interpolate is None and frames is not None:
        raise InputError("--frames belongs to --interpolate; -n says how many pictures there are")
    if params.interpolate is not None and count is not None:
        raise InputError("-n belongs to a text; --frames says how many pictures an interpolation has")
    folder = Path(out)
    if folder.suffix.lower() in SUFFIXES and not folder.is_dir():
        raise InputError(f"{out}: expected a folder; --grid FILE puts all pictures into one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{out}: is a file; expected a folder")
    if grid is not None:
        check_output(grid, inputs=[style] if style else [], overwrite=overwrite)
    start = time.perf_counter()
    hushed = warnings.catch_warnings(action="ignore" if quiet else None)
    with limit_threads(threads), hushed, progress_bar(quiet=quiet) as progress:
        made = Imagine.from_pretrained(model, device=device)(text, style=style, progress=progress, **asked)
        marked = {"overwrite": overwrite, "mark": not no_mark}
        written = made.save(folder, **marked)
        if grid is not None:
            written.append(made.save_grid(grid, **marked))
    seconds = time.perf_counter() - start
    height, width, _ = made.pictures[0].pixels.shape
    if json:
        print_json(
            output=out,
            files=[str(path) for path in written],
            count=len(made.pictures),
            width=width,
            height=height,
            seconds=round(seconds, 3),
            unknown=list(made.unknown),
            params=made.params.model_dump(mode="json"),
            made_by=made.made_by,
        )
    elif not quiet:
        beside = f"; {grid}" if grid else ""
        print(f"{out}: {len(made.pictures)} pictures, {width} x {height}, {seconds:.1f} s{beside}")
    return 0
