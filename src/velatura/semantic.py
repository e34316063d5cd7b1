"""Semantic inpainting of small images: many at once, by an encoder that was shown holes or by the paper's search.

Yeh et al., "Semantic Image Inpainting with Deep Generative Models", 2017 (arXiv 1607.07539)::

    image, mask ── encoder ──► z ── a few steps of search ──► generator's image ── Poisson ──► fill
                   (or: z drawn at random ── 1500 steps of search, as in the paper)

The latent search is in `velatura.latent_search`, the encoder in `velatura.nets.masked_encoder`; this module loads the
networks that belong together and drives them on batches.

Differs from the paper: the encoder; every image of a batch is searched for as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from velatura import catalog
from velatura.errors import InputError, ModelError
from velatura.latent_search import Found, Search, search
from velatura.nets.dcgan import Discriminator, Generator
from velatura.nets.masked_encoder import MaskedEncoder
from velatura.nets.vae import VAE
from velatura.ops.poisson import membrane

__all__ = ["DEFAULTS", "Fills", "Method", "Model", "fill", "join", "load_model"]

Method = Literal["encoder", "latent"]
Net = TypeVar("Net", MaskedEncoder, Discriminator)

#: How each method searches, if nothing else is said.
DEFAULTS: dict[Method, Search] = {
    # Gentle: larger steps undo what the encoder knew (-.1 dB on training faces at rate .03).
    "encoder": Search(steps=20, rate=0.01, norm="l2"),
    "latent": Search(steps=1500),
}

TOLERANCE = 0.1 / 255  # of white: estimated error of a joined fill
GROUP = 32  # images that are searched for at a time where that is not on the CPU: more take memory


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Networks that fill together, in ``eval()``.

    Attributes
    ----------
    name : str
        Of the catalog, or the file's without its suffix.
    generator : Generator
    encoder : MaskedEncoder or None
        Without it only the search from random latents is left.
    critic : Discriminator or None
        What the prior loss of a GAN asks.
    subject : str
        What the networks learned: ``faces`` (aligned), ``brain``, or nothing where the file does not say.
    """

    name: str
    generator: Generator
    encoder: MaskedEncoder | None = None
    critic: Discriminator | None = None
    subject: str = ""

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.generator.size

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.generator.channels

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def need_encoder(self) -> MaskedEncoder:
        """Give the encoder.

        Raises
        ------
        ModelError
            There is none.
        """
        if self.encoder is None:
            raise ModelError(
                f"{self.name} has no encoder that was trained with holes ({self.name}-encoder); take --method latent"
            )
        return self.encoder


def load_model(name_or_path: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load a generator with what belongs to it.

    Parameters
    ----------
    name_or_path : str or path
        A VAE, or the generator of a GAN. What a GAN's generator needs besides lies beside it: ``NAME-encoder`` and
        ``NAME-critic``, in the catalog or as files of the same suffix; each may be missing.
    device : torch.device or str

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        Unknown name, a file that is refused, or an encoder or a critic of other images.
    """
    architectures = {"VAE": VAE, "Generator": Generator}
    weights = catalog.open_weights(name_or_path, architectures)
    network = catalog.assemble(weights, architectures, device)
    # A sixth faster on processors.
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = weights.header.recipe.get("settings", {}) if weights.header else {}
    name, subject = Path(name_or_path).stem, str(settings.get("subject", ""))
    if isinstance(network, VAE):
        # The plain VAE of the report never saw a hole.
        encoder = network.encoder if settings.get("masked", 1) else None
        return Model(name, network.decoder, encoder, subject=subject)
    assert isinstance(network, Generator)
    encoder = _beside(name_or_path, "encoder", MaskedEncoder, device)
    critic = _beside(name_or_path, "critic", Discriminator, device)
    if encoder is not None:
        theirs, ours = ((net.latent, net.channels, net.size) for net in (encoder, network))
        if theirs != ours:
            raise ModelError(
                f"{name}-encoder is for (latents, channels, pixels) of {theirs}, {name} has {ours}: train it anew"
            )
    return Model(name, network, encoder, critic, subject)


def _beside(name_or_path: str | Path, role: str, kind: type[Net], device: torch.device | str) -> Net | None:
    """Load the network of this role that belongs to another one, if there is one."""
    path = Path(name_or_path)
    other = path.with_name(f"{path.stem}-{role}{path.suffix}")
    if path.suffix:
        return catalog.load(other, {kind.__name__: kind}, device) if other.is_file() else None
    known = any(card.name == other.name for card in catalog.cards())
    return catalog.load(other.name, {kind.__name__: kind}, device) if known else None


@dataclass(frozen=True, slots=True)
class Fills:
    """What `fill` found: for each of N images K candidates, the best first.

    Attributes
    ----------
    images : Tensor, (N, K, C, H, W)
        0..1; known pixels as they were, the hole joined to them.
    made : Tensor, (N, K, C, H, W)
        What the generator made, about 0..1, or the mean of image and mirror image; nothing joined.
    z : Tensor, (N, K, latent)
    losses : Tensor, (N, K)
        Context loss and weighted prior loss: what candidates are ranked by. These and `z` are of the image itself, also
        where `made` is the mean of image and mirror image.
    """

    images: Tensor
    made: Tensor
    z: Tensor
    losses: Tensor


def fill(
    model: Model,
    images: Tensor,
    masks: Tensor,
    *,
    method: Method = "encoder",
    options: Search | None = None,
    candidates: int = 1,
    seed: int = 0,
    mirror: bool = False,
    group: int | None = None,
    half: torch.dtype | None = None,
    tick: Callable[[int], None] = lambda step: None,
) -> Fills:
    """Fill holes of small images.

    Parameters
    ----------
    model : Model
    images : Tensor of float32, (N, C, H, W)
        0..1, of the model's size and channels; nothing under the mask is read.
    masks : Tensor of float32, (N, 1, H, W)
        1 = hole, 0 = known.
    method : {"encoder", "latent"}
        Start from the encoder's latents, or from random ones (section 3.2).
    options : Search, optional
        How to search; see `DEFAULTS`.
    candidates : int
        K. With ``encoder`` the first is the mean of the posterior, the others are samples of it; with ``latent`` all
        are random starts.
    seed : int
        Of what is random: nothing for one candidate of ``encoder``.
    mirror : bool
        Fill the mirror image, too, and let the mean of both be the first candidate of ``encoder``: surer (.1 dB on
        faces), in twice the time.
    group : int, optional
        How many images are computed at a time, with all their candidates. If it is not given, one on the CPU, so that
        an image is filled alike alone and among others, and 32 elsewhere; 16 take about half the time of one by one,
        and what differs in the last bits of a float the search may make larger.
    half : torch.dtype, optional
        What the search's steps are computed in: bfloat16 takes less time on a CPU that knows it; fills are float32.
    tick : callable
        Called with the number of search steps done; may raise to stop.

    Returns
    -------
    Fills
        On the CPU.

    Raises
    ------
    InputError
        Images of another size than the model's.
    ModelError
        The method wants an encoder, and the model has none.

    Notes
    -----
    An image is filled as if it were alone: ``eval()`` statistics, losses of single images, random numbers that do not
    depend on the batch.

    Examples
    --------
    >>> from velatura.nets.vae import VAE
    >>> vae = VAE(latent=16, width=8).eval().requires_grad_(False)
    >>> image, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    >>> mask[..., 16:48, 16:48] = 1
    >>> found = fill(Model("mine", vae.decoder, vae.encoder), image, mask, options=Search(steps=2), candidates=3)
    >>> found.images.shape, bool((found.images[:, 0] == image)[..., :16, :].all())
    (torch.Size([2, 3, 3, 64, 64]), True)
    """
    shape = (model.channels, model.size, model.size)
    if tuple(images.shape[1:]) != shape or tuple(masks.shape) != (len(images), 1, *shape[1:]):
        raise InputError(
            f"got images {tuple(images.shape)} and masks {tuple(masks.shape)}; {model.name} takes (N, {shape[0]}, "
            f"{shape[1]}, {shape[2]}) and (N, 1, {shape[1]}, {shape[2]})"
        )
    options = DEFAULTS[method] if options is None else options
    if model.generator.prior == "uniform":
        options = replace(options, bound=min(options.bound, 1.0))
    noise = _noise(model, method, candidates, seed)
    # L-BFGS has one curvature for all that it is given.
    alone = model.device.type == "cpu" or options.optimizer == "lbfgs"
    group = (1 if alone else GROUP) if group is None else group
    found = []
    for image, mask in zip(images.split(group), masks.split(group), strict=True):
        known, hole = image.to(model.device), mask.to(model.device)
        rows = [_rows(model, method, known, hole, noise)]
        if mirror and method == "encoder":
            rows.append(_rows(model, method, known.flip(-1), hole.flip(-1), noise[:1]))
        known, hole, start, *seen = (torch.cat(parts) for parts in zip(*rows, strict=True))
        generator = partial(model.generator, seen=seen) if seen else model.generator
        one = search(generator, known, hole, start, options, critic=model.critic, half=half, tick=tick)
        found.append(_ranked(_unmirrored(one, candidates, len(image)), options, image, mask))
    return Fills(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _rows(model: Model, method: Method, known: Tensor, hole: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """Give what `search` takes, for every candidate of every image: known pixels, holes, starts, what was seen."""
    start, seen, candidates = noise.expand(len(known), -1, -1), [], len(noise)
    if method == "encoder":
        with torch.no_grad():
            (mean, log_variance), seen = model.need_encoder().look(known, hole)
        start = mean[:, None] + (0.5 * log_variance[:, None]).exp() * start
    shown = seen if model.generator.seeing else []
    repeated = [planes.repeat_interleave(candidates, 0) for planes in (known, hole, *shown)]
    return *repeated[:2], start.flatten(0, 1), *repeated[2:]


def _unmirrored(found: Found, candidates: int, count: int) -> Found:
    """Put the mean of image and mirror image, which are the last rows, where the first candidate of an image is."""
    rows = count * candidates
    image = found.image[:rows].clone()
    if len(found.image) > rows:
        image[::candidates] = (image[::candidates] + found.image[rows:].flip(-1)) / 2
    return Found(found.z[:rows], image, found.context[:rows], found.prior[:rows])


def _noise(model: Model, method: Method, candidates: int, seed: int) -> Tensor:
    """Draw what is random, (K, latent), the same for every image; the encoder's first candidate is its mean."""
    random = torch.Generator().manual_seed(seed % 2**63)
    if method == "latent":
        return model.generator.draw(candidates, random).to(model.device)
    others = torch.randn(candidates - 1, model.generator.latent, generator=random)
    return torch.cat([torch.zeros(1, model.generator.latent), others]).to(model.device)


def _ranked(found: Found, options: Search, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort the candidates of each image, and join them: the attributes of `Fills`, in their order."""
    shape = len(images), -1
    losses = (found.context + options.prior * found.prior).cpu().unflatten(0, shape)
    order = losses.argsort(dim=1, stable=True)
    rows = torch.arange(len(images))[:, None]
    made, z = (values.cpu().unflatten(0, shape)[rows, order] for values in (found.image, found.z))
    joined = [join(one, image, mask) for one, image, mask in zip(made, images.cpu(), masks.cpu(), strict=True)]
    return torch.stack(joined), made, z, losses.gather(1, order)


def join(made: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Join what a generator made to the known pixels by Poisson's equation (section 3.4, equation 7).

    Parameters
    ----------
    made : Tensor of float32, (..., C, H, W)
        On the CPU; all are joined to one image.
    image : Tensor of float32, (C, H, W)
        0..1.
    mask : Tensor, (1, H, W)
        Over one half is hole.

    Returns
    -------
    Tensor of float32, like `made`
        `image` where pixels are known, bit for bit; 0..1 in the hole.

    Examples
    --------
    >>> mask = torch.zeros(1, 8, 8)
    >>> mask[:, 2:6, 2:6] = 1
    >>> joined = join(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.6), mask)
    >>> bool((joined - 0.6).abs().max() < 1e-3)
    True
    """
    free = (mask[0] > 0.5).numpy()
    error = (image - made).flatten(0, -3).numpy()
    correction = torch.from_numpy(membrane(error, free, tolerance=TOLERANCE)).view_as(made)
    return torch.where(mask > 0.5, (made + correction).clamp(0, 1), image)
