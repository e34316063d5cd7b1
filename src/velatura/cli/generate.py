"""``velatura generate``: images from noise, so no image goes in and a folder comes out."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from velatura.cli.common import print_json, progress_bar
from velatura.device import limit_threads
from velatura.errors import InputError
from velatura.image import SUFFIXES, check_output
from velatura.task import parse_params
from velatura.tasks.generate import Generate, Generated, GenerateParams, Latents

__all__ = ["generate"]

_IMAGES = Group("Images", sort_key=1)
_OPTIONS = Group("Options", sort_key=2)
_OUTPUT = Group("Output", sort_key=3)
_MACHINE = Group("Machine", sort_key=4)

_DEVICES = r"auto|cpu|mps|(cuda|xpu)(:\d+)?"
_ANIMATION = ".webp"

_EXAMPLES = """\
Examples:
  velatura generate vae-faces -n 16 --seed 7 -o faces/ --grid faces.png
  velatura generate vae-faces --seed 7 --interpolate 0,3 --frames 60 -o between.webp
  velatura generate lapgan-scenes.safetensors -n 8 --class sea --upscale 4 -o seas/
  velatura generate lapgan-scenes.safetensors -n 8 --from photo.jpg -o draws/"""

generate = App(
    name="generate",
    help="Make images by MODEL, from noise.",
    usage="Usage: velatura generate MODEL -n COUNT -o DIR [options]",
    help_epilogue=_EXAMPLES,
)


def _help(field: str) -> str:
    """Give the help of an option, as its declaration has it."""
    text = GenerateParams.model_fields[field].description or ""
    return f"{text[:1].upper()}{text[1:]}."


def _option(field: str, *names: str, metavar: str = "VALUE") -> Parameter:
    """Declare a flag whose value `GenerateParams` reads."""
    usual = GenerateParams.model_fields[field].default
    note = "" if usual is None else f" [default: {usual}]"
    words = list(names) or [f"--{field}"]
    return Parameter(
        name=words, group=_OPTIONS, metavar=metavar, help=_help(field) + note, show_default=False, negative=()
    )


@generate.default
def _generate(
    model: Annotated[
        str, Parameter(group=_IMAGES, help=f"What makes them: {', '.join(Generate.models())}, or a file of one.")
    ],
    /,
    *,
    out: Annotated[
        str,
        Parameter(
            name=["--output", "-o"],
            group=_IMAGES,
            metavar="DIR",
            help="Folder of the images, made if need be; or a .webp: an animation of an interpolation.",
        ),
    ],
    count: Annotated[str | None, _option("count", "--count", "-n", metavar="COUNT")] = None,
    seed: Annotated[str | None, _option("seed")] = None,
    truncation: Annotated[str | None, _option("truncation")] = None,
    interpolate: Annotated[str | None, _option("interpolate", metavar="A,B")] = None,
    frames: Annotated[str | None, _option("frames")] = None,
    class_name: Annotated[str | None, _option("class_name", "--class", "--class-name", metavar="NAME")] = None,
    upscale: Annotated[str | None, _option("upscale")] = None,
    coarse: Annotated[
        str | None,
        Parameter(name="--from", group=_OPTIONS, metavar="IMAGE", help="Draw all images on this one (LAPGAN)."),
    ] = None,
    latents: Annotated[
        str | None,
        Parameter(group=_OPTIONS, metavar="FILE", help="What --save-latents wrote, instead of a seed."),
    ] = None,
    save_latents: Annotated[
        str | None,
        Parameter(group=_OUTPUT, metavar="FILE", help="Write what the images were made from (.safetensors)."),
    ] = None,
    grid: Annotated[
        str | None, Parameter(group=_OUTPUT, metavar="FILE", help="Write all images as one, side by side, too.")
    ] = None,
    overwrite: Annotated[
        bool, Parameter(group=_OUTPUT, negative=(), show_default=False, help="Replace outputs that exist.")
    ] = False,
    no_mark: Annotated[
        bool,
        Parameter(
            group=_OUTPUT,
            negative=(),
            show_default=False,
            help="Leave out the metadata note that a trained model made the pixels.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        Parameter(name=["--quiet", "-q"], group=_OUTPUT, negative=(), show_default=False, help="Print errors only."),
    ] = False,
    json: Annotated[
        bool,
        Parameter(group=_OUTPUT, negative=(), show_default=False, help="Print the result as one JSON line on stdout."),
    ] = False,
    device: Annotated[
        str, Parameter(group=_MACHINE, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps or xpu.")
    ] = "auto",
    threads: Annotated[
        int | None,
        Parameter(group=_MACHINE, validator=Number(gte=1), metavar="N", help="Default: all processors."),
    ] = None,
) -> int:
    """Make images and say what was written."""
    if not re.fullmatch(_DEVICES, device):
        raise InputError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1, mps or xpu")
    given: dict[str, Any] = {
        "count": count,
        "seed": seed,
        "truncation": truncation,
        "interpolate": interpolate,
        "frames": frames,
        "class_name": class_name,
        "upscale": upscale,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    params = parse_params(GenerateParams, asked)
    if params.interpolate is None and frames is not None:
        raise InputError("--frames belongs to --interpolate A,B; -n says how many images there are")
    _check_place(Path(out), params, overwrite=overwrite)
    for path in (grid, save_latents):
        if path is not None and Path(path).exists() and not overwrite:
            raise InputError(f"{path}: exists; --overwrite replaces it")
    if grid is not None:
        check_output(grid, inputs=[coarse] if coarse else [], overwrite=overwrite)
    start = time.perf_counter()
    with limit_threads(threads), progress_bar(quiet=quiet) as progress:
        task = Generate.from_pretrained(model, device=device)
        source = None if latents is None else Latents.load(latents)
        made = task(coarse=coarse, latents=source, progress=progress, **asked)
        marked = {"overwrite": overwrite, "mark": not no_mark}
        written = _write(made, Path(out), marked)
        if grid is not None:
            written.append(made.save_grid(grid, **marked))
        if save_latents is not None:
            written.append(made.latents.save(save_latents, overwrite=overwrite))
    seconds = time.perf_counter() - start
    size = made.pictures[0]
    if json:
        print_json(
            output=out,
            files=[str(path) for path in written],
            count=len(made.pictures),
            width=size.width,
            height=size.height,
            seconds=round(seconds, 3),
            params=made.params.model_dump(mode="json"),
            made_by=made.made_by,
        )
    elif not quiet:
        beside = "".join(f"; {path}" for path in (grid, save_latents) if path)
        print(f"{out}: {len(made.pictures)} images, {size.width} x {size.height}, {seconds:.1f} s{beside}")
    return 0


def _check_place(out: Path, params: GenerateParams, *, overwrite: bool) -> None:
    """Refuse an output that cannot be, before a model is loaded."""
    suffix = out.suffix.lower()
    if suffix == _ANIMATION and params.interpolate is not None:
        check_output(out, overwrite=overwrite)
    elif suffix in SUFFIXES and not out.is_dir():
        raise InputError(f"{out}: expected a folder; --grid FILE puts all images into one, --interpolate makes a .webp")
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder")


def _write(made: Generated, out: Path, marked: dict[str, bool]) -> list[Path]:
    """Write the images, or an animation of them."""
    if out.suffix.lower() == _ANIMATION and made.params.interpolate is not None:
        return [made.save_animation(out, **marked)]
    return made.save(out, **marked)
