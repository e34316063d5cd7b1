"""The worker: one spawned process in which models stay warm, and the end of the pipe that leads to it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from velatura.errors import Cancelled
from velatura.studio.work import Made, Tasks, Work, do

__all__ = ["DIED", "Worker", "give_back"]

DIED = "the worker process died: killed, or out of memory; try a smaller image"
PATIENCE = 1.0  # seconds for a task to answer a cancel, before its process is ended
PACE = 0.1  # seconds between two reports of progress


class Worker:
    """A process that does one job at a time; it is started anew whenever it had to be ended."""

    def __init__(self) -> None:
        # spawn: the server has threads, and a fork of those may hang.
        self._context = multiprocessing.get_context("spawn")
        # No lock: a process that is killed while it holds one would leave it taken for ever.
        self._stop: Any = self._context.RawValue("b", 0)
        self._process: Any = None
        self._pipe: Any = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process if it does not run."""
        if self._process is not None and self._process.is_alive():
            return
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(theirs, self._stop), name="velatura-studio-worker", daemon=True
        )
        self._process.start()
        theirs.close()

    def submit(self, work: Work) -> None:
        """Give the process a job."""
        self.start()
        self._stop.value = 0
        self._pipe.send(work)

    def poll(self, seconds: float) -> tuple[int, int, str] | Made | None:
        """Wait for a report: progress, the end of the job, or None when there is none yet."""
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else None
        except (EOFError, OSError):
            self.end()
            return Made(error=DIED)

    def cancel(self) -> None:
        """Ask the task to stop."""
        self._stop.value = 1

    def end(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


# --- inside the process -----------------------------------------------------------------------------------------------


def _serve(pipe: Connection, stop: Any) -> None:
    """Do jobs until the pipe is closed."""
    # Ctrl-C reaches the whole group: the server decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tasks = Tasks()
    with contextlib.suppress(EOFError, OSError):
        while True:
            work = pipe.recv()
            made = do(work, tasks, _Reporting(pipe, stop))
            pipe.send(made)
            gc.collect()
            give_back()


class _Reporting:
    """The progress hook: reports some times a second, and raises where the job was cancelled."""

    def __init__(self, pipe: Connection, stop: Any) -> None:
        self._pipe, self._stop = pipe, stop
        self._last, self._stage = 0.0, ""

    def __call__(self, done: int, total: int, stage: str) -> None:
        if self._stop.value:
            raise Cancelled("cancelled")
        now = time.monotonic()
        if stage != self._stage or now - self._last > PACE:
            self._last, self._stage = now, stage
            self._pipe.send((int(done), int(total), stage))


def _end_with_parent() -> None:
    """Leave when the server is killed: an orphan would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
