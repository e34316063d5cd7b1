"""``velatura inpaint`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
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


@pytest.mark.parametrize("words", ["", "--mask photos/none.png", "--box 1,2,3", "--mask-color red", "--model vae"])
def test_bad_input_is_one_line_and_exit_code_2(words, capsys, tmp_path):
    assert main(f"inpaint photos/a.png -o out.png {words}".split()) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
