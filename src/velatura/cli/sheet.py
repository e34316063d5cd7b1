"""What the commands share that make several pictures from no image: a folder, a sheet of them, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cyclopts import Group, Parameter

from velatura.cli.common import RunOptions, print_json
from velatura.errors import InputError
from velatura.image import SUFFIXES, Sheet

__all__ = ["check_folder", "given_folder", "reading", "report", "subject", "writing"]

#: Declare what stands first, an option that names a file to read, and one that names a file to write.
subject = partial(Parameter, group=Group("Images", sort_key=1))
reading = partial(Parameter, group=Group("Options", sort_key=2))
writing = partial(Parameter, group=Group("Output", sort_key=3), metavar="FILE")


def given_folder(out: str | None, grid: str | None) -> Path | None:
    """Give the folder that was asked for, or None where the sheet of all pictures is enough.

    Raises
    ------
    InputError
        Neither is given: nothing would be written.
    """
    if out is None and grid is None:
        raise InputError("nowhere to write: -o DIR for a file each, --grid FILE for all on one sheet, or both")
    return None if out is None else Path(out)


def check_folder(out: Path, advice: str) -> None:
    """Refuse what cannot be a folder of pictures, before a model is loaded.

    Raises
    ------
    InputError
        It is a file, or is called like one; then the message ends in ``advice``.
    """
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise InputError(f"{out}: expected a folder; {advice}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder")


def report(
    made: Sheet,
    out: str | None,
    written: Sequence[Path],
    seconds: float,
    shared: RunOptions,
    *,
    noun: str,
    beside: Iterable[str | None] = (),
    **more: Any,
) -> None:
    """Say what was written: a line, a JSON object, or nothing.

    Parameters
    ----------
    made : Sheet
    out : str or None
        As it was given; without it the first of ``beside`` is what was asked for.
    written : sequence of Path
        All files.
    seconds : float
    shared : RunOptions
    noun : str
        What the pictures are called.
    beside : iterable of str or None
        Files beside the pictures, for the line.
    **more
        What the JSON object has beside the usual.
    """
    size = made.pictures[0]
    place, *others = [path for path in (out, *beside) if path]
    if shared.json:
        print_json(
            output=place,
            files=[str(path) for path in written],
            count=len(made.pictures),
            width=size.width,
            height=size.height,
            seconds=round(seconds, 3),
            **more,
            made_by=made.made_by,
        )
    elif not shared.quiet:
        files = "".join(f"; {path}" for path in others)
        print(f"{place}: {len(made.pictures)} {noun}, {size.width} x {size.height}, {seconds:.1f} s{files}")
