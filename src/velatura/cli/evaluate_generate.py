"""What ``velatura evaluate generate`` measures: how real made images look as a set, beside other real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velatura.catalog import card, cards, read_header
from velatura.errors import InputError, MachineError, ModelError
from velatura.metrics.report import Column, Interval, Report, bootstrap
from velatura.task import Progress, no_progress
from velatura.tasks.generate import Generate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["evaluate_generate"]

IMAGES = 500  # of each set at most
DRAWS = 3  # sets of samples, over which the intervals are
FLOOR = "training photographs"
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
    models: Sequence[str], data: Path, *, count: int = IMAGES, draws: int = DRAWS, progress: Progress = no_progress
) -> Report:
    """Measure generators against held-out photographs of what they learned from.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, or files, all of one subject; the first is judged, and the second is its baseline.
    data : Path
        Folder of the training sets; beside it, in ``pretrained``, GoogLeNet's weights, if it is to judge.
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
        The models are of several subjects, or there are no images.
    ModelError
        A model is unknown or refused, or does not say what it learned from.
    MachineError
        What training needs is not installed.
    """
    sets = [_real(model, data, count) for model in models]
    if len({each.subject for each in sets}) > 1:
        raise InputError(f"the models are of {' and '.join(sorted({each.subject for each in sets}))}; name one kind")
    real = sets[0]
    extractors = _extractors(data)
    held = {who: extract(real.held) for who, extract in extractors.items()}
    everything = extractors["velatura"](real.train)
    number, rows = len(real.held), {}
    nearness: dict[str, tuple[float, float]] = {}
    for place, model in enumerate(models):
        name, found = Path(model).stem, []
        task = Generate.from_pretrained(model)
        for seed in range(draws):
            progress(place * draws + seed, len(models) * draws, f"making {name}")
            made = _tensor(task(number, seed=seed).pictures)
            features = {who: extract(made) for who, extract in extractors.items()}
            found.append(_figures(features, held))
            if not seed:
                nearness[name] = _nearness(features["velatura"], held["velatura"], everything)
        rows[name] = _intervals(found)
    random, found = np.random.default_rng(0), []
    for _ in range(draws):
        chosen = random.choice(len(real.train), number, replace=False, p=real.shares)
        others = {who: extract(real.train[chosen]) for who, extract in extractors.items() if who != "velatura"}
        found.append(_figures({"velatura": everything[chosen], **others}, held))
    rows[FLOOR] = _intervals(found)
    size = real.held.shape[-1]
    return Report(
        title=f"{real.subject.title()} from noise at {size}x{size}",
        protocol=(
            f"{number} samples, the same number of held-out photographs; mean over {draws} draws of samples, intervals "
            "by bootstrap over these. FD: Frechet distance, KID: unbiased squared MMD with the kernel (x.y/d + 1)^3, "
            "of the features named (velatura: means over places of our own, strides 8 and 16; googlenet: the last "
            "means of bvlc_googlenet at 224x224); neither is FID or KID of Inception-v3. Precision and recall with "
            f"k = 3 on velatura's. {FLOOR}: as many real images in the place of the samples."
        ),
        data=f"what is held out of the {real.subject} that the model learned from",
        count=number,
        columns=[
            *(Column(f"{kind}-{who}", digits=4) for who in extractors for kind in ("FD", "KID")),
            Column("precision", better="higher", digits=3),
            Column("recall", better="higher", digits=3),
        ],
        rows=rows,
        model=Path(models[0]).stem,
        baseline=Path(models[1]).stem if len(models) > 1 else "",
        notes=[
            f"{name}: the first percentile of the distance to the nearest of {len(real.train)} training photographs is "
            f"{ours:.3f}, that of held-out photographs {theirs:.3f}; smaller would mean copies."
            for name, (ours, theirs) in nearness.items()
        ],
    )


def _figures(made: dict[str, Tensor], held: dict[str, Tensor]) -> list[float]:
    from velatura.metrics.realism import frechet_distance, kernel_distance, precision_recall

    distances = [distance(made[who], held[who]) for who in held for distance in (frechet_distance, kernel_distance)]
    return [*distances, *precision_recall(made["velatura"], held["velatura"])]


def _nearness(made: Tensor, held: Tensor, train: Tensor) -> tuple[float, float]:
    from velatura.metrics.realism import memorised

    return memorised(made, held, train)


def _intervals(found: Sequence[Sequence[float]]) -> list[Interval]:
    return [bootstrap(values) for values in zip(*found, strict=True)]


def _extractors(data: Path) -> dict[str, Extract]:
    """Give what features are taken by, under the name that figures bear."""
    from velatura.metrics.realism import googlenet_features, velatura_features
    from velatura.nets.googlenet import GoogLeNet
    from velatura.training.recipes.features import load_features

    ours = load_features().eval()
    found: dict[str, Extract] = {"velatura": lambda images: velatura_features(ours, images)}
    file = data.resolve().parent / "pretrained" / TEACHER
    if file.is_file():
        with np.load(file) as arrays:
            teacher = GoogLeNet.from_caffe(dict(arrays))
        found["googlenet"] = lambda images: googlenet_features(teacher, images)
    return found


def _real(model: str, data: Path, count: int) -> _Sets:
    """Read the photographs that a model learned from, and those that were held out."""
    path = card(model).path if model in {known.name for known in cards()} else Path(model)
    recipe = read_header(path).recipe
    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes import RECIPES, generate, lapgan
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None
    homes = {"generate": generate, "lapgan": lapgan}
    home, _, settings = RECIPES.get(recipe.get("name", ""), ("", "", ""))
    if home not in homes:
        raise ModelError(f"{path.name}: does not say which generator's recipe trained it; nothing to measure it on")
    kind = getattr(homes[home], settings)
    told = {name: value for name, value in recipe.get("settings", {}).items() if name in kind.model_fields}
    config = make_config(kind, told, {"data": str(data)})
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
