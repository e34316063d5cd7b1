"""Train the faithful upscalers: SRCNN, SRResNet and the RRDB-net that ESRGAN starts from.

Dong et al. 2014 (arXiv 1501.00092) and Ledig et al. 2016 (arXiv 1609.04802) shrink photographs by MATLAB's bicubic and
let a network give them back; both are measured in PSNR and SSIM on luma, `scale` pixels of every border left out. Here
the photographs are T91, the train and test parts of BSDS500 and sharp patches of free photographs; fifty of BSDS500
are held out. Its *val* part, Set5, Set14 and Urban100 are for measuring alone. A folder of the user's own (DIV2K) is
``photographs``: `srresnet_div2k.toml`; SRGAN's own settings are `srresnet_paper.toml`, ESRGAN's (Wang et al. 2018,
arXiv 1809.00219, section 4.1) `esrgan-psnr_paper.toml`.

Differs from the papers: Adam with a cosine for both (SRCNN: gradient descent, the last layer ten times slower);
SRResNet by L1, not MSE (Zhao et al. 2017, arXiv 1511.08861: better PSNR, too), and measured as a running average of its
weights; patches turned and mirrored; all learn a correction of the bicubic enlargement; the low resolution is rounded
to 8 bits, as files are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura import catalog
from velatura.errors import InputError
from velatura.metrics.fidelity import Y2, Y3, Y4, psnr, ssim
from velatura.metrics.report import bootstrap
from velatura.nets.rrdb import RRDB
from velatura.nets.srcnn import SRCNN, luma
from velatura.nets.srresnet import SRResNet
from velatura.ops.resize import resize
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipe import TrainConfig

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "GeneratorConfig",
    "Pairs",
    "Place",
    "RRDBConfig",
    "SRCNNConfig",
    "SRResNetConfig",
    "TrainRRDB",
    "TrainSRCNN",
    "TrainSRResNet",
    "UpscaleConfig",
    "Upscaler",
    "bicubic",
    "contact_sheet",
    "draw_places",
    "enlarge",
    "evaluate",
    "fidelity",
    "generator_optimizer",
    "interval",
    "make_generator",
    "read_pairs",
    "shrink",
    "to_tensor",
]

SETS = ("sr_t91_bsds400", "sr_hr_patches")
MEASURED = ("sr_t91_bsds400", "bsds500_")  # the set, and the beginning of the paths, of what is held out and measured
PROTOCOLS = {2: Y2, 3: Y3, 4: Y4}  # by scale
SRRESNET_ARGUMENTS = ("scale", "width", "blocks", "norm", "residual")
RRDB_ARGUMENTS = ("scale", "width", "growth", "blocks", "tail", "residual")

HELD_OUT_EVERY = 20  # of a user's photographs by name: every twentieth is held out
SHOWN = 8  # photographs on a sheet
HELD_OUT_SIDE = 480  # pixels: about the longer side of BSDS500; of larger photographs the middle is measured


class UpscaleConfig(TrainConfig):
    """Settings that all upscalers share."""

    scale: Literal[2, 4] = Field(4, description="how many times larger the output is")
    patch: int = Field(48, ge=8, description="side of a patch in pixels of the low resolution")
    residual: bool = Field(True, description="learn a correction of the bicubic enlargement")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")
    photographs: str | None = Field(None, description="folder of photographs instead of our sets, such as DIV2K's")


class SRCNNConfig(UpscaleConfig):
    """Settings of `TrainSRCNN`."""

    middle: Literal[1, 3, 5] = Field(5, description="size of the second layer's filters: 9-1-5, 9-3-5, 9-5-5")


class GeneratorConfig(UpscaleConfig):
    """Settings of the networks that a GAN may go on with."""

    loss: Literal["l1", "mse"] = Field("l1", description="of pixels")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's first decay")
    trunk: str | None = Field(None, description="weights for another scale, whose layers it starts with where they fit")


class SRResNetConfig(GeneratorConfig):
    """Settings of `TrainSRResNet`."""

    width: int = Field(64, ge=4, description="channels")
    blocks: int = Field(16, ge=1, description="residual blocks")
    norm: bool = Field(False, description="batch norm, as in the paper")


class RRDBConfig(GeneratorConfig):
    """Settings of `TrainRRDB`."""

    width: int = Field(48, ge=4, description="channels of the trunk")
    growth: int = Field(32, ge=1, description="channels that each convolution of a dense block adds")
    blocks: int = Field(3, ge=1, description="residual-in-residual dense blocks")
    tail: int = Field(32, ge=1, description="channels behind the enlargement")


class Pairs:
    """Photographs beside their low resolution, both in 8 bits, made once.

    Parameters
    ----------
    images : Images
        Of any sizes; what is over a multiple of `scale` is cut off, below and at the right.
    scale : int
        How many times smaller the low resolution is.

    Attributes
    ----------
    names : tuple of str
    high, low : list of ndarray of uint8, (H, W, 3)
    """

    def __init__(self, images: data.Images, scale: int) -> None:
        self.names, self.scale = images.names, scale
        self.high = [_whole(images[i], scale) for i in range(len(images))]
        self.low = [shrink(image, scale) for image in self.high]
        self._sizes = np.array([image.shape[:2] for image in self.low], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, rng: np.random.Generator, n: int, patch: int) -> tuple[Tensor, Tensor]:
        """Draw patches, each of all possible ones with the same chance, in one of eight turns.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where all randomness comes from.
        n, patch : int
            How many, and their side in the low resolution.

        Returns
        -------
        low, high : Tensor of float32, (n, 3, patch, patch) and (n, 3, scale patch, scale patch)
            0..1.

        Raises
        ------
        InputError
            No photograph is large enough.
        """
        low = np.empty((n, patch, patch, 3), np.uint8)
        high = np.empty((n, patch * self.scale, patch * self.scale, 3), np.uint8)
        for i, place in enumerate(draw_places(self._sizes, rng, n, patch, self.scale)):
            low[i] = place.cut(self.low[place.index])
            high[i] = place.cut(self.high[place.index], self.scale)
        return to_tensor(low), to_tensor(high)


@dataclass(frozen=True)
class Place:
    """A square of an image, and how it is turned: in units of pixels of the low resolution."""

    index: int
    y: int
    x: int
    side: int
    turns: int
    mirrored: bool

    def cut(self, image: NDArray[np.uint8], scale: int = 1) -> NDArray[np.uint8]:
        """Cut it out of an image that is `scale` times larger than the units."""
        top, left, side = scale * self.y, scale * self.x, scale * self.side
        turned = np.rot90(image[top : top + side, left : left + side], self.turns)
        return turned[:, ::-1] if self.mirrored else turned


def draw_places(sizes: NDArray[np.int64], rng: np.random.Generator, n: int, patch: int, scale: int) -> Iterator[Place]:
    """Draw squares of `patch` from images of these sizes (k, 2), each of all possible ones with the same chance.

    Raises
    ------
    InputError
        No image is large enough.
    """
    rows, cols = (sizes - patch + 1).clip(0).T
    until = np.cumsum(rows * cols)
    if not until[-1]:
        side = patch * scale
        raise InputError(f"none of {len(sizes)} photographs has {side}x{side} pixels: set a smaller patch")
    for place in rng.integers(until[-1], size=n):
        index = int(np.searchsorted(until, place, side="right"))
        y, x = divmod(int(until[index] - 1 - place), int(cols[index]))
        turns, mirrored = divmod(int(rng.integers(8)), 2)
        yield Place(index, y, x, patch, turns, bool(mirrored))


class Upscaler:
    """What all recipes of upscaling have: pairs, figures, sheets."""

    config: Any

    @cached_property
    def pairs(self) -> Pairs:
        """Training pairs; the photographs are read when the first batch is drawn."""
        return read_pairs(self.config, "train")

    @cached_property
    def held(self) -> Pairs:
        """The held-out pairs."""
        return read_pairs(self.config, "held-out")

    @cached_property
    def baseline(self) -> list[NDArray[np.uint8]]:
        """Bicubic enlargements of the held-out pairs."""
        return [bicubic(low, self.config.scale) for low in self.held.low]

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Low and high resolution."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        return self.pairs.draw(rng, self.config.batch_size, self.config.patch)

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR on luma, beside that of the bicubic enlargement."""
        protocol = PROTOCOLS[self.config.scale]
        ours = [enlarge(network, low) for low in self.held.low]
        methods = {"psnr": ours, "psnr_bicubic": self.baseline}
        return {
            name: float(np.mean([psnr(a, b, protocol) for a, b in zip(images, self.held.high, strict=True)]))
            for name, images in methods.items()
        }

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` on this recipe's held-out pairs."""
        return evaluate(network, self.held)

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of bicubic, ours, original: the middles of eight held-out photographs, two per row."""
        count = min(len(self.held), SHOWN)
        ours = [enlarge(network, low) for low in self.held.low[:count]]
        return contact_sheet([self.baseline[:count], ours, self.held.high[:count]], 40 * self.config.scale)


class TrainSRCNN(Upscaler):
    """The recipe of `velatura.nets.srcnn.SRCNN`: squared error of luma."""

    name = "srcnn"
    architecture = "SRCNN"

    def __init__(self, config: SRCNNConfig) -> None:
        self.config = config
        self.arguments = {name: getattr(config, name) for name in ("scale", "middle", "residual")}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"generator": SRCNN(**self.arguments)}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        return {"generator": Adam(self.networks["generator"].parameters(), lr=self.config.learning_rate)}

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the squared error of luma."""
        low, high = batch
        loss = luma(training.networks["generator"](low) - high).square().mean()
        training.descend("generator", loss)
        return {"loss": loss.detach()}


class _Generator(Upscaler):
    """What the recipes of deep generators share: absolute error, by Muon."""

    architecture: str

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        generator, self.arguments = make_generator(config)
        if config.trunk:
            other = catalog.load(config.trunk, {self.architecture: type(generator)}).state_dict()
            own = generator.state_dict()
            fitting = {name: value for name, value in other.items() if name in own and value.shape == own[name].shape}
            generator.load_state_dict(own | fitting)
        self.networks: dict[str, nn.Module] = {"generator": generator}

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon, or Adam as in the papers."""
        return {"generator": generator_optimizer(self.networks["generator"], self.config)}

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the absolute error, or the squared one."""
        low, high = batch
        difference = training.networks["generator"](low) - high
        loss = difference.abs().mean() if self.config.loss == "l1" else difference.square().mean()
        training.descend("generator", loss)
        return {"loss": loss.detach()}


class TrainSRResNet(_Generator):
    """The recipe of `velatura.nets.srresnet.SRResNet`."""

    name = "srresnet"
    architecture = "SRResNet"


class TrainRRDB(_Generator):
    """The recipe of `velatura.nets.rrdb.RRDB`, before a critic joins."""

    name = "esrgan-psnr"
    architecture = "RRDB"


def make_generator(config: GeneratorConfig) -> tuple[nn.Module, dict[str, Any]]:
    """Make the network of these settings, and give its arguments: an RRDB of `RRDBConfig`, else an SRResNet."""
    network, names = (RRDB, RRDB_ARGUMENTS) if isinstance(config, RRDBConfig) else (SRResNet, SRRESNET_ARGUMENTS)
    arguments = {name: getattr(config, name) for name in names}
    return network(**arguments), arguments


def generator_optimizer(network: Any, config: GeneratorConfig) -> Optimizer:
    """Muon for the layers between the first and the last, or Adam for all."""
    if config.matrix_rate:
        plain = (network.conv_first, network.conv_last) if isinstance(network, RRDB) else (network.head, network.tail)
        return Muon(network, config.matrix_rate, config.learning_rate, plain)
    return Adam(network.parameters(), lr=config.learning_rate, betas=(config.beta1, 0.999))


def shrink(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Make the low resolution: MATLAB's antialiased bicubic, rounded to 8 bits.

    Parameters
    ----------
    image : ndarray of uint8, (H, W, 3)
        Of multiples of `scale`.
    scale : int

    Returns
    -------
    ndarray of uint8, (H / scale, W / scale, 3)

    Examples
    --------
    >>> shrink(np.full((8, 12, 3), 200, np.uint8), 4).shape
    (2, 3, 3)
    """
    return _eight_bit(resize(image, image.shape[0] // scale, image.shape[1] // scale, "bicubic"))


def evaluate(network: nn.Module, pairs: Pairs, seed: int = 0) -> dict[str, Any]:
    """PSNR and SSIM of the bicubic enlargement and of ours, on luma.

    Parameters
    ----------
    network : nn.Module
        From RGB in 0..1 to `pairs.scale` times the size.
    pairs : Pairs
        What is measured: the held-out photographs, or a test set.
    seed : int
        Of the bootstrap over images.

    Returns
    -------
    dict
        ``rows[method][unit]`` = mean, low, high (95 %), methods ``bicubic``, ``ours`` and ``gain`` (per image, ours
        above bicubic), units ``psnr`` (dB) and ``ssim``; ``protocol`` in words; ``images``, ``scale`` and ``seed``.
    """
    protocol = PROTOCOLS[pairs.scale]
    methods = {
        "bicubic": [bicubic(low, pairs.scale) for low in pairs.low],
        "ours": [enlarge(network, low) for low in pairs.low],
    }
    figures = {method: fidelity(images, pairs) for method, images in methods.items()}
    figures["gain"] = {unit: figures["ours"][unit] - figures["bicubic"][unit] for unit in ("psnr", "ssim")}
    return {
        "images": len(pairs),
        "scale": pairs.scale,
        "seed": seed,
        "protocol": f"{protocol}; low resolution by MATLAB's antialiased bicubic, 8 bit",
        "rows": {
            method: {unit: interval(values, seed) for unit, values in units.items()}
            for method, units in figures.items()
        },
    }


def fidelity(images: list[NDArray[np.uint8]], pairs: Pairs) -> dict[str, NDArray[np.float64]]:
    """PSNR in dB and SSIM of each image, on luma."""
    protocol = PROTOCOLS[pairs.scale]
    return {
        unit: np.array([measure(a, b, protocol) for a, b in zip(images, pairs.high, strict=True)])
        for unit, measure in (("psnr", psnr), ("ssim", ssim))
    }


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"x{scores['scale']}, {scores['images']} images; {scores['protocol']}"]
    lines.append(f"{'method':8} {'PSNR dB':>22} {'SSIM':>24}")
    for method, units in scores["rows"].items():
        (p, p_low, p_high), (s, s_low, s_high) = units["psnr"], units["ssim"]
        lines.append(
            f"{method:8} {f'{p:.2f} ({p_low:.2f}..{p_high:.2f})':>22} {f'{s:.4f} ({s_low:.4f}..{s_high:.4f})':>24}"
        )
    return "\n".join(lines)


def read_pairs(config: UpscaleConfig, side: Literal["train", "held-out"]) -> Pairs:
    """Read our sets, or the user's photographs, and shrink them."""
    if config.photographs:
        images = _side(data.read_folder(Path(config.photographs)), side)
    elif side == "train":
        folder = data.data_folder(config.data)
        images = data.concatenate(*(data.read_set(folder, name, side, purpose="upscale") for name in SETS))
    else:
        name, under = MEASURED
        images = data.read_set(data.data_folder(config.data), name, side, under=under, purpose="upscale")
    return Pairs(images, config.scale)


def _side(images: data.Images, side: str) -> data.Images:
    """Keep every twentieth of a user's photographs, its middle, or all the others."""
    held = [i for i in range(len(images)) if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1] or [len(images) - 1]
    chosen = held if side == "held-out" else [i for i in range(len(images)) if i not in held]
    if not chosen:
        raise InputError("one photograph is not enough: at least one is to be trained on and one to be measured")
    arrays = [_middle(images[i], HELD_OUT_SIDE) if side == "held-out" else images[i] for i in chosen]
    return data.Images(
        names=tuple(images.names[i] for i in chosen),
        pixels=np.concatenate([array.ravel() for array in arrays]),
        shapes=np.array([array.shape for array in arrays], dtype=np.int64),
    )


def contact_sheet(columns: list[list[NDArray[np.uint8]]], side: int) -> NDArray[np.uint8]:
    """Put the middles of images side by side: one row per image and one column per way to make it, two rows abreast."""
    cells = [np.hstack([_middle(image, side) for image in row]) for row in zip(*columns, strict=True)]
    height, width = np.max([cell.shape[:2] for cell in cells], axis=0)
    cells = [np.pad(cell, ((0, height - len(cell)), (0, width - cell.shape[1]), (0, 0))) for cell in cells]
    cells += [np.zeros_like(cells[0])] * (len(cells) % 2)
    return np.vstack([np.hstack(cells[i : i + 2]) for i in range(0, len(cells), 2)])


@torch.no_grad()
def enlarge(network: nn.Module, low: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Run a network on one image of 8 bits, on the network's device."""
    device = next(network.parameters()).device
    enlarged = network(to_tensor(low[None]).to(device))[0]
    return _eight_bit(255 * enlarged.float().permute(1, 2, 0).cpu().numpy())


def bicubic(low: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge an image of 8 bits as MATLAB does."""
    return _eight_bit(resize(low, low.shape[0] * scale, low.shape[1] * scale, "bicubic"))


def _eight_bit(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """From (N, H, W, 3) of 8 bits to (N, 3, H, W) of 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _whole(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Cut to multiples of `scale`, at the lower right, as MATLAB's ``modcrop`` of the papers."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _middle(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of an image, at most `side` pixels in each direction."""
    top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def interval(values: NDArray[np.float64], seed: int) -> list[float]:
    """Mean, low and high (95 %) over images."""
    found = bootstrap(values, seed=seed)
    return [found.value, found.low, found.high]
