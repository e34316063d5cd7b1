"""DCGAN: convolutional generator and discriminator of small images.

Paper: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", 2015 (arXiv 1511.06434), section 3 and figure 1; Yeh et al. 2017 (arXiv 1607.07539) search its latent space.

Differs from the paper: by default residual blocks at every size, each of which sees its map with pixels brought to
unit length (Karras et al. 2018, arXiv 1710.10196, section 4.2) in place of batch norm, so that an image never depends
on its neighbours in the batch and there are no running statistics to be wrong; enlargement by interpolation in place of
fractionally strided convolutions, which leave a checkerboard (Odena et al. 2016); the last halving and the last
doubling are a rearrangement of pixels; a linear output; a normal latent. ``form="paper"`` with ``prior="uniform"`` is
the paper's. The recipes of GANs take ``norm="batch"`` for the generator: with unit-length pixels all latents made one
image after 200 steps. In ``eval()`` its statistics are fixed: an image does not depend on its neighbours either.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Discriminator", "Generator", "Trunk", "group_means", "pixel_norm", "principal_components"]

Form = Literal["residual", "paper"]
Norm = Literal["pixel", "batch", "none"]

HALVINGS = 4  # 64 to 4 pixels: figure 1
SLOPE = 0.2  # of the leaky ReLU, section 3
SPREAD = 0.02  # standard deviation of the paper's first weights, section 4
SMALLER = 0.1  # of the last weights of a residual branch: at first, blocks pass on what they get


class Generator(nn.Module):
    """From latent numbers to an image.

    Parameters
    ----------
    latent : int
        How many numbers make an image; 100 in the paper.
    channels : {1, 3}
        Grey or RGB.
    size : int
        Side of the image in pixels, a multiple of 16.
    width : int
        Channels at half the size, twice and four times as many at a quarter and an eighth; the paper's form doubles
        once more (1024, 512, 256, 128 for 128).
    kernel : {3, 5, 7}
        Size of the convolutions, as the report on brain scans compares it; 5 in the paper's code.
    form : {"residual", "paper"}
        Ours, or the paper's: fractionally strided convolutions, batch norm, ReLU, tanh.
    prior : {"normal", "uniform"}
        What latents are drawn from: N(0, 1), or U(-1, 1) as in the paper.
    norm : {"pixel", "batch"}
        Of our form. A GAN wants ``batch``: without it all latents soon made one image in two probes of 200 steps, which
        is what the paper has it for (section 3).
    basis : int
        Side in pixels of images that are weighted by the latents, summed, enlarged and added to what the convolutions
        make; 0 = none. They are no weights that learn: `begin` sets them.
    seeing : bool
        Whether it can be shown what a `Trunk` of its width saw of an image.

    Raises
    ------
    ValueError
        The size is no multiple of 16, or the kernel is even.

    Notes
    -----
    Use it in ``eval()``: the paper's form then takes the statistics that it learned with, not those of the batch.

    Differs from the paper: see the module.

    Examples
    --------
    >>> net = Generator(latent=128).eval()
    >>> sum(p.numel() for p in net.parameters())
    2476476
    >>> net(net.draw(2, torch.Generator().manual_seed(7))).shape
    torch.Size([2, 3, 64, 64])
    """

    centre: Tensor
    basis: Tensor

    def __init__(
        self,
        latent: int = 128,
        channels: int = 3,
        size: int = 64,
        width: int = 48,
        kernel: int = 3,
        form: Form = "residual",
        prior: Literal["normal", "uniform"] = "normal",
        norm: Norm = "pixel",
        basis: int = 0,
        seeing: bool = False,
    ) -> None:
        super().__init__()
        _check(size, kernel)
        self.latent, self.channels, self.size, self.prior = latent, channels, size, prior
        self.form = form
        if basis:
            self.register_buffer("centre", torch.zeros(channels, basis, basis))
            self.register_buffer("basis", torch.zeros(latent, channels, basis, basis))
        side = size >> HALVINGS
        if form == "paper":
            widths = [8 * width, 4 * width, 2 * width, width]
            self.expand = nn.Linear(latent, widths[0] * side**2, bias=False)
            layers: list[nn.Module] = [nn.Unflatten(1, (widths[0], side, side))]
            for before, after in pairwise(widths):
                layers += [nn.BatchNorm2d(before), nn.ReLU(), _double(before, after, kernel, bias=False)]
            self.layers = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), _double(width, channels, kernel))
            _as_in_the_paper(self)
        else:
            widths = [4 * width, 4 * width, 2 * width, width]
            self.expand = nn.Linear(latent, widths[0] * side**2)
            self.place = nn.Unflatten(1, (widths[0], side, side))
            self.blocks = nn.ModuleList(_Block(each, kernel, norm) for each in widths)
            if seeing:
                # Without a bias: what is not shown adds nothing.
                self.see = nn.ModuleList(nn.Conv2d(each, each, 1, bias=False) for each in widths)
            self.norm = _normalize(width, norm)
            self.narrow = nn.ModuleList(_convolution(before, after, kernel) for before, after in pairwise(widths))
            self.leave = nn.Conv2d(width, 4 * channels, 3, padding=1)
            with torch.no_grad():
                # The four pixels of a place begin alike: no checkerboard at first (Aitken et al. 2017, ICNR).
                self.leave.weight.copy_(self.leave.weight[::4].repeat_interleave(4, dim=0))
                nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def begin(self, images: Tensor) -> None:
        """Make the basis the principal components of `images`; the convolutions add nothing to them at first.

        Parameters
        ----------
        images : Tensor of float32, (N, channels, size, size)
            0..1; more of them than there are latents.

        Notes
        -----
        A linear autoencoder with normal latents learns them (Tipping and Bishop 1999, "Probabilistic Principal
        Component Analysis"), but takes its time. Here they are computed once and stay as they are: standard normal
        latents make images of the mean and the covariance of `images`, as far as so many latents can.
        """
        small = functional.interpolate(images, self.basis.shape[-2:], mode="area")
        centre = small.mean(0)
        self.basis.copy_(principal_components(small - centre, self.latent))
        self.centre.copy_(centre - 0.5)
        for weights in self.leave.parameters():
            weights.zero_()

    @property
    def seeing(self) -> bool:
        """Whether it can be shown what is known of an image."""
        return hasattr(self, "see")

    def forward(self, z: Tensor, seen: Sequence[Tensor] = ()) -> Tensor:
        """Make images.

        Parameters
        ----------
        z : Tensor of float32, (N, latent)
        seen : sequence of Tensor
            Maps of a `Trunk`, the largest first, of what is known of each image; nothing for an image of the latents
            alone. Only if it is `seeing`.

        Returns
        -------
        Tensor of float32, (N, channels, size, size)
            About 0..1, not clipped; the paper's form keeps 0..1.
        """
        if self.form == "paper":
            return 0.5 + 0.5 * torch.tanh(self.layers(self.expand(z)).float())
        x = self.place(self.expand(z))
        for level, block in enumerate(self.blocks):
            if level:
                x = functional.interpolate(
                    self.narrow[level - 1](x), scale_factor=2, mode="bilinear", align_corners=False
                )
            x = block(x + self.see[level](pixel_norm(seen[-1 - level])) if seen else x)
        return 0.5 + functional.pixel_shuffle(self.leave(_leaky(self.norm(x))), 2).float() + self._linear(z)

    def _linear(self, z: Tensor) -> Tensor | float:
        """What the basis makes of the latents: (N, channels, size, size)."""
        if not hasattr(self, "basis"):
            return 0.0
        with torch.autocast(z.device.type, enabled=False):
            small = self.centre + torch.einsum("nl,lchw->nchw", z.float(), self.basis)
            return functional.interpolate(small, (self.size, self.size), mode="bilinear", align_corners=False)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents from the prior, on the CPU.

        Parameters
        ----------
        count : int
        generator : torch.Generator, optional
            Where the randomness comes from; else torch's own.

        Returns
        -------
        Tensor of float32, (count, latent)
        """
        if self.prior == "uniform":
            return 2 * torch.rand(count, self.latent, generator=generator) - 1
        return torch.randn(count, self.latent, generator=generator)


class Discriminator(nn.Module):
    """Tell images from what a generator makes; it mirrors the generator.

    Parameters
    ----------
    channels, size, width, kernel, form
        As of `Generator`.

    Raises
    ------
    ValueError
        The size is no multiple of 16, or the kernel is even.

    Notes
    -----
    No norms in our form: the penalty that it is trained with is about single images.

    Differs from the paper: logits, before the sigmoid; else see the module.

    Examples
    --------
    >>> net = Discriminator(width=8).eval()
    >>> net(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    def __init__(
        self, channels: int = 3, size: int = 64, width: int = 48, kernel: int = 3, form: Form = "residual"
    ) -> None:
        super().__init__()
        _check(size, kernel)
        side = size >> HALVINGS
        if form == "paper":
            widths = [channels, width, 2 * width, 4 * width, 8 * width]
            layers: list[nn.Module] = []
            for before, after in pairwise(widths):
                first = before == channels  # no norm there, section 3
                layers.append(nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=first))
                layers += [nn.LeakyReLU(SLOPE)] if first else [nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
            self.layers = nn.Sequential(*layers)
        else:
            widths = [4 * width]
            self.layers = nn.Sequential(Trunk(channels, width, kernel, norm="none"), nn.LeakyReLU(SLOPE))
        self.score = nn.Linear(widths[-1] * side**2, 1)
        if form == "paper":
            _as_in_the_paper(self)

    def forward(self, image: Tensor) -> Tensor:
        """Judge images (N, channels, size, size) of 0..1: a Tensor (N,) of logits, larger for what looks real."""
        return self.score(self.layers(2 * image - 1).flatten(1)).flatten().float()


class Trunk(nn.Module):
    """What discriminator and encoders share: our generator, backwards, as far as its smallest map.

    Parameters
    ----------
    channels : int
        Of what comes in.
    width : int
        Channels at half the size; twice, four and four times as many after each of three more halvings.
    kernel : int
        Size of the convolutions, odd.
    norm : {"pixel", "batch", "none"}
        Of what every block sees.

    Examples
    --------
    >>> Trunk(4, width=8, kernel=3, norm="pixel")(torch.rand(1, 4, 64, 64)).shape
    torch.Size([1, 32, 4, 4])
    """

    def __init__(self, channels: int, width: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        # The first halving is a rearrangement: nothing is lost that a hole of single pixels leaves.
        self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(each, kernel, norm) for each in widths)
        self.widen = nn.ModuleList(_convolution(before, after, kernel) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Shrink maps (N, channels, H, W), H and W multiples of 16, to (N, 4 width, H / 16, W / 16)."""
        return self.maps(x)[-1]

    def maps(self, x: Tensor) -> list[Tensor]:
        """Give what every block makes of it, the largest map first."""
        found = [self.blocks[0](self.enter(functional.pixel_unshuffle(x, 2)))]
        for widen, block in zip(self.widen, self.blocks[1:], strict=True):
            found.append(block(widen(functional.avg_pool2d(found[-1], 2))))
        return found


class _Block(nn.Module):
    """A residual block; the trunk itself is never normalized."""

    def __init__(self, width: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.norm = _normalize(width, norm)
        self.first, self.second = _convolution(width, width, kernel), _convolution(width, width, kernel)
        with torch.no_grad():
            self.second.weight.mul_(SMALLER)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(_leaky(self.first(_leaky(self.norm(x)))))


class _PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x)


def pixel_norm(x: Tensor) -> Tensor:
    """Bring every pixel's channels to a mean square of 1 (Karras et al. 2018, section 4.2).

    Examples
    --------
    >>> pixel_norm(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).square().mean().item()
    1.0
    """
    return x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-8).to(x.dtype)


def group_means(images: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Give the mean image of each of `count` groups, (count, C, H, W); black where there is none.

    Parameters
    ----------
    images : Tensor of float32, (N, C, H, W)
    numbers : Tensor of int64, (N,)
        The group of each, from 0.
    count : int

    Examples
    --------
    >>> group_means(torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1), torch.tensor([0, 0, 2]), 3).flatten()
    tensor([2., 0., 5.])
    """
    sums = images.new_zeros(count, *images.shape[1:]).index_add(0, numbers, images)
    return sums / numbers.bincount(minlength=count).clamp_min(1)[:, None, None, None]


def principal_components(apart: Tensor, count: int) -> Tensor:
    """Give the directions in which images differ most, each as long as their deviation along it.

    Parameters
    ----------
    apart : Tensor of float32, (N, C, H, W)
        Images less their mean.
    count : int

    Returns
    -------
    Tensor of float64, (count, C, H, W)
        The longest first; fewer where an image has fewer numbers.

    Examples
    --------
    >>> images = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).view(4, 1, 1, 2)
    >>> principal_components(images, 1).abs().flatten().round(decimals=3)
    tensor([2.1210, 0.0000], dtype=torch.float64)
    """
    flat = apart.flatten(1)
    # In double precision: pixels that are black in every image make it nearly singular.
    variances, directions = torch.linalg.eigh((flat.T @ flat / len(flat)).double())
    scaled = (directions * variances.clamp_min(0).sqrt()).T.flip(0)[:count]
    return scaled.unflatten(1, apart.shape[1:])


def _normalize(width: int, norm: Norm) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return _PixelNorm() if norm == "pixel" else nn.Identity()


def _check(size: int, kernel: int) -> None:
    if size % 2**HALVINGS or size < 2**HALVINGS:
        raise ValueError(f"got size {size}; expected a multiple of {2**HALVINGS}")
    if kernel % 2 == 0:
        raise ValueError(f"got kernel {kernel}; expected an odd one")


def _convolution(before: int, after: int, kernel: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def _double(before: int, after: int, kernel: int, bias: bool = True) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, kernel, 2, kernel // 2, output_padding=1, bias=bias)


@torch.no_grad()
def _as_in_the_paper(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, std=SPREAD)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
