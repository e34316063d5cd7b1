"""``velatura inpaint`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from inpainters import save_vae
from PIL import Image

from velatura.cli import main


@pytest.fixture(autouse=True)
def _images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stripes = np.tile(np.uint8([40, 40, 40, 200, 200, 200]), (48, 8))
    for name in ("a", "b"):
        for folder, image in (("photos", stripes), ("masks", np.zeros_like(stripes))):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = image.copy()
            if folder == "masks":
                image[20:30, 20:26] = 255
            Image.fromarray(image).save(f"{folder}/{name}.png")


def pixels(path):
    return np.asarray(Image.open(path))


def test_with_a_mask(capsys):
    assert main(["inpaint", "photos/a.png", "--mask", "masks/a.png", "-o", "out.png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["made_by"]) == ("out.png", None)
    assert np.abs(pixels("out.png").astype(int) - pixels("photos/a.png")).max() < 60


def test_a_folder_with_a_folder_of_masks():
    assert main(["inpaint", "photos", "--mask", "masks", "-o", "out", "--quiet"]) == 0
    assert pixels("out/a.png").shape == pixels("out/b.png").shape == (48, 48)


def test_candidates_lie_beside_the_output(capsys, tmp_path):
    """A model by file, of nothing that has to be found."""
    path = save_vae(tmp_path, "mine", subject="", channels=1)
    words = f"--mask masks/a.png --model {path} --steps 1 --candidates 3 --disagreement map.png --json"
    assert main(["inpaint", "photos/a.png", "-o", "out.png", *words.split()]) == 0
    assert json.loads(capsys.readouterr().out)["made_by"] == "mine"
    hole = pixels("masks/a.png") > 0
    for name in ("out", "out-candidate-2", "out-candidate-3"):
        assert np.array_equal(pixels(f"{name}.png")[~hole], pixels("photos/a.png")[~hole])
    assert not np.array_equal(pixels("out.png"), pixels("out-candidate-2.png"))
    assert pixels("map.png")[hole].any()


def test_candidates_of_a_batch(tmp_path):
    words = "--mask masks --model texture --candidates 2 --disagreement maps -o out --quiet"
    assert main(["inpaint", "photos", *words.split()]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "a-candidate-2.png",
        "a.png",
        "b-candidate-2.png",
        "b.png",
    ]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.png")) == ["a.png.png", "b.png.png"]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--mask photos/none.png",
        "--box 1,2,3",
        "--mask-color red",
        "--model vae",
        "--box 1,2,3,4 --disagreement map.png",
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, capsys, tmp_path):
    assert main(f"inpaint photos/a.png -o out.png {words}".split()) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
