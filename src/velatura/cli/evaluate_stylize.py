"""What ``velatura evaluate stylize`` measures: losses left by one pass beside those left by so many steps of Gatys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from velatura.errors import InputError, MachineError
from velatura.image import save_image
from velatura.image.picture import Picture
from velatura.metrics.report import Column, Report, bootstrap
from velatura.task import Progress, no_progress
from velatura.tasks.stylize import MODEL, Stylize

if TYPE_CHECKING:
    from velatura.losses import FeatureMaps, StyleLoss

__all__ = ["evaluate_stylize", "in_colours_of", "judges", "write_sheets"]

PAIRS, SIDE = 52, 256  # every held-out style twice
STEPS = (5, 10, 20, 50)  # of the optimisation that one pass is compared with
RATE = 0.01  # of the optimisation that one pass has to match; its own is measured beside it, and gets further
FLOOR = 0.0  # of the losses, measured and optimised: there is none
BASELINE, PHOTOGRAPH = "colours", "photograph"
STYLE_WEIGHT = 3.0  # the unstyled style loss is so many variances of the content's features
JUDGES = {  # teachers' names -> layers of style, and of content
    "VGG-19": (("conv1_1", "conv2_1", "conv3_1"), "conv3_1"),
    "GoogLeNet": (("inception_3a", "inception_3b", "inception_4a", "inception_4b", "inception_4c"), "inception_3b"),
}
SHEET = 5  # photographs and styles of a sheet
PATIENT = 200  # steps of the optimisation on the sheet

Image = NDArray[np.uint8]


def evaluate_stylize(
    model: str | None,
    data: Path,
    *,
    pairs: int = PAIRS,
    steps: Sequence[int] = STEPS,
    sheet: Path | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Measure style transfer in one pass on held-out photographs and styles.

    Parameters
    ----------
    model : str or None
        A name of the catalog, or a file.
    data : Path
        Folder of the training sets; beside it, in ``pretrained``, the teachers' weights, if they are to judge.
    pairs : int
        How many pairs.
    steps : sequence of int
        Ascending: numbers of steps of Adam that it is compared with.
    sheet : Path, optional
        Folder for `write_sheets`.
    progress : callable

    Returns
    -------
    Report

    Raises
    ------
    InputError
        No images, or sheets that are there already.
    ModelError
        The model is unknown or refused.
    MachineError
        What training needs is not installed.
    """
    from velatura.stylization import Optimization

    try:
        from velatura.training.recipe import make_config
        from velatura.training.recipes.stylize import StylizeConfig, held_out_pairs
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None
    if sheet is not None and any((sheet / name).exists() for name in ("sheet.png", "beside.png")):
        raise InputError(f"{sheet}: holds earlier sheets; name another folder")
    task, name = Stylize(model or MODEL), Path(model or MODEL).stem
    found = held_out_pairs(make_config(StylizeConfig, {"data": str(data)}), pairs, SIDE)
    images = [tuple(_eight_bit(one) for one in pair) for pair in found]
    extractors = {"our features": _ours(), **judges(data)}
    rows: dict[str, list[list[float]]] = {}
    own = Optimization().rate
    styles = {style.tobytes(): number for number, (_, style) in enumerate(images)}
    groups = [styles[style.tobytes()] for _, style in images]
    for number, (content, style) in enumerate(images):
        progress(number, pairs, "measuring")
        losses = {who: _loss(who, extractor, content, style) for who, extractor in extractors.items()}
        made = {
            PHOTOGRAPH: content,
            BASELINE: in_colours_of(content, style),
            name: task(content, style).image,
            **_optimized(extractors["our features"], content, style, steps, RATE),
            **_optimized(extractors["our features"], content, style, steps, own),
        }
        for row, image in made.items():
            rows.setdefault(row, []).append(_figures(losses, content, image))
    progress(pairs, pairs, "measuring")
    if sheet is not None:
        write_sheets(task, [pair[0] for pair in images[:SHEET]], [pair[1] for pair in images[:SHEET]], sheet)
    return Report(
        title="Style transfer at 256x256",
        protocol=(
            "Middle squares of held-out photographs and styles; losses by Gram matrices (style) and maps (content) of "
            "our own features, strides 1, 2, 4 and, at half the weight, 8 and 16, content at stride 4; in units of the "
            "pair: the photograph as it is has a style loss of 1, as much as three variances of its own content "
            f"features. Total and content are shares of that start. The optimisation is Adam at {RATE:g}, and at its "
            f"own default rate of {own:g}, from the photograph, on these very losses, without total variation. Judges: "
            "style loss by the Gram matrices of VGG-19 (relu1_1, 2_1, 3_1), which nothing but the features learned "
            "from, and of GoogLeNet (3a to 4c), likewise. Colours: the photograph with the style's mean and "
            "covariance of colours. Intervals by bootstrap over the styles, each with "
            "all its pairs."
        ),
        data="what is held out of sr_t91_bsds400 (photographs) and styles",
        count=pairs,
        things="pairs",
        columns=[
            Column("total loss", digits=3),
            Column("content loss", digits=3),
            Column("style loss", digits=3),
            *(Column(f"style loss, judged by {who}", digits=3) for who in extractors if who in JUDGES),
        ],
        rows={
            row: [bootstrap(values, groups=groups) for values in zip(*figures, strict=True)]
            for row, figures in rows.items()
        },
        model=name,
        baseline=BASELINE,
        notes=[
            *_itself(task, images),
            _alike(images, rows[name]),
            *(
                []
                if len(extractors) > 1
                else ["No judges: there is no `pretrained` with the teachers beside the data."]
            ),
        ],
    )


def judges(data: Path) -> dict[str, FeatureMaps]:
    """Read the teachers, if their files are there: extractors that style transfer was not trained with."""
    from velatura.nets.features import Features
    from velatura.training.recipes.features import TEACHERS, read_teachers

    folder = data.resolve().parent / "pretrained"
    if not all((folder / name).is_file() for name in TEACHERS):
        return {}
    teachers = read_teachers(folder, Features())
    return {"VGG-19": teachers.vgg19, "GoogLeNet": teachers.googlenet}


def in_colours_of(content: Image, style: Image) -> Image:
    """Give a photograph the mean and the covariance of a style's colours: style transfer without a network."""
    from velatura.tasks.stylize import with_colours_of

    made = with_colours_of(Picture(content), Picture(style))
    return np.rint(255 * made.pixels).astype(np.uint8)


def write_sheets(task: Stylize, contents: Sequence[Image], styles: Sequence[Image], folder: Path) -> None:
    """Write ``sheet.png``, photographs across and styles down, and ``beside.png``: one pass beside optimisation.

    Raises
    ------
    InputError
        One of them is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blank = np.full_like(styles[0], 255)
    rows = [[blank, *contents]]
    rows += [[style, *(task(content, style).image for content in contents)] for style in styles]
    save_image(Picture(_grid(rows)), folder / "sheet.png")
    pairs = list(zip(contents, styles, strict=True))
    patient = [task(content, style, method="optimize", steps=PATIENT).image for content, style in pairs]
    beside = [
        [content, style, task(content, style).image, slow]
        for (content, style), slow in zip(pairs, patient, strict=True)
    ]
    save_image(Picture(_grid(beside)), folder / "beside.png")


def _grid(rows: Sequence[Sequence[Image]]) -> Image:
    return np.vstack([np.hstack(list(row)) for row in rows])


def _ours() -> Any:
    from velatura.stylization import load_extractor

    return load_extractor("velatura")


def _loss(who: str, extractor: FeatureMaps, content: Image, style: Image) -> StyleLoss:
    """Give the losses of a pair as one extractor sees them, without a floor: the photograph's style loss is 1."""
    from velatura.losses import StyleLoss, style_grams
    from velatura.nets.style_features import StyleFeatures
    from velatura.stylization import default_layers

    if isinstance(extractor, StyleFeatures):
        contents, styles = default_layers(extractor)
    else:
        layers, deep = JUDGES[who]
        contents, styles = {deep: 1.0}, dict.fromkeys(layers, 1.0)
    return StyleLoss(
        extractor, _tensor(content), style_grams(extractor, _tensor(style), styles), contents, styles, FLOOR
    )


def _figures(losses: dict[str, StyleLoss], content: Image, image: Image) -> list[float]:
    """Total, content and style by our features, then style by every judge."""
    import torch

    with torch.no_grad():
        values = {who: [float(value) for value in loss(_tensor(image))] for who, loss in losses.items()}
    lost, lacking = values.pop("our features")
    share = lost / STYLE_WEIGHT
    return [share + lacking, share, lacking, *(style for _, style in values.values())]


def _optimized(features: Any, content: Image, style: Image, steps: Sequence[int], rate: float) -> dict[str, Image]:
    """Give what optimisation has made after each of some numbers of steps."""
    from velatura.stylization import Optimization, mixed_grams, optimize

    options = Optimization(max(steps), rate=rate, style_weight=STYLE_WEIGHT, smoothness=0, floor=FLOOR)
    grams = mixed_grams(features, [_tensor(style)], [1.0], options.style_layers)
    kept: dict[str, Image] = {}

    def step_done(step: int, image: Any) -> None:
        if step in steps:
            kept[f"optimize at {rate:g}, {step} steps"] = _eight_bit(image)

    optimize(features, _tensor(content), lambda scale: grams, options, step_done=step_done)
    return kept


def _itself(task: Stylize, images: Sequence[tuple[Image, ...]]) -> list[str]:
    """Say how far a photograph moves whose style is itself, and its own mirror image."""
    from velatura.metrics.perceptual import perceptual_distance
    from velatura.perceptual import load_features

    features, moved = load_features(), []
    for content, style in images[::4]:
        styles = (content, np.ascontiguousarray(content[:, ::-1]), style)
        moved.append([perceptual_distance(task(content, one).image, content, features) for one in styles])
    same, mirrored, other = np.mean(moved, 0)
    return [
        f"Content = style: the perceptual distance to the photograph is {same / other:.3f} of that to another style, "
        f"{mirrored / other:.3f} where the style is its mirror image (mean of {len(moved)} pairs)."
    ]


def _alike(images: Sequence[tuple[Image, ...]], figures: Sequence[Sequence[float]]) -> str:
    """Say how pairs fare whose colours are alike: the report that asked for this found them weak."""
    apart = []
    for content, style in images:
        ours, theirs = (one.reshape(-1, 3) / 255 for one in (content, style))
        apart.append(
            float(np.abs(ours.mean(0) - theirs.mean(0)).sum() + np.abs(np.cov(ours.T) - np.cov(theirs.T)).sum())
        )
    order = np.argsort(apart, kind="stable")
    quarter = max(len(order) // 4, 1)
    near, far = (np.mean([figures[i][2] for i in chosen]) for chosen in (order[:quarter], order[-quarter:]))
    return (
        f"Style loss of the quarter of pairs that are most alike in colour: {near:.3f}; of the least alike: {far:.3f}."
    )


def _tensor(image: Image) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255)[None]


def _eight_bit(image: Any) -> Image:
    return image[0].permute(1, 2, 0).mul(255).round().clamp(0, 255).byte().numpy()
