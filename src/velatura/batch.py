"""Folders: a folder in, a folder out, one image at a time.

`run_batch` lists the images, pairs the second inputs by name, gives the jobs to an *engine* and keeps
``manifest.jsonl`` in the output folder: a header line with everything that decides the bytes, then one line per
finished image. A batch that was interrupted, even by ``kill -9``, goes on where it was: a line is written, and
synced, only after its image is in place, and images never share state, so that the bytes are those of an unbroken
run.

An engine takes picklable jobs and gives outcomes, in any order. `LocalEngine` works in this process or in several;
one that spreads the jobs over machines fits behind the same `Engine`.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from velatura import __version__
from velatura.device import limit_threads
from velatura.errors import Cancelled, InputError, MachineError, VelaturaError
from velatura.task import Progress, SaveOptions, Task, no_progress
from velatura.tiling import DEFAULT_MEMORY_MIB

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

__all__ = ["Engine", "Job", "LocalEngine", "Outcome", "Report", "WorkSpec", "output_suffix", "plan", "run_batch"]

MANIFEST = "manifest.jsonl"

#: Files of a folder that are taken for images; the rest of the folder is left alone.
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"]
)  # fmt: skip
#: Read but not written: their results become PNG.
READ_ONLY = frozenset([".gif", ".heic", ".heif"])
FORMAT_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}  # the other formats are called like their suffix


# --- what an engine takes and gives -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One image to make.

    Attributes
    ----------
    name : str
        What to call it in reports: its path below the input folder.
    inputs : tuple of str or None
        Paths in the order of the task's inputs; None for an optional one that was left out.
    output : str
        The file to write.
    """

    name: str
    inputs: tuple[str | None, ...]
    output: str


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """How to build a task and what to ask of it: all that a worker needs beside its jobs.

    Attributes
    ----------
    task : str
        Import path of the class: ``"velatura.tasks.blend:Blend"``.
    params : mapping
        The options, as JSON values.
    model : str or None
        Name or file of the model; None takes the default.
    device : str
    memory : float
        Working memory in MiB.
    threads : int or None
        Threads of one worker; None takes the processors that are there.
    save : SaveOptions
    max_megapixels : float
        Larger inputs are refused.
    """

    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    device: str = "auto"
    memory: float = DEFAULT_MEMORY_MIB
    threads: int | None = None
    save: SaveOptions = field(default_factory=SaveOptions)
    max_megapixels: float = 100

    @property
    def kind(self) -> type[Task]:
        """The task's class, without its model."""
        module, _, name = self.task.partition(":")
        return getattr(importlib.import_module(module), name)

    def build(self) -> Task:
        """Load the model and make the task."""
        return self.kind.from_pretrained(self.model, device=self.device, memory=self.memory)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    job : Job
    error : str
        Why there is no output, in one line; empty when there is one.
    stop : bool
        No other job can succeed either: the disk is full.
    seconds : float
    bytes : int
        Size of the output.
    sha256 : str
        Of the output's bytes.
    warnings : tuple of str
    """

    job: Job
    error: str = ""
    stop: bool = False
    seconds: float = 0.0
    bytes: int = 0
    sha256: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the output is in place."""
        return not self.error


class Engine(Protocol):
    """Whatever can run jobs."""

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        """Give one outcome per job, in any order; take jobs only as fast as they can be worked on.

        A job that fails gives an outcome. What keeps every job from running (no such model, no such device) is
        raised. Closing the iterator stops the work.
        """
        ...


def do_job(task: Task, job: Job, work: WorkSpec, progress: Progress = no_progress) -> Outcome:
    """Make one image; whatever goes wrong with it is an outcome, `Cancelled` and Ctrl-C aside."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            output = Path(job.output)
            output.parent.mkdir(parents=True, exist_ok=True)
            task.to_file(
                *job.inputs,
                out=output,
                save=work.save,
                max_megapixels=work.max_megapixels,
                progress=progress,
                **work.params,
            )
            size, digest, error, stop = output.stat().st_size, _sha256(output), "", False
        except Cancelled:
            raise
        # A bug too is the failure of one file: the rest of a night's batch is worth more than a traceback.
        except Exception as problem:
            size, digest, error, stop = 0, "", _reason(problem), _disk_full(problem)
    ours = (str(item.message) for item in caught if item.category.__module__.startswith("velatura"))
    return Outcome(job, error, stop, time.perf_counter() - start, size, digest, tuple(dict.fromkeys(ours)))


def _reason(error: Exception) -> str:
    if isinstance(error, VelaturaError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --memory, or fewer --jobs"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(f"unexpected {type(error).__name__}: {error}".split())


def _disk_full(error: BaseException | None) -> bool:
    """Look for the system's own error behind ours."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the local engine -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Run the jobs on this machine.

    Attributes
    ----------
    processes : int
        1 works in this process; more start as many workers, each of which loads the model once. A worker that dies
        (out of memory, killed) fails its job; the others go on.
    """

    processes: int = 1

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        """Give one outcome per job, in the order in which they finish; see `Engine.run`."""
        return self._in_workers(jobs, work) if self.processes > 1 else self._here(jobs, work)

    def _here(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        with limit_threads(work.threads):
            task = work.build()
            for job in jobs:
                yield do_job(task, job, work)

    def _in_workers(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        # spawn: a fork of a process that runs threads (torch, a progress bar) may hang.
        context = get_context("spawn")
        stop = context.Event()

        def start(processes: int) -> ProcessPoolExecutor:
            return ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(work, stop))

        queue = iter(jobs)
        pool = start(self.processes)
        running: dict[Future[Outcome], Job] = {}
        try:
            while True:
                # One job waits for each that runs: no worker idles, and no list of a million jobs is queued.
                for job in islice(queue, 2 * self.processes - len(running)):
                    running[_submit(pool, job)] = job
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
                    finished, _ = wait(running)
                suspects = []
                for future in finished:
                    job = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(job)
                    else:
                        yield future.result()
                # A worker died, and took the jobs of the others with it: each is tried again, alone, to find the
                # one that kills.
                for job in suspects:
                    pool.shutdown()
                    pool = start(1)
                    again = _submit(pool, job)
                    wait([again])
                    if isinstance(again.exception(), BrokenProcessPool):
                        yield Outcome(job, "its worker process died: killed, or out of memory; try fewer --jobs")
                    else:
                        yield again.result()
                if suspects:
                    pool.shutdown()
                    pool = start(self.processes)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, job: Job) -> Future[Outcome]:
    """Submit ``job``; a pool that is broken already gives a future that says so."""
    try:
        return pool.submit(_work, job)
    except BrokenProcessPool as error:
        broken: Future[Outcome] = Future()
        broken.set_exception(error)
        return broken


@dataclass(slots=True)
class _Worker:
    """State of one worker process."""

    work: WorkSpec
    stop: Event
    task: Task | None = None

    def hook(self, done: int, total: int, stage: str) -> None:
        if self.stop.is_set():
            raise Cancelled("stopped")


_worker: _Worker | None = None


def _start_worker(work: WorkSpec, stop: Event) -> None:
    global _worker
    # Ctrl-C reaches the whole group: the parent alone decides, and stops its workers through the progress hook.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(work, stop)


def _end_with_parent() -> None:
    """Leave when the parent is killed: an orphan would wait for jobs for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job) -> Outcome:
    worker = _worker
    assert worker is not None
    with limit_threads(worker.work.threads):
        if worker.task is None:
            worker.task = worker.work.build()
        return do_job(worker.task, job, worker.work, worker.hook)


# --- which images, and where to --------------------------------------------------------------------------------------


def plan(
    kind: type[Task], inputs: Sequence[str | Path | None], out: str | Path, *, format: str | None = None
) -> tuple[list[Job], list[Outcome]]:
    """Pair the inputs and name the outputs.

    The leading input's folder decides the list, or the first folder if the leading input is a file: its images, with
    those of its folders, sorted, hidden ones and the output folder left out. An input that is a file serves all
    images; of one that is a folder each image takes the file with the same path and stem.

    Parameters
    ----------
    kind : type of Task
    inputs : sequence of path or None
        In the order of ``kind.inputs``; at least one is a folder.
    out : path
        The output folder. Outputs keep the relative folder and the stem; the suffix is that of ``format``, else
        that of the leading input (PNG where that one's format is only read).
    format : str, optional

    Returns
    -------
    jobs : list of Job
    unpaired : list of Outcome
        Images that have no partner, as failures.

    Raises
    ------
    InputError
        No images, a missing file, two files of one stem to choose from, or two outputs of one name.
    """
    out = Path(out)
    paths = [None if value is None else Path(value) for value in inputs]
    for path in paths:
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path is not None and path.is_dir() and out.resolve() == path.resolve():
            raise InputError(f"{out}: is an input folder; expected another one for the outputs")
    leading = next(index for index, spec in enumerate(kind.inputs) if spec.leading)
    folders = [index for index, path in enumerate(paths) if path is not None and path.is_dir()]
    if not folders:
        raise InputError("no input is a folder; a batch needs one")
    driver = leading if leading in folders else folders[0]
    listed = {index: _images(_given(paths[index]), out) for index in folders}
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
                found = partners[index].get(image.with_suffix(""), [])
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
    return jobs, unpaired


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


def _images(folder: Path, out: Path) -> list[PurePosixPath]:
    """List the images below ``folder``, sorted, as relative paths."""
    skipped = out.resolve()
    found = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() != skipped]
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
        _refuse_difference(lines[0], json.loads(json.dumps(header)), path)
        file = path.open("r+b")
        file.truncate(len(whole))
        file.seek(len(whole))
        return cls(file, path, {line["output"]: line for line in lines[1:] if "output" in line})

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it.

        Raises
        ------
        MachineError
            The disk is full, or went away.
        """
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
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


def _header(work: WorkSpec) -> dict[str, Any]:
    """Collect everything that decides the bytes of an output, its inputs aside."""
    return {
        "manifest": 1,
        "velatura": __version__,
        "task": work.kind.name,
        "params": dict(work.params),
        "model": work.model,
        "model_sha256": _model_sha256(work.model),
        "device": work.device,
        "memory": work.memory,
        "threads": work.threads,
        "format": work.save.format,
        "quality": work.save.quality,
        "mark": work.save.mark,
    }


def _model_sha256(model: str | None) -> str | None:
    """Give the sha256 of a model that is a file or a name of the catalog; other names are the task's own affair."""
    if model is None:
        return None
    if Path(model).is_file():
        return _sha256(Path(model))
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
    jobs, unpaired = plan(work.kind, inputs, out, format=work.save.format)
    manifest = _open_manifest(out, work, jobs, resume=resume)
    # What may be replaced is settled: an output that is there now is our own, from before an interruption.
    work = replace(work, save=replace(work.save, overwrite=True))

    with closing(manifest):
        prints = {job: _fingerprints(work.kind, job.inputs) for job in (*jobs, *(one.job for one in unpaired))}
        todo = [job for job in jobs if not _is_done(job, prints[job], manifest, out)]
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
    header = _header(work)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if resume:
                return Manifest.resume(path, header)
            if not work.save.overwrite:
                raise InputError(f"{out}: holds an earlier batch; --resume goes on with it, --overwrite starts anew")
        if not work.save.overwrite:
            there = [job.output for job in jobs if Path(job.output).exists()]
            if there:
                raise InputError(
                    f"{there[0]}: exists already ({len(there)} of {len(jobs)} outputs do); "
                    "--overwrite replaces them, or choose another folder"
                )
        return Manifest.begin(path, header)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{out}: is a file; expected a folder for the outputs of a folder") from None
    except PermissionError as error:
        raise InputError(f"{error.filename}: no permission to write; choose another output folder") from None


def _is_done(job: Job, prints: Mapping[str, Any], manifest: Manifest, out: Path) -> bool:
    line = manifest.records.get(_relative(job.output, out))
    if line is None or line.get("status") != "done" or line.get("inputs") != prints:
        return False
    output = Path(job.output)
    return output.is_file() and output.stat().st_size == line.get("bytes")


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
