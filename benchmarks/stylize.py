"""Style transfer: time, memory, steps beside VGG-19's, seams, and how well our features stand in for their teachers.

    python benchmarks/stylize.py                       everything, into benchmarks/results/stylize.json
    python benchmarks/stylize.py --only speed,step     some parts, printed only
    python benchmarks/stylize.py --quick               small images, to see that it runs; printed only
    python benchmarks/stylize.py --model FILE          another network than the shipped one

The usual way of optimisation is VGG-19: here its convolutions with random weights, which cost what trained ones cost,
to the layers that our own features imitate (conv1_2, 2_2, 3_4). Both ways run in turn in one process, warm, with the
networks loaded, one thread but for the part `speed`, which has two; CPU time is user plus system time of the process;
the median counts. Memory is the resident set's peak, torch included, from file to file in a process of its own. What
needs the teachers' trained weights (parts `grams` and `stand_in`) takes them from the folder `pretrained` beside the
data folder (VELATURA_DATA), on images that nothing was trained on. A figure with a bar says whether it is met; figures
that lose stay in.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries; the processes started for the measurements of memory inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common import LEVELS, Figure, command_line, cpu_seconds, in_own_process, photograph, resident

from velatura import catalog
from velatura.device import limit_threads
from velatura.tasks.stylize import MODEL

DATA = os.environ.get("VELATURA_DATA", "")

SAME: dict[str, str] = {"stride1": "conv1_2", "stride2": "conv2_2", "stride4": "conv3_4"}  # our layers and VGG-19's
GATYS: tuple[str, ...] = ("conv1_1", "conv2_1", "conv3_1")  # of what is here, those of the paper
STEPS, RATE = 50, 0.01  # of the part `stand_in`


@functools.cache
def task(model: str | None) -> Any:
    """Make the task once, with its networks."""
    from velatura import Stylize

    made = Stylize.from_pretrained(model or MODEL, device="cpu")
    made.network  # noqa: B018  it is loaded when it is first asked for
    return made


def style() -> np.ndarray:
    """A picture with strokes and colours: van Gogh it is not, but nobody's either."""
    from skimage import data

    return data.immunohistochemistry()[:256, :256]


def tensor(image: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / LEVELS)[None]


# --- one pass ---------------------------------------------------------------------------------------------------------


def speed(model: str | None, quick: bool) -> Iterator[Figure]:
    """Seconds for 512x512, warm, on two threads and on one."""
    side = 128 if quick else 512
    image, painting = photograph("astronaut", side, side), style()
    of = functools.partial(Figure, part="speed")
    for count, bar in ((2, 1.0), (1, None)):
        with limit_threads(count):
            walls, works = [], []
            for _ in range(2 if quick else 8):
                start, work = time.perf_counter(), time.process_time()
                task(model)(image, painting)
                walls.append(time.perf_counter() - start)
                works.append(time.process_time() - work)
        words = f"{side}x{side}, {count} thread{'s' * (count > 1)}"
        yield of(name=f"{words}, by the clock", value=median(walls[1:]), unit="s", bar=bar, runs=tuple(walls[1:]))
        yield of(name=f"{words}, CPU time", value=median(works[1:]), unit="CPU s", runs=tuple(works[1:]))


def seams(model: str | None, quick: bool) -> Iterator[Figure]:
    """Bands against one band, and the shrunken pass's statistics against the photograph's own."""
    from velatura import Stylize
    from velatura.tasks import stylize as module

    side = 256 if quick else 1024
    image, painting = photograph("astronaut", side, side), style()
    of = functools.partial(Figure, part="seams", unit="grey levels")
    with limit_threads(1):
        exact = _with(module, 10**9, functools.partial(task(model), image, painting))
        limit = side * side // 4
        thin = Stylize(model or MODEL, device="cpu", memory=1)
        few = _with(module, limit, functools.partial(thin, image, painting))
        alone = Stylize(model or MODEL, device="cpu", memory=1e6)
        module_band, module.BAND = module.BAND, 10**9
        one = _with(module, limit, functools.partial(alone, image, painting))
        module.BAND = module_band
    a, b, c = (made.image.astype(np.float64) for made in (few, one, exact))
    yield of(name="thin bands against one band, at most", value=float(np.abs(a - b).max()), bar=1)
    yield of(name="statistics of a shrunken pass, mean difference", value=float(np.abs(a - c).mean()))
    yield of(name="what the style changes, mean difference", value=float(np.abs(c - image).mean()), better="higher")


def _with(module: Any, whole: int, call: Callable[[], Any]) -> Any:
    """Call with another size up to which photographs pass in one piece."""
    before, module.WHOLE = module.WHOLE, whole
    try:
        return call()
    finally:
        module.WHOLE = before


def file_to_file(model: str | None, source: str, painting: str, out: str) -> tuple[float, float]:
    """Stylize from file to file: peak of the whole process in GiB, CPU seconds with reading and writing."""
    start = time.process_time()
    with limit_threads(1):
        task(model).to_file(source, painting, out=out)
    return resident("VmHWM") / 2**30, time.process_time() - start


def large(model: str | None, quick: bool) -> Iterator[Figure]:
    """24 megapixels from file to file; the process holds everything, torch included."""
    from velatura.image import open_image, save_image

    of = functools.partial(Figure, part="large")
    height, width = (400, 600) if quick else (4000, 6000)
    with tempfile.TemporaryDirectory() as folder:
        save_image(open_image(photograph("coffee", height, width)), f"{folder}/photograph.jpg")
        save_image(open_image(style()), f"{folder}/style.png")
        for suffix in ("jpg", "tif"):
            job = (f"{folder}/photograph.jpg", f"{folder}/style.png", f"{folder}/out.{suffix}")
            peak, seconds = in_own_process(file_to_file, model, *job)
            words = f"{height * width / 1e6:g} megapixels, {suffix}"
            yield of(name=f"{words}, peak of the process", value=peak, unit="GiB", bar=1.5)
            yield of(name=f"{words}, reading and writing included", value=seconds, unit="CPU s")


# --- optimisation -----------------------------------------------------------------------------------------------------


def step(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds of one step of optimisation through our features and through VGG-19, the same layers."""
    import torch

    from velatura.device import half_precision
    from velatura.nets.vgg19 import VGG19
    from velatura.stylization import Optimization, load_extractor, mixed_grams, optimize

    torch.set_num_threads(1)
    side, count = (64, 2) if quick else (256, 6)
    content, painting = tensor(photograph("astronaut", side, side)), tensor(style()[:side, :side])
    half = half_precision(torch.device("cpu"))
    ours: Any = load_extractor("velatura")
    usual: Any = VGG19("conv3_4").eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore
    calls: dict[str, Callable[[], Any]] = {}
    for words, features, layers, rounded in (
        ("VGG-19, float32", usual, tuple(SAME.values()), None),
        ("VGG-19, half precision", usual, tuple(SAME.values()), half),
        ("ours, float32", ours, tuple(SAME), None),
        ("ours, as it runs", ours, tuple(SAME), half),
    ):
        options = Optimization(count, content_layers={layers[-1]: 1.0}, style_layers=dict.fromkeys(layers, 1.0))
        grams = mixed_grams(features, [painting], [1.0], options.style_layers)
        calls[words] = functools.partial(optimize, features, content, lambda scale, g=grams: g, options, half=rounded)
    seconds = cpu_seconds(calls, rounds=1 if quick else 3)
    of = functools.partial(Figure, part="step")
    middle = {words: median(runs) / count for words, runs in seconds.items()}
    for words, runs in seconds.items():
        each = tuple(run / count for run in runs)
        yield of(name=f"{words}, a step at {side}x{side}", value=middle[words], unit="CPU s", runs=each)
    usual_now = middle["VGG-19, float32"]
    yield of(name="times as cheap", value=usual_now / middle["ours, as it runs"], unit="", bar=5, better="higher")
    same = usual_now / middle["ours, float32"]
    yield of(name="times as cheap, both in float32", value=same, unit="", better="higher")


# --- what stands in for the teachers ----------------------------------------------------------------------------------


@functools.cache
def pairs(count: int) -> list[tuple[Any, Any]]:
    """Held-out photographs and styles."""
    from velatura.training.recipe import make_config
    from velatura.training.recipes.stylize import StylizeConfig, held_out_pairs

    return held_out_pairs(make_config(StylizeConfig, {"data": DATA}), count, 256)


def teachers() -> Any:
    """The trained teachers under our layers' names, in our units; None where they are not."""
    from velatura.nets.features import Features
    from velatura.nets.style_features import STYLE_FEATURES
    from velatura.training.recipes.features import TEACHERS, read_teachers

    folder = Path(DATA).resolve().parent / "pretrained"
    if not DATA or not all((folder / name).is_file() for name in TEACHERS):
        print("  no data folder (VELATURA_DATA) with `pretrained` beside it: left out")
        return None
    return read_teachers(folder, catalog.load(STYLE_FEATURES, {"Features": Features}))


def grams(model: str | None, quick: bool) -> Iterator[Figure]:
    """How the distances of Gram matrices, every photograph to every style, follow the teacher's, by layer."""
    import torch

    from velatura.losses import gram_matrix
    from velatura.training.recipes.features import spearman

    found = teachers()
    if found is None:
        return
    ours = found.units
    made: dict[tuple[str, str, int], list[Any]] = {}
    with torch.no_grad():
        for pair in pairs(4 if quick else 26):
            for side, image in enumerate(pair):
                for name, maps in ours.activated(ours(image)).items():
                    made.setdefault(("ours", name, side), []).append(gram_matrix(maps).flatten())
                for name, maps in found.raw(image).items():
                    made.setdefault(("teacher", name, side), []).append(gram_matrix(maps.relu()).flatten())
    of = functools.partial(Figure, part="grams", better="higher", unit="")
    for name in ours.LAYERS:
        distances = {
            who: torch.cdist(torch.stack(made[who, name, 0]), torch.stack(made[who, name, 1])).flatten().numpy()
            for who in ("ours", "teacher")
        }
        rank = spearman(distances["ours"], distances["teacher"])
        bar = 0.95 if name in SAME else None
        yield of(name=f"{name}, rank correlation of distances", value=rank, bar=bar)
        alike = [
            float(torch.cosine_similarity(a, b, 0))
            for a, b in zip(made["ours", name, 1], made["teacher", name, 1], strict=True)
        ]
        yield of(name=f"{name}, cosine of the Gram matrices", value=float(np.mean(alike)))


def stand_in(model: str | None, quick: bool) -> Iterator[Figure]:
    """What VGG-19 says of pictures that were optimised through our features, and through VGG-19 itself."""
    import torch

    from velatura.losses import StyleLoss, style_grams
    from velatura.stylization import Optimization, optimize

    found = teachers()
    if found is None:
        return
    torch.set_num_threads(1)
    count, steps = (1, 2) if quick else (8, STEPS)
    judged = {"conv3_1": 1.0}, dict.fromkeys(GATYS, 1.0)
    ways = {
        "our features": (found.units, {"stride4": 1.0}, dict.fromkeys(SAME, 1.0)),
        "VGG-19": (found.vgg19, *judged),
    }
    totals: dict[str, list[tuple[float, float]]] = {words: [] for words in ways}
    for content, painting in pairs(count):
        judge = StyleLoss(found.vgg19, content, style_grams(found.vgg19, painting, judged[1]), *judged, 0)
        for words, (features, contents, styles) in ways.items():
            options = Optimization(steps, "adam", RATE, contents, styles, smoothness=0)
            target = style_grams(features, painting, styles)
            image, _ = optimize(features, content, lambda scale, t=target: t, options)
            with torch.no_grad():
                lost, lacking = (float(value) for value in judge(image))
            totals[words].append((lost / options.style_weight + lacking, lacking))
    of = functools.partial(Figure, part="stand_in", unit="of the start")
    for words, values in totals.items():
        total, lacking = np.mean(values, 0)
        yield of(name=f"VGG-19's total loss after {steps} steps through {words}", value=float(total))
        yield of(name=f"VGG-19's style loss after {steps} steps through {words}", value=float(lacking))


PARTS = {part.__name__: part for part in (speed, seams, large, step, grams, stand_in)}

if __name__ == "__main__":
    sys.exit(command_line("stylize", "Style transfer: time, memory, stand-ins", __doc__ or "", PARTS, MODEL))
