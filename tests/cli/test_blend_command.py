"""``velatura blend`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from velatura.cli import main


@pytest.fixture(autouse=True)
def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save("lake.png")
    for name in ["boats/a.png", "boats/b.png"]:
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 9, 3), np.uint8)).save(name)
    for name in ["masks/a.png", "masks/b.png", "empty.png"]:
        Path(name).parent.mkdir(exist_ok=True)
        mask = np.zeros((8, 9), np.uint8)
        mask[2:6, 3:7] = 0 if name == "empty.png" else 255
        Image.fromarray(mask).save(name)


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_one_piece(capsys: pytest.CaptureFixture[str]):
    words = "blend boats/a.png lake.png masks/a.png --method paste --at -1,5 -o out.png --json"
    assert main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["width"], result["height"], result["made_by"]) == ("out.png", 30, 20, None)
    assert (result["params"]["at"], result["params"]["method"]) == ([-1, 5], "paste")
    expected = pixels("lake.png").copy()
    expected[7:11, 2:6] = pixels("boats/a.png")[2:6, 3:7]
    assert np.array_equal(pixels("out.png"), expected)


def test_folder_of_pieces_with_their_masks(capsys: pytest.CaptureFixture[str]):
    words = "blend boats lake.png masks --method paste --at 1,1 -o out"
    assert main(words.split()) == 0
    assert "2 done" in capsys.readouterr().out
    for name in ["a", "b"]:
        expected = pixels("lake.png").copy()
        expected[3:7, 4:8] = pixels(f"boats/{name}.png")[2:6, 3:7]
        assert np.array_equal(pixels(f"out/{name}.png"), expected)


@pytest.mark.parametrize(
    "words",
    [
        "boats/a.png lake.png lake.png",  # a mask of another size
        "boats/a.png lake.png empty.png",
        "boats/a.png lake.png nothing.png",
        "boats/a.png lake.png masks/a.png --at 1",
        "boats/a.png lake.png masks/a.png --scale 0",
        "boats/a.png lake.png masks/a.png --max-megapixels 0.0005",  # what a decompression bomb meets
    ],
)
def test_bad_input_is_one_line(words: str, capsys: pytest.CaptureFixture[str]):
    assert main(f"blend {words} --method paste -o out.png".split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("velatura: error: ")
    assert captured.err.count("\n") == 1
    assert not Path("out.png").exists()
