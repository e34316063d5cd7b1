"""What the benchmarks share: a figure and its bar, CPU time, memory, photographs, the command line, studies."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from velatura.metrics.report import environment

RESULTS = Path(__file__).parent / "results"
LEVELS = 255  # grey levels from black to white


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value; ``runs`` are the single measurements whose median it is."""

    part: str
    name: str
    value: float
    unit: str
    bar: float | None = None
    aim: float | None = None
    better: Literal["lower", "higher"] = "lower"
    runs: tuple[float, ...] = ()

    def reaches(self, goal: float | None) -> bool | None:
        if goal is None:
            return None
        return self.value <= goal if self.better == "lower" else self.value >= goal

    def __str__(self) -> str:
        text = f"  {self.name:<58} {self.value:>10.4g} {self.unit:<12}"
        for word, goal in (("bar", self.bar), ("aim", self.aim)):
            if goal is not None:
                text += f"  {word} {goal:,.6g}: {'met' if self.reaches(goal) else 'MISSED'}"
        return text


Part = Callable[[str | None, bool], Iterator[Figure]]


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """Enlarge a photograph of scikit-image's and give it the fine noise of a camera: (height, width, 3) uint8."""
    import cv2
    from skimage import data

    random = np.random.default_rng(0)
    image = cv2.resize(getattr(data, name)(), (width, height), interpolation=cv2.INTER_CUBIC)
    for top in range(0, height, 256):
        rows = image[top : top + 256]
        noise = random.integers(-4, 5, rows.shape, np.int16) + random.integers(-4, 5, rows.shape, np.int16)
        rows[:] = np.clip(rows + noise, 0, 255)
    return image


def cpu_seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Run the calls in turn, round after round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in [*calls.items(), *list(calls.items()) * rounds]:
        start = time.process_time()
        call()
        seconds[name].append(time.process_time() - start)
    return {name: tuple(values[1:]) for name, values in seconds.items()}


def resident(field: Literal["VmHWM", "VmRSS"]) -> int:
    """Bytes of this process's resident set: its peak, or now (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {field}")


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def interval(name: str, row: str, column: str) -> dict[str, float] | None:
    """Find value, low and high of a figure that ``velatura evaluate`` wrote; None if nobody has measured it."""
    path = RESULTS / f"evaluate-{name}.json"
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    titles = [one["name"] for one in report["columns"]]
    if row not in report["rows"] or column not in titles:
        return None
    return {key: float(number) for key, number in report["rows"][row][titles.index(column)].items()}


def found(names: Sequence[str], weights: str | None) -> list[str]:
    """Give the files or the names of those models that are there, and say which ones are not."""
    from velatura import catalog

    known, there = {card.name for card in catalog.cards()}, []
    for name in names:
        if weights and (file := Path(weights, f"{name}.safetensors")).is_file():
            there.append(str(file))
        elif name in known:
            there.append(name)
        else:
            print(f"  no {name} in the catalog, nor among --weights: left out")
    return there


@dataclass(frozen=True, kw_only=True)
class Study:
    """What follows ``velatura evaluate TASK``: models side by side, and what judges them."""

    models: tuple[str, ...]
    part: str
    judge: str | None = None


Evaluate = Callable[[list[str]], int]


def studies(task: str, text: str, known: Mapping[str, Study], evaluate: Evaluate | None = None) -> int:
    """Run the studies that are asked for, each a single command, which is printed."""
    from velatura.cli import main
    from velatura.device import limit_threads

    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=[*known, "all"], required=True)
    parser.add_argument("--weights", metavar="DIR", help="where models lie that are not shipped")
    parser.add_argument("--sheet", metavar="DIR", help="where sheets go, a folder for each study")
    parser.add_argument("--quick", action="store_true", help="few images; printed only")
    given, more = parser.parse_known_args()
    if not (data := os.environ.get("VELATURA_DATA", "")):
        parser.error("no data folder: name one in VELATURA_DATA")
    codes = [0]
    for name, study in known.items():
        if given.study not in (name, "all"):
            continue
        print(f"{name}:", flush=True)
        models = found(study.models, given.weights)
        if not models or study.models[0] != Path(models[0]).stem:
            print("  nothing to measure yet")
            continue
        command = ["evaluate", task, "--data", data, "--part", study.part]
        command += [word for model in models for word in ("--model", model)]
        command += [
            word for judge in found([study.judge] if study.judge else [], given.weights) for word in ("--judge", judge)
        ]
        command += (
            ["--limit", "24"] if given.quick else ["--json", str(RESULTS / f"evaluate-{name}.json"), "--overwrite"]
        )
        command += ["--sheet", str(Path(given.sheet, name))] if given.sheet else []
        command += more
        print(shlex.join(["velatura", *command]), flush=True)
        with limit_threads(1):
            codes.append((evaluate or main)(command))
    return max(codes)


def command_line(name: str, title: str, text: str, parts: Mapping[str, Part], model: str) -> int:
    """Run the parts that are asked for; all of them write ``results/NAME.json``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART,...", help=f"of {', '.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="small images")
    parser.add_argument("--model", metavar="NAME|FILE", help=f"default: {model}")
    given = parser.parse_args()
    chosen = given.only.split(",") if given.only else list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(parts)}")
    figures = []
    for part in chosen:
        print(f"{part}: {(parts[part].__doc__ or '').splitlines()[0]}", flush=True)
        for figure in parts[part](given.model, given.quick):
            print(figure, flush=True)
            figures.append(figure)
    if given.only or given.quick:
        return 0
    rows = [asdict(one) | {"met": one.reaches(one.bar), "aim_met": one.reaches(one.aim)} for one in figures]
    result = {
        "title": title,
        "protocol": " ".join(text.rpartition("\n\n")[2].split()),
        "model": Path(given.model or model).name,
        "environment": environment(),
        "figures": rows,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(path)
    return 0
