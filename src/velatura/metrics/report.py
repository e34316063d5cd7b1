"""Tables of measured figures: for the terminal, for the docs, and as JSON that says how they were made.

Every figure is an `Interval`: the mean over images with its 95 % bootstrap interval. A `Report` names the protocol,
the images and the unit of every column; `write_json` adds commit, versions and hardware.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from velatura.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Column",
    "Interval",
    "Report",
    "bootstrap",
    "check_json",
    "environment",
    "markdown",
    "read_json",
    "table",
    "to_json",
    "write_json",
]

# What a figure may depend on. Those that are not installed are left out.
_LIBRARIES = ("numpy", "pillow", "scikit-image", "scipy", "torch", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = 2000, groups: ArrayLike | None = None) -> Interval:
    """Mean of one figure per image, with the 95 % percentile interval of a bootstrap over the images.

    Parameters
    ----------
    values : array_like, (n,)
        One figure per image, in a fixed order.
    seed : int
        The same values and seed give the same interval.
    draws : int
        How many times n images are drawn with replacement.
    groups : array_like, (n,), optional
        Numbers of what images have in common: these are drawn, each with all its images, because images that have
        something in common do not say as much as others.

    Raises
    ------
    ValueError
        There is no image.

    Examples
    --------
    >>> bootstrap([2.0, 2.0, 2.0])
    Interval(value=2.0, low=2.0, high=2.0)
    >>> twice = bootstrap([0.0, 0.0, 1.0, 1.0], groups=[0, 0, 1, 1])
    >>> twice == bootstrap([0.0, 1.0])
    True
    """
    figures = np.asarray(values, np.float64)
    if figures.ndim != 1 or not len(figures):
        raise ValueError(f"got values of shape {figures.shape}; expected one figure per image")
    random = np.random.default_rng(seed)
    kinds = np.arange(len(figures)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes, count = np.bincount(kinds, figures), np.bincount(kinds), kinds.max() + 1
    chosen = (random.integers(count, size=count) for _ in range(draws))
    means = [sums[drawn].sum() / sizes[drawn].sum() for drawn in chosen]
    if not np.isfinite(means).all():  # an infinite PSNR of equal images: percentiles would be nan
        low, high = np.min(means), np.max(means)
    else:
        low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(figures.mean()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a report.

    Attributes
    ----------
    name : str
        What is measured, in plain words.
    unit : str
    better : {"lower", "higher"}
    digits : int
        After the point, in tables.
    """

    name: str
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    digits: int = 2

    @property
    def title(self) -> str:
        """Name, unit and direction, as a table's head prints it."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.name}{unit} {'↓' if self.better == 'lower' else '↑'}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what and how.

    Attributes
    ----------
    title : str
    protocol : str
        How the figures were measured, in a sentence or two.
    data : str
        The images, by name; the same for all rows.
    count : int
        How many of `things`.
    columns : sequence of Column
    rows : mapping
        Method -> one `Interval` per column.
    model : str
        The row of the model that is judged, empty if none is. Where a row is a method on images of one kind, named
        ``method, kind``, what stands before the comma: then it is judged on every kind.
    baseline : str
        The row it has to beat, empty if there is none.
    notes : sequence of str
        What a reader must know beside the figures; losses too.
    things : str
        What one figure is of: images, pairs...
    """

    title: str
    protocol: str
    data: str
    count: int
    columns: Sequence[Column]
    rows: Mapping[str, Sequence[Interval]]
    model: str = ""
    baseline: str = ""
    notes: Sequence[str] = ()
    things: str = "images"

    def __post_init__(self) -> None:
        for name, row in self.rows.items():
            if len(row) != len(self.columns):
                raise ValueError(f"row {name!r} has {len(row)} figures; expected {len(self.columns)}")
        for name in (self.model, self.baseline):
            if name and not any(_is_of(name, row) for row in self.rows):
                raise ValueError(f"no row {name!r}; got {', '.join(self.rows)}")

    @property
    def judged(self) -> list[str]:
        """Names of the model's rows."""
        return [self.model] if self.model in self.rows else [name for name in self.rows if _is_of(self.model, name)]

    def scores(self) -> list[dict[str, Any]]:
        """Give the model's finite figures, beside any baseline's, as a card of the catalog holds them."""
        if not self.model:
            return []
        found = []
        for kind in (name.removeprefix(self.model) for name in self.judged):
            ours = self.rows[self.model + kind]
            theirs = self.rows[self.baseline + kind] if self.baseline else ours
            for column, figure, other in zip(self.columns, ours, theirs, strict=True):
                if not all(math.isfinite(number) for each in (figure, other) for number in astuple(each)):
                    continue
                score: dict[str, Any] = {"metric": column.name + kind, "unit": column.unit, "better": column.better}
                score |= {key: _short(number) for key, number in asdict(figure).items()}
                if self.baseline:
                    score["baseline"] = self.baseline
                    score |= {f"baseline_{key}": _short(number) for key, number in asdict(other).items()}
                found.append(score | {"count": self.count})
        return found


def table(report: Report) -> Table:
    """Lay a report out for the terminal."""
    from rich import box
    from rich.table import Table

    caption = "\n".join([_made_of(report), *report.notes])
    made = Table(title=report.title, caption=caption, caption_justify="left", box=box.SIMPLE)
    made.add_column("")
    for column in report.columns:
        made.add_column(column.title, justify="right")
    for name, row in report.rows.items():
        cells = [_cell(figure, column) for figure, column in zip(row, report.columns, strict=True)]
        made.add_row(name, *cells, style="bold" if name in report.judged else None)
    return made


def markdown(report: Report) -> str:
    """Lay a report out for the docs.

    Examples
    --------
    >>> row = [Interval(30.5, 30.1, 30.9)]
    >>> print(markdown(Report("Set5", "y4.", "Set5", 5, [Column("PSNR", "dB", "higher")], {"bicubic": row})))
    | | PSNR (dB) ↑ |
    |---|---:|
    | bicubic | 30.50 [30.10, 30.90] |
    <BLANKLINE>
    y4. 5 images of Set5; 95 % intervals.
    """
    lines = [
        "| | " + " | ".join(column.title for column in report.columns) + " |",
        "|---|" + "---:|" * len(report.columns),
    ]
    for name, row in report.rows.items():
        cells = [_cell(figure, column) for figure, column in zip(row, report.columns, strict=True)]
        mark = "**" if name in report.judged else ""
        lines.append(f"| {mark}{name}{mark} | " + " | ".join(cells) + " |")
    lines += ["", _made_of(report)]
    lines += [f"\n{note}" for note in report.notes]
    return "\n".join(lines)


def to_json(report: Report) -> dict[str, Any]:
    """Turn a report into what JSON can hold, with commit, versions and hardware.

    Returns
    -------
    dict
        ``title, protocol, data, count, things, model, baseline, columns, rows, scores, notes, environment``; a
        figure that is not finite becomes a string, because JSON has no infinity.
    """
    columns = [
        {"name": column.name, "unit": column.unit, "better": column.better, "digits": column.digits}
        for column in report.columns
    ]
    rows = {
        name: [{"value": _plain(f.value), "low": _plain(f.low), "high": _plain(f.high)} for f in row]
        for name, row in report.rows.items()
    }
    return {
        "title": report.title,
        "protocol": report.protocol,
        "data": report.data,
        "count": report.count,
        "things": report.things,
        "model": report.model,
        "baseline": report.baseline,
        "columns": columns,
        "rows": rows,
        "scores": report.scores(),
        "notes": list(report.notes),
        "environment": environment(),
    }


def read_json(table: Mapping[str, Any]) -> Report:
    """Turn what `to_json` made back into a report.

    Examples
    --------
    >>> row = [Interval(float("inf"), 30.0, float("inf"))]
    >>> report = Report("Set5", "y4.", "Set5", 5, [Column("PSNR", "dB", "higher")], {"bicubic": row})
    >>> read_json(to_json(report)).rows == report.rows
    True
    """
    rows = {
        name: [Interval(*(float(figure[key]) for key in ("value", "low", "high"))) for figure in row]
        for name, row in table["rows"].items()
    }
    plain = {key: table[key] for key in ("title", "protocol", "data", "count", "things", "model", "baseline", "notes")}
    return Report(columns=[Column(**column) for column in table["columns"]], rows=rows, **plain)


def check_json(path: str | Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """Refuse a file that `write_json` must not write, before anything is measured.

    Parameters
    ----------
    path : str or path
    overwrite : bool
        Replace an existing file.
    inputs : iterable of Path
        What is read: never replaced.

    Raises
    ------
    InputError
        The file exists and ``overwrite`` is False, or it is an input.
    """
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise InputError(f"{path}: exists; name another file, or add --overwrite")
        if any(path.samefile(one) for one in inputs if one.exists()):
            raise InputError(f"{path}: is read by this work and never written onto; name another file")
    return path


def write_json(report: Report, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write `to_json` of a report; the file appears whole or not at all.

    Raises
    ------
    InputError
        The file exists and ``overwrite`` is False, or its folder is not there or cannot be written.
    """
    path = check_json(path, overwrite=overwrite)
    text = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); name a file in a folder that exists") from None
    return path


def environment() -> dict[str, Any]:
    """Say where figures come from: commit, versions, hardware.

    Returns
    -------
    dict
        ``commit`` (see `commit`), ``python``, ``versions``, ``system``, ``processor``, ``cores`` (that this process may
        use), ``threads`` (of torch, where it is loaded), ``memory_gib``, ``accelerator``.
    """
    torch = sys.modules.get("torch")
    has_cuda = torch is not None and torch.cuda.is_available()
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": _versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "memory_gib": _memory_gib(),
        "accelerator": torch.cuda.get_device_name() if torch is not None and has_cuda else None,
    }


@functools.cache
def commit() -> str:
    """Name the commit of velatura's own checkout that this package runs from.

    Returns
    -------
    str
        With ``-dirty`` behind it when tracked files under ``src`` had changed; ``"unknown"`` when the package is
        installed elsewhere, be it inside another repository.
    """
    return _commit_of(Path(__file__).resolve().parents[3])


def _commit_of(root: Path) -> str:
    try:
        with (root / "pyproject.toml").open("rb") as file:
            is_own = tomllib.load(file)["project"]["name"] == "velatura"
        if not is_own or not (root / ".git").exists():
            return "unknown"
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src")
        return _git(root, "rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, KeyError, ValueError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    # Without the locks: another git may be at work in the same checkout.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _made_of(report: Report) -> str:
    return f"{report.protocol} {report.count} {report.things} of {report.data}; 95 % intervals."


def _is_of(method: str, row: str) -> bool:
    """Tell whether a row is a method's, on all images or on those of one kind."""
    return bool(method) and (row == method or row.startswith(f"{method}, "))


def _cell(figure: Interval, column: Column) -> str:
    value, low, high = (f"{number:.{column.digits}f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def _short(number: float) -> float:
    """Round to six digits: more would be noise in the catalog."""
    return float(f"{number:.6g}")


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _versions() -> dict[str, str]:
    versions = {}
    for library in ("velatura", *_LIBRARIES):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    """Name the processor; Linux tells it only in a file."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
