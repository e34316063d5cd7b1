"""What engines share: a job, what is asked of it, what became of it, and the worker that does it."""

from __future__ import annotations

import errno
import hashlib
import importlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from velatura import storage
from velatura.device import limit_threads
from velatura.errors import Cancelled, VelaturaError
from velatura.manifest import Notes, finished
from velatura.task import Params, Progress, SaveOptions, Task, no_progress, parse_params
from velatura.tiling import DEFAULT_MEMORY_MIB

__all__ = ["Engine", "Job", "Outcome", "WorkSpec", "Worker", "do_job", "file_sha256", "line_of", "noted", "relative"]


@dataclass(frozen=True, slots=True)
class Job:
    """One image to make.

    Attributes
    ----------
    name : str
        What to call it in reports: its path below the input folder.
    inputs : tuple of str or None
        Paths or URLs in the order of the task's inputs; None for an optional one that was left out.
    output : str
        The file to write.
    prints : mapping
        What tells whether the inputs are still the same: for the manifest.
    """

    name: str
    inputs: tuple[str | None, ...]
    output: str
    prints: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
    maps : mapping of str to str
        Folders for what the task gives beside its result, by the name of the output.
    out, run : str
        The output folder and the name of the run, for what workers note in the manifest; empty: they note nothing.
    """

    task: str
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    device: str = "auto"
    memory: float = DEFAULT_MEMORY_MIB
    threads: int | None = None
    save: SaveOptions = field(default_factory=SaveOptions)
    max_megapixels: float = 100
    maps: Mapping[str, str] = field(default_factory=dict)
    out: str = ""
    run: str = ""

    @property
    def kind(self) -> type[Task]:
        """The task's class, without its model."""
        module, _, name = self.task.partition(":")
        return getattr(importlib.import_module(module), name)

    def map_files(self, job: Job) -> dict[str, str]:
        """Name the files of a job beside its output: the task's alternatives, and what goes into folders of `maps`."""
        alternatives = self.kind.alternatives(self.checked(), job.output)
        # The whole name: a.jpg and a.png may stand in one folder.
        return alternatives | {name: storage.join(folder, f"{job.name}.png") for name, folder in self.maps.items()}

    def checked(self) -> Params:
        """Give the options with what the maps ask for."""
        return parse_params(self.kind.Params, {**self.params, **dict.fromkeys(self.maps, True)})

    def build(self) -> Task:
        """Make the task; a model that is named is checked."""
        task = self.kind.from_pretrained(self.model, device=self.device, memory=self.memory)
        task.max_megapixels = self.max_megapixels
        return task

    def build_ready(self) -> Task:
        """Make the task and load what its options need."""
        task = self.build()
        task.prepare(parse_params(task.Params, self.params))
        return task


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
    untold : bool
        No worker has noted it in the manifest: it died.
    interrupted : bool
        A worker died of it, and may have left an unfinished file behind.
    """

    job: Job
    error: str = ""
    stop: bool = False
    seconds: float = 0.0
    bytes: int = 0
    sha256: str = ""
    warnings: tuple[str, ...] = ()
    untold: bool = False
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the output is in place."""
        return not self.error


class Engine(Protocol):
    """Whatever can run jobs."""

    def threads(self, work: WorkSpec, count: int) -> int:
        """Choose the threads of one worker for so many images, where nobody asked for a number."""
        ...

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        """Give one outcome per job, in any order; take jobs only as fast as they can be worked on.

        A job that fails gives an outcome; workers note outcomes in the manifest (`Worker`), but for those that are
        ``untold``. What keeps every job from running (no such model, no such device) is
        raised. Closing the iterator stops the work.
        """
        ...


@dataclass(slots=True)
class Worker:
    """What does the jobs: a task that is built once, and a part of the manifest.

    Attributes
    ----------
    work : WorkSpec
    """

    work: WorkSpec
    _task: Task | None = None
    _notes: Notes | None = None

    def prepare(self) -> None:
        """Load the model.

        Raises
        ------
        InputError, ModelError, MachineError
            No job can be done: no such model, no such device.
        """
        if self._task is None:
            with limit_threads(self.work.threads):
                self._task = self.work.build_ready()
        if self._notes is None and self.work.out:
            self._notes = Notes(self.work.out, self.work.run)

    def do(self, job: Job, progress: Progress = no_progress) -> Outcome:
        """Make one image, and note it before anybody is told."""
        self.prepare()
        assert self._task is not None
        with limit_threads(self.work.threads):
            outcome = do_job(self._task, job, self.work, progress)
        if self._notes is not None and not outcome.stop:
            try:
                self._notes.append(line_of(outcome, self.work.out))
            except VelaturaError as error:
                return replace(outcome, error=str(error), stop=_disk_full(error))
        return outcome

    def close(self) -> None:
        """Close the part of the manifest."""
        if self._notes is not None:
            self._notes.close()


def do_job(task: Task, job: Job, work: WorkSpec, progress: Progress = no_progress) -> Outcome:
    """Make one image; whatever goes wrong with it is an outcome, `Cancelled` and Ctrl-C aside."""
    start = time.perf_counter()
    in_words = str
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            maps = work.map_files(job)
            with storage.borrowed(job.inputs, (job.output, *maps.values())) as loan:
                in_words = loan.in_words
                output, *others = loan.outputs
                for path in loan.outputs:
                    path.parent.mkdir(parents=True, exist_ok=True)
                here = dict(zip(maps, others, strict=True))
                task.write(loan.inputs, output, work.checked(), work.save, maps=here, progress=progress)
                size, digest = output.stat().st_size, file_sha256(output)
            error, stop = "", False
        except Cancelled:
            raise
        # A bug too is the failure of one file: the rest of a night's batch is worth more than a traceback.
        except Exception as problem:
            size, digest, error, stop = 0, "", in_words(_reason(problem)), _disk_full(problem)
    ours = (in_words(str(item.message)) for item in caught if item.category.__module__.startswith("velatura"))
    return Outcome(job, error, stop, time.perf_counter() - start, size, digest, tuple(dict.fromkeys(ours)))


# --- lines of the manifest --------------------------------------------------------------------------------------------


def line_of(outcome: Outcome, out: str) -> dict[str, Any]:
    """Describe a finished job for the manifest of ``out``."""
    line: dict[str, Any] = {
        "name": outcome.job.name,
        "output": relative(outcome.job.output, out),
        "status": "done" if outcome.ok else "failed",
        "inputs": dict(outcome.job.prints),
        "seconds": round(outcome.seconds, 3),
    }
    line |= {"bytes": outcome.bytes, "sha256": outcome.sha256} if outcome.ok else {"error": outcome.error}
    return line | ({"warnings": outcome.warnings} if outcome.warnings else {})


def noted(job: Job, work: WorkSpec) -> Outcome | None:
    """Give the outcome of a job that a worker finished before it died, untold; None if it did not."""
    line = finished(work.out, work.run, relative(job.output, work.out)) if work.out else None
    if line is None:
        return None
    return Outcome(
        job,
        line.get("error", ""),
        False,
        line["seconds"],
        line.get("bytes", 0),
        line.get("sha256", ""),
        tuple(line.get("warnings", ())),
    )


def relative(output: str, out: str) -> str:
    """Name an output below its folder, with slashes."""
    return output.removeprefix(f"{out}/") if storage.is_url(out) else Path(output).relative_to(out).as_posix()


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


def file_sha256(path: Path) -> str:
    """Give the digest of a file's bytes, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
