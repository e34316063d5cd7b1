"""What ``velatura evaluate generate`` measures: how real made images look as a set, beside other real ones.

``samples`` compares what models make with photographs that were held out; ``levels`` compares each size of a LAPGAN
with the enlarged image that it started from.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from velatura.catalog import card, cards, read_header
from velatura.errors import InputError, MachineError, ModelError
from velatura.metrics.report import Column, Interval, Report, bootstrap
from velatura.task import Progress, no_progress
from velatura.tasks.generate import Generate

if TYPE_CHECKING:
    from torch import Tensor

    from velatura.nets.lapgan import LAPGAN

__all__ = ["Part", "evaluate_generate", "extractors", "trained_with"]

Part = Literal["samples", "levels"]

IMAGES = 500  # of each set at most
DRAWS = 3  # sets of samples, over which the intervals are
BATCH = 64  # images that a pyramid makes at a time
FLOOR = "training photographs"
ENLARGED = "enlarged"  # a row's name, behind the model's
AT_LEAST = 32  # side in pixels that features take: smaller images are enlarged to it, made and real ones alike
DISTANCES = (
    "FD: Frechet distance, KID: unbiased squared MMD with the kernel (x.y/d + 1)^3, of the features named (velatura: "
    "means over places of our own, strides 8 and 16; googlenet: the last means of bvlc_googlenet at 224x224); neither "
    "is FID or KID of Inception-v3."
)
TEACHER = "bvlc_googlenet_fp16.npz"  # in the folder `pretrained` beside the data

Extract = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True)
class _Sets:
    """Real images of what a model makes: (n, C, H, W), 0..1."""

    subject: str
    held: Tensor
    train: Tensor
    shares: np.ndarray  # of each training image in a draw


def evaluate_generate(
    models: Sequence[str],
    data: Path,
    *,
    part: Part = "samples",
    count: int = IMAGES,
    draws: int = DRAWS,
    progress: Progress = no_progress,
) -> Report:
    """Measure generators against held-out photographs of what they learned from.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, or files, all of one subject; the first is judged, and the second is its baseline.
    data : Path
        Folder of the training sets; beside it, in ``pretrained``, GoogLeNet's weights, if it is to judge.
    part : {"samples", "levels"}
        The second takes pyramids only; the enlarged image before is the baseline of each level.
    count : int
        How many images of each set at most.
    draws : int
        How many sets of samples.
    progress : callable

    Returns
    -------
    Report

    Raises
    ------
    InputError
        The models are of several subjects, or there are no images; or they have no levels.
    ModelError
        A model is unknown or refused, or does not say what it learned from.
    MachineError
        What training needs is not installed.
    """
    sets = [_real(model, data, count) for model in models]
    if len({each.subject for each in sets}) > 1:
        raise InputError(f"the models are of {' and '.join(sorted({each.subject for each in sets}))}; name one kind")
    looks = extractors(data)
    if part == "levels":
        return _levels(models, sets[0], looks, draws, progress)
    return _samples(models, sets[0], looks, draws, progress)


def _samples(models: Sequence[str], real: _Sets, looks: dict[str, Extract], draws: int, progress: Progress) -> Report:
    """Compare what models make with photographs that were held out."""
    held = {who: extract(real.held) for who, extract in looks.items()}
    everything = looks["velatura"](real.train)
    number, rows = len(real.held), {}
    for place, model in enumerate(models):
        name, found = Path(model).stem, []
        task = Generate.from_pretrained(model)
        for seed in range(draws):
            progress(place * draws + seed, len(models) * draws, f"making {name}")
            made = _tensor(task(number, seed=seed).pictures)
            found.append(_figures({who: extract(made) for who, extract in looks.items()}, held, everything))
        rows[name] = _intervals(found)
    random, found = np.random.default_rng(0), []
    for _ in range(draws):
        chosen = random.choice(len(real.train), number, replace=False, p=real.shares)
        others = {who: extract(real.train[chosen]) for who, extract in looks.items() if who != "velatura"}
        found.append(_figures({"velatura": everything[chosen], **others}, held, everything))
    rows[FLOOR] = _intervals(found)
    size = real.held.shape[-1]
    return Report(
        title=f"{real.subject.title()} from noise at {size}x{size}",
        protocol=(
            f"{number} samples, the same number of held-out photographs; mean over {draws} draws of samples, intervals "
            f"by bootstrap over these. {DISTANCES} Precision and recall with k = 3. Nearness, on velatura's: first "
            f"percentile of the distance to the nearest of {len(real.train)} training photographs, over that of the "
            f"held-out ones; below 1 there are copies. {FLOOR}: as many of them in the place of the samples, so they "
            "are copies."
        ),
        data=f"what is held out of the {real.subject} that the model learned from",
        count=number,
        columns=[
            *(Column(f"{kind}-{who}", digits=4) for who in looks for kind in ("FD", "KID")),
            *(Column(f"{kind}-{who}", better="higher", digits=3) for who in looks for kind in ("precision", "recall")),
            Column("nearness", "of held-out photographs'", "higher", digits=3),
        ],
        rows=rows,
        model=Path(models[0]).stem,
        baseline=Path(models[1]).stem if len(models) > 1 else "",
    )


def _figures(made: dict[str, Tensor], held: dict[str, Tensor], train: Tensor) -> list[float]:
    from velatura.metrics.realism import memorised, precision_recall

    ours, theirs = memorised(made["velatura"], held["velatura"], train)
    shares = [share for who in held for share in precision_recall(made[who], held[who])]
    return [*_distances(made, held), *shares, ours / max(theirs, 1e-12)]


def _distances(made: dict[str, Tensor], held: dict[str, Tensor]) -> list[float]:
    from velatura.metrics.realism import frechet_distance, kernel_distance

    return [distance(made[who], held[who]) for who in held for distance in (frechet_distance, kernel_distance)]


def _levels(models: Sequence[str], real: _Sets, looks: dict[str, Extract], draws: int, progress: Progress) -> Report:
    """Compare every size that pyramids make with halved photographs, beside the image before it, enlarged."""
    from velatura.nets.lapgan import LAPGAN, pyramid

    networks: dict[str, LAPGAN] = {}
    for model in models:
        name, network = Path(model).stem, Generate.from_pretrained(model).network
        if not isinstance(network, LAPGAN):
            raise InputError(f"{name}: makes one size alone and has no levels; --part levels takes a LAPGAN")
        networks[name] = network
    number, rows = len(real.held), {}
    random = np.random.default_rng(0)
    others = [random.choice(len(real.train), number, replace=False, p=real.shares) for _ in range(draws)]
    start = min(each.start_size for each in networks.values())
    held = {side.shape[-1]: _seen(looks, side) for side in pyramid(real.held, start)[1:]}
    for place, (name, network) in enumerate(networks.items()):
        found: dict[str, list[list[float]]] = {}
        for seed in range(draws):
            progress(place * draws + seed, len(networks) * draws, f"making {name}")
            images = _made(network, number, seed)
            for coarse, made in pairwise(images):
                side = made.shape[-1]
                for row, pictures in ((name, made), (f"{name} {ENLARGED}", _bicubic(coarse, side))):
                    found.setdefault(f"{row}, {side} px", []).append(
                        _distances(_seen(looks, _rounded(pictures)), held[side])
                    )
        rows |= {row: _intervals(figures) for row, figures in found.items()}
    for level, side in enumerate(held, 1):
        figures = [_distances(_seen(looks, pyramid(real.train[each], start)[level]), held[side]) for each in others]
        rows[f"{FLOOR}, {side} px"] = _intervals(figures)
    first = Path(models[0]).stem
    return Report(
        title=f"{real.subject.title()}: levels of a pyramid",
        protocol=(
            f"{number} samples of every size, the same number of held-out photographs, halved to that size; mean over "
            f"{draws} draws of samples, intervals by bootstrap over these. {DISTANCES} {ENLARGED.title()}: the "
            f"pyramid's own samples of the size before, twice as large by bicubic interpolation; {FLOOR}: as many of "
            f"them, halved. What is smaller than {AT_LEAST} pixels is enlarged to them first, photographs too."
        ),
        data=f"what is held out of the {real.subject} that the model learned from",
        count=number,
        columns=[Column(f"{kind}-{who}", digits=4) for who in looks for kind in ("FD", "KID")],
        rows=rows,
        model=first,
        baseline=f"{first} {ENLARGED}",
    )


def _made(network: LAPGAN, count: int, seed: int) -> list[Tensor]:
    """Make images of all sizes, on the CPU."""
    import torch

    drawn = torch.Generator().manual_seed(seed)
    z, label = network.draw(count, drawn), network.draw_classes(count, drawn)
    labels = [None] * len(z) if label is None else label.split(BATCH)
    device = next(network.parameters()).device
    with torch.inference_mode():
        parts = [
            network(some.to(device), None if which is None else which.to(device)).images
            for some, which in zip(z.split(BATCH), labels, strict=False)
        ]
    return [torch.cat([part[level].float().cpu() for part in parts]) for level in range(len(network.sizes))]


def _seen(looks: dict[str, Extract], images: Tensor) -> dict[str, Tensor]:
    large = _bicubic(images, max(images.shape[-1], AT_LEAST))
    return {who: extract(large) for who, extract in looks.items()}


def _bicubic(images: Tensor, side: int) -> Tensor:
    from torch.nn import functional

    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def _rounded(images: Tensor) -> Tensor:
    return (255 * images.clamp(0, 1)).round() / 255


def _intervals(found: Sequence[Sequence[float]]) -> list[Interval]:
    return [bootstrap(values) for values in zip(*found, strict=True)]


def extractors(data: Path) -> dict[str, Extract]:
    """Give what features are taken by, under the name that figures bear: ours, and GoogLeNet's if the user has it.

    Parameters
    ----------
    data : Path
        Folder of the training sets; beside it lies ``pretrained``.
    """
    from velatura.metrics.realism import googlenet_features, velatura_features
    from velatura.nets.googlenet import GoogLeNet
    from velatura.perceptual import load_features

    ours = load_features().eval()
    found: dict[str, Extract] = {"velatura": lambda images: velatura_features(ours, images)}
    file = data.resolve().parent / "pretrained" / TEACHER
    if file.is_file():
        with np.load(file) as arrays:
            teacher = GoogLeNet.from_caffe(dict(arrays))
        found["googlenet"] = lambda images: googlenet_features(teacher, images)
    return found


def trained_with(model: str, data: Path, homes: Sequence[str]) -> tuple[str, Any]:
    """Say what trained a model: in which file its recipe lives, and its settings.

    Parameters
    ----------
    model : str
        A name of the catalog, or a file.
    data : Path
        Folder of the training sets, in place of the one that it was trained with.
    homes : sequence of str
        Files of ``velatura.training.recipes`` that are expected.

    Returns
    -------
    home : str
    config : TrainConfig

    Raises
    ------
    ModelError
        The model is unknown or refused, or its recipe is in none of these.
    MachineError
        What training needs is not installed.
    """
    path = card(model).path if model in {known.name for known in cards()} else Path(model)
    recipe = read_header(path).recipe
    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes import RECIPES
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None
    home, _, settings = RECIPES.get(recipe.get("name", ""), ("", "", ""))
    if home not in homes:
        raise ModelError(f"{path.name}: does not say which generator's recipe trained it; nothing to measure it on")
    kind = getattr(importlib.import_module(f"velatura.training.recipes.{home}"), settings)
    told = {name: value for name, value in recipe.get("settings", {}).items() if name in kind.model_fields}
    return home, make_config(kind, told, {"data": str(data)})


def _real(model: str, data: Path, count: int) -> _Sets:
    """Read the photographs that a model learned from, and those that were held out."""
    home, config = trained_with(model, data, ("generate", "lapgan"))
    return _classes(config, count) if home == "lapgan" else _groups(config, count)


def _classes(config: Any, count: int) -> _Sets:
    """Read photographs with classes."""
    from velatura.training.recipes.lapgan import Labelled

    held, _ = Labelled(config, "held-out").whole(count)
    train, _ = Labelled(config, "train").whole(1 << 30)
    return _Sets(config.subject, held, train, np.full(len(train), 1 / len(train)))


def _groups(config: Any, count: int) -> _Sets:
    """Read photographs of one or more groups, held-out ones in the shares that training draws them in."""
    import torch

    from velatura.training.pictures import Pictures

    held, train = Pictures(config, "held-out"), Pictures(config, "train")
    total = sum(share for share, _ in held.groups)
    count = min(count, *(int(len(images) * total / share) for share, images in held.groups))
    parts = [held.whole(round(count * share / total), i) for i, (share, _) in enumerate(held.groups)]
    seen = [train.whole(group=i) for i in range(len(train.groups))]
    shares = [
        np.full(len(part), share / total / len(part)) for part, (share, _) in zip(seen, train.groups, strict=True)
    ]
    shares = np.concatenate(shares)
    return _Sets(config.subject, torch.cat(parts), torch.cat(seen), shares / shares.sum())


def _tensor(pictures: Sequence[Any]) -> Tensor:
    import torch

    return torch.from_numpy(np.stack([each.pixels for each in pictures])).permute(0, 3, 1, 2).float() / 255
