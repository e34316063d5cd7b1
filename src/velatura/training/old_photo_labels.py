"""Real damage, marked by hand: what a detector of scratches is measured on beside what was drawn.

``old_photo_labels.toml`` beside this file says where damage lies on thirty crops of the set ``old_photos``; the
photographs themselves stay in the data folder.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import grey_dilation

from velatura.errors import InputError
from velatura.ops.damage import COVERED
from velatura.training.data import read_set

__all__ = ["SIDE", "Labelled", "draw", "read_labelled"]

SET = "old_photos"
SIDE = 144  # pixels of a crop
FINE = 8  # places per pixel that marks are drawn at


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A crop and what was marked on it.

    Attributes
    ----------
    name : str
        Of the photograph.
    place : (int, int)
        Column and row of the crop's corner.
    image : ndarray of float32, (SIDE, SIDE, 3)
        0..1.
    mask : ndarray of float32, (SIDE, SIDE)
        1 where a mark covers more than a quarter of a pixel, else 0.
    is_area : ndarray of bool, (SIDE, SIDE)
        Where the mark is an area, not a line or a spot.
    counts : ndarray of bool, (SIDE, SIDE)
        False where it could not be told, and on the pixels that touch a mark: a hand is no more exact than that.
    """

    name: str
    place: tuple[int, int]
    image: NDArray[np.float32]
    mask: NDArray[np.float32]
    is_area: NDArray[np.bool_]
    counts: NDArray[np.bool_]


def read_labelled(data: Path) -> list[Labelled]:
    """Cut the labelled crops out of the data folder's photographs.

    Raises
    ------
    InputError
        The set or one of its photographs is missing.
    """
    photographs = read_set(data, SET, "both")
    where = {Path(name).name: index for index, name in enumerate(photographs.names)}
    found = []
    for crop in _crops():
        if crop["file"] not in where:
            raise InputError(f"{SET} holds no {crop['file']}, which labels were made for; expected the set as it was")
        left, top = crop["place"]
        image = photographs[where[crop["file"]]][top : top + SIDE, left : left + SIDE]
        mask, unsure = draw(crop), draw({"areas": crop.get("unsure", ())})
        is_area = draw({"areas": crop.get("areas", ())}) > 0
        beside = grey_dilation(mask, (3, 3)) > mask
        unit = image.astype(np.float32) / np.float32(255)
        found.append(Labelled(crop["file"], (left, top), unit, mask, is_area, ~((unsure > 0) | beside)))
    return found


def draw(marks: dict[str, Any]) -> NDArray[np.float32]:
    """Draw the marks of a crop: 1 where they cover more than a quarter of a pixel, else 0.

    Parameters
    ----------
    marks : dict
        ``lines`` (width, then x and y of each point), ``areas`` (x and y of each corner), ``spots`` (x, y, radius).

    Returns
    -------
    ndarray of float32, (SIDE, SIDE)

    Examples
    --------
    >>> mask = draw({"lines": [[2, 10, 20, 30, 20]], "spots": [[5, 5, 1]]})
    >>> int(mask[19:21, 10:30].sum()), int(mask[4:6, 4:6].sum()), int(mask.sum())
    (40, 4, 44)
    """
    fine = Image.new("1", (FINE * SIDE, FINE * SIDE))
    pen = ImageDraw.Draw(fine)
    for width, *points in marks.get("lines", ()):
        pen.line([FINE * value for value in points], 1, round(FINE * width), joint="curve")
    for corners in marks.get("areas", ()):
        pen.polygon([FINE * value for value in corners], 1)
    for x, y, radius in marks.get("spots", ()):
        pen.ellipse([FINE * value for value in (x - radius, y - radius, x + radius, y + radius)], 1)
    cells = np.asarray(fine, np.float32).reshape(SIDE, FINE, SIDE, FINE)
    return (cells.mean((1, 3)) > COVERED).astype(np.float32)


@cache
def _crops() -> tuple[dict[str, Any], ...]:
    text = Path(__file__).with_suffix(".toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["crop"])
