"""Two autoencoders and a way from one's latents to the other's: old photographs in, clean ones out.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484) and 2022 (arXiv 2009.07047), section 3. The
first autoencoder holds real old photographs and synthetic ones in one latent space, which a latent discriminator
closes the gap of; the second holds clean photographs; a mapping, trained on synthetic pairs alone, leads from the one
to the other. Because real and synthetic latents are alike, it holds for real photographs, too.

Differs from the paper: a quarter of the channels; no norms; maps are halved and doubled within cells, and attention
looks at a window and its surroundings (the published code's sees the whole image and takes 13 GiB for 800x1200
pixels), so that memory grows with the number of pixels and tiles give what the whole gives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from velatura.nets.masked_encoder import Posterior
from velatura.nets.unet import SLOPE, SPREAD, cells, full, residual_block, steady

__all__ = ["LatentDiscriminator", "Mapping", "PartialNonlocal", "PhotoVAE", "Triplet"]

CELL = 4  # pixels of a latent's side: latents have a quarter of the image's size, section 3.1
LIMIT = 8.0  # of the logarithm of a variance, either way
HIDDEN = -1e4  # what a damaged place's score is set to: after the softmax nothing of it is left


class PhotoVAE(nn.Module):
    """A variational autoencoder of photographs of any size.

    Parameters
    ----------
    latent : int
        Channels of the latents; 64 in the paper.
    width : int
        Channels at full size; four times as many at a quarter of it.
    blocks : int
        Residual blocks at a quarter of the size, in the encoder and in the decoder.

    Attributes
    ----------
    multiple : int
        4: pixels of a latent's side.

    Examples
    --------
    >>> net = PhotoVAE()
    >>> sum(p.numel() for p in net.parameters())
    1655651
    >>> made, posterior = net(torch.rand(1, 3, 37, 50))
    >>> made.shape, posterior.mean.shape
    (torch.Size([1, 3, 37, 50]), torch.Size([1, 64, 10, 13]))
    """

    multiple = CELL

    def __init__(self, latent: int = 64, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        fine, middle, coarse = width, 2 * width, 4 * width
        self.encoder = nn.Sequential(
            steady(nn.Conv2d(3, fine, 5, padding=2)),
            nn.LeakyReLU(SLOPE),
            steady(nn.Conv2d(fine, middle, 2, 2)),
            _Residual(middle),
            steady(nn.Conv2d(middle, coarse, 2, 2)),
            *(_Residual(coarse) for _ in range(blocks)),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(coarse, 2 * latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            steady(nn.Conv2d(latent, coarse, 3, padding=1)),
            *(_Residual(coarse) for _ in range(blocks)),
            steady(nn.Conv2d(coarse, 4 * middle, 1)),
            nn.PixelShuffle(2),
            _Residual(middle),
            steady(nn.Conv2d(middle, 4 * fine, 1)),
            nn.PixelShuffle(2),
            _Residual(fine),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(fine, 3, 5, padding=2),
        )

    def encode(self, image: Tensor) -> Posterior:
        """Give the latents of images (N, 3, H, W), RGB, 0..1: (N, latent, ceil(H / 4), ceil(W / 4)), float32."""
        mean, log_variance = full(self.encoder(cells((image - 0.5) / SPREAD, CELL))).chunk(2, dim=1)
        # Smooth limits: a latent that is out of bounds still has a gradient.
        return Posterior(mean, LIMIT * torch.tanh(log_variance / LIMIT))

    def decode(self, latent: Tensor) -> Tensor:
        """Give images of about 0..1, not clipped, four times as large: float32."""
        return SPREAD * full(self.decoder(latent)) + 0.5

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Encode and decode.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        noise : Tensor, of the latents' shape, optional
            Standard normal, for a sample of the posterior; without it its mean is decoded.

        Returns
        -------
        made : Tensor of float32, (N, 3, H, W)
            About 0..1, not clipped.
        posterior : Posterior
        """
        posterior = self.encode(image)
        made = self.decode(posterior.mean if noise is None else posterior.sample(noise))
        return made[..., : image.shape[-2], : image.shape[-1]], posterior


class LatentDiscriminator(nn.Module):
    """Tells latents of real old photographs from those of synthetic ones, at each place (section 3.1).

    Parameters
    ----------
    latent : int
        Channels of the latents.
    width : int
        Channels of its own.

    Examples
    --------
    >>> LatentDiscriminator(64)(torch.rand(2, 64, 16, 24)).shape
    torch.Size([2, 1, 8, 12])
    """

    def __init__(self, latent: int = 64, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(latent, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Judge latents (N, latent, h, w): (N, 1, h / 2, w / 2), float32, 1 for real and 0 for synthetic."""
        return full(self.layers(latent))


class PartialNonlocal(nn.Module):
    """Attention that reads undamaged places only; damaged places take what it finds, the others go on by themselves.

    Wan et al. 2020, section 3.2: ``F = (1 - m) rho_local(F) + m rho_global(O)``, with O what attention finds.

    Differs from the paper: a place attends to its window of `window` x `window` places and `halo` more on each side,
    not to the whole image.

    Parameters
    ----------
    width : int
        Channels.
    window, halo : int
        Places.

    Examples
    --------
    >>> net = PartialNonlocal(8, window=4, halo=2)
    >>> net(torch.rand(1, 8, 8, 12), torch.zeros(1, 1, 8, 12)).shape
    torch.Size([1, 8, 8, 12])
    """

    def __init__(self, width: int, window: int = 16, halo: int = 8) -> None:
        super().__init__()
        self.window, self.halo = window, halo
        self.depth = max(width // 2, 1)
        self.query = nn.Conv2d(width, self.depth, 1)
        self.key_value = nn.Conv2d(width, 2 * self.depth, 1)
        self.leave = nn.Conv2d(self.depth, width, 1)
        self.around = residual_block(width)
        self.alone = residual_block(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Apply.

        Parameters
        ----------
        x : Tensor, (N, width, h, w)
            Sides multiples of `window`.
        mask : Tensor of float32, (N, 1, h, w)
            1 where damaged.

        Returns
        -------
        Tensor, (N, width, h, w)
        """
        found = full(self.leave(self._attend(x, mask)))
        found = found + self.around(found)
        return x + (1 - mask) * self.alone(x) + mask * found

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        count, _, height, width = x.shape
        window, wide = self.window, self.window + 2 * self.halo
        rows, cols = height // window, width // window
        query = full(self.query(x)).unfold(2, window, window).unfold(3, window, window)
        query = query.permute(0, 2, 3, 4, 5, 1).reshape(-1, window**2, self.depth)
        # What lies beyond the image is as good as damaged.
        around = (self.halo,) * 4
        known = functional.pad(1 - mask, around).unfold(2, wide, window).unfold(3, wide, window)
        known = known.permute(0, 2, 3, 1, 4, 5).reshape(-1, 1, wide**2)
        both = functional.pad(full(self.key_value(x)), around).unfold(2, wide, window).unfold(3, wide, window)
        key, value = both.permute(0, 2, 3, 4, 5, 1).reshape(-1, wide**2, 2 * self.depth).chunk(2, dim=2)
        score = query @ key.transpose(1, 2) * self.depth**-0.5
        share = (score + HIDDEN * (1 - known)).softmax(2) * known
        found = (share @ value).reshape(count, rows, cols, window, window, self.depth)
        return found.permute(0, 5, 1, 3, 2, 4).reshape(count, self.depth, height, width)


class Mapping(nn.Module):
    """From latents of an old photograph to those of a clean one.

    Parameters
    ----------
    latent : int
        Channels of the latents.
    width : int
        Channels of its own; up to 512 in the paper.
    blocks : int
        Residual blocks, half of them before the partial nonlocal block.
    window, halo : int
        As of `PartialNonlocal`.

    Examples
    --------
    >>> sum(p.numel() for p in Mapping().parameters())
    2546240
    """

    def __init__(self, latent: int = 64, width: int = 128, blocks: int = 6, window: int = 16, halo: int = 8) -> None:
        super().__init__()
        self.enter = steady(nn.Conv2d(latent, width, 3, padding=1))
        self.before = nn.Sequential(*(_Residual(width) for _ in range(blocks // 2)))
        self.nonlocal_block = PartialNonlocal(width, window, halo)
        self.after = nn.Sequential(*(_Residual(width) for _ in range(blocks - blocks // 2)))
        self.leave = nn.Conv2d(width, latent, 3, padding=1)
        # The latents of two autoencoders differ by more than a correction.
        self.turn = nn.Conv2d(latent, latent, 1)

    def forward(self, latent: Tensor, mask: Tensor) -> Tensor:
        """Map latents (N, latent, h, w), with sides of multiples of the window and a mask (N, 1, h, w): float32."""
        x = self.after(self.nonlocal_block(self.before(full(self.enter(latent))), mask))
        return full(self.turn(latent)) + self.leave(functional.leaky_relu(x, SLOPE))


class Triplet(nn.Module):
    """What restores: the encoder of old photographs, the mapping, the decoder of clean ones.

    Parameters
    ----------
    latent, vae_width, vae_blocks : int
        As of `PhotoVAE`.
    width, blocks, window, halo : int
        As of `Mapping`.

    Attributes
    ----------
    scale : int
        1: the output has the input's size.
    multiple : int
        Pixels of a window: tiles begin at multiples of it.
    receptive_radius : int
        Pixels on each side that an output pixel depends on at most: the halo of a tile, once rounded up to `multiple`.

    Examples
    --------
    >>> net = Triplet()
    >>> image, mask = torch.rand(1, 3, 70, 50), torch.zeros(1, 1, 70, 50)
    >>> net(image, mask).shape, net.multiple, net.receptive_radius
    (torch.Size([1, 3, 70, 50]), 64, 213)
    """

    scale = 1

    def __init__(
        self,
        latent: int = 64,
        vae_width: int = 32,
        vae_blocks: int = 2,
        width: int = 128,
        blocks: int = 6,
        window: int = 16,
        halo: int = 8,
    ) -> None:
        super().__init__()
        self.old = PhotoVAE(latent, vae_width, vae_blocks)
        self.clean = PhotoVAE(latent, vae_width, vae_blocks)
        # Only half of each is needed.
        del self.old.decoder, self.clean.encoder
        self.mapping = Mapping(latent, width, blocks, window, halo)
        self.multiple = CELL * window
        self.receptive_radius = max(_reach(phase, vae_blocks, blocks, window, halo) for phase in range(self.multiple))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Restore.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        mask : Tensor of float32, (N, 1, H, W)
            1 = damaged, 0 = not.

        Returns
        -------
        Tensor of float32, (N, 3, H, W)
            About 0..1, not clipped.
        """
        return self.both(image, mask)[0]

    def both(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Restore, and give the `latents` that were decoded."""
        latents = self.latents(image, mask)
        return self.clean.decode(latents)[..., : image.shape[-2], : image.shape[-1]], latents

    def latents(self, image: Tensor, mask: Tensor) -> Tensor:
        """Give the clean photograph's latents, as far as the old one tells: of a size that is a multiple of a window's.

        A place of the latents is damaged if any of its pixels is.
        """
        height, width = image.shape[-2:]
        beyond = (0, -width % self.multiple, 0, -height % self.multiple)
        marked = functional.max_pool2d(functional.pad(mask, beyond, value=1.0), CELL)
        return self.mapping(self.old.encode(cells(image, self.multiple)).mean, marked)


class _Residual(nn.Module):
    """`velatura.nets.unet.residual_block` with its sum, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = residual_block(width)

    def forward(self, x: Tensor) -> Tensor:
        return full(x) + self.layers(x)


def _reach(phase: int, vae_blocks: int, blocks: int, window: int, halo: int) -> int:
    """How far the output at a place within a window looks, by following what it needs back through the layers."""
    low = high = phase

    def wider(by: int) -> None:
        nonlocal low, high
        low, high = low - by, high + by

    # The decoder: convolution of 5x5, block; half the size, block; a quarter of it, blocks, convolution.
    wider(2 + 2)
    low, high = low // 2, high // 2
    wider(2)
    low, high = low // 2, high // 2
    wider(2 * vae_blocks + 1)
    # The mapping.
    wider(1 + 2 * (blocks - blocks // 2) + 2)
    low, high = low // window * window - halo, (high // window + 1) * window - 1 + halo
    wider(2 * (blocks // 2) + 1)
    # The encoder.
    wider(1 + 2 * vae_blocks)
    low, high = 2 * low, 2 * high + 1
    wider(2)
    low, high = 2 * low, 2 * high + 1
    wider(2)
    return max(phase - low, high - phase)
