from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from filters import Invert
from PIL import Image
from stores import SECRET, new_bucket, s3_server

from velatura import manifest, storage
from velatura.batch import LocalEngine, Plan, WorkSpec, run_batch
from velatura.catalog import cards
from velatura.errors import InputError, MachineError, ModelError
from velatura.task import SaveOptions

WORK = WorkSpec("filters:Invert", threads=1)
FRESH = WorkSpec("filters:Invert", threads=1, save=SaveOptions(overwrite=True))


def work(**params) -> WorkSpec:
    return WorkSpec("filters:Invert", params, threads=1)


def draw(path: Path, seed: int, *, red: bool = False) -> Path:
    """Write a small picture; the tests' task misbehaves on a red one."""
    pixels = np.random.default_rng(seed).integers(0, 255, (13, 9, 3), np.uint8)
    if red:
        pixels[0, 0] = 255, 0, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for seed, name in enumerate(["b.png", "a.png", "sub/a.png", "sub/deeper/c.png"]):
        draw(folder / name, seed)
    (folder / "notes.txt").write_text("not an image")
    draw(folder / ".hidden.png", 9)
    draw(folder / ".cache" / "thumb.png", 9)
    return folder


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(".jsonl")
    }


def lines(out: Path) -> list[dict]:
    return list(manifest.lines(out))


def plan(kind, inputs, out, **more):
    """Give the jobs, and those without a partner."""
    found = list(Plan(kind, inputs, out, **more).jobs())
    return [job for job, missing in found if not missing], [(job, missing) for job, missing in found if missing]


# --- which images ----------------------------------------------------------------------------------------------------


def test_list_is_recursive_sorted_and_without_hidden_files(photos: Path):
    jobs, unpaired = plan(Invert, [photos, None], "out")
    assert [job.name for job in jobs] == ["a.png", "b.png", "sub/a.png", "sub/deeper/c.png"]
    assert jobs[2].inputs == (str(photos / "sub" / "a.png"), None)
    assert Path(jobs[2].output) == Path("out/sub/a.png")
    assert not unpaired


def test_output_folder_inside_the_input_is_not_an_input(photos: Path):
    out = photos / "out"
    run_batch(WORK, [photos], out)
    report = run_batch(WORK, [photos], out, resume=True)
    assert (report.done, report.skipped) == (0, 4)


def test_second_inputs_are_paired_by_path_and_stem(photos: Path, tmp_path: Path):
    masks = tmp_path / "masks"
    for name in ["a.bmp", "sub/a.png", "sub/deeper/c.png"]:
        draw(masks / name, 1)
    jobs, unpaired = plan(Invert, [photos, masks], "out")
    assert [Path(str(job.inputs[1])).relative_to(masks).as_posix() for job in jobs] == [
        "a.bmp",
        "sub/a.png",
        "sub/deeper/c.png",
    ]
    assert [(job.name, missing) for job, missing in unpaired] == [("b.png", f"no mask b.* in {masks}")]


def test_one_file_serves_all(photos: Path, tmp_path: Path):
    mask = draw(tmp_path / "mask.png", 1)
    jobs, _ = plan(Invert, [photos, mask], "out")
    assert {job.inputs[1] for job in jobs} == {str(mask)}


def test_without_a_leading_folder_another_decides(photos: Path, tmp_path: Path):
    image = draw(tmp_path / "image.tif", 1)
    jobs, _ = plan(Invert, [image, photos], "out")
    assert [Path(job.output).as_posix() for job in jobs][:2] == ["out/a.tif", "out/b.tif"]
    assert jobs[0].inputs == (str(image), str(photos / "a.png"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda photos: (photos / "a.jpg").write_bytes(b""), "a.jpg and a.png would both become a.png"),
        (lambda photos: [path.unlink() for path in photos.rglob("*.png")], "holds no images"),
    ],
)
def test_refused_before_the_work(photos: Path, prepare, message: str):
    prepare(photos)
    with pytest.raises(InputError, match=message):
        plan(Invert, [photos, None], "out", format="png")


def test_two_partners_of_one_stem_are_refused(photos: Path, tmp_path: Path):
    draw(tmp_path / "masks" / "a.png", 1)
    draw(tmp_path / "masks" / "a.tif", 1)
    with pytest.raises(InputError, match=r"holds a\.png and a\.tif for a\.png; expected one mask"):
        plan(Invert, [photos, tmp_path / "masks"], "out")


@pytest.mark.parametrize("linked", [False, True])
def test_input_of_another_job_is_never_an_output(tmp_path: Path, linked: bool):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for name in ["a.png", "masks/a.png"]:
        draw(photos / name, 1)
        draw(masks / name, 2)
    out = tmp_path
    if linked:
        out = tmp_path / "out"
        out.mkdir()
        (out / "a.png").symlink_to(masks / "a.png")
    before = digests(tmp_path)
    with pytest.raises(InputError, match=r"is the input .* and is never written onto"):
        run_batch(FRESH, [photos, masks], out)
    assert digests(tmp_path) == before


def test_bad_folders_are_refused(photos: Path, tmp_path: Path):
    with pytest.raises(InputError, match="is an input folder"):
        plan(Invert, [photos, None], photos / ".")
    with pytest.raises(InputError, match="no such file or folder"):
        plan(Invert, [photos, tmp_path / "nothing.png"], "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        run_batch(WORK, [photos], tmp_path / "file")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        run_batch(WORK, [photos], tmp_path / "file" / "out")


# --- doing it --------------------------------------------------------------------------------------------------------


def test_manifest_says_what_was_done(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    seen = []
    report = run_batch(work(strength=0.5), [photos], out, progress=lambda *step: seen.append(step))
    assert (report.done, report.skipped, report.failed) == (4, 0, ())
    assert seen == [(0, 4, ""), (1, 4, "a.png"), (2, 4, "b.png"), (3, 4, "sub/a.png"), (4, 4, "sub/deeper/c.png")]
    header, *rest = lines(out)
    assert (header["task"], header["params"], header["threads"]) == ("invert", {"strength": 0.5}, 1)
    assert {line["output"]: line["sha256"] for line in rest} == digests(out)
    assert rest[0]["inputs"]["image"]["bytes"] == (photos / "a.png").stat().st_size


def test_one_bad_file_does_not_stop_the_rest(photos: Path, tmp_path: Path):
    (photos / "a.png").write_text("text as PNG")
    (photos / "sub" / "a.png").write_bytes((photos / "sub" / "a.png").read_bytes()[:200])
    out = tmp_path / "out"
    report = run_batch(WORK, [photos], out)
    assert report.done == 2
    assert [outcome.job.name for outcome in report.failed] == ["a.png", "sub/a.png"]
    assert all("\n" not in outcome.error for outcome in report.failed)
    assert sorted(digests(out)) == ["b.png", "sub/deeper/c.png"]
    draw(photos / "a.png", 5)
    report = run_batch(WORK, [photos], out, resume=True)
    assert (report.done, report.skipped, len(report.failed)) == (1, 2, 1)


@pytest.mark.parametrize(("red", "reason"), [("memory", "memory"), ("bug", "unexpected ZeroDivisionError: a bug")])
def test_trouble_with_one_file_is_its_own(photos: Path, tmp_path: Path, red: str, reason: str):
    draw(photos / "b.png", 1, red=True)
    out = tmp_path / "out"
    report = run_batch(work(red=red), [photos], out)
    assert report.done == 3
    (failure,) = report.failed
    assert failure.job.name == "b.png"
    assert reason in failure.error
    assert "b.png" not in digests(out)


def test_warnings_are_told_with_their_images(photos: Path, tmp_path: Path):
    draw(photos / "b.png", 1, red=True)
    report = run_batch(work(red="warn"), [photos], tmp_path / "out")
    assert report.warnings == {"this one is red": ["b.png"]}


@pytest.mark.skipif(storage.fcntl is None, reason="the system has no fcntl")
def test_a_second_batch_into_the_same_folder_is_refused(photos: Path, tmp_path: Path):
    out, refused = tmp_path / "out", []

    def meanwhile(done: int, total: int, name: str) -> None:
        with pytest.raises(InputError, match="another batch works there"):
            run_batch(WORK, [photos], out, resume=True)
        refused.append(name)

    report = run_batch(WORK, [photos], out, progress=meanwhile)
    assert refused
    assert not report.failed
    assert run_batch(WORK, [photos], out, resume=True).skipped == report.done


def test_full_disk_stops_the_batch_and_resume_ends_it(photos: Path, tmp_path: Path):
    draw(photos / "b.png", 1, red=True)
    out = tmp_path / "out"
    with pytest.raises(MachineError, match=r"1 of 4 done; free some space, then --resume"):
        run_batch(work(red="disk"), [photos], out)
    assert sorted(digests(out)) == ["a.png"]
    draw(photos / "b.png", 1)
    report = run_batch(work(red="disk"), [photos], out, resume=True)
    assert (report.done, report.skipped) == (3, 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk: needs root")
def test_a_disk_that_is_really_full(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        noise = np.random.default_rng(0).integers(0, 255, (150, 150, 3), np.uint8)
        (tmp_path / "photos").mkdir()
        for name in "abcdef":
            Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.png")
        with pytest.raises(MachineError) as refused:
            run_batch(WORK, [tmp_path / "photos"], disk / "out")
        assert "\n" not in str(refused.value)
        made = [line["output"] for line in lines(disk / "out") if "output" in line]
        assert 0 < len(made) < 6
        assert sorted(path.name for path in (disk / "out").iterdir()) == sorted([*made, "manifest.jsonl"])
    finally:
        subprocess.run(["umount", disk], check=True)


def test_limit_of_pixels_holds_in_batches(photos: Path, tmp_path: Path):
    report = run_batch(WorkSpec("filters:Invert", threads=1, max_megapixels=1e-4), [photos], tmp_path / "out")
    assert [outcome.error.partition("; ")[0].partition("declares ")[2] for outcome in report.failed] == [
        "9 x 13 = 0.000117 megapixels"
    ] * 4


def test_no_model_no_batch(photos: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="unknown model 'x'"):
        run_batch(WorkSpec("filters:Invert", model="x"), [photos], tmp_path / "out")


@pytest.mark.parametrize("processes", [1, 2])
def test_no_device_no_batch_and_resume_takes_another(photos: Path, tmp_path: Path, processes: int):
    out = tmp_path / "out"
    missing = WorkSpec("filters:Invert", device="cuda:99", threads=1)
    with pytest.raises(InputError, match="cuda"):
        run_batch(missing, [photos], out, engine=LocalEngine(processes))
    assert not digests(out)
    assert run_batch(WORK, [photos], out, resume=True).done == 4


def test_maps_lie_in_a_folder_of_their_own_under_whole_names(photos: Path, tmp_path: Path):
    out, maps = tmp_path / "out", tmp_path / "maps"
    draw(photos / "a.tif", 7)  # the same stem as a.png
    report = run_batch(
        WorkSpec("filters:Traced", {"change": True}, threads=1, maps={"change": str(maps)}), [photos], out
    )
    assert report.done == 5
    names = sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*") if path.is_file())
    assert names == ["a.png.png", "a.tif.png", "b.png.png", "sub/a.png.png", "sub/deeper/c.png.png"]
    change = np.asarray(Image.open(maps / "b.png.png"))
    before = np.asarray(Image.open(photos / "b.png")).astype(int)
    assert np.array_equal(change, np.abs(255 - 2 * before).max(2))


def test_maps_replace_nothing_unasked_and_are_no_inputs(photos: Path, tmp_path: Path):
    out, maps = tmp_path / "out", photos / "maps"
    traced = WorkSpec("filters:Traced", {"change": True}, threads=1, maps={"change": str(maps)})
    mine = maps / "a.png.png"
    maps.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"a\.png\.png: exists already \(1 of 8 outputs do\)"):
        run_batch(traced, [photos], out)
    assert mine.read_text() == "mine"
    assert run_batch(replace(traced, save=SaveOptions(overwrite=True)), [photos], out).done == 4
    report = run_batch(traced, [photos], out, resume=True)
    assert (report.done, report.skipped) == (0, 4)
    with pytest.raises(InputError, match="photos: is an input folder"):
        run_batch(replace(traced, maps={"change": str(photos)}), [photos], tmp_path / "other")


def test_resume_makes_maps_that_went_and_no_others(photos: Path, tmp_path: Path):
    out, maps = tmp_path / "out", tmp_path / "maps"
    traced = WorkSpec("filters:Traced", {"change": True}, threads=1, maps={"change": str(maps)})
    run_batch(traced, [photos], out)
    (maps / "b.png.png").unlink()
    left = maps / ".velatura-killed.tmp"
    left.touch()
    report = run_batch(traced, [photos], out, resume=True)
    assert (report.done, report.skipped) == (1, 3)
    assert (maps / "b.png.png").is_file()
    assert not left.exists()
    with pytest.raises(InputError, match="was begun with maps"):
        run_batch(replace(traced, maps={"change": str(tmp_path / "others")}), [photos], out, resume=True)
    with pytest.raises(InputError, match="is a file; expected a folder for the pictures beside"):
        run_batch(replace(traced, maps={"change": str(photos / "a.png")}), [photos], tmp_path / "new")


# --- resume ----------------------------------------------------------------------------------------------------------


def test_manifest_of_earlier_run_asks_what_to_do(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_batch(WORK, [photos], out)
    with pytest.raises(InputError, match="--resume goes on with it, --overwrite starts anew"):
        run_batch(WORK, [photos], out)
    assert run_batch(FRESH, [photos], out).done == 4
    assert len(lines(out)) == 5
    with pytest.raises(InputError, match="expected one of them"):
        run_batch(FRESH, [photos], out, resume=True)


def test_files_of_others_are_not_replaced(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    mine = draw(out / "b.png", 7)
    before = mine.read_bytes()
    with pytest.raises(InputError, match=r"b\.png: exists already \(1 of 4 outputs do\); --overwrite replaces"):
        run_batch(WORK, [photos], out)
    assert mine.read_bytes() == before
    assert not (out / "manifest.jsonl").exists()


def test_resume_redoes_what_changed_or_went(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_batch(WORK, [photos], out)
    unbroken = digests(out)
    (out / "a.png").unlink()
    os.utime(photos / "b.png", (1, 1))
    draw(photos / "new.png", 8)
    report = run_batch(WORK, [photos], out, resume=True)
    assert (report.done, report.skipped) == (3, 2)
    assert unbroken.items() <= digests(out).items()
    assert run_batch(WORK, [photos], out, resume=True).done == 0


def test_resume_refuses_other_options(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_batch(work(strength=1.0), [photos], out)
    with pytest.raises(InputError, match=r"begun with strength 1\.0, now it is 0\.5; give the same"):
        run_batch(work(strength=0.5), [photos], out, resume=True)
    with pytest.raises(InputError, match="begun with threads 1, now it is 2"):
        run_batch(WorkSpec("filters:Invert", {"strength": 1.0}, threads=2), [photos], out, resume=True)


def test_resume_refuses_new_weights_of_the_default_model(photos: Path, tmp_path: Path, monkeypatch):
    shipped, *_ = cards()
    monkeypatch.setattr(Invert, "default_model", shipped.name)
    out = tmp_path / "out"
    run_batch(WORK, [photos], out)
    header, *rest = (out / "manifest.jsonl").read_text().splitlines()
    assert json.loads(header)["model_sha256"] == shipped.sha256
    (out / "manifest.jsonl").write_text("\n".join([header.replace(shipped.sha256, "0" * 64), *rest, ""]))
    with pytest.raises(InputError, match="was begun with model_sha256"):
        run_batch(WORK, [photos], out, resume=True)


def test_torn_and_damaged_lines_are_made_again(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_batch(WORK, [photos], out)
    manifest = out / "manifest.jsonl"
    whole = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(whole[0] + whole[1] + b"\x00\xff{\n" + whole[3] + whole[4][: len(whole[4]) // 2])
    report = run_batch(WORK, [photos], out, resume=True)
    assert (report.done, report.skipped) == (2, 2)
    tail = manifest.read_bytes().splitlines(keepends=True)[4:]
    assert [json.loads(line)["output"] for line in tail] == ["b.png", "sub/deeper/c.png"]


def test_manifest_torn_in_its_first_line_begins_anew(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text('{"manifest": 1, "vel')
    assert run_batch(WORK, [photos], out, resume=True).done == 4


def test_file_that_is_no_manifest_is_left_alone(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text('{"name": "of another program"}\n')
    with pytest.raises(InputError, match="is not a manifest of velatura"):
        run_batch(WORK, [photos], out, resume=True)


def test_killed_batch_resumes_to_the_same_bytes(photos: Path, tmp_path: Path):
    slow = {"pause": 0.05}
    run_batch(work(**slow), [photos], tmp_path / "unbroken")
    out = tmp_path / "out"
    program = (
        "from velatura.batch import WorkSpec, run_batch\n"
        f"run_batch(WorkSpec('filters:Invert', {slow}, threads=1), [{str(photos)!r}], {str(out)!r})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    batch = subprocess.Popen([sys.executable, "-c", program], env=environment)
    wait_for(lambda: (out / "b.png").exists())
    batch.send_signal(signal.SIGKILL)
    batch.wait()
    made = [line["output"] for line in lines(out)[1:]]
    assert 0 < len(made) < 4
    report = run_batch(work(**slow), [photos], out, resume=True)
    assert report.skipped == len(made)
    assert digests(out) == digests(tmp_path / "unbroken")


def wait_for(condition, seconds: float = 120, every: float = 0.005) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(every)


# --- several processes -----------------------------------------------------------------------------------------------


def test_processes_give_the_bytes_of_one(photos: Path, tmp_path: Path):
    run_batch(WORK, [photos], tmp_path / "one")
    report = run_batch(WORK, [photos], tmp_path / "two", engine=LocalEngine(2))
    assert report.done == 4
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_dying_worker_fails_its_job_only(photos: Path, tmp_path: Path):
    draw(photos / "b.png", 1, red=True)
    report = run_batch(work(red="die"), [photos], tmp_path / "out", engine=LocalEngine(2))
    assert report.done == 3
    (failure,) = report.failed
    assert failure.job.name == "b.png"
    assert "worker process died" in failure.error
    assert not list((tmp_path / "out").glob(".velatura-*"))


def test_workers_tell_that_there_is_no_model(photos: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="unknown model 'x'"):
        run_batch(WorkSpec("filters:Invert", model="x"), [photos], tmp_path / "out", engine=LocalEngine(2))


def test_jobs_are_taken_as_fast_as_they_are_done(photos: Path, tmp_path: Path):
    jobs, _ = plan(Invert, [photos, None], tmp_path / "out")
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield jobs[taken % len(jobs)]

    outcomes = LocalEngine(2).run(endless(), FRESH)
    for _ in range(3):
        assert next(outcomes).ok
    assert taken <= 3 + 4 + 4
    outcomes.close()


def test_killed_worker_loses_and_repeats_nothing(photos: Path, tmp_path: Path):
    """The worker dies after its line and before anybody was told: its image is not made again."""
    draw(photos / "b.png", 1, red=True)
    out = tmp_path / "out"
    report = run_batch(WorkSpec("filters:DiesAfterwards", threads=1), [photos], out, engine=LocalEngine(2))
    assert (report.done, report.failed) == (4, ())
    assert Counter(line["output"] for line in lines(out)[1:]).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("cores", "count", "processes", "expected"),
    [(8, 1000, None, 1), (8, 40, None, 4), (8, 5, None, 8), (8, 1000, 3, 2), (2, 1000, None, 1)],
)
def test_threads_share_the_cores(monkeypatch, cores: int, count: int, processes: int | None, expected: int):
    monkeypatch.setattr("velatura.engines.local.threads", lambda: cores)
    monkeypatch.setattr("velatura.engines.local.LocalEngine._most", lambda self, work: 64)
    work = WorkSpec("filters:Invert", device="cpu")
    assert LocalEngine(processes).threads(work, count) == expected


def test_short_lists_need_no_further_process(photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("velatura.engines.local.threads", lambda: 8)
    monkeypatch.setattr("velatura.engines.local.ProcessPoolExecutor", None)
    assert run_batch(WORK, [photos], tmp_path / "out", engine=LocalEngine(None)).done == 4


def test_memory_limits_the_processes(monkeypatch):
    monkeypatch.setattr("velatura.engines.local.threads", lambda: 16)
    work = WorkSpec("filters:Invert", device="cpu", memory=1e9)
    assert LocalEngine(None).threads(work, 1000) == 16


# --- what decides the bytes -------------------------------------------------------------------------------------------


def test_options_that_name_one_file_are_refused_for_folders(photos: Path, tmp_path: Path):
    style = draw(tmp_path / "style.png", 1)
    for options, flag in [
        ({"style_out": "s.safetensors"}, "style-out"),
        ({"curve": "c.svg", "method": "optimize"}, "curve"),
        ({"frames": "f", "method": "optimize"}, "frames"),
    ]:
        work = WorkSpec("velatura.tasks.stylize:Stylize", options, threads=1)
        with pytest.raises(InputError, match=f"^--{flag} names one file, which every image of a folder would write"):
            run_batch(work, [photos, style], tmp_path / "out")
    step = "stylize:style=s.png,style_out=x.safetensors"
    with pytest.raises(InputError, match="--style-out names one file"):
        run_batch(WorkSpec("velatura.pipeline:Pipeline", {"step": [step]}, threads=1), [photos], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_and_models_of_steps_decide_what_is_done_again(photos: Path, tmp_path: Path, monkeypatch):
    boat, out = draw(tmp_path / "boat.png", 1), tmp_path / "out"
    steps = [f"blend:source={boat},mask={boat},at=0,0,method=paste", "upscale:scale=2,model=bicubic"]
    work = WorkSpec("velatura.pipeline:Pipeline", {"step": steps}, threads=1)
    assert run_batch(work, [photos], out).done == 4
    assert run_batch(work, [photos], out, resume=True).done == 0
    draw(boat, 2)
    assert run_batch(work, [photos], out, resume=True).done == 4
    assert run_batch(work, [photos], out, resume=True).done == 0
    monkeypatch.setattr("velatura.batch._model_sha256", lambda model: "another" if model == "bicubic" else None)
    assert run_batch(work, [photos], out, resume=True).done == 4


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3_server():
        yield


def stored(url: str) -> dict[str, str]:
    return {
        file.path: hashlib.sha256(storage.read(f"{url}/{file.path}") or b"").hexdigest()
        for file in storage.files(url)
        if not file.path.endswith(".jsonl")
    }


def test_a_bucket_gets_the_bytes_of_a_folder(server, photos: Path, tmp_path: Path):
    (photos / "a.png").write_text("text")
    local = run_batch(WORK, [photos], tmp_path / "out")
    bucket = new_bucket()
    for path in photos.rglob("*.png"):
        storage.write(f"{bucket}/in/{path.relative_to(photos).as_posix()}", path.read_bytes())
    report = run_batch(WORK, [f"{bucket}/in"], f"{bucket}/out")
    assert (report.done, report.skipped) == (local.done, 0)
    (failure,) = report.failed
    assert failure.error.startswith(f"{bucket}/in/a.png is not an image we know")
    assert stored(f"{bucket}/out") == digests(tmp_path / "out")
    # Resumed, it makes what changed, failed or went.
    storage.remove(f"{bucket}/out/b.png")
    draw(tmp_path / "new.png", 77)
    storage.write(f"{bucket}/in/a.png", (tmp_path / "new.png").read_bytes())
    report = run_batch(WORK, [f"{bucket}/in"], f"{bucket}/out", resume=True)
    assert (report.done, report.skipped, report.failed) == (2, 2, ())
    with pytest.raises(InputError, match="holds an earlier batch"):
        run_batch(WORK, [f"{bucket}/in"], f"{bucket}/out")
    told = [storage.read(f"{bucket}/{file.path}") or b"" for file in storage.files(bucket) if ".jsonl" in file.path]
    assert told
    assert not any(SECRET.encode() in text or b"testing" in text for text in told)


def test_outputs_of_others_in_a_bucket_are_not_replaced(server, photos: Path):
    bucket = new_bucket()
    storage.write(f"{bucket}/out/b.png", b"mine")
    with pytest.raises(InputError, match=r"b\.png: exists already \(1 of 4 outputs do\)"):
        run_batch(WORK, [photos], f"{bucket}/out")
    assert storage.read(f"{bucket}/out/b.png") == b"mine"
    assert run_batch(FRESH, [photos], f"{bucket}/out").done == 4
    with pytest.raises(InputError, match="is an input folder"):
        run_batch(FRESH, [f"{bucket}/out"], f"{bucket}/out")


def test_missing_buckets_are_told_before_the_work(server, photos: Path, tmp_path: Path):
    with pytest.raises(InputError, match="s3://no-such-bucket/in: no such file or folder"):
        run_batch(WORK, ["s3://no-such-bucket/in"], tmp_path / "out")
    with pytest.raises(InputError, match=r"s3://no-such-bucket/out/manifest.*: no such bucket"):
        run_batch(WORK, [photos], "s3://no-such-bucket/out")


def test_a_denied_write_fails_one_image(server, photos: Path, monkeypatch: pytest.MonkeyPatch):
    bucket = new_bucket()
    store, _ = storage._store(bucket)
    put_file = store.put_file

    def deny(here, there, **more):
        if there.endswith("b.png"):
            raise PermissionError("Access Denied for AKIA123")
        return put_file(here, there, **more)

    monkeypatch.setattr(store, "put_file", deny)
    report = run_batch(WORK, [photos], f"{bucket}/out")
    assert report.done == 3
    (failure,) = report.failed
    assert failure.error == (
        f"{bucket}/out/b.png: access denied; check the environment's credentials and what they may do"
    )


@pytest.fixture
def strict(server):
    """Make the server ask who comes; it knows nobody."""
    ask_after("0")
    yield
    ask_after("inf")


def ask_after(count: str) -> None:
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # a connection keeps its keys
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urlopen(Request(url, count.encode(), {"Content-Type": "text/plain"}, method="POST")).close()


def test_wrong_keys_are_told_and_never_named(server, photos: Path, tmp_path: Path, request, monkeypatch, caplog):
    bucket, key = new_bucket(), "AKIAWRONGWRONGWRONG1"
    storage.write(f"{bucket}/in/a.png", (photos / "a.png").read_bytes())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    request.getfixturevalue("strict")
    for inputs, out in ((str(photos), f"{bucket}/out"), (f"{bucket}/in", str(tmp_path / "out"))):
        with pytest.raises(InputError, match=f"^{bucket}/.*: access denied") as refused:
            run_batch(WORK, [inputs], out)
        told = "".join(traceback.format_exception(refused.value)) + caplog.text
        assert not any(secret in told for secret in (key, SECRET))
    assert not (tmp_path / "out").exists()


def test_a_killed_batch_into_a_bucket_resumes(server, photos: Path, tmp_path: Path):
    slow, bucket = {"pause": 0.3}, new_bucket()
    program = (
        "from velatura.batch import WorkSpec, run_batch\n"
        f"run_batch(WorkSpec('filters:Invert', {slow}, threads=1), [{str(photos)!r}], '{bucket}/out')"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    batch = subprocess.Popen([sys.executable, "-c", program], env=environment)
    wait_for(lambda: sum("output" in line for line in manifest.lines(f"{bucket}/out")) >= 2, every=0.2)
    batch.send_signal(signal.SIGKILL)
    batch.wait()
    done = sum("output" in line for line in manifest.lines(f"{bucket}/out"))
    assert 2 <= done < 4
    report = run_batch(work(**slow), [photos], f"{bucket}/out", resume=True)
    assert (report.done, report.skipped) == (4 - done, done)
    run_batch(work(**slow), [photos], tmp_path / "unbroken")
    assert stored(f"{bucket}/out") == digests(tmp_path / "unbroken")
