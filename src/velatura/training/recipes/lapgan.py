"""Train LAPGAN: a pyramid of generators, every level on the halved photographs of its own size.

Denton, Chintala, Szlam, Fergus 2015 (arXiv 1506.05751), section 3: of flowers and scenes, with their classes.

As in the paper, the levels share nothing but a step: the gradient of one never reaches another, as if each were trained
by itself, and one run, one checkpoint and one file hold the whole pyramid. Its start is a GAN, or a VAE
(``start_kind``): one pyramid that mixes kinds. A VAE may also be trained alone, for the ``levels`` of a pyramid that is
there: both pyramids then differ in their start and in nothing else.

Levels that never saw what the one before makes add their errors up. ``projected`` lets one more discriminator judge
whole samples through our features (Sauer et al. 2021, arXiv 2111.01007), and all levels follow it together. It sees one
sample at a time, and is slow to mind that all are alike: recall of scenes fell from .18 to .14 in 300 steps. ``energy``
lets two draws of a class pay for being nearer to one another than to a photograph. A start that forgot kinds of images
begins anew below the ``levels`` of a pyramid that is there.

Differs from the paper: the discriminators are held by a penalty on their slope at photographs (Mescheder et al. 2018,
arXiv 1801.04406, equation 9: R1) and see an image and its enlarged coarse one changed at random alike (Zhao et al.
2020, arXiv 2006.10738), because there are few photographs; a level may be told how far the mean of its draws is from
the photograph (``mean``), which discriminators teach slowly; the generators measured are a running average. A VAE of
the start pays for the logarithm of each image's mean squared error (Rybkin et al. 2021, arXiv 2006.13202).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from velatura import catalog
from velatura.errors import InputError
from velatura.losses import adversarial
from velatura.metrics.realism import NEIGHBOURS, kernel_distance, precision_recall, velatura_features
from velatura.metrics.report import bootstrap
from velatura.nets.lapgan import LAPGAN, STRONGER, LAPGANDiscriminator, enlarge, pyramid
from velatura.nets.masked_encoder import Posterior
from velatura.perceptual import load_features
from velatura.training import data
from velatura.training.critics import (
    AdversarialConfig,
    ProjectedCritic,
    adam,
    augment,
    beside,
    descend_critic,
    frozen,
    r1,
)
from velatura.training.pictures import contact_sheet, to_tensor
from velatura.training.recipes.inpaint import log_error

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["LAPGANConfig", "Labelled", "TrainLAPGAN"]

SETS = {"flowers": "flowers80", "scenes": "scenes96", "faces": "faces128"}
HELD_OUT_EVERY = 20  # of a user's photographs by name
MEASURED = 256  # images that are made, and held-out ones, to be compared as sets
COLUMNS = 12  # of a sheet
LARGEST = 2  # times the size: larger originals are shrunk when they are read
AT_LEAST = 32  # side in pixels that features take


class LAPGANConfig(AdversarialConfig):
    """Settings of `TrainLAPGAN`."""

    subject: Literal["flowers", "scenes", "faces"] = Field("flowers", description="our set")
    photographs: str | None = Field(None, description="folder of a folder for each class, instead of our set")
    classes: dict[str, str] = Field({}, description="folders of the set and what their class is called; {}: none")
    size: int = Field(64, ge=16, description="side in pixels of the largest images")
    start_size: int = Field(8, ge=4, description="of the smallest: size, halved some times")
    start_kind: Literal["gan", "vae"] = Field("gan", description="who learns the smallest images")
    levels: str | None = Field(
        None, description="pyramid whose levels are taken: a VAE start learns alone below them, a GAN start with them"
    )
    zoom: float = Field(0.1, ge=0, lt=1, description="share of the side that may be cut off, at random places")
    latent: int = Field(64, ge=1, description="how many numbers make the smallest image")
    basis: bool = Field(False, description="whether class means and principal components begin the smallest image")
    width: int = Field(24, ge=4, description="channels of a level at its full size")
    start_width: int = Field(48, ge=4, description="channels of the start")
    critic_width: int = Field(32, ge=4, description="channels of a discriminator at half of a level's size")
    critic_rate: float = Field(2e-4, gt=0, description="learning rate of the discriminators")
    share: float = Field(1.0, gt=0, le=1, description="of a size's batch: how much of it the next larger one has")
    still: int = Field(0, ge=0, description="how many of the largest sizes stand still, while smaller ones learn")
    mean: float = Field(0.0, ge=0, description="weight of how far the mean of all draws is from the photograph")
    jitter: float = Field(0.0, ge=0, le=1, description="largest noise in the coarse images that levels learn from")
    projected_batch: int = Field(32, ge=1, description="whole samples that the projected discriminator sees in a step")
    beta: float = Field(1.0, ge=0, description="of a VAE's divergence from the prior; 1 is the bound itself")

    @model_validator(mode="after")
    def _fit(self) -> LAPGANConfig:
        if self.projected and self.size < AT_LEAST:
            raise ValueError(
                f"projected={self.projected}: features take {AT_LEAST} pixels at least; got size {self.size}"
            )
        if self.still and (self.projected or self.spectral):
            raise ValueError(
                f"still={self.still}: what sees whole samples teaches all sizes; projected=0, energy=0 and spectral=0"
            )
        if self.levels and self.start:
            raise ValueError(f"levels={self.levels}: start={self.start} has levels of its own; name one of them")
        if self.levels and self.start_kind == "vae" and self.spectral:
            raise ValueError(f"spectral={self.spectral}: a VAE start alone learns by its bound; spectral=0")
        if self.start_size << self.still >= self.size:
            raise ValueError(f"still={self.still}: no level is left that learns, from {self.start_size} to {self.size}")
        return self


class Labelled:
    """One side of the split, with classes.

    Parameters
    ----------
    config : LAPGANConfig
        Whose ``classes`` are the folders taken; none: all photographs, as one class.
    side : {"train", "held-out"}

    Attributes
    ----------
    images : Images
    labels : ndarray of int64, (n,)
        Number of each image's class, in the order of the settings.

    Raises
    ------
    InputError
        The set or the folder is missing, or holds no photograph of these classes.
    """

    def __init__(self, config: LAPGANConfig, side: Literal["train", "held-out"]) -> None:
        self.config = config
        if config.photographs:
            self.images = data.read_folder(Path(config.photographs), shortest=LARGEST * config.size)
            places = [name.rpartition("/")[0] for name in self.images.names]
            late = np.arange(len(places)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            mine = late == (side == "held-out")
        else:
            folder = data.data_folder(config.data)
            self.images = data.read_set(folder, SETS[config.subject], side, shortest=LARGEST * config.size)
            places = [name.split("/", 1)[1].rpartition("/")[0] for name in self.images.names]
            mine = np.ones(len(places), bool)
        numbers = {place: number for number, place in enumerate(config.classes)}
        found = np.array([numbers.get(place, -1) if numbers else 0 for place in places])
        self.chosen = np.flatnonzero(mine & (found >= 0))
        self.labels = found[self.chosen]
        if not len(self.chosen):
            known = ", ".join(sorted(set(places))[:5])
            raise InputError(f"no {side} photographs in the folders of `classes`; the set has {known}...")

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Draw photographs, cut and mirrored at random, (n, 3, size, size), and their classes, (n,)."""
        chosen = rng.integers(len(self.chosen), size=n)
        drawn = [self._changed(self.images[int(self.chosen[i])], rng) for i in chosen]
        return to_tensor(np.stack(drawn)), torch.from_numpy(self.labels[chosen])

    def whole(self, count: int) -> tuple[Tensor, Tensor]:
        """Give `count` whole photographs at most, spread evenly over the names, and their classes."""
        places = np.linspace(0, len(self.chosen) - 1, min(count, len(self.chosen))).round().astype(int)
        size = self.config.size
        pictures = [_reduced(self.images[int(self.chosen[i])], size) for i in places]
        return to_tensor(np.stack(pictures)), torch.from_numpy(self.labels[places])

    def _changed(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        small = _reduced(image, self.config.size, 1 - rng.uniform(0, self.config.zoom), *rng.uniform(0, 1, 2))
        return small[:, ::-1] if rng.random() < 0.5 else small


class TrainLAPGAN:
    """The recipe of `velatura.nets.lapgan`."""

    architecture = "LAPGAN"

    def __init__(self, config: LAPGANConfig) -> None:
        self.config = config
        self.name = f"lapgan-{config.subject}"
        self.arguments: dict[str, Any] = {
            "latent": config.latent,
            "start": config.start_size,
            "size": config.size,
            "width": config.width,
            "start_width": config.start_width,
            "start_kind": config.start_kind,
            "classes": list(config.classes.values()),
            "basis": config.basis,
        }
        torch.manual_seed(config.seed)
        net = LAPGAN(**self.arguments)
        self.onlooker: ProjectedCritic | None = None
        self.networks: dict[str, nn.Module] = {"lapgan": net}
        if config.levels:
            net.levels.load_state_dict(_levels_of(config.levels, net))
        if self.alone:
            net.levels.requires_grad_(False)
            return
        self.networks["discriminator"] = LAPGANDiscriminator(
            start=config.start_size,
            size=config.size,
            width=config.critic_width,
            classes=len(config.classes),
            judges_start=config.start_kind == "gan",
        )
        if config.projected:
            self.onlooker = ProjectedCritic(self.features, len(config.classes))
            self.networks["projected"] = self.onlooker.network
        if config.still:
            net.levels[-config.still :].requires_grad_(False)
            self.networks["discriminator"].judges[-config.still :].requires_grad_(False)

    @property
    def alone(self) -> bool:
        """Whether a VAE's start learns below levels that stand still."""
        return bool(self.config.levels) and self.config.start_kind == "vae"

    @cached_property
    def pictures(self) -> Labelled:
        """What is trained on."""
        return Labelled(self.config, "train")

    @cached_property
    def held(self) -> tuple[Tensor, Tensor]:
        """Held-out photographs that samples are compared with, and their classes."""
        return Labelled(self.config, "held-out").whole(MEASURED)

    @cached_property
    def held_features(self) -> dict[int, Tensor]:
        """Features of held-out photographs, halved to each size."""
        return {each.shape[-1]: self._features_of(each, each.shape[-1]) for each in self._halved(self.held[0])}

    @cached_property
    def features(self) -> nn.Module:
        """What images are compared in."""
        return load_features(self.config.features).eval().requires_grad_(False)

    def begin(self) -> None:
        """Tell the network how often each class is seen; set the linear part of its start, if one is asked for."""
        net = self.networks["lapgan"]
        assert isinstance(net, LAPGAN)
        if net.classes:
            counts = np.bincount(self.pictures.labels, minlength=len(net.classes))
            net.shares.copy_(torch.from_numpy(counts / counts.sum()))
        if self.config.basis:
            images, label = self.pictures.whole(len(self.pictures.chosen))
            net.begin(pyramid(torch.cat([images, images.flip(-1)]), self.config.start_size)[0], label.repeat(2))

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for each network."""
        return adam(self.config, self.networks)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Photographs and classes, and latents for both networks' turns."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        image, label = self.pictures.draw(rng, self.config.batch_size)
        net = self.networks["lapgan"]
        assert isinstance(net, LAPGAN)
        drawn = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return image, label, net.draw(2 * self.config.batch_size, drawn)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """All discriminators learn to tell made detail from that of photographs; then the generators follow them."""
        config = self.config
        image, classes, z = batch
        label = classes if config.classes else None
        halved = pyramid(image, config.start_size)
        real = [each[: self._many(i, len(image))] for i, each in enumerate(halved[: len(halved) - config.still])]
        first, second = z.chunk(2)
        if self.alone:
            return self._start_alone(training, second, label, real[0])
        # Every level's photographs, and the coarse ones that it starts from.
        coarse = [self._jittered(each[: len(larger)]) for each, larger in pairwise(real)]
        net, critic = training.networks["lapgan"], training.networks["discriminator"]
        with torch.no_grad():
            made = net(first, label, coarse, real[0], len(coarse)).images
        parts = [
            adversarial(true, True, config.loss) + adversarial(false, False, config.loss)
            for true, false in zip(*(critic(self._seen(each, coarse), label) for each in (real, made)), strict=True)
        ]
        loss = torch.stack(parts).sum()
        judge = self.networks["discriminator"]

        def penalty() -> Tensor:
            def logits(*seen: Tensor) -> Tensor:
                return torch.stack([each.sum() for each in judge(list(seen), label)]).sum()

            return r1(logits, self._seen(real, coarse))

        slope = descend_critic(training, loss, penalty, config, step)
        with frozen(judge):
            seen, whole = self._judge_whole(training, image, first, second, label)
            figures = self._follow(training, second, label, real, coarse, made, whole) | seen
        sizes = [f"critic{each.shape[-1]}" for each in real][-len(parts) :]
        figures |= {**dict(zip(sizes, parts, strict=True)), "slope": slope}
        return {name: value.detach() for name, value in figures.items()}

    def _follow(
        self,
        training: Training,
        z: Tensor,
        label: Tensor | None,
        real: list[Tensor],
        coarse: list[Tensor],
        others: list[Tensor],
        whole: Tensor | float,
    ) -> dict[str, Tensor]:
        """Descend what the discriminators hold against the generators' images, a VAE's bound, and `whole`.

        `others` are draws on the same coarse images.
        """
        config, net, critic = self.config, training.networks["lapgan"], training.networks["discriminator"]
        images, posterior = net(z, label, coarse, real[0], len(coarse))
        judged = critic(self._seen(images, coarse), label)
        follow = [adversarial(each, True, config.loss, critic=False) for each in judged]
        total = torch.stack(follow).sum() + whole
        figures = {"generator": torch.stack(follow).mean()}
        if config.mean:
            levels = zip(images[1:], others[1:], real[1:], strict=True)
            figures["mean"] = torch.stack([mean_error(*level) for level in levels]).mean()
            total = total + config.mean * STRONGER**2 * len(coarse) * figures["mean"]
        if posterior is not None:
            figures |= self._bound(images[0], real[0], posterior)
            total = total + figures["bound"]
        training.descend("lapgan", total)
        return figures

    def _judge_whole(
        self, training: Training, image: Tensor, first: Tensor, second: Tensor, label: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Let the projected discriminator learn; give its figures, and what the generators pay for whole samples."""
        config, net = self.config, training.networks["lapgan"]
        if not (self.onlooker or config.spectral):
            return {}, 0.0
        image, first, second = (each[: config.projected_batch] for each in (image, first, second))
        mine = None if label is None else label[: len(image)]
        with torch.no_grad():
            others = net(first, mine).images[-1]
        figures = {"projected": self.onlooker.descend(training, image, others, mine)} if self.onlooker else {}
        made = net(second, mine).images[-1]
        found, total = beside(self.onlooker, training, config, made, others, image, mine)
        return figures | found, total

    def _many(self, level: int, count: int) -> int:
        """How many of `count` photographs a level learns from."""
        return max(round(count * self.config.share**level), 1)

    def _jittered(self, image: Tensor) -> Tensor:
        """Add noise, of each image's own strength, such as what the level before makes may have."""
        if not self.config.jitter:
            return image
        strength = self.config.jitter * torch.rand(len(image), 1, 1, 1, device=image.device)
        return image + strength * torch.randn_like(image)

    def _seen(self, images: list[Tensor], coarse: list[Tensor]) -> list[Tensor]:
        """Put each image beside the enlarged coarse one that it belongs to, and change both alike at random.

        Tones stay: how strong detail is, is what a discriminator of detail looks at.
        """
        pairs = [images[0]]
        pairs += [torch.cat([made, enlarge(coarse[i])], dim=1) for i, made in enumerate(images[1:])]
        return [augment(pair, tones=False) for pair in pairs] if self.config.augmented else pairs

    def _start_alone(self, training: Training, z: Tensor, label: Tensor | None, real: Tensor) -> dict[str, Tensor]:
        """Descend a VAE's bound at the smallest size."""
        network = training.networks["lapgan"]
        network.mark_forward_method("smallest")
        made, posterior = network.smallest(z, label, real)
        figures = self._bound(made, real, posterior)
        training.descend("lapgan", figures["bound"])
        return {name: value.detach() for name, value in figures.items()}

    def _bound(self, made: Tensor, real: Tensor, posterior: Posterior) -> dict[str, Tensor]:
        error, nats = log_error(made - real).mean(), posterior.divergence().sum(1).mean()
        return {"error": error, "nats": nats, "bound": error + self.config.beta / real[0].numel() * nats}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Kernel distances from held-out photographs: of the whole pyramid's samples, and of each level by itself.

        ``enlarged`` is the distance of the samples that the last level started from: the level has to be below it.
        ``precision`` and ``recall`` of samples: the second falls when a start forgets kinds of images.
        ``alone`` and a size: what that level makes of held-out photographs at half the size.
        """
        assert isinstance(network, LAPGAN)
        if not self.config.features:
            return {}
        size, images = self.config.size, self._made(network, seed=MEASURED)
        figures = {"kernel_distance": (images[-1], size), "enlarged": (images[-2], size)}
        real, drawn = self._halved(self.held[0]), torch.Generator().manual_seed(MEASURED)
        alone = _on(network, network.draw(len(real[0]), drawn), self.held[1] if network.classes else None, real[:-1])
        figures |= {f"alone{side}": (alone[i], side) for i, side in enumerate(network.sizes) if i}
        found = {name: self._distance(made, side) for name, (made, side) in figures.items()}
        if len(real[0]) <= NEIGHBOURS:
            return found
        shares = precision_recall(self._features_of(images[-1], size), self.held_features[size])
        return found | dict(zip(("precision", "recall"), shares, strict=True))

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Kernel distances of each size's samples and of their enlarged coarse ones from held-out photographs.

        Bootstrap over draws of samples; beside, the distance of as many training photographs.
        """
        assert isinstance(network, LAPGAN)
        if not self.config.features:
            return {"levels": {}}
        rows: dict[int, dict[str, list[float]]] = {side: {"made": [], "enlarged": []} for side in network.sizes}
        for seed in range(4):
            images = self._made(network, seed)
            for i, side in enumerate(network.sizes):
                rows[side]["made"].append(self._distance(images[i], side))
                if i:
                    rows[side]["enlarged"].append(self._distance(images[i - 1], side))
        train = self._halved(self.pictures.whole(MEASURED)[0])
        levels: dict[str, Any] = {}
        for photographs, (side, found) in zip(train, rows.items(), strict=True):
            intervals = {name: bootstrap(np.array(draws), seed=0) for name, draws in found.items() if draws}
            levels[str(side)] = {name: [each.value, each.low, each.high] for name, each in intervals.items()}
            levels[str(side)]["train"] = self._distance(photographs, side)
        return {"levels": levels, "images": [MEASURED, len(self.held[0])]}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        lines = ["kernel distance on our features from held-out photographs (KID-velatura)"]
        for side, found in scores["levels"].items():
            texts = [f"{name} {each[0]:.4f}" for name, each in found.items() if name != "train"]
            lines.append(f"{side} px: {', '.join(texts)}; training photographs {found['train']:.4f}")
        return "\n".join(lines)

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of samples; then a sample from its smallest size up; then draws of three held-out coarse images."""
        assert isinstance(network, LAPGAN)
        drawn = torch.Generator().manual_seed(7)
        size, device = self.config.size, next(network.parameters()).device
        z, label = network.draw(4 * COLUMNS, drawn), network.draw_classes(4 * COLUMNS, drawn)
        images = _on(network, z, label)
        rows = [images[-1].unflatten(0, (4, COLUMNS))]
        rows += [functional.interpolate(each[:COLUMNS], (size, size))[None] for each in images[:-1]]
        for number in range(min(3, len(self.held[0]))):
            coarse = pyramid(self.held[0][number : number + 1], self.config.start_size)[0].expand(COLUMNS, -1, -1, -1)
            same = self.held[1][number : number + 1].expand(COLUMNS).to(device) if network.classes else None
            made = network(network.draw(COLUMNS, drawn).to(device), same, (coarse.to(device),)).images[-1].cpu()
            rows.append(torch.cat([functional.interpolate(coarse[:1], (size, size)), made[1:]])[None])
        return contact_sheet(torch.cat(rows))

    def _made(self, network: LAPGAN, seed: int) -> list[Tensor]:
        """Make `MEASURED` samples of every size, on the CPU."""
        drawn = torch.Generator().manual_seed(seed)
        z, label = network.draw(MEASURED, drawn), network.draw_classes(MEASURED, drawn)
        return _on(network, z, label)

    def _halved(self, image: Tensor) -> list[Tensor]:
        return pyramid(image, self.config.start_size)

    def _distance(self, image: Tensor, side: int) -> float:
        """Kernel distance of images, enlarged to `side` if they are smaller, from held-out photographs of that size."""
        return kernel_distance(self._features_of(image, side), self.held_features[side])

    def _features_of(self, image: Tensor, side: int) -> Tensor:
        return velatura_features(self.features, _bicubic(_bicubic(image, side), max(side, AT_LEAST)))


def mean_error(one: Tensor, other: Tensor, real: Tensor) -> Tensor:
    """Squared error of the mean of all draws, estimated without bias from two of them: what they vary by costs nothing.

    With a gradient by the first alone, which is half of the whole one.

    Examples
    --------
    >>> draws = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0)) + 3
    >>> round(float(mean_error(*draws, torch.tensor(1.0))), 1)
    4.0
    """
    return ((one - real) * (other.detach() - real)).mean()


def _levels_of(spec: str, net: LAPGAN) -> dict[str, Tensor]:
    """Read the levels of a trained pyramid, which is to be of the same sizes and classes."""
    theirs = catalog.load(spec, {"LAPGAN": LAPGAN})
    told = [(one.sizes, one.classes, [p.shape for p in one.levels.parameters()]) for one in (net, theirs)]
    if told[0] != told[1]:
        raise InputError(
            f"levels={spec}: a pyramid of {theirs.sizes} pixels and {len(theirs.classes)} classes, or of "
            f"another width; expected {net.sizes}, {len(net.classes)} classes and these settings' width"
        )
    return theirs.levels.state_dict()


def _on(network: LAPGAN, z: Tensor, label: Tensor | None, given: Sequence[Tensor] = ()) -> list[Tensor]:
    """Make images of all sizes in parts of 64, on the network's device, back on the CPU; each 0..1."""
    device, parts = next(network.parameters()).device, []
    for first in range(0, len(z), 64):
        some = [each[first : first + 64].to(device) for each in (z, *given)]
        which = None if label is None else label[first : first + 64].to(device)
        parts.append(network(some[0], which, some[1:]).images)
    return [torch.cat([part[i].float().cpu().clamp(0, 1) for part in parts]) for i in range(len(parts[0]))]


def _bicubic(image: Tensor, side: int) -> Tensor:
    if image.shape[-1] == side:
        return image
    return functional.interpolate(image, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def _reduced(
    image: NDArray[np.uint8], size: int, share: float = 1.0, right: float = 0.5, down: float = 0.5
) -> NDArray[np.uint8]:
    """Reduce a square of the image to `size` pixels: `share` of its shorter side, so far right and down (0..1)."""
    height, width = image.shape[:2]
    side = share * min(height, width)
    left, top = right * (width - side), down * (height - side)
    small = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(small)
