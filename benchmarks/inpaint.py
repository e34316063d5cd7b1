"""Inpainting beside the usual ways: texture and Telea, faces and the paper's own search; time, detail, memory; studies.

    python benchmarks/inpaint.py                       everything, into benchmarks/results/inpaint.json
    python benchmarks/inpaint.py --only texture        some parts, printed only
    python benchmarks/inpaint.py --quick               small holes, to see that it runs; printed only
    python benchmarks/inpaint.py --model FILE          another model of faces than the shipped one
    python benchmarks/inpaint.py --study NAME          one study, or all, into results/evaluate-inpaint-NAME.json
    python benchmarks/inpaint.py --study NAME --weights DIR    with models that are not shipped, as DIR/NAME.safetensors

One thread; CPU time is user plus system time of the process; both ways run in turn in one process, arrays in and arrays
out; the median counts. Detail is the mean absolute difference of neighbouring pixels in the hole, as a share of what
stood there: 1 is right, 0 is a smear. It says how a texture looks; the squared error would praise the smear. The
paper's own search is that of Yeh et al. 2017 as programs usually have it: eager float32, one image, 1500 steps of Adam
from a random latent, with the same generator. Memory is the resident set's peak, torch included.
"""

from __future__ import annotations

import os

# Before NumPy loads its libraries.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import functools
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from _common import LEVELS, RESULTS, Figure, command_line, cpu_seconds, in_own_process, photograph, resident

from velatura import catalog
from velatura.device import limit_threads

DATA = os.environ.get("VELATURA_DATA", "")
FACES = "vae-faces"
STEPS, RATE = 1500, 0.03  # of the paper's own search

PEER = "opencv telea"
TEXTURES = ("brick", "grass", "gravel")
SIDES = (32, 64, 128)  # of the hole, pixels


@functools.cache
def task(model: str) -> Any:
    from velatura import Inpaint

    return Inpaint.from_pretrained(model, device="cpu")


def ours(image: np.ndarray, mask: np.ndarray, model: str = "texture", **params: Any) -> np.ndarray:
    with limit_threads(1):
        return task(model)(image, mask, **params).image


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


# --- faces ------------------------------------------------------------------------------------------------------------


def is_there(model: str | None) -> bool:
    """Tell whether there is a model of faces; say so if there is none."""
    there = model is not None or any(card.name == FACES for card in catalog.cards())
    if not there:
        print(f"  no {FACES} in the catalog, and no --model: left out")
    return there


def face() -> np.ndarray:
    """Cut the astronaut's face out, about as aligned faces are: 64x64."""
    from skimage import data

    return data.astronaut()[40:168, 160:288].reshape(64, 2, 64, 2, 3).mean((1, 3)).round().astype(np.uint8)


def square_hole(side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = LEVELS
    return mask


def usual_search(model: str, image: np.ndarray, mask: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Fill one image as most programs do: section 3 of the paper, nothing prepared."""
    import torch

    from velatura.latent_search import context_weights
    from velatura.semantic import join

    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets = loaded(model)
    known = torch.from_numpy(image).permute(2, 0, 1)[None].float() / LEVELS
    hole = (torch.from_numpy(mask)[None, None] > 0).float()
    weights = context_weights(hole)
    z = torch.randn(1, nets.generator.latent).requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        made = nets.generator(z)
        prior = (
            z.square().sum() if nets.critic is None else torch.log(1 - torch.sigmoid(nets.critic(made)) + 1e-8).sum()
        )
        loss = (weights * (made - known).abs()).sum() + 0.003 * prior
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-4, 4)
    filled = join(nets.generator(z).detach()[0], known[0], hole[0])
    return (filled * LEVELS).round().byte().permute(1, 2, 0).numpy()


@functools.cache
def loaded(model: str) -> Any:
    from velatura.semantic import load_model

    return load_model(model)


def search(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds for one face of 64x64 beside the paper's own search with the same generator."""
    if not is_there(model):
        return
    name, steps = model or FACES, 20 if quick else STEPS
    image, mask = face(), square_hole(64)
    calls = {
        f"{steps} steps of the paper's search": functools.partial(usual_search, name, image, mask, steps),
        "ours": functools.partial(ours, image, mask, name),
    }
    seconds = cpu_seconds(calls, rounds=1 if quick else 3)
    usual, mine = (median(runs) for runs in seconds.values())
    of = functools.partial(Figure, part="search")
    for (words, runs), value in zip(seconds.items(), (usual, mine), strict=True):
        aim = 1.0 if words == "ours" else None
        yield of(name=f"64x64 face, {words}", value=value, unit="CPU s", aim=aim, runs=runs)
    yield of(name="times as fast", value=usual / mine, unit="", bar=20, aim=40, better="higher")


def completion(model: str | None, quick: bool) -> Iterator[Figure]:
    """Faces of 256x256, super-resolved: time besides upscaling, and gain over bicubic enlargement of the same fill."""
    if not is_there(model):
        return
    from velatura import Upscale

    name, mask = model or FACES, square_hole(256)
    faces = held_out_faces(3 if quick else None)
    image, small = faces[0], face()
    upscale = Upscale.from_pretrained("srresnet", device="cpu")

    def upscaling() -> None:
        with limit_threads(1):
            upscale(small, scale=4.0)

    fills = {
        way: functools.partial(ours, mask=mask, model=name, aligned=True, enlarge=way)
        for way in ("srresnet", "bicubic")
    }
    calls = {way: functools.partial(fill, image) for way, fill in fills.items()} | {"upscaling alone": upscaling}
    seconds = cpu_seconds(calls, rounds=1 if quick else 5)
    middle = {words: median(runs) for words, runs in seconds.items()}
    of = functools.partial(Figure, part="completion")
    yield of(name="256x256 face, super-resolved", value=middle["srresnet"], unit="CPU s", runs=seconds["srresnet"])
    besides = middle["srresnet"] - middle["upscaling alone"]
    yield of(name="of it besides upscaling", value=besides, unit="CPU s", bar=2)
    found = {way: np.array([figures(fill(one), one) for one in faces]) for way, fill in fills.items()}
    for words, values in found.items():
        psnr, distance = values.mean(0)
        yield of(name=f"PSNR, {words}, mean of {len(faces)}", value=float(psnr), unit="dB", better="higher")
        yield of(name=f"perceptual distance, {words}", value=float(distance), unit="")
    gain, less = (found["srresnet"] - found["bicubic"]).mean(0) * (1, -1)
    yield of(name="PSNR, gain over bicubic", value=float(gain), unit="dB", bar=0, better="higher")
    yield of(name="perceptual distance, less than bicubic by", value=float(less), unit="", bar=0, better="higher")


def held_out_faces(count: int | None) -> list[np.ndarray]:
    """Read the held-out faces of 256x256; the astronaut's where there is no data folder."""
    if not DATA or not Path(DATA).is_dir():
        print("  no data folder (VELATURA_DATA): one face of scikit-image's")
        from skimage import data

        return [data.astronaut()[:256, 100:356]]
    from velatura.training.data import read_set

    found = read_set(Path(DATA), "faces256", "held-out")
    return [found[i] for i in range(len(found))][:count]


def figures(image: np.ndarray, original: np.ndarray) -> tuple[float, float]:
    from velatura.metrics.fidelity import RGB, psnr
    from velatura.metrics.perceptual import perceptual_distance

    return psnr(image, original, RGB), perceptual_distance(image, original, features())


@functools.cache
def features() -> Any:
    from velatura.perceptual import load_features

    return load_features()


# --- training ---------------------------------------------------------------------------------------------------------

RECIPES = {
    "vae-faces": (),
    "dcgan-faces": (),
    "vae-brain": (),
    "dcgan-brain": (),
    "vae-brain, kernel 7": ("kernel=7", "width=20"),
    "dcgan-brain, kernel 7": ("kernel=7", "width=20", "critic_width=20"),
}


def training(model: str | None, quick: bool) -> Iterator[Figure]:
    """CPU seconds of an epoch, epochs and CPU time of our settings: VAE with its encoder against GAN without one."""
    if not DATA or not Path(DATA).is_dir():
        print("  no data folder (VELATURA_DATA): left out")
        return
    of = functools.partial(Figure, part="training")
    for name, settings in RECIPES.items():
        seconds, batch, pictures, steps = in_own_process(steps_of, name.partition(",")[0], settings, 1 if quick else 16)
        epochs, step = steps * batch / pictures, mean(seconds)  # not all steps are alike: some have a penalty
        yield of(name=f"{name}, an epoch", value=step * pictures / batch, unit="CPU s", runs=tuple(seconds))
        yield of(name=f"{name}, epochs", value=epochs, unit="")
        yield of(name=f"{name}, all of it", value=step * steps / 60, unit="CPU min")


def steps_of(name: str, settings: tuple[str, ...], count: int) -> tuple[list[float], int, int, int]:
    """Train a recipe a few steps: CPU seconds of each, pictures in a batch and in the set, steps of the whole."""
    import importlib
    from time import process_time

    import torch
    from lightning.fabric import Fabric

    from velatura.training import recipes
    from velatura.training.loop import Training
    from velatura.training.recipe import make_config

    torch.set_num_threads(1)
    file, kind, model = recipes.RECIPES[name]
    module = importlib.import_module(f"velatura.training.recipes.{file}")
    usual = Path(recipes.__file__).with_name(f"{name}.toml")
    config = make_config(getattr(module, model), usual, settings=[*settings, f"data={DATA}"])
    recipe = getattr(module, kind)(config)
    fabric = Fabric(accelerator="cpu", precision=config.precision)
    fabric.launch()
    for network in recipe.networks.values():
        network.to(memory_format=torch.channels_last)
    optimizers = recipe.optimizers()
    state = Training(
        fabric,
        {key: fabric.setup_module(network) for key, network in recipe.networks.items()},
        {key: fabric.setup_optimizers(optimizer) for key, optimizer in optimizers.items()},
        config.clip,
    )
    seconds = []
    for step in range(count + 2):
        start = process_time()
        recipe.step(state, recipe.batch(step, 0), step)
        seconds.append(process_time() - start)
    pictures = sum(len(images) for _, images in recipe.pictures.groups)
    # The first two find out what the processor likes.
    return seconds[2:], config.batch_size, pictures, config.steps


# --- memory -----------------------------------------------------------------------------------------------------------


def file_to_file(folder: str) -> tuple[float, str, int]:
    """Fill the holes of a large photograph: the process's peak in MiB, what filled them, pixels changed outside."""
    from PIL import Image

    from velatura import Inpaint

    inpaint = Inpaint.from_pretrained()
    source, mask, out = (Path(folder, f"{name}.png") for name in ("photo", "mask", "out"))
    made_by = inpaint.write((source, mask), out, inpaint.Params()).made_by
    peak = resident("VmHWM") / 2**20
    changed = (np.asarray(Image.open(source)) != np.asarray(Image.open(out))).any(-1)
    return peak, made_by or "texture", int((changed & (np.asarray(Image.open(mask)) == 0)).sum())


def box_mask(shape: tuple[int, ...], x: int, y: int, width: int, height: int) -> np.ndarray:
    """A hole that is a box."""
    mask = np.zeros(shape[:2], np.uint8)
    mask[y : y + height, x : x + width] = 255
    return mask


def scratches(shape: tuple[int, ...], count: int = 20) -> np.ndarray:
    """Lines of two to eight pixels from the upper to the lower border."""
    from PIL import Image, ImageDraw

    rng, mask = np.random.default_rng(0), Image.new("L", (shape[1], shape[0]))
    for _ in range(count):
        ends = (int(rng.integers(shape[1])), 0, int(rng.integers(shape[1])), shape[0])
        ImageDraw.Draw(mask).line(ends, fill=255, width=int(rng.integers(2, 9)))
    return np.asarray(mask)


def memory(model: str | None, quick: bool) -> Iterator[Figure]:
    """The whole process for photographs of 12 megapixels; the shipped models."""
    from PIL import Image
    from skimage import data

    if quick:
        return
    wall, face = np.tile(data.coffee(), (8, 7, 1))[:3000, :4000], photograph("astronaut", 3464, 3464)
    cases = {
        "a hole of 200x200 in a wall": (wall, box_mask(wall.shape, 2000, 1500, 200, 200)),
        "a hole of 240x140 over a mouth": (face, box_mask(face.shape, 1403, 945, 240, 140)),
        "20 scratches from top to bottom": (wall, scratches(wall.shape)),
    }
    for name, (photo, mask) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            for file, pixels in (("photo", photo), ("mask", mask)):
                Image.fromarray(pixels).save(Path(folder, f"{file}.png"))
            value, made_by, changed = in_own_process(file_to_file, folder)
        words = f"12 megapixels, {name}, by {made_by}"
        yield Figure(part="memory", name=f"{words}, whole process", value=value, unit="MiB", bar=1024)
        yield Figure(part="memory", name=f"{words}, changed outside", value=changed, unit="pixels", bar=0)


# --- studies ----------------------------------------------------------------------------------------------------------

BOTH = "--model vae-{0} --model dcgan-{0}"
SHORT = "--method latent --steps 500 --limit 16 --masks centre,pattern"

#: What follows ``velatura evaluate inpaint``.
STUDIES = {
    # Two kinds of generators.
    "generators-faces": f"{BOTH.format('faces')} --limit 104",
    "generators-brain": f"{BOTH.format('brain')} --limit 104",
    # The encoder and the paper's own search, with the same generators.
    "search-faces": f"{BOTH.format('faces')} --method encoder --method latent --limit 16 --masks centre,random",
    "search-brain": f"{BOTH.format('brain')} --method encoder --method latent --limit 16 --masks centre,random",
    # The report's other questions.
    # Of each kind two that were trained alike, with kernels of 3 and of 7 (docs/inpaint-studies.md says how).
    "kernels-brain": "--model vae-brain-kernel3 --model vae-brain-kernel7 --model dcgan-brain "
    "--model dcgan-brain-kernel7 --limit 104",
    "joining-faces": f"{BOTH.format('faces')} --plain --masks centre,half,pattern --limit 104",
    "joining-brain": f"{BOTH.format('brain')} --plain --masks centre,half,small,large --limit 104",
    "prior-faces": f"{BOTH.format('faces')} --prior 0 --prior .001 --prior .003 --prior .03 --prior .1 {SHORT}",
    "prior-brain": f"{BOTH.format('brain')} --prior 0 --prior .001 --prior .003 --prior .03 --prior .1 {SHORT}",
    "weights-faces": f"{BOTH.format('faces')} --window 3 --window 7 --window 15 --window 63 {SHORT}",
    "weights-brain": f"{BOTH.format('brain')} --window 3 --window 7 --window 15 --window 63 {SHORT}",
    "norms-faces": f"{BOTH.format('faces')} --norm l1 --norm l2 {SHORT}",
    "norms-brain": f"{BOTH.format('brain')} --norm l1 --norm l2 {SHORT}",
}


def study(name: str, weights: str | None, quick: bool) -> int:
    """Run one study: a single command, which is printed."""
    from velatura.cli import main

    words = STUDIES[name].split()
    for i, word in enumerate(words):
        if words[i - 1] == "--model" and weights and (file := Path(weights, f"{word}.safetensors")).is_file():
            words[i] = str(file)
    if quick:
        short = {"--limit": "2", "--steps": "2"}
        given = {i + offset for i, word in enumerate(words) if word in short for offset in (0, 1)}
        words = [word for i, word in enumerate(words) if i not in given] + [
            word for pair in short.items() for word in pair
        ]
    command = ["evaluate", "inpaint", "--data", DATA, *words]
    if not quick:
        command += ["--json", str(RESULTS / f"evaluate-inpaint-{name}.json"), "--overwrite"]
    print(shlex.join(["velatura", *command]), flush=True)
    with limit_threads(1):
        return main(command)


def studies() -> int:
    """Run the studies that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=[*STUDIES, "all"], required=True)
    parser.add_argument("--weights", metavar="DIR", help="where models lie that are not shipped")
    parser.add_argument("--quick", action="store_true", help="two pictures, two steps; printed only")
    given = parser.parse_args()
    if not DATA:
        parser.error("no data folder: name one in VELATURA_DATA")
    return max(study(name, given.weights, given.quick) for name in (STUDIES if given.study == "all" else [given.study]))


PARTS = {part.__name__: part for part in (texture, search, completion, training, memory)}


if __name__ == "__main__":
    if any(word.startswith("--study") for word in sys.argv):
        sys.exit(studies())
    sys.exit(command_line("inpaint", "Inpainting beside the usual ways", __doc__ or "", PARTS, FACES))
