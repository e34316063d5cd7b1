"""``velatura imagine``: pictures from words, so a text goes in and a folder comes out."""

from __future__ import annotations

import time
import warnings
from typing import Annotated, Any

from cyclopts import App, Parameter

from velatura.cli.common import RunOptions, flag, progress_bar
from velatura.cli.sheet import check_folder, given_folder, reading, report, subject, writing
from velatura.device import limit_threads
from velatura.errors import InputError
from velatura.image import check_output
from velatura.task import parse_params
from velatura.tasks.imagine import MODEL, Imagine, ImagineParams

__all__ = ["imagine"]

_FIELDS = ImagineParams.model_fields

_EXAMPLES = """\
Examples:
  velatura imagine "a red flower with a yellow centre" -n 8 --grid flowers.png
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


@imagine.default
def _imagine(
    text: Annotated[str | None, subject(help="What is to be seen, in English.")] = None,
    /,
    *,
    out: Annotated[
        str | None, subject(name=["--output", "-o"], metavar="DIR", help="Folder of the pictures, made if need be.")
    ] = None,
    count: Annotated[str | None, flag(_FIELDS["count"], "--count", "-n", metavar="COUNT")] = None,
    seed: Annotated[str | None, flag(_FIELDS["seed"])] = None,
    style: Annotated[str | None, reading(metavar="IMAGE", help="Take background and pose from this picture.")] = None,
    interpolate: Annotated[tuple[str, str] | None, flag(_FIELDS["interpolate"], metavar="TEXT")] = None,
    frames: Annotated[str | None, flag(_FIELDS["frames"])] = None,
    upscale: Annotated[str | None, flag(_FIELDS["upscale"])] = None,
    model: Annotated[
        str | None, reading(metavar="NAME|FILE", help=f"flowers, emoji, or a file; default: {MODEL}.")
    ] = None,
    grid: Annotated[
        str | None, writing(help="Write all pictures as one, side by side; without -o, that alone.")
    ] = None,
    shared: Annotated[RunOptions, Parameter(name="*")] = RunOptions(),  # noqa: B008  it is frozen
) -> int:
    """Make pictures and say what was written."""
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
    folder = given_folder(out, grid)
    if folder is not None:
        check_folder(folder, "--grid FILE puts all pictures into one")
    if grid is not None:
        check_output(grid, inputs=[style] if style else [], overwrite=shared.overwrite)
    start = time.perf_counter()
    hushed = warnings.catch_warnings(action="ignore" if shared.quiet else None)
    with limit_threads(shared.threads), hushed, progress_bar(quiet=shared.quiet) as progress:
        made = Imagine.from_pretrained(model, device=shared.device)(text, style=style, progress=progress, **asked)
        marked = {"overwrite": shared.overwrite, "mark": not shared.no_mark}
        written = [] if folder is None else made.save(folder, **marked)
        if grid is not None:
            written.append(made.save_grid(grid, **marked))
    seconds = time.perf_counter() - start
    more = {"unknown": list(made.unknown), "params": made.params.model_dump(mode="json")}
    report(made, out, written, seconds, shared, noun="pictures", beside=(grid,), **more)
    return 0
