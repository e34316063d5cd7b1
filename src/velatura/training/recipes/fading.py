"""Train what tells how a photograph has faded, from the statistics of a thumbnail's colours.

No paper's. Clean photographs fade by `velatura.ops.degrade.random_fading`; the loss is how far the colours are off once
the fading that was told is undone, by the formula of 1994 (CIE 116), which has a gradient everywhere; what is reported
is CIEDE2000. Numbers of a fading that do not show in a photograph cost nothing, and where a photograph does not tell
whether it has faded, the loss finds how much to undo.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from velatura.metrics.fidelity import color_error
from velatura.nets.fading import FadingEstimator
from velatura.ops.degrade import UNFADED, Fading, fade, grey, random_fading
from velatura.ops.fading import LUMA, SIDE, from_numbers, statistics, thumbnail, tone_only, undone
from velatura.ops.resize import resize
from velatura.training import data
from velatura.training.recipe import TrainConfig, make_config
from velatura.training.recipes.old_scans import MEASURED, PURPOSE, Grounds, ScansConfig, eight_bit, sheet
from velatura.training.recipes.upscale import interval

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["BASELINES", "FadingConfig", "TrainFading", "grey_world", "lab", "stretched", "tell", "undo"]

# Share of the thumbnails, set, folder in the set.
SETS = (
    (0.3, "sr_t91_bsds400", ""),
    (0.32, "sr_hr_patches", ""),
    (0.12, "faces256", "color/"),
    (0.16, "scenes96", ""),
    (0.1, "styles", ""),
)
MOST = 1200  # images of a set: more of the same kind teach little
SMALLEST = 0.15  # of the sides: a part of a photograph is a photograph, too, and may be a plain ground of one hue
HELD_OUT_SEED = 1976  # of how held-out photographs fade
QUICK = 48  # held-out photographs beside the training
THIN = 3  # every so many rows and columns are measured for good
LEVELS = 255
# sRGB to XYZ over the white of D65: IEC 61966-2-1.
TO_XYZ = np.array([[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


class FadingConfig(TrainConfig):
    """Settings of `TrainFading`."""

    photographs: str | None = Field(None, description="folder of clean photographs instead of our sets")
    width: int = Field(128, ge=1, description="of the hidden layers")
    clean: float = Field(0.4, ge=0, lt=1, description="share of the photographs that have not faded")
    grey: float = Field(0.25, ge=0, le=1, description="share of the photographs that have no colour")
    shift: float = Field(0.3, ge=0, description="weight of a level by which the mean of a clean photograph moves")
    window: int = Field(48, ge=8, le=SIDE, description="pixels of the side of what is drawn from a thumbnail")
    points: int = Field(1024, ge=16, description="pixels of a window that the loss looks at, at most")
    dropout: float = Field(0.15, ge=0, lt=1, description="share of the hidden numbers that a step leaves out")
    decay: float = Field(0.01, ge=0, description="of the weights, times the learning rate")


class TrainFading:
    """The recipe of `velatura.nets.fading.FadingEstimator`."""

    name = "fading"
    architecture = "FadingEstimator"

    def __init__(self, config: FadingConfig) -> None:
        self.config = config
        self.arguments = {"width": config.width, "dropout": config.dropout}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"estimator": FadingEstimator(config.width, config.dropout)}

    @cached_property
    def grounds(self) -> list[tuple[float, NDArray[np.uint8]]]:
        """Share of the batch, and thumbnails (N, SIDE, SIDE, 3) of photographs and of parts of them."""
        rng = np.random.default_rng((self.config.seed, 1))
        return [(share, _thumbnails(images, rng)) for share, images in self._read("train")]

    @cached_property
    def held(self) -> list[tuple[NDArray[np.float32], Fading]]:
        """Held-out photographs, 0..1, and how each of them fades."""
        images = [image for _, images in self._read("held-out") for image in images]
        return [
            (image.astype(np.float32) / np.float32(LEVELS), random_fading(np.random.default_rng((HELD_OUT_SEED, i))))
            for i, image in enumerate(images)
        ]

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam with decay of the weights (Loshchilov and Hutter 2019): a thousand photographs are few."""
        config = self.config
        weights = self.networks["estimator"].parameters()
        return {"estimator": AdamW(weights, lr=config.learning_rate, weight_decay=config.decay)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Statistics, faded and true colours of some pixels (N, points, 3), and which photographs are clean (N,)."""
        config, rng = self.config, np.random.default_rng((self.config.seed, step, rank))
        shares = np.array([share for share, _ in self.grounds])
        faded, true, clean = [], [], []
        for chosen in rng.choice(len(shares), config.batch_size, p=shares / shares.sum()):
            images = self.grounds[int(chosen)][1]
            top, left = rng.integers(SIDE - config.window + 1, size=2)
            drawn = images[rng.integers(len(images)), top : top + config.window, left : left + config.window]
            image = drawn.astype(np.float32) / np.float32(LEVELS)
            colorless, is_clean = rng.random(2) < (config.grey, config.clean)
            image = _on_paper(grey(image) if colorless else image, rng)
            fading = UNFADED if is_clean else random_fading(rng)
            if colorless and rng.random() < 0.5:
                fading = tone_only(fading)
            done = _scanned(fade(image, fading), rng)
            clean.append(float(is_clean))
            faded.append(done.reshape(-1, 3))
            true.append(image.reshape(-1, 3))
        told, points = statistics(np.stack(faded)), rng.permutation(config.window**2)[: config.points]
        arrays = (told, np.stack(faded)[:, points], np.stack(true)[:, points], np.array(clean, np.float32))
        return tuple(torch.from_numpy(array) for array in arrays)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the colours' error, and what happens to clean photographs."""
        told, faded, true, clean = batch
        estimator = training.networks["estimator"]
        if step == 0:
            estimator.mean.copy_(told.mean(0))
            estimator.deviation.copy_(told.std(0).clamp_min(1e-3))
        made = undo(faded, estimator(told))
        error = difference(made, true).mean(1)
        shift = LEVELS * (made.clamp(0, 1).mean(1) - true.mean(1)).abs().amax(1)
        # Beyond black and white nothing pulls back but this.
        beyond = (made - made.clamp(0, 1)).abs().mean()
        training.descend("estimator", error.mean() + self.config.shift * (shift * clean).mean() + 5 * beyond)
        faded_error = (error * (1 - clean)).sum() / (1 - clean).sum().clamp_min(1)
        clean_shift = (shift * clean).sum() / clean.sum().clamp_min(1)
        return {"faded": faded_error.detach(), "clean_shift": clean_shift.detach()}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Mean CIEDE2000 of faded thumbnails, before and after; how far clean ones move, in levels."""
        errors, shifts = [], []
        for image, fading in self.held[:: max(len(self.held) // QUICK, 1)]:
            small = resize(image, SIDE, SIDE, "area").astype(np.float32)
            found = _rounded(fade(small, fading))
            errors.append([color_error(one, small) for one in (found, undone(found, tell(network, found)))])
            shifts.append(_shift(undone(small, tell(network, small)), small))
        before, after = np.mean(errors, 0)
        return {"faded": float(after), "faded_input": float(before), "clean_shift": float(np.mean(shifts))}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Mean CIEDE2000 of held-out photographs at their own size, over every ninth pixel; shifts of clean ones.

        Returns
        -------
        dict
            ``rows[kind][method]`` = mean, low, high (95 %), of the kinds ``faded``, ``grey`` (photographs without
            colour, toned) and ``tone`` (the same, without tint, in one channel); ``clean`` = by how many levels the
            mean colour of unfaded ones moves, ``changed`` = of what share of them; ``ratio``, ``images``.
        """
        methods = {"input": lambda image: image, **BASELINES, "ours": lambda image: undone(image, tell(network, image))}
        rows: dict[str, Any] = {}
        for kind in ("faded", "grey", "tone"):
            pairs = [_pair(image, fading, kind) for image, fading in self.held]
            rows[kind] = {
                name: interval(np.array([_error(method(found), true) for found, true in pairs]), 0)
                for name, method in methods.items()
            }
        shifts = np.array([_shift(methods["ours"](image), image) for image, _ in self.held])
        return {
            "images": len(self.held),
            "rows": rows,
            "ratio": rows["faded"]["ours"][0] / rows["faded"]["input"][0],
            "clean": interval(shifts, 0),
            "changed": float((shifts > 0).mean()),
        }

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = [f"{scores['images']} held-out photographs, mean CIEDE2000 (95 %)"]
        for kind, methods in scores["rows"].items():
            figures = "  ".join(f"{name} {v[0]:.2f} ({v[1]:.2f}..{v[2]:.2f})" for name, v in methods.items())
            lines.append(f"{kind:6} {figures}")
        value, low, high = scores["clean"]
        lines.append(f"ours / input, faded: {scores['ratio']:.3f}")
        lines.append(f"clean: mean colour moves by {value:.2f} ({low:.2f}..{high:.2f}) levels; {scores['changed']:.0%}")
        return "\n".join(lines)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of faded, ours, grey world, photograph."""
        chosen = self.held[:: max(len(self.held) // 16, 1)][:16]
        found = [_rounded(fade(image, fading)) for image, fading in chosen]
        made = [undone(image, tell(network, image)) for image in found]
        columns = [found, made, [grey_world(image) for image in found], [image for image, _ in chosen]]
        return sheet(columns, 160)

    def _read(self, side: Literal["train", "held-out"]) -> list[tuple[float, list[NDArray[np.uint8]]]]:
        """Share of the batch, and photographs."""
        if self.config.photographs:
            return Grounds(make_config(ScansConfig, {"photographs": self.config.photographs}), side).sets
        folder, sets = data.data_folder(self.config.data), SETS
        if side == "held-out":
            sets = tuple((1.0, name, under) for name, under in MEASURED)
        found = [
            (share, data.read_set(folder, name, side, under=under, purpose=PURPOSE)) for share, name, under in sets
        ]
        return [(share, [images[i] for i in range(len(images))]) for share, images in found]


# --- what is done to colours ------------------------------------------------------------------------------------------


def tell(network: nn.Module, image: NDArray[np.float32]) -> Fading:
    """Tell how an image (H, W, 1 or 3), 0..1, has faded, by its thumbnail."""
    known = np.ones(image.shape[:2], np.float32)
    small = thumbnail(lambda start, stop: (image[start:stop], known[start:stop]), *image.shape[:2])
    colours = np.broadcast_to(small, (SIDE, SIDE, 3)).reshape(1, -1, 3)
    device = next(network.parameters()).device
    with torch.no_grad():
        numbers = network(torch.from_numpy(statistics(colours)).to(device))
    return from_numbers(numbers[0].double().cpu().numpy())


def undo(colours: Tensor, numbers: Tensor) -> Tensor:
    """Undo fadings, by the numbers of `velatura.ops.fading.to_numbers`: (N, points, 3), not clipped.

    Examples
    --------
    >>> from velatura.ops.fading import to_numbers
    >>> numbers = torch.from_numpy(to_numbers(Fading(black=(0.2, 0.0, 0.0))))[None]
    >>> undo(torch.tensor([[[0.6, 0.5, 0.5]]]), numbers).round(decimals=3).tolist()
    [[[0.5, 0.5, 0.5]]]
    """
    black, white = numbers[:, None, :3], numbers[:, None, 3:6]
    gamma, saturation = numbers[:, None, 6:9].exp(), numbers[:, None, 9:].exp()
    mixed = ((colours - black) / (white - black)).clamp(1e-4, 1) ** (1 / gamma)
    luma = (mixed @ torch.from_numpy(LUMA).to(mixed))[..., None]
    return luma + (mixed - luma) / saturation


def lab(colours: Tensor) -> Tensor:
    """Give CIELAB of sRGB colours (..., 3), 0..1, under D65.

    Examples
    --------
    >>> lab(torch.tensor([1.0, 1.0, 1.0])).round(decimals=1).abs().tolist()
    [100.0, 0.0, 0.0]
    """
    light = torch.where(colours > 0.04045, ((colours.clamp_min(0.04) + 0.055) / 1.055) ** 2.4, colours / 12.92)
    xyz = light @ torch.from_numpy((TO_XYZ / WHITE[:, None]).T.copy()).to(light)
    root = torch.where(xyz > 0.008856, xyz.clamp_min(0.0088) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def difference(made: Tensor, true: Tensor) -> Tensor:
    """Give the colour difference CIE94 of sRGB colours (..., 3), smooth at zero."""
    a, b = lab(made.clamp(0, 1)), lab(true)
    chroma, other = ((one[..., 1:].square().sum(-1) + 1e-4).sqrt() for one in (b, a))
    hue = ((a - b)[..., 1:].square().sum(-1) - (other - chroma).square()).clamp_min(0)
    lightness = (a - b)[..., 0].square()
    parts = lightness + ((other - chroma) / (1 + 0.045 * chroma)).square() + hue / (1 + 0.015 * chroma).square()
    return (parts + 0.01).sqrt()


def grey_world(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the channels so that their means are equal.

    Examples
    --------
    >>> grey_world(np.array([[[0.25, 0.5, 0.75]]], np.float32)).tolist()
    [[[0.5, 0.5, 0.5]]]
    """
    means = image.mean((0, 1))
    return (image * (means.mean() / means.clip(1e-3, None))).clip(0, 1).astype(np.float32)


def stretched(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each channel from its smallest to its largest value.

    Examples
    --------
    >>> stretched(np.array([[[0.2, 0.4, 0.6], [0.4, 0.5, 0.8]]], np.float32)).tolist()
    [[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]
    """
    low, high = image.min((0, 1)), image.max((0, 1))
    return ((image - low) / (high - low).clip(1e-3, None)).clip(0, 1).astype(np.float32)


#: What is usual.
BASELINES = {"grey world": grey_world, "stretched": stretched}

# --- photographs ------------------------------------------------------------------------------------------------------


def _thumbnails(images: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shrink some photographs, each as a whole and once a part of it."""
    made = []
    for index in rng.permutation(len(images))[:MOST]:
        image = images[int(index)].astype(np.float32)
        height, width = (max(int(size * SMALLEST ** rng.random()), 1) for size in image.shape[:2])
        top, left = (int(rng.integers(image.shape[axis] - size + 1)) for axis, size in enumerate((height, width)))
        for part in (image, image[top : top + height, left : left + width]):
            made.append(np.rint(resize(part, SIDE, SIDE, "area")).astype(np.uint8))
    return np.stack(made)


def _on_paper(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Leave some photographs a white border."""
    if rng.random() >= 0.15:
        return image
    framed, wide = np.full_like(image, rng.uniform(0.85, 1)), int(rng.integers(1, 6))
    framed[wide:-wide, wide:-wide] = image[wide:-wide, wide:-wide]
    return framed


def _scanned(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """What is left of noise, dust and damage in a thumbnail: a little."""
    noisy = image + np.float32(rng.uniform(0, 0.01)) * rng.standard_normal(image.shape, np.float32)
    if rng.random() < 0.3:
        hurt = rng.random(image.shape[:2]) < rng.uniform(0, 0.02)
        noisy[hurt] += (rng.choice([0.0, 1.0]) - noisy[hurt]) * np.float32(rng.uniform(0.1, 0.6))
    return _rounded(noisy)


def _rounded(image: NDArray[np.floating]) -> NDArray[np.float32]:
    return eight_bit(image).astype(np.float32) / np.float32(LEVELS)


def _pair(image: NDArray[np.float32], fading: Fading, kind: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A faded photograph of a kind, and what it was."""
    true = image if kind == "faded" else grey(image)
    if kind != "tone":
        return _rounded(fade(true, fading)), true
    return _rounded(fade(true, tone_only(fading)))[..., :1], true[..., :1]


def _error(image: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    return color_error(image[::THIN, ::THIN], true[::THIN, ::THIN])


def _shift(image: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Largest difference of the channels' means, in levels."""
    return float(LEVELS * np.abs(image.mean((0, 1)) - true.mean((0, 1))).max())
