"""``velatura imagine`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import imaginers
import numpy as np
import pytest
from PIL import Image

from velatura.cli import main
from velatura.tasks.imagine import imagine

MODEL = ["--model", "words.safetensors"]


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    imaginers.save(tmp_path)


def test_a_folder_and_a_grid(capsys: pytest.CaptureFixture[str]):
    words = ["imagine", "a mauve flower", "-n", "3", "--seed", "7", "-o", "out", "--grid", "grid.png", "--json", *MODEL]
    assert main(words) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["count"], result["width"], result["made_by"], result["unknown"]) == (3, 64, "words", ["mauve"])
    assert captured.err.count("does not know mauve") == 1
    with pytest.warns(UserWarning, match="mauve"):
        made = imagine("a mauve flower", model="words.safetensors", count=3, seed=7)
    assert np.array_equal(np.asarray(Image.open("out/0002.png")), made.pictures[2].pixels)
    assert np.array_equal(np.asarray(Image.open("grid.png")), made.grid.pixels)
    assert main(words) == 2  # nothing is replaced


def test_a_grid_alone(capsys: pytest.CaptureFixture[str]):
    assert main(["imagine", "red", "-n", "3", "--grid", "grid.png", "--json", *MODEL]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["files"]) == ("grid.png", ["grid.png"])
    assert [path for path in Path().iterdir() if path.is_dir()] == []


def test_interpolation_and_style():
    assert main(["imagine", "--interpolate", "red", "a blue flower", "--frames", "3", "-o", "between", *MODEL]) == 0
    assert len(list(Path("between").iterdir())) == 3
    assert main(["imagine", "red", "--style", "between/0001.png", "-o", "styled", "-q", *MODEL]) == 0
    assert main(["imagine", "red", "--style", "between/0000.png", "-o", "between", "--overwrite", *MODEL]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["red", "-o", "out.png", *MODEL], "expected a folder"),
        (["red", "-o", "out", "--frames", "3", *MODEL], "--frames belongs to --interpolate"),
        (["--interpolate", "red", "blue", "-n", "3", "-o", "out", *MODEL], "-n belongs to a text"),
        (["-o", "out", *MODEL], "expected a text"),
        (["red", "-n", "0", "-o", "out", *MODEL], "count"),
        (["red", *MODEL], "nowhere to write"),
        (["red", "-o", "out", "--device", "tpu", *MODEL], "unknown device"),
        (["red", "-o", "out", "--model", "srcnn"], "TextToImage"),
        (["red", "-o", "out", "--style", "none.png", *MODEL], "none.png"),
    ],
)
def test_refused_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["imagine", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("out").exists()
