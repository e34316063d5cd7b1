"""``velatura doctor``: what this machine can do, and what is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter

from velatura import __version__, catalog
from velatura.cli.common import print_json
from velatura.cli.tables import new_table, print_table

__all__ = ["doctor"]

# Extra -> the module whose presence tells that it was installed.
_EXTRAS = {
    "train": "lightning",
    "tensorboard": "tensorboard",
    "heic": "pillow_heif",
    "medical": "nibabel",
    "studio": "fastapi",
    "ray": "ray",
    "community": "spandrel",
}
_LEAST_DISK_MIB = 256  # the pages of a streamed 100-megapixel image, and room to breathe


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``absent`` is an option that is not there, ``broken`` makes the exit code 1."""

    what: str
    state: Literal["ok", "absent", "broken"]
    detail: str


def doctor(
    *, json: Annotated[bool, Parameter(negative=(), help="Print one JSON line on stdout instead.")] = False
) -> int:
    """Say what this machine can do: versions, device, memory, image formats, models, disk. Exit code 1 if broken."""
    findings = list(examine())
    broken = sum(finding.state == "broken" for finding in findings)
    if json:
        print_json(findings=[asdict(finding) for finding in findings], broken=broken)
        return 1 if broken else 0
    table = new_table("", "", "")
    table.show_header = False
    style = {"ok": "green", "absent": "dim", "broken": "bold red"}
    for finding in findings:
        table.add_row(finding.what, finding.state, finding.detail, style=style[finding.state])
    print_table(table)
    print(f"{broken} broken" if broken else "All that is needed is here.")
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """Look at everything; nothing that is found broken stops the look at the rest."""
    yield Finding("velatura", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for library in ("numpy", "pillow", "pydantic", "safetensors", "scikit-image", "scipy", "tifffile"):
        yield _attempt(library, lambda library=library: importlib.metadata.version(library))
    yield _attempt("torch", _torch)
    yield _attempt("device", _device)
    yield _attempt("memory", _memory)
    with tempfile.TemporaryDirectory(prefix="velatura-") as folder:
        for name in ("png", "jpeg", "webp", "tiff", "avif", "bmp", "gif", "png 16 bit", "tiff 16 bit"):
            yield _attempt(name, lambda name=name: _round_trip(Path(folder), name))
    yield _attempt("models", _models)
    yield _attempt("temporary folder", _disk)
    yield Finding("network", "ok", "forbidden (VELATURA_OFFLINE)" if catalog.offline() else "nothing uses it")
    for extra, module in _EXTRAS.items():
        there = find_spec(module) is not None
        yield Finding(f"extra {extra}", "ok" if there else "absent", module if there else _advice(extra))


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except Exception as error:  # a broken library may raise anything when it is touched
        return Finding(what, "broken", " ".join(f"{type(error).__name__}: {error}".split()))


def _advice(extra: str) -> str:
    return f"pip install 'velatura[{extra}]'"


def _torch() -> str:
    import torch

    # Not the version alone: an installation whose libraries do not fit computes nothing.
    if float(torch.ones(3, 3).mm(torch.ones(3, 3)).sum()) != 27:
        raise RuntimeError("computes wrong sums; install torch again")
    return torch.__version__


def _device() -> str:
    from velatura.device import half_precision, resolve_device, threads

    device = resolve_device("auto")
    half = half_precision(device)
    precision = f"half precision {str(half).removeprefix('torch.')}" if half else "float32 (no native bfloat16)"
    return f"{device}, {precision}, {threads()} threads"


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return "unknown on this system"
    page = os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.sysconf('SC_PHYS_PAGES') * page:.1f} GiB, {os.sysconf('SC_AVPHYS_PAGES') * page:.1f} GiB unused"


def _round_trip(folder: Path, name: str) -> str:
    """Write a small image in a format and read it back through the package's own door."""
    from velatura.image import open_image, save_image

    kind, _, deep = name.partition(" ")
    ramp = np.linspace(0, 1, 32 * 32 * 3).reshape(32, 32, 3)
    pixels = (ramp * 65535).astype(np.uint16) if deep else (ramp * 255).astype(np.uint8)
    path = folder / f"{name.replace(' ', '-')}.{kind}"
    with warnings.catch_warnings(action="ignore"):  # that GIF has 256 colours
        save_image(open_image(pixels), path)
    read = open_image(path)
    if read.pixels.dtype != pixels.dtype or read.pixels.shape != pixels.shape:
        raise RuntimeError(f"came back as {read.pixels.dtype} {read.pixels.shape}")
    if np.abs(read.pixels / np.iinfo(pixels.dtype).max - ramp).mean() > 0.1:
        raise RuntimeError("came back with other colours")
    return "read and written"


def _models() -> str:
    problems = catalog.verify()
    if problems:
        raise RuntimeError("; ".join(problems))
    cards = catalog.cards()
    return f"{len(cards)} whole, {sum(card.bytes for card in cards) / 2**20:.1f} MiB"


def _disk() -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free >> 20
    if free < _LEAST_DISK_MIB:
        raise RuntimeError(f"{folder}: {free} MiB free, less than {_LEAST_DISK_MIB}; set TMPDIR to another disk")
    return f"{folder}: {free:,} MiB free"
