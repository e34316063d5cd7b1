"""Pictures from words: time, the same bytes one by one, and whether they show what the words say.

    python benchmarks/imagine.py                       everything, into benchmarks/results/imagine.json
    python benchmarks/imagine.py --quick               few pictures, to see that it runs; printed only
    python benchmarks/imagine.py --model FILE          another model than the shipped one
    python benchmarks/imagine.py --study NAME          one study, or all, into results/evaluate-NAME.json
    python benchmarks/imagine.py --study NAME --weights DIR    with models that are not shipped, as DIR/NAME.safetensors
    python benchmarks/imagine.py --study NAME --sheet DIR      and sheets for the eye
    python benchmarks/imagine.py --study NAME --rule FILE.py   colours judged by petal_colors(rgb) of this file

One thread; CPU time is user plus system time of the process, warm, the model loaded; the median counts. Goals are read
from what the studies measured.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common import Figure, Study, command_line, cpu_seconds, interval, studies

from velatura.device import limit_threads
from velatura.tasks.imagine import MODEL, Imagine

TEXT = "a red flower with a yellow centre"
BAR = 5.0  # CPU-seconds for 64 pictures


def is_there(model: str | None) -> bool:
    """Tell whether there is a model; say so if there is none."""
    there = model is not None or MODEL in Imagine.models()
    if not there:
        print(f"  no {MODEL} in the catalog, and no --model: left out")
    return there


def speed(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU-seconds for 64 pictures of one sentence, warm."""
    if not is_there(model):
        return
    count, task = 4 if quick else 64, Imagine.from_pretrained(model, device="cpu")
    with limit_threads(1):
        runs = cpu_seconds({"ours": lambda: task(TEXT, count=count, seed=1)}, 1 if quick else 5)["ours"]
    bar = BAR * count / 64
    yield Figure(part="speed", name=f"{count} pictures", value=median(runs), unit="CPU s", bar=bar, runs=runs)


def same(model: str | None, quick: bool) -> Iterator[Figure]:
    """Pictures that differ by a byte between two calls of other counts."""
    if not is_there(model):
        return
    task = Imagine.from_pretrained(model, device="cpu")
    many, few = (task(TEXT, count=count, seed=3).pictures for count in ((4, 2) if quick else (32, 8)))
    wrong = sum(not np.array_equal(a.pixels, b.pixels) for a, b in zip(few, many, strict=False))
    yield Figure(part="same", name="pictures that differ", value=wrong, unit=f"of {len(few)}", bar=0)


# --- studies ----------------------------------------------------------------------------------------------------------

#: The judge is a text encoder that no generator was trained with: one for each study, so only rows of one are compared.
#: `imagine-gan-int-cls` is what ours began as, after 8,000 steps; the other three of the paper's four had 2,000.
STUDIES = {
    "imagine-flowers": Study(models=("imagine-flowers", "imagine-gan-int-cls"), part="text", judge="judge-flowers"),
    "imagine-variants": Study(
        models=("imagine-gan-int-cls", "imagine-gan", "imagine-gan-cls", "imagine-gan-int"),
        part="text",
        judge="judge-variants",
    ),
    "imagine-flowers-style": Study(models=("imagine-flowers",), part="style"),
    "imagine-emoji": Study(models=("imagine-emoji",), part="text", judge="judge-emoji"),
    "imagine-emoji-style": Study(models=("imagine-emoji",), part="style"),
}

SHOWN, RIGHT, DIFFER = "colour named is shown", "right sentence of ten", "two draws differ"
OURS, VARIANTS = "imagine-flowers", "imagine-variants"
FULL, PLAIN = "imagine-gan-int-cls", "imagine-gan"
GOALS = {"seen": (0.75, 0.85), "unseen": (0.6, 0.7)}  # of colours: bar and aim


def goals(model: str | None, quick: bool) -> Iterator[Figure]:
    """What the studies found, beside what was promised."""

    def of(name: str, value: float, **more: Any) -> Figure:
        return Figure(part="goals", name=name, value=value, **{"unit": "", "better": "higher", **more})

    for side, (bar, aim) in GOALS.items():
        if one := interval(OURS, f"{OURS}, {side}", SHOWN):
            yield of(f"{SHOWN}, {side}", one["value"], bar=bar, aim=aim)
        if one := interval(OURS, f"{OURS} in the style of photographs, {side}", SHOWN):
            yield of(f"{SHOWN}, in a photograph's style, {side}", one["value"], bar=0.7)
        if one := interval(OURS, f"{OURS}, {side}", RIGHT):
            yield of(f"{RIGHT}, {side}", one["value"], bar=0.5)
        full, plain = (interval(VARIANTS, f"{name}, {side}", RIGHT) for name in (FULL, PLAIN))
        if full and plain:
            words = f"{RIGHT}, {side}: lower end of {FULL}, above the upper one of {PLAIN}"
            yield of(words, full["low"] - plain["high"], bar=0)
        if one := interval(OURS, f"{OURS}, {side}", DIFFER):
            away = abs(one["value"] - 1)
            yield of(f"{DIFFER}, away from two photographs, {side}", away, bar=0.3, better="lower")
    if one := interval(f"{OURS}-style", f"{OURS}, one noise", "AUC"):
        yield of("AUC of styles", one["value"], bar=0.8)


def judge(path: str) -> Callable[[np.ndarray], list[str]]:
    """Read the rule of a file."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.petal_colors


def by_another_rule(command: list[str]) -> int:
    """Do what ``velatura evaluate imagine`` does, with the colours' rule of a file: the command knows ours alone."""
    from velatura.cli.evaluate_imagine import COUNT, evaluate_imagine
    from velatura.cli.tables import print_table
    from velatura.metrics.report import table, write_json

    parser = argparse.ArgumentParser()
    for name, kind in {"rule": judge, "data": Path, "part": str, "judge": str, "json": Path, "sheet": Path}.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--model", action="append")
    parser.add_argument("--limit", type=int, default=COUNT)
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args(command[2:])
    options = {"part": given.part, "judge": given.judge, "count": given.limit, "rule": given.rule, "sheet": given.sheet}
    report = evaluate_imagine(given.model, given.data, **options)
    if given.json:
        write_json(report, given.json, overwrite=given.overwrite)
    print_table(table(report))
    return 0


PARTS = {part.__name__: part for part in (speed, same, goals)}


if __name__ == "__main__":
    if any(word.startswith("--study") for word in sys.argv):
        evaluate = by_another_rule if "--rule" in sys.argv else None
        sys.exit(studies("imagine", __doc__ or "", STUDIES, evaluate))
    sys.exit(command_line("imagine", "Pictures from words: time, sameness", __doc__ or "", PARTS, MODEL))
