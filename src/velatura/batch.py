"""Folders: a folder in, a folder out, one image at a time.

`run_batch` lists the images, pairs the second inputs by name, gives the jobs to an engine (`velatura.engines`) and
keeps ``manifest.jsonl`` in the output folder: a header line with everything that decides the bytes, then one line
per finished image. A batch that was interrupted, even by ``kill -9``, goes on where it was: a line is written, and
synced, only after its image is in place, and images never share state, so that the bytes are those of an unbroken
run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from velatura import __version__
from velatura.engines import Engine, Job, LocalEngine, Outcome, WorkSpec, file_sha256
from velatura.errors import InputError, MachineError
from velatura.image import SUFFIXES
from velatura.task import Progress, Task, no_progress

__all__ = [
    "Engine",
    "Job",
    "LocalEngine",
    "Outcome",
    "Report",
    "WorkSpec",
    "begun_with",
    "output_suffix",
    "plan",
    "run_batch",
]

MANIFEST = "manifest.jsonl"

READ_ONLY = frozenset([".heic", ".heif"])  # the results become PNG
FORMAT_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}  # the other formats are called like their suffix

# --- which images, and where to --------------------------------------------------------------------------------------


def plan(
    kind: type[Task],
    inputs: Sequence[str | Path | None],
    out: str | Path,
    *,
    format: str | None = None,
    beside: Iterable[str | Path] = (),
) -> tuple[list[Job], list[Outcome]]:
    """Pair the inputs and name the outputs.

    The leading input's folder decides the list, or the first folder if the leading input is a file: its images, with
    those of its folders, sorted, hidden ones and the output folders left out. An input that is a file serves all
    images; of one that is a folder each image takes the file with the same path and stem, or else the one that has the
    image's name with a suffix more: so a batch calls what it makes beside its results.

    Parameters
    ----------
    kind : type of Task
    inputs : sequence of path or None
        In the order of ``kind.inputs``; at least one is a folder, trailing optional ones may be left out.
    out : path
        The output folder. Outputs keep the relative folder and the stem; the suffix is that of ``format``, else
        that of the leading input (PNG for HEIC, which is only read).
    format : str, optional
    beside : iterable of path, optional
        Other folders that the work writes into.

    Returns
    -------
    jobs : list of Job
    unpaired : list of Outcome
        Images that have no partner, as failures.

    Raises
    ------
    InputError
        No images, a missing file, two files of one stem to choose from, two outputs of one name, or an output that
        is an image of the inputs.
    """
    out, written = Path(out), {Path(folder).resolve() for folder in (out, *beside)}
    given = (*inputs, *(None for _ in range(len(kind.inputs) - len(inputs))))
    paths = [None if value is None else Path(value) for value in given]
    for folder in beside:
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"{folder}: is a file; expected a folder for the pictures beside the outputs of a folder")
    for path in paths:
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path is not None and path.is_dir() and path.resolve() in written:
            raise InputError(f"{path}: is an input folder; expected another one for the outputs")
    leading = next(index for index, spec in enumerate(kind.inputs) if spec.leading)
    folders = [index for index, path in enumerate(paths) if path is not None and path.is_dir()]
    if not folders:
        raise InputError("no input is a folder; a batch needs one")
    driver = leading if leading in folders else folders[0]
    listed = {index: _images(_given(paths[index]), written) for index in folders}
    if not listed[driver]:
        raise InputError(f"{paths[driver]}: holds no images; known suffixes are {', '.join(sorted(SUFFIXES))}")
    partners = {index: _by_stem(listed[index]) for index in folders if index != driver}

    jobs: list[Job] = []
    unpaired: list[Outcome] = []
    made: dict[PurePosixPath, str] = {}
    for image in listed[driver]:
        chosen: list[Path | None] = []
        missing = ""
        for index, path in enumerate(paths):
            if path is None or index not in folders:
                chosen.append(path)
            elif index == driver:
                chosen.append(path / image)
            else:
                found = partners[index].get(image.with_suffix(""), []) or partners[index].get(image, [])
                if len(found) > 1:
                    names = " and ".join(str(name) for name in found[:2])
                    raise InputError(f"{path}: holds {names} for {image}; expected one {kind.inputs[index].name}")
                if not found:
                    missing = f"no {kind.inputs[index].name} {image.with_suffix('')}.* in {path}"
                chosen.append(path / found[0] if found else None)
        target = image.with_suffix(output_suffix(chosen[leading] or image, format))
        if target in made:
            raise InputError(f"{made[target]} and {image} would both become {target}; rename one of them")
        made[target] = str(image)
        job = Job(str(image), tuple(None if one is None else str(one) for one in chosen), str(out / target))
        if missing:
            unpaired.append(Outcome(job, missing))
        else:
            jobs.append(job)
    files = [_given(path) / image for index, path in enumerate(paths) for image in listed.get(index, [])]
    _refuse_inputs_as_outputs(jobs, [*files, *(path for path in paths if path is not None and path.is_file())])
    return jobs, unpaired


def _refuse_inputs_as_outputs(jobs: Iterable[Job], inputs: Iterable[Path]) -> None:
    """Keep every input, those of other jobs too: one that was replaced would be read by the next job."""
    read = {_identity(path): path for path in inputs}
    read.pop(None, None)
    for job in jobs:
        if (found := read.get(_identity(Path(job.output)))) is not None:
            raise InputError(f"{job.output}: is the input {found} and is never written onto; choose another folder")


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell a file from others by more than its name, which a link or the case of letters changes."""
    try:
        found = path.stat()
    except OSError:  # not there: nothing can be lost
        return None
    return found.st_dev, found.st_ino


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


def _images(folder: Path, written: Collection[Path]) -> list[PurePosixPath]:
    """List the images below ``folder``, but for the folders that are written into, sorted, as relative paths."""
    found = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in written]
        below = PurePosixPath(here.relative_to(folder).as_posix())
        found += [below / name for name in files if name[0] != "." and Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)


def _by_stem(images: Iterable[PurePosixPath]) -> dict[PurePosixPath, list[PurePosixPath]]:
    stems: dict[PurePosixPath, list[PurePosixPath]] = {}
    for image in images:
        stems.setdefault(image.with_suffix(""), []).append(image)
    return stems


def output_suffix(leading: Path | PurePosixPath, format: str | None) -> str:
    """Choose the suffix of an output: that of its format, else that of the leading input."""
    if format is not None:
        return FORMAT_SUFFIXES.get(format, f".{format}")
    return ".png" if leading.suffix.lower() in READ_ONLY else leading.suffix


# --- the manifest -----------------------------------------------------------------------------------------------------


class Manifest:
    """``manifest.jsonl``: what was asked for, then what is finished, one JSON object per line."""

    def __init__(self, file: IO[bytes], path: Path, records: Mapping[str, dict[str, Any]]) -> None:
        self.path = path
        self.records = records  #: name of an output -> its last line
        self._file = file

    @classmethod
    def begin(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """Start a new one; an old one is replaced."""
        manifest = cls(path.open("wb"), path, {})
        manifest.append(header)
        return manifest

    @classmethod
    def resume(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """Go on with one that is there, after checking that it was begun with the same options.

        Raises
        ------
        InputError
            It is no manifest, or the options differ.
        """
        text = path.read_bytes()
        # The last line may be torn: the process was killed, or the disk was full, while it was written.
        whole = text[: text.rfind(b"\n") + 1]
        lines = [line for line in map(_parse_line, whole.splitlines()) if line is not None]
        if not whole:
            return cls.begin(path, header)
        if not lines or "manifest" not in lines[0]:
            raise InputError(f"{path}: is not a manifest of velatura; choose another output folder")
        records = {line["output"]: line for line in lines[1:] if "output" in line}
        if not any(line.get("status") == "done" for line in records.values()):
            return cls.begin(path, header)  # nothing that other options could be mixed with
        _refuse_difference(lines[0], json.loads(json.dumps(header)), path)
        file = path.open("r+b")
        file.truncate(len(whole))
        file.seek(len(whole))
        return cls(file, path, records)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it.

        Raises
        ------
        MachineError
            The disk is full, or went away.
        """
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise MachineError(f"{self.path}: {error.strerror}; free some space, then --resume") from error

    def close(self) -> None:
        """Close the file."""
        # Closing flushes again what a full disk refused: that was reported by `append`.
        with suppress(OSError):
            self._file.close()


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None  # damaged: its image is made again
    return parsed if isinstance(parsed, dict) else None


def _refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Refuse to mix results: name the first option that is not what it was."""
    for before, now in ((old, new), (old.get("params", {}), new.get("params", {}))):
        for key in dict.fromkeys((*before, *now)):
            if key != "params" and before.get(key) != now.get(key):
                raise InputError(
                    f"{path} was begun with {key} {json.dumps(before.get(key))}, now it is {json.dumps(now.get(key))}; "
                    "give the same options, or --overwrite to start anew"
                )


def _header(work: WorkSpec, out: Path) -> dict[str, Any]:
    """Collect everything that decides the bytes of the outputs and where they lie, the inputs aside."""
    return {
        "manifest": 1,
        "velatura": __version__,
        "task": work.kind.name,
        "params": dict(work.params),
        "model": work.model,
        "model_sha256": _model_sha256(work.model or work.kind.default_model),
        "device": work.device,
        "memory": work.memory,
        "threads": work.threads,
        "format": work.save.format,
        "quality": work.save.quality,
        "mark": work.save.mark,
        "maps": {name: os.path.relpath(folder, out) for name, folder in work.maps.items()},
    }


def begun_with(out: str | Path) -> dict[str, Any]:
    """Give the options that the batch of an output folder was begun with; nothing where there is no batch."""
    try:
        with (Path(out) / MANIFEST).open("rb") as file:
            return _parse_line(file.readline()) or {}
    except OSError:
        return {}


def _model_sha256(model: str | None) -> str | None:
    """Give the sha256 of a model that is a file or a name of the catalog; other names are the task's own affair."""
    if model is None:
        return None
    if Path(model).is_file():
        return file_sha256(Path(model))
    from velatura.catalog import cards

    return next((card.sha256 for card in cards() if card.name == model), None)


def _fingerprints(kind: type[Task], inputs: Sequence[str | None]) -> dict[str, Any]:
    """Tell by size and time whether an input is still the same file."""
    prints = {}
    for spec, value in zip(kind.inputs, inputs, strict=True):
        if value is None:
            continue
        path = Path(value)
        try:
            found = path.stat()
        except OSError:  # a dangling link: opening it will say so, as the failure of one image
            prints[spec.name] = {"file": path.name}
        else:
            prints[spec.name] = {"file": path.name, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    return prints


# --- the batch --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch.

    Attributes
    ----------
    done, skipped : int
        Images made now, and images that an earlier run had made.
    failed : tuple of Outcome
    seconds : float
    warnings : mapping
        Text of a warning -> names of the images that gave it.
    """

    done: int
    skipped: int
    failed: tuple[Outcome, ...]
    seconds: float
    warnings: Mapping[str, Sequence[str]]


def run_batch(
    work: WorkSpec,
    inputs: Sequence[str | Path | None],
    out: str | Path,
    *,
    engine: Engine | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Do the same work on every image of a folder.

    Parameters
    ----------
    work : WorkSpec
        ``work.save.overwrite`` starts anew in a folder that holds outputs.
    inputs : sequence of path or None
        As for `plan`.
    out : path
        The output folder; it is made.
    engine : Engine, optional
        Default: this process.
    resume : bool, optional
        Go on with what the manifest of the folder leaves: images that are not made, failed, or whose input changed.
        An output that the manifest does not know is what the interrupted run wrote last, and is made again.
    progress : callable, optional
        Called with images done, images to do, and the name of the last one.

    Returns
    -------
    Report
        One bad image does not stop the rest: it is in ``failed``.

    Raises
    ------
    InputError
        Nothing was done: see `plan`; or the folder holds a manifest and neither ``resume`` nor overwriting was
        asked for; or the options are not those of the manifest.
    MachineError
        The disk is full. ``resume`` goes on.
    """
    start = time.perf_counter()
    out = Path(out)
    if resume and work.save.overwrite:
        raise InputError("--resume keeps what is done, --overwrite starts anew; expected one of them")
    jobs, unpaired = plan(work.kind, inputs, out, format=work.save.format, beside=work.maps.values())
    manifest = _open_manifest(out, work, jobs, resume=resume)
    # What may be replaced is settled: an output that is there now is our own, from before an interruption.
    work = replace(work, save=replace(work.save, overwrite=True))

    with closing(manifest):
        prints = {job: _fingerprints(work.kind, job.inputs) for job in (*jobs, *(one.job for one in unpaired))}
        todo = [job for job in jobs if not _is_done(job, work, prints[job], manifest, out)]
        if resume:
            _remove_leftovers(path for job in todo for path in (Path(job.output), *work.map_files(job).values()))
        failed: list[Outcome] = []
        done = 0
        noted: dict[str, list[str]] = {}

        def note(outcome: Outcome) -> None:
            manifest.append(_line(outcome, prints[outcome.job], out))
            if not outcome.ok:
                failed.append(outcome)
            for text in outcome.warnings:
                noted.setdefault(text, []).append(outcome.job.name)

        for outcome in unpaired:
            note(outcome)
        hook = progress or no_progress
        hook(0, len(todo), "")
        outcomes = (engine or LocalEngine()).run(todo, work) if todo else iter(())
        # Whatever happens here, closing the engine's iterator stops its workers.
        with closing(_closable(outcomes)) as outcomes:
            for number, outcome in enumerate(outcomes, start=1):
                if outcome.stop:
                    raise MachineError(f"{outcome.error} ({done} of {len(todo)} done; free some space, then --resume)")
                note(outcome)
                done += outcome.ok
                hook(number, len(todo), outcome.job.name)
    failed.sort(key=lambda outcome: outcome.job.name)
    return Report(done, len(jobs) - len(todo), tuple(failed), time.perf_counter() - start, noted)


def _closable(outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """Give any iterator a ``close``, which reaches the one inside if that has it."""
    yield from outcomes


def _open_manifest(out: Path, work: WorkSpec, jobs: Sequence[Job], *, resume: bool) -> Manifest:
    """Make the output folder and settle what of it may be replaced."""
    path = out / MANIFEST
    header = _header(work, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if resume:
                return Manifest.resume(path, header)
            if not work.save.overwrite:
                raise InputError(f"{out}: holds an earlier batch; --resume goes on with it, --overwrite starts anew")
        if not work.save.overwrite:
            outputs = (path for job in jobs for path in (Path(job.output), *work.map_files(job).values()))
            there = [path for path in outputs if path.exists()]
            if there:
                raise InputError(
                    f"{there[0]}: exists already ({len(there)} of {len(jobs) * (1 + len(work.maps))} outputs do); "
                    "--overwrite replaces them, or choose another folder"
                )
        return Manifest.begin(path, header)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{out}: is a file; expected a folder for the outputs of a folder") from None
    except PermissionError as error:
        raise InputError(f"{error.filename}: no permission to write; choose another output folder") from None


def _remove_leftovers(outputs: Iterable[Path]) -> None:
    """Remove the unfinished files of a run that was killed, and so could not do it itself."""
    for folder in {path.parent for path in outputs}:
        for file in folder.glob(".velatura-*.tmp"):
            file.unlink(missing_ok=True)


def _is_done(job: Job, work: WorkSpec, prints: Mapping[str, Any], manifest: Manifest, out: Path) -> bool:
    line = manifest.records.get(_relative(job.output, out))
    if line is None or line.get("status") != "done" or line.get("inputs") != prints:
        return False
    output = Path(job.output)
    whole = output.is_file() and output.stat().st_size == line.get("bytes")
    return whole and all(path.is_file() for path in work.map_files(job).values())


def _line(outcome: Outcome, prints: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Describe a finished job for the manifest."""
    line: dict[str, Any] = {
        "name": outcome.job.name,
        "output": _relative(outcome.job.output, out),
        "status": "done" if outcome.ok else "failed",
        "inputs": prints,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.ok:
        line |= {"bytes": outcome.bytes, "sha256": outcome.sha256}
    else:
        line |= {"error": outcome.error}
    return line | ({"warnings": outcome.warnings} if outcome.warnings else {})


def _relative(output: str, out: Path) -> str:
    return Path(output).relative_to(out).as_posix()
