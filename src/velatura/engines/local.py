"""The local engine: jobs in this process, or in several of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import Any

from velatura.device import resolve_device, threads
from velatura.engines.work import Job, Outcome, Worker, WorkSpec, noted
from velatura.errors import Cancelled

__all__ = ["LocalEngine"]


# Cores of one process. With one thread an image takes as much CPU time as with two (upscale .93 of it, inpaint 1.04,
# blend 1.02), and a second has nothing to do while a file is read or written; benchmarks/batch.py, part `groups`.
GROUP = 1
# Images that a further process must have to do: it loads libraries and model anew, for seconds.
WORTH = 16
# MiB of a process beside its working memory: libraries, model, the image itself.
PROCESS_MIB = 1024


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Run the jobs on this machine.

    Attributes
    ----------
    processes : int or None
        1 works in this process; more start as many workers, each of which loads the model once. None takes as many as
        are worth their start: one for each group of cores, as memory allows, and one in all where there is a GPU.
        A worker that dies (out of memory, killed) fails its job; the others go on.
    """

    processes: int | None = 1

    def threads(self, work: WorkSpec, count: int) -> int:
        """Share the cores out among the processes."""
        cores = threads()
        processes = self.processes or max(1, min(cores // GROUP, self._most(work), count // WORTH))
        if processes > 1 and self.processes is None and _on_accelerator(work):
            return cores
        return max(1, cores // processes)

    def _most(self, work: WorkSpec) -> int:
        """Say how many processes this machine's memory holds."""
        try:
            whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (AttributeError, ValueError):  # not on Windows
            return os.cpu_count() or 1
        return int(whole // (work.memory + PROCESS_MIB))

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        """Give one outcome per job, in the order in which they finish; see `Engine.run`."""
        processes, queue = self.processes, iter(jobs)
        if processes is None:
            # A short list is done before further processes have started.
            first = list(islice(queue, 2 * WORTH))
            queue = chain(first, queue)
            most = min(threads() // (work.threads or threads()), self._most(work))
            processes = most if len(first) == 2 * WORTH else 1
        return self._in_workers(queue, work, processes) if processes > 1 else self._here(queue, work)

    def _here(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        with closing(Worker(work)) as worker:
            worker.prepare()
            for job in jobs:
                yield worker.do(job)

    def _in_workers(self, jobs: Iterable[Job], work: WorkSpec, processes: int) -> Iterator[Outcome]:
        # spawn: a fork of a process that runs threads (torch, a progress bar) may hang.
        context = get_context("spawn")
        # No lock: a worker that is killed while it holds one would leave it taken for ever.
        stop = context.RawValue("b", 0)

        def start(count: int) -> ProcessPoolExecutor:
            return ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(work, stop))

        queue = iter(jobs)
        pool = start(processes)
        running: dict[Future[Outcome], Job] = {}
        try:
            while True:
                # One job waits for each that runs: no worker idles, and no list of a million jobs is queued.
                for job in islice(queue, 2 * processes - len(running)):
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
                if suspects:
                    pool.shutdown()  # waits: what still runs there may end well
                for job in suspects:
                    if (outcome := noted(job, work)) is not None:
                        yield outcome
                        continue
                    pool.shutdown()
                    pool = start(1)
                    again = _submit(pool, job)
                    wait([again])
                    if isinstance(again.exception(), BrokenProcessPool):
                        died = "its worker process died: killed, or out of memory; try fewer --jobs"
                        yield Outcome(job, died, untold=True, interrupted=True)
                    else:
                        yield replace(again.result(), interrupted=True)
                if suspects:
                    pool.shutdown()
                    pool = start(processes)
        finally:
            stop.value = 1
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


_worker: Worker | None = None
_stop: Any = None  # of ctypes: another number than 0 means stop


def _start_worker(work: WorkSpec, stop: Any) -> None:
    global _worker, _stop
    # Ctrl-C reaches the whole group: the parent alone decides, and stops its workers through the progress hook.
    # Held back from the start already where that can be.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker, _stop = Worker(work), stop


def _end_with_parent() -> None:
    """Leave when the parent is killed: an orphan would wait for jobs for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _hook(done: int, total: int, stage: str) -> None:
    if _stop is not None and _stop.value:
        raise Cancelled("stopped")


def _work(job: Job) -> Outcome:
    assert _worker is not None
    return _worker.do(job, _hook)


def _on_accelerator(work: WorkSpec) -> bool:
    """Say whether a device works that processes would only wait for."""
    if work.device in ("auto", "cpu"):
        return work.device == "auto" and resolve_device().type != "cpu"
    return True
