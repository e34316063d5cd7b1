"""``velatura pipeline`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from velatura.cli import main

PLAIN = "upscale:scale=2,model=bicubic"


@pytest.fixture(autouse=True)
def _images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ["a photo.png", "photos/a.png", "photos/sub/b.jpg"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (10, 15, 3), np.uint8)).save(name)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("velatura: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_one_photograph(capsys: pytest.CaptureFixture[str]):
    words = ["--step", PLAIN, "--step", "upscale:size=90x,model=lanczos", "--compare", "sheet.png", "--json"]
    assert main(["pipeline", "a photo.png", "-o", "out.png", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["width"], result["height"]) == ("out.png", 90, 60)
    assert [one["application"] for one in result["params"]["step"]] == ["upscale", "upscale"]
    assert result["maps"] == {"compare": "sheet.png"}
    assert Image.open("out.png").size == (90, 60)
    assert Image.open("sheet.png").width == 2 * 90 + 3 * 6


def test_commands_one_after_the_other_give_the_same():
    assert main(["upscale", "a photo.png", "-o", "one.png", "--scale", "2", "--model", "bicubic"]) == 0
    assert main(["upscale", "one.png", "-o", "two.png", "--scale", "2", "--model", "bicubic"]) == 0
    assert main(["pipeline", "a photo.png", "-o", "out.png", "--step", PLAIN, "--step", PLAIN]) == 0
    assert Path("out.png").read_bytes() == Path("two.png").read_bytes()


def test_a_folder_makes_a_folder(capsys: pytest.CaptureFixture[str]):
    words = ["pipeline", "photos", "-o", "large", "--step", PLAIN, "--step", PLAIN, "--compare", "sheets"]
    assert main(words) == 0
    assert re.fullmatch(r"large: 2 done, [0-9.]+ s; compare: sheets\n", capsys.readouterr().out)
    assert Image.open("large/a.png").size == Image.open("large/sub/b.jpg").size == (60, 40)
    assert sorted(path.as_posix() for path in Path("sheets").rglob("*.png")) == [
        "sheets/a.png.png",
        "sheets/sub/b.jpg.png",
    ]
    assert main([*words, "--resume"]) == 0
    assert "2 done before" in capsys.readouterr().out
    assert main([*words[:6], "--resume"]) == 2
    assert "was begun with" in capsys.readouterr().err


@pytest.mark.parametrize("image", ["a photo.png", "photos"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "a pipeline needs steps"),
        ("--step", "--step needs a value"),
        (f"--step {PLAIN} --step colorize:style=a.jpg", "step 2: there is no application 'colorize' here; there are "),
        (f"--step {PLAIN} --step upscale:scale=x", "step 2 (upscale): option 'scale': got 'x'"),
        ("--step upscale:scal=2", "did you mean 'scale'?"),
        ("--step upscale:evidence=map.png", "evidence is a picture beside the result"),
        ("--step blend:at=1,2", "step 1 (blend): needs source"),
        ("--step blend:source=absent.png", "step 1 (blend): absent.png: no such file"),
        ("--step upscale:model=nope", "step 1 (upscale): unknown model 'nope'"),
        (f"--step {PLAIN} --model srresnet", "unknown option '--model'"),
    ],
)
def test_bad_input_is_one_line(words: str, message: str, image: str, capsys: pytest.CaptureFixture[str]):
    assert main(["pipeline", image, "-o", "out.png" if image.endswith("png") else "out", *words.split()]) == 2
    assert message in one_line(capsys)
    assert not Path("out.png").exists()
    if "nope" not in words:  # as with any command, a batch has begun when its models are read
        assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o out.xyz", "out.xyz"),
        ("-o no/out.png", "no/out.png"),
        ("-o out.png --compare out.png", "two files"),
        ("-o out.png --max-megapixels 0.0004", "step 1 (upscale): makes 30 x 20"),
    ],
)
def test_bad_outputs_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["pipeline", "a photo.png", "--step", PLAIN, "--step", PLAIN, *words.split()]) == 2
    assert message in one_line(capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["a photo.png", "photos"]


def test_help_says_what_a_step_is(capsys: pytest.CaptureFixture[str]):
    assert main(["pipeline", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "NAME:option=value,option=value" in text
    assert "--model" not in text.partition("Examples")[0]
    assert "--compare" in text
