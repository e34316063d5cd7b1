"""Images from noise: time, the same bytes one by one, and how real they look.

    python benchmarks/generate.py                      everything, into benchmarks/results/generate.json
    python benchmarks/generate.py --quick              few images, to see that it runs; printed only
    python benchmarks/generate.py --model FILE         another network than the shipped one
    python benchmarks/generate.py --study NAME         one study, or all, into results/evaluate-NAME.json
    python benchmarks/generate.py --study NAME --weights DIR   with models that are not shipped, DIR/NAME.safetensors

The usual way passes all images through the network as one batch; ours makes each by itself, so that it never depends on
its neighbours. Both run in turn in one process, warm, with the network loaded, on one thread; CPU time is user plus
system time of the process; the median counts. A figure with a bar says whether it is met. Goals are read from what the
studies measured.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
from _common import Figure, Study, command_line, cpu_seconds, interval, studies

from velatura.device import limit_threads
from velatura.tasks.generate import MODEL, Generate

BAR = 5.0  # CPU-seconds for 64 images


def speed(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU-seconds for 64 images, warm."""
    import torch

    count = 4 if quick else 64
    task = Generate.from_pretrained(model or MODEL, device="cpu")
    z = torch.from_numpy(task(count, seed=1).latents.values)
    network: Any = task.network
    label = torch.zeros(count, dtype=torch.int64) if task.classes else None

    def batch() -> None:
        with torch.inference_mode():
            network.sample(z, label) if hasattr(network, "sample") else network(z)

    with limit_threads(1):
        times = cpu_seconds({"ours": lambda: task(count, seed=1), "batch": batch}, 1 if quick else 5)
    names = {"ours": "one by one, latents drawn, 8 bits", "batch": "one batch, the network alone"}
    for way, runs in times.items():
        bar = BAR * count / 64 if way == "ours" else None
        name = f"{count} images, {names[way]}"
        yield Figure(part="speed", name=name, value=median(runs), unit="CPU s", bar=bar, runs=runs)


def same(model: str | None, quick: bool) -> Iterator[Figure]:
    """Images that differ by a byte between two calls of other counts."""
    task = Generate.from_pretrained(model or MODEL, device="cpu")
    many, few = (task(count, seed=3).pictures for count in ((4, 2) if quick else (32, 8)))
    wrong = sum(not np.array_equal(a.pixels, b.pixels) for a, b in zip(few, many, strict=False))
    yield Figure(part="same", name="images that differ", value=wrong, unit=f"of {len(few)}", bar=0)


# --- studies ----------------------------------------------------------------------------------------------------------

FACES = ("dcgan-faces", "vae-faces")
MIXED = ("lapgan-scenes", "lapgan-scenes-vae")  # one kind of level, and a pyramid that mixes kinds
PYRAMIDS = {"lapgan-flowers": ("lapgan-flowers",), "lapgan-scenes": MIXED, "lapgan-faces": ("lapgan-faces",)}

STUDIES = {
    "generate-faces": Study(models=FACES, part="samples"),
    **{name: Study(models=models, part="samples") for name, models in PYRAMIDS.items()},
    **{f"{name}-levels": Study(models=models, part="levels") for name, models in PYRAMIDS.items()},
}

LEVELS = (16, 32, 64)  # pixels
WHO = ("velatura", "googlenet")  # whose features


def goals(model: str | None, quick: bool) -> Iterator[Figure]:
    """What the studies found, beside what was promised."""
    for who in WHO:
        ours, theirs = (interval("generate-faces", name, f"KID-{who}") for name in FACES)
        if ours and theirs:
            share = ours["value"] / theirs["value"]
            yield Figure(part="goals", name=f"dcgan-faces, KID-{who}", value=share, unit="of vae-faces'", bar=0.75)
    pyramids = ((study, name) for study, models in PYRAMIDS.items() for name in models)
    for study, name in (("generate-faces", FACES[0]), *pyramids):
        shares = [(f"{kind}-{who}", bar, "") for who in WHO for kind, bar in (("precision", 0.5), ("recall", 0.25))]
        for column, bar, unit in (*shares, ("nearness", 1.0, "of held-out's")):
            if one := interval(study, name, column):
                words = f"{name}, {column}"
                yield Figure(part="goals", name=words, value=one["value"], unit=unit, bar=bar, better="higher")
    for name, models in PYRAMIDS.items():
        rows = [(one, side, who) for one in models for side in LEVELS for who in WHO]
        for one, side, who in rows:
            pair = (one, f"{one} enlarged")
            ours, theirs = (interval(f"{name}-levels", f"{row}, {side} px", f"KID-{who}") for row in pair)
            if ours and theirs:
                share, words = ours["value"] / theirs["value"], f"{one}, {side} px, KID-{who}"
                yield Figure(part="goals", name=words, value=share, unit="of enlarged", bar=1)


PARTS = {part.__name__: part for part in (speed, same, goals)}

if __name__ == "__main__":
    if any(word.startswith("--study") for word in sys.argv):
        sys.exit(studies("generate", __doc__ or "", STUDIES))
    sys.exit(command_line("generate", "Images from noise: time, sameness", __doc__ or "", PARTS, MODEL))
