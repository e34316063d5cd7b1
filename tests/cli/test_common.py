"""The command made from a task, on single images and on folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filters import Invert
from PIL import Image

from velatura.cli import app, main
from velatura.cli.common import image_command


@pytest.fixture(autouse=True)
def _invert():
    app.command(image_command(Invert, examples="velatura invert a.png -o b.png", by_flag=["mask"]))
    yield
    del app["invert"]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("photo.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (13, 9, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def photos(photo: Path) -> Path:
    folder = Path("photos")
    folder.mkdir()
    for name in ["a.png", "b.png", "c.png"]:
        (folder / name).write_bytes(photo.read_bytes())
    return folder


def invert(*words: object) -> int:
    return main(["invert", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    """Run what must be refused; give the one line that says why."""
    files = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert invert(*words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("velatura: error: ")
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == files
    return captured.err.strip().removeprefix("velatura: error: ")


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_shows_what_the_params_declare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert invert("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Usage: velatura invert IMAGE [--mask FILE] -o OUT [options]" in text
    assert "Turn a picture into its negative." in text
    assert "IMAGE The picture. [required]" in text
    assert "The file to write, or a folder: a batch keeps its names there, one image is called NAME-invert." in text
    assert "--strength VALUE How much of it. [0 to 1; default: 1]" in text
    assert "--shift VALUE X,Y to roll the result by. [px; default: 0,0]" in text
    assert "--tone CHOICE Colour of the result. [default: plain] [choices: plain, warm]" in text
    assert "--keep-sign --no-keep-sign Give the picture back as it came." in text
    assert "velatura invert a.png -o b.png" in text
    flags = [
        "device",
        "threads",
        "memory",
        "max-megapixels",
        "overwrite",
        "quiet",
        "json",
        "format",
        "quality",
        "no-mark",
    ]
    for flag in [*flags, "resume", "jobs", "engine"]:
        assert f"--{flag} " in text


# --- one image -------------------------------------------------------------------------------------------------------


def test_one_image(photo: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photo, "-o", "out.png") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("out.png: 9 x 13, 1 KiB, 0.")
    expected = 255 - np.asarray(Image.open(photo))
    assert np.array_equal(np.asarray(Image.open("out.png")), expected)


def test_quiet_is_quiet(photo: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photo, "-o", "out.png", "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_prints_no_warning(photo: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photo, "-o", "out.gif") == 0
    assert "velatura: warning: out.gif: GIF cannot hold all of it" in capsys.readouterr().err
    assert invert(photo, "-o", "out.gif", "--overwrite", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_json_line(photo: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photo, "-o", "out.png", "--json", "--shift", "-2,1", "--keep-sign", "--strength=0.25") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    result = json.loads(captured.out)
    assert 0 <= result.pop("seconds") < 10
    params = result.pop("params")
    assert result == {"output": "out.png", "maps": {}, "width": 9, "height": 13, "made_by": None}
    assert (params["shift"], params["keep_sign"], params["strength"]) == ([-2, 1], True, 0.25)


def test_input_by_flag(photo: Path):
    assert invert(photo, "--mask", photo, "-o", "out.png") == 0
    picture, result = np.asarray(Image.open(photo)), np.asarray(Image.open("out.png"))
    changed = (picture != result).any(-1)
    assert np.array_equal(changed, picture[..., 0] > 127)


def test_output_folder_takes_a_name_by_itself(photo: Path):
    Path("out").mkdir()
    assert invert(photo, "-o", "out") == 0
    assert invert(photo, "-o", "out", "--format", "jpeg") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["photo-invert.jpg", "photo-invert.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing IMAGE (the picture); see velatura invert --help"),
        (
            ["photo.png"],
            "missing -o (the file to write, or a folder: ",
        ),
        (["photo.png", "-o"], "-o needs a value; see velatura invert --help"),
        (["photo.png", "x", "-o", "out.png"], "one word too many: 'x'; see velatura invert --help"),
        (["photo.png", "-o", "out.png", "--strenght", "1"], "unknown option '--strenght'; did you mean '--strength'?"),
        (["photo.png", "-o", "out.png", "--tone", "wram"], "--tone: unknown value 'wram'; did you mean 'warm'?"),
        (["photo.png", "-o", "out.png", "--strength", "2"], "option 'strength': got '2'; input should be less than"),
        (["photo.png", "-o", "out.png", "--strength", "much"], "option 'strength': got 'much'; input should be"),
        (["photo.png", "-o", "out.png", "--shift", "1"], "option 'shift': "),
        (["photo.png", "-o", "out.png", "--quality", "300"], "invalid value '300' for --quality. Must be <= 100;"),
        (["photo.png", "-o", "out.png", "--threads", "0"], "invalid value '0' for --threads. Must be >= 1;"),
        (["photo.png", "-o", "out.png", "--memory", "x"], "invalid value for --memory: unable to convert 'x'"),
        (["photo.png", "-o", "out.png", "--model", "x"], "unknown model 'x'; known: none"),
        (["photo.png", "-o", "out.png", "--device", "gpu"], "unknown device 'gpu'; expected auto, cpu, cuda,"),
        (["photo.png", "-o", "out.png", "--resume"], "--resume, --jobs, --engine and --address are for folders;"),
        (["photo.png", "-o", "nowhere/out.png"], "nowhere/out.png: the folder"),
        (["photo.png", "-o", "nowhere/"], "nowhere/: no such folder; make it first, or name a file"),
        (["photo.png", "-o", "photo.png", "--overwrite"], "photo.png is an input of this work"),
        (["photo.png", "-o", "taken.png"], "taken.png exists;"),
        (["photo.png", "-o", "out.xyz"], "out.xyz: the suffix '.xyz' is none that can be written"),
        (["nothing.png", "-o", "out.png"], "nothing.png: no such file"),
        (["nothing.png", "-o", "out.png", "--model", "x"], "nothing.png: no such file"),
        (["photo.png", "-o", "out.xyz", "--model", "x"], "out.xyz: the suffix '.xyz'"),
        (["text.png", "-o", "out.png"], "text.png is not an image we know;"),
        (["cut.jpg", "-o", "out.png"], "cut.jpg: "),
        (["photo.png", "-o", "out.png", "--max-megapixels", "0.0001"], "photo.png declares 9 x 13"),
    ],
)
def test_bad_words_are_one_line(photo: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    Path("text.png").write_text("not a picture")
    Path("taken.png").write_bytes(photo.read_bytes())
    Image.effect_noise((64, 64), 50).save("cut.jpg")
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[:700])
    assert refused(capsys, *words).startswith(message)


@pytest.mark.parametrize("red", ["disk", "memory", "bug"])
def test_trouble_with_the_machine_leaves_nothing(photo: Path, red: str, capsys: pytest.CaptureFixture[str]):
    pixels = np.asarray(Image.open(photo)).copy()
    pixels[0, 0] = 255, 0, 0
    Image.fromarray(pixels).save("red.png")
    refused(capsys, "red.png", "-o", "out.png", "--red", red, code=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_work_leaves_nothing(photo: Path, number: signal.Signals):
    process = start("invert", str(photo), "-o", "out.png", "--pause", "5")
    wait_for(lambda: list(Path().glob(".velatura-*")))
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "velatura: error: interrupted; nothing was written\n")
    assert [path.name for path in Path().iterdir()] == ["photo.png"]


def start(*words: str) -> subprocess.Popen[str]:
    """Run ``velatura`` with the tests' task in a process of its own."""
    program = (
        "import sys; from filters import Invert; from velatura.cli import app, main;"
        "from velatura.cli.common import image_command;"
        "app.command(image_command(Invert, examples='')); sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folder(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photos, "-o", "new/out", "--format", "webp") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("new/out: 3 done, 0.")
    assert sorted(path.name for path in Path("new/out").iterdir()) == ["a.webp", "b.webp", "c.webp", "manifest.jsonl"]
    assert invert(photos, "-o", "new/out", "--format", "webp", "--resume") == 0
    assert "0 done, 3 done before, 0." in capsys.readouterr().out


def test_folder_with_bad_files(photos: Path, capsys: pytest.CaptureFixture[str]):
    (photos / "b.png").write_text("text")
    assert invert(photos, "-o", "out") == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("velatura: failed: b.png: ")
    assert captured.out.startswith("out: 2 done, 1 failed, 0.")
    assert invert(photos, "-o", "out", "--overwrite", "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["done"], result["skipped"], result["failed"][0]["name"]) == (2, 0, "b.png")


def test_names_of_files_may_be_odd(photos: Path):
    for name in [b"\xff.png", "größe \n.png".encode(), b"-o.png"]:
        path = os.fsencode(photos / os.fsdecode(name))
        Path(os.fsdecode(path)).write_bytes((photos / "a.png").read_bytes())
    process = start("invert", str(photos), "-o", "out", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["done"] == 6
    process = start("invert", "-o", os.fsdecode(b"\xfe.png"), "--", os.fsdecode(b"photos/\xff.png"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "9 x 13" in out


def test_no_device_is_said_once(photos: Path, capsys: pytest.CaptureFixture[str]):
    for words in [(photos, "-o", "out"), (photos / "a.png", "-o", "out.png")]:
        assert invert(*words, "--device", "cuda:99") == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("velatura: error: ")
        assert captured.err.count("\n") == 1


def test_folder_is_refused_in_one_line(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert refused(capsys, photos, "-o", "photo.png").startswith("photo.png: is a file; expected a folder")
    assert refused(capsys, photos, "-o", photos).startswith("photos: is an input folder")
    (photos / "empty").mkdir()
    assert refused(capsys, photos / "empty", "-o", "out").startswith("photos/empty: holds no images")


def test_address_is_of_a_cluster(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert (
        refused(capsys, photos, "-o", "out", "--address", "auto") == "--address is of a Ray cluster; add --engine ray"
    )


def test_url_that_holds_a_password_is_refused_without_it(photos: Path, capsys: pytest.CaptureFixture[str]):
    message = refused(capsys, photos, "-o", "s3://name:hush@bucket/out")
    assert "holds a secret" in message
    assert "hush" not in message


def test_file_urls_are_paths(photos: Path):
    here = Path.cwd().as_uri()
    assert invert(f"{here}/photos", "-o", f"{here}/out") == 0
    assert Path("out/a.png").is_file()
    assert invert(f"{here}/photos/a.png", "-o", f"{here}/one.png") == 0
    assert Path("one.png").is_file()


def test_resumed_folder_keeps_its_threads(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert invert(photos, "-o", "out", "--threads", "7") == 0
    (photos / "d.png").write_bytes((photos / "a.png").read_bytes())
    assert invert(photos, "-o", "out", "--resume", "--threads", "6") == 2
    assert "begun with threads 7, now it is 6" in capsys.readouterr().err
    assert invert(photos, "-o", "out", "--resume", "--jobs", "2") == 0
    assert "1 done, 3 done before" in capsys.readouterr().out
    assert invert(photos, "-o", "new", "--resume") == 0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_folder_resumes(photos: Path, jobs: str, capsys: pytest.CaptureFixture[str]):
    words = ["invert", str(photos), "-o", "out", "--pause", "0.1", "--threads", "1", "--jobs", jobs]
    process = start(*words)
    wait_for(lambda: Path("out/a.png").exists() or Path("out/b.png").exists())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert "--resume" in err
    assert not list(Path("out").glob(".velatura-*"))
    lines = Path("out/manifest.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert main([*words, "--resume"]) == 0
    assert f"{4 - len(lines)} done, {len(lines) - 1} done before" in capsys.readouterr().out or len(lines) == 1
    assert len({path.read_bytes() for path in Path("out").glob("*.png")}) == 1
