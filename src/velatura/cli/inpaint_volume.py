"""``velatura inpaint`` for NIfTI volumes."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from velatura import storage
from velatura.cli.common import ImageOptions, print_json, progress_bar
from velatura.device import limit_threads
from velatura.engines import WorkSpec
from velatura.errors import InputError
from velatura.image import SUFFIXES
from velatura.medical import MODEL, NOTICE, fill_file, is_volume

__all__ = ["inpaint_volume"]

# Options of images that a volume has no use for.
_PARAMS = ("box", "mask_color", "disagreement", "candidates")
_SHARED = ("format", "quality", "resume", "jobs", "engine", "address", "memory", "no_mark")


def inpaint_volume(work: WorkSpec, paths: Sequence[str | None], out: Path, shared: ImageOptions) -> int | None:
    """Fill the holes of a volume, and say what was written and what it is worth; None if the input is no volume."""
    source, mask = paths
    if source is None:
        return None
    if not is_volume(source):
        _refuse_folder(source)
        return None
    if mask is None or not is_volume(mask):
        raise InputError(f"{source} is a volume; give a volume of its shape as --mask, over 0 = fill")
    usual, plain = work.kind.Params().model_dump(mode="json"), ImageOptions()
    given = [name for name in _PARAMS if work.params[name] != usual[name]]
    given += [name for name in _SHARED if getattr(shared, name) != getattr(plain, name)]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} is for images; {source} is a volume")
    if out.is_dir():
        name = Path(source).name
        out /= f"{name[: name.lower().rindex('.nii')]}-{work.kind.name}.nii.gz"
    # What `auto` looks for are faces.
    model = MODEL if work.model in (None, "auto") else work.model
    start = time.perf_counter()
    if not shared.quiet:
        print(f"velatura: note: {NOTICE}", file=sys.stderr)
    with (
        limit_threads(work.threads),
        # The note above says for every volume what the task would say of brains.
        warnings.catch_warnings(action="ignore", category=UserWarning),
        progress_bar(quiet=shared.quiet) as progress,
    ):
        filled = fill_file(
            source,
            mask,
            out,
            model=model,
            overwrite=shared.overwrite,
            device=work.device,
            max_megavoxels=work.max_megapixels,
            progress=progress,
            **work.params,
        )
    seconds = time.perf_counter() - start
    if shared.json:
        print_json(
            output=str(out),
            shape=filled.volume.shape,
            slices=filled.slices,
            voxels=filled.voxels,
            seconds=round(seconds, 3),
            params=work.params,
            made_by=None if model == "texture" else Path(model).stem,
            notice=NOTICE,
        )
    elif not shared.quiet:
        shape = " x ".join(map(str, filled.volume.shape))
        print(f"{out}: {shape}, {filled.voxels} voxels of {filled.slices} slices filled, {seconds:.1f} s")
    return 0


def _refuse_folder(path: str) -> None:
    """Refuse a folder of volumes; one that holds images, too, is a batch of these."""
    folder = storage.place(path)
    if storage.kind_of(folder) != "folder":
        return
    volume = ""
    for file in storage.files(folder):
        if PurePosixPath(file.path).suffix.lower() in SUFFIXES:
            return
        volume = file.path if is_volume(file.path) else volume
    if volume:
        raise InputError(f"{path}: holds no images but volumes, such as {volume}; volumes go one at a time: name one")
