"""Train the face refiner: what the direct restorer leaves of a face in, the face out.

Wan et al., "Old Photo Restoration via Deep Latent Space Translation", 2022 (arXiv 2009.07047), section 3.3.

Aligned faces are worn as old scans are, at the sizes that faces have on photographs, restored by the direct restorer
where one is given (``--set restorer=FILE``), and brought to the size of the network. The target is the face with its
fading and nothing else, as the restorer's is. Some are far out of focus (`soft`): that is what no restorer of whole
photographs can undo, and what knowing that it is a face is good for.

Differs from the paper: no critic. A critic would reward a face that is sharp over one that is the person's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura import catalog
from velatura.losses import charbonnier, content_loss, l1
from velatura.metrics.fidelity import RGB, psnr, ssim
from velatura.nets.face_refiner import FaceRefiner
from velatura.nets.restoration import Restorer
from velatura.ops.damage import Wear, Worn, old_scan
from velatura.ops.degrade import fade, grey
from velatura.ops.resize import resize
from velatura.perceptual import load_features
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipes import old_scans
from velatura.training.recipes.old_scans import (
    CLEAN,
    HELD_OUT_SEED,
    LINES,
    NOISY,
    OLD,
    PURPOSE,
    ScansConfig,
    careless,
    eight_bit,
    seen,
    stacked,
)
from velatura.training.recipes.upscale import interval

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "BOX",
    "FaceRefinerConfig",
    "Pair",
    "TrainFaceRefiner",
    "box_of",
    "evaluate",
    "held_out_faces",
    "refine",
    "soft",
    "table",
]

# Share of the faces, set, folder in the set. The grey ones are scans of old photographs: real, but not clear.
SETS = ((0.45, "faces128", "color/"), (0.2, "faces128", "gray/"), (0.35, "faces256", "color/"))
MEASURED = (("faces256", "color/"), ("faces128", "color/"))
KINDS = ("unstructured", "lines", "soft", "clean")
# Of the crop's side: deviation of the blur of faces that are far out of focus; 1.5 to 4 pixels of 128.
FOCUS = (0.012, 0.03)
QUICK, ALL = 24, 120  # held-out faces of a kind: beside the training, and for good
LARGEST = 192  # pixels: larger faces lose nothing that the network could give back
# Left, top, right, bottom of the face in an aligned crop, as shares of its side: medians of the teacher's boxes on the
# faces of faces128 that it is sure of.
BOX = (0.17, 0.08, 0.83, 0.975)


class Pair(NamedTuple):
    """A face as the refiner finds it, and as it is to be: float32, (side, side, 3), 0..1."""

    face: NDArray[np.float32]
    target: NDArray[np.float32]


class FaceRefinerConfig(ScansConfig):
    """Settings of `TrainFaceRefiner`; `patch` is the side of the crops."""

    photographs: str | None = Field(None, description="folder of aligned faces instead of our sets")
    restorer: str | None = Field(None, description="direct restorer that comes first: a model's name or a file")
    smallest: int = Field(64, ge=16, description="side of the smallest crops on photographs, in pixels")
    soft: float = Field(0.5, ge=0, le=1, description="share of the worn faces that are far out of focus")
    widths: tuple[int, ...] = Field((24, 48, 80, 112, 128), description="channels of each level")
    blocks: tuple[int, ...] = Field((1, 1, 1, 1, 1), description="modulated blocks of each level")
    loss: Literal["l1", "charbonnier"] = Field("charbonnier", description="of pixels")
    features: str = Field("velatura", description="what content is compared in: velatura, a file, or vgg19:FILE")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")


class TrainFaceRefiner:
    """The recipe of `velatura.nets.face_refiner.FaceRefiner`."""

    name = "face-refiner"
    architecture = "FaceRefiner"

    def __init__(self, config: FaceRefinerConfig) -> None:
        self.config = config
        self.arguments = {"side": config.patch, "widths": list(config.widths), "blocks": list(config.blocks)}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"refiner": FaceRefiner(config.patch, config.widths, config.blocks)}

    @cached_property
    def restorer(self) -> nn.Module | None:
        """What comes first, on the CPU, where batches are drawn."""
        if self.config.restorer is None:
            return None
        return catalog.load(self.config.restorer, {"Restorer": Restorer}).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def faces(self) -> list[tuple[float, data.Images]]:
        """Training faces; read when the first batch is drawn."""
        return _read(self.config, "train")

    @cached_property
    def held(self) -> dict[str, list[Pair]]:
        """Held-out faces of each kind, always the same."""
        return {kind: held_out_faces(self.config, kind, QUICK, self.restorer) for kind in KINDS}

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        found = load_features(self.config.features).eval().requires_grad_(False)
        return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the layers between the first and the last, or Adam for all."""
        refiner = self.networks["refiner"]
        assert isinstance(refiner, FaceRefiner)
        if self.config.matrix_rate:
            # The learned map is no matrix.
            plain = (refiner.enter, refiner.leave, nn.ParameterList([refiner.layout]))
            return {"refiner": Muon(refiner, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"refiner": Adam(refiner.parameters(), lr=self.config.learning_rate)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Faces as they are found, and as they are to be."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        pairs = [self._draw(rng) for _ in range(self.config.batch_size)]
        return stacked([pair.face for pair in pairs]), stacked([pair.target for pair in pairs])

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the error of pixels and of content."""
        face, target = batch
        made = training.networks["refiner"](face)
        loss = figure = l1(made, target) if self.config.loss == "l1" else charbonnier(made, target)
        figures = {"pixel": figure.detach()}
        if self.config.content:
            self.features.to(made.device)
            with training.fabric.autocast():
                content = content_loss(self.features, made, target, self.config.content)
            loss, figures["content"] = loss + content, content.detach()
        training.descend("refiner", loss)
        return figures

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB inside the face's box, of what the refiner is given and of what it makes of it."""
        found: dict[str, float] = {}
        for kind, pairs in self.held.items():
            figures = _figures(network, pairs)
            if kind == "clean":
                found["clean_ssim"] = float(figures["ours"]["ssim"].mean())
                continue
            found |= {
                kind: float(figures["ours"]["psnr"].mean()),
                f"{kind}_input": float(figures["given"]["psnr"].mean()),
            }
        return found

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` on this recipe's held-out faces."""
        pairs = {kind: held_out_faces(self.config, kind, ALL, self.restorer) for kind in KINDS}
        return evaluate(network, pairs)

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of given, ours, target: unstructured, lines, soft."""
        chosen = [pair for kind in KINDS[:3] for pair in self.held[kind][:6]]
        columns = [[pair.face for pair in chosen], [refine(network, pair.face) for pair in chosen]]
        return old_scans.sheet([*columns, [pair.target for pair in chosen]], self.config.patch)

    def _draw(self, rng: np.random.Generator) -> Pair:
        shares = np.array([share for share, _ in self.faces])
        images = self.faces[int(rng.choice(len(shares), p=shares / shares.sum()))][1]
        face = images[int(rng.integers(len(images)))]
        face = face[:, ::-1] if rng.random() < 0.5 else face
        size = _size(self.config, face, rng)
        wear = soft(size, OLD) if rng.random() < self.config.soft else OLD
        wear = CLEAN if rng.random() < self.config.clean else wear
        return _pair(self.config, face, size, wear, seen(self.config), self.restorer, rng)


def soft(side: int, wear: Wear = NOISY) -> Wear:
    """Say how a face whose crop has this side is worn, so that it is far out of focus besides."""
    return replace(wear, lens=1, sigma=(FOCUS[0] * side, FOCUS[1] * side))


def held_out_faces(config: FaceRefinerConfig, kind: str, count: int, restorer: nn.Module | None) -> list[Pair]:
    """Give held-out faces, spread evenly over the names, worn in one way that stays the same.

    Parameters
    ----------
    config : FaceRefinerConfig
        Where the faces are, and their sizes.
    kind : str
        Of `velatura.training.recipes.old_scans.KINDS`, or ``soft``.
    count : int
        How many at most.
    restorer : nn.Module or None
        From (image, mask) to the image; restores the scans first, with their true masks.
    """
    faces = [images[i] for _, images in _read(config, "held-out") for i in range(len(images))]
    order = [*old_scans.KINDS, "soft"].index(kind)
    pairs = []
    for index in np.unique(np.linspace(0, len(faces) - 1, min(count, len(faces))).round().astype(int)):
        rng = np.random.default_rng((HELD_OUT_SEED, order, int(index)))
        size = _size(config, faces[index], rng)
        wear, families = (soft(size), LINES) if kind == "soft" else old_scans.KINDS[kind]
        pairs.append(_pair(config, faces[index], size, wear, families, restorer, rng, exact=True))
    return pairs


@torch.no_grad()
def refine(network: nn.Module, face: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a refiner on one face (side, side, 3), on the network's device."""
    device = next(network.parameters()).device
    return network(stacked([face]).to(device))[0].permute(1, 2, 0).float().cpu().numpy()


def box_of(image: NDArray) -> NDArray:
    """Cut what lies in the face's `BOX` out of an aligned crop (side, side, C)."""
    left, top, right, bottom = (round(share * image.shape[0]) for share in BOX)
    return image[top:bottom, left:right]


def evaluate(network: nn.Module, pairs: dict[str, list[Pair]], seed: int = 0) -> dict[str, Any]:
    """Fidelity inside the face's box, of what the refiner is given and of what it makes of it.

    Returns
    -------
    dict
        ``rows[kind][method][unit]`` = mean, low, high (95 %), methods ``given``, ``ours`` and ``gain``, units ``psnr``
        (dB) and ``ssim``; ``faces``, ``seed``.
    """
    rows: dict[str, Any] = {}
    for kind, found in pairs.items():
        figures = _figures(network, found)
        with np.errstate(invalid="ignore"):  # faces that are their targets have no PSNR
            figures["gain"] = {unit: figures["ours"][unit] - figures["given"][unit] for unit in figures["ours"]}
        rows[kind] = {
            method: {unit: interval(values, seed) for unit, values in units.items() if np.isfinite(values).all()}
            for method, units in figures.items()
        }
    return {"faces": len(next(iter(pairs.values()))), "seed": seed, "rows": rows}


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"{scores['faces']} held-out faces of a kind, inside the face's box; {RGB}"]
    for kind, methods in scores["rows"].items():
        for method, units in methods.items():
            words = (f"{unit} {value:.4g} ({low:.4g}..{high:.4g})" for unit, (value, low, high) in units.items())
            lines.append(f"{kind:12} {method:6} {'  '.join(words)}")
    return "\n".join(lines)


def _read(config: FaceRefinerConfig, side: Literal["train", "held-out"]) -> list[tuple[float, data.Images]]:
    if config.photographs:
        return [(1.0, old_scans.side_of(data.read_folder(Path(config.photographs)), side))]
    folder = data.data_folder(config.data)
    sets = SETS if side == "train" else tuple((1.0, name, under) for name, under in MEASURED)
    return [(share, data.read_set(folder, name, side, under=under, purpose=PURPOSE)) for share, name, under in sets]


def _size(config: FaceRefinerConfig, face: NDArray[np.uint8], rng: np.random.Generator) -> int:
    """Draw how large a face is on its photograph: half of them are as large as the refiner's crops."""
    size = config.patch if rng.random() < 0.5 else int(rng.integers(config.smallest, LARGEST + 1))
    return min(size, len(face))


def _pair(
    config: FaceRefinerConfig,
    face: NDArray[np.uint8],
    size: int,
    wear: Wear,
    families: tuple[str, ...],
    restorer: nn.Module | None,
    rng: np.random.Generator,
    *,
    exact: bool = False,
) -> Pair:
    """Wear a face at the size that it has on a photograph, restore it, and bring it to the refiner's size."""
    unit = face.astype(np.float32) / np.float32(255)
    small = _sized(unit, size)
    worn = old_scan(small, rng, wear, families)
    clear = _sized(unit, config.patch)
    clear = grey(clear) if np.array_equal(worn.original, grey(small)) else clear
    mask = worn.damage if exact else careless(worn, rng)
    found = worn.image if restorer is None else _restored(restorer, worn, mask)
    return Pair(_sized(found, config.patch), fade(clear, worn.fading))


@torch.no_grad()
def _restored(restorer: nn.Module, worn: Worn, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    # In bfloat16 where the processor has it, as on a photograph.
    with torch.autocast("cpu", torch.bfloat16):
        made = restorer(stacked([worn.image]), stacked([mask]))
    return eight_bit(made[0]).astype(np.float32) / np.float32(255)


def _sized(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if image.shape[:2] == (side, side):
        return image
    return resize(image, side, side, "bicubic").clip(0, 1)


def _figures(network: nn.Module, pairs: list[Pair]) -> dict[str, dict[str, NDArray[np.float64]]]:
    targets = [box_of(eight_bit(pair.target)) for pair in pairs]
    methods = {"given": [pair.face for pair in pairs], "ours": [refine(network, pair.face) for pair in pairs]}
    return {
        method: {
            unit: np.array([measure(box_of(eight_bit(a)), b, RGB) for a, b in zip(images, targets, strict=True)])
            for unit, measure in (("psnr", psnr), ("ssim", ssim))
        }
        for method, images in methods.items()
    }
