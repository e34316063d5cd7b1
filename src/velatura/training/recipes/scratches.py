"""Train the detector of scratches and other damage.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), section 4.1: a U-Net learns to mark damage on
synthetic scans, by the focal loss, then on some that were labelled by hand.

Differs from the paper: cross-entropy and Dice (Milletari et al. 2016, arXiv 1606.04797, equation 3), which needs no
weight for how rare damage is; families of damage drawn anew each time in place of a collection of textures; no
labels by hand; a family that is never trained on (`cracks`) is measured beside the others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.ndimage import black_tophat, white_tophat
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from velatura.nets.scratch_detector import ScratchDetector
from velatura.ops.damage import OLD, old_scan
from velatura.restoration import load_detector
from velatura.training.muon import Muon
from velatura.training.recipes import old_scans
from velatura.training.recipes.old_scans import Grounds, ScansConfig, Worn

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "ScratchesConfig",
    "TrainScratches",
    "average_precision",
    "best_threshold",
    "dice",
    "f1",
    "probabilities",
    "top_hat",
]

MEASURED = ("lines", "areas", "unseen", "clean")
QUICK, ALL = (12, 160), (91, 256)  # held-out photographs of a kind and their side: beside the training, and for good
HAT = 7  # pixels: the widest line that a top-hat finds
HARDEST = 10  # one patch of so many is hard
# Twigs, stems, window bars: half of the hard patches carry damage beside what only looks like it.
UNHARMED, HALF_HARMED = replace(OLD, damaged=0), replace(OLD, damaged=0.5)


class ScratchesConfig(ScansConfig):
    """Settings of `TrainScratches`."""

    widths: tuple[int, ...] = Field((16, 24, 48, 80), description="channels of each level")
    blocks: tuple[int, ...] = Field((1, 1, 1, 2), description="residual blocks of each level")
    dice: float = Field(1.0, ge=0, description="weight of the Dice loss beside cross-entropy")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")
    hard: float = Field(0, ge=0, le=1, description="share of patches where what `start` names saw what is none")
    tried: int = Field(3000, ge=HARDEST, description=f"patches that those are looked for in; one of {HARDEST} is kept")

    @model_validator(mode="after")
    def _needs_a_start(self) -> Self:
        if self.hard and not self.start:
            raise ValueError("hard patches are those that a trained detector mistakes: set start, too")
        return self


class TrainScratches:
    """The recipe of `velatura.nets.scratch_detector.ScratchDetector`."""

    name = "scratches"
    architecture = "ScratchDetector"

    def __init__(self, config: ScratchesConfig) -> None:
        self.config = config
        self.arguments = {"widths": list(config.widths), "blocks": list(config.blocks)}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"detector": ScratchDetector(config.widths, config.blocks)}

    @cached_property
    def grounds(self) -> Grounds:
        """Training images; read when the first batch is drawn."""
        return Grounds(self.config, "train")

    @cached_property
    def mistaken(self) -> list[NDArray[np.uint8]]:
        """Training patches where the detector that this one starts from marks most, of some that carry no damage."""
        assert self.config.start
        detector, rng = load_detector(self.config.start, torch.device("cpu")), np.random.default_rng(self.config.seed)
        drawn = [self.grounds.draw(rng) for _ in range(self.config.tried)]
        scans = (old_scan(patch.astype(np.float32) / np.float32(255), rng, UNHARMED) for patch in drawn)
        marked = [float((probabilities(detector.network, scan.image) > detector.threshold).mean()) for scan in scans]
        return [drawn[i] for i in np.argsort(marked)[-self.config.tried // HARDEST :]]

    @cached_property
    def held(self) -> dict[str, list[Worn]]:
        """Held-out scans of each kind, always the same."""
        return {kind: old_scans.held_out_scans(self.config, kind, *QUICK) for kind in MEASURED}

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the layers between the first and the last, or Adam for all."""
        detector = self.networks["detector"]
        assert isinstance(detector, ScratchDetector)
        if self.config.matrix_rate:
            plain = (detector.unet.enter, detector.unet.leave)
            return {"detector": Muon(detector, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"detector": Adam(detector.parameters(), lr=self.config.learning_rate)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Scans, their damage, and what counts: stains may be marked or not."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        scans = [self._scan(rng) for _ in range(self.config.batch_size)]
        planes = [scan.image for scan in scans], [scan.mask for scan in scans], [1 - scan.stained for scan in scans]
        return tuple(map(old_scans.stacked, planes))

    def _scan(self, rng: np.random.Generator) -> Worn:
        if not self.config.hard or rng.random() >= self.config.hard:
            return self.grounds.scan(rng)
        patch = self.mistaken[int(rng.integers(len(self.mistaken)))]
        turned = np.rot90(patch, int(rng.integers(4))).astype(np.float32) / np.float32(255)
        return old_scan(turned, rng, HALF_HARMED, old_scans.seen(self.config))

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend cross-entropy and Dice."""
        image, mask, counts = batch
        logits = training.networks["detector"](image)
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, counts)
        overlap = dice(logits, mask, counts)
        training.descend("detector", entropy + self.config.dice * overlap)
        return {"entropy": entropy.detach(), "dice": overlap.detach()}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """F1 at a half, average precision, on kinds that are trained on and one that is not; marks on clean images."""
        found = {kind: _pooled(network, scans) for kind, scans in self.held.items()}
        truth, made = (np.concatenate([found[kind][i] for kind in ("lines", "areas")]) for i in range(2))
        return {
            "f1": f1(truth, made, 0.5),
            "precision": average_precision(truth, made),
            "f1_unseen": f1(*found["unseen"], 0.5),
            "precision_unseen": average_precision(*found["unseen"]),
            "false_marks": float((found["clean"][1] > 0.5).mean()),
        }

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Pooled figures of ours and of a top-hat on more held-out scans, at thresholds found on training images.

        Returns
        -------
        dict
            ``rows[method][kind]`` = F1, average precision; for ``clean`` the share of marked pixels; ``thresholds`` of
            each method.
        """
        rng = np.random.default_rng(0)
        worn = self.config.model_copy(update={"clean": 0.0})
        train = [old_scans.wear_one(worn, self.grounds.draw(rng), rng) for _ in range(48)]
        held = {kind: old_scans.held_out_scans(self.config, kind, *ALL) for kind in MEASURED}
        rows, thresholds = {}, {}
        for method, of in (("ours", lambda scan: probabilities(network, scan.image)), ("top-hat", _hat_of)):
            threshold = best_threshold(*_joined(train, of))
            thresholds[method], rows[method] = threshold, {}
            for kind, scans in held.items():
                truth, made = _joined(scans, of)
                measured = [float((made > threshold).mean())]
                if kind != "clean":
                    measured = [f1(truth, made, threshold), average_precision(truth, made)]
                rows[method][kind] = measured
        return {"images": len(held["clean"]), "rows": rows, "thresholds": thresholds}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = [f"{scores['images']} held-out scans of a kind, exact pixels, pooled: F1 / average precision"]
        for method, kinds in scores["rows"].items():
            figures = "  ".join(f"{kind} {' / '.join(f'{value:.3f}' for value in v)}" for kind, v in kinds.items())
            lines.append(f"{method:8} at {scores['thresholds'][method]:.3f}: {figures}")
        return "\n".join(lines)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of scan, marks, truth: lines, areas, the unseen family."""
        chosen = [scan for kind in ("lines", "areas", "unseen") for scan in self.held[kind][:4]]
        marks = [probabilities(network, scan.image)[..., None].repeat(3, 2) for scan in chosen]
        truth = [scan.mask[..., None].repeat(3, 2) for scan in chosen]
        return old_scans.sheet([[scan.image for scan in chosen], marks, truth], QUICK[1])


def dice(logits: Tensor, mask: Tensor, counts: Tensor | float = 1.0) -> Tensor:
    """Give ``1 - 2 sum p m / (sum p^2 + sum m^2)``, pooled over the batch: Milletari et al. 2016, equation 3.

    Where `counts` is 0 the mask is 0, and what is found there does not matter.

    Examples
    --------
    >>> mask = torch.tensor([1.0, 0.0, 0.0])
    >>> round(float(dice(40 * mask - 20, mask)), 3), round(float(dice(20 - 40 * mask, mask)), 3)
    (0.0, 1.0)
    """
    p = logits.sigmoid() * counts
    return 1 - 2 * (p * mask).sum() / (p.square().sum() + mask.square().sum() + 1e-6)


@torch.no_grad()
def probabilities(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a detector on one image (H, W, 3), on the network's device: (H, W), 0..1."""
    device = next(network.parameters()).device
    return network(old_scans.stacked([image]).to(device))[0, 0].float().sigmoid().cpu().numpy()


def f1(truth: NDArray, made: NDArray, threshold: float) -> float:
    """Harmonic mean of precision and recall of what lies above a threshold.

    Examples
    --------
    >>> f1(np.array([1, 1, 0, 0]), np.array([0.9, 0.2, 0.8, 0.1]), 0.5)
    0.5
    """
    marked, damaged = made > threshold, truth > 0.5
    both = int((marked & damaged).sum())
    return 2 * both / max(int(marked.sum()) + int(damaged.sum()), 1)


def average_precision(truth: NDArray, made: NDArray) -> float:
    """Mean over the damaged pixels of the precision at their score: the area under precision and recall.

    Examples
    --------
    >>> round(average_precision(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])), 4)
    0.8333
    """
    order = np.argsort(-made, kind="stable")
    damaged = truth[order] > 0.5
    hits = np.cumsum(damaged)
    return float((hits / np.arange(1, len(hits) + 1))[damaged].mean()) if hits[-1] else 0.0


def best_threshold(truth: NDArray, made: NDArray) -> float:
    """Give the threshold of the best F1, of a hundred quantiles of the scores of damaged pixels."""
    candidates = np.quantile(made[truth > 0.5], np.linspace(0.01, 0.99, 99))
    return float(candidates[int(np.argmax([f1(truth, made, value) for value in candidates]))])


def top_hat(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score pixels (H, W) of an image (H, W, 3) by how far they stand out in luma as lines and specks do."""
    plane = image @ np.array([0.299, 0.587, 0.114], np.float32)
    hats = (np.asarray(hat(plane, (HAT, HAT)), np.float32) for hat in (white_tophat, black_tophat))
    return np.maximum(*hats)


def _hat_of(scan: Worn) -> NDArray[np.float32]:
    return top_hat(scan.image)


def _pooled(network: nn.Module, scans: list[Worn]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _joined(scans, lambda scan: probabilities(network, scan.image))


def _joined(scans: list[Worn], score: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Truth and scores of all pixels of all scans but stained ones."""
    counts = [scan.stained == 0 for scan in scans]
    truth = np.concatenate([scan.mask[kept] for scan, kept in zip(scans, counts, strict=True)])
    return truth, np.concatenate([score(scan)[kept] for scan, kept in zip(scans, counts, strict=True)])
