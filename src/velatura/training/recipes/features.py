"""Train our own features: a student that sees what VGG-19 and GoogLeNet see.

Romero et al., "FitNets: Hints for Thin Deep Nets", 2015 (arXiv 1412.6550), section 2.2: a thin network regresses the
maps of a large one. Here five maps are regressed at once, from crops of all our images and, beside each, a version
damaged as generators and files damage images. The student's *change* from one to the other is regressed, too, because a
loss or a distance is made of nothing else.

The teachers' files lie in a folder of their own, `TEACHERS` by name, beside the data folder unless ``pretrained`` names
it. Nothing of them goes into the student's file but the mean and the deviation of the channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import Field
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from velatura.errors import InputError, ModelError
from velatura.losses import gram_matrix
from velatura.metrics.perceptual import compare
from velatura.metrics.report import bootstrap
from velatura.nets.features import Features
from velatura.nets.googlenet import GoogLeNet
from velatura.nets.vgg19 import VGG19
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipe import TrainConfig

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["FeaturesConfig", "Teachers", "TrainFeatures", "distort", "read_teachers", "spearman"]

TEACHERS = ("vgg19_conv1_1_to_conv3_4_keras.npz", "bvlc_googlenet_fp16.npz")
PAIRS = {  # our layer -> the teacher's
    "stride1": "conv1_2",
    "stride2": "conv2_2",
    "stride4": "conv3_4",
    "stride8": "inception_3b",
    "stride16": "inception_4c",
}
OFF_CENTRE = 4  # pixels, of 2.5 and 6.5: GoogLeNet's unpadded maxima look to the lower right, ours are centred

SIDES = (96, 128, 192)  # of crops, in pixels; a batch has one of them, and about as many pixels whichever it is
BASE = SIDES[0]
FLOOR = 0.02  # squared standard deviations: a change that no teacher sees is not to be matched exactly
CALIBRATION = (64, 128)  # crops and their side that mean and deviation are measured on
HELD = (96, 128)  # held-out crops and their side


class FeaturesConfig(TrainConfig):
    """Settings of `TrainFeatures`."""

    pretrained: str | None = Field(None, description="folder of the teachers; else `pretrained` beside the data folder")
    sets: dict[str, float] = Field(
        {}, description="sets of the data folder, and the share of the crops that each gives"
    )
    widths: tuple[int, ...] = Field((32, 64, 96, 128, 192), description="channels of the trunk at each stride")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the trunk's convolutions; 0 = Adam for all")
    change: float = Field(0.5, ge=0, description="weight of the regression of changes")
    gram: float = Field(0, ge=0, description="weight of the regression of Gram matrices, which style losses compare")


class Teachers(nn.Module):
    """VGG-19 and GoogLeNet under the names and in the units of `velatura.nets.features.Features`.

    Parameters
    ----------
    vgg19 : VGG19
        At least to conv3_4.
    googlenet : GoogLeNet
    units : Features
        The student that knows the mean and the deviation of each channel.

    Notes
    -----
    GoogLeNet's maps are shifted by `OFF_CENTRE` pixels, so that both look at the same place.
    """

    LAYERS: ClassVar[tuple[str, ...]] = Features.LAYERS

    def __init__(self, vgg19: VGG19, googlenet: GoogLeNet, units: Features) -> None:
        super().__init__()
        self.vgg19, self.googlenet, self.units = vgg19, googlenet, units

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of `layers`, as `Features.forward` does."""
        raw = self.raw(image, self.LAYERS if layers is None else layers)
        return {name: self.units.standardized(name, found) for name, found in raw.items()}

    def raw(self, image: Tensor, layers: Iterable[str] = Features.LAYERS) -> dict[str, Tensor]:
        """Give maps in the teachers' own scale, in float32."""
        wanted = set(layers)
        names = [name for name in self.LAYERS if name in wanted]
        fine = [PAIRS[name] for name in names if PAIRS[name] in VGG19.LAYERS]
        coarse = [PAIRS[name] for name in names if PAIRS[name] in GoogLeNet.LAYERS]
        maps = self.vgg19(image, fine) if fine else {}
        if coarse:
            height, width = image.shape[-2:]
            shifted = functional.pad(image, (OFF_CENTRE, 0, OFF_CENTRE, 0), mode="reflect")
            for name, found in self.googlenet(shifted, coarse).items():
                stride = 8 if name == PAIRS["stride8"] else 16
                maps[name] = found[..., : height // stride, : width // stride]
        return {name: maps[PAIRS[name]].float() for name in names}


class TrainFeatures:
    """The recipe of `velatura.nets.features.Features`."""

    name = "features"
    architecture = "Features"

    def __init__(self, config: FeaturesConfig) -> None:
        self.config = config
        self.arguments = {"widths": list(config.widths)}
        torch.manual_seed(config.seed)
        self.student = Features(**self.arguments)
        for layer in self.student.heads.modules():
            if isinstance(layer, nn.Conv2d):  # begin with the teachers' mean
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.networks: dict[str, nn.Module] = {"features": self.student}

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the trunk behind its first convolution, Adam for the rest, or Adam for all."""
        if self.config.matrix_rate:
            plain = (self.student.first, self.student.heads)
            return {"features": Muon(self.student, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"features": Adam(self.student.parameters(), lr=self.config.learning_rate)}

    @cached_property
    def teachers(self) -> Teachers:
        """Both teachers, in bfloat16 if the training is."""
        teachers = read_teachers(self._pretrained, self.student)
        if self.config.precision == "bf16-mixed":
            teachers.vgg19.bfloat16()
            teachers.googlenet.bfloat16()
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        teachers.vgg19.to(memory_format=layout)  # type: ignore[call-overload]
        teachers.googlenet.to(memory_format=layout)  # type: ignore[call-overload]
        return teachers

    @cached_property
    def images(self) -> dict[str, data.Images]:
        """Training images by set; read when the first batch is drawn."""
        return self._read("train")

    @cached_property
    def held(self) -> tuple[Tensor, Tensor]:
        """Held-out crops and a damaged version of each, always the same."""
        count, side = HELD
        return _draw(self._read("held-out"), self.config.sets, np.random.default_rng(HELD), count, side)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Crops, and a damaged version of each."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        side = int(rng.choice(SIDES))
        count = max(1, round(self.config.batch_size * BASE**2 / side**2))
        return _draw(self.images, self.config.sets, rng, count, side)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Regress the teachers' maps and their changes."""
        images = torch.cat(batch)
        self.teachers.to(images.device)
        if step == 0:
            self.calibrate(images.device)
        with torch.no_grad():
            targets = self.teachers(images)
        maps = training.networks["features"](images)
        figures: dict[str, Tensor] = {}
        loss = images.new_zeros(())
        for name in Features.LAYERS:
            error = maps[name].float() - targets[name]
            match, change = error.square().mean(), _relative(error, targets[name])
            loss = loss + match + self.config.change * change
            figures |= {name: match.detach(), f"change_{name}": change.detach()}
        if self.config.gram:
            ours, theirs = (self.student.activated(_floats(found)) for found in (maps, targets))
            apart = torch.stack([_apart(ours[name], theirs[name]) for name in Features.LAYERS]).mean()
            loss = loss + self.config.gram * apart
            figures["gram"] = apart.detach()
        training.descend("features", loss)
        return {"loss": loss.detach(), **figures}

    @torch.no_grad()
    def calibrate(self, device: torch.device | str = "cpu") -> None:
        """Measure the mean and the deviation of the teachers' channels on undamaged crops."""
        count, side = CALIBRATION
        crops, _ = _draw(self.images, self.config.sets, np.random.default_rng(CALIBRATION), count, side)
        found: dict[str, list[Tensor]] = {name: [] for name in Features.LAYERS}
        for part in crops.split(8):
            for name, maps in self.teachers.raw(part.to(device)).items():
                flat = maps.double().transpose(0, 1).flatten(1)
                found[name].append(torch.stack([flat.mean(1), flat.square().mean(1)]))
        for name, parts in found.items():
            mean, square = torch.stack(parts).mean(0)
            self.student.calibrate(name, mean.float(), (square - mean.square()).clamp(1e-6).sqrt().float())

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Explained variance of each layer, and how alike student and teachers rank damages."""
        scores = self.evaluate(network)
        return {name: row[0] for name, row in scores["rows"].items()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Compare student and teachers on held-out crops.

        Returns
        -------
        dict
            ``rows[name]`` = mean, low, high (95 %): for every layer the explained variance ``1 - mean e^2 / mean z^2``
            of crops and damaged crops, z in standard deviations; ``change_LAYER`` the same of the change from one to
            the other; ``rank`` the rank correlation (Spearman) of `velatura.metrics.perceptual.distances` by student
            and by teachers, ``rank_pixels`` that of the mean squared difference of pixels with the teachers' distance:
            what a student has to beat. ``images``.
        """
        device = next(network.parameters()).device
        self.teachers.to(device)
        sums: dict[str, list[Tensor]] = {}
        ours, theirs, pixels = [], [], []
        for clean, damaged in zip(*(images.to(device).split(8) for images in self.held), strict=True):
            maps = [_floats(network(images)) for images in (clean, damaged)]
            targets = [self.teachers(images) for images in (clean, damaged)]
            for name in Features.LAYERS:
                first, second = (a[name] - b[name] for a, b in zip(maps, targets, strict=True))
                before, after = (target[name] for target in targets)
                both = torch.stack([_square(first) + _square(second), _square(before) + _square(after)])
                sums.setdefault(name, []).append(both)
                sums.setdefault(f"change_{name}", []).append(
                    torch.stack([_square(second - first), _square(after - before)])
                )
            ours.append(compare(*maps))
            theirs.append(compare(*targets))
            pixels.append(_square(damaged - clean))
        rows = {name: _explained(torch.cat(parts, dim=1)) for name, parts in sums.items()}
        judged = torch.cat(theirs).cpu().numpy()
        rows["rank"] = _rank(torch.cat(ours).cpu().numpy(), judged)
        rows["rank_pixels"] = _rank(torch.cat(pixels).cpu().numpy(), judged)
        return {"images": len(self.held[0]), "rows": rows}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = [f"{scores['images']} held-out crops and a damaged version of each; explained variance, 95 %"]
        lines += [f"{name:16} {mean:.3f} ({low:.3f}..{high:.3f})" for name, (mean, low, high) in scores["rows"].items()]
        return "\n".join(lines)

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of crop, damaged crop, and where the teachers and the student see the difference at stride 4."""
        device = next(network.parameters()).device
        clean, damaged = (images[:16].to(device) for images in self.held)
        cells = [clean, damaged]
        for extractor in (self.teachers.to(device), network):
            first, second = (extractor(images, ["stride4"])["stride4"].float() for images in (clean, damaged))
            seen = (second - first).square().mean(1, keepdim=True).sqrt()
            seen = functional.interpolate(seen / 2, size=clean.shape[-2:])
            cells.append(seen.clamp(0, 1).expand(-1, 3, -1, -1))
        rows = torch.cat(cells, dim=3).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        half = len(rows) // 2
        return np.hstack([np.vstack(list(rows[:half])), np.vstack(list(rows[half : 2 * half]))])

    @property
    def _pretrained(self) -> Path:
        if self.config.pretrained:
            return Path(self.config.pretrained).expanduser()
        return data.data_folder(self.config.data).resolve().parent / "pretrained"

    def _read(self, side: data.Side) -> dict[str, data.Images]:
        if not self.config.sets:
            raise InputError("no sets of images: name some with `--set sets={scenes96=1}`")
        folder = data.data_folder(self.config.data)
        # Emoji stand on nothing; each crop gets a colour of its own behind them.
        return {
            name: data.read_set(folder, name, side, mode="RGBA" if name == "emoji64" else "RGB", purpose="upscale")
            for name in self.config.sets
        }


def read_teachers(folder: Path, units: Features) -> Teachers:
    """Read both teachers' files.

    Parameters
    ----------
    folder : Path
        Holds `TEACHERS`.
    units : Features
        Whose units the maps get.

    Raises
    ------
    ModelError
        A file is missing or not what its name says.
    """
    vgg19, googlenet = (_arrays(folder / name) for name in TEACHERS)
    try:
        return Teachers(VGG19.from_keras(vgg19), GoogLeNet.from_caffe(googlenet), units)
    except ValueError as error:
        raise ModelError(f"teachers in {folder}: {error}") from None


def distort(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Damage an image in one to three ways, as files, cameras and generators do, from hardly to heavily.

    Parameters
    ----------
    image : ndarray of uint8, (H, W, 3)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8, (H, W, 3)
    """
    for way in rng.choice(len(DAMAGES), size=rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2)), replace=False):
        image = DAMAGES[way](image, rng)
    return image


def _blur(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_between(rng, 0.3, 4))))


def _sharpen(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    sharper = ImageFilter.UnsharpMask(_between(rng, 0.5, 3), int(_between(rng, 20, 300)), 0)
    return np.asarray(Image.fromarray(image).filter(sharper))


def _noise(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    channels = 1 if rng.random() < 0.4 else 3
    return _rounded(image + _between(rng, 1, 40) * rng.standard_normal((*image.shape[:2], channels), np.float32))


def _grid(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add what transposed convolutions leave: one small tile of random numbers, repeated, here more and there less."""
    height, width = image.shape[:2]
    period = int(rng.choice((2, 4, 8)))
    tile = rng.standard_normal((period, period, 3), np.float32)
    tiled = np.tile(tile - tile.mean((0, 1)), (-(-height // period), -(-width // period), 1))[:height, :width]
    coarse = Image.fromarray(rng.random((4, 4), np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return _rounded(image + _between(rng, 1, 20) * tiled * np.asarray(coarse)[..., None])


def _jpeg(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=round(_between(rng, 5, 95)))
    return np.asarray(Image.open(file))


def _shrink(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make smaller, then enlarge again as upscalers' baselines do."""
    height, width = image.shape[:2]
    scale = _between(rng, 1.15, 6)
    small = Image.fromarray(image).resize((round(width / scale), round(height / scale)), Image.Resampling.BICUBIC)
    way = rng.choice((Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.NEAREST), p=(0.6, 0.2, 0.2))
    return np.asarray(small.resize((width, height), Image.Resampling(way)))


def _light(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    strength = _between(rng, 0.01, 0.3)
    gain, offset = rng.uniform(-1, 1, (2, 3)).astype(np.float32) * strength
    return _rounded(image * (1 + gain) + 128 * offset)


def _levels(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    width = _between(rng, 2, 64)
    return _rounded(np.round(image / np.float32(width)) * width)


def _move(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move by a part of a pixel, or a few."""
    height, width = image.shape[:2]
    right, down = rng.uniform(-1, 1, 2) * _between(rng, 0.15, 4)
    moved = (1, 0, right, 0, 1, down)
    padded = np.asarray(
        Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, moved, Image.Resampling.BICUBIC)
    )
    margin = 5  # what came from outside is black
    result = image.copy()
    result[margin:-margin, margin:-margin] = padded[margin:-margin, margin:-margin]
    return result


DAMAGES: tuple[Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]], ...] = (
    _blur,
    _sharpen,
    _noise,
    _grid,
    _jpeg,
    _shrink,
    _light,
    _levels,
    _move,
)


def _draw(
    images: dict[str, data.Images], shares: dict[str, float], rng: np.random.Generator, count: int, side: int
) -> tuple[Tensor, Tensor]:
    """Crops of one side, and a damaged version of each, both (count, 3, side, side), 0..1."""
    chances = np.array([shares[name] for name in images], np.float64)
    sets = list(images.values())
    crops = []
    for chosen in rng.choice(len(sets), size=count, p=chances / chances.sum()):
        found = sets[chosen]
        crops.append(_crop(found[int(rng.integers(len(found)))], rng, side))
    damaged = [distort(crop, rng) for crop in crops]
    return _tensor(crops), _tensor(damaged)


def _crop(image: NDArray[np.uint8], rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Cut a square of a random size out, resize it, mirror it every other time, fill what is transparent."""
    largest = min(*image.shape[:2], 5 * side // 2)
    size = round(_between(rng, min(0.75 * side, 0.7 * largest), largest))
    top, left = (int(rng.integers(length - size + 1)) for length in image.shape[:2])
    cut = Image.fromarray(image[top : top + size, left : left + size])
    if cut.mode == "RGBA":
        color = tuple(int(value) for value in rng.integers(256, size=3))
        cut = Image.alpha_composite(Image.new("RGBA", cut.size, (*color, 255)), cut).convert("RGB")
    result = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(result[:, ::-1]) if rng.random() < 0.5 else result


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Give a random number, every ratio alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _tensor(images: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def _relative(error: Tensor, target: Tensor) -> Tensor:
    """Squared error of the change from the first half of a batch to the second, in units of the teacher's change."""
    (first, second), (before, after) = error.chunk(2), target.chunk(2)
    return (_square(second - first) / (_square(after - before) + FLOOR)).mean()


def _apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared difference of Gram matrices, in units of the teacher's, which has at least a little in every map."""
    first, second = gram_matrix(ours), gram_matrix(theirs)
    return ((first - second).square().sum((1, 2)) / (second.square().sum((1, 2)) + FLOOR)).mean()


def _square(maps: Tensor) -> Tensor:
    return maps.square().mean((1, 2, 3))


def _floats(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: found.float() for name, found in maps.items()}


def _explained(sums: Tensor) -> tuple[float, float, float]:
    """Explained variance from squared errors and squares, (2, images)."""
    errors, squares = sums.cpu().double().numpy()
    found = bootstrap(1 - errors / squares.mean())
    return found.value, found.low, found.high


def _rank(ours: NDArray[np.float32], theirs: NDArray[np.float32], draws: int = 500) -> tuple[float, float, float]:
    """Rank correlation with its bootstrap interval over pairs."""
    rng = np.random.default_rng(0)
    chosen = [rng.integers(len(ours), size=len(ours)) for _ in range(draws)]
    low, high = np.percentile([spearman(ours[i], theirs[i]) for i in chosen], [2.5, 97.5])
    return spearman(ours, theirs), float(low), float(high)


def spearman(a: NDArray, b: NDArray) -> float:
    """Rank correlation of two series of the same length; 0 where one of them is constant."""
    first, second = (rankdata(series) - (len(series) + 1) / 2 for series in (a, b))
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length else 0.0


def _arrays(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; name the teachers' folder with `--set pretrained=DIR`") from None
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: not an .npz file of arrays: {error}") from None
