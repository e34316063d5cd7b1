"""Restoration beside the usual way: Telea with a mask and non-local means; time, fidelity, memory, seams.

    python benchmarks/restore.py                       everything, into benchmarks/results/restore.json
    python benchmarks/restore.py --only time           some parts, printed only
    python benchmarks/restore.py --quick               small images, to see that it runs; printed only
    python benchmarks/restore.py --model FILE          another model than the default

One thread; CPU time is user plus system time of the process; both ways run in turn in one process, arrays in and arrays
out; the median counts. Photographs of scikit-image's, worn by `velatura.ops.damage.old_scan` without fading; the usual
way is given the true mask (OpenCV's Telea, then its non-local means, as strong as the noise by the median of Haar's
details), ours finds its own, but where it says otherwise. Fidelity is PSNR against the photograph. Memory is the
resident set's peak, torch included.
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
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common import LEVELS, Figure, command_line, cpu_seconds, in_own_process, photograph, resident

from velatura.device import limit_threads
from velatura.metrics.fidelity import RGB, psnr
from velatura.ops.damage import OLD, Worn, old_scan

MODEL = "direct"
NAMES = ("astronaut", "coffee", "chelsea")
WEAR = replace(OLD, faded=0, damaged=1, copied=(1, *OLD.copied[1:]))


@functools.cache
def task(model: str | None, memory: float = 512) -> Any:
    from velatura import Restore

    return Restore.from_pretrained(model, device="cpu", memory=memory)


def ours(image: np.ndarray, mask: np.ndarray | str, model: str | None) -> np.ndarray:
    with limit_threads(1):
        return task(model)(image, mask, faces=False, **_colours_alone(model)).image


def _colours_alone(model: str | None) -> dict[str, Any]:
    """Leave fading alone where that can be said; the triplet undoes it always."""
    return {} if task(model).network.undoes_fading else {"fading": False}


def usual(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import cv2

    from velatura.cli.evaluate_restore import noise_of

    cv2.setNumThreads(1)
    filled = cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA)
    sigma = LEVELS * noise_of(filled)
    return cv2.fastNlMeansDenoisingColored(filled, None, sigma, sigma, 7, 21)


def scans(side: int) -> list[Worn]:
    """Worn photographs, always the same."""
    from skimage import data

    found = []
    for index, name in enumerate(NAMES):
        image = getattr(data, name)()[:side, :side].astype(np.float32) / np.float32(LEVELS)
        found.append(old_scan(image, np.random.default_rng(index), WEAR))
    return found


def eight_bit(image: np.ndarray) -> np.ndarray:
    return np.rint(LEVELS * image.clip(0, 1)).astype(np.uint8)


def time(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds and fidelity on photographs of a quarter of a megapixel."""
    gains: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for scan in scans(96 if quick else 300)[: 1 if quick else None]:
        image, mask, target = eight_bit(scan.image), eight_bit(scan.damage), eight_bit(scan.faded)
        calls = {
            "ours, mask found": functools.partial(ours, image, "auto", model),
            "ours, true mask": functools.partial(ours, image, mask, model),
            "telea + non-local means, true mask": functools.partial(usual, image, mask),
        }
        before = psnr(image, target, RGB)
        for name, runs in cpu_seconds(calls, rounds=1 if quick else 3).items():
            seconds.setdefault(name, []).append(median(runs))
            gains.setdefault(name, []).append(psnr(calls[name](), target, RGB) - before)
    for name in gains:
        yield Figure(part="time", name=f"{name}, gain", value=float(np.mean(gains[name])), unit="dB", better="higher")
        yield Figure(part="time", name=name, value=float(np.mean(seconds[name])), unit="CPU s")


def seams(model: str | None, quick: bool) -> Iterator[Figure]:
    """Tiles beside the whole."""
    image = photograph("coffee", 300, 400) if quick else photograph("coffee", 900, 1200)
    with limit_threads(1):
        whole, tiled = (task(model, memory)(image, mask_out=True, faces=False) for memory in (4096, 32))
    apart = np.abs(whole.image.astype(int) - tiled.image).max()
    yield Figure(part="seams", name="largest difference", value=float(apart), unit="levels", bar=2)


def file_to_file(folder: str, model: str | None) -> float:
    """Restore a large scan: the process's peak in MiB."""
    with limit_threads(1):
        task(model).to_file(Path(folder, "scan.png"), out=Path(folder, "out.png"), faces=False)
    return resident("VmHWM") / 2**20


def memory(model: str | None, quick: bool) -> Iterator[Figure]:
    """The whole process for a scan of 24 megapixels."""
    from PIL import Image

    size = (600, 800) if quick else (4000, 6000)
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(photograph("astronaut", *size)).save(Path(folder, "scan.png"))
        value = in_own_process(file_to_file, folder, model)
    words = f"{size[0] * size[1] / 1e6:g} megapixels, whole process"
    yield Figure(part="memory", name=words, value=value, unit="MiB", bar=2048)


PARTS = {part.__name__: part for part in (time, seams, memory)}


if __name__ == "__main__":
    sys.exit(command_line("restore", "Restoration beside the usual way", __doc__ or "", PARTS, MODEL))
