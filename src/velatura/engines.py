"""Engines: whatever can run the jobs of a batch.

An engine takes picklable jobs and the description of the work, and gives outcomes in any order. `LocalEngine` works
in this process or in several; one that spreads the jobs over machines fits behind the same `Engine`, and nothing
that uses an engine has to know which one it is.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from velatura.device import limit_threads
from velatura.errors import Cancelled, VelaturaError
from velatura.task import Progress, SaveOptions, Task, no_progress, parse_params
from velatura.tiling import DEFAULT_MEMORY_MIB

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

__all__ = ["Engine", "Job", "LocalEngine", "Outcome", "WorkSpec", "do_job", "file_sha256"]


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
    maps : mapping of str to str
        Folders for what the task gives beside its result, by the name of the output.
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

    @property
    def kind(self) -> type[Task]:
        """The task's class, without its model."""
        module, _, name = self.task.partition(":")
        return getattr(importlib.import_module(module), name)

    def map_files(self, job: Job) -> dict[str, Path]:
        """Name the files of a job that go into the folders of `maps`."""
        # The whole name: a.jpg and a.png may stand in one folder.
        return {name: Path(folder, f"{job.name}.png") for name, folder in self.maps.items()}

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
            maps = work.map_files(job)
            for path in (output, *maps.values()):
                path.parent.mkdir(parents=True, exist_ok=True)
            task.to_file(*job.inputs, out=output, save=work.save, maps=maps, progress=progress, **work.params)
            size, digest, error, stop = output.stat().st_size, file_sha256(output), "", False
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


def file_sha256(path: Path) -> str:
    """Give the digest of a file's bytes, read piece by piece."""
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
            task = work.build_ready()
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
        with _ctrl_c_held():
            return pool.submit(_work, job)
    except BrokenProcessPool as error:
        broken: Future[Outcome] = Future()
        broken.set_exception(error)
        return broken


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Hold Ctrl-C back while workers may be started: they inherit that, and so stay quiet from their first moment."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    # Held back from the start already where that can be.
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
            worker.task = worker.work.build_ready()
        return do_job(worker.task, job, worker.work, worker.hook)
