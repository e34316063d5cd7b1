"""``velatura restore`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restorers import ship
from skimage import data

from velatura import Restore, catalog
from velatura.cli import main


@pytest.fixture(scope="module", autouse=True)
def _shipped(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        yield ship(tmp_path_factory.mktemp("models"), patch)
    catalog._read_catalog.cache_clear()


@pytest.fixture(autouse=True)
def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(["photo.png", "photos/a.png", "photos/sub/b.jpg"]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.astronaut()[60 + index : 100 + index, 200:250]).save(name)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:14] = 255
    Image.fromarray(mask).save("mask.png")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("velatura: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_one_photograph(capsys: pytest.CaptureFixture[str]):
    words = "restore photo.png -o out.png --mask-out marks.png --compare sheet.png --strength 0.7 --json"
    assert main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["width"], result["height"], result["made_by"]) == ("out.png", 50, 40, "direct")
    assert result["maps"] == {"mask_out": "marks.png", "compare": "sheet.png"}
    expected = Restore()(pixels("photo.png"), strength=0.7).image
    np.testing.assert_array_equal(pixels("out.png"), expected)
    assert pixels("marks.png").shape == (40, 50)
    np.testing.assert_array_equal(pixels("sheet.png")[:, 58:], expected)
    again = "restore photo.png --scratches marks.png --strength 0.7 -o again.png"
    assert main(again.split()) == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()


@pytest.mark.parametrize(
    ("word", "given"), [("off", "off"), ("auto", "auto"), ("mask.png", None), ("./mask.png", None)]
)
def test_scratches_are_a_word_or_a_file(word: str, given: str | None):
    assert main(f"restore photo.png -o out.png --scratches {word}".split()) == 0
    photo = pixels("photo.png")
    np.testing.assert_array_equal(pixels("out.png"), Restore()(photo, given or pixels("mask.png")).image)


def test_options_reach_the_work(capsys: pytest.CaptureFixture[str]):
    words = "restore photo.png -o out.png --no-fading --no-faces --model triplet --json"
    assert main(words.split()) == 2
    assert "triplet undoes fading by itself" in one_line(capsys)
    assert main(words.replace("--no-fading ", "").split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["made_by"], result["params"]["faces"], result["params"]["fading"]) == ("triplet", False, None)
    assert main(["restore", "photo.png", "-o", "out.png", "--overwrite", "--faces"]) == 0
    assert capsys.readouterr().err.count("velatura: warning: faces are not refined") == 1


def test_a_folder_takes_a_folder_of_masks(capsys: pytest.CaptureFixture[str]):
    assert main(["restore", "photos", "-o", "first", "--mask-out", "marks"]) == 0
    assert main(["restore", "photos", "-o", "second", "--scratches", "marks"]) == 0
    for name in ("a.png", "sub/b.jpg"):
        assert Path("second", name).read_bytes() == Path("first", name).read_bytes()
    Path("marks/a.png.png").unlink()
    assert main(["restore", "photos", "-o", "third", "--scratches", "marks"]) == 1
    assert "a.png: no scratches a.* in marks" in capsys.readouterr().err


def test_what_is_refused(capsys: pytest.CaptureFixture[str]):
    for words, complaint in [
        ("--scratches no.png", "no.png: no such file"),
        ("--scratches photos/sub/c.png", "no such file"),
        ("--strength 2", "option 'strength'"),
        ("--model direkt", "unknown model 'direkt'; expected direct, triplet, or a file"),
        ("--mask-out out.png", "is to hold the result and its mask_out"),
        ("--mask-out photo.png", "photo.png"),
    ]:
        assert main(f"restore photo.png -o out.png {words}".split()) == 2
        assert complaint in one_line(capsys)
    Image.new("L", (9, 9)).save("small.png")
    assert main(["restore", "photo.png", "-o", "out.png", "--scratches", "small.png"]) == 2
    assert "mask of scratches is 9x9, photograph 50x40" in one_line(capsys)
    assert not Path("out.png").exists()


def test_help_names_words_and_file(capsys: pytest.CaptureFixture[str]):
    assert main(["restore", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "auto|off|FILE" in said
    for flag in ("--mask-out", "--compare", "--faces", "--no-faces", "--face-strength", "--no-fading", "--model"):
        assert flag in said
