"""``velatura stylize`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stylers import save

from velatura import Stylize
from velatura.cli import main

MODEL = "--model styler.safetensors"


@pytest.fixture(autouse=True)
def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ["photo.png", "a.png", "b.png", "frames/0001.png", "frames/0002.png"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (36, 40, 3), np.uint8)).save(name)
    save(tmp_path)


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_one_photograph(capsys: pytest.CaptureFixture[str]):
    words = f"stylize photo.png a.png b.png --weights 3,1 -o out.png {MODEL} --style-out mixed.safetensors --json"
    assert main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["width"], result["height"], result["made_by"]) == (40, 36, "styler")
    expected = Stylize("styler.safetensors")("photo.png", ["a.png", "b.png"], weights=(3, 1)).image
    assert np.array_equal(pixels("out.png"), np.asarray(expected))
    assert main(f"stylize photo.png mixed.safetensors -o again.png {MODEL}".split()) == 0
    assert np.array_equal(pixels("again.png"), pixels("out.png"))
    # What stands beside the result is replaced where the result may be.
    assert main(words.split()) == 2
    assert main([*words.split(), "--overwrite"]) == 0


def test_frames_by_a_fixed_style():
    assert main(f"stylize photo.png a.png -o out.png {MODEL} --style-out a.safetensors".split()) == 0
    assert main(f"stylize frames a.safetensors -o painted {MODEL}".split()) == 0
    assert sorted(path.name for path in Path("painted").glob("*.png")) == ["0001.png", "0002.png"]
    expected = Stylize("styler.safetensors")("frames/0002.png", "a.png").image
    assert np.array_equal(pixels("painted/0002.png"), np.asarray(expected))


def test_optimisation_with_all_that_it_shows():
    words = "stylize photo.png a.png -o out.png --method optimize --steps 2 --frames steps --every 1 --curve loss.svg"
    assert main(words.split()) == 0
    assert sorted(path.name for path in Path("steps").iterdir()) == ["photo-00001.png", "photo-00002.png"]
    assert Path("loss.svg").read_text().count("<polyline") == 3
    assert np.array_equal(pixels("out.png"), pixels("steps/photo-00002.png"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("photo.png none.png", "none.png"),
        ("photo.png a.png none.png", "none.png"),
        ("photo.png a.png b.png --weights 1", "got 1 weights for 2 styles"),
        ("photo.png a.png --mask frames/0001.jpg", "frames/0001.jpg"),
        ("photo.png", "missing STYLE"),
        ("photo.png a.png --curve loss.svg", "add --method optimize"),
    ],
)
def test_refusals(words: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert main(f"stylize {words} -o out.png {MODEL}".split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert not Path("out.png").exists()
