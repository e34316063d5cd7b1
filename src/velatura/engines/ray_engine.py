"""The Ray engine: jobs on a cluster that somebody already operates, or on one that is started on this machine.

Every worker is an actor that loads the model once. It gets two jobs at a time, one that it does and one that waits, so
that no list of a million images lies in memory anywhere. A worker that dies is replaced, and its jobs go to others,
but for those that its part of the manifest says are done.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from velatura.device import threads
from velatura.engines.local import PROCESS_MIB
from velatura.engines.work import Job, Outcome, Worker, WorkSpec, noted
from velatura.errors import InputError, MachineError

__all__ = ["RayEngine", "WorkerWarning"]

AHEAD = 2  # jobs that a worker has: one is done, one waits
TRIES = 2  # workers that a job may take with it; the job is at fault then
THREADS = 1  # of a worker, as `velatura.engines.local.GROUP`
STARTS = 3  # goes at a cluster of our own
STORE_WAIT = 60  # seconds that each gives the store of Ray's own names; Ray's 30 are not enough beside other work
STORE_BYTES = 100 << 20  # shared memory of a cluster of our own: what passes through it is names


class WorkerWarning(UserWarning):
    """A worker is gone, and the others do its work."""


@dataclass(slots=True)
class _Hand:
    """An actor, and what it was given: future -> job, in the order of its work; retired, it is given no more."""

    actor: Any
    jobs: dict[Any, Job] = field(default_factory=dict)
    retired: bool = False


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Run the jobs on a Ray cluster.

    The output folder has to be the same for all machines: a shared one, or a URL. So have the inputs.

    Attributes
    ----------
    address : str or None
        Of the cluster: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``. None starts one on this machine, or takes the one
        that this process is connected to.
    workers : int or None
        None takes as many as the cluster has room for: one for each group of cores, or for each GPU where there are
        some and ``device`` allows them.
    """

    address: str | None = None
    workers: int | None = None

    def threads(self, work: WorkSpec, count: int) -> int:
        """Choose the threads of one worker; it is also the number of cores that Ray keeps free for it."""
        if self.address is None and self.workers is not None:
            return max(1, threads() // self.workers)
        return THREADS

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        """Give one outcome per job, in the order in which they finish; see `Engine.run`.

        Raises
        ------
        MachineError
            Ray is not installed, or the cluster has no room for a worker.
        InputError
            There is no cluster at the address.
        """
        with _cluster(self.address) as ray:
            pool = _Pool(ray, work, *_room(ray, work, self.workers))
            try:
                yield from pool.run(iter(jobs))
            finally:
                pool.close()


class _Pool:
    """The workers of a batch."""

    def __init__(self, ray: Any, work: WorkSpec, workers: int, needs: dict[str, Any]) -> None:
        self._ray, self._work = ray, work
        self._make = ray.remote(**needs, max_restarts=0, max_task_retries=0)(_Actor)
        self._starting: dict[Any, Any] = {}  # future of its readiness -> actor
        self._hands: list[_Hand] = []
        self._again: deque[Job] = deque()
        self._died: dict[str, int] = {}  # output of a job -> workers that died of it
        self._full: Outcome | None = None  # a worker's disk is full
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        actor = self._make.remote(self._work)
        self._starting[actor.ready.remote()] = actor

    def run(self, queue: Iterator[Job]) -> Iterator[Outcome]:
        """Hand out the jobs as fast as they are done."""
        while True:
            for hand in self._hands:
                while not hand.retired and len(hand.jobs) < AHEAD and (job := self._next(queue)) is not None:
                    hand.jobs[hand.actor.do.remote(job)] = job
            working = {future: hand for hand in self._hands for future in hand.jobs}
            if not working:
                if (job := self._next(queue)) is None:
                    return
                self._again.appendleft(job)
                if not self._starting:
                    assert self._full is not None  # or there would be a worker
                    yield self._full
                    return
            for future in self._finished([*working, *self._starting]):
                if future in self._starting:
                    self._welcome(future)
                elif future in working[future].jobs:  # those of a worker that died are dealt with already
                    yield from self._outcomes(working[future], future)

    def _next(self, queue: Iterator[Job]) -> Job | None:
        return self._again.popleft() if self._again else next(queue, None)

    def _finished(self, futures: list[Any]) -> list[Any]:
        first, _ = self._ray.wait(futures, num_returns=1)
        more, _ = self._ray.wait(futures, num_returns=len(futures), timeout=0)
        return more or first

    def _welcome(self, future: Any) -> None:
        """Take a worker that has loaded its model; whatever keeps one from it keeps all."""
        actor = self._starting.pop(future)
        try:
            self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            if not self._hands and not self._starting:
                raise MachineError(
                    f"no worker could be started ({type(error).__name__}): velatura must be installed on every machine "
                    "of the cluster, and a worker must fit into its memory (--memory)"
                ) from None
            warnings.warn("a worker could not be started; the others do its work", WorkerWarning, stacklevel=2)
        else:
            self._hands.append(_Hand(actor))

    def _outcomes(self, hand: _Hand, future: Any) -> Iterator[Outcome]:
        try:
            outcome: Outcome = self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError:
            yield from self._bury(hand)
            return
        job = hand.jobs.pop(future)
        if outcome.stop:
            if not hand.retired:
                text = f"a worker stops: {outcome.error}; its work is done by others"
                warnings.warn(text, WorkerWarning, stacklevel=2)
            hand.retired = True
            self._full = outcome
            self._again.append(job)
        else:
            yield replace(outcome, interrupted=True) if job.output in self._died else outcome

    def _bury(self, hand: _Hand) -> Iterator[Outcome]:
        """Give the jobs of a worker that died to others, but for those that it had done."""
        self._hands.remove(hand)
        suspected = False
        for job in hand.jobs.values():
            if (outcome := noted(job, self._work)) is not None:
                yield outcome
                continue
            if not suspected:  # the first that was not done is the one that it was at
                suspected = True
                self._died[job.output] = self._died.get(job.output, 0) + 1
                if self._died[job.output] == TRIES:
                    died = f"{TRIES} workers died of it: killed, or out of memory; try a smaller --memory"
                    yield Outcome(job, died, untold=True, interrupted=True)
                    continue
            self._again.append(job)
        hand.jobs = {}
        warnings.warn("a worker died; its work is done by others", WorkerWarning, stacklevel=2)
        self._start()

    def close(self) -> None:
        """End the workers, whatever they do."""
        for actor in (*(hand.actor for hand in self._hands), *self._starting.values()):
            self._ray.kill(actor)


class _Actor:
    """A worker, as Ray runs it."""

    def __init__(self, work: WorkSpec) -> None:
        self._worker = Worker(work)

    def ready(self) -> None:
        """Load the model."""
        self._worker.prepare()

    def do(self, job: Job) -> Outcome:
        """Make one image."""
        return self._worker.do(job)


# --- the cluster ------------------------------------------------------------------------------------------------------


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one for the length of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    if address is None:
        # Ray's own name for it: a cluster of one machine, that others do not reach.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise MachineError("--engine ray needs Ray: pip install 'velatura[ray]'") from None
    if address is None and ray.is_initialized():
        yield ray
        return
    with _own_signals():
        _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster answers at {address} ({type(error).__name__}); see `ray status`, and set "
                "RAY_AUTH_MODE=token where it asks for Ray's token"
            ) from None
        return
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(STORE_WAIT))
    # Ray gives its agents 15 s to name their ports, which nothing lengthens (ray-project/ray, issue 65983): on a busy
    # machine the second go, from warm caches, does it. Where ports are given to `ray start`, it does not wait.
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local", num_cpus=threads(), include_dashboard=False, object_store_memory=STORE_BYTES, **quiet
            )
            return
        # Ray raises a plain Exception here.
        except Exception as error:
            ray.shutdown()
            if not left:
                reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
                raise MachineError(
                    f"no Ray cluster could be started here ({reason}); start one with `ray start --head "
                    "--dashboard-agent-grpc-port 8501 --dashboard-agent-listen-port 8502 --metrics-export-port 8503 "
                    "--runtime-env-agent-port 8504`, any free ports, and name it by --address auto"
                ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from taking SIGTERM over: the command line treats it like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _room(ray: Any, work: WorkSpec, workers: int | None) -> tuple[int, dict[str, Any]]:
    """Say how many workers the cluster holds, and what each is given."""
    needs: dict[str, Any] = {"num_cpus": work.threads or THREADS, "memory": int((work.memory + PROCESS_MIB) * 2**20)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpu = work.device.partition(":")[0] in ("auto", "cuda") and any(node.get("GPU") for node in nodes)
    if on_gpu:
        needs["num_gpus"] = 1
    wanted = {"CPU": needs["num_cpus"], "memory": needs["memory"]} | ({"GPU": 1} if on_gpu else {})
    room = sum(int(min(node.get(name, 0) // much for name, much in wanted.items())) for node in nodes)
    if not room:
        raise MachineError(
            f"the cluster has no room for one worker of {wanted['CPU']} CPUs, {wanted['memory'] >> 20} MiB"
            f"{' and a GPU' if on_gpu else ''}; see `ray status`, or give less: --threads, --memory, --device"
        )
    return min(room, workers or room), needs
