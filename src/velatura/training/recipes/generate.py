"""Train generators of small images: DCGAN and VAE, of faces and of slices of brains.

Radford, Metz, Chintala 2015 (arXiv 1511.06434) and Kingma and Welling 2013 (arXiv 1312.6114); the report on brain scans
compares the two for the inpainting of Yeh et al. 2017 (arXiv 1607.07539). The VAE's encoder learns at once what latents
an image with a hole leaves open (Ivanov et al. 2019, arXiv 1806.02382): one network is generator and inpainter.
``masked=0`` leaves that out: it is the report's VAE.

Differs from the papers: the discriminator is held by a penalty on its slope at photographs (Mescheder et al. 2018,
arXiv 1801.04406, equation 9: R1) and sees photographs and made images changed at random in the same ways, because there
are few of them (Zhao et al. 2020, arXiv 2006.10738); the generator measured is a running average. The VAE's error is
the logarithm of each image's mean squared one (Rybkin et al. 2021, arXiv 2006.13202), to which a content loss may be
added.
With ``projected`` a second discriminator looks through our features (Sauer et al. 2021, arXiv 2111.01007), with
``energy`` draws pay for being too much alike there (Gneiting and Raftery 2007), and with ``spectral`` frequencies cost
that are stronger than in photographs (Durall et al. 2020, arXiv 2003.01826): the second discriminator leaves a grid.
``dcgan_paper.toml`` is DCGAN as printed, ``vae_paper.toml`` a plain VAE with squared error.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura.losses import adversarial
from velatura.metrics.realism import kernel_distance, velatura_features
from velatura.metrics.report import bootstrap
from velatura.nets.dcgan import Discriminator, Generator
from velatura.nets.masked_encoder import Posterior
from velatura.nets.vae import VAE
from velatura.ops.latents import great_circle
from velatura.perceptual import load_features
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
from velatura.training.muon import Muon
from velatura.training.pictures import Pictures, PicturesConfig, contact_sheet
from velatura.training.recipes import inpaint

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "DCGANConfig",
    "TrainDCGAN",
    "TrainVAE",
    "VAEConfig",
    "interpolations",
]

SHARED = 4  # pictures that have one hole, if the encoder has a basis
SHOWN = 8  # images in a row of a sheet
MEASURED = 256  # images that are made, and held-out ones, to be compared as sets


class _GeneratorConfig(PicturesConfig):
    """What DCGAN and VAE share."""

    latent: int = Field(128, ge=1, description="how many numbers make an image")
    width: int = Field(48, ge=4, description="channels at half the size")
    kernel: Literal[3, 5, 7] = Field(3, description="size of the convolutions")
    basis: int = Field(0, ge=0, description="side of the principal components that begin the latents; 0 = none")
    features: str = Field("velatura", description="what images are compared in: velatura, a file, or nothing at all")


class DCGANConfig(_GeneratorConfig, AdversarialConfig):
    """Settings of `TrainDCGAN`."""

    form: Literal["residual", "paper"] = Field("residual", description="our networks, or the paper's")
    prior: Literal["normal", "uniform"] = Field("normal", description="what latents are drawn from")
    norm: Literal["pixel", "batch"] = Field("batch", description="of our generator")
    critic_start: str | None = Field(None, description="weights the discriminator starts from; as start")
    critic_width: int = Field(48, ge=4, description="channels of the discriminator at half the size")


class VAEConfig(_GeneratorConfig):
    """Settings of `TrainVAE`."""

    latent: int = Field(192, ge=1, description="how many numbers make an image")
    error: Literal["log", "squared", "l1"] = Field("log", description="of images that are encoded whole")
    beta: float = Field(2.0, ge=0, description="weight of the divergence from the prior; 1 is the bound itself for log")
    free_nats: float = Field(0.02, ge=0, description="divergence of each latent number that costs nothing")
    masked: float = Field(1.0, ge=0, description="weight of all that concerns holes; 0 = a plain VAE")
    whole: float = Field(1.0, gt=0, le=1, description="share of a batch that is encoded without a hole, too")
    centred: float = Field(0.0, ge=0, le=1, description="share of the holes that are the paper's centre square")
    halved: float = Field(0.0, ge=0, le=1, description="share of the holes that are halves, besides those drawn")
    link: float = Field(1.0, ge=0, description="of these: of the divergence of the image's posterior from the hole's")
    fill: float = Field(1.0, ge=0, description="of these: of the error in the hole, after joining")
    seen: float = Field(0.3, ge=0, description="of these: of the error of the generator's image, everywhere")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0.0, ge=0, description="Muon's rate for the inner layers; 0 = Adam for all")
    seeing: bool = Field(False, description="whether the decoder is shown what the encoder saw around a hole")
    mirrored: bool = Field(False, description="whether the encoder sees the known pixels mirrored, too: brains")


class _Pictured:
    """What both recipes have: pictures of the two sides, and features."""

    config: Any

    @cached_property
    def pictures(self) -> Pictures:
        """What is trained on; read when the first batch is drawn."""
        return Pictures(self.config, "train")

    @cached_property
    def held_pictures(self) -> Pictures:
        """What is measured on."""
        return Pictures(self.config, "held-out")

    @cached_property
    def features(self) -> nn.Module:
        """What images are compared in."""
        return load_features(self.config.features).eval().requires_grad_(False)

    @cached_property
    def held(self) -> Tensor:
        """Held-out pictures that generated ones are compared with, as many of each group as are drawn of it."""
        groups = self.held_pictures.groups
        total = sum(share for share, _ in groups)
        parts = [self.held_pictures.whole(round(MEASURED * share / total), i) for i, (share, _) in enumerate(groups)]
        return torch.cat(parts)

    @cached_property
    def held_features(self) -> Tensor:
        """Of `held`."""
        return velatura_features(self.features, self.held)

    def begin_with(self, network: VAE | Generator) -> None:
        """Set the principal components of the training pictures, if any are asked for."""
        if self.config.basis:
            pictures = torch.cat([self.pictures.whole(group=group) for group in range(len(self.pictures.groups))])
            network.begin(torch.cat([pictures, pictures.flip(-1)]))

    def distance(self, generator: nn.Module, prior: Any) -> dict[str, float]:
        """Give the kernel distance between generated and held-out pictures, if there are features to compare in."""
        if not self.config.features:
            return {}
        made = _made(generator, prior(MEASURED, torch.Generator().manual_seed(MEASURED)))
        return {"kernel_distance": kernel_distance(velatura_features(self.features, made), self.held_features)}


class TrainDCGAN(_Pictured):
    """The recipe of `velatura.nets.dcgan`."""

    architecture = "Generator"

    def __init__(self, config: DCGANConfig) -> None:
        self.config = config
        self.name = f"dcgan-{config.subject}"
        shared = {"channels": config.channels, "size": config.size, "kernel": config.kernel, "form": config.form}
        self.arguments = {
            "latent": config.latent,
            "width": config.width,
            "prior": config.prior,
            "norm": config.norm,
            "basis": config.basis,
            **shared,
        }
        critic = {"width": config.critic_width, **shared}
        self.others = {"discriminator": ("Discriminator", critic)}  # the search of inpainting asks it, too
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {
            "generator": Generator(**self.arguments),
            "discriminator": Discriminator(**critic),
        }
        self.onlooker = ProjectedCritic(self.features) if config.projected else None
        if self.onlooker:
            self.networks["projected"] = self.onlooker.network

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for all."""
        return adam(self.config, self.networks, 0.99 if self.config.form == "residual" else 0.999)

    def begin(self) -> None:
        """Set the generator's principal components."""
        generator = self.networks["generator"]
        assert isinstance(generator, Generator)
        self.begin_with(generator)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Photographs, and latents for both networks' turns."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        count = self.config.batch_size
        image = self.pictures.draw(rng, count)
        drawn = torch.Generator().manual_seed(int(rng.integers(2**62)))
        generator = self.networks["generator"]
        assert isinstance(generator, Generator)
        return image, generator.draw(2 * count, drawn)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """The discriminator learns to tell made images from photographs; then the generator follows it."""
        config = self.config
        image, z = batch
        first, second = z.chunk(2)
        generator, critic = training.networks["generator"], training.networks["discriminator"]
        with torch.no_grad():
            others = generator(first)
        loss = adversarial(critic(self._seen(image)), True, config.loss)
        loss = loss + adversarial(critic(self._seen(others)), False, config.loss)
        judge = self.networks["discriminator"]
        slope = descend_critic(
            training, loss, lambda: r1(lambda seen: judge(seen).sum(), [self._seen(image)]), config, step
        )

        figures = {"discriminator": loss.detach(), "slope": slope}
        if self.onlooker:
            figures["projected"] = self.onlooker.descend(training, image, others)
        with frozen(judge):
            made = generator(second)
            figures["generator"] = follow = adversarial(critic(self._seen(made)), True, config.loss, critic=False)
            found, more = beside(self.onlooker, training, config, made, others, image)
            figures |= found
            training.descend("generator", follow + more)
        return {name: value.detach() for name, value in figures.items()}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """Kernel distance between generated and held-out pictures."""
        assert isinstance(network, Generator)
        return self.distance(network, network.draw)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """The same, beside that between pictures trained with and held-out ones."""
        return _evaluate_samples(self, network)

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        return _table_of_samples(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Six rows of samples and two of interpolations between latents."""
        assert isinstance(network, Generator)
        z = network.draw(6 * SHOWN, torch.Generator().manual_seed(7))
        made = _made(network, torch.cat([z, interpolations(z[0], z[1], SHOWN), interpolations(z[2], z[3], SHOWN)]))
        return contact_sheet(made.unflatten(0, (-1, SHOWN)))

    def _seen(self, image: Tensor) -> Tensor:
        return augment(image) if self.config.augmented else image


class TrainVAE(_Pictured):
    """The recipe of `velatura.nets.vae`."""

    architecture = "VAE"

    def __init__(self, config: VAEConfig) -> None:
        self.config = config
        self.name = f"vae-{config.subject}"
        names = ("latent", "channels", "size", "width", "kernel", "basis", "seeing", "mirrored")
        self.arguments = {name: getattr(config, name) for name in names}
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"vae": VAE(**self.arguments)}

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, or Muon for the inner layers."""
        vae, config = self.networks["vae"], self.config
        assert isinstance(vae, VAE)
        if config.matrix_rate:
            leave = vae.decoder.leave
            plain = (vae.encoder.trunk.enter, vae.encoder.tell, leave)
            return {"vae": Muon(vae, config.matrix_rate, config.learning_rate, plain)}
        return {"vae": Adam(vae.parameters(), lr=config.learning_rate)}

    def begin(self) -> None:
        """Set the VAE's principal components."""
        vae = self.networks["vae"]
        assert isinstance(vae, VAE)
        self.begin_with(vae)

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Pictures and holes."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        image = self.pictures.draw(rng, self.config.batch_size)
        # A hole is shared by some: the encoder's first guess costs by the hole.
        shared = SHARED if self.config.basis else 1
        masks = inpaint.draw_holes(rng, -(-len(image) // shared), self.config.size)
        asked = iter(range(len(masks)))
        for kind, share in (("centre", self.config.centred), ("half", self.config.halved)):
            ways = inpaint.holes(self.config.size, kind)
            for index in itertools.islice(asked, round(share * len(masks))):
                masks[index, 0] = torch.from_numpy(ways[rng.integers(len(ways))])
        return image, masks.repeat_interleave(shared, dim=0)[: len(image)]

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Pictures are encoded with a hole, and as many as the settings say without it, in one pass."""
        config = self.config
        image, mask = batch
        count, numbers = round(config.whole * len(image)) or 1, image[0].numel()
        vae, whole = training.networks["vae"], torch.zeros_like(mask[:count])
        noise = torch.randn(count, config.latent, device=image.device)
        if config.masked:
            # The fill is that of the mean: the mean of what is possible has the least error.
            noise = torch.cat([noise, noise.new_zeros(len(image), config.latent)])
            made, posterior = vae(torch.cat([image[:count], image]), torch.cat([whole, mask]), noise)
        else:
            made, posterior = vae(image[:count], whole, noise)
        full = Posterior(posterior.mean[:count], posterior.log_variance[:count])

        divergence = full.divergence().mean(0)
        figures = {"error": self._error(made[:count] - image[:count]), "nats": divergence.sum()}
        loss = figures["error"] + config.beta / numbers * divergence.clamp_min(config.free_nats).sum()
        if config.content:
            with training.fabric.autocast():
                figures["content"] = inpaint.content(self.features, made[:count], image[:count], None, config.content)
            loss = loss + figures["content"]
        if config.masked:
            partial = Posterior(posterior.mean[count : 2 * count], posterior.log_variance[count : 2 * count])
            figures["link"] = full.divergence(partial).sum(1).mean()
            figures["fill"], figures["seen"] = inpaint.fill_losses(made[count:], image, mask)
            holes = config.link / numbers * figures["link"]
            holes = holes + config.fill * figures["fill"] + config.seen * figures["seen"]
            if config.content:
                with training.fabric.autocast():
                    figures["fill_content"] = inpaint.content(self.features, made[count:], image, mask, config.content)
                holes = holes + figures["fill_content"]
            loss = loss + config.masked * holes
        training.descend("vae", loss)
        return {name: value.detach() for name, value in figures.items()}

    @torch.no_grad()
    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR of pictures encoded whole and of fills in dB; kernel distance of samples."""
        assert isinstance(network, VAE)
        pictures = self.held_pictures.whole(inpaint.HELD_OUT)
        fill = inpaint.filler(network)
        again = fill(pictures, torch.zeros_like(pictures[:, :1]))
        figures = {"psnr": float(inpaint.psnrs(again, pictures).mean())}
        if self.config.masked:
            figures |= inpaint.fill_psnr(fill, pictures)
        return figures | self.distance(network.decoder, network.decoder.draw)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Fills of all held-out pictures, of every group, as `inpaint.evaluate` says; and the samples."""
        assert isinstance(network, VAE)
        fill, found = inpaint.filler(network), {}
        for group, (_, images) in enumerate(self.held_pictures.groups):
            name = images.names[0].rsplit("/", 1)[0]
            train = self.pictures.whole(group=group)
            found[name] = inpaint.evaluate(fill, self.held_pictures.whole(group=group), train)
        return {"fills": found, **_evaluate_samples(self, network.decoder)}

    def table(self, scores: dict[str, Any]) -> str:
        """The result of `evaluate`, to be read."""
        fills = "\n".join(f"{name}: {inpaint.table(found)}" for name, found in scores["fills"].items())
        return f"{fills}\n{_table_of_samples(scores)}"

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of pictures and what is left of them; samples; interpolations; then original, masked, made, fill."""
        assert isinstance(network, VAE)
        columns, device = 12, next(network.parameters()).device
        chosen = torch.linspace(0, len(self.held) - 1, columns).long()
        pictures = self.held[chosen].to(device)
        again, posterior = network(pictures, torch.zeros_like(pictures[:, :1]))
        z = network.decoder.draw(2 * columns, torch.Generator().manual_seed(7))
        between = interpolations(posterior.mean[0].cpu(), posterior.mean[1].cpu(), columns)
        samples = _made(network.decoder, torch.cat([z, between])).unflatten(0, (3, columns))
        rows = torch.cat([torch.stack([pictures, again]).cpu(), samples])
        if self.config.masked:
            shown = pictures[: inpaint.SHOWN].cpu()
            rows = torch.cat([rows, inpaint.masked_rows(inpaint.filler(network), shown)])
        return contact_sheet(rows)

    def _error(self, error: Tensor) -> Tensor:
        if self.config.error == "log":
            return inpaint.log_error(error).mean()
        return error.square().mean() if self.config.error == "squared" else error.abs().mean()


def interpolations(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Give `count` latents on the great circle between two, (count, latent)."""
    return torch.from_numpy(great_circle(first.numpy(), second.numpy(), count))


def _evaluate_samples(recipe: _Pictured, generator: nn.Module) -> dict[str, Any]:
    """Kernel distance of samples, and of training pictures, from held-out ones; bootstrap over draws of samples."""
    assert isinstance(generator, Generator)
    if not recipe.config.features:
        return {"distance": {}}
    real = recipe.held_features
    plain = recipe.config.model_copy(update=dict.fromkeys(("zoom", "turn", "warp", "light", "tint"), 0.0))
    train = Pictures(plain, "train").draw(np.random.default_rng(0), MEASURED)
    draws = []
    for seed in range(8):
        z = generator.draw(MEASURED, torch.Generator().manual_seed(seed))
        draws.append(kernel_distance(velatura_features(recipe.features, _made(generator, z)), real))
    found = bootstrap(np.array(draws), seed=0)
    return {
        "distance": {
            "made": [found.value, found.low, found.high],
            "train": kernel_distance(velatura_features(recipe.features, train), real),
        },
        "images": [MEASURED, len(real)],
    }


def _table_of_samples(scores: dict[str, Any]) -> str:
    if not scores["distance"]:
        return "samples: no features to compare them in"
    (mean, low, high), floor = scores["distance"]["made"], scores["distance"]["train"]
    made, held = scores["images"]
    return (
        f"kernel distance on our features, {made} samples and {held} held-out pictures: {mean:.4f} "
        f"({low:.4f}..{high:.4f}); of as many training pictures: {floor:.4f}"
    )


@torch.no_grad()
def _made(generator: nn.Module, z: Tensor) -> Tensor:
    """Make images in parts of 64, on the network's device, back on the CPU."""
    device = next(generator.parameters()).device
    return torch.cat([generator(part.to(device)).float().cpu() for part in z.split(64)])
