"""Train the direct restorer: an old scan and its damage in, the photograph out.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), have such a network for comparison. Its
targets are the photographs with their fading and nothing else, because what fades is the whole print: a network that
sees a neighbourhood would undo it differently from place to place, and a correct photograph would not be left alone.

Differs from the paper: no critic; damage that is drawn anew each time; masks that are as careless as a detector's, or
a detector's own: what it marks falsely is to stay, and what it misses may still be undone.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura.losses import charbonnier, content_loss, l1
from velatura.metrics import perceptual
from velatura.metrics.fidelity import RGB, psnr, ssim
from velatura.nets.restoration import Restorer
from velatura.perceptual import load_features
from velatura.restoration import Detector, load_detector
from velatura.training.muon import Muon
from velatura.training.recipes import old_scans
from velatura.training.recipes.old_scans import Grounds, ScansConfig, Worn, eight_bit, stacked
from velatura.training.recipes.scratches import probabilities
from velatura.training.recipes.upscale import interval

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["RestoreConfig", "TrainRestore", "evaluate", "restore", "table"]

QUICK, ALL = (12, 160), (91, 256)  # held-out photographs of a kind and their side: beside the training, and for good
KINDS = ("unstructured", "lines", "areas", "stains", "clean")  # measured beside the training; all of them for good
LEVELS = 255


class RestoreConfig(ScansConfig):
    """Settings of `TrainRestore`."""

    widths: tuple[int, ...] = Field((32, 48, 96, 128), description="channels of each level")
    blocks: tuple[int, ...] = Field((1, 1, 2, 3), description="residual blocks of each level")
    loss: Literal["l1", "charbonnier"] = Field("charbonnier", description="of pixels")
    features: str = Field("velatura", description="what content is compared in: velatura, a file, or vgg19:FILE")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")
    detector: str | None = Field(None, description="a model's name or a file: some masks are what it marks")
    found: float = Field(0.5, ge=0, le=1, description="share of the masks that a detector draws, if there is one")


class TrainRestore:
    """The recipe of `velatura.nets.restoration.Restorer`."""

    name = "restore"
    architecture = "Restorer"

    def __init__(self, config: RestoreConfig) -> None:
        self.config = config
        self.arguments = {"widths": list(config.widths), "blocks": list(config.blocks)}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"restorer": Restorer(config.widths, config.blocks)}

    @cached_property
    def grounds(self) -> Grounds:
        """Training images; read when the first batch is drawn."""
        return Grounds(self.config, "train")

    @cached_property
    def held(self) -> dict[str, list[Worn]]:
        """Held-out scans of each kind, always the same."""
        return {kind: old_scans.held_out_scans(self.config, kind, *QUICK) for kind in KINDS}

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        found = load_features(self.config.features).eval().requires_grad_(False)
        return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def detector(self) -> Detector | None:
        """What draws masks as they are drawn in use: with what it misses, and with what is none."""
        return load_detector(self.config.detector, torch.device("cpu")) if self.config.detector else None

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the layers between the first and the last, or Adam for all."""
        restorer = self.networks["restorer"]
        assert isinstance(restorer, Restorer)
        if self.config.matrix_rate:
            plain = (restorer.unet.enter, restorer.unet.leave)
            return {"restorer": Muon(restorer, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"restorer": Adam(restorer.parameters(), lr=self.config.learning_rate)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Scans, masks of their damage, what they were before it, and which masks the detector is to draw, (N,)."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        scans = [self.grounds.scan(rng) for _ in range(self.config.batch_size)]
        masks = [old_scans.careless(scan, rng) for scan in scans]
        found = rng.random(len(scans)) < (self.config.found if self.config.detector else 0)
        images, targets = ([getattr(scan, name) for scan in scans] for name in ("image", "faded"))
        return stacked(images), stacked(masks), stacked(targets), torch.from_numpy(found)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the error of pixels and of content."""
        image, mask, target, found = batch
        if self.detector and found.any():
            self.detector.network.to(image.device)
            with torch.no_grad(), training.fabric.autocast():
                marks = self.detector.network(image[found]).sigmoid() > self.detector.threshold
            mask = mask.masked_scatter(found[:, None, None, None], marks.to(mask.dtype))
        made = training.networks["restorer"](image, mask)
        loss = figure = l1(made, target) if self.config.loss == "l1" else charbonnier(made, target)
        figures = {"pixel": figure.detach()}
        if self.config.content:
            self.features.to(made.device)
            with training.fabric.autocast():
                content = content_loss(self.features, made, target, self.config.content)
            loss, figures["content"] = loss + content, content.detach()
        training.descend("restorer", loss)
        return figures

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB of scans and of what is made of them; what is done to clean photographs.

        Masks are the true ones; with ``_found``, what the detector marks.
        """
        found: dict[str, float] = {}
        for kind, scans in self.held.items():
            made = [restore(network, scan) for scan in scans]
            targets = [eight_bit(scan.faded) for scan in scans]
            if kind == "clean":
                pairs = list(zip(made, targets, strict=True))
                found["clean_ssim"] = float(np.mean([ssim(a, b, RGB) for a, b in pairs]))
                found["clean_shift"] = float(np.mean([_shift(a, b) for a, b in pairs]))
                continue
            columns = {"": made, "_input": [eight_bit(scan.image) for scan in scans]}
            if self.detector:
                columns["_found"] = [restore(network, scan, _marks(self.detector, scan)) for scan in scans]
            for end, images in columns.items():
                values = [psnr(a, b, RGB) for a, b in zip(images, targets, strict=True)]
                found[f"{kind}{end}"] = float(np.mean(values))
        return found

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` on this recipe's held-out photographs, with the true masks."""
        scans = {kind: old_scans.held_out_scans(self.config, kind, *ALL) for kind in old_scans.KINDS}
        return evaluate(network, scans, load_features())

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of scan, ours, original: unstructured, lines, areas."""
        chosen = [scan for kind in KINDS[:3] for scan in self.held[kind][:4]]
        made = [restore(network, scan) / np.float32(LEVELS) for scan in chosen]
        return old_scans.sheet([[scan.image for scan in chosen], made, [scan.faded for scan in chosen]], QUICK[1])


@torch.no_grad()
def restore(network: nn.Module, scan: Worn, mask: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Run a restorer on one scan with its true mask or another, on the network's device: 8 bits, (H, W, 3)."""
    device = next(network.parameters()).device
    mask = scan.damage if mask is None else mask
    return eight_bit(network(stacked([scan.image]).to(device), stacked([mask]).to(device))[0])


def _marks(detector: Detector, scan: Worn) -> NDArray[np.float32]:
    """What a detector marks on a scan: (H, W), 0 or 1."""
    return (probabilities(detector.network, scan.image) > detector.threshold).astype(np.float32)


def evaluate(network: nn.Module, scans: dict[str, list[Worn]], features: Any, seed: int = 0) -> dict[str, Any]:
    """Fidelity and perception of scans and of what is made of them, each kind by itself.

    Parameters
    ----------
    network : nn.Module
        From (image, mask) to the image.
    scans : dict of str to list of Worn
        Of each kind.
    features : callable
        Our own features, which the perceptual distance is measured in.
    seed : int
        Of the bootstrap over images.

    Returns
    -------
    dict
        ``rows[kind][method][unit]`` = mean, low, high (95 %), methods ``scan``, ``ours`` and ``gain``, units ``psnr``
        (dB; of clean scans, which are equal to their targets, ours alone), ``ssim``, ``perceptual`` and ``shift`` (of
        the mean colour, in levels); ``images``, ``protocol``, ``seed``.
    """
    rows: dict[str, Any] = {}
    for kind, found in scans.items():
        targets = [eight_bit(scan.faded) for scan in found]
        methods = {"scan": [eight_bit(scan.image) for scan in found], "ours": [restore(network, one) for one in found]}
        figures = {method: _figures(images, targets, features) for method, images in methods.items()}
        if kind == "clean":
            del figures["scan"]["psnr"]
        units = [unit for unit in figures["scan"] if unit != "shift"]
        figures["gain"] = {unit: figures["ours"][unit] - figures["scan"][unit] for unit in units}
        rows[kind] = {
            method: {unit: interval(values, seed) for unit, values in units.items()}
            for method, units in figures.items()
        }
    return {
        "images": len(next(iter(scans.values()))),
        "protocol": f"{RGB}; {perceptual.PROTOCOL}; true masks",
        "seed": seed,
        "rows": rows,
    }


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"{scores['images']} held-out photographs of a kind; {scores['protocol']}"]
    lines.append(f"{'kind':12} {'method':6} {'PSNR dB':>22} {'SSIM':>7} {'perceptual':>10} {'shift':>6}")
    for kind, methods in scores["rows"].items():
        for method, units in methods.items():
            value, low, high = units.get("psnr", [np.nan] * 3)
            dB = f"{value:.2f} ({low:.2f}..{high:.2f})"
            shift = f"{units['shift'][0]:6.2f}" if "shift" in units else ""
            lines.append(
                f"{kind:12} {method:6} {dB:>22} {units['ssim'][0]:7.4f} {units['perceptual'][0]:10.4f} {shift}"
            )
    return "\n".join(lines)


def _figures(
    images: list[NDArray[np.uint8]], targets: list[NDArray[np.uint8]], features: Any
) -> dict[str, NDArray[np.float64]]:
    pairs = list(zip(images, targets, strict=True))
    return {
        "psnr": np.array([psnr(a, b, RGB) for a, b in pairs]),
        "ssim": np.array([ssim(a, b, RGB) for a, b in pairs]),
        "perceptual": np.array([perceptual.perceptual_distance(a, b, features) for a, b in pairs]),
        "shift": np.array([_shift(a, b) for a, b in pairs]),
    }


def _shift(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    """Largest difference of the channels' means, in levels."""
    return float(np.abs(image.mean((0, 1)) - target.mean((0, 1))).max())
