"""Measure folders: engines, overhead, memory of the driver, and what every application costs.

    python benchmarks/batch.py [--only PART,...] [--quick]

Parts: `workers` compares one worker with two, and Ray with the local engine, on images of a CPU second each; `groups`
one process of all cores with one for each core; `overhead` counts the CPU time of all processes over 10,000 tiny files,
less what the work itself takes; `memory` is the driver's resident set after 10,000 and 100,000 files; `costs` is what
an image costs in every application.

CPU time is user plus system time of this process and all that it started, Ray's own included, from one of the first
images that was done, when every worker is at work, to the last. Throughput is wall time, and means something on an
idle machine only. Memory is the resident set. Costs: one thread, warm, file to file, photographs of 4 and 12
megapixels (upscaling: of a quarter of that), the models that the commands take by themselves; memory is the peak of a
process of its own, torch included.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import Figure, command_line, in_own_process, photograph, resident

from velatura.batch import Engine, Job, LocalEngine, Outcome, RayEngine, WorkSpec, run_batch
from velatura.device import limit_threads
from velatura.errors import VelaturaError
from velatura.image import save_image
from velatura.task import SaveOptions

TICK = os.sysconf("SC_CLK_TCK")
TINY = WorkSpec("velatura.tasks.upscale:Upscale", {"scale": 1.5}, model="bicubic", device="cpu", threads=1)


# --- measuring --------------------------------------------------------------------------------------------------------


def family_cpu() -> float:
    """CPU seconds of this process and of all that it started, directly or not."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(map(int, fields[11:15])) / TICK  # its own, and of children that ended

    def ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return sum(seconds for process, seconds in used.items() if ours(process))


@dataclass
class Watch:
    """A progress hook that looks at clock, CPU time and memory between image number ``after`` and the last."""

    every: int = 1
    after: int = 1
    first: tuple[int, float, float] | None = None
    last: tuple[int, float, float] = (0, 0.0, 0.0)
    resident: int = 0

    def __call__(self, done: int, total: int, stage: str) -> None:
        if done >= self.after and (self.first is None or done % self.every == 0 or done == total):
            self.last = done, time.monotonic(), family_cpu()
            self.first = self.first or self.last
            self.resident = resident("VmRSS")

    @property
    def wall(self) -> float:
        """Seconds an image."""
        assert self.first is not None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])

    @property
    def cpu(self) -> float:
        """CPU seconds an image."""
        assert self.first is not None
        return (self.last[2] - self.first[2]) / (self.last[0] - self.first[0])


@contextmanager
def folder_of(count: int, pixels: np.ndarray) -> Iterator[Path]:
    """Make a folder of one picture many times."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "in")
        first = folder / "0" / "0.png"
        first.parent.mkdir(parents=True)
        save_image(pixels, first)
        for number in range(1, count):
            path = folder / str(number // 1000) / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(first, path)
        yield folder


def watched(work: WorkSpec, folder: Path, engine: Engine, every: int = 1, after: int = 1) -> Watch:
    watch = Watch(every, after)
    with tempfile.TemporaryDirectory() as out:
        report = run_batch(work, [folder], Path(out, "out"), engine=engine, progress=watch)
        assert not report.failed, report.failed[0].error
    return watch


def a_second_each() -> tuple[WorkSpec, np.ndarray]:
    """Find a size of photograph that takes a CPU second."""
    work = WorkSpec("velatura.tasks.upscale:Upscale", model="srresnet", device="cpu", threads=1)
    side = 160
    with limit_threads(1):
        task = work.build_ready()
        for _ in range(3):
            picture = photograph("astronaut", side, side)
            start = time.process_time()
            task(picture)  # type: ignore[operator]
            side = max(32, round(side / (time.process_time() - start) ** 0.5))
    return work, photograph("astronaut", side, side)


# --- the parts --------------------------------------------------------------------------------------------------------


def measure_workers(model: str | None, quick: bool) -> Iterator[Figure]:
    """One worker and two, on images of a CPU second."""
    work, picture = a_second_each()
    with folder_of(8 if quick else 40, picture) as folder:
        found = {
            name: watched(work, folder, engine, after=4)  # every worker is at work then
            for name, engine in {
                "ray-1": RayEngine(workers=1),
                "ray-2": RayEngine(workers=2),
                "local-2": LocalEngine(2),
            }.items()
        }
    one, two, local = found["ray-1"], found["ray-2"], found["local-2"]
    yield Figure(part="workers", name="CPU time an image, Ray, one worker", value=one.cpu, unit="s")
    yield Figure(
        part="workers", name="Images in a second, two workers / one", value=one.wall / two.wall, unit="times", bar=1.8,
        better="higher",
    )  # fmt: skip
    yield Figure(
        part="workers", name="Images in a second, Ray / local, two workers each", value=local.wall / two.wall,
        unit="times", bar=0.9, better="higher",
    )  # fmt: skip
    yield Figure(part="workers", name="CPU time an image, two workers / one", value=two.cpu / one.cpu, unit="times")
    yield Figure(
        part="workers", name="CPU time an image, Ray / local, two each", value=two.cpu / local.cpu, unit="times"
    )


def measure_groups(model: str | None, quick: bool) -> Iterator[Figure]:
    """One process of all cores, and one process for each core."""
    cores = len(os.sched_getaffinity(0))
    work, picture = a_second_each()
    with folder_of((3 if quick else 12) * cores, picture) as folder:
        whole = watched(WorkSpec(work.task, model=work.model, device="cpu", threads=cores), folder, LocalEngine(1))
        each = watched(work, folder, LocalEngine(cores), after=2 * cores)
    name = f"{cores} processes of one thread / one of {cores}"
    yield Figure(
        part="groups", name=f"Images in a second, {name}", value=whole.wall / each.wall, unit="times", better="higher"
    )
    yield Figure(part="groups", name=f"CPU time an image, {name}", value=each.cpu / whole.cpu, unit="times")


def measure_overhead(model: str | None, quick: bool) -> Iterator[Figure]:
    """What a tiny file costs beside its work."""
    count = 500 if quick else 10_000
    picture = photograph("astronaut", 16, 16)
    with folder_of(count, picture) as folder, tempfile.TemporaryDirectory() as out:
        save = SaveOptions(overwrite=True)
        with limit_threads(1):
            task = TINY.build_ready()
            paths = sorted(folder.rglob("*.png"))[:200]
            task.to_file(paths[0], out=Path(out, "a.png"), save=save, **TINY.params)
            start = time.process_time()
            for path in paths:
                task.to_file(path, out=Path(out, "a.png"), save=save, **TINY.params)
            bare = (time.process_time() - start) / len(paths)
        yield Figure(part="overhead", name="The work itself, CPU time a file", value=1e3 * bare, unit="ms")
        for name, engine in {
            "in this process": LocalEngine(1),
            "local, 2 processes": LocalEngine(2),
            "Ray, 2 workers": RayEngine(workers=2),
        }.items():
            watch = watched(TINY, folder, engine, every=count // 10)
            yield Figure(
                part="overhead", name=f"{name}: CPU time a file beside it, {count:,} files",
                value=1e3 * (watch.cpu - bare), unit="ms", bar=10,
            )  # fmt: skip
            yield Figure(
                part="overhead",
                name=f"{name}: memory of the driver at the end",
                value=watch.resident / 2**20,
                unit="MiB",
            )


class Idle:
    """An engine that does nothing: what is left is the driver."""

    def threads(self, work: WorkSpec, count: int) -> int:
        return 1

    def run(self, jobs: Iterable[Job], work: WorkSpec) -> Iterator[Outcome]:
        for job in jobs:
            yield Outcome(job, seconds=1.0, bytes=1, sha256="0" * 64)


def driver(count: int) -> tuple[float, float]:
    """Peak of the resident set in bytes, and CPU seconds, of a driver of so many files whose engine is idle."""
    with folder_of(count, photograph("astronaut", 16, 16)) as folder, tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        run_batch(TINY, [folder], Path(out, "out"), engine=Idle())
        return float(resident("VmHWM")), time.process_time() - start


def measure_memory(model: str | None, quick: bool) -> Iterator[Figure]:
    """Memory of the driver, by the number of files."""
    counts = (500, 5_000) if quick else (10_000, 100_000)
    found = {count: in_own_process(driver, count) for count in counts}
    for count, (size, seconds) in found.items():
        yield Figure(part="memory", name=f"Driver of {count:,} files, peak", value=size / 2**20, unit="MiB")
        yield Figure(
            part="memory", name=f"Driver of {count:,} files, CPU time a file", value=1e3 * seconds / count, unit="ms"
        )
    few, many = (found[count][0] for count in counts)
    yield Figure(part="memory", name=f"{counts[1]:,} files / {counts[0]:,}", value=many / few, unit="times", bar=1.1)


# --- costs ------------------------------------------------------------------------------------------------------------

# Application -> class, options, the inputs made of a photograph, share of the megapixels that it is given.
Inputs = Callable[[np.ndarray], tuple[Any, ...]]


def _mask(picture: np.ndarray, share: float) -> np.ndarray:
    """An ellipse in the middle, half-axes ``share`` of the sides."""
    down, across = (np.linspace(-1, 1, size) for size in picture.shape[:2])
    return np.uint8(255) * ((down[:, None] ** 2 + across**2) < (2 * share) ** 2).astype(np.uint8)


APPLICATIONS: dict[str, tuple[str, dict[str, Any], Inputs, float]] = {
    "blend": ("velatura.tasks.blend:Blend", {}, lambda one: (one[::-1].copy(), one, _mask(one, 0.4)), 1),
    "inpaint": ("velatura.tasks.inpaint:Inpaint", {}, lambda one: (one, _mask(one, 0.05)), 1),
    "upscale": ("velatura.tasks.upscale:Upscale", {}, lambda one: (one,), 0.25),
    "restore": ("velatura.tasks.restore:Restore", {}, lambda one: (one,), 1),
    "stylize": ("velatura.tasks.stylize:Stylize", {}, lambda one: (one, photograph("coffee", 512, 512)), 1),
}


def cost(application: str, megapixels: float) -> tuple[float, float] | str:
    """CPU seconds of an image, and peak of the resident set in bytes; or why there are none."""
    task, params, inputs, share = APPLICATIONS[application]
    side = round((1e6 * megapixels * share) ** 0.5)
    with tempfile.TemporaryDirectory() as scratch, limit_threads(1):
        paths = []
        for number, pixels in enumerate(inputs(photograph("astronaut", side, side))):
            paths.append(Path(scratch, f"{number}.png"))
            save_image(pixels, paths[-1])
        work = WorkSpec(task, params, device="cpu", threads=1)
        try:
            made = work.build_ready()
            made.to_file(*paths, out=Path(scratch, "warm.png"), **params)
        except VelaturaError as error:
            return str(error)
        start = time.process_time()
        made.to_file(*paths, out=Path(scratch, "out.png"), **params)
        seconds = time.process_time() - start
    return seconds, float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def measure_costs(model: str | None, quick: bool) -> Iterator[Figure]:
    """What an image costs in every application."""
    small, large = (0.1, 0.4) if quick else (4.0, 12.0)
    for application, (_, _, _, share) in APPLICATIONS.items():
        found = [in_own_process(cost, application, size) for size in (small, large)]
        if isinstance(found[0], str) or isinstance(found[1], str):
            reason = next(one for one in found if isinstance(one, str))
            print(f"  {application}: not measured: {reason}", file=sys.stderr)
            continue
        (_, few), (seconds, many) = found
        yield Figure(
            part="costs", name=f"{application}: CPU time a megapixel", value=seconds / (large * share), unit="s"
        )
        slope = max(many - few, 0) / ((large - small) * share)
        yield Figure(part="costs", name=f"{application}: memory a megapixel", value=slope / 2**20, unit="MiB")
        yield Figure(
            part="costs",
            name=f"{application}: memory beside that",
            value=(few - slope * small * share) / 2**20,
            unit="MiB",
        )


PARTS = {
    "workers": measure_workers,
    "groups": measure_groups,
    "overhead": measure_overhead,
    "memory": measure_memory,
    "costs": measure_costs,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is loaded
    raise SystemExit(command_line("batch", "Folders", __doc__ or "", PARTS, "that of each application"))
