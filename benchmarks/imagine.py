"""Pictures from words: how long 64 of them take, and whether the colour named is the colour shown.

    python benchmarks/imagine.py                       the shipped model; printed
    python benchmarks/imagine.py --model FILE          another one
    python benchmarks/imagine.py --rule FILE.py        colours judged by petal_colors(rgb) of this file (needs OpenCV)

One thread; CPU time is user plus system time, warm, the model loaded. Colours are judged on pictures enlarged to 128
pixels; the rule is ours unless another is named.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from velatura.device import limit_threads
from velatura.metrics.report import bootstrap
from velatura.ops.color_names import petal_colors
from velatura.tasks.imagine import Imagine

COUNT = 64
COLORS = ("white", "pink", "yellow", "red", "orange", "purple", "blue")


def judge(path: str | None) -> Callable[[np.ndarray], list[str]]:
    if path is None:
        return petal_colors
    spec = importlib.util.spec_from_file_location("rule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.petal_colors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--rule")
    parser.add_argument("--count", type=int, default=72, help="pictures of each colour")
    given = parser.parse_args()
    if given.model is None and not Imagine.models():
        print("no model of pictures from words is shipped yet: name one with --model", file=sys.stderr)
        return 2
    rule, task = judge(given.rule), Imagine.from_pretrained(given.model, device="cpu")
    found = {}
    with limit_threads(1):
        task("a red flower", count=2)
        start = time.process_time()
        task("a red flower", count=COUNT)
        found[f"CPU seconds of {COUNT} pictures"] = time.process_time() - start
        for color in COLORS:
            article = "an" if color == "orange" else "a"
            images = task(f"{article} {color} flower", count=given.count, seed=1).images
            large = [np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC)) for image in images]
            shown = bootstrap([float(rule(image)[:1] == [color]) for image in large])
            found[f"{color} is {color}"] = [shown.value, shown.low, shown.high]
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
