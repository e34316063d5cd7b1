"""Upscaling beside the usual way: time, agreement, the machine's own rate, tiles, memory, the resampler.

    python benchmarks/upscale.py                       everything, into benchmarks/results/upscale.json
    python benchmarks/upscale.py --only speed,rate     some parts, printed only
    python benchmarks/upscale.py --quick               small images, to see that it runs; printed only
    python benchmarks/upscale.py --model FILE          another network than the shipped one

The usual way is that of most programs: the same network in eager float32, tiles of 256 pixels with a halo of 10, the
whole result in memory. One thread; CPU time is user plus system time of the process. Both ways run in turn in one
process (A B A B ...), warm, with the model loaded, arrays in and arrays out; the median counts. Rates count the
multiplications of the network as it was trained. Memory is the resident set's peak, torch included, each case from file
to file in a process of its own. A figure with a bar says whether it is met; figures that lose stay in.
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
from typing import Any, Literal

import numpy as np
from _common import LEVELS, Figure, command_line, cpu_seconds, in_own_process, photograph, resident

from velatura import catalog
from velatura.device import limit_threads
from velatura.tasks.upscale import BAND, KERNELS, MODEL

DATA = os.environ.get("VELATURA_DATA", "")

USUAL_TILE, USUAL_HALO = 256, 10  # pixels; what Real-ESRGAN's program and many others take
MATRIX = (1024, 2048)  # sides of the products that tell the machine's own rate: the better one counts


# --- both ways --------------------------------------------------------------------------------------------------------


@functools.cache
def task(model: str | None) -> Any:
    """Make the task once, with its network."""
    from velatura import Upscale

    return Upscale.from_pretrained(model or MODEL, device="cpu")


@functools.cache
def plain(model: str | None) -> Any:
    """Load the network as it was trained: float32, nothing prepared."""
    from velatura.community import load_upscaler

    return load_upscaler(model or MODEL)


def ours(model: str | None, image: np.ndarray, **params: Any) -> np.ndarray:
    with limit_threads(1):
        return task(model)(image, **params).image


def usual(model: str | None, image: np.ndarray, halo: int = USUAL_HALO, side: int = USUAL_TILE) -> np.ndarray:
    """Enlarge (H, W, 3) uint8 or float32 as most programs do."""
    import torch

    torch.set_num_threads(1)
    network = plain(model)
    scale, (height, width) = int(network.scale), image.shape[:2]
    white = 1 if image.dtype == np.float32 else LEVELS
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / white
        out = torch.empty(1, 3, height * scale, width * scale)
        for top in range(0, height, side):
            for left in range(0, width, side):
                bottom, right = min(top + side, height), min(left + side, width)
                y0, x0 = max(top - halo, 0), max(left - halo, 0)
                made = network(x[:, :, y0 : min(bottom + halo, height), x0 : min(right + halo, width)])
                rows = slice((top - y0) * scale, (bottom - y0) * scale)
                cols = slice((left - x0) * scale, (right - x0) * scale)
                out[:, :, top * scale : bottom * scale, left * scale : right * scale] = made[:, :, rows, cols]
        found = out[0].clamp(0, 1).permute(1, 2, 0).numpy()
    return found if white == 1 else np.rint(found * LEVELS).astype(np.uint8)


def whole(model: str | None, image: np.ndarray) -> np.ndarray:
    """Enlarge in float32 and in one piece: what all others are compared with."""
    return usual(model, image, halo=0, side=1 << 30)


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """Give the largest difference of two float images, in grey levels."""
    return float(np.abs(a - b).max() * LEVELS)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of two float images, all channels, not rounded."""
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


def floats(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / LEVELS


def models(model: str | None) -> list[str | None]:
    """Name what can be measured: a file that was given, else all that is shipped; and the kernels."""
    from velatura.community import OURS

    shipped = [card.name for card in catalog.cards() if card.task == "upscale" and card.architecture in OURS]
    return [*([model] if model else shipped), *KERNELS]


def name_of(model: str | None) -> str:
    return Path(model or MODEL).stem


# --- time -------------------------------------------------------------------------------------------------------------


def speed(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds of both ways for one megapixel of the result, their ratio and their agreement."""
    side = 96 if quick else 256
    image = photograph("astronaut", side, side)
    calls: dict[str, Callable[[], Any]] = {
        "usual way": functools.partial(usual, model, image),
        "ours": functools.partial(ours, model, image),
    }
    seconds = cpu_seconds(calls, rounds=1 if quick else 7)
    middle = {name: median(runs) for name, runs in seconds.items()}
    size = (side * int(plain(model).scale)) ** 2 / 1e6
    of = functools.partial(Figure, part="speed")
    for name, runs in seconds.items():
        per = tuple(run / size for run in runs)
        yield of(name=f"{name_of(model)}, {name}", value=middle[name] / size, unit="CPU s/MP", runs=per)
    ratio = middle["usual way"] / middle["ours"]
    yield of(name="times as fast", value=ratio, unit="", bar=2, better="higher")
    agreement = decibels(ours(model, floats(image)), whole(model, floats(image)))
    yield of(name="agreement with float32, in one piece", value=agreement, unit="dB", bar=48, better="higher")


def costs(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU time per megapixel of the result of every model, and what the extras add to the first."""
    side = 64 if quick else 192
    image = photograph("astronaut", side, side)
    size = (4 * side) ** 2 / 1e6
    calls: dict[str, Callable[[], Any]] = {
        name_of(one): functools.partial(ours, one, image, scale=4) for one in models(model)
    }
    first = models(model)[0]
    for extra in ({"consistent": True}, {"evidence": True}, {"scale": 3.0}):
        words = ", ".join(f"{name} {value:g}" if name == "scale" else name for name, value in extra.items())
        calls[f"{name_of(first)}, {words}"] = functools.partial(ours, first, image, **{"scale": 4, **extra})
    for name, runs in cpu_seconds(calls, rounds=1 if quick else 5).items():
        made = (3 * side) ** 2 / 1e6 if name.endswith("scale 3") else size
        yield Figure(part="costs", name=name, value=median(runs) / made, unit="CPU s/MP", runs=runs)


# --- the machine's own rate -------------------------------------------------------------------------------------------


def multiplications(network: Any) -> tuple[int, int]:
    """Count, per pixel of the photograph, those of an SRResNet's residual body and of all its convolutions."""
    import torch
    from torch import nn

    counted: dict[Any, int] = {}

    def count(module: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        counted[module] = module.weight.numel() * output.shape[2] * output.shape[3]

    hooks = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, nn.Conv2d)]
    side = 16
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    body = {one for one in network.blocks.modules() if one in counted}
    return tuple(sum(counted[one] for one in some) // side**2 for some in (body, counted))  # pyright: ignore


def rate(model: str | None, quick: bool) -> Iterator[Figure]:
    """SRResNet in bands, as it really runs, against the machine's own rate for products of bfloat16 matrices."""
    import torch
    from torch import nn

    from velatura.device import half_precision
    from velatura.nets.inference import for_inference
    from velatura.nets.rows import in_bands
    from velatura.nets.srresnet import SRResNet

    network = plain(model)
    if not isinstance(network, SRResNet):
        print(f"  {name_of(model)} is no SRResNet: left out")
        return
    body, everything = multiplications(network)
    half = half_precision(torch.device("cpu")) or torch.float32
    fresh = SRResNet(network.scale, network.head[0].out_channels, len(network.blocks)).requires_grad_(False)
    network = for_inference(fresh, half)

    class Body(nn.Module):
        def forward(self, x: Any, rows: Any) -> Any:
            for block in network.blocks:
                x = rows.add(block, x, rows(block, x))
            return x

    width, bands = 256, 3 if quick else 8
    height = BAND // width  # of one band
    image = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    trunk = torch.rand(1, network.merge[0].in_channels, height, width).contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(1)

    @torch.inference_mode()
    def through(net: nn.Module, x: torch.Tensor) -> None:
        for _ in in_bands(net, ((x, i == bands - 1) for i in range(bands))):
            pass

    def product(side: int) -> Callable[[], Any]:
        a, b = torch.rand(2, side, side).to(half)
        return functools.partial(torch.mm, a, b)

    calls: dict[str, Callable[[], Any]] = {f"mm {side}": product(side) for side in MATRIX}
    calls |= {"body": functools.partial(through, Body(), trunk), "net": functools.partial(through, network, image)}
    seconds = {name: median(runs) for name, runs in cpu_seconds(calls, rounds=2 if quick else 9).items()}
    pixels = bands * height * width
    own = max(2 * side**3 / seconds[f"mm {side}"] for side in MATRIX if f"mm {side}" in seconds)
    of = functools.partial(Figure, part="rate", better="higher")
    kind = str(half).removeprefix("torch.")
    yield of(name=f"products of {kind} matrices", value=own / 1e9, unit="GFLOP/s")
    for name, count, words, bar in (("body", body, "residual body", 0.85), ("net", everything, "whole network", 0.55)):
        found = 2 * count * pixels / seconds[name]
        yield of(name=words, value=found / 1e9, unit="GFLOP/s")
        yield of(name=f"{words} / matrices", value=found / own, unit="", bar=bar)


# --- exactness --------------------------------------------------------------------------------------------------------


def tiles(model: str | None, quick: bool) -> Iterator[Figure]:
    """Largest difference from the image in one piece: the usual tiles and our bands, of float images."""
    from velatura import Upscale

    side = 160 if quick else 384
    image = floats(photograph("astronaut", side, side))
    exact = whole(model, image)
    of = functools.partial(Figure, part="tiles", unit="grey levels")
    for tile in (64, 128):
        found = worst(usual(model, image, side=tile), exact)
        yield of(name=f"usual way, tiles of {tile}, halo {USUAL_HALO}", value=found)
    one = Upscale(model or MODEL, device="cpu")
    with limit_threads(1):
        bands = one(image).image
        few = Upscale(model or MODEL, device="cpu", memory=0.1)(image).image
        # The same arithmetic, the whole image as one band.
        import torch

        from velatura.nets.rows import in_bands

        with torch.inference_mode():
            x = torch.from_numpy(image).permute(2, 0, 1)[None]
            (made,) = in_bands(one._networks[None], [(x, True)])
    alone = made[0].clamp(0, 1).permute(1, 2, 0).float().numpy()
    yield of(name="ours, bands against one band", value=worst(bands, alone), bar=1)
    yield of(name="ours, thin bands against one band", value=worst(few, alone), bar=1)
    yield of(name="ours against float32 in one piece", value=worst(bands, exact))


def quality(model: str | None, quick: bool) -> Iterator[Figure]:
    """PSNR on luma that half precision costs, on held-out photographs."""
    if not DATA or not Path(DATA).is_dir():
        print("  no data folder (VELATURA_DATA): left out")
        return
    from velatura.training.recipe import make_config
    from velatura.training.recipes.upscale import UpscaleConfig, fidelity, read_pairs

    pairs = read_pairs(make_config(UpscaleConfig, {"data": DATA, "scale": int(plain(model).scale)}), "held-out")
    if quick:
        pairs.low, pairs.high = pairs.low[:3], pairs.high[:3]
    found = {
        words: fidelity([way(model, low) for low in pairs.low], pairs)["psnr"]
        for words, way in (("float32, in one piece", whole), ("ours", ours))
    }
    of = functools.partial(Figure, part="quality", unit="dB")
    for words, values in found.items():
        yield of(name=f"{words}, mean of {len(values)}", value=float(values.mean()), better="higher")
    loss = found["float32, in one piece"] - found["ours"]
    yield of(name="loss", value=float(loss.mean()), bar=0.03)
    yield of(name="loss, worst photograph", value=float(loss.max()))


def resampler(model: str | None, quick: bool) -> Iterator[Figure]:
    """Largest difference from the kernel evaluated for every pair of pixels in float64; white is 1."""
    from velatura.ops.resize import RowResize

    old = (60, 80) if quick else (240, 320)
    image = photograph("coffee", *old) / LEVELS
    for kernel, formula in FORMULAS.items():
        errors: dict[str, list[float]] = {"float64": [], "float32": []}
        for scale in (0.25, 0.3, 1 / 1.7, 1.5, 4):
            new = round(old[0] * scale), round(old[1] * scale)
            down, across = (dense(formula, *pair) for pair in zip(old, new, strict=True))
            exact = np.einsum("yh,xw,hwc->yxc", down, across, image, optimize=True)
            change = RowResize(old, new, kernel)
            strips = [(top, min(top + 64, new[0])) for top in range(0, new[0], 64)]
            for dtype, found in errors.items():
                made = [
                    change.rows(image[start:stop].astype(dtype), start, rows)
                    for rows in strips
                    for start, stop in (change.needs(rows),)
                ]
                found.append(float(np.abs(np.concatenate(made) - exact).max()))
        for dtype, found in errors.items():
            name = f"{kernel}, {dtype}, worst of {len(found)} scales"
            yield Figure(part="resampler", name=name, value=max(found), unit="of white", bar=1e-6)


# Keys 1981 with a = -0.5; Lanczos with three lobes.
FORMULAS: dict[Literal["bicubic", "lanczos"], Callable[[np.ndarray], np.ndarray]] = {
    "bicubic": lambda x: np.where(
        x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
    ),
    "lanczos": lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0),
}


def dense(formula: Callable[[np.ndarray], np.ndarray], size: int, new: int) -> np.ndarray:
    """Give the matrix of one axis as MATLAB's imresize has it: antialiased, mirrored at the border."""
    stretch = max(size / new, 1)
    centres = (np.arange(new) + 0.5) * size / new - 0.5
    values = formula(np.abs(np.arange(-size, 2 * size) - centres[:, None]) / stretch)
    values /= values.sum(1, keepdims=True)
    before, inside, behind = np.split(values, 3, axis=1)
    return before[:, ::-1] + inside + behind[:, ::-1]


# --- memory -----------------------------------------------------------------------------------------------------------


def file_to_file(model: str | None, source: str, out: str, params: dict[str, Any]) -> tuple[float, float]:
    """Enlarge from file to file: peak of the whole process in GiB, CPU seconds with reading and writing."""
    start = time.process_time()
    with limit_threads(1):
        task(model).to_file(source, out=out, **params)
    return resident("VmHWM") / 2**30, time.process_time() - start


def usual_to_file(model: str | None, source: str, out: str) -> tuple[float, float]:
    from PIL import Image

    start = time.process_time()
    Image.fromarray(usual(model, np.asarray(Image.open(source).convert("RGB")))).save(out)
    return resident("VmHWM") / 2**30, time.process_time() - start


def large(model: str | None, quick: bool) -> Iterator[Figure]:
    """25 and 100 megapixels out, to TIFF and to PNG; the process holds everything, torch included."""
    from velatura.image import open_image, save_image

    of = functools.partial(Figure, part="large")
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 4) if quick else (25, 100):
            side = round((count * 1e6) ** 0.5) // 4
            source = f"{folder}/photograph-{count}.png"
            save_image(open_image(photograph("astronaut", side, side)), source)
            jobs: dict[str, tuple[Any, ...]] = {
                f"{suffix}, {count} megapixels": (
                    file_to_file,
                    model,
                    source,
                    f"{folder}/{count}.{suffix}",
                    {"scale": 4},
                )
                for suffix in ("tif", "png")
            }
            if count < 100:
                extras = {"scale": 4, "consistent": True}
                jobs[f"tif, consistent, {count} megapixels"] = (
                    file_to_file,
                    model,
                    source,
                    f"{folder}/{count}-c.tif",
                    extras,
                )
                jobs[f"usual way, tif, {count} megapixels"] = (usual_to_file, model, source, f"{folder}/{count}-u.tif")
            for name, job in jobs.items():
                peak, seconds = in_own_process(*job)
                bar = None if name.startswith("usual") else 1.2
                yield of(name=f"{name}, peak of the process", value=peak, unit="GiB", bar=bar)
                yield of(name=f"{name}, reading and writing included", value=seconds, unit="CPU s")


PARTS = {part.__name__: part for part in (speed, costs, rate, tiles, quality, resampler, large)}

if __name__ == "__main__":
    sys.exit(command_line("upscale", "Upscaling beside the usual way", __doc__ or "", PARTS, MODEL))
