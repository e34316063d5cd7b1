"""Inpainting beside OpenCV's Telea: time, detail, memory.

    python benchmarks/inpaint.py                       everything, into benchmarks/results/inpaint.json
    python benchmarks/inpaint.py --only texture        some parts, printed only
    python benchmarks/inpaint.py --quick               small holes, to see that it runs; printed only

One thread; CPU time is user plus system time of the process; both ways run in turn in one process, arrays in and arrays
out; the median counts. Detail is the mean absolute difference of neighbouring pixels in the hole, as a share of what
stood there: 1 is right, 0 is a smear. It says how a texture looks; the squared error would praise the smear.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from _common import Figure, command_line, cpu_seconds, in_own_process, resident

from velatura.device import limit_threads

PEER = "opencv telea"
TEXTURES = ("brick", "grass", "gravel")
SIDES = (32, 64, 128)  # of the hole, pixels


def ours(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from velatura import inpaint

    with limit_threads(1):
        return inpaint(image, mask, model="texture").image


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import cv2

    cv2.setNumThreads(1)
    return cv2.inpaint(image, mask, 5, cv2.INPAINT_TELEA)


def texture(model: str | None, quick: bool) -> Iterator[Figure]:
    """Detail and time on skimage's textures, a square hole in the middle."""
    from skimage import data

    ways = {"ours": ours, PEER: telea}
    for side in SIDES[: 1 if quick else None]:
        details: dict[str, list[float]] = {name: [] for name in ways}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for name in TEXTURES:
            image, mask = getattr(data, name)(), np.zeros((512, 512), np.uint8)
            start = (512 - side) // 2
            mask[start : start + side, start : start + side] = 255
            calls = {way: functools.partial(call, image, mask) for way, call in ways.items()}
            for way, runs in cpu_seconds(calls, rounds=1 if quick else 3).items():
                seconds[way].append(median(runs))
                details[way].append(detail(calls[way](), mask) / detail(image, mask))
        hole = f"{side}x{side}"
        for way in ways:
            share = float(np.mean(details[way]))
            yield Figure(part="texture", name=f"{way}, {hole}, detail", value=share, unit="of the original's")
        for way in ways:
            yield Figure(part="texture", name=f"{way}, {hole}", value=float(np.mean(seconds[way])), unit="CPU s")


def detail(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute difference of neighbours in the hole."""
    change = np.abs(np.diff(image.astype(float), axis=1))
    return float(change[mask[:, 1:] > 0].mean())


def file_to_file(folder: str) -> float:
    """Fill a hole of a large photograph; give the peak of memory of the process in MiB."""
    from velatura import Inpaint

    task = Inpaint.from_pretrained("texture")
    task.to_file(Path(folder, "photo.png"), out=Path(folder, "out.png"), box=(2000, 1500, 200, 200))
    return resident("VmHWM") / 2**20


def memory(model: str | None, quick: bool) -> Iterator[Figure]:
    """The whole process for a photograph of 12 megapixels."""
    from PIL import Image
    from skimage import data

    if quick:
        return
    photo = np.tile(data.coffee(), (8, 7, 1))[:3000, :4000]
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(photo).save(Path(folder, "photo.png"))
        value = in_own_process(file_to_file, folder)
    yield Figure(part="memory", name="12 megapixels, hole of 200x200, whole process", value=value, unit="MiB", bar=1024)


PARTS = {part.__name__: part for part in (texture, memory)}


if __name__ == "__main__":
    sys.exit(command_line("inpaint", "Inpainting beside OpenCV's Telea", __doc__ or "", PARTS, "texture"))
