"""Fill holes by a generator: what its encoder is trained and measured by, and the encoder of a GAN.

Yeh et al., "Semantic Image Inpainting with Deep Generative Models", 2017 (arXiv 1607.07539): find the latent whose
image agrees with the known pixels, then join image and known pixels by Poisson's equation. Here an encoder gives the
latent at once (`velatura.nets.masked_encoder`). That of a VAE learns together with its decoder
(`velatura.training.recipes.generate`); that of a GAN learns here, by images of the generator, whose latents are known,
and by photographs, whose latents are not.

Differs from the paper: what is lost is what Poisson's equation cannot repair. The error of the generator's image is
taken less the membrane through the error of the known pixels, which is what joining subtracts (Perez et al. 2003,
section 2), and each image counts by the logarithm of its mean squared error, of which PSNR is ten times ``-1 / ln 10``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from velatura import catalog
from velatura.errors import InputError
from velatura.losses import content_loss
from velatura.metrics.report import bootstrap
from velatura.nets.dcgan import Generator
from velatura.nets.masked_encoder import MaskedEncoder, Posterior, membrane
from velatura.nets.vae import VAE
from velatura.ops import masks
from velatura.perceptual import load_features
from velatura.training.muon import Muon
from velatura.training.pictures import Pictures, PicturesConfig, contact_sheet

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = [
    "KINDS",
    "EncoderConfig",
    "TrainEncoder",
    "content",
    "draw_holes",
    "evaluate",
    "fill_losses",
    "fill_psnr",
    "filler",
    "holes",
    "join",
    "likelihood",
    "log_error",
    "masked_rows",
    "nearest",
    "psnrs",
    "table",
    "unrepaired",
]

KINDS = ("centre", "half", "random")  # of holes that are measured, Yeh et al. section 4: 32x32 of 64x64, sides, 80 %
LEAST = 1e-4  # of a mean squared error, 2.5 grey levels: below it nothing is gained
HELD_OUT = 48  # pictures that are measured while training
SHOWN = 6  # pictures on a sheet


class EncoderConfig(PicturesConfig):
    """Settings of `TrainEncoder`."""

    generator: str = Field("dcgan-faces", description="whose latents are told: a model's name or a file")
    width: int = Field(48, ge=4, description="channels of the encoder at half the size")
    kernel: Literal[3, 5, 7] = Field(3, description="size of the convolutions")
    fill: float = Field(1.0, ge=0, description="weight of the error in the hole, after joining")
    seen: float = Field(0.3, ge=0, description="weight of the error of the generator's image, everywhere")
    made: float = Field(0.5, ge=0, le=1, description="share of a batch that the generator made")
    told: float = Field(1.0, ge=0, description="weight of the likelihood of the latents that made an image")
    prior: float = Field(0.02, ge=0, description="weight of the means' distance from the prior, for photographs")
    features: str = Field("velatura", description="what content is compared in: velatura, or a file")
    content: dict[str, float] = Field({}, description="layers of the features and their weights; {}: none")
    matrix_rate: float = Field(0.0, ge=0, description="Muon's rate for the inner layers; 0 = Adam for all")


class TrainEncoder:
    """The recipe of a GAN's encoder; the generator stays as it is."""

    architecture = "MaskedEncoder"

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        self.name = f"dcgan-{config.subject}-encoder"
        self.generator = generator = _generator(config.generator)
        if (generator.channels, generator.size) != (config.channels, config.size):
            raise InputError(
                f"{config.generator} makes {generator.size}x{generator.size} pixels of {generator.channels} channels, "
                f"not {config.size}x{config.size} of {config.channels}: set another size, subject or generator"
            )
        self.arguments: dict[str, Any] = {
            "latent": generator.latent,
            "channels": generator.channels,
            "size": generator.size,
            "width": config.width,
            "kernel": config.kernel,
        }
        torch.manual_seed(config.seed)
        self.networks: dict[str, nn.Module] = {"encoder": MaskedEncoder(**self.arguments)}

    @cached_property
    def pictures(self) -> Pictures:
        """What is trained on; read when the first batch is drawn."""
        return Pictures(self.config, "train")

    @cached_property
    def held(self) -> Tensor:
        """Held-out pictures that are measured while training."""
        return Pictures(self.config, "held-out").whole(HELD_OUT)

    @cached_property
    def features(self) -> nn.Module:
        """What content is compared in."""
        return load_features(self.config.features).eval().requires_grad_(False)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam, or Muon for the inner layers."""
        encoder = self.networks["encoder"]
        assert isinstance(encoder, MaskedEncoder)
        if self.config.matrix_rate:
            plain = (encoder.trunk.enter, encoder.tell)
            return {"encoder": Muon(encoder, self.config.matrix_rate, self.config.learning_rate, plain)}
        return {"encoder": Adam(encoder.parameters(), lr=self.config.learning_rate)}

    def batch(self, step: int, rank: int) -> tuple[Tensor, ...]:
        """Pictures, holes, and latents of those that the generator is to make."""
        rng = np.random.default_rng((self.config.seed, step, rank))
        count = self.config.batch_size
        made = round(self.config.made * count)
        image = self.pictures.draw(rng, count - made)
        latents = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return image, draw_holes(rng, count, self.config.size), self.generator.draw(made, latents)

    def step(self, training: Training, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """Tell the latents of made images; fill the holes of all."""
        config = self.config
        photographs, mask, z = batch
        generator = self.generator.to(z.device)
        with torch.no_grad(), training.fabric.autocast():
            made = generator(z)
        image = torch.cat([made, photographs])
        posterior: Posterior = training.networks["encoder"](image, mask)
        with training.fabric.autocast():
            filled = generator(posterior.mean)
        fill, seen = fill_losses(filled, image, mask)
        figures = {"fill": fill, "seen": seen}
        loss = config.fill * fill + config.seen * seen
        if len(z):
            figures["told"] = -likelihood(
                Posterior(posterior.mean[: len(z)], posterior.log_variance[: len(z)]), z
            ).mean()
            loss = loss + config.told * figures["told"]
        if len(photographs):
            loss = loss + config.prior * posterior.mean[len(z) :].square().mean()
        if config.content:
            with training.fabric.autocast():
                figures["content"] = content(self.features, filled, image, mask, config.content)
            loss = loss + figures["content"]
        training.descend("encoder", loss)
        return {name: value.detach() for name, value in figures.items()}

    def held_out(self, network: nn.Module) -> dict[str, float]:
        """PSNR of fills in dB, after joining, for each kind of hole."""
        return fill_psnr(filler(network, self.generator), self.held)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """`evaluate` on all held-out pictures."""
        pictures = Pictures(self.config, "held-out").whole()
        return evaluate(filler(network, self.generator), pictures)

    def table(self, scores: dict[str, Any]) -> str:
        """`table`."""
        return table(scores)

    def sheet(self, network: nn.Module) -> NDArray[np.uint8]:
        """Rows of original, masked, the generator's image, fill: three holes abreast."""
        return contact_sheet(masked_rows(filler(network, self.generator), self.held[:SHOWN]))


def draw_holes(rng: np.random.Generator, n: int, size: int) -> Tensor:
    """Draw masks of holes of all kinds: (n, 1, size, size) of 0 and 1."""
    return torch.from_numpy(np.stack([masks.random_hole(size, size, rng) for _ in range(n)]))[:, None]


def log_error(error: Tensor, mask: Tensor | None = None) -> Tensor:
    """Give ``1/2 log mean e^2`` of each image, (N,), over the mask, or over the whole image.

    It is the negative logarithm of a normal likelihood per number, its variance being the best one for this image
    (Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders", arXiv 2006.13202, section 3.3).

    Examples
    --------
    >>> float(log_error(torch.ones(1, 3, 4, 4)).exp().round(decimals=3))
    1.0
    """
    squares = error.square()
    if mask is None:
        return 0.5 * (squares.mean((1, 2, 3)) + LEAST).log()
    mean = (squares * mask).sum((1, 2, 3)) / (error.shape[1] * mask.sum((1, 2, 3))).clamp_min(1)
    return 0.5 * (mean + LEAST).log()


def unrepaired(error: Tensor, mask: Tensor) -> Tensor:
    """Give what joining leaves of a generator's error: in the hole, less the membrane through the known pixels' error.

    Parameters
    ----------
    error : Tensor, (N, C, H, W)
        The generator's image less the original.
    mask : Tensor, (N, 1, H, W)
        1 = hole.

    Returns
    -------
    Tensor, (N, C, H, W)
        Zero where pixels are known.
    """
    return error - membrane(error, mask)


def fill_losses(filled: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Give the losses of a fill after joining, in the hole, and of the generator's image as it is, everywhere."""
    error = filled - image
    return log_error(unrepaired(error, mask), mask).mean(), log_error(error).mean()


def content(
    features: nn.Module, filled: Tensor, image: Tensor, mask: Tensor | None, weights: dict[str, float]
) -> Tensor:
    """Content loss, of what joining makes of the fill if there is a hole; grey pictures as RGB."""
    if mask is not None:
        filled = image + unrepaired(filled - image, mask)
    features.to(image.device)
    shape = (-1, 3, -1, -1)
    return content_loss(features, filled.expand(shape), image.expand(shape), weights)


def likelihood(posterior: Posterior, z: Tensor) -> Tensor:
    """Log of the density of `z`, per number and less its constant: (N, latent)."""
    return -0.5 * (posterior.log_variance + (z - posterior.mean).square() / posterior.log_variance.exp())


def join(fills: Tensor, images: Tensor, mask: NDArray[np.floating]) -> Tensor:
    """Join fills to the known pixels by Poisson's equation, exactly, all with one mask.

    Perez et al. 2003, equations 2 and 4: inside, the fill's own gradients; its boundary, the known pixels.

    Parameters
    ----------
    fills, images : Tensor, (N, C, H, W)
    mask : ndarray, (H, W)
        Over one half is hole.

    Returns
    -------
    Tensor of float32, (N, C, H, W)
        `images` outside the hole, bit for bit; 0..1 inside.
    """
    free = mask > 0.5
    matrix, pull = _laplacian(free)
    error = (images - fills).double().numpy()
    correction = splu(matrix).solve(pull @ error[..., ~free].reshape(-1, int((~free).sum())).T)
    joined = images.clone()
    repaired = fills.double().numpy()[..., free] + correction.T.reshape(*error.shape[:2], -1)
    joined[..., torch.from_numpy(free)] = torch.from_numpy(repaired.clip(0, 1)).float()
    return joined


def _laplacian(free: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Say which correction of free pixels agrees with that of known ones: ``matrix x = pull y``."""
    number = np.where(free, np.cumsum(free).reshape(free.shape) - 1, np.cumsum(~free).reshape(free.shape) - 1)
    index = np.arange(free.size).reshape(free.shape)
    pairs = [(index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]
    here = np.concatenate([np.concatenate([a.ravel(), b.ravel()]) for a, b in pairs])
    there = np.concatenate([np.concatenate([b.ravel(), a.ravel()]) for a, b in pairs])
    flat, number = free.ravel(), number.ravel()
    here, there = here[flat[here]], there[flat[here]]
    n, inside = int(flat.sum()), flat[there]
    ones = np.ones(len(here))
    among = sparse.coo_matrix((ones[inside], (number[here[inside]], number[there[inside]])), (n, n))
    pull = sparse.coo_matrix((ones[~inside], (number[here[~inside]], number[there[~inside]])), (n, flat.size - n))
    degree = np.bincount(number[here], minlength=n)
    return (sparse.diags(degree.astype(np.float64)) - among).tocsc(), pull.tocsr()


def holes(size: int, kind: str, index: int = 0) -> list[NDArray[np.float32]]:
    """Give the masks of a kind: one, or the four sides; `index` chooses the random one."""
    if kind == "centre":
        return [masks.centre_square(size, size)]
    if kind == "half":
        return [masks.half(size, size, side) for side in masks.SIDES]
    return [masks.random_pixels(size, size, np.random.default_rng((1607, index)))]


def psnrs(images: Tensor, originals: Tensor) -> NDArray[np.float64]:
    """Of whole pictures, rounded to 8 bits, all channels."""
    a, b = ((255 * x.clamp(0, 1)).round().double() for x in (images, originals))
    return (10 * torch.log10(255**2 / (a - b).square().mean((1, 2, 3)).clamp_min(1e-9))).numpy()


@torch.no_grad()
def fill_psnr(fill: Any, images: Tensor, groups: int = 4) -> dict[str, float]:
    """Mean PSNR of held-out pictures for every kind of hole, after joining and before.

    Parameters
    ----------
    fill : callable
        ``fill(images, masks) -> fills``, tensors (N, C, H, W) and (N, 1, H, W).
    images : Tensor, (N, C, H, W)
    groups : int
        How many masks of single pixels they share.
    """
    figures = {}
    for kind in KINDS:
        joined, plain = [], []
        parts = list(images.chunk(groups)) if kind == "random" else [images]
        for index, part in enumerate(parts):
            for mask in holes(images.shape[-1], kind, index):
                made = fill(part, _repeated(mask, len(part)))
                hole = torch.from_numpy(mask)
                plain.append(psnrs(torch.where(hole > 0.5, made, part), part))
                joined.append(psnrs(join(made, part, mask), part))
        figures[f"psnr_{kind}"] = float(np.concatenate(joined).mean())
        figures[f"plain_{kind}"] = float(np.concatenate(plain).mean())
    return figures


@torch.no_grad()
def evaluate(fill: Any, images: Tensor, train: Tensor | None = None, seed: int = 0) -> dict[str, Any]:
    """PSNR of whole pictures, known pixels in place, for centre, half and random holes.

    Parameters
    ----------
    fill : callable
        As in `fill_psnr`.
    images : Tensor, (N, C, H, W)
        Held-out pictures.
    train : Tensor, optional
        Training pictures, of which the one nearest to the known pixels is a baseline.
    seed : int
        Of the bootstrap over pictures.

    Returns
    -------
    dict
        ``rows[kind][method]`` = mean, low, high (95 %) in dB; methods ``plain`` (the generator's pixels put in),
        ``membrane`` (nothing joined), ``nearest`` (joined) if `train` is given, ``joined`` (ours); ``images``, ``seed``
        and ``protocol`` in words.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        sides = []
        for every in _planes(images, kind):
            ways = {"membrane": torch.zeros_like(images)}
            if train is not None:
                ways["nearest"] = nearest(images, every, train)
            ways["joined"] = fill(images, every)
            joined = {method: psnrs(_join_each(made, images, every), images) for method, made in ways.items()}
            plain = psnrs(torch.where(every > 0.5, ways["joined"], images), images)
            sides.append({"plain": plain, **joined})
        # The mean over four sides is one figure of a picture.
        rows[kind] = {method: _interval(np.mean([side[method] for side in sides], axis=0), seed) for method in sides[0]}
    return {
        "images": len(images),
        "seed": seed,
        "protocol": (
            f"held-out pictures reduced by area to {images.shape[-1]}x{images.shape[-1]}; mean of the pictures' PSNR "
            "over the whole picture, 8 bit, all channels, known pixels in place; centre = the middle square of half "
            "the side, half = mean of the four sides, random = 80 % independent pixels; joined = after Poisson's "
            "equation"
        ),
        "rows": rows,
    }


def _planes(images: Tensor, kind: str) -> list[Tensor]:
    """Give the masks of a kind for all pictures: (N, 1, H, W) each; pixels are drawn anew for every picture."""
    count, size = len(images), images.shape[-1]
    if kind == "random":
        return [torch.from_numpy(np.stack([holes(size, kind, index) for index in range(count)]))]
    return [_repeated(mask, count) for mask in holes(size, kind)]


def _join_each(fills: Tensor, images: Tensor, planes: Tensor) -> Tensor:
    """Join as `join` does, all at once if the pictures have one mask."""
    if bool((planes == planes[:1]).all()):
        return join(fills, images, planes[0, 0].numpy())
    each = zip(fills.split(1), images.split(1), planes, strict=True)
    return torch.cat([join(fill, image, mask[0].numpy()) for fill, image, mask in each])


def nearest(images: Tensor, mask: Tensor, train: Tensor) -> Tensor:
    """Give the training picture, or its mirror image, that is nearest to the known pixels of each picture."""
    train = torch.cat([train, train.flip(-1)])
    known = (1 - mask).expand_as(images).flatten(1)
    squares = train.flatten(1).square() @ known.T - 2 * train.flatten(1) @ (known * images.flatten(1)).T
    return train[squares.argmin(0)]


def table(scores: dict[str, Any]) -> str:
    """The result of `evaluate`, to be read."""
    lines = [f"{scores['images']} pictures; {scores['protocol']}"]
    methods = next(iter(scores["rows"].values()))
    lines.append("PSNR dB  " + " ".join(f"{method:>22}" for method in methods))
    for kind, row in scores["rows"].items():
        cells = (f"{mean:.2f} ({low:.2f}..{high:.2f})" for mean, low, high in row.values())
        lines.append(f"{kind:8} " + " ".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


@torch.no_grad()
def masked_rows(fill: Any, images: Tensor) -> Tensor:
    """Give original, masked, the generator's image and fill, for three holes abreast: (rows, 12, C, H, W)."""
    columns = []
    for kind in KINDS:
        mask = holes(images.shape[-1], kind)[-1]
        planes = _repeated(mask, len(images))
        made = fill(images, planes)
        columns += [images, images * (1 - planes) + 0.5 * planes, made, join(made, images, mask)]
    return torch.stack(columns, dim=1)


def filler(network: nn.Module, generator: nn.Module | None = None) -> Any:
    """What `evaluate` asks for, from an encoder and its generator, or from a VAE; in parts, on the network's device."""
    device = next(network.parameters()).device

    def fill(images: Tensor, planes: Tensor) -> Tensor:
        parts = []
        for image, mask in zip(images.split(64), planes.split(64), strict=True):
            if isinstance(network, VAE):
                made = network(image.to(device), mask.to(device))[0]
            else:
                assert generator is not None
                made = generator.to(device)(network(image.to(device), mask.to(device)).mean)
            parts.append(made.float().cpu())
        return torch.cat(parts)

    return fill


def _repeated(mask: NDArray[np.float32], n: int) -> Tensor:
    return torch.from_numpy(mask)[None, None].repeat(n, 1, 1, 1)


def _generator(name: str) -> Generator:
    """Load the generator, of a GAN or of a VAE."""
    found = catalog.load(name, {"Generator": Generator, "VAE": VAE})
    generator = found.decoder if isinstance(found, VAE) else found
    assert isinstance(generator, Generator)
    return generator.requires_grad_(False).eval()


def _interval(values: NDArray[np.float64], seed: int) -> list[float]:
    found = bootstrap(values, seed=seed)
    return [found.value, found.low, found.high]
