"""``velatura generate``: images from noise, so no image goes in and a folder comes out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from velatura.cli.common import RunOptions, flag, progress_bar
from velatura.cli.sheet import check_folder, given_folder, reading, report, subject, writing
from velatura.device import limit_threads
from velatura.errors import InputError
from velatura.image import check_output
from velatura.task import parse_params
from velatura.tasks.generate import Generate, Generated, GenerateParams

__all__ = ["generate"]

_FIELDS = GenerateParams.model_fields
_ANIMATION = ".webp"

_EXAMPLES = """\
Examples:
  velatura generate dcgan-faces -n 16 --grid faces.png
  velatura generate vae-faces -n 16 --seed 7 -o faces/ --grid faces.png
  velatura generate vae-faces --seed 7 --interpolate 0,3 --frames 60 -o between.webp
  velatura generate lapgan-scenes -n 8 --class sea --upscale 4 -o seas/
  velatura generate lapgan-scenes -n 8 --from photo.jpg -o draws/"""

generate = App(
    name="generate",
    help="Make images by MODEL, from noise.",
    usage="Usage: velatura generate MODEL -n COUNT -o DIR [options]",
    help_epilogue=_EXAMPLES,
)


@generate.default
def _generate(
    model: Annotated[str, subject(help=f"What makes them: {', '.join(Generate.models())}, or a file of one.")],
    /,
    *,
    out: Annotated[
        str | None,
        subject(
            name=["--output", "-o"],
            metavar="DIR",
            help="Folder of the images, made if need be; or a .webp: an animation of an interpolation.",
        ),
    ] = None,
    count: Annotated[str | None, flag(_FIELDS["count"], "--count", "-n", metavar="COUNT")] = None,
    seed: Annotated[str | None, flag(_FIELDS["seed"])] = None,
    truncation: Annotated[str | None, flag(_FIELDS["truncation"])] = None,
    interpolate: Annotated[str | None, flag(_FIELDS["interpolate"], metavar="A,B")] = None,
    frames: Annotated[str | None, flag(_FIELDS["frames"])] = None,
    class_name: Annotated[str | None, flag(_FIELDS["class_name"], "--class", "--class-name", metavar="NAME")] = None,
    upscale: Annotated[str | None, flag(_FIELDS["upscale"])] = None,
    coarse: Annotated[
        str | None, reading(name="--from", metavar="IMAGE", help="Draw all images on this one (LAPGAN).")
    ] = None,
    latents: Annotated[
        str | None, reading(metavar="FILE", help="What --save-latents wrote, instead of a seed.")
    ] = None,
    save_latents: Annotated[str | None, writing(help="Write what the images were made from (.safetensors).")] = None,
    grid: Annotated[str | None, writing(help="Write all images as one, side by side; without -o, that alone.")] = None,
    shared: Annotated[RunOptions, Parameter(name="*")] = RunOptions(),  # noqa: B008  it is frozen
) -> int:
    """Make images and say what was written."""
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
    folder = given_folder(out, grid)
    if folder is not None:
        _check_place(folder, params, overwrite=shared.overwrite)
    for path in (grid, save_latents):
        if path is not None and Path(path).exists() and not shared.overwrite:
            raise InputError(f"{path}: exists; --overwrite replaces it")
    if grid is not None:
        check_output(grid, inputs=[coarse] if coarse else [], overwrite=shared.overwrite)
    start = time.perf_counter()
    with limit_threads(shared.threads), progress_bar(quiet=shared.quiet) as progress:
        task = Generate.from_pretrained(model, device=shared.device)
        made = task(coarse=coarse, latents=latents, progress=progress, **asked)
        marked = {"overwrite": shared.overwrite, "mark": not shared.no_mark}
        written = [] if folder is None else _write(made, folder, marked)
        if grid is not None:
            written.append(made.save_grid(grid, **marked))
        if save_latents is not None:
            written.append(made.latents.save(save_latents, overwrite=shared.overwrite))
    seconds = time.perf_counter() - start
    options = made.params.model_dump(mode="json")
    report(made, out, written, seconds, shared, noun="images", beside=(grid, save_latents), params=options)
    return 0


def _check_place(out: Path, params: GenerateParams, *, overwrite: bool) -> None:
    """Refuse an output that cannot be, before a model is loaded."""
    if out.suffix.lower() == _ANIMATION and params.interpolate is not None:
        check_output(out, overwrite=overwrite)
    else:
        check_folder(out, "--grid FILE puts all images into one, --interpolate makes a .webp")


def _write(made: Generated, out: Path, marked: dict[str, bool]) -> list[Path]:
    """Write the images, or an animation of them."""
    if out.suffix.lower() == _ANIMATION and made.params.interpolate is not None:
        return [made.save_animation(out, **marked)]
    return made.save(out, **marked)
