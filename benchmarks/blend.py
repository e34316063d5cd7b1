"""Blending beside OpenCV's ``seamlessClone``: time, memory, size, accuracy, and what becomes of the background.

    python benchmarks/blend.py                         everything, into benchmarks/results/blend.json
    python benchmarks/blend.py --only speed,primes     some parts, printed only
    python benchmarks/blend.py --quick                 small images, to see that it runs; printed only

One thread; CPU time is user plus system time of the process. Both ways run in turn in one process (A B A B ...),
warm, with the model loaded, arrays in and arrays out; the median counts. Memory is the resident set's peak, each case
in a process of its own. A figure with a bar says whether it is met; figures that lose stay in.
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

from velatura.device import limit_threads
from velatura.tasks.blend import MODEL

DATA = os.environ.get("VELATURA_DATA", "")

PEER = "opencv"
METHODS = ("paste", "gaussian-poisson", "gp-gan", "poisson", "mixed")
SEAM_METHODS = ("gaussian-poisson", "gp-gan")
FAR = 64  # px from the mask: the background
DEEP = 16  # px from the seam: the inside

# --- what is measured -------------------------------------------------------------------------------------------------


@functools.cache
def task(model: str | None) -> Any:
    """Make the task once; the net is read when it is first used."""
    from velatura import Blend

    return Blend.from_pretrained(model, device="cpu")


def run(method: str, model: str | None, source: np.ndarray, destination: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend arrays of one size by one of `METHODS` or by `PEER`."""
    if method != PEER:
        with limit_threads(1):
            return task(model)(source, destination, mask, method=method).image
    import cv2

    cv2.setNumThreads(1)
    rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    # It centres the mask's bounding box on this point, so that the piece stays where it is.
    centre = (int(cols[0] + cols[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    # It writes into the mask.
    return cv2.seamlessClone(source, destination, mask.copy(), centre, cv2.NORMAL_CLONE)


def ellipse(height: int, width: int, half_axis: float = 0.4) -> np.ndarray:
    """Give an elliptical mask in the middle; half-axes as a share of the sides."""
    y, x = (np.abs(np.arange(size) - (size - 1) / 2) / (half_axis * size) for size in (height, width))
    return np.where(y[:, None] ** 2 + x**2 <= 1, np.uint8(255), np.uint8(0))


def square(height: int, width: int) -> np.ndarray:
    """Give the paper's mask: the middle half of each side."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 255
    return mask


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, destination and mask of the measurements of time and memory."""
    return photograph("coffee", height, width), photograph("astronaut", height, width), ellipse(height, width)


def megapixels(count: float) -> tuple[int, int]:
    """Height and width of a 4:3 image."""
    unit = round((count * 1e6 / 12) ** 0.5)
    return 3 * unit, 4 * unit


# --- time -------------------------------------------------------------------------------------------------------------


def speed(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds at 12 megapixels, and their ratio to OpenCV's."""
    images = scene(*megapixels(1 if quick else 12))
    names = (PEER, *METHODS)
    seconds = cpu_seconds(
        {name: functools.partial(run, name, model, *images) for name in names}, rounds=1 if quick else 5
    )
    bars = {"gaussian-poisson": (1 / 3, 1 / 6), "poisson": (2 / 3, 1 / 3)}
    middle = {name: median(runs) for name, runs in seconds.items()}
    for name in names:
        yield Figure(part="speed", name=name, value=middle[name], unit="CPU s", runs=seconds[name])
    for name in METHODS:
        bar, aim = bars.get(name, (None, None))
        yield Figure(
            part="speed", name=f"{name} / {PEER}", value=middle[name] / middle[PEER], unit="", bar=bar, aim=aim
        )
    ratio = middle["gp-gan"] / middle["gaussian-poisson"]
    yield Figure(part="speed", name="gp-gan / gaussian-poisson", value=ratio, unit="", bar=1.3)


def primes(model: str | None, quick: bool) -> Iterator[Figure]:
    """Sides that no transform likes, against their neighbours."""
    sides = {"prime": (599, 797), "round": (600, 800)} if quick else {"prime": (2999, 3989), "round": (3000, 3990)}
    for name in ("gaussian-poisson", "gp-gan", "poisson", "mixed"):
        calls = {kind: functools.partial(run, name, model, *scene(*size)) for kind, size in sides.items()}
        seconds = {kind: median(runs) for kind, runs in cpu_seconds(calls, rounds=1 if quick else 3).items()}
        what = " / ".join(f"{height}x{width}" for height, width in sides.values())
        yield Figure(part="primes", name=f"{name}, {what}", value=seconds["prime"] / seconds["round"], unit="", bar=1.3)


def growth(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU time per megapixel at different sizes."""
    for name in ("gaussian-poisson", "gp-gan", "poisson"):
        rates = []
        for count in (0.3, 1) if quick else (3, 12, 48, 100):
            images = scene(*megapixels(count))
            runs = cpu_seconds({name: functools.partial(run, name, model, *images)}, rounds=3 if count < 48 else 1)
            rates.append(median(runs[name]) / (images[0].shape[0] * images[0].shape[1] / 1e6))
            yield Figure(part="growth", name=f"{name}, {count:g} megapixels", value=rates[-1], unit="CPU s/MP")
        yield Figure(part="growth", name=f"{name}, dearest / cheapest size", value=max(rates) / min(rates), unit="")


# --- memory -----------------------------------------------------------------------------------------------------------


def working_memory(method: str, model: str | None, folder: str) -> float:
    """Peak beyond the arrays in and out, in bytes per pixel."""
    run(method, model, *scene(96, 128))  # imports, libraries, the net
    images = [np.load(f"{folder}/{name}.npy") for name in ("source", "destination", "mask")]
    before = resident("VmRSS")
    out = run(method, model, *images)
    return (resident("VmHWM") - before - out.nbytes) / images[2].size


def memory(model: str | None, quick: bool) -> Iterator[Figure]:
    """Working memory at 12 megapixels."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("source", "destination", "mask"), scene(*megapixels(1 if quick else 12)), strict=True):
            np.save(f"{folder}/{name}.npy", array)
        for method in (PEER, *METHODS):
            value = in_own_process(working_memory, method, model, folder)
            bar, aim = (None, None) if method == PEER else (45, 16)
            yield Figure(part="memory", name=method, value=value, unit="bytes/px", bar=bar, aim=aim)


def file_to_file(method: str, model: str | None, folder: str) -> tuple[float, float]:
    """Blend from files into a file: peak of the whole process in GiB, CPU seconds with the reading and writing."""
    start = time.process_time()
    files = [f"{folder}/{name}" for name in ("source.png", "destination.tif", "mask.png")]
    with limit_threads(1):
        task(model).to_file(*files, out=f"{folder}/{method}.tif", method=method)
    return resident("VmHWM") / 2**30, time.process_time() - start


def large(model: str | None, quick: bool) -> Iterator[Figure]:
    """100 megapixels from PNG and TIFF to TIFF; the process holds everything, torch included."""
    from velatura.image import open_image, save_image

    side = 1000 if quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("source.png", "destination.tif", "mask.png"), scene(side, side), strict=True):
            save_image(open_image(array), f"{folder}/{name}")
        for method in SEAM_METHODS:
            peak, seconds = in_own_process(file_to_file, method, model, folder)
            yield Figure(part="large", name=f"{method}, peak of the process", value=peak, unit="GiB", bar=2)
            yield Figure(part="large", name=f"{method}, reading and writing included", value=seconds, unit="CPU s")


# --- accuracy ---------------------------------------------------------------------------------------------------------


def direct_solver(height: int, width: int, form: str, beta: float, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """Factorize the normal equation as the table in `velatura.ops.gaussian_poisson` states it, in float64."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    def laplacian(size: int) -> Any:
        step = sparse.eye_array(size - 1, size, k=1) - sparse.eye_array(size - 1, size)
        return -(step.T @ step)

    def gaussian(size: int) -> Any:
        reach = int(4 * sigma + 0.5)
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        whole = np.pad(np.eye(size), ((reach, reach), (0, 0)), mode="symmetric")
        return sparse.csr_array(sum(tap * whole[i : i + size] for i, tap in enumerate(taps / taps.sum())))

    lap = sparse.kron(laplacian(height), sparse.eye(width)) + sparse.kron(sparse.eye(height), laplacian(width))
    blur = sparse.kron(gaussian(height), gaussian(width))
    colour = blur if form == "code" else blur @ blur
    solver = splu(sparse.csc_matrix((lap @ lap if form == "printed" else -lap) + beta * colour))

    def solve(divergence: np.ndarray) -> np.ndarray:
        flat = divergence.reshape(len(divergence), -1).astype(np.float64)
        right = [lap @ plane if form == "printed" else -plane for plane in flat]
        return np.stack([solver.solve(plane) for plane in right]).reshape(divergence.shape)

    return solve


def seam_of(source: np.ndarray, destination: np.ndarray, mask: np.ndarray) -> Any:
    """Give the seam of a scene to `velatura.ops.seam`."""
    from velatura.image import open_image
    from velatura.placement import place

    return place(open_image(source), open_image(destination), mask, None, 1.0)


def accuracy(model: str | None, quick: bool) -> Iterator[Figure]:
    """Closed form and windows against a sparse direct solution in float64, of the last step at full resolution."""
    from velatura.ops.gaussian_poisson import divergence, seam_flux, solve
    from velatura.ops.seam import Equation, close_seam, correct_tile, double_correction
    from velatura.tiling import tiles

    height, width = 96, 480 if quick else 1200  # long, so that there are several windows; low, to be factorized
    seam = seam_of(*scene(height, width))
    all_rows, all_cols = (0, height), (0, width)
    fine, difference = seam.mask(all_rows, all_cols), seam.difference(all_rows, all_cols)
    for form in ("gradient", "printed", "code"):
        for beta in (1.0, 0.1, 0.01):
            equation = Equation(form, beta)
            half = close_seam(seam, equation, 4)
            reference = double_correction(half, all_rows, all_cols, fine)
            rows, cols = (seam_flux(fine, difference, axis) for axis in (-2, -1))
            rows[:, :-1] -= np.diff(reference, axis=-2)
            cols[..., :-1] -= np.diff(reference, axis=-1)
            wanted = divergence(rows, cols)
            exact = direct_solver(height, width, form, beta, equation.sigma)(wanted)
            closed = solve(wanted, beta=beta, form=form)
            windows = np.empty_like(closed)
            for tile in tiles(height, width, equation.side, equation.halo):
                outer = tile.outer_rows, tile.outer_cols
                windows[:, *tile.inner] = correct_tile(seam.mask(*outer), seam.difference(*outer), half, tile, equation)
            for name, found in (("closed form", closed - exact), ("windows", windows - reference - exact)):
                worst = float(np.abs(found).max()) * LEVELS
                name = f"{name}, {form}, beta {beta:g}"
                yield Figure(part="accuracy", name=name, value=worst, unit="grey levels", bar=0.5, aim=0.01)


def windows(model: str | None, quick: bool) -> Iterator[Figure]:
    """All levels solved in windows against all levels solved whole."""
    from velatura.ops.seam import Equation, close_seam, correct_tile, is_flat
    from velatura.tiling import tiles

    class Whole(Equation):
        @property
        def side(self) -> int:
            return 1 << 30

    height, width = megapixels(0.5 if quick else 3)
    seam = seam_of(*scene(height, width))

    def corrections(equation: Equation) -> np.ndarray:
        half = close_seam(seam, equation, 5)
        out = np.empty(seam.shape, np.float32)
        for tile in tiles(height, width, equation.side, equation.halo):
            outer = tile.outer_rows, tile.outer_cols
            mask = seam.mask(*outer)
            flat = is_flat(mask)
            inputs = (None, None) if flat else (mask, seam.difference(*outer))
            out[:, *tile.inner] = correct_tile(*inputs, half, tile, equation)
        return out

    for form in ("gradient", "printed", "code"):
        for beta in (1.0, 0.1, 0.01):
            difference = corrections(Equation(form, beta)) - corrections(Whole(form, beta))
            worst = float(np.abs(difference).max()) * LEVELS
            name = f"windows against whole, {form}, beta {beta:g}"
            yield Figure(part="windows", name=name, value=worst, unit="grey levels", bar=0.5, aim=0.01)


# --- pictures ---------------------------------------------------------------------------------------------------------


def bundled() -> list[np.ndarray]:
    """Photographs that come with scikit-image."""
    from skimage import data

    named = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")]
    return [*named, data.stereo_motorcycle()[0], data.retina()]


def held_out() -> list[np.ndarray]:
    """Photographs of the data folder that no model has seen; none where there is no folder."""
    if not Path(DATA).is_dir() or not DATA:
        return []
    from velatura.training.data import read_set

    sets = [read_set(Path(DATA), name, side="held-out") for name in ("sr_t91_bsds400", "sr_hr_patches")]
    images = [one[i] for one in sets for i in range(len(one))]
    return [image for image in images if min(image.shape[:2]) >= 300]


def pairs(images: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every photograph as the destination of the next one, with a mask that leaves room for a background."""
    import cv2

    for destination, source in zip(images, images[1:] + images[:1], strict=True):
        height, width = destination.shape[:2]
        source = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
        yield source, destination, ellipse(height, width, 0.2)


def background(model: str | None, quick: bool) -> Iterator[Figure]:
    """Detail and colours beyond 64 px from the mask, and detail inside beyond 16 px from the seam."""
    from scipy.ndimage import distance_transform_edt

    from velatura.metrics.fidelity import absolute_error, laplacian_deviation

    for group, images in (("bundled", bundled()), ("held-out", held_out())):
        found: dict[str, list[tuple[float, float, float]]] = {}
        for source, destination, mask in pairs(images[:3] if quick else images):
            far = np.asarray(distance_transform_edt(mask == 0)) > FAR
            deep = np.asarray(distance_transform_edt(mask)) > DEEP
            for method in (PEER, *METHODS):
                out = run(method, model, source, destination, mask)
                found.setdefault(method, []).append(
                    (
                        absolute_error(out, destination, far),
                        laplacian_deviation(out, destination, far),
                        laplacian_deviation(out, source, deep),
                    )
                )
        for method, rows in found.items():
            change, left, inside = zip(*rows, strict=True)
            name = f"{group}, {method}"
            of = functools.partial(Figure, part="background")
            worst = f"worst of {len(rows)} pairs"
            ours = method != PEER
            yield of(name=f"{name}, change, {worst}", value=max(change), unit="grey levels", bar=1 if ours else None)
            yield of(
                name=f"{name}, detail left, {worst}",
                value=min(left),
                unit="",
                bar=0.98 if ours else None,
                better="higher",
            )
            yield of(name=f"{name}, detail left inside, median", value=median(inside), unit="", better="higher")
            yield of(name=f"{name}, detail left inside, {worst}", value=min(inside), unit="", better="higher")


def relit(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Give a photograph, (h, w, 3) uint8, another light."""
    from velatura.ops.relight import random_light, relight

    height, width = image.shape[:2]
    planes = np.moveaxis(image, -1, 0)[None].astype(np.float32) / LEVELS
    changed = relight(planes, random_light(1, height, width, random))[0]
    return np.ascontiguousarray(np.rint(np.moveaxis(changed, 0, -1) * LEVELS).astype(np.uint8))


def light(model: str | None, quick: bool) -> Iterator[Figure]:
    """One photograph in two random lights: how far the piece is from the light of its destination, at full size.

    ``mixed`` is no measure here: it reads the gradients of the destination under the mask, which are the answer.
    """
    from velatura.metrics.fidelity import absolute_error

    for group, images in (("bundled", bundled()), ("held-out", held_out())):
        for shape, make in (("centre square", square), ("ellipse", functools.partial(ellipse, half_axis=0.25))):
            random = np.random.default_rng(0)
            errors: dict[str, list[float]] = {}
            for image in images[:3] if quick else images:
                source, destination, mask = relit(image, random), relit(image, random), make(*image.shape[:2])
                for method in (PEER, *METHODS):
                    out = run(method, model, source, destination, mask)
                    errors.setdefault(method, []).append(absolute_error(out, destination, mask > 0))
            for method, values in errors.items():
                name = f"{group}, {shape}, {method}, mean of {len(values)}"
                yield Figure(part="light", name=name, value=float(np.mean(values)), unit="grey levels")


def forms(model: str | None, quick: bool) -> Iterator[Figure]:
    """The three forms of the Gaussian-Poisson equation: colours, seam, background and time of gp-gan."""
    from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

    from velatura.metrics.fidelity import absolute_error, laplacian_deviation

    images = (bundled() + held_out())[: 3 if quick else None]
    large = scene(*megapixels(1 if quick else 12))
    blends = {
        form: functools.partial(task(model), method="gp-gan", form=form) for form in ("gradient", "printed", "code")
    }
    with limit_threads(1):
        calls = {form: functools.partial(blend, *large) for form, blend in blends.items()}
        seconds = cpu_seconds(calls, rounds=1 if quick else 3)
        for form, blend in blends.items():
            random = np.random.default_rng(0)
            found = []
            for destination in images:
                height, width = destination.shape[:2]
                mask = ellipse(height, width, 0.25)
                out = blend(relit(destination, random), destination, mask).image
                seam = binary_dilation(mask > 0, iterations=8) != binary_erosion(mask > 0, iterations=8)
                far = np.asarray(distance_transform_edt(mask == 0)) > FAR
                found.append(
                    (
                        absolute_error(out, destination, mask > 0),
                        absolute_error(out, destination, seam),
                        absolute_error(out, destination, far) if far.any() else 0.0,
                        laplacian_deviation(out, destination, seam),
                    )
                )
            inside, seam, far, detail = (float(np.mean(column)) for column in zip(*found, strict=True))
            of = functools.partial(Figure, part="forms")
            yield of(name=f"{form}, error inside the mask, mean of {len(found)}", value=inside, unit="grey levels")
            yield of(name=f"{form}, error within 8 px of the seam", value=seam, unit="grey levels")
            yield of(name=f"{form}, detail within 8 px of the seam", value=detail, unit="", better="higher")
            yield of(name=f"{form}, change of the background", value=far, unit="grey levels")
            yield of(name=f"{form}, 12 megapixels", value=median(seconds[form]), unit="CPU s", runs=seconds[form])


PARTS = {
    part.__name__: part for part in (speed, memory, large, growth, primes, accuracy, windows, background, light, forms)
}


if __name__ == "__main__":
    title = "Blending beside OpenCV's seamlessClone"
    sys.exit(command_line("blend", title, __doc__ or "", PARTS, MODEL))
