"""What ``velatura evaluate imagine`` measures: whether pictures from words show what the words say.

``text``: the colour named, the right sentence among ten, how much two draws of one sentence differ, and distances from
photographs; of new pictures of known classes and of unknown ones, and with the style of photographs where a model has
a style encoder. ``style``: whether the style encoder tells pairs of one style from others (Reed et al. 2016, arXiv
1605.05396, section 5.3). Several models side by side are the paper's study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from velatura.catalog import load
from velatura.cli.evaluate_generate import extractors, trained_with
from velatura.errors import InputError, MachineError
from velatura.metrics.report import Column, Interval, Report, bootstrap
from velatura.ops.color_names import petal_colors
from velatura.task import Progress, no_progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from velatura.nets.gan_cls import TextToImage
    from velatura.nets.text_encoder import JointEmbedding
    from velatura.training.captions import Captioned

__all__ = ["Part", "background_pairs", "evaluate_imagine"]

Part = Literal["text", "style"]
Rule = Callable[[NDArray[np.uint8]], list[str]]

COUNT = 500  # pictures of a draw at most
DRAWS = 3
SEED = 1605
PHOTOGRAPHS, SENTENCES = "photographs", "sentences"  # rows that are no model's
STYLED = "in the style of photographs"
ONE_NOISE, BACKGROUNDS = "one noise", "backgrounds"
BORDER = 8  # the width of the background is the side by so much
CLUSTERS = 100  # of backgrounds at most, section 5.3
A_CLUSTER = 5  # photographs in each, in the mean, if there are too few for so many clusters
SHOWN = 8  # pictures in a row of a sheet
BETWEEN = 4  # pairs of sentences on a sheet
IMPLAUSIBLE = (
    "a blue sunflower",
    "an orange flower with a blue centre",
    "a blue rose with a red centre",
    "a purple daffodil",
    "a red flower on white leaves",
    "a white flower with purple petals that are yellow",
)


def evaluate_imagine(
    models: Sequence[str],
    data: Path,
    *,
    part: Part = "text",
    judge: str | None = None,
    count: int = COUNT,
    draws: int = DRAWS,
    rule: Rule = petal_colors,
    sheet: Path | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Measure models that make pictures from words, on sentences of pictures that were held out.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, or files, all of one subject; the first is judged, and the second is its baseline.
    data : Path
        Folder of the training sets; beside it, in ``pretrained``, GoogLeNet's weights, if it is to judge, too.
    part : {"text", "style"}
    judge : str, optional
        A joint embedding that no model was trained with, for retrieval: a name of the catalog, or a file.
    count : int
        How many pictures of a draw at most, as many to compare with: what is held out is thinned evenly to both.
    draws : int
        How often sentences and noise are drawn.
    rule : callable
        Names the petals' colours of (H, W, 3) uint8, the commonest first.
    sheet : Path, optional
        Folder for sheets: models side by side, many draws, what lies between sentences, unknown classes, what no
        flower looks like, styles.
    progress : callable

    Returns
    -------
    Report

    Raises
    ------
    InputError
        The models are of several subjects or bear one name, the judge is the encoder of one of them, pictures are
        missing, or the sheets are there already.
    ModelError
        A model is unknown or refused, or does not say what it learned from.
    MachineError
        What training needs is not installed.
    """
    try:
        from velatura.training.recipes import imagine
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None

    configs = [trained_with(model, data, ("imagine",))[1] for model in models]
    if len({each.subject for each in configs}) > 1:
        raise InputError(f"the models are of {' and '.join(sorted({each.subject for each in configs}))}; name one kind")
    networks = _networks(models)
    if sheet is not None and (there := sorted(sheet.glob("*.png"))):
        raise InputError(f"{sheet}: holds an earlier sheet, {there[0].name}; name another folder")
    sides = {name: _spread(side, 2 * count) for name, side in imagine.read_sides(configs[0]).items()}
    if part == "style":
        report = _evaluate_style(networks, sides, configs[0].subject, count)
    else:
        looks = extractors(data)
        subjects = {
            name: _Subject(name, side, next(iter(networks.values())).size, looks) for name, side in sides.items()
        }
        asked = _Asked(_judge(judge, networks) if judge else None, judge or "", rule, count, draws)
        report = _evaluate_text(networks, subjects, configs[0].subject, asked, progress)
    if sheet is not None:
        _write_sheets(networks, sides, configs[0].subject, sheet)
    return report


def _spread(side: Captioned, count: int) -> Captioned:
    """Keep so many pictures at most, spread evenly."""
    kept = np.linspace(0, len(side) - 1, min(count, len(side))).round().astype(int)
    return replace(
        side,
        names=tuple(side.names[i] for i in kept),
        images=side.images[kept],
        captions=tuple(side.captions[i] for i in kept),
        kinds=side.kinds[kept],
        descriptions=side.descriptions[kept],
        colors=tuple(side.colors[i] for i in kept),
    )


def _networks(models: Sequence[str]) -> dict[str, TextToImage]:
    from velatura.nets.gan_cls import TextToImage

    found: dict[str, TextToImage] = {}
    for model in models:
        if (name := Path(model).stem) in found:
            raise InputError(f"two models are called {name}; give one of the files another name")
        found[name] = load(model, {"TextToImage": TextToImage})
    return found


def _judge(file: str, networks: Mapping[str, TextToImage]) -> JointEmbedding:
    """Read what judges, and refuse it where a generator was trained with it."""
    import torch

    from velatura.nets.text_encoder import JointEmbedding

    judge = load(file, {"JointEmbedding": JointEmbedding})
    for name, network in networks.items():
        ours, theirs = judge.text.state_dict(), network.text.state_dict()
        if ours.keys() == theirs.keys() and all(
            one.shape == theirs[key].shape and torch.equal(one, theirs[key]) for key, one in ours.items()
        ):
            raise InputError(f"--judge {file}: {name} was trained with it; name one of another seed")
    return judge


# --- what the words say -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is measured, and how often."""

    judge: JointEmbedding | None
    judged_by: str
    rule: Rule
    count: int
    draws: int


@dataclass
class _Subject:
    """One side of the split: pictures, and what is seen in them."""

    name: str
    side: Captioned
    size: int
    looks: Mapping[str, Callable[[Tensor], Tensor]]
    partner: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """Find another picture of each one's class: the next of it; of one that is alone, itself."""
        self.partner = np.arange(len(self.side))
        for kind in set(self.side.kinds):
            members = np.flatnonzero(self.side.kinds == kind)
            self.partner[members] = np.roll(members, -1)

    @cached_property
    def pictures(self) -> Tensor:
        return self.side.pictures(np.arange(len(self.side)), self.size)

    @cached_property
    def maps(self) -> Tensor:
        return _maps(self.pictures)

    @cached_property
    def features(self) -> dict[str, Tensor]:
        return {who: look(self.pictures) for who, look in self.looks.items()}

    @property
    def has_colors(self) -> bool:
        return all(self.side.colors)

    @property
    def has_kinds(self) -> bool:
        """Whether there are two pictures of one class."""
        return bool((self.partner != np.arange(len(self.side))).any())

    @cached_property
    def within(self) -> float:
        from velatura.training.recipes.imagine import within

        return within(self.maps, self.side.kinds)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Pictures that were asked for, twice each, and the real ones that they are compared with."""

    asked: NDArray[np.int64]
    real: NDArray[np.int64]
    texts: list[str]
    pictures: Tensor
    maps: Tensor
    again: Tensor  # maps of the second pictures
    paired: NDArray[np.bool_]  # whether there is a second one
    features: Mapping[str, Tensor]


def _evaluate_text(
    networks: Mapping[str, TextToImage],
    subjects: Mapping[str, _Subject],
    kind: str,
    asked: _Asked,
    progress: Progress,
) -> Report:
    every = list(subjects.values())
    has_colors, has_kinds = all(one.has_colors for one in every), all(one.has_kinds for one in every)
    looks = every[0].looks
    columns = [
        *([Column("colour named is shown", better="higher", digits=3)] if has_colors else []),
        *([Column("right sentence of ten", better="higher", digits=3)] if asked.judge else []),
        *([Column("two draws differ", "of two photographs", "higher", digits=3)] if has_kinds else []),
        *(Column(f"KID-{who}", digits=4) for who in looks),
    ]
    ways = [(name, network, styled) for name, network in networks.items() for styled in (False, True)]
    ways = [(name, network, styled) for name, network, styled in ways if not styled or network.style is not None]
    total, done = len(subjects) * asked.draws * (len(ways) + 1), 0
    rows: dict[str, list[Interval]] = {}
    counts: dict[str, int] = {}
    for subject in every:
        found: dict[str, list[dict[str, NDArray[np.float64]]]] = {}
        groups: list[NDArray[np.int64]] = []
        for draw in range(asked.draws):
            real, wanted, texts = _halves(subject.side, asked.count, draw)
            counts[subject.name] = len(wanted)
            groups.append(wanted)
            for name, network, styled in [(PHOTOGRAPHS, None, False), *ways]:
                progress(done, total, f"{subject.name}: {name}")
                done += 1
                one = _draw(subject, real, wanted, texts, network, styled, draw)
                row = f"{name} {STYLED}" if styled else name
                found.setdefault(f"{row}, {subject.name}", []).append(_measure(subject, one, asked))
        rows |= {row: _intervals(many, np.concatenate(groups)) for row, many in found.items()}
    names = list(networks)
    return Report(
        title=f"{kind.title()} from words",
        protocol=_protocol(has_colors, has_kinds, asked, next(iter(networks.values())).size),
        data="; ".join(f"{name} classes of {kind}" for name in subjects),
        count=min(counts.values()),
        columns=columns,
        rows=rows,
        model=names[0],
        baseline=names[1] if len(names) > 1 else "",
        notes=[f"Pictures in each of {asked.draws} draws: {', '.join(f'{n} {c}' for c, n in counts.items())}."],
    )


def _protocol(has_colors: bool, has_kinds: bool, asked: _Asked, size: int) -> str:
    rule = "ours" if asked.rule is petal_colors else asked.rule.__module__
    parts = [
        f"Held-out pictures of {size}x{size} are halved at random; sentences of the one half are asked for, and what "
        f"is made stands in for it. {asked.draws} draws of halves, sentences and noise; 8 bits; intervals by bootstrap "
        "over pictures, of KID over draws. Seen: new pictures of classes that were trained on; unseen: classes that "
        f"were not. {PHOTOGRAPHS.title()}: the half that was asked for, itself."
    ]
    if has_colors:
        parts.append(
            f"Colour: the petals' commonest one is named in the sentence, by the rule {rule}, on the picture enlarged "
            "to 128 pixels."
        )
    if asked.judge:
        parts.append(
            f"Right sentence: preferred to nine of other descriptions (chance .1) by {Path(asked.judged_by).stem}, "
            "a text encoder that no generator was trained with."
        )
    if has_kinds:
        parts.append("Two draws: distance of our pooled features, over that of two photographs of a class; 1 is right.")
    parts.append(
        "KID: unbiased squared MMD from the other half, as many of each; not that of Inception-v3. "
        f"{STYLED.capitalize()}: the noise that the style encoder finds in a photograph of the other half."
    )
    return " ".join(parts)


def _halves(side: Captioned, count: int, draw: int) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Give pictures to compare with, as many that are asked for, and a sentence of each of these."""
    random = np.random.default_rng((SEED, draw))
    half = min(count, len(side) // 2)
    chosen = random.permutation(len(side))[: 2 * half]
    real, asked = chosen[:half], chosen[half:]
    return real, asked, side.sentences(asked, random)


def _draw(
    subject: _Subject,
    real: NDArray[np.int64],
    asked: NDArray[np.int64],
    texts: list[str],
    network: TextToImage | None,
    styled: bool,
    draw: int,
) -> _Drawn:
    """Make pictures of the sentences, twice; without a network take the photographs, and others of their classes."""
    if network is None:
        features = {who: found[asked] for who, found in subject.features.items()}
        others = subject.partner[asked]
        maps, again = subject.maps[asked], subject.maps[others]
        return _Drawn(asked, real, texts, subject.pictures[asked], maps, again, others != asked, features)
    import torch

    from velatura.training.recipes.imagine import made

    if styled:
        z = _styles(network, subject.pictures[real])
        noises = [z, z.roll(1, 0)]
    else:
        drawn = torch.Generator().manual_seed(SEED + draw)
        noises = [network.draw(len(texts), drawn) for _ in range(2)]
    first, second = (_rounded(made(network, texts, noise)) for noise in noises)
    features = {who: look(first) for who, look in subject.looks.items()}
    return _Drawn(asked, real, texts, first, _maps(first), _maps(second), np.ones(len(asked), bool), features)


def _measure(subject: _Subject, drawn: _Drawn, asked: _Asked) -> dict[str, NDArray[np.float64]]:
    """Give each column's figures: one of every picture, or one of all."""
    from velatura.metrics.realism import kernel_distance
    from velatura.training.recipes.imagine import color_shown, distances, retrieved

    side, found = subject.side, {}
    if subject.has_colors:
        named = [_named(side.colors[i], text) for i, text in zip(drawn.asked, drawn.texts, strict=True)]
        found["color"] = color_shown(drawn.pictures, named, asked.rule)
    if asked.judge is not None:
        found["retrieval"] = retrieved(asked.judge, drawn.maps, drawn.texts, side.descriptions[drawn.asked])
    if subject.has_kinds:
        found["variety"] = distances(drawn.maps, drawn.again).double().numpy()[drawn.paired] / subject.within
    for who, features in drawn.features.items():
        found[who] = np.array([kernel_distance(features, subject.features[who][drawn.real])])
    return found


def _named(colors: Sequence[str], text: str) -> tuple[str, ...]:
    """Give those of a photograph's colours that its sentence names; of two the second may go unsaid."""
    from velatura.nets.text_encoder import words_of

    said = set(words_of(text))
    return tuple(color for color in colors if color in said) or tuple(colors)


def _intervals(draws: Sequence[Mapping[str, NDArray[np.float64]]], groups: NDArray[np.int64]) -> list[Interval]:
    """Give the interval of each column; a photograph may have been asked for in several draws."""
    found = (np.concatenate([draw[name] for draw in draws]) for name in draws[0])
    return [bootstrap(values, groups=groups if len(values) == len(groups) else None) for values in found]


def _maps(pictures: Tensor) -> Tensor:
    from velatura.training.recipes.imagine import pooled

    return pooled(_features(), pictures)


@cache
def _features() -> nn.Module:
    from velatura.perceptual import load_features

    return load_features().eval()


def _styles(network: TextToImage, pictures: Tensor) -> Tensor:
    import torch

    assert network.style is not None
    device = network.condense.weight.device
    with torch.inference_mode():
        return torch.cat([network.style(part.to(device)).cpu() for part in pictures.split(64)])


def _rounded(pictures: Tensor) -> Tensor:
    return (255 * pictures.clamp(0, 1)).round() / 255


# --- styles -----------------------------------------------------------------------------------------------------------


def _evaluate_style(
    networks: Mapping[str, TextToImage], sides: Mapping[str, Captioned], kind: str, count: int
) -> Report:
    """Tell pairs of one style from others, by the cosine of what the style encoder finds in them."""
    import torch
    from torch.nn import functional

    from velatura.training.recipes.imagine import style_pairs, told_apart

    without = [name for name, network in networks.items() if network.style is None]
    if without:
        raise InputError(f"{without[0]} has no style encoder; train one with `velatura train style-encoder`")
    first = next(iter(networks.values()))
    side = list(sides.values())[-1]
    rng = np.random.default_rng(SEED)
    # In the order of names neighbours are of one class: pairs would share more than their style.
    chosen = rng.permutation(np.linspace(0, len(side) - 1, min(count, len(side))).round().astype(int))
    texts = side.sentences(chosen, rng)
    pictures = side.pictures(chosen, first.size)
    pairs = background_pairs(pictures) if kind == "flowers" else None  # emoji stand on white, all of them
    rows: dict[str, list[Interval]] = {}
    notes = []

    def cosines(found: Tensor, pairs: NDArray[np.int64]) -> Tensor:
        return functional.cosine_similarity(found[pairs[:, 0]], found[pairs[:, 1]])

    def add(name: str, one: Tensor, other: Tensor, photographs: Tensor) -> None:
        both = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
        others = both[~torch.eye(len(both), dtype=torch.bool)]
        rows[f"{name}, {ONE_NOISE}"] = [bootstrap(told_apart(both.diagonal(), others))]
        if pairs is not None:
            shares = told_apart(*(cosines(photographs, some) for some in pairs))
            rows[f"{name}, {BACKGROUNDS}"] = [bootstrap(shares)]

    with torch.inference_mode():
        said = first.encode(texts).float().cpu()
        add(SENTENCES, said, said.roll(-1, 0), said)
        for name, network in networks.items():
            z = network.draw(len(texts), torch.Generator().manual_seed(SEED))
            one, other = style_pairs(network, texts, texts[1:] + texts[:1], z)
            add(name, one, other, _styles(network, pictures))
            error = functional.mse_loss(one, z)
            notes.append(f"{name}: mean squared error of the noise found again {error:.3f}; a guess of 0 has 1.")
    name = next(iter(networks))
    return Report(
        title=f"Styles of {kind} told apart",
        protocol=(
            "Area under the curve of the cosine of what the style encoder finds, .5 by chance; intervals by bootstrap "
            "over the pairs that belong together. One noise: pairs of made pictures of one noise and two held-out "
            "sentences, against pairs of two noises. Backgrounds: pairs of held-out photographs of one of "
            f"{_clusters(len(pictures))} clusters of the mean colour of the border, an eighth of the side wide, "
            f"against pairs of two clusters. {SENTENCES.title()}: the text encoder's numbers in the style's place."
        ),
        data=f"unseen classes of {kind}",
        count=len(chosen),
        columns=[Column("AUC", better="higher", digits=3)],
        rows=rows,
        model=name,
        baseline=SENTENCES,
        notes=notes,
    )


def background_pairs(pictures: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair photographs by the mean colour of their borders: Reed et al. 2016, section 5.3.

    Parameters
    ----------
    pictures : Tensor of float32, (N, 3, H, W)
        At least ten.

    Returns
    -------
    alike, apart : ndarray of int64, (n, 2)
        Each one with the next of its cluster, where there is one; all pairs of two clusters.
    """
    from scipy.cluster.vq import kmeans2

    width = pictures.shape[-1] // BORDER
    inner = slice(width, -width)
    sums, squares = pictures.sum((2, 3)), pictures.shape[-1] * pictures.shape[-2]
    middle = pictures[..., inner, inner]
    border = (sums - middle.sum((2, 3))) / (squares - middle.shape[-1] * middle.shape[-2])
    points, count = border.double().numpy(), _clusters(len(pictures))
    # SciPy calls it `rng` from 1.15 on, and still takes the older name.
    kinds = kmeans2(points, count, minit="++", seed=0)[1]  # pyright: ignore[reportCallIssue]
    alike = []
    for kind in set(kinds):
        members = np.flatnonzero(kinds == kind)
        alike += [*zip(members, np.roll(members, -1), strict=True)] if len(members) > 1 else []
    first, second = np.triu_indices(len(kinds), 1)
    apart = np.stack([first, second], 1)[kinds[first] != kinds[second]]
    return np.array(alike, np.int64), apart


def _clusters(count: int) -> int:
    return max(2, min(CLUSTERS, count // A_CLUSTER))


# --- sheets for the eye -----------------------------------------------------------------------------------------------


def _write_sheets(networks: Mapping[str, TextToImage], sides: Mapping[str, Captioned], kind: str, folder: Path) -> None:
    """Write what the study is to show; rows are sentences, columns of one noise but where it says otherwise."""
    import torch

    from velatura.image import save_image
    from velatura.training.pictures import contact_sheet
    from velatura.training.recipes.imagine import SHOWN_TEXTS, made

    first, side = next(iter(networks.values())), list(sides.values())[-1]
    chosen = np.linspace(0, len(side) - 1, SHOWN).round().astype(int)
    said = side.sentences(chosen, np.random.default_rng(SEED))
    texts = list(SHOWN_TEXTS) if kind == "flowers" else said
    photographs = side.pictures(chosen, first.size)

    def rows(network: TextToImage, lines: Sequence[str], z: Tensor) -> Tensor:
        repeated = [line for line in lines for _ in range(len(z))]
        return made(network, repeated, z.repeat(len(lines), 1)).unflatten(0, (len(lines), len(z)))

    z = {name: each.draw(SHOWN, torch.Generator().manual_seed(SEED)) for name, each in networks.items()}
    noise = next(iter(z.values()))
    sheets = {
        # Two pictures of each model.
        "variants": torch.cat([rows(each, texts, z[name][:2]) for name, each in networks.items()], dim=1),
        "draws": rows(first, texts, noise),
        "between": torch.stack([_between(first, texts[i : i + 2], noise[i]) for i in range(BETWEEN)]),
        # The photographs, and below each what every model makes of its sentence.
        "unseen": torch.stack([photographs, *(made(each, said, z[name]) for name, each in networks.items())]),
    }
    if kind == "flowers":
        sheets["implausible"] = rows(first, IMPLAUSIBLE, noise)
    if first.style is not None:
        # The photographs that give the style, and below them one sentence a row.
        sheets["styles"] = torch.cat([photographs[None], rows(first, texts, _styles(first, photographs))])
    folder.mkdir(parents=True, exist_ok=True)
    for name, pictures in sheets.items():
        save_image(contact_sheet(pictures), folder / f"{name}.png", overwrite=False)


def _between(network: TextToImage, texts: Sequence[str], noise: Tensor) -> Tensor:
    """Give pictures of what lies between two sentences, with one noise."""
    import torch

    with torch.inference_mode():
        start, end = network.encode(texts)
        steps = torch.linspace(0, 1, SHOWN, device=start.device)[:, None]
        return network(noise.to(start.device).expand(SHOWN, -1), torch.lerp(start, end, steps)).float().cpu()
