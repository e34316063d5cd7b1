"""Train the triplet: two autoencoders and the mapping between their latents, one recipe after the other.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), section 3::

    triplet-vae-old      real old photographs and synthetic ones, in one latent space
    triplet-vae-clean    clean photographs
    triplet-mapping      from the first one's latents to the second one's, on synthetic pairs
                         --set vae_old=FILE --set vae_clean=FILE, both as `export` wrote them

What the joint space is for is measured beside the training: the distance between the latents of real and of synthetic
photographs that were held out, from before the latent discriminator joins (``critic_from``) to the end. What the clean
autoencoder loses is the ceiling of everything that is mapped into its latents, and is measured beside it.

Differs from the paper: our own features in place of VGG-19's, and no discriminators of images with their feature
matching; latents of both kinds are to be halfway between what the latent discriminator takes for real and for
synthetic; a quarter of the channels; Muon. `velatura.nets.triplet` says how the networks differ.
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

from velatura import catalog
from velatura.errors import InputError
from velatura.losses import content_loss, l1
from velatura.metrics.fidelity import RGB, psnr
from velatura.metrics.realism import kernel_distance
from velatura.nets.masked_encoder import Posterior
from velatura.nets.triplet import LatentDiscriminator, PhotoVAE, Triplet
from velatura.nets.unet import cells
from velatura.ops.degrade import grey
from velatura.perceptual import load_features
from velatura.training import data
from velatura.training.muon import Muon
from velatura.training.recipes import old_scans, restore
from velatura.training.recipes.old_scans import Grounds, ScansConfig, Worn, eight_bit, stacked
from velatura.training.recipes.upscale import draw_places, interval

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "MappingConfig",
    "OldVAEConfig",
    "PhotoVAEConfig",
    "RealPhotos",
    "TrainCleanVAE",
    "TrainMapping",
    "TrainOldVAE",
    "latent_distance",
]

# Share of the patches, set, folder in the set: real old photographs.
REAL = ((0.6, "old_photos", ""), (0.4, "faces128", "gray/"))
GREY = 0.3  # of the clean photographs: the share that loses its colour
COUNT, SIDE = 48, 128  # held-out photographs that distances and ceilings are measured on, and their side
SHOWN = 6


class PhotoVAEConfig(ScansConfig):
    """Settings of `TrainCleanVAE`, and of both autoencoders."""

    latent: int = Field(64, ge=1, description="channels of the latents")
    width: int = Field(32, ge=2, description="channels at full size")
    blocks: int = Field(2, ge=1, description="residual blocks at a quarter of the size")
    beta: float = Field(1e-3, ge=0, description="weight of the divergence from the prior, in nats per number of latent")
    features: str = Field("velatura", description="what content is compared in: velatura, a file, or vgg19:FILE")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")


class OldVAEConfig(PhotoVAEConfig):
    """Settings of `TrainOldVAE`."""

    critic: float = Field(0.02, ge=0, description="weight of the latent discriminator's judgement")
    critic_from: int = Field(0, ge=0, description="step from which on the encoder follows it")
    critic_rate: float = Field(2e-4, gt=0, description="learning rate of the latent discriminator")
    critic_width: int = Field(64, ge=2, description="channels of the latent discriminator")


class MappingConfig(ScansConfig):
    """Settings of `TrainMapping`."""

    vae_old: str | None = Field(None, description="autoencoder of old photographs: a model's name or a file")
    vae_clean: str | None = Field(None, description="autoencoder of clean photographs: a model's name or a file")
    latent: int = Field(64, ge=1, description="channels of the latents, as of the autoencoders")
    vae_width: int = Field(32, ge=2, description="channels of the autoencoders at full size")
    vae_blocks: int = Field(2, ge=1, description="residual blocks of the autoencoders")
    width: int = Field(128, ge=2, description="channels of the mapping")
    blocks: int = Field(6, ge=2, description="residual blocks of the mapping")
    window: int = Field(16, ge=2, description="places of latents that attend together")
    halo: int = Field(8, ge=0, description="places around them that are read, too")
    color: bool = Field(True, description="whether fading is undone, as in the paper, or left to others")
    latents: float = Field(1.0, ge=0, description="weight of the latents' absolute error")
    pixel: float = Field(1.0, ge=0, description="weight of the decoded image's absolute error")
    features: str = Field("velatura", description="what content is compared in: velatura, a file, or vgg19:FILE")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0, ge=0, description="Muon's rate for the inner convolutions; 0 = Adam for all")


class RealPhotos:
    """Real old photographs of one side of the split, in memory.

    Parameters
    ----------
    config : ScansConfig
        Where they are.
    side : {"train", "held-out"}
    patch : int
        Side of what is drawn.

    Raises
    ------
    InputError
        A set is missing.
    """

    def __init__(self, config: ScansConfig, side: Literal["train", "held-out"], patch: int) -> None:
        folder = data.data_folder(config.data)
        sets = [(share, data.read_set(folder, name, side, under=under)) for share, name, under in REAL]
        self.patch, self.sets = patch, old_scans.large_enough(sets, patch)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw one patch (patch, patch, 3), in one of eight turns."""
        shares = np.array([share for share, _ in self.sets])
        images = self.sets[int(rng.choice(len(shares), p=shares / shares.sum()))][1]
        (place,) = draw_places(images.shapes[:, :2], rng, 1, self.patch, 1)
        return place.cut(images[place.index]).astype(np.float32) / np.float32(255)


class _Autoencoder:
    """What the recipes of both autoencoders share."""

    architecture = "PhotoVAE"
    config: Any

    def __init__(self, config: PhotoVAEConfig) -> None:
        self.config = config
        self.arguments = {name: getattr(config, name) for name in ("latent", "width", "blocks")}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"vae": PhotoVAE(**self.arguments)}

    @cached_property
    def grounds(self) -> Grounds:
        """Clean training images; read when the first batch is drawn."""
        return Grounds(self.config, "train")

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        return _features(self.config.features)

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the layers between the first and the last, or Adam for all."""
        vae = self.networks["vae"]
        assert isinstance(vae, PhotoVAE)
        if self.config.matrix_rate:
            plain = (vae.encoder[0], vae.encoder[-1], vae.decoder[-1])
            return {"vae": Muon(vae, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"vae": Adam(vae.parameters(), lr=self.config.learning_rate)}

    def reconstruct(self, training: Training, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Encode and decode; give what that costs, a sample of the latents, and figures."""
        height, width = (-(-side // PhotoVAE.multiple) for side in image.shape[-2:])
        noise = torch.randn(len(image), self.config.latent, height, width, device=image.device)
        made, posterior = training.networks["vae"](image, noise)
        figures = {"pixel": l1(made, image), "nats": posterior.divergence().mean()}
        loss = figures["pixel"] + self.config.beta * figures["nats"]
        if self.config.content:
            self.features.to(made.device)
            with training.fabric.autocast():
                figures["content"] = content_loss(self.features, made, image, self.config.content)  # type: ignore[arg-type]
            loss = loss + figures["content"]
        return loss, posterior.sample(noise), {name: value.detach() for name, value in figures.items()}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        return "\n".join(f"{name}: {value}" for name, value in scores.items())


class TrainOldVAE(_Autoencoder):
    """The recipe of the first autoencoder: real old photographs and synthetic ones."""

    name = "triplet-vae-old"

    def __init__(self, config: OldVAEConfig) -> None:
        super().__init__(config)
        self.networks["critic"] = LatentDiscriminator(config.latent, config.critic_width)

    @cached_property
    def real(self) -> RealPhotos:
        """Real old photographs; read when the first batch is drawn."""
        return RealPhotos(self.config, "train", self.config.patch)

    @cached_property
    def held(self) -> dict[str, Tensor]:
        """Held-out photographs, always the same: real, and synthetic."""
        rng, config = np.random.default_rng(old_scans.HELD_OUT_SEED), self.config.model_copy(update={"clean": 0.0})
        photographs = RealPhotos(config, "held-out", SIDE)
        grounds = Grounds(config.model_copy(update={"patch": SIDE}), "held-out")
        return {
            "real": stacked([photographs.draw(rng) for _ in range(COUNT)]),
            "synthetic": stacked([grounds.scan(rng).image for _ in range(COUNT)]),
        }

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon or Adam; Adam for the latent discriminator."""
        rate = self.config.critic_rate
        critic = Adam(self.networks["critic"].parameters(), lr=rate, betas=(0.5, 0.999))
        return {**super().optimizers(), "critic": critic}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Half real photographs, half synthetic ones."""
        rng, half = np.random.default_rng((self.config.seed, step, rank)), max(self.config.batch_size // 2, 1)
        real = [self.real.draw(rng) for _ in range(half)]
        return stacked(real), stacked([self.grounds.scan(rng).image for _ in range(half)])

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Encode and decode both, so that the discriminator cannot tell their latents; then it learns to."""
        config, critic = self.config, training.networks["critic"]
        loss, latent, figures = self.reconstruct(training, torch.cat(batch))
        real, synthetic = latent.chunk(2)
        if config.critic and step >= config.critic_from:
            self.networks["critic"].requires_grad_(False)
            # Least squares, Mao et al. 2017, with neither to be told: if each were to be taken for the other, they
            # would pass each other and go on (measured: four times as far apart after 200 steps).
            fooled = (critic(synthetic) - 0.5).square().mean() + (critic(real) - 0.5).square().mean()
            self.networks["critic"].requires_grad_(True)
            loss = loss + config.critic * fooled
        training.descend("vae", loss)
        if config.critic:
            told = (critic(real.detach()) - 1).square().mean() + critic(synthetic.detach()).square().mean()
            training.descend("critic", told)
            figures["critic"] = told.detach()
        return figures

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB of both kinds, encoded and decoded; how far their latents are apart."""
        found = {kind: _encoded(network, images) for kind, images in self.held.items()}
        figures = {f"psnr_{kind}": float(_psnrs(made, self.held[kind]).mean()) for kind, (made, _) in found.items()}
        real, synthetic = (found[kind][1].mean for kind in ("real", "synthetic"))
        return figures | {
            "distance": latent_distance(real, synthetic),
            "distance_real": latent_distance(real[::2], real[1::2]),  # what two halves of one kind are apart
        }

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`held_out`; the distance before is what the run's log says at the step where the critic joins."""
        return {"images": COUNT, **self.held_out(network)}

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of photograph and what comes back: real ones on the left, synthetic ones on the right."""
        columns = []
        for images in self.held.values():
            made, _ = _encoded(network, images[:SHOWN])
            columns += [list(images[:SHOWN]), list(made)]
        return old_scans.sheet(columns, SIDE)


class TrainCleanVAE(_Autoencoder):
    """The recipe of the second autoencoder: clean photographs."""

    name = "triplet-vae-clean"

    @cached_property
    def held(self) -> Tensor:
        """Held-out clean photographs, some grey."""
        scans = old_scans.held_out_scans(self.config, "clean", COUNT, SIDE)
        return stacked([scan.original for scan in scans])

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Clean photographs, a share of them without colour."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        units = [self.grounds.draw(rng).astype(np.float32) / np.float32(255) for _ in range(self.config.batch_size)]
        return (stacked([grey(unit) if rng.random() < GREY else unit for unit in units]),)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Encode and decode."""
        loss, _, figures = self.reconstruct(training, *batch)
        training.descend("vae", loss)
        return figures

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB: the ceiling of what is mapped into these latents."""
        return {"psnr": float(_psnrs(_encoded(network, self.held)[0], self.held).mean())}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """PSNR with its interval over images."""
        with torch.no_grad():
            values = _psnrs(_encoded(network, self.held)[0], self.held)
        return {"images": len(self.held), "psnr": interval(values, 0)}

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Photographs and what comes back."""
        made, _ = _encoded(network, self.held[: 2 * SHOWN])
        return old_scans.sheet([list(self.held[: 2 * SHOWN]), list(made)], SIDE)


class TrainMapping:
    """The recipe of the mapping; what it gives, and exports, is the whole `velatura.nets.triplet.Triplet`."""

    name = "triplet-mapping"
    architecture = "Triplet"

    def __init__(self, config: MappingConfig) -> None:
        self.config = config
        names = ("latent", "vae_width", "vae_blocks", "width", "blocks", "window", "halo")
        self.arguments = {name: getattr(config, name) for name in names}
        torch.manual_seed(config.seed)
        triplet = Triplet(**self.arguments)
        for part, spec in ((triplet.old, config.vae_old), (triplet.clean, config.vae_clean)):
            if spec:  # once trained, the run holds them
                state = self._autoencoder(spec).state_dict()
                part.load_state_dict({name: state[name] for name in part.state_dict()})
            part.requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"triplet": triplet}

    @cached_property
    def grounds(self) -> Grounds:
        """Clean training images; read when the first batch is drawn."""
        return Grounds(self.config, "train")

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        return _features(self.config.features)

    @cached_property
    def ceiling(self) -> PhotoVAE:
        """The autoencoder of clean photographs, whole."""
        if not self.config.vae_clean:
            raise InputError("no autoencoder of clean photographs: --set vae_clean=FILE")
        return self._autoencoder(self.config.vae_clean)

    @cached_property
    def held(self) -> dict[str, list[Worn]]:
        """Held-out scans of each kind, always the same."""
        return {
            kind: old_scans.held_out_scans(self.config, kind, *restore.QUICK)
            for kind in ("unstructured", "lines", "faded", "clean")
        }

    def optimizers(self) -> dict[str, Optimizer]:
        """Muon for the mapping's inner layers, or Adam for all of it."""
        if not (self.config.vae_old and self.config.vae_clean):
            raise InputError("no autoencoders to map between: --set vae_old=FILE --set vae_clean=FILE")
        triplet = self.networks["triplet"]
        assert isinstance(triplet, Triplet)
        if self.config.matrix_rate:
            mapping = triplet.mapping
            plain = (mapping.enter, mapping.leave, mapping.turn)
            return {"triplet": Muon(triplet, self.config.matrix_rate, self.config.learning_rate, plain)}
        learning = [p for p in triplet.parameters() if p.requires_grad]
        return {"triplet": Adam(learning, lr=self.config.learning_rate)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Scans, masks of their damage, and the photographs."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        scans = [self.grounds.scan(rng) for _ in range(self.config.batch_size)]
        masks = [old_scans.careless(scan, rng) for scan in scans]
        return stacked([scan.image for scan in scans]), stacked(masks), stacked([self._target(one) for one in scans])

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Descend the error of latents, of pixels and of content."""
        config = self.config
        image, mask, target = batch
        network = training.networks["triplet"]
        network.mark_forward_method("both")
        made, latents = network.both(image, mask)
        self.ceiling.to(image.device)
        with torch.no_grad(), training.fabric.autocast():
            wanted = self.ceiling.encode(cells(target, network.multiple)).mean
        figures = {"latents": l1(latents, wanted), "pixel": l1(made, target)}
        loss = config.latents * figures["latents"] + config.pixel * figures["pixel"]
        if config.content:
            self.features.to(made.device)
            with training.fabric.autocast():
                figures["content"] = content_loss(self.features, made, target, config.content)  # type: ignore[arg-type]
            loss = loss + figures["content"]
        training.descend("triplet", loss)
        return {name: value.detach() for name, value in figures.items()}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB of scans, of what is made of them, and of what the clean autoencoder leaves of the photograph."""
        found: dict[str, float] = {}
        for kind, scans in self.held.items():
            targets = [eight_bit(self._target(scan)) for scan in scans]
            methods = {"": [restore.restore(network, scan) for scan in scans]}
            if kind != "clean":
                methods["_input"] = [eight_bit(scan.image) for scan in scans]
            for end, images in methods.items():
                found[f"{kind}{end}"] = float(np.mean([psnr(a, b, RGB) for a, b in zip(images, targets, strict=True)]))
        found["ceiling"] = float(np.mean([self._ceiling_of(scan) for scan in self.held["clean"]]))
        return found

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`velatura.training.recipes.restore.evaluate`, and the ceiling where its autoencoder is there."""
        scans = {kind: old_scans.held_out_scans(self.config, kind, *restore.ALL) for kind in old_scans.KINDS}
        if self.config.color:
            scans = {kind: [one._replace(faded=one.original) for one in found] for kind, found in scans.items()}
        scores = restore.evaluate(network, scans, load_features())
        if self.config.vae_clean:
            values = np.array([self._ceiling_of(scan) for scan in scans["clean"]])
            scores["ceiling"] = interval(values, 0)
        return scores

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        ceiling = f"\nceiling: {scores['ceiling'][0]:.2f} dB" if "ceiling" in scores else ""
        return restore.table(scores) + ceiling

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of scan, ours, photograph: unstructured, lines, faded."""
        chosen = [scan for kind in ("unstructured", "lines", "faded") for scan in self.held[kind][:4]]
        made = [restore.restore(network, scan) / np.float32(255) for scan in chosen]
        columns = [[scan.image for scan in chosen], made, [self._target(scan) for scan in chosen]]
        return old_scans.sheet(columns, restore.QUICK[1])

    def _target(self, scan: Worn) -> NDArray[np.float32]:
        return scan.original if self.config.color else scan.faded

    @torch.no_grad()
    def _ceiling_of(self, scan: Worn) -> float:
        device = next(self.ceiling.parameters()).device
        target = self._target(scan)
        return psnr(eight_bit(self.ceiling(stacked([target]).to(device))[0][0]), eight_bit(target), RGB)

    def _autoencoder(self, spec: str) -> PhotoVAE:
        vae = PhotoVAE(self.config.latent, self.config.vae_width, self.config.vae_blocks)
        vae.load_state_dict(catalog.load_state(spec, vae))
        return vae.eval().requires_grad_(False)


def latent_distance(first: Tensor, second: Tensor) -> float:
    """Say how far two kinds of latents (N, C, h, w) are apart: about 0 where they are of one kind.

    `velatura.metrics.realism.kernel_distance` of each image's means and deviations over its places, in units
    of their deviation over the first kind.

    Examples
    --------
    >>> one, other, away = torch.randn(3, 80, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> latent_distance(one, other) < 0.1 < latent_distance(one, away + 1)
    True
    """
    told = [torch.cat([z.mean((2, 3)), z.std((2, 3))], 1) for z in (first, second)]
    mean, deviation = told[0].mean(0), told[0].std(0) + 1e-6
    return kernel_distance(*((one - mean) / deviation for one in told))


def _features(spec: str) -> nn.Module:
    found = load_features(spec).eval().requires_grad_(False)
    return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _encoded(network: nn.Module, images: Tensor) -> tuple[Tensor, Posterior]:
    """Decode the means of the latents of images, in parts of 16, on the network's device."""
    device = next(network.parameters()).device
    parts = [network(part.to(device)) for part in images.split(16)]
    made = torch.cat([part[0].float().cpu() for part in parts])
    mean, log_variance = (torch.cat([part[1][i].float().cpu() for part in parts]) for i in range(2))
    return made, Posterior(mean, log_variance)


def _psnrs(made: Tensor, images: Tensor) -> NDArray[np.float64]:
    return np.array([psnr(eight_bit(a), eight_bit(b), RGB) for a, b in zip(made, images, strict=True)])
