"""LAPGAN: a small image, then the detail of each larger size, every level by a network of its own.

Paper: Denton, Chintala, Szlam, Fergus, "Deep Generative Image Models using a Laplacian Pyramid of Adversarial
Networks", 2015 (arXiv 1506.05751), section 3 and figure 1: ``I_k = u(I_{k+1}) + G_k(z_k, u(I_{k+1}))``, where ``u``
doubles an image. Each level is trained by itself, on the halved photographs and not on what the level below makes, and
its discriminator judges detail on the enlarged coarse image that it belongs to. The model of a level may be of a wholly
different kind (section 3.2): the start may be a GAN or the decoder of a VAE.

Differs from the paper: residual blocks at three sizes of a level's image in place of three large convolutions; the
class is added to every place and, in the discriminator, is a projection (Miyato and Koyama 2018, arXiv 1802.05637) in
place of a plane; doubling is bilinear between pixel centres, halving the mean of four, as in `velatura.ops.pyramid`; a
discriminator sees the detail, ten times as strong, beside the enlarged coarse image, not their sum; no dropout; a
normal noise. The smallest image may begin as the mean of its class and principal components, to which the network adds
(`LAPGAN.begin`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.dcgan import group_means, pixel_norm, principal_components
from velatura.nets.masked_encoder import Posterior

__all__ = ["LAPGAN", "LAPGANDiscriminator", "PyramidSample", "enlarge", "pyramid"]

Kind = Literal["gan", "vae"]

SLOPE = 0.2  # of the leaky ReLU, as in `velatura.nets.dcgan`
# What detail is multiplied by for a discriminator, which hardly sees it within the image: after 80 steps against a
# generator that stands still its loss is .1 to .3, and 1.1 to 1.35 without.
STRONGER = 10.0
SMALLER = 0.1  # of the last weights of a residual branch and of a level: at first a level is the enlarged image


class PyramidSample(NamedTuple):
    """What `LAPGAN` makes.

    Attributes
    ----------
    images : list of Tensor of float32, (N, channels, S, S)
        From the start's size up, about 0..1, not clipped.
    posterior : Posterior or None
        Of the start's latents, where the start is a VAE and saw images.
    """

    images: list[Tensor]
    posterior: Posterior | None


class LAPGAN(nn.Module):
    """A whole pyramid: the start, and a generator of detail for every doubling.

    Parameters
    ----------
    latent : int
        How many numbers make the smallest image; every level adds a plane of noise of its own size.
    channels : {1, 3}
        Grey or RGB.
    start : int
        Side of the smallest image in pixels, a multiple of 4.
    size : int
        Side of the largest: `start` times a power of two.
    width : int
        Channels of a level at its full size; twice as many at half of it, four times at a quarter.
    start_width : int
        Channels of the start at its full size; twice as many at half of it.
    start_kind : {"gan", "vae"}
        Who learns the start. A VAE brings its encoder, and pixels of unit length in place of batch norm.
    classes : sequence of str
        Names of the classes; none: the pyramid is unconditional.
    basis : bool
        Whether the smallest image holds a linear part, which `begin` sets.

    Attributes
    ----------
    latent : int
        How many numbers make one image: those of the start and the noise of all levels.
    shares : Tensor of float32, (classes,)
        How often each class is drawn.

    Raises
    ------
    ValueError
        The sizes are no such pyramid.

    Notes
    -----
    Use it in ``eval()``: an image then does not depend on its neighbours in the batch.

    Differs from the paper: see the module.

    Examples
    --------
    >>> net = LAPGAN(classes=["forest", "sea"]).eval()
    >>> z, label = net.draw(2, torch.Generator().manual_seed(7)), torch.tensor([0, 1])
    >>> [tuple(image.shape[2:]) for image in net(z, label).images]
    [(8, 8), (16, 16), (32, 32), (64, 64)]
    >>> sum(p.numel() for p in net.parameters())
    1447668
    """

    shares: Tensor

    def __init__(
        self,
        latent: int = 64,
        channels: int = 3,
        start: int = 8,
        size: int = 64,
        width: int = 24,
        start_width: int = 48,
        start_kind: Kind = "gan",
        classes: Sequence[str] = (),
        basis: bool = False,
    ) -> None:
        super().__init__()
        doublings = round(math.log2(max(size / max(start, 1), 1)))
        if start % 4 or start < 4 or start << doublings != size or not doublings:
            raise ValueError(f"got start {start} and size {size}; expected a multiple of 4, and it doubled some times")
        self.channels, self.size, self.start_size, self.start_kind = channels, size, start, start_kind
        self.classes = tuple(classes)
        self.sizes = [start << level for level in range(doublings + 1)]
        self.parts = [latent, *(side**2 for side in self.sizes[1:])]
        self.latent = sum(self.parts)
        self.start = _Start(latent, channels, start, start_width, start_kind, len(classes), basis)
        self.levels = nn.ModuleList(_Level(channels, width, len(classes)) for _ in self.sizes[1:])
        self.register_buffer("shares", torch.full((len(classes),), 1 / max(len(classes), 1)))

    def begin(self, images: Tensor, label: Tensor | None = None) -> None:
        """Make the linear part of the start that of `images`; its convolutions add nothing to it at first.

        Parameters
        ----------
        images : Tensor of float32, (N, channels, start, start)
            0..1, of the smallest size.
        label : Tensor of int64, (N,), optional
            Numbers of classes, if there are any.

        Notes
        -----
        As in `velatura.nets.dcgan.Generator.begin`: standard normal latents then make images of the mean of each class,
        and of the covariance within classes, as far as so many latents can.
        """
        self.start.begin(images, label)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        given: Sequence[Tensor] = (),
        encoded: Tensor | None = None,
        levels: int | None = None,
    ) -> PyramidSample:
        """Make images of all sizes.

        Parameters
        ----------
        z : Tensor of float32, (N, latent)
        label : Tensor of int64, (N,), optional
            Numbers of classes, if there are any.
        given : sequence of Tensor, (N, channels, S, S)
            From the smallest size up: what the level above is made on, in place of what this pyramid makes. One image:
            many draws of it. All but the largest: every level by itself, as they are trained. Where there are fewer
            of a size, a level makes as many: of the first latents and classes.
        encoded : Tensor, (N, channels, start, start), optional
            What a start that is a VAE encodes, if not the smallest image given.
        levels : int, optional
            How many times the smallest image is doubled; else as often as the pyramid can.

        Returns
        -------
        PyramidSample
            Of a VAE that encoded an image, the latents are the posterior's noise.
        """
        _, *noises = z.split(self.parts, dim=1)
        if encoded is None and given:
            encoded = given[0]
        made, posterior = self.smallest(z, label, encoded)
        images = [made]
        for i, (level, noise) in enumerate(zip(self.levels[:levels], noises[:levels], strict=True)):
            coarse = enlarge(given[i] if i < len(given) else images[i])
            many = len(coarse)
            own = None if label is None else label[:many]
            images.append(level(coarse, noise[:many].view(-1, 1, *coarse.shape[2:]), own))
        return PyramidSample(images, posterior)

    def smallest(
        self, z: Tensor, label: Tensor | None = None, image: Tensor | None = None
    ) -> tuple[Tensor, Posterior | None]:
        """Make images of the smallest size alone, (N, channels, start, start), as `forward` begins."""
        return self.start(z[:, : self.parts[0]], label, image)

    def sample(self, z: Tensor, label: Tensor | None = None, coarse: Tensor | None = None) -> Tensor:
        """Make images of the largest size alone, (N, channels, size, size), on the smallest one if it is given."""
        return self(z, label, () if coarse is None else (coarse,)).images[-1]

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents of a normal prior, on the CPU: (count, latent), float32."""
        return torch.randn(count, self.latent, generator=generator)

    def draw_classes(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw classes as often as each was trained with, on the CPU: (count,), int64; None where there are none."""
        if not self.classes:
            return None
        return torch.multinomial(self.shares.cpu().float(), count, replacement=True, generator=generator)


class LAPGANDiscriminator(nn.Module):
    """Tell photographs from what each level makes: one network a level.

    Parameters
    ----------
    channels, start, size
        As of `LAPGAN`.
    width : int
        Channels at half of a level's size; twice and four times as many at a quarter and an eighth.
    classes : int
        How many; 0 = unconditional.
    judges_start : bool
        Whether there is a discriminator of the start: a VAE needs none.

    Examples
    --------
    >>> net = LAPGANDiscriminator(width=8)
    >>> [tuple(logits.shape) for logits in net(pyramid(torch.rand(2, 3, 64, 64), 8))]
    [(2,), (2,), (2,), (2,)]
    """

    def __init__(
        self,
        channels: int = 3,
        start: int = 8,
        size: int = 64,
        width: int = 32,
        classes: int = 0,
        judges_start: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.judges_start = channels, judges_start
        self.judges = nn.ModuleList()
        side = start
        while side <= size:
            if side > start:
                self.judges.append(_Judge(channels, side, width, classes, of_detail=True))
            elif judges_start:
                self.judges.append(_Judge(channels, side, width, classes))
            side *= 2

    def forward(self, seen: Sequence[Tensor], label: Tensor | None = None) -> list[Tensor]:
        """Judge.

        Parameters
        ----------
        seen : sequence of Tensor of float32
            From the smallest size up, 0..1: images (N, channels, S, S), or, but for the start, beside the enlarged
            coarse image: (N, 2 channels, S, S). Where images alone are given, the coarse one is the one before. There
            may be fewer of a size than of the one before, and of the largest sizes none.
        label : Tensor of int64, (N,), optional
            Of the smallest; the first of them are those of the others.

        Returns
        -------
        list of Tensor, (N,)
            Logits, larger for what looks real.
        """
        pairs = [
            torch.cat([image, enlarge(seen[i - 1][: len(image)])], dim=1)
            if i and image.shape[1] == self.channels
            else image
            for i, image in enumerate(seen)
        ]
        wanted = pairs if self.judges_start else pairs[1:]
        judges = self.judges[: len(wanted)]
        labels = [None if label is None else label[: len(pair)] for pair in wanted]
        return [judge(pair, own) for judge, pair, own in zip(judges, wanted, labels, strict=True)]


def enlarge(image: Tensor) -> Tensor:
    """Double images (N, C, H, W) between pixel centres, as `velatura.ops.pyramid.double` does."""
    return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


def pyramid(image: Tensor, start: int) -> list[Tensor]:
    """Halve images (N, C, S, S) until their side is `start`; the smallest comes first.

    Examples
    --------
    >>> [each.shape[-1] for each in pyramid(torch.rand(1, 3, 32, 32), 8)]
    [8, 16, 32]
    """
    images = [image]
    while images[0].shape[-1] > start:
        images.insert(0, functional.avg_pool2d(images[0], 2))
    return images


class _Start(nn.Module):
    """The smallest image, from latent numbers; as a VAE with its encoder."""

    centre: Tensor
    basis: Tensor

    def __init__(
        self, latent: int, channels: int, size: int, width: int, kind: Kind, classes: int, basis: bool
    ) -> None:
        super().__init__()
        if basis:
            self.register_buffer("centre", torch.zeros(max(classes, 1), channels, size, size))
            self.register_buffer("basis", torch.zeros(latent, channels, size, size))
        self.side = size // 2
        self.expand = nn.Linear(latent, 2 * width * self.side**2)
        self.name = nn.Embedding(classes, 2 * width) if classes else None
        norm = "batch" if kind == "gan" else "pixel"
        self.small, self.narrow = _Block(2 * width, norm), _convolution(2 * width, width)
        self.large, self.norm = _Block(width, norm), _normalize(width, norm)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        if kind == "vae":
            self.enter, self.widen = _convolution(channels, width), _convolution(width, 2 * width)
            self.seen = nn.Sequential(_Block(2 * width, "pixel"), _Block(2 * width, "pixel"))
            self.tell = nn.Linear(2 * width * self.side**2, 2 * latent)
            with torch.no_grad():
                self.tell.weight.mul_(SMALLER)

    def forward(self, z: Tensor, label: Tensor | None, image: Tensor | None) -> tuple[Tensor, Posterior | None]:
        posterior = None
        if image is not None and hasattr(self, "tell"):
            posterior = self._encode(image, label)
            z = posterior.sample(z)
        x = self.expand(z).unflatten(1, (-1, self.side, self.side))
        x = enlarge(self.narrow(self.small(x + _spread(self.name, label))))
        return 0.5 + self.leave(_leaky(self.norm(self.large(x)))).float() + self._linear(z, label), posterior

    @torch.no_grad()
    def begin(self, images: Tensor, label: Tensor | None) -> None:
        """See `LAPGAN.begin`."""
        label = torch.zeros(len(images), dtype=torch.int64) if label is None else label
        centre = group_means(images, label, len(self.centre))
        found = principal_components(images - centre[label], len(self.basis))
        self.centre.copy_(centre - 0.5)
        self.basis[: len(found)].copy_(found)
        for weights in self.leave.parameters():
            weights.zero_()

    def _linear(self, z: Tensor, label: Tensor | None) -> Tensor | float:
        """What the class and the basis make of the latents: (N, channels, size, size)."""
        if not hasattr(self, "basis"):
            return 0.0
        with torch.autocast(z.device.type, enabled=False):
            centre = self.centre[:1] if label is None else self.centre[label]
            return centre + (z.float() @ self.basis.flatten(1)).unflatten(1, self.basis.shape[1:])

    def _encode(self, image: Tensor, label: Tensor | None) -> Posterior:
        x = self.widen(functional.avg_pool2d(_leaky(self.enter(2 * image - 1)), 2))
        told = self.tell(_leaky(self.seen(x + _spread(self.name, label))).flatten(1)).float()
        mean, log_variance = told.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-12, 4))


class _Level(nn.Module):
    """The detail of one size, on the enlarged image: a U at full, half and quarter size, never strided."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.enter = _convolution(channels + 1, width)
        self.name = nn.Embedding(classes, width) if classes else None
        self.to_half, self.to_quarter = _convolution(width, 2 * width), _convolution(2 * width, 4 * width)
        self.at_half, self.at_quarter = _Block(2 * width, "batch"), _Block(4 * width, "batch")
        self.from_quarter, self.from_half = _convolution(4 * width, 2 * width), _convolution(2 * width, width)
        self.half_again, self.full = _Block(2 * width, "batch"), _Block(width, "batch")
        self.norm = _normalize(width, "batch")
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        with torch.no_grad():
            self.leave.weight.mul_(SMALLER)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, coarse: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        full = self.enter(torch.cat([2 * coarse - 1, noise], dim=1)) + _spread(self.name, label)
        half = self.at_half(self.to_half(functional.avg_pool2d(full, 2)))
        quarter = self.at_quarter(self.to_quarter(functional.avg_pool2d(half, 2)))
        half = self.half_again(half + enlarge(self.from_quarter(quarter)))
        full = self.full(full + enlarge(self.from_half(half)))
        return coarse + self.leave(_leaky(self.norm(full))).float()


class _Judge(nn.Module):
    """The discriminator of one size, of an image or of its detail on a coarse one: a logit, and more for its class."""

    def __init__(self, channels: int, size: int, width: int, classes: int, of_detail: bool = False) -> None:
        super().__init__()
        self.of_detail = of_detail
        widths = [width, 2 * width] if size < 16 else [width, 2 * width, 4 * width]
        self.enter = nn.Conv2d(4 * channels * (2 if of_detail else 1), width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(each, "none") for each in widths)
        self.widen = nn.ModuleList(_convolution(a, b) for a, b in pairwise(widths))
        side = size >> len(widths)
        self.score = nn.Linear(widths[-1] * side**2, 1)
        self.name = nn.Embedding(classes, widths[-1]) if classes else None
        if self.name is not None:
            nn.init.zeros_(self.name.weight)

    def forward(self, image: Tensor, label: Tensor | None) -> Tensor:
        shown = 2 * image - 1
        if self.of_detail:
            image, coarse = image.chunk(2, dim=1)
            shown = torch.cat([STRONGER * (image - coarse), 2 * coarse - 1], dim=1)
        x = self.blocks[0](self.enter(functional.pixel_unshuffle(shown, 2)))
        for widen, block in zip(self.widen, self.blocks[1:], strict=True):
            x = block(widen(functional.avg_pool2d(x, 2)))
        x = _leaky(x)
        logits = self.score(x.flatten(1)).flatten().float()
        if self.name is None:
            return logits
        if label is None:
            raise ValueError(f"got no classes; expected a number below {self.name.num_embeddings} for each image")
        return logits + (self.name(label) * x.mean((2, 3))).sum(1).float()


class _Block(nn.Module):
    """A residual block; the trunk itself is never normalized."""

    def __init__(self, width: int, norm: Literal["pixel", "batch", "none"]) -> None:
        super().__init__()
        self.norm = _normalize(width, norm)
        self.first, self.second = _convolution(width, width), _convolution(width, width)
        with torch.no_grad():
            self.second.weight.mul_(SMALLER)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(_leaky(self.first(_leaky(self.norm(x)))))


class _PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x)


def _normalize(width: int, norm: Literal["pixel", "batch", "none"]) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return _PixelNorm() if norm == "pixel" else nn.Identity()


def _convolution(before: int, after: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def _spread(name: nn.Embedding | None, label: Tensor | None) -> Tensor | float:
    """Give the class's numbers for every place, (N, width, 1, 1), or 0 where there are no classes."""
    if name is None:
        return 0.0
    if label is None:
        raise ValueError(f"got no classes; expected a number below {name.num_embeddings} for each image")
    return name(label)[:, :, None, None]


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
