"""The scenes of the demo: offline, as the tasks want them, the same every time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from velatura import blend
from velatura.samples import SCENES, SHRUNK, soft_mask


@pytest.mark.parametrize("name", SCENES)
def test_scene_is_sound(name: str):
    scene, again = SCENES[name](), SCENES[name]()
    assert scene.source.dtype == scene.destination.dtype == scene.mask.dtype == np.uint8
    assert scene.mask.shape == scene.source.shape[:2]
    assert scene.mask.max() == 255
    assert 0.1 < (scene.mask > 127).mean() < 0.8
    for part in ("source", "mask", "destination"):
        assert np.array_equal(getattr(scene, part), getattr(again, part))
    # The piece lies in the destination, up to a strip at its border.
    height, width = (round(size * scene.scale) for size in scene.mask.shape)
    (left, top), (rows, cols) = scene.at, scene.destination.shape[:2]
    assert top + height <= rows
    assert left >= 0
    assert left + width <= cols


@pytest.mark.parametrize("name", SCENES)
def test_seam_is_closed(name: str):
    """Along the seam the piece takes the colours around it, which pasting leaves as they were."""
    scene = SCENES[name]()
    height, width = (round(size * scene.scale) for size in scene.mask.shape)
    placed = Image.new("L", scene.destination.shape[1::-1])
    placed.paste(Image.fromarray(scene.mask).resize((width, height)), scene.at)
    mask = np.asarray(placed)
    within = (mask > 250) & ~binary_erosion(mask > 250, iterations=5)
    around = (mask == 0) & binary_dilation(mask > 0, iterations=5)

    def step(method: str) -> float:
        out = blend(
            scene.source, scene.destination, scene.mask, at=scene.at, scale=scene.scale, method=method
        ).image.astype(float)
        return float(np.abs(out[within].mean(0) - out[around].mean(0)).max())

    assert step("poisson") < 0.8 * step("paste")
    assert step("gaussian-poisson") < 0.9 * step("paste")


def test_light_has_a_known_answer():
    scene = SCENES["light"]()
    inside = scene.mask == 255

    def error(method: str) -> float:
        out = blend(scene.source, scene.destination, scene.mask, method=method).image
        return float(np.abs(out.astype(float) - scene.destination)[inside].mean())

    pasted = error("paste")
    assert pasted > 15
    assert error("gp-gan") < 0.5 * min(pasted, error("poisson"))


@pytest.mark.parametrize("name", SHRUNK)
def test_what_was_shrunk_can_be_enlarged_again(name: str):
    photograph, again = SHRUNK[name](), SHRUNK[name]()
    small, original = photograph.small, photograph.original
    assert small.dtype == original.dtype == np.uint8
    assert tuple(4 * side for side in small.shape[:2]) == original.shape[:2]
    assert np.array_equal(small, again.small)
    assert np.abs(small.mean((0, 1)) - original.mean((0, 1))).max() < 0.5
    assert original.std() > 30


def test_corners_outside_are_cut_off():
    mask = soft_mask(np.zeros((4, 6, 3), np.uint8), [(-5, -5), (2, -5), (2, 9), (-5, 9)], softness=0)
    assert np.array_equal(mask[0], [255, 255, 255, 0, 0, 0])


def test_nothing_is_downloaded_and_no_torch_is_loaded():
    code = """
import socket, sys
def refuse(*_, **__): raise AssertionError("the network is asked")
socket.socket.connect = refuse
sys.modules["pooch"] = None  # scikit-image's downloader
from velatura.samples import SCENES, SHRUNK
for make in (*SCENES.values(), *SHRUNK.values()): make()
print("torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr
