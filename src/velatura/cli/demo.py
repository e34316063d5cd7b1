"""``velatura demo``: every application on the photographs that come with scikit-image."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter
from PIL import Image, ImageDraw, ImageFont, ImageOps

from velatura.errors import InputError

if TYPE_CHECKING:
    from velatura.samples import Scene, Shrunk
    from velatura.tasks.blend import Blend
    from velatura.tasks.upscale import Upscale

__all__ = ["contact_sheet", "demo"]

_INPUTS = ("source", "mask", "destination")
_METHODS = ("paste", "poisson", "gaussian-poisson", "gp-gan")
_BLENDED = (*_INPUTS, *_METHODS)
_GIVEN = ("small", "original", "evidence")

_PAPER, _INK = (24, 24, 27), (228, 228, 231)
_GAP = 8  # px around the pictures of a sheet


def demo(
    *,
    out: Annotated[
        Path, Parameter(name=["--output", "-o"], metavar="DIR", help="Where the pictures go; made if need be.")
    ] = Path("velatura-demo"),
    overwrite: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Replace the pictures of an earlier demo.")
    ] = False,
) -> None:
    """Run every application on free photographs and say what to try next. Offline, in seconds."""
    from velatura.catalog import cards
    from velatura.community import OURS
    from velatura.device import limit_threads
    from velatura.samples import SCENES, SHRUNK
    from velatura.tasks.blend import Blend
    from velatura.tasks.upscale import Upscale

    shipped = (card.name for card in cards() if card.task == "upscale" and card.architecture in OURS)
    upscalers = {name: Upscale(name) for name in ("bicubic", *shipped)}
    folders = {name: out / "blend" / name for name in SCENES} | {name: out / "upscale" / name for name in SHRUNK}
    _make_room({folders[name]: _BLENDED for name in SCENES}, overwrite)
    _make_room({folders[name]: (*_GIVEN, *upscalers) for name in SHRUNK}, overwrite)
    blend = Blend.from_pretrained()
    scenes = {name: make() for name, make in SCENES.items()}
    photographs = {name: make() for name, make in SHRUNK.items()}
    # On small pictures several threads only wait for each other.
    with limit_threads(1):
        for name, scene in scenes.items():
            _tell(partial(_blend, blend, scene, folders[name]), scene.title)
        for name, photograph in photographs.items():
            _tell(partial(_upscale, upscalers, photograph, folders[name]), photograph.title)
    print("\nBeside each sheet lie its pictures: what went in, and what was made of it. To repeat one:\n")
    for name, scene in scenes.items():
        print(f"  {shlex.join(_command(scene, folders[name], f'{name}.png'))}")
    model = Upscale.default_model if Upscale.default_model in upscalers else "bicubic"
    for name in photographs:
        words = ["velatura", "upscale", str(folders[name] / "small.png"), "--model", str(model), "--threads", "1"]
        print(f"  {shlex.join([*words, '-o', f'{name}.png'])}")
    print(
        f"\nOther methods: --method {', '.join(_METHODS[:-1])}; other models: velatura models list. "
        "Now with your own: velatura blend --help, velatura upscale --help"
    )


def _tell(work: Callable[[], Path], title: str) -> None:
    """Make a sheet, and say what is on it and what it took."""
    start = time.perf_counter()
    sheet = work()
    print(f"{sheet}: {title}, {time.perf_counter() - start:.1f} s")


def _make_room(folders: Mapping[Path, Iterable[str]], overwrite: bool) -> None:
    """Make the folders, unless a file of an earlier demo would be replaced."""
    for folder, names in folders.items():
        files = [folder / file for file in (*(f"{name}.png" for name in names), "sheet.jpg")]
        there = [file for file in files if file.exists()]
        if there and not overwrite:
            raise InputError(f"{there[0]} exists; name another folder with -o, or add --overwrite")
        folder.mkdir(parents=True, exist_ok=True)


def _upscale(upscalers: Mapping[str, Upscale], photograph: Shrunk, folder: Path) -> Path:
    """Write a shrunk photograph, enlarge it from file to file by every model, and put all on one sheet."""
    from velatura.image import save_image
    from velatura.task import SaveOptions

    files = {name: folder / f"{name}.png" for name in (*_GIVEN, *upscalers)}
    for name in ("small", "original"):
        save_image(getattr(photograph, name), files[name], overwrite=True)
    for name, upscale in upscalers.items():
        # The map of the usual model; of bicubic, until there is one.
        maps = {"evidence": files["evidence"]} if name in ("bicubic", upscale.default_model) else {}
        upscale.to_file(files["small"], out=files[name], save=SaveOptions(overwrite=True), maps=maps)
    rows = [{name: files[name] for name in _GIVEN}, {name: files[name] for name in upscalers}]
    return save_image(contact_sheet(rows), folder / "sheet.jpg", overwrite=True)


def _blend(blend: Blend, scene: Scene, folder: Path) -> Path:
    """Write what goes in, blend it from file to file as the command does, and put all on one sheet."""
    from velatura.image import save_image
    from velatura.task import SaveOptions

    for name in _INPUTS:
        save_image(getattr(scene, name), folder / f"{name}.png", overwrite=True)
    files = [folder / f"{name}.png" for name in ("source", "destination", "mask")]
    for method in _METHODS:
        blend.to_file(
            *files,
            out=folder / f"{method}.png",
            save=SaveOptions(overwrite=True),
            at=scene.at,
            scale=scene.scale,
            method=method,
        )
    rows = [{name: folder / f"{name}.png" for name in names} for names in (_INPUTS, _METHODS)]
    return save_image(contact_sheet(rows), folder / "sheet.jpg", overwrite=True)


def _command(scene: Scene, folder: Path, out: str) -> list[str]:
    """Give the words that make the picture of the default method once more, to the byte."""
    files = [str(folder / f"{name}.png") for name in ("source", "destination", "mask")]
    x, y = scene.at
    scale = [] if scene.scale == 1 else ["--scale", f"{scene.scale:g}"]
    return ["velatura", "blend", *files, "--at", f"{x},{y}", *scale, "--threads", "1", "-o", out]


def contact_sheet(rows: Sequence[Mapping[str, Path | np.ndarray]], *, width: int = 400, text: int = 18) -> Image.Image:
    """Put pictures side by side, each with its name under it.

    Parameters
    ----------
    rows : sequence of mappings
        Name -> file, or (H, W, 3) or (H, W) uint8. The last picture of the last row has the shape of all places.
    width : int
        Of a place, px; pictures fit into theirs.
    text : int
        Size of the names, px.

    Returns
    -------
    PIL.Image.Image
    """
    images = [
        {name: Image.fromarray(one) if isinstance(one, np.ndarray) else Image.open(one) for name, one in row.items()}
        for row in rows
    ]
    shape = list(images[-1].values())[-1]
    height = round(width * shape.height / shape.width)
    across, down = width + _GAP, height + text + 2 * _GAP
    sheet = Image.new("RGB", (max(map(len, images)) * across + _GAP, len(images) * down + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(text)
    for index, row in enumerate(images):
        left, top = (sheet.width - len(row) * across + _GAP) // 2, _GAP + index * down
        for name, image in row.items():
            small = ImageOps.contain(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))
            draw.text((left + width / 2, top + height + 2), name, fill=_INK, font=font, anchor="ma")
            left += across
    return sheet
