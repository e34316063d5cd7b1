"""Train the Blending GAN on one image in two lights.

GP-GAN (Wu et al. 2017, arXiv 1703.07195) trains on two photographs of one scene: the centre square of one is
pasted into the other, and the network is to give that other photograph back, ``L = 0.999 L2 + 0.001 L_adv``. Its
photographs (Transient Attributes, 101 webcams) are the user's to bring: `blend_paper.toml`, with ``scenes`` naming a
folder that has one folder per scene. Without them, the two photographs are one photograph in two random lights; in a
quarter of the pairs the source is another photograph altogether, as it mostly is when people blend: there the network
learns to take over the light that both should share, and to trust the seam less.

Differs from the paper: relit and foreign pairs; masks of all shapes, not the centre square alone; the critic is
trained as often as the generator and begins late (`critic_from`), because a weight of 0.001 only matters near the end;
Adam for both; L2 is averaged over the source's pixels (elsewhere the error is zero by construction), and its logarithm
is taken, so that a tenth less error counts the same in a pair that is nearly right and in one that nothing can save.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura.errors import InputError
from velatura.metrics.report import bootstrap
from velatura.nets.blending_gan import SIZE, BlendingGAN, Critic
from velatura.ops import masks
from velatura.ops.relight import random_light, relight
from velatura.training import data
from velatura.training.recipe import TrainConfig

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["Blend", "BlendConfig", "Pairs", "evaluate", "poisson"]

# Share of the training pairs, set, folder in the set.
SETS = (
    (0.5, "scenes96", ""),
    (0.15, "faces128", "color/"),
    (0.15, "sr_t91_bsds400", ""),
    (0.2, "sr_hr_patches", ""),
)
LARGEST_CROP = 192  # pixels: larger images are shrunk on reading, a crop is at most three times the network's size


class BlendConfig(TrainConfig):
    """Settings of the recipe."""

    width: int = Field(32, ge=4, description="channels of the generator at 32x32")
    bottleneck: int = Field(128, ge=1, description="channels of the generator at 1x1")
    see_mask: bool = True
    residual: bool = True
    skips: bool = True
    prior: bool = True
    critic_width: int = Field(24, ge=4)

    adversarial: float = Field(0.001, ge=0, le=1, description="weight of L_adv, 1 minus that of L2 (equation 2)")
    l2: Literal["log", "norm", "squared"] = Field(
        "log", description="of a pair's squared error: its logarithm, root, or itself as in the paper"
    )
    critic_from: int = Field(0, ge=0, description="step from which on the critic takes part")
    critic_steps: int = Field(1, ge=1, description="critic updates per step; WGAN: 5")
    wasserstein: Literal["clipping", "penalty"] = Field("clipping", description="how the critic is held Lipschitz")
    weight_limit: float = Field(0.01, gt=0, description="weights are clipped to +-this, WGAN algorithm 1")
    penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty, WGAN-GP")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's first decay")

    scenes: str | None = Field(None, description="folder with a folder of aligned photographs per scene")
    strength: float = Field(1.0, ge=0, le=1.5, description="strength of the relighting")
    identity_share: float = Field(0.1, ge=0, le=1, description="pairs in which nothing changes")
    moved_share: float = Field(0.1, ge=0, le=1, description="pairs whose source is another crop of the image")
    foreign_share: float = Field(0.25, ge=0, le=1, description="pairs whose source is another photograph")
    centre_share: float = Field(0.2, ge=0, le=1, description="centre squares; 1 = the paper's masks only")
    soft_share: float = Field(0.2, ge=0, le=1, description="masks with soft edges")
    held_out_pairs: int = Field(240, ge=1, description="pairs measured while training")


class Pairs:
    """Draws pairs: composite, mask, target, and the source as a whole.

    Parameters
    ----------
    config : BlendConfig
        Shares, strengths, data folder.
    side : {"train", "held-out"}
        Which images.
    """

    def __init__(self, config: BlendConfig, side: Literal["train", "held-out"]) -> None:
        self.config = config
        self.scenes: list[data.Images] = []
        self.sets: list[data.Images] = []
        if config.scenes:
            self.scenes = _read_scenes(Path(config.scenes), side)
        else:
            folder = data.data_folder(config.data)
            self.sets = [
                data.read_set(folder, name, side, under=under, shortest=LARGEST_CROP) for _, name, under in SETS
            ]

    def draw(
        self, rng: np.random.Generator, n: int, *, plain: bool = False, foreign: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw `n` pairs.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where all randomness comes from.
        n : int
            How many.
        plain : bool
            For measuring: hard masks, half of them centre squares, every pair aligned and changed.
        foreign : bool
            With ``plain``: every source is another photograph, so that nothing continues across the seam.

        Returns
        -------
        composite, mask, target, source : Tensor of float32, (n, 3 or 1, 64, 64)
            0..1. `target` is the destination, with what the network should give inside the mask; `source` is the
            whole image whose masked part the composite shows.
        """
        config = self.config
        if plain:
            config = config.model_copy(
                update={
                    "identity_share": 0,
                    "moved_share": 0,
                    "foreign_share": float(foreign),
                    "centre_share": 0.5,
                    "soft_share": 0,
                }
            )
        mask = torch.from_numpy(
            np.stack(
                [
                    masks.random_mask(SIZE, SIZE, rng, centre_share=config.centre_share, soft_share=config.soft_share)
                    for _ in range(n)
                ]
            )[:, None]
        )
        if self.scenes:
            source, target = self._photographs(rng, n)
            destination = target
        else:
            images, others = self._crops(rng, n, config)
            light, other_light = (
                random_light(n, SIZE, SIZE, rng, strength=config.strength).map(torch.from_numpy) for _ in range(2)
            )
            destination, wanted = relight(images, light), relight(others, light)
            source = relight(others, other_light)
            same = torch.from_numpy(rng.random(n) < config.identity_share)
            source[same] = wanted[same]
            target = wanted * mask + destination * (1 - mask)
        return source * mask + destination * (1 - mask), mask, target, source

    def _crops(self, rng: np.random.Generator, n: int, config: BlendConfig) -> tuple[Tensor, Tensor]:
        """A crop each for destination and source: the same one, another of the same image, or of another image."""
        crops = np.empty((2, n, SIZE, SIZE, 3), np.uint8)
        for i in range(n):
            image = self._image(rng)
            crops[0, i] = _crop(image, rng)
            kind = rng.random()
            if kind < config.foreign_share:
                crops[1, i] = _crop(self._image(rng), rng)
            elif kind < config.foreign_share + config.moved_share:
                crops[1, i] = _crop(image, rng)
            else:
                crops[1, i] = crops[0, i]
        tensor = torch.from_numpy(crops).permute(0, 1, 4, 2, 3).float() / 255
        return tensor[0], tensor[1]

    def _image(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        shares = np.array([share for share, _, _ in SETS])
        images = self.sets[rng.choice(len(shares), p=shares / shares.sum())]
        return images[int(rng.integers(len(images)))]

    def _photographs(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Two photographs of one scene, cropped alike."""
        crops = np.empty((2, n, SIZE, SIZE, 3), np.uint8)
        for i in range(n):
            scene = self.scenes[rng.integers(len(self.scenes))]
            chosen = rng.choice(len(scene), 2, replace=False)
            seed = int(rng.integers(2**31))
            for side in range(2):
                crops[side, i] = _crop(scene[int(chosen[side])], np.random.default_rng(seed))
        tensor = torch.from_numpy(crops).permute(0, 1, 4, 2, 3).float() / 255
        return tensor[0], tensor[1]


class Blend:
    """The recipe, as the loop wants it."""

    name = "blend"
    architecture = "BlendingGAN"

    def __init__(self, config: BlendConfig) -> None:
        self.config = config
        self.arguments = {
            name: getattr(config, name) for name in ("width", "bottleneck", "see_mask", "residual", "skips", "prior")
        }
        torch.manual_seed(config.seed)
        self.networks = {"generator": BlendingGAN(**self.arguments), "critic": Critic(config.critic_width)}

    @cached_property
    def pairs(self) -> Pairs:
        """Training pairs; the images are read when the first batch is drawn."""
        return Pairs(self.config, "train")

    @cached_property
    def held(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The held-out pairs that are measured while training."""
        return Pairs(self.config, "held-out").draw(np.random.default_rng(2017), self.config.held_out_pairs, plain=True)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for both."""
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        return {name: Adam(net.parameters(), lr=rate, betas=betas) for name, net in self.networks.items()}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Composite, mask, target."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        return self.pairs.draw(rng, self.config.batch_size)[:3]

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """The critic learns to tell targets from outputs; then the generator follows target and critic."""
        config = self.config
        composite, mask, target = batch
        generator, critic = training.networks["generator"], training.networks["critic"]
        adversarial = config.adversarial > 0 and step >= config.critic_from
        distance = gain = torch.zeros((), device=composite.device)

        blended = generator(composite, mask)
        if adversarial:
            fake = blended.detach()
            for _ in range(config.critic_steps):
                distance = (critic(target) - critic(fake)).mean()  # Wasserstein's, as far as this critic sees it
                loss = -distance
                if config.wasserstein == "penalty":
                    loss = loss + config.penalty * gradient_penalty(critic, target, fake)
                training.descend("critic", loss)
                if config.wasserstein == "clipping":
                    with torch.no_grad():
                        for weight in self.networks["critic"].parameters():
                            weight.clamp_(-config.weight_limit, config.weight_limit)
            gain = critic(blended).mean()

        weight = mask if config.see_mask and config.residual else torch.ones_like(mask)
        # Per pair, so that a small source counts as much as a large one.
        squared = (weight * (blended - target) ** 2).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))
        match config.l2:
            case "log":
                l2 = 0.5 * (squared + 2e-5).log().mean()  # one grey level is near enough
            case "norm":
                l2 = (squared + 1e-6).sqrt().mean()
            case "squared":
                l2 = squared.mean()
        training.descend("generator", (1 - config.adversarial) * l2 - config.adversarial * gain)
        return {"l2": squared.detach().mean(), "rms": squared.detach().sqrt().mean(), "distance": distance.detach()}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Squared error as in training, and mean absolute error inside the mask in grey levels."""
        composite, mask, target, _ = self.held
        blended = _apply(network, composite, mask)
        squared = (mask * (blended - target) ** 2).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
        return {
            "l2": float(squared.mean()),
            "rms": float(squared.sqrt().mean()),
            "levels": float(_levels(blended, target, mask).mean()),
            "levels_paste": float(_levels(composite, target, mask).mean()),
        }

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` with this recipe's settings."""
        return evaluate(network, self.config)

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of composite, ours, target, Poisson; three pairs per row."""
        composite, mask, target, source = (tensor[:24] for tensor in self.held)
        ours = _apply(network, composite, mask)
        perez = torch.stack([poisson(*one) for one in zip(source, target, mask, strict=True)])
        pairs = torch.stack([composite, ours, target, perez], dim=1)  # (24, 4, 3, 64, 64)
        rows = pairs.reshape(-1, 12, 3, SIZE, SIZE).permute(0, 3, 1, 4, 2).reshape(-1, 12 * SIZE, 3)
        image = Image.fromarray((rows.clip(0, 1) * 255).round().byte().numpy())
        return np.asarray(image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Mean of ``(|slope| - 1)^2`` between real and fake images (Gulrajani et al. 2017, equation 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def poisson(source: Tensor, destination: Tensor, mask: Tensor) -> Tensor:
    """Perez, Gangnet, Blake 2003, equation 4, solved exactly: the baseline to beat.

    Parameters
    ----------
    source, destination : Tensor, (3, H, W)
        The source is known beyond the mask, so its gradients across the boundary are too.
    mask : Tensor, (1, H, W)
        Inside where it is over one half.

    Returns
    -------
    Tensor of float32, (3, H, W)
        The destination, with the source's gradients inside; at the image's border nothing is prescribed.
    """
    inside = mask[0].numpy() > 0.5
    number = np.cumsum(inside).reshape(inside.shape) - 1
    ys, xs = np.nonzero(inside)
    difference = (destination - source).numpy()  # u - source is harmonic, and this on the boundary
    n = len(ys)
    diagonal, right = np.zeros(n), np.zeros((n, 3))
    rows, columns = [], []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = ys + dy, xs + dx
        exists = (y >= 0) & (y < inside.shape[0]) & (x >= 0) & (x < inside.shape[1])
        diagonal += exists
        y, x, here = y[exists], x[exists], np.nonzero(exists)[0]
        within = inside[y, x]
        rows.append(here[within])
        columns.append(number[y[within], x[within]])
        right[here[~within]] += difference[:, y[~within], x[~within]].T
    links = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.diags(diagonal) - sparse.coo_matrix((np.ones(len(links[0])), links), shape=(n, n))
    correction = spsolve(matrix.tocsc(), right)
    result = destination.clone()
    result[:, ys, xs] = source[:, ys, xs] + torch.from_numpy(correction.T.astype(np.float32))
    return result


@torch.no_grad()
def evaluate(network: nn.Module, config: BlendConfig, pairs: int = 400, seed: int = 64) -> dict[str, Any]:
    """Colour error inside the mask on held-out pairs: pasting, Poisson, ours.

    Parameters
    ----------
    network : nn.Module
        A `BlendingGAN`.
    config : BlendConfig
        Says where the data are and how the pairs are drawn.
    pairs : int
        How many; half of them centre squares, half irregular.
    seed : int
        Draws the pairs.

    Returns
    -------
    dict
        ``rows[mask kind][method][unit]`` = mean, low, high (95 %, bootstrap over pairs), units ``levels`` (mean
        absolute difference, 0..255) and ``ciede2000``; the kind ``other photo`` has sources from another photograph,
        where the target is that photograph in the destination's light; ``identity``: largest and mean change in
        levels where source and destination already agree; ``pairs`` and ``seed``.
    """
    held = Pairs(config, "held-out")
    composite, mask, target, source = held.draw(np.random.default_rng(seed), pairs, plain=True)
    square = torch.from_numpy(masks.centre_square(SIZE, SIZE))
    central = (mask == square).flatten(1).all(1).numpy()
    kinds = {"all": np.ones(pairs, bool), "centre square": central, "irregular": ~central}
    rows = _errors(network, (composite, mask, target, source), kinds, seed)
    if held.sets:
        # Two photographs have nothing in common but the light that they should be in.
        others = held.draw(np.random.default_rng(seed + 1), pairs, plain=True, foreign=True)
        rows |= _errors(network, others, {"other photo": np.ones(pairs, bool)}, seed)
    unchanged = _apply(network, target, mask)
    return {
        "pairs": pairs,
        "seed": seed,
        "rows": rows,
        "identity": {
            "mean": float(_levels(unchanged, target, mask).mean()),
            "max": float((unchanged - target).abs().max() * 255),
        },
    }


def _errors(
    network: nn.Module,
    pairs: tuple[Tensor, Tensor, Tensor, Tensor],
    kinds: dict[str, NDArray[np.bool_]],
    seed: int,
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Errors of every method on every kind of pair: ``[kind][method][unit]`` = mean, low, high."""
    composite, mask, target, source = pairs
    perez = torch.stack([poisson(*one) for one in zip(source, target, mask, strict=True)])
    methods = {"paste": composite, "poisson": perez, "ours": _apply(network, composite, mask)}
    rows: dict[str, dict[str, dict[str, list[float]]]] = {kind: {} for kind, chosen in kinds.items() if chosen.any()}
    for method, images in methods.items():
        images = images.clip(0, 1)
        errors = {"levels": _levels(images, target, mask), "ciede2000": _ciede2000(images, target, mask)}
        for kind, row in rows.items():
            row[method] = {unit: _interval(error[kinds[kind]], seed) for unit, error in errors.items()}
    return rows


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"{'mask':14} {'method':8} {'levels 0..255':>22} {'CIEDE2000':>22}"]
    for kind, methods in scores["rows"].items():
        for method, units in methods.items():
            figures = (f"{m:7.2f} ({low:.2f}..{high:.2f})" for m, low, high in units.values())
            lines.append(f"{kind:14} {method:8} " + " ".join(f"{figure:>22}" for figure in figures))
    change = scores["identity"]
    lines.append(f"nothing to change: mean {change['mean']:.2f}, largest {change['max']:.1f} levels")
    return "\n".join(lines)


def _apply(network: nn.Module, composite: Tensor, mask: Tensor) -> Tensor:
    """Run in parts of 64, on the network's device, back on the CPU."""
    device = next(network.parameters()).device
    return torch.cat(
        [
            network(c.to(device), m.to(device)).float().cpu()
            for c, m in zip(composite.split(64), mask.split(64), strict=True)
        ]
    )


def _levels(images: Tensor, target: Tensor, mask: Tensor) -> NDArray[np.float64]:
    """Mean absolute difference inside the mask per pair, in grey levels."""
    inside = mask > 0.5
    difference = (images - target).abs() * inside * 255
    return (difference.sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3)))).double().numpy()


def _ciede2000(images: Tensor, target: Tensor, mask: Tensor) -> NDArray[np.float64]:
    """Mean CIEDE2000 inside the mask per pair."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    a, b = (rgb2lab(x.permute(0, 2, 3, 1).double().numpy()) for x in (images, target))
    inside = (mask[:, 0] > 0.5).numpy()
    return (deltaE_ciede2000(a, b) * inside).sum((1, 2)) / inside.sum((1, 2))


def _interval(values: NDArray[np.float64], seed: int) -> list[float]:
    interval = bootstrap(values, seed=seed)
    return [interval.value, interval.low, interval.high]


def _crop(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of 2/3 of the shorter side or more, shrunk to 64x64, turned over in half the draws."""
    height, width = image.shape[:2]
    side = rng.uniform(2 / 3, 1) * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    small = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))
    return small[:, ::-1] if rng.random() < 0.5 else small


def _read_scenes(folder: Path, side: str) -> list[data.Images]:
    """Every folder in `folder` is a scene of aligned photographs; every tenth scene by name is held out."""
    if not folder.is_dir():
        raise InputError(f"scenes folder {folder} is not a folder")
    paths = sorted(p for p in folder.iterdir() if p.is_dir())
    chosen = [p for i, p in enumerate(paths) if (i % 10 == 9 or len(paths) == 1) == (side == "held-out")]
    chosen = chosen or paths  # fewer than ten scenes: measured on what it trains on, for want of better
    scenes = [data.read_folder(path, shortest=LARGEST_CROP) for path in chosen]
    scenes = [scene for scene in scenes if len(scene) > 1]
    if not scenes:
        raise InputError(f"scenes folder {folder} has no folder with two images or more")
    return scenes
