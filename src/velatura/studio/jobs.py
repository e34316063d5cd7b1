"""The queue in front of the worker, and who listens to it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from velatura.errors import VelaturaError
from velatura.studio.forms import Asked, Checked
from velatura.studio.store import Item, Store, Unknown
from velatura.studio.work import Made
from velatura.studio.worker import PATIENCE, Worker

__all__ = ["Full", "Job", "Jobs"]

KEPT = 200  # finished jobs that are remembered
TICK = 0.05  # seconds between two looks at the worker
OVER = ("done", "failed", "cancelled")


class Full(VelaturaError):
    """So many jobs wait that no other is taken."""


@dataclass(slots=True)
class Job:
    """One piece of work, from the queue to its results.

    Attributes
    ----------
    id : str
    asked : Asked
    checked : Checked
    state : str
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    done, total, stage
        How far it is.
    results : list of (str, Item)
    """

    id: str
    asked: Asked
    checked: Checked
    state: str = "queued"
    done: int = 0
    total: int = 0
    stage: str = ""
    created: float = field(default_factory=time.time)
    started: float = 0.0
    staged: float = 0.0
    made: Made = field(default_factory=Made)
    results: list[tuple[str, Item]] = field(default_factory=list)
    cancelled: bool = False

    @property
    def left(self) -> float | None:
        """Seconds left of this stage, as far as its pace tells."""
        if self.state != "running" or not self.total or not 0 < self.done <= self.total:
            return None
        return (time.monotonic() - self.staged) * (self.total - self.done) / self.done

    def described(self) -> dict[str, Any]:
        """Describe it for clients."""
        left = self.left
        return {
            "id": self.id,
            "by": self.asked.by,
            "keep": self.asked.keep,
            "application": self.asked.application,
            "title": self.checked.title,
            "inputs": dict(self.asked.inputs),
            "params": dict(self.asked.params),
            "model": self.asked.model,
            "text": self.asked.text,
            "steps": [_step(step) for step in self.asked.steps],
            "command": self.checked.command,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "stage": self.stage,
            "left": None if left is None else round(left, 1),
            "created": self.created,
            "seconds": round(self.made.seconds, 3),
            "error": self.made.error,
            "warnings": list(self.made.warnings),
            "unknown": list(self.made.unknown),
            "made_by": self.made.made_by,
            "results": [{"what": what, **item.described()} for what, item in self.results],
        }


def _step(step: Any) -> dict[str, Any]:
    return {
        "application": step.application,
        "inputs": dict(step.inputs),
        "params": dict(step.params),
        "model": step.model,
    }


class Jobs:
    """A queue, worked on by one thread that talks to one worker process.

    Parameters
    ----------
    store : Store
        Where results go.
    most : int
        Jobs that may wait.
    """

    def __init__(self, store: Store, most: int) -> None:
        self._store, self._most = store, most
        self.worker = Worker()
        self._jobs: dict[str, Job] = {}
        self._condition = threading.Condition()
        self._listeners: dict[asyncio.Queue[Any], tuple[asyncio.AbstractEventLoop, str | None]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="velatura-studio-jobs", daemon=True)

    def start(self) -> None:
        """Start the thread, and the worker, so that the first job finds it there."""
        self._thread.start()

    def close(self) -> None:
        """End the worker and the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(5)
        self.worker.end()

    def needed(self) -> Iterable[str]:
        """Ids of the files that unfinished jobs read, and of results that somebody who listens wants kept."""
        with self._condition:
            read = {key for job in self._jobs.values() if job.state not in OVER for key in job.checked.items}
            return read | {item.id for job in self._jobs.values() if self._is_kept(job) for _, item in job.results}

    # --- what clients do ----------------------------------------------------------------------------------------------

    def submit(self, asked: Asked, checked: Checked) -> Job:
        """Queue a job.

        Raises
        ------
        Full
            Too many wait.
        """
        with self._condition:
            waiting = sum(job.state == "queued" for job in self._jobs.values())
            if waiting >= self._most:
                raise Full(f"{waiting} jobs wait already; try again when one is finished")
            job = Job(secrets.token_urlsafe(16), asked, checked)
            self._jobs[job.id] = job
            self._forget_old()
            self._condition.notify_all()
        self._tell(job)
        return job

    def get(self, key: str) -> Job:
        """Find a job.

        Raises
        ------
        Unknown
            There is none.
        """
        with self._condition:
            if key not in self._jobs:
                raise Unknown("no such job here")
            return self._jobs[key]

    def all(self) -> list[Job]:
        """Give all jobs, the oldest first."""
        with self._condition:
            return list(self._jobs.values())

    def cancel(self, key: str) -> Job:
        """Stop a job that waits or runs; one that is over keeps its results."""
        job = self.get(key)
        with self._condition:
            if job.state in OVER:
                return job
            job.cancelled = True
            if job.state == "queued":
                job.state = "cancelled"
        self._tell(job)
        return job

    def forget(self, key: str) -> Job:
        """Forget a job that is over, with its results; stop one that is not."""
        job = self.get(key)
        with self._condition:
            over = job.state in OVER
            if over:
                self._jobs.pop(key, None)
        if not over:
            return self.cancel(key)
        # Outside of the lock: the store asks, inside its own, what jobs need.
        for _, item in job.results:
            self._store.remove(item.id)
        self._tell(job, "removed")
        return job

    # --- who listens --------------------------------------------------------------------------------------------------

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def listen(self, by: str | None = None) -> asyncio.Queue[Any]:
        """Give a queue that gets every change; call it inside an event loop, and `leave` afterwards."""
        queue: asyncio.Queue[Any] = asyncio.Queue(1000)
        self._listeners[queue] = asyncio.get_running_loop(), by
        return queue

    def leave(self, queue: asyncio.Queue[Any]) -> None:
        """Stop listening."""
        self._listeners.pop(queue, None)

    def hush(self) -> None:
        """Tell all listeners that nothing more comes."""
        self._send(None)

    def _tell(self, job: Job, event: str = "job") -> None:
        self._send((event, job.described()))

    def _send(self, message: Any) -> None:
        for queue, (loop, _) in list(self._listeners.items()):
            with suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(_put, queue, message)

    def _is_kept(self, job: Job) -> bool:
        return job.asked.keep and any(by == job.asked.by for _, by in list(self._listeners.values()))

    def _forget_old(self) -> None:
        over = [job for job in self._jobs.values() if job.state in OVER and not self._is_kept(job)]
        for job in over[: max(len(self._jobs) - KEPT - self._most, 0)]:
            del self._jobs[job.id]

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self.worker.start()
        while (job := self._next()) is not None:
            try:
                self._work(job)
            # The thread is the studio's heart: whatever a job meets, the next one is taken.
            except Exception as error:
                job.state, job.made = "failed", Made(error=f"unexpected {type(error).__name__}: {error}")
            self._tell(job)

    def _next(self) -> Job | None:
        with self._condition:
            while True:
                if self._closing:
                    return None
                job = next((job for job in self._jobs.values() if job.state == "queued"), None)
                if job is not None:
                    job.state, job.started = "running", time.monotonic()
                    return job
                self._condition.wait()

    def _work(self, job: Job) -> None:
        folder = self._store.new_folder()
        try:
            self._tell(job)
            self.worker.submit(replace(job.checked.work, folder=str(folder)))
            made = self._wait(job)
            job.results = [] if made.error else self._taken(made)
            job.made = made
        except VelaturaError as error:
            job.made = Made(error=str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        job.state = "cancelled" if job.made.cancelled else "failed" if job.made.error else "done"

    def _wait(self, job: Job) -> Made:
        """Pass progress on until the job is over; a cancel that is not answered ends the process."""
        deadline: float | None = None
        while True:
            report = self.worker.poll(TICK)
            if isinstance(report, Made):
                return Made(cancelled=True) if job.cancelled and report.error else report
            if report is not None:
                if report[2] != job.stage or report[0] < job.done:
                    job.staged = time.monotonic()
                job.done, job.total, job.stage = report
                self._tell(job)
            if (job.cancelled or self._closing) and deadline is None:
                self.worker.cancel()
                deadline = time.monotonic() + (0 if self._closing else PATIENCE)
            if deadline is not None and time.monotonic() > deadline:
                self.worker.end()
                if not self._closing:
                    self.worker.start()
                return Made(cancelled=True)

    def _taken(self, made: Made) -> list[tuple[str, Item]]:
        """Take the files over into the store."""
        kinds: dict[str, Callable[[Path, str], Item]] = {
            "latents": lambda path, name: self._store.add(path, name, "latents")
        }
        return [(what, kinds.get(what, self._store.add)(Path(path), name)) for what, path, name in made.files]


def _put(queue: asyncio.Queue[Any], message: Any) -> None:
    # Nobody waits for a listener that does not read: its stream ends, and when it comes back it hears of all jobs.
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        message = None
    queue.put_nowait(message)
