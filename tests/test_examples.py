"""The examples run as they stand, in a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import velatura
from velatura.catalog import cards

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blend(tmp_path: Path):
    said = run("blend.py", tmp_path)
    assert "blended: ndarray, (420, 600, 3), uint8" in said
    assert "blending: 420 of 420 rows" in said
    assert "refused: source: got 451x300" in said
    folder = tmp_path / "velatura-example"
    methods = [np.asarray(Image.open(folder / f"{name}.png")) for name in ("paste", "poisson", "mixed", "gp-gan")]
    assert all(not np.array_equal(a, b) for i, a in enumerate(methods) for b in methods[:i])
    assert np.array_equal(np.asarray(Image.open(folder / "blended.tif")), methods[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["velatura-example"]
    run("blend.py", tmp_path)  # a second time


def test_upscale(tmp_path: Path):
    said = run("upscale.py", tmp_path)
    assert "enlarged: ndarray, (320, 320, 3), uint8" in said
    assert "upscaling: 320 of 320 rows" in said
    assert "refused: option 'scale'" in said
    folder = tmp_path / "velatura-example"
    sizes = {path.name: Image.open(path).size for path in folder.iterdir()}
    assert sizes["wide.tif"] == (200, 200)
    assert sizes["evidence.png"] == sizes["consistent.png"] == (320, 320)
    assert [path.name for path in tmp_path.iterdir()] == ["velatura-example"]
    run("upscale.py", tmp_path)  # a second time


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_tested(path: Path):
    assert f"test_{path.stem}" in globals()


def test_inpaint(tmp_path: Path):
    said = run("inpaint.py", tmp_path)
    assert "the same by box and by transparency: True True" in said
    assert "refused: mask is 300x100" in said
    assert (tmp_path / "velatura-example" / "inpainted.png").is_file()


def test_pipeline(tmp_path: Path):
    said = run("pipeline.py", tmp_path)
    assert "(160, 160, 3), uint8" in said
    assert "the same: True" in said
    assert "100 %: step 2 of 2, upscaling" in said
    assert "refused: step 2 (upscale): option 'scale'" in said
    folder = tmp_path / "velatura-example"
    assert Image.open(folder / "large.tif").size == Image.open(folder / "two-steps.png").size == (160, 160)
    run("pipeline.py", tmp_path)  # a second time


@pytest.mark.skipif(
    not {"direct", "scratch-detector", "fading-estimator"} <= {card.name for card in cards()},
    reason="its networks are not shipped yet",
)
def test_restore(tmp_path: Path):
    said = run("restore.py", tmp_path)
    assert "restored: ndarray, (256, 256, 3), uint8" in said
    assert "refused: mask of scratches is 9x9, photograph 256x256" in said
    folder = tmp_path / "velatura-example"
    assert Image.open(folder / "restored.tif").size == (256, 256)
    assert Image.open(folder / "before-and-after.png").size == (2 * 256 + 8, 256)
    run("restore.py", tmp_path)  # a second time


def test_stylize(tmp_path: Path):
    said = run("stylize.py", tmp_path)
    assert "optimised: (200, 300, 3), loss" in said
    assert "pictures: ['step-00010.png', 'step-00020.png']" in said
    assert "refused: unknown layer 'conv9'" in said
    folder = tmp_path / "velatura-example"
    assert Image.open(folder / "optimised.png").size == (300, 200)
    assert (folder / "loss.svg").is_file()


def test_generate(tmp_path: Path):
    said = run("generate.py", tmp_path)
    assert "made: 9 images of (64, 64) by vae-faces" in said
    assert "the same among others: True" in said
    assert "the same from latents: True" in said
    assert "enlarged: (256, 256)" in said
    assert "refused: vae-faces knows no classes" in said
    assert Image.open(tmp_path / "velatura-example" / "faces.png").size == (192, 192)


def test_imagine(tmp_path: Path):
    said = run("imagine.py", tmp_path)
    if velatura.Imagine.models():
        assert "refused:" in said
        assert (tmp_path / "velatura-example" / "imagined-between.png").is_file()
    else:
        assert "this version ships no model for pictures from words" in said
