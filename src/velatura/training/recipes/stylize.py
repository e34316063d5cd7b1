"""Train the style transfer of one pass: predictor and transformer together, on any photograph and any picture.

Ghiasi et al., "Exploring the structure of a real-time, arbitrary neural artistic stylization network", 2017 (arXiv
1705.06830), sections 2 and 3: content and style losses (equations 1 to 3), a random style for every photograph.

Differs from the paper: the losses look through our own features, in units of each pair (`velatura.losses.StyleLoss`);
total variation and an identity loss, for photographs whose style is a picture of themselves, are additions; styles are
few, so they are mirrored, turned and given other colours, and textures cut from photographs are styles, too.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura.losses import FLOOR, StyleLoss, l1, style_grams, total_variation
from velatura.nets.features import Features
from velatura.nets.style_features import STYLE_FEATURES, StyleFeatures
from velatura.nets.style_transfer import ConditionalNorm, StyleTransfer
from velatura.perceptual import load_features
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipe import TrainConfig
from velatura.training.recipes.upscale import interval

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["StylizeConfig", "TrainStylize", "held_out_pairs", "recoloured", "square"]

BASE = 128  # pixels of a side that `batch_size` is meant for: larger crops come fewer at a time
QUICK, ALL, SIDE = 16, 104, 256  # held-out pairs beside the training and for good, and their side
SMALLEST = 0.7  # of the side asked for: smaller originals are left out, enlarged ones are blurred
PATCH = (0.2, 0.6)  # of the side: what a texture is made of
EMOJI = "emoji64"
SHARES = ("total", "content", "style")  # of the unstyled photograph's total loss, but the last of its style loss


class StylizeConfig(TrainConfig):
    """Settings of `TrainStylize`."""

    contents: dict[str, float] = Field({}, description="sets of photographs, and the share that each gives")
    styles: dict[str, float] = Field({}, description="sets of styles, SET or SET/FOLDER, and the share that each gives")
    textures: float = Field(0.2, ge=0, le=1, description="share of the styles that are cut from a photograph and tiled")
    recolour: float = Field(0.4, ge=0, le=1, description="share of the styles that get other colours")
    same: float = Field(0.08, ge=0, le=1, description="share of the pairs whose style is the photograph itself")
    sides: tuple[int, ...] = Field((128, 192, 256), description="pixels of a crop's side; a batch has one of them")

    width: int = Field(96, ge=4, description="channels of the transformer")
    outer: int = Field(2, ge=0, description="residual blocks at stride 4")
    inner: int = Field(4, ge=0, description="residual blocks at stride 8")
    features: str = Field("velatura", description="what losses look through: velatura, a file, or vgg19:FILE")
    content_layers: dict[str, float] = Field({"stride4": 1.0}, description="layers of the content loss, and weights")
    style_layers: dict[str, float] = Field(
        {"stride1": 1.0, "stride2": 1.0, "stride4": 1.0}, description="layers of the style loss, and weights"
    )
    style_weight: float = Field(3.0, gt=0, description="of the unstyled style loss, in variances of the content")
    floor: float = Field(0.25, ge=0, description="share of a style's own Gram matrices that pairs may always differ in")
    smoothness: float = Field(0.1, ge=0, description="weight of the total variation, an addition")
    identity: float = Field(2.0, ge=0, description="weight of L1 where the style is the photograph, an addition")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the transformer's convolutions; 0 = Adam for all")


class TrainStylize:
    """The recipe of `velatura.nets.style_transfer.StyleTransfer`."""

    name = "style-fast"
    architecture = "StyleTransfer"

    def __init__(self, config: StylizeConfig) -> None:
        self.config = config
        self.arguments: dict[str, Any] = {"width": config.width, "outer": config.outer, "inner": config.inner}
        torch.manual_seed(config.seed)
        self.transfer = StyleTransfer(**self.arguments)
        if isinstance(self.features, StyleFeatures):
            self.transfer.predictor.see_through(self.features.features)
        # What it sees by was trained on more than style; only what it makes of that is learned here.
        self.transfer.predictor.stages.requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"transfer": self.transfer}

    @cached_property
    def features(self) -> Any:
        """What the losses look through."""
        found = load_features(self.config.features, STYLE_FEATURES).eval().requires_grad_(False)
        looked = StyleFeatures(found) if isinstance(found, Features) else found
        return looked.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def contents(self) -> dict[str, data.Images]:
        """Photographs to train on; read when the first batch is drawn."""
        return self._read(self.config.contents, "train")

    @cached_property
    def styles(self) -> dict[str, data.Images]:
        """Styles to train on."""
        return self._read(self.config.styles, "train")

    @cached_property
    def held(self) -> list[tuple[Tensor, Tensor, StyleLoss]]:
        """Held-out pairs and what they are measured by, always the same."""
        return [(*pair, self.loss(*pair, FLOOR)) for pair in held_out_pairs(self.config, QUICK, SIDE)]

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the transformer's inner convolutions, Adam for the rest, or Adam for all."""
        trained = [parameter for parameter in self.transfer.parameters() if parameter.requires_grad]
        if not self.config.matrix_rate:
            return {"transfer": Adam(trained, lr=self.config.learning_rate)}
        transformer = self.transfer.transformer
        norms = [layer for layer in transformer.modules() if isinstance(layer, ConditionalNorm)]
        plain = (self.transfer.predictor, transformer.enter, transformer.leave, *norms)
        return {"transfer": Muon(self.transfer, self.config.matrix_rate, self.config.learning_rate, plain)}

    def loss(self, content: Tensor, style: Tensor, floor: float) -> StyleLoss:
        """Content and style losses of pairs."""
        config = self.config
        grams = style_grams(self.features, style, config.style_layers)
        return StyleLoss(self.features, content, grams, config.content_layers, config.style_layers, floor)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Photographs, styles, and which of the pairs (1, else 0) show the same."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        side = int(rng.choice(self.config.sides))
        count = max(round(self.config.batch_size * (BASE / side) ** 2), 1)
        pairs = [self._pair(rng, side) for _ in range(count)]
        contents, styles, same = zip(*pairs, strict=True)
        return _tensor(contents), _tensor(styles), torch.tensor(same, dtype=torch.float32)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend content, style, smoothness and identity."""
        content, style, same = batch
        config = self.config
        made = training.networks["transfer"](content, style)
        self.features.to(made.device)
        with training.fabric.autocast():
            lost, lacking = self.loss(content, style, config.floor)(made)
        rough = total_variation(made)
        moved = (same * (made - content).abs().mean((1, 2, 3))).mean()
        loss = lost.mean() + config.style_weight * lacking.mean() + config.smoothness * rough + config.identity * moved
        training.descend("transfer", loss)
        figures = {"loss": loss, "content": lost.mean(), "style": lacking.mean(), "variation": rough, "moved": moved}
        return {name: figure.detach() for name, figure in figures.items()}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Shares of the unstyled photographs' losses that are left, and L1 of photographs in their mirror's style."""
        device = next(network.parameters()).device
        self.features.to(device)
        rows, moved = [], []
        for content, style, loss in self.held:
            image = content.to(device)
            rows.append(self._shares(loss, image, network(image, style.to(device))))
            moved.append(float(l1(network(image, image.flip(3)), image)))
        return dict(zip(SHARES, np.mean(rows, 0).tolist(), strict=True)) | {"moved": float(np.mean(moved))}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Measure many held-out pairs.

        Returns
        -------
        dict
            ``rows[name]`` = mean, low, high (95 %, bootstrap over pairs): ``total`` and ``content`` as shares of the
            unstyled photograph's total loss, ``style`` as that of its style loss; ``pairs``.
        """
        rows = []
        for content, style in held_out_pairs(self.config, ALL, SIDE):
            rows.append(self._shares(self.loss(content, style, FLOOR), content, network(content, style)))
        return {
            "pairs": len(rows),
            "rows": {name: interval(np.array(values), 0) for name, *values in zip(SHARES, *rows, strict=True)},
        }

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = [f"{scores['pairs']} held-out pairs of {SIDE} px, shares of the unstyled photograph's losses, 95 %"]
        lines += [f"{name:8} {mean:.3f} ({low:.3f}..{high:.3f})" for name, (mean, low, high) in scores["rows"].items()]
        return "\n".join(lines)

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Photographs across, styles down, at the left and on top what they are made from."""
        device = next(network.parameters()).device
        pairs = held_out_pairs(self.config, 5, SIDE)
        contents, styles = (torch.cat(images).to(device) for images in zip(*pairs, strict=True))
        rows = [torch.cat([torch.ones_like(styles[:1]), contents])]
        for style in styles:
            rows.append(torch.cat([style[None], network(contents, style.expand(len(contents), -1, -1, -1))]))
        cells = torch.stack(rows).clamp(0, 1).mul(255).round().byte().cpu()
        return np.vstack([np.hstack(list(row)) for row in cells.permute(0, 1, 3, 4, 2).numpy()])

    def _shares(self, loss: StyleLoss, content: Tensor, made: Tensor) -> tuple[float, float, float]:
        """Total, content and style losses of one pair; see `SHARES`."""
        lost, lacking = (float(value) for value in loss(made))
        before = float(loss(content)[1])
        start = self.config.style_weight * before
        return (lost + self.config.style_weight * lacking) / start, lost / start, lacking / before

    def _read(self, shares: dict[str, float], side: data.Side) -> dict[str, data.Images]:
        return _read(self.config, shares, side)

    def _pair(self, rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], bool]:
        """One photograph, one style, and whether it is the photograph."""
        content = _crop(_drawn(self.contents, self.config.contents, rng, side), rng, side)
        if rng.random() < self.config.same:
            return content, np.ascontiguousarray(content[:, ::-1]), True
        if rng.random() < self.config.textures:
            length = round(side * rng.uniform(*PATCH))
            patch = _crop(_drawn(self.contents, self.config.contents, rng, side), rng, length)
            around = side - length
            style = np.pad(patch, ((0, around), (0, around), (0, 0)), mode="symmetric")
        else:
            style = _crop(_drawn(self.styles, self.config.styles, rng, side), rng, side)
        if rng.random() < 0.5:
            style = np.rot90(style)
        return content, recoloured(style, rng) if rng.random() < self.config.recolour else style, False


def held_out_pairs(config: StylizeConfig, count: int, side: int) -> list[tuple[Tensor, Tensor]]:
    """Photographs and styles that nothing is trained on, (1, 3, side, side) each, spread evenly over both.

    Raises
    ------
    InputError
        A set is missing.
    """
    folder = data.data_folder(config.data)
    photographs = data.read_set(folder, "sr_t91_bsds400", "held-out", purpose="upscale")
    styles = data.read_set(folder, "styles", "held-out")
    pairs = []
    for number in range(count):
        # A step that shares no factor with the number of styles meets all of them, the last ones first: what is in
        # `styles/misc` is more unlike photographs than the many of one school before it.
        style = styles[(-1 - 7 * number) % len(styles)]
        photograph = photographs[(number * len(photographs)) // count]
        pairs.append((_tensor([square(photograph, side)]), _tensor([square(style, side)])))
    return pairs


def square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the middle out and bring it to a size, (side, side, 3)."""
    height, width = image.shape[:2]
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box))


def recoloured(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Give an image other colours: its channels exchanged, and each in two inverted."""
    channels = image[..., rng.permutation(3)]
    return np.where(rng.random(3) < 0.25, 255 - channels, channels).astype(np.uint8)


def _read(config: StylizeConfig, shares: dict[str, float], side: data.Side) -> dict[str, data.Images]:
    folder = data.data_folder(config.data)
    found = {}
    for name in shares:
        kind, _, under = name.partition("/")
        mode = "RGBA" if kind == EMOJI else "RGB"
        # What the features may not learn from, this may not either: both are measured on it.
        found[name] = data.read_set(
            folder, kind, side, under=f"{under}/" if under else "", mode=mode, purpose="upscale"
        )
    return found


def _drawn(
    images: dict[str, data.Images], shares: dict[str, float], rng: np.random.Generator, side: int
) -> NDArray[np.uint8]:
    """Draw an image that is large enough, or after some tries any."""
    chances = np.array([shares[name] for name in images], np.float64)
    sets = list(images.values())
    image = None
    for _ in range(20):
        found = sets[int(rng.choice(len(sets), p=chances / chances.sum()))]
        image = found[int(rng.integers(len(found)))]
        if min(image.shape[:2]) >= SMALLEST * side:
            break
    assert image is not None
    return image


def _crop(image: NDArray[np.uint8], rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Cut a square of a random size out, resize it, mirror it every other time, fill what is transparent."""
    largest = min(image.shape[:2])
    size = round(float(np.exp(rng.uniform(np.log(min(0.8 * side, 0.7 * largest)), np.log(largest)))))
    top, left = (int(rng.integers(length - size + 1)) for length in image.shape[:2])
    cut = Image.fromarray(image[top : top + size, left : left + size])
    if cut.mode == "RGBA":
        colour = tuple(int(value) for value in rng.integers(256, size=3))
        cut = Image.alpha_composite(Image.new("RGBA", cut.size, (*colour, 255)), cut).convert("RGB")
    result = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(result[:, ::-1]) if rng.random() < 0.5 else result


def _tensor(images: Any) -> Tensor:
    stacked = np.stack([np.ascontiguousarray(image) for image in images])
    return torch.from_numpy(stacked.transpose(0, 3, 1, 2).astype(np.float32) / 255)
