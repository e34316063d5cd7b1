"""The Ray engine: how work is handed out, on a cluster that a test makes up; and, slow, on a real one."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filters import Invert
from PIL import Image

from velatura import manifest
from velatura.batch import LocalEngine, RayEngine, WorkSpec, run_batch
from velatura.cli import app, main
from velatura.cli.common import image_command
from velatura.engines import ray_engine
from velatura.engines.work import Job, Outcome, line_of
from velatura.errors import InputError, MachineError, ModelError
from velatura.manifest import Notes

TESTS = str(Path(__file__).parents[1])
WORK = WorkSpec("filters:Invert", threads=1)


# --- a cluster that is made up ---------------------------------------------------------------------------------------


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class ActorDied(Exception):
    pass


class Cluster:
    """What the engine uses of Ray, in this process; ``script(worker, job)`` is the work, and may raise `ActorDied`."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=ActorDied)

    def __init__(self, script, *, ready=lambda worker: None) -> None:
        self.script, self.is_ready = script, ready
        self.workers = itertools.count()
        self.calls: dict[int, tuple] = {}
        self.dead: set[int] = set()
        self.most = 0

    def remote(self, **needs):
        cluster = self

        class Actor:
            def __init__(self) -> None:
                self.number = next(cluster.workers)
                self.ready = SimpleNamespace(remote=lambda: cluster.call(self.number, cluster.is_ready, self.number))
                self.do = SimpleNamespace(
                    remote=lambda job: cluster.call(self.number, cluster.script, self.number, job)
                )

        return lambda cls: SimpleNamespace(remote=lambda work: Actor())

    def call(self, worker: int, *what) -> int:
        future = len(self.calls)
        self.calls[future] = (worker, *what)
        return future

    def wait(self, futures, *, num_returns, timeout=None):
        self.most = max(self.most, len(futures))
        return futures[:1], futures[1:]

    def get(self, future):
        worker, what, *arguments = self.calls[future]
        if worker in self.dead:
            raise ActorDied
        try:
            return what(*arguments)
        except ActorDied:
            self.dead.add(worker)
            raise
        except Exception as error:
            raise TaskError(error) from error

    def kill(self, actor) -> None:
        self.dead.add(actor.number)


def jobs(count: int, out: Path) -> list[Job]:
    return [Job(f"{number}.png", ("in.png", None), str(out / f"{number}.png")) for number in range(count)]


def run(cluster: Cluster, work: WorkSpec, todo, workers: int = 2) -> list[Outcome]:
    return list(ray_engine._Pool(cluster, work, workers, {}).run(iter(todo)))


def test_jobs_are_taken_as_fast_as_they_are_done(tmp_path: Path):
    taken = 0

    def endless():
        nonlocal taken
        for job in jobs(10_000, tmp_path):
            taken += 1
            yield job

    cluster = Cluster(lambda worker, job: Outcome(job))
    outcomes = ray_engine._Pool(cluster, WORK, 2, {}).run(endless())
    for _ in range(50):
        next(outcomes)
    assert taken <= 50 + 2 * ray_engine.AHEAD
    assert cluster.most <= 2 * ray_engine.AHEAD + 1


def test_jobs_of_a_dead_worker_go_to_others_but_for_those_that_were_done(tmp_path: Path):
    work = replace(WORK, out=str(tmp_path), run="000001")
    notes, done = Notes(str(tmp_path), "000001"), Counter()

    def script(worker: int, job: Job) -> Outcome:
        done[job.name] += 1
        notes.append(line_of(Outcome(job, seconds=1.0, bytes=5, sha256="x"), str(tmp_path)))
        if job.name == "3.png" and worker < 2:
            raise ActorDied  # after the line, before anybody was told
        return Outcome(job)

    with pytest.warns(ray_engine.WorkerWarning, match="a worker died; its work is done by others"):
        outcomes = run(Cluster(script), work, jobs(12, tmp_path))
    assert sorted(outcome.job.name for outcome in outcomes) == sorted(f"{number}.png" for number in range(12))
    assert all(outcome.ok for outcome in outcomes)
    assert set(done.values()) == {1}


def test_a_job_that_kills_fails(tmp_path: Path):
    def script(worker: int, job: Job) -> Outcome:
        if job.name == "3.png":
            raise ActorDied
        return Outcome(job)

    with pytest.warns(ray_engine.WorkerWarning):
        outcomes = run(Cluster(script), WORK, jobs(8, tmp_path))
    (failed,) = [outcome for outcome in outcomes if not outcome.ok]
    assert (failed.job.name, failed.untold) == ("3.png", True)
    assert failed.error.startswith("2 workers died of it")
    assert len(outcomes) == 8


def test_a_full_disk_of_one_worker_is_its_own(tmp_path: Path):
    def script(worker: int, job: Job) -> Outcome:
        return Outcome(job, "disk full", stop=True) if worker == 0 else Outcome(job)

    with pytest.warns(ray_engine.WorkerWarning, match="a worker stops: disk full; its work is done by others"):
        outcomes = run(Cluster(script), WORK, jobs(8, tmp_path))
    assert len(outcomes) == 8
    assert all(outcome.ok for outcome in outcomes)


def test_full_disks_everywhere_stop(tmp_path: Path):
    with pytest.warns(ray_engine.WorkerWarning):
        outcomes = run(Cluster(lambda worker, job: Outcome(job, "disk full", stop=True)), WORK, jobs(8, tmp_path))
    assert [outcome.stop for outcome in outcomes] == [True]


def test_what_keeps_all_from_working_is_raised(tmp_path: Path):
    def ready(worker: int) -> None:
        raise ModelError("unknown model")

    with pytest.raises(ModelError, match="unknown model"):
        run(Cluster(lambda worker, job: Outcome(job), ready=ready), WORK, jobs(2, tmp_path))

    def dies(worker: int) -> None:
        raise ActorDied

    with (
        pytest.warns(ray_engine.WorkerWarning, match="could not be started"),
        pytest.raises(MachineError, match="no worker could be started"),
    ):
        run(Cluster(lambda worker, job: Outcome(job), ready=dies), WORK, jobs(2, tmp_path))


@pytest.mark.parametrize(
    ("nodes", "work", "expected"),
    [
        (
            [{"CPU": 4, "memory": 64 << 30}, {"CPU": 3, "memory": 64 << 30}],
            replace(WORK, threads=2),
            (3, {"num_cpus": 2}),
        ),
        ([{"CPU": 16, "memory": 4 << 30}], WORK, (2, {"num_cpus": 1})),
        ([{"CPU": 16, "memory": 64 << 30, "GPU": 2}], WORK, (2, {"num_cpus": 1, "num_gpus": 1})),
        ([{"CPU": 2, "memory": 64 << 30, "GPU": 2}], replace(WORK, device="cpu"), (2, {"num_cpus": 1})),
    ],
)
def test_workers_fill_the_cluster(nodes, work: WorkSpec, expected):
    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes])
    count, needs = ray_engine._room(cluster, work, None)
    assert needs.pop("memory") == (512 + 1024) << 20
    assert (count, needs) == expected
    assert ray_engine._room(cluster, work, 1)[0] == 1


def test_a_cluster_without_room_is_told():
    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1, "memory": 1 << 30}}])
    with pytest.raises(MachineError, match=r"no room for one worker of 1 CPUs, 1536 MiB; see `ray status`"):
        ray_engine._room(cluster, WORK, None)


# --- a real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """One cluster of two cores for all tests; starting it takes seconds."""
    pytest.importorskip("ray")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = TESTS  # where workers find the tests' task
    import ray

    with ray_engine._cluster(None):
        yield ray
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def photos(folder: Path, count: int, broken: int = 0) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (13, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    for number in range(broken):
        (folder / f"{number * count // broken:04}.png").write_text("text")
    return folder


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.png")}


def made(out: Path) -> Counter:
    """How often each output was made."""
    return Counter(line["output"] for line in manifest.lines(out) if line.get("status") == "done")


def workers() -> list[int]:
    """Processes of workers that have a task."""
    names = ((path, (path / "cmdline").read_bytes()) for path in Path("/proc").glob("[0-9]*") if alive(path))
    return [int(path.name) for path, name in names if name.startswith(b"ray::_Actor")]


def alive(process: Path) -> bool:
    try:
        return (process / "cmdline").exists()
    except OSError:
        return False


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_thousand_images_are_those_of_the_local_engine(cluster, tmp_path: Path):
    folder = photos(tmp_path / "in", 1000, broken=20)
    ours = run_batch(WORK, [folder], tmp_path / "local", engine=LocalEngine())
    report = run_batch(WORK, [folder], tmp_path / "ray", engine=RayEngine())
    assert (report.done, len(report.failed)) == (980, 20)
    assert [(failed.job.name, failed.error) for failed in report.failed] == [
        (failed.job.name, failed.error) for failed in ours.failed
    ]
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    assert set(made(tmp_path / "ray").values()) == {1}


@pytest.mark.slow
def test_the_command_reports_as_with_the_local_engine(cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = photos(tmp_path / "in", 6, broken=2)
    told = []
    app.command(image_command(Invert, examples=""))
    try:
        for engine in ("local", "ray"):
            words = ["invert", str(folder), "-o", str(tmp_path / "out"), "--threads", "1", "--engine", engine, "--json"]
            assert main([*words, "--overwrite"]) == 1
            captured = capsys.readouterr()
            told.append((json.loads(captured.out) | {"seconds": 0}, captured.err))
    finally:
        del app["invert"]
    assert told[0] == told[1]
    assert [failed["name"] for failed in told[0][0]["failed"]] == ["0000.png", "0003.png"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")
def test_a_killed_worker_loses_and_repeats_nothing(cluster, tmp_path: Path):
    folder, out, killed = photos(tmp_path / "in", 40), tmp_path / "out", []

    def kill(done: int, total: int, stage: str) -> None:
        if done == 10 and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    slow = WorkSpec("filters:Invert", {"pause": 0.02}, threads=1)
    with pytest.warns(ray_engine.WorkerWarning, match="a worker died"):
        report = run_batch(slow, [folder], out, engine=RayEngine(), progress=kill)
    assert killed
    assert (report.done, report.failed) == (40, ())
    assert set(made(out).values()) == {1}
    run_batch(slow, [folder], tmp_path / "unbroken")
    assert digests(out) == digests(tmp_path / "unbroken")
    assert not list(out.glob(".velatura-*"))


@pytest.mark.slow
def test_a_job_that_kills_its_worker_fails_alone(cluster, tmp_path: Path):
    folder = photos(tmp_path / "in", 6)
    pixels = np.full((13, 9, 3), (255, 0, 0), np.uint8)
    Image.fromarray(pixels).save(folder / "0003.png")
    work = WorkSpec("filters:Invert", {"red": "die"}, threads=1)
    with pytest.warns(ray_engine.WorkerWarning):
        report = run_batch(work, [folder], tmp_path / "out", engine=RayEngine())
    assert report.done == 5
    assert [failed.job.name for failed in report.failed] == ["0003.png"]


@pytest.mark.slow
def test_no_model_and_no_cluster_are_told(cluster, tmp_path: Path):
    folder = photos(tmp_path / "in", 2)
    with pytest.raises(ModelError, match="unknown model 'x'"):
        run_batch(replace(WORK, model="x"), [folder], tmp_path / "out", engine=RayEngine())
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        run_batch(WORK, [folder], tmp_path / "other", engine=RayEngine("127.0.0.1:1"))


@pytest.mark.slow
def test_a_killed_driver_resumes_what_is_unfinished(tmp_path: Path):
    """The driver has a cluster of its own, which dies with it."""
    pytest.importorskip("ray")
    folder, out = photos(tmp_path / "in", 40), tmp_path / "out"
    program = (
        "import sys; from filters import Invert; from velatura.cli import app, main;"
        "from velatura.cli.common import image_command;"
        "app.command(image_command(Invert, examples='')); sys.exit(main(sys.argv[1:]))"
    )
    words = ["invert", str(folder), "-o", str(out), "--pause", "0.1", "--engine", "ray", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": TESTS}
    driver = subprocess.Popen([sys.executable, "-c", program, *words], env=environment)
    try:
        # Ray may need three goes on a busy machine.
        wait_for(lambda: (len(made(out)) >= 8 if out.exists() else False) or driver.poll() is not None, 300)
    finally:
        driver.kill()
        driver.wait()
    time.sleep(2)  # its workers end with it
    done = made(out)
    assert 8 <= len(done) < 40
    before = {name: (out / name).stat().st_mtime_ns for name in done}
    slow = WorkSpec("filters:Invert", Invert.Params(pause=0.1).model_dump(mode="json"), threads=1)
    report = run_batch(slow, [folder], out, resume=True)
    assert (report.done, report.skipped) == (40 - len(done), len(done))
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())
    run_batch(slow, [folder], tmp_path / "unbroken")
    assert digests(out) == digests(tmp_path / "unbroken")
