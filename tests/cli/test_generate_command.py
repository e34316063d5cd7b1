"""``velatura generate`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import generators
import numpy as np
import pytest
from PIL import Image

from velatura import Generate
from velatura.cli import main


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    generators.save(tmp_path)


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_folder_a_grid_and_latents(capsys: pytest.CaptureFixture[str]):
    words = "generate dcgan.safetensors -n 3 --seed 7 -o out --grid grid.png --save-latents z.safetensors --json"
    assert main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["count"], result["width"], result["made_by"], result["params"]["seed"]) == (3, 32, "dcgan", 7)
    assert [path.name for path in sorted(Path("out").iterdir())] == ["0000.png", "0001.png", "0002.png"]
    assert [Path(path).is_file() for path in result["files"]] == [True] * 5
    made = Generate("dcgan.safetensors")(3, seed=7)
    assert np.array_equal(pixels("out/0002.png"), made.pictures[2].pixels)
    assert np.array_equal(pixels("grid.png"), made.grid.pixels)
    assert main(words.split()) == 2  # nothing is replaced
    words = "generate dcgan.safetensors --latents z.safetensors -q -o again"
    assert main(words.split()) == 0
    for name in ("0000.png", "0001.png", "0002.png"):
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()


def test_a_grid_alone(capsys: pytest.CaptureFixture[str]):
    words = "generate dcgan.safetensors -n 3 --seed 7 --grid grid.png --save-latents z.safetensors"
    assert main(words.split()) == 0
    assert capsys.readouterr().out.startswith("grid.png: 3 images, 32 x 32")
    assert [path for path in Path().iterdir() if path.is_dir()] == []
    assert np.array_equal(pixels("grid.png"), Generate("dcgan.safetensors")(3, seed=7).grid.pixels)


def test_an_interpolation_as_images_and_as_an_animation(capsys: pytest.CaptureFixture[str]):
    words = "generate lapgan.safetensors --class sea --interpolate 0,2 --frames 3"
    assert main([*words.split(), "-o", "out"]) == 0
    assert "3 images, 32 x 32" in capsys.readouterr().out
    assert len(list(Path("out").iterdir())) == 3
    assert main([*words.split(), "-o", "film.webp"]) == 0
    with Image.open("film.webp") as film:
        assert film.n_frames == 4


def test_draws_of_a_photograph():
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save("photo.png")
    words = "generate lapgan.safetensors -n 2 --from photo.png --class-name forest"
    assert main([*words.split(), "-o", "out"]) == 0
    assert not np.array_equal(pixels("out/0000.png"), pixels("out/0001.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dcgan.safetensors -o out.png", "expected a folder; --grid FILE"),
        ("dcgan.safetensors -o dcgan.safetensors", "is a file; expected a folder"),
        ("dcgan.safetensors -n 0 -o out", "option 'count'"),
        ("dcgan.safetensors --frames 4 -o out", "--frames belongs to --interpolate"),
        ("dcgan.safetensors --interpolate 1 -o out", "option 'interpolate'"),
        ("dcgan.safetensors --class sea -o out", "knows no classes"),
        ("dcgan.safetensors --device tpu -o out", "unknown device 'tpu'"),
        ("dcgan.safetensors --grid vae.safetensors -o out", "vae.safetensors: exists"),
        ("dcgan.safetensors -n 2", "nowhere to write: -o DIR for a file each, --grid FILE"),
        ("vae-face -o out", "did you mean 'vae-faces'"),
    ],
)
def test_mistakes_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
