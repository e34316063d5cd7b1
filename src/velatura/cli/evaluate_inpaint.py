"""What ``velatura evaluate inpaint`` measures: fills beside the usual ways, steadiness, sheets for the eye.

The studies of `docs/inpaint.md` are settings of it: several models, methods, windows, norms and weights of the prior
side by side, on the same pictures and holes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Group, Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from velatura.errors import InputError, MachineError
from velatura.metrics.report import Column, Report, bootstrap
from velatura.ops import masks

if TYPE_CHECKING:
    from torch import Tensor

    from velatura.latent_search import Search
    from velatura.semantic import Fills, Model
    from velatura.training.pictures import PicturesConfig

__all__ = ["MASKS", "InpaintOptions", "evaluate_inpaint", "planes_of", "sharpness"]

Subject = Literal["faces", "brain"]
Method = Literal["encoder", "latent"]
Progress = Callable[[int, int, str], None]
#: Fills pictures (N, C, H, W) through masks (N, 1, H, W): name of the row -> final images.
Way = Callable[["Tensor", "Tensor"], Mapping[str, "Tensor"]]

DEFAULT_MODELS: dict[Subject, str] = {"faces": "vae-faces", "brain": "vae-brain"}
SETS: dict[Subject, tuple[str, str]] = {"faces": ("faces128", "faces128 (color)"), "brain": ("brain96", "brain96")}
USUAL = ("centre", "half", "random", "pattern")  # Yeh et al. 2017, section 4
ANYWHERE = ("small", "large", "most")  # the report on brain scans
BASELINE, MEMBRANE, BIHARMONIC, TELEA = "nearest training image", "membrane", "biharmonic", "Telea"
TELEA_RADIUS = 3  # pixels, OpenCV's own example; 5 is no better on the whole
SEED = 1607  # of holes and noise, the number that the recipe draws its holes from
SIGMA = 0.02  # of white: noise on the known pixels
BATCH = 63  # pictures that are filled at once, to be compared with pictures filled alone
ALONE = 8
GROUP = 16  # pictures that the search from a random start takes at a time: half the time of one by one
SHOWN = 6  # pictures on a sheet
MAGNIFIED = 2  # by repeating pixels

_GROUP = Group("Inpainting", sort_key=3)
_repeated = partial(Parameter, group=_GROUP, negative="", show_default=False)


def _small(height: int, width: int, rng: np.random.Generator) -> masks.Mask:
    return masks.random_lesion(height, width, rng, 0.06, 0.12)


def _large(height: int, width: int, rng: np.random.Generator) -> masks.Mask:
    return masks.random_lesion(height, width, rng, 0.2, 0.3)


def _most(height: int, width: int, rng: np.random.Generator) -> masks.Mask:
    return 1 - masks.random_lesion(height, width, rng, 0.12, 0.25)


#: Kinds of holes that are drawn anew for every picture, and what they are.
DRAWN: dict[str, Callable[[int, int, np.random.Generator], masks.Mask]] = {
    "random": masks.random_pixels,
    "pattern": masks.random_blob,
    "small": _small,
    "large": _large,
    "most": _most,
}

MASKS = {
    "centre": "the middle square of half the side",
    "half": "the mean of the four sides",
    "random": "80 % independent pixels",
    "pattern": "patches of no shape over 25 %",
    "small": "a lesion of about .06 to .12 of the side in radius, its centre in the middle three fifths",
    "large": "a lesion of about .2 to .3 of the side in radius, there too",
    "most": "all but a patch of about .12 to .25 of the side in radius, there too",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InpaintOptions:
    """What of inpainting is measured; the help of each stands beside it."""

    subject: Annotated[
        Subject | None, Parameter(group=_GROUP, help="Which held-out pictures; default: what the model has learned.")
    ] = None
    masks: Annotated[
        str | None,
        Parameter(group=_GROUP, metavar="KIND,...", help=f"Kinds of holes, of {', '.join(MASKS)}."),
    ] = None
    method: Annotated[
        tuple[Method, ...],
        _repeated(help="How latents are found; repeated, side by side; default: encoder."),
    ] = ("encoder",)
    steps: Annotated[
        int | None, Parameter(group=_GROUP, validator=Number(gte=0), help="Of the search; default: the method's own.")
    ] = None
    norm: Annotated[
        tuple[Literal["l1", "l2"], ...],
        _repeated(help="Of the context loss; repeated, side by side."),
    ] = ()
    window: Annotated[
        tuple[int, ...],
        _repeated(help="Side of the weights' window; repeated, side by side."),
    ] = ()
    prior: Annotated[
        tuple[float, ...],
        _repeated(help="Weight of the prior loss; repeated, side by side."),
    ] = ()
    mirror: Annotated[
        bool, Parameter(group=_GROUP, show_default=False, help="After the encoder, fill the mirror image, too.")
    ] = True
    plain: Annotated[
        bool, Parameter(group=_GROUP, negative=(), show_default=False, help="Measure fills that are not joined, too.")
    ] = False
    limit: Annotated[
        int | None,
        Parameter(group=_GROUP, validator=Number(gte=1), metavar="N", help="Pictures at most, spread evenly."),
    ] = None

    def given(self) -> list[str]:
        """Name the options that were given."""
        return [f"--{one.name}" for one in fields(self) if getattr(self, one.name) != one.default]

    def kinds(self, subject: Subject) -> tuple[str, ...]:
        """List the kinds of holes.

        Raises
        ------
        InputError
            One is unknown.
        """
        if self.masks is None:
            return USUAL if subject == "faces" else (*USUAL, *ANYWHERE)
        kinds = tuple(dict.fromkeys(self.masks.split(",")))
        if unknown := [kind for kind in kinds if kind not in MASKS]:
            raise InputError(f"--masks: unknown kind {unknown[0]!r}; known: {', '.join(MASKS)}")
        return kinds

    def searches(self) -> Iterator[tuple[list[str], Method, Search]]:
        """Give every combination of settings: in words, the method, and what the search takes.

        Raises
        ------
        InputError
            A window is even, or a weight negative.
        """
        from velatura.semantic import DEFAULTS

        for window in self.window:
            if window < 3 or window % 2 == 0:
                raise InputError(f"--window {window}: expected an odd number from 3")
        for weight in self.prior:
            if weight < 0:
                raise InputError(f"--prior {weight:g}: expected a number from 0")
        given = {"norm": self.norm, "window": self.window, "prior": self.prior}
        swept = {name: dict.fromkeys(values) for name, values in given.items() if values}
        for method in dict.fromkeys(self.method):
            usual = DEFAULTS[method] if self.steps is None else replace(DEFAULTS[method], steps=self.steps)
            for values in itertools.product(*swept.values()):
                changes: dict[str, Any] = dict(zip(swept, values, strict=True))
                words = [value.upper() if name == "norm" else f"{name} {value:g}" for name, value in changes.items()]
                yield ["search"] * (method == "latent") + words, method, replace(usual, **changes)


@dataclass(frozen=True, slots=True)
class _Row:
    """One model with one setting: a `Way`."""

    name: str
    words: Sequence[str]
    model: Model
    method: Method
    options: Search
    mirror: bool
    plain: bool
    seconds: list[float] = field(default_factory=list)

    def label(self, *more: str) -> str:
        words = "; ".join([*self.words, *more])
        return f"{self.name} ({words})" if words else self.name

    def fills(self, images: Tensor, planes: Tensor, seed: int = 0) -> Fills:
        """Fill as the product does; the search from a random start takes several pictures at a time."""
        from velatura.device import half_precision
        from velatura.semantic import fill

        group = GROUP if self.method == "latent" else None
        return fill(
            self.model,
            images,
            planes,
            method=self.method,
            options=self.options,
            mirror=self.mirror,
            seed=seed,
            group=group,
            half=half_precision(self.model.device, gradients=True),
        )

    def __call__(self, images: Tensor, planes: Tensor) -> dict[str, Tensor]:
        import torch

        start = time.process_time()
        found = self.fills(images, planes)
        self.seconds.append((time.process_time() - start) / len(images))
        made = {self.label(): found.images[:, 0]}
        if self.plain:
            made[self.label("not joined")] = torch.where(planes > 0.5, found.made[:, 0].clamp(0, 1), images)
        return made


def evaluate_inpaint(
    models: Sequence[str],
    data: Path,
    options: InpaintOptions,
    *,
    sheet: Path | None = None,
    progress: Progress = lambda done, total, stage: None,
) -> Report:
    """Measure fills of held-out pictures, the known pixels in place.

    Parameters
    ----------
    models : sequence of str
        Names of the catalog, or files; of one size. The first, with the first of its settings, is the one that is
        judged. Empty: the subject's own.
    data : Path
        The data folder, of which the held-out faces in colour or brains are taken; or any folder of pictures, of which
        every twentieth is measured, and the others are those that the nearest is looked for in.
    options : InpaintOptions
    sheet : Path, optional
        Folder for a sheet of pictures for every kind of hole; made if need be.
    progress : callable
        ``progress(done, total, stage)``.

    Returns
    -------
    Report
        PSNR, SSIM, sharpness, and perceptual distance where the package holds the features that it is measured in, of
        every method on every kind of hole; notes on time and steadiness.

    Raises
    ------
    InputError
        No pictures, a bad option, models of several sizes or of one name, or a sheet that is there already.
    ModelError
        A model is unknown or refused, or has no encoder.
    MachineError
        What training needs is not installed.
    """
    try:
        from velatura.metrics.perceptual import PROTOCOL
        from velatura.training.pictures import Pictures
    except ImportError as error:
        raise MachineError(f"{error.name} is not installed; pip install 'velatura[train]'") from None

    rows = _rows(models, options)
    subject = _subject(rows[0].model, options)
    kinds = options.kinds(subject)
    if sheet is not None and (there := [kind for kind in kinds if (sheet / f"{kind}.png").exists()]):
        raise InputError(f"{sheet}: holds an earlier sheet, {there[0]}.png; name another folder")
    config, words = _pictures(data, subject, rows[0].model.size)
    images = Pictures(config, "held-out").whole(options.limit)
    _check_channels(rows, images)
    features = _features()
    columns = [
        Column("PSNR", "dB", "higher"),
        Column("SSIM", "", "higher", digits=4),
        Column("sharpness", "of the original's", "higher"),
        *([Column("perceptual distance", digits=4)] if features is not None else []),
    ]
    ways = {**_baselines(Pictures(config, "train").whole()), **{row.label(): row for row in rows}}
    size = images.shape[-1]
    planes = {kind: planes_of(kind, len(images), size) for kind in kinds}
    total, done = sum(map(len, planes.values())) * len(ways), itertools.count()
    figures: dict[str, NDArray[np.float64]] = {}
    for kind, many in planes.items():
        sides = []
        for mask in many:
            made: dict[str, Tensor] = {}
            for name, way in ways.items():
                progress(next(done), total, f"{kind}: {name}")
                made |= {label: _rounded(image) for label, image in way(images, mask).items()}
            sides.append(made)
        for label in sides[0]:
            found = [_measure(made[label], images, mask, features) for made, mask in zip(sides, many, strict=True)]
            # The mean over four sides is one figure of a picture.
            figures[f"{label}, {kind}"] = np.mean(found, axis=0)
        if sheet is not None:
            _write_sheet(sides, images, many, sheet / f"{kind}.png")
    progress(total, total, "steadiness")
    first = planes[kinds[0]][0]
    return Report(
        title=f"Inpainting at {size}x{size}: {words}",
        protocol=_protocol(size, kinds) + (f" Perceptual distance: {PROTOCOL}." if features is not None else ""),
        data=f"what is held out of {words}",
        count=len(images),
        columns=columns,
        rows={name: [bootstrap(values) for values in row] for name, row in figures.items()},
        model=rows[0].label(),
        baseline=BASELINE,
        notes=[
            *([] if TELEA in ways else ["No Telea: OpenCV is not installed (pip install 'velatura[bench]')."]),
            *([] if features is not None else ["No perceptual distance: the package holds no features."]),
            *(_steadiness(row, images[:BATCH], first[:BATCH], kinds[0]) for row in rows),
        ],
    )


def _protocol(size: int, kinds: Sequence[str]) -> str:
    return (
        f"Held-out pictures reduced by area to {size}x{size}; whole picture, 8 bit, known pixels in place; PSNR is the "
        f"mean of the pictures'. Holes: {'; '.join(f'{kind} = {MASKS[kind]}' for kind in kinds)}. Sharpness: mean "
        "length of the gradient in the hole, over the originals'; 1 is right. Fills, the nearest training image (to "
        "the known pixels, or its mirror image) and the membrane (nothing at all) are joined by Poisson's equation."
    )


# --- what is measured on ----------------------------------------------------------------------------------------------


def planes_of(kind: str, count: int, size: int) -> list[Tensor]:
    """Give the masks of a kind of hole.

    Parameters
    ----------
    kind : str
        Of `MASKS`.
    count : int
        Pictures.
    size : int
        Side in pixels.

    Returns
    -------
    list of Tensor of float32, (count, 1, size, size)
        One, or for ``half`` one for each side. What is random is drawn anew for every picture, the same on every call.
    """
    import torch

    if kind == "half":
        drawn = [[masks.half(size, size, side)] * count for side in masks.SIDES]
    elif kind == "centre":
        drawn = [[masks.centre_square(size, size)] * count]
    else:
        drawn = [[DRAWN[kind](size, size, np.random.default_rng((SEED, index))) for index in range(count)]]
    return [torch.from_numpy(np.stack(one))[:, None] for one in drawn]


def _rows(models: Sequence[str], options: InpaintOptions) -> list[_Row]:
    """Read the models, and say what is measured of each."""
    from velatura.semantic import load_model

    searches = list(options.searches())
    rows: list[_Row] = []
    for model in models or (DEFAULT_MODELS[options.subject or "faces"],):
        name, loaded = Path(model).stem, load_model(model)
        if any(row.name == name for row in rows):
            raise InputError(f"two models are called {name}; give one of the files another name")
        if rows and (loaded.size, loaded.channels) != (rows[0].model.size, rows[0].model.channels):
            raise InputError(
                f"{name} is for {_form(loaded)}, {rows[0].name} for {_form(rows[0].model)}; measure them apart"
            )
        for words, method, settings in searches:
            if method == "encoder":
                loaded.need_encoder()
            rows.append(_Row(name, words, loaded, method, settings, options.mirror, options.plain))
    return rows


def _form(model: Model) -> str:
    return f"{model.size}x{model.size} pixels in {'grey' if model.channels == 1 else 'colour'}"


def _subject(model: Model, options: InpaintOptions) -> Subject:
    """Say whose held-out pictures are measured."""
    if options.subject is not None:
        return options.subject
    return "brain" if model.subject == "brain" or model.channels == 1 else "faces"


def _pictures(data: Path, subject: Subject, size: int) -> tuple[PicturesConfig, str]:
    """Say where the pictures are, and in words what they are."""
    from velatura.training.pictures import PicturesConfig
    from velatura.training.recipe import make_config

    name, words = SETS[subject]
    settings: dict[str, Any] = {"subject": subject, "size": size, "gray_share": 0.0}
    if (data / f"{name}.zip").is_file() or (data / name).is_dir():
        return make_config(PicturesConfig, {**settings, "data": str(data)}), words
    return make_config(PicturesConfig, {**settings, "photographs": str(data)}), data.name or str(data)


def _check_channels(rows: Sequence[_Row], images: Tensor) -> None:
    if rows[0].model.channels != images.shape[1]:
        raise InputError(f"{rows[0].name} is for {_form(rows[0].model)}; choose another --subject or model")


# --- what it is compared with -----------------------------------------------------------------------------------------


def _baselines(train: Tensor) -> dict[str, Way]:
    """Give the usual ways; Telea's where OpenCV is installed."""
    from importlib.util import find_spec

    ways: dict[str, Way] = {
        BASELINE: partial(_nearest, train),
        MEMBRANE: _membrane,
        BIHARMONIC: partial(_one_by_one, BIHARMONIC, _biharmonic),
    }
    if find_spec("cv2"):
        ways[TELEA] = partial(_one_by_one, TELEA, _telea)
    return ways


def _nearest(train: Tensor, images: Tensor, planes: Tensor) -> dict[str, Tensor]:
    from velatura.training.recipes.inpaint import nearest

    return {BASELINE: _joined(nearest(images, planes, train), images, planes)}


def _membrane(images: Tensor, planes: Tensor) -> dict[str, Tensor]:
    import torch

    return {MEMBRANE: _joined(torch.zeros_like(images), images, planes)}


def _joined(made: Tensor, images: Tensor, planes: Tensor) -> Tensor:
    import torch

    from velatura.semantic import join

    return torch.stack([join(*one) for one in zip(made, images, planes, strict=True)])


def _one_by_one(
    name: str, fill: Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]], images: Tensor, planes: Tensor
) -> dict[str, Tensor]:
    """Fill (H, W, C) images of 8 bits, each through its (H, W) mask."""
    import torch

    made = [fill(image, hole) for image, hole in zip(_eight_bits(images), planes[:, 0].numpy() > 0.5, strict=True)]
    return {name: torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255}


def _biharmonic(image: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    from skimage.restoration import inpaint_biharmonic

    made = inpaint_biharmonic(image, hole, channel_axis=-1)
    return np.rint(255 * made.clip(0, 1)).astype(np.uint8)


def _telea(image: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    import cv2

    made = cv2.inpaint(np.ascontiguousarray(image), hole.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)
    return np.asarray(made, np.uint8).reshape(image.shape)


# --- figures ----------------------------------------------------------------------------------------------------------


def _features() -> Any:
    """Read the features that the perceptual distance is measured in; None while the package holds none."""
    from velatura.catalog import cards
    from velatura.perceptual import load_features

    return load_features() if any(card.name == "features" for card in cards()) else None


def _rounded(images: Tensor) -> Tensor:
    return (255 * images.clamp(0, 1)).round() / 255


def _eight_bits(images: Tensor) -> NDArray[np.uint8]:
    """From (N, C, H, W) of 0..1 to (N, H, W, C) of 8 bits."""
    return (255 * images).round().byte().permute(0, 2, 3, 1).numpy()


def _measure(made: Tensor, images: Tensor, planes: Tensor, features: Any) -> NDArray[np.float64]:
    """Give the figures of each picture: (columns, N)."""
    import torch

    from velatura.metrics.fidelity import RGB, ssim
    from velatura.metrics.perceptual import distances
    from velatura.training.recipes.inpaint import psnrs

    both = zip(_eight_bits(made), _eight_bits(images), strict=True)
    figures = [
        psnrs(made, images),
        np.array([ssim(one, original, RGB) for one, original in both]),
        sharpness(made, images, planes),
    ]
    if features is not None:
        shape = (-1, 3, -1, -1)
        pairs = zip(made.split(32), images.split(32), strict=True)
        with torch.no_grad():
            found = [distances(one.expand(shape), original.expand(shape), features) for one, original in pairs]
        figures.append(torch.cat(found).double().numpy())
    return np.stack(figures)


def sharpness(made: Tensor, images: Tensor, planes: Tensor) -> NDArray[np.float64]:
    """Give the mean length of the gradient in the hole of each picture, over the mean of all the originals'.

    Parameters
    ----------
    made, images : Tensor, (N, C, H, W)
    planes : Tensor, (N, 1, H, W)
        Over one half is hole.

    Returns
    -------
    ndarray, (N,)
        Their mean says how sharp the fills are: 1 as the originals, 0 flat. Of a single picture it also says how much
        there was to be seen.

    Examples
    --------
    >>> import torch
    >>> images, holes = torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    >>> float(sharpness(images, images, holes).mean().round(6)), float(sharpness(images / 2, images, holes).mean())
    (1.0, 0.5)
    """
    holes = planes[:, 0].numpy() > 0.5

    def gradients(pictures: Tensor) -> NDArray[np.float64]:
        down, across = np.gradient(pictures.double().numpy(), axis=(2, 3))
        length = np.hypot(down, across).mean(1)
        return (length * holes).sum((1, 2)) / np.maximum(holes.sum((1, 2)), 1)

    return gradients(made) / max(float(gradients(images).mean()), 1e-12)


def _steadiness(row: _Row, images: Tensor, planes: Tensor, kind: str) -> str:
    """Say what fills cost, whether runs, seeds and batches agree, and how noise on the known pixels moves them."""
    import torch

    random = torch.Generator().manual_seed(SEED)
    noisy = (images + SIGMA * torch.randn(images.shape, generator=random)).clamp(0, 1)
    first, second, moved = (
        row.fills(*of).images[:, 0] for of in ((images, planes, 0), (images, planes, 1), (noisy, planes, 0))
    )
    inside = planes.expand_as(images) > 0.5
    squares = [(one - other)[hole].square().mean() for one, other, hole in zip(moved, first, inside, strict=True)]
    agreement = (-10 * torch.stack(squares).clamp_min(1e-10).log10()).double().numpy()
    alone = torch.cat(
        [row.fills(images[i : i + 1], planes[i : i + 1]).images[:, 0] for i in range(min(ALONE, len(images)))]
    )
    return (
        f"{row.label()}: {row.options.steps} steps, {np.mean(row.seconds):.2g} CPU seconds a picture. On {kind}: "
        f"another seed moves fills by up to {_levels(second, first)} levels, being alone instead of one of "
        f"{len(images)} by {_levels(alone, first[: len(alone)])}; with noise of sigma {SIGMA:g} on the known pixels "
        f"they agree with those without at {agreement.mean():.1f} dB over the hole, "
        f"{np.percentile(agreement, 5):.1f} at the 5th percentile."
    )


def _levels(one: Tensor, other: Tensor) -> int:
    """Give the largest difference of two results of 8 bits."""
    return int(np.abs(_eight_bits(one).astype(int) - _eight_bits(other)).max())


# --- sheets for the eye -----------------------------------------------------------------------------------------------


def _write_sheet(sides: Sequence[Mapping[str, Tensor]], images: Tensor, many: Sequence[Tensor], path: Path) -> None:
    """Write rows of what was given, every method and the original; of several masks the pictures take turns."""
    import torch

    from velatura.cli.demo import contact_sheet
    from velatura.image import save_image

    def shown(image: Tensor) -> NDArray[np.uint8]:
        pixels = _eight_bits(image[None])[0]
        return np.repeat(pixels, 3 // pixels.shape[-1], 2).repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)

    rows = []
    for turn, index in enumerate(np.linspace(0, len(images) - 1, min(SHOWN, len(images))).round().astype(int)):
        made, mask = sides[turn % len(sides)], many[turn % len(many)][index]
        given = torch.where(mask > 0.5, 0.5, images[index])
        named = {"given": given, **{label: some[index] for label, some in made.items()}, "original": images[index]}
        rows.append({label: shown(image) for label, image in named.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(contact_sheet(rows, width=images.shape[-1] * MAGNIFIED, text=11), path, overwrite=False)
