"""``velatura demo``: what it writes, what it says, and that its words do what it did."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from velatura import samples
from velatura.cli import main
from velatura.cli.demo import contact_sheet


@pytest.fixture(autouse=True)
def _one_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samples, "SCENES", {"cat": samples.cat})
    monkeypatch.setattr(samples, "SHRUNK", {"face": samples.face})


def test_pictures_and_words(capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "-o", "my pictures"]) == 0
    said = capsys.readouterr().out
    folder = Path("my pictures/blend/cat")
    scene = samples.cat()
    for name in ("source", "mask", "destination"):
        assert np.array_equal(np.asarray(Image.open(folder / f"{name}.png")), getattr(scene, name))
    made = {name: np.asarray(Image.open(folder / f"{name}.png")) for name in ("paste", "poisson", "gp-gan")}
    assert all(picture.shape == scene.destination.shape for picture in made.values())
    assert not np.array_equal(made["paste"], made["poisson"])
    assert f"{folder / 'sheet.jpg'}: a cat in the coffee" in said

    enlarged = Path("my pictures/upscale/face")
    photograph = samples.face()
    assert np.array_equal(np.asarray(Image.open(enlarged / "small.png")), photograph.small)
    assert np.asarray(Image.open(enlarged / "bicubic.png")).shape == photograph.original.shape
    assert np.asarray(Image.open(enlarged / "evidence.png")).shape == photograph.original.shape[:2]
    assert f"{enlarged / 'sheet.jpg'}: a face" in said

    command = next(line for line in said.splitlines() if line.startswith("  velatura upscale"))
    words = shlex.split(command)[1:]
    assert main(words) == 0
    assert Path("face.png").read_bytes() == (enlarged / f"{words[words.index('--model') + 1]}.png").read_bytes()

    command = next(line for line in said.splitlines() if line.startswith("  velatura blend"))
    assert main(shlex.split(command)[1:]) == 0
    assert Path("cat.png").read_bytes() == (folder / "gp-gan.png").read_bytes()


def test_earlier_pictures_stay_unless_overwritten(capsys: pytest.CaptureFixture[str]):
    folder = Path("velatura-demo/blend/cat")
    folder.mkdir(parents=True)
    (folder / "poisson.png").write_text("precious")
    (folder / "notes.txt").write_text("mine")
    assert main(["demo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err
        == f"velatura: error: {folder / 'poisson.png'} exists; name another folder with -o, or add --overwrite\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "poisson.png"]

    assert main(["demo", "--overwrite"]) == 0
    assert Image.open(folder / "poisson.png").size == (600, 420)
    assert (folder / "notes.txt").read_text() == "mine"


def test_folder_that_is_a_file(capsys: pytest.CaptureFixture[str]):
    Path("velatura-demo").write_text("a file")
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_contact_sheet_shows_every_picture():
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    plain = {name: np.full((30, 40, 3), colour, np.uint8) for name, colour in colours.items()}
    tall = {"tall": np.full((90, 10), 255, np.uint8)}
    sheet = contact_sheet([tall, plain], width=80)
    shown = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert {*colours.values(), (255, 255, 255)} <= shown
    assert sheet.width == 3 * 88 + 8
