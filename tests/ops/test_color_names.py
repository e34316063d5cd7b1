"""Words for colours, against OpenCV's conversion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from velatura.ops.color_names import COLORS, centre_color, color_names, hsv, petal_colors


def test_hsv_is_that_of_opencv():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    ours, theirs = hsv(rgb), cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(int)
    turn = np.abs(ours[..., 0] - theirs[..., 0])
    assert np.minimum(turn, 180 - turn).max() <= 1  # OpenCV's tables round once more
    assert np.abs(ours[..., 1:] - theirs[..., 1:]).max() <= 1


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((255, 0, 0), "red"),
        ((255, 140, 0), "orange"),
        ((250, 230, 10), "yellow"),
        ((20, 160, 30), "green"),
        ((30, 60, 220), "blue"),
        ((140, 40, 200), "purple"),
        ((240, 60, 170), "pink"),
        ((230, 150, 150), "pink"),  # pale red
        ((240, 240, 235), "white"),
        ((120, 120, 120), "grey"),
        ((10, 10, 10), "black"),
        ((100, 60, 10), "brown"),
    ],
)
def test_names(rgb: tuple[int, int, int], word: str):
    assert COLORS[color_names(np.array([rgb], np.uint8))[0]] == word


def flower(petals: tuple[int, int, int], centre: tuple[int, int, int], behind: tuple[int, int, int]) -> np.ndarray:
    y, x = np.mgrid[:80, :80]
    distance = np.hypot(y - 40, x - 40)
    image = np.full((80, 80, 3), behind, np.uint8)
    image[distance < 26] = petals
    image[distance < 9] = centre
    return image


def test_a_flower_on_grass():
    image = flower((230, 40, 40), (250, 220, 20), (40, 110, 40))
    assert petal_colors(image)[0] == "red"
    assert centre_color(image, ["red"]) == "yellow"
    assert centre_color(image, ["red", "yellow"]) is None


def test_the_background_is_not_the_flower():
    assert petal_colors(flower((250, 230, 20), (250, 230, 20), (60, 80, 220))) == ["yellow"]
    assert petal_colors(np.full((40, 40, 3), (20, 100, 20), np.uint8)) == []
