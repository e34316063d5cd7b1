"""``velatura upscale`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from upscalers import make, save

from velatura import Upscale
from velatura.cli import main


@pytest.fixture(autouse=True)
def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ["photo.png", "photos/a.png", "photos/sub/b.jpg"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (10, 15, 3), np.uint8)).save(name)
    save(tmp_path, "srresnet", name="net")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("velatura: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_one_photograph(capsys: pytest.CaptureFixture[str]):
    words = "upscale photo.png -o out.png --model net.safetensors --scale 2.5 --evidence map.png --consistent --json"
    assert main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["width"], result["height"], result["made_by"]) == ("out.png", 38, 25, "net")
    assert (result["params"]["scale"], result["params"]["consistent"]) == (2.5, True)
    assert result["maps"] == {"evidence": "map.png"}
    assert pixels("out.png").shape == (25, 38, 3)
    assert pixels("map.png").shape == (25, 38)
    assert main([*words.replace("out.png", "again.png").replace("map.png", "map2.png").split()]) == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    assert Path("map2.png").read_bytes() == Path("map.png").read_bytes()


def test_what_is_said_names_the_map(capsys: pytest.CaptureFixture[str]):
    words = "upscale photo.png -o out.png --model bicubic --evidence map.png"
    assert main(words.split()) == 0
    assert re.fullmatch(r"out\.png: 60 x 40, \d+ KiB, [0-9.]+ s; evidence: map\.png\n", capsys.readouterr().out)
    assert main([*words.replace("--evidence map.png", "--overwrite").split()]) == 0
    assert capsys.readouterr().out.endswith(" s\n")


@pytest.mark.parametrize(
    ("words", "size"),
    [("--scale 3", (45, 30)), ("--size 40x", (40, 27)), ("--size x20", (30, 20)), ("--size 20x80", (20, 80))],
)
def test_sizes(words: str, size: tuple[int, int]):
    assert main(f"upscale photo.png -o out.tif --model lanczos {words}".split()) == 0
    assert Image.open("out.tif").size == size


def test_a_folder_makes_a_folder(capsys: pytest.CaptureFixture[str]):
    words = "upscale photos -o large --model bicubic --scale 2 --evidence maps"
    assert main(words.split()) == 0
    assert re.fullmatch(r"large: 2 done, [0-9.]+ s; evidence: maps\n", capsys.readouterr().out)
    assert Image.open("large/a.png").size == Image.open("large/sub/b.jpg").size == (30, 20)
    assert sorted(path.as_posix() for path in Path("maps").rglob("*.png")) == ["maps/a.png.png", "maps/sub/b.jpg.png"]
    assert main([*words.split(), "--resume"]) == 0
    assert "2 done before" in capsys.readouterr().out


def huge() -> None:
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    Path("huge.png").write_bytes(head + struct.pack(">I", zlib.crc32(head[12:])))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("photo.png --scale 9", "scale"),
        ("photo.png --scale x", "scale"),
        ("photo.png --size 5x5", "size 5x5 is out of reach for 15x10"),
        ("photo.png --size 40", "expected WxH"),
        ("photo.png --realism 0.5", "bicubic is none, take srgan, esrgan"),
        ("photo.png --kernel cubic", "bicubic"),
        ("photo.png --evidence photo.png", "photo.png"),
        ("photo.png --evidence out.png", "out.png"),
        ("absent.png", "absent.png: no such file"),
        ("text.png", "text.png"),
        ("empty.png", "empty.png"),
        ("cut.png", "cut.png"),
        ("huge.png", "400 megapixels; the limit is 100"),
        ("photo.png --max-megapixels 0.0001", "megapixels"),
    ],
)
def test_bad_input_is_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    Path("text.png").write_text("hello")
    Path("empty.png").write_bytes(b"")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:60])
    huge()
    before = sorted(Path().iterdir())
    assert main(f"upscale {words} --model bicubic -o out.png".split()) == 2
    assert message in one_line(capsys)
    assert sorted(Path().iterdir()) == before


def test_results_that_no_format_holds_are_refused_before_the_work(capsys: pytest.CaptureFixture[str]):
    Image.new("RGB", (9000, 8)).save("wide.png")
    assert main(["upscale", "wide.png", "-o", "out.jpg", "--model", "bicubic", "--scale", "8"]) == 2
    assert "65" in one_line(capsys)  # what JPEG holds
    assert not Path("out.jpg").exists()


def test_an_unknown_model_is_answered_with_those_that_are_known(capsys: pytest.CaptureFixture[str]):
    assert main(["upscale", "photo.png", "-o", "out.png", "--model", "nope"]) == 2
    said = one_line(capsys)
    assert "unknown model 'nope'; expected srresnet, " in said
    assert "bicubic, lanczos, or a file (.safetensors" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("photo.png -o no/out.png", "no/out.png"),
        ("photo.png -o out.xyz", "out.xyz"),
        ("photo.png -o out.png --evidence map.xyz", "map.xyz"),
        ("photo.png -o out.png --evidence out.png", "two files"),
        ("absent.png -o out.png", "absent.png: no such file"),
    ],
)
def test_a_slip_in_a_name_is_told_before_a_model_is_read(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Upscale, "_load", None)  # calling it would be an error of another kind
    assert main([*f"upscale {words} --model net.safetensors".split()]) == 2
    assert message in one_line(capsys)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("it-ran"),)


@pytest.mark.parametrize("damage", ["keys", "nan", "pickle", "short", "text", "absent"])
def test_a_bad_checkpoint_is_refused(damage: str, capsys: pytest.CaptureFixture[str]):
    state = dict(make("srvgg").state_dict())
    if damage == "keys":
        state["body.9.weight"] = state.pop("body.8.weight")
    if damage == "nan":
        state["body.0.bias"] = state["body.0.bias"] * float("nan")
    torch.save({"params": state} | ({"more": Bomb()} if damage == "pickle" else {}), "bad.pth")
    if damage == "short":
        Path("bad.pth").write_bytes(Path("bad.pth").read_bytes()[:-500])
    if damage == "text":
        Path("bad.pth").write_text("hello")
    if damage == "absent":
        Path("bad.pth").unlink()
    assert main(["upscale", "photo.png", "-o", "out.png", "--model", "bad.pth"]) == 2
    assert "bad.pth" in one_line(capsys)
    assert not Path("out.png").exists()
    assert not Path("it-ran").exists()


def test_ctrl_c_leaves_nothing():
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)).save("large.png")
    program = "import sys; from velatura.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["upscale", "large.png", "-o", "out.png", "--model", "net.safetensors", "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
    before = set(Path().iterdir())
    deadline = time.monotonic() + 60
    while not set(Path().iterdir()) - before and time.monotonic() < deadline:
        time.sleep(0.05)  # until the partial file is there
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "velatura: error: interrupted; nothing was written\n"
    assert set(Path().iterdir()) == before


def test_help_names_options_and_maps(capsys: pytest.CaptureFixture[str]):
    assert main(["upscale", "--help"]) == 0
    text = capsys.readouterr().out
    assert "bicubic, lanczos, or a file [default: srresnet]" in " ".join(text.replace("│", " ").split())
    for word in ("--scale", "--size", "--realism", "--consistent", "--kernel", "--evidence", "--model", "--memory"):
        assert word in text
