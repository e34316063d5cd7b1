"""From an image with a hole to the latents that may have made it: what replaces the search of semantic inpainting.

Yeh et al., "Semantic Image Inpainting with Deep Generative Models", 2017 (arXiv 1607.07539), find the latent of a
generator whose image agrees with the known pixels by 1500 steps of gradient descent, anew for each image and from a
random start. This network gives it at once, as a distribution: ``q(z | known pixels)``, normal with a diagonal
covariance, as of a variational autoencoder (Kingma and Welling 2013, arXiv 1312.6114, section 3) whose encoder is
conditioned on any part of the image (Ivanov et al. 2019, arXiv 1806.02382). With no hole it is the posterior of the
image, with nothing known the prior; its spread is what the known pixels leave open.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.dcgan import HALVINGS, SLOPE, Trunk

__all__ = ["MaskedEncoder", "Posterior", "linear_posterior", "membrane"]

LIMIT = 8.0  # of the logarithm of a variance, either way: its exponential must stay a number
# Variance of what the basis leaves of a pixel. Chosen on 150 training faces with 256 components of 32x32 pixels of the
# others; PSNR of fills of centre, half, random holes: .0075: 26.54, 20.40, 25.79; .0125: 26.65, 20.47, 25.72; .02:
# 26.67, 20.47, 25.63 dB.
NOISE = 0.0125
STIFF = 1e3  # how much stronger a known pixel holds than its neighbours pull
FINE_SWEEPS, SWEEPS = 8, 16  # of Jacobi's method at full size and at the others


class Posterior(NamedTuple):
    """A normal distribution of latents with a diagonal covariance.

    Attributes
    ----------
    mean, log_variance : Tensor of float32, (N, latent)
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Give ``mean + deviation * noise``, (N, latent), for standard normal `noise` of this shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self, other: Posterior | None = None) -> Tensor:
        """Kullback-Leibler divergence from `other`, or from the prior N(0, 1), in nats.

        Returns
        -------
        Tensor, (N, latent)
            Per number, because free bits are counted so.

        Examples
        --------
        >>> one = Posterior(torch.ones(1, 2), torch.zeros(1, 2))
        >>> one.divergence(), one.divergence(one)
        (tensor([[0.5000, 0.5000]]), tensor([[0., 0.]]))
        """
        mean, log_variance = (torch.zeros_like(self.mean),) * 2 if other is None else other
        apart = (self.mean - mean).square() + self.log_variance.exp()
        return 0.5 * (log_variance - self.log_variance + apart / log_variance.exp() - 1)


class MaskedEncoder(nn.Module):
    """Image and mask in, distribution of latents out.

    The network sees the image with a membrane over its hole (`membrane`), the mask, and the known pixels alone.

    Parameters
    ----------
    latent, channels, size, width, kernel, basis
        As of `velatura.nets.dcgan.Generator`, whose latents it tells. With a basis the network starts from what the
        known pixels say of the latents if the basis were all that there is (`linear_posterior`), sees the image of
        that in place of the membrane, and learns what is to be changed.
    mirrored : bool
        Whether the network sees the known pixels from the right to the left, too: of a brain the other side tells.

    Raises
    ------
    ValueError
        The size is no multiple of 16, or the kernel is even.

    Examples
    --------
    >>> net = MaskedEncoder(latent=128)
    >>> sum(p.numel() for p in net.parameters())
    2646736
    >>> mask = torch.zeros(2, 1, 64, 64)
    >>> mask[:, :, 16:48, 16:48] = 1
    >>> posterior = net(torch.rand(2, 3, 64, 64), mask)
    >>> posterior.mean.shape, posterior.log_variance.shape
    (torch.Size([2, 128]), torch.Size([2, 128]))
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
        basis: int = 0,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        if size % 2**HALVINGS or kernel % 2 == 0:
            raise ValueError(f"got size {size}, kernel {kernel}; expected a multiple of {2**HALVINGS}, an odd kernel")
        self.latent, self.channels, self.size, self.mirrored = latent, channels, size, mirrored
        self.trunk = Trunk(2 * channels + 1 + mirrored * (channels + 1), width, kernel, norm="pixel")
        self.squeeze = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.tell = nn.Linear(2 * width * (size >> HALVINGS) ** 2, 2 * latent)
        if basis:
            self.register_buffer("centre", torch.zeros(channels, basis, basis))
            self.register_buffer("basis", torch.zeros(latent, channels, basis, basis))

    def forward(self, image: Tensor, mask: Tensor) -> Posterior:
        """Tell the latents.

        Parameters
        ----------
        image : Tensor of float32, (N, channels, size, size)
            0..1; what it holds under the mask is never read.
        mask : Tensor of float32, (N, 1, size, size)
            1 = hole, 0 = known.

        Returns
        -------
        Posterior
        """
        return self.look(image, mask)[0]

    def look(self, image: Tensor, mask: Tensor) -> tuple[Posterior, list[Tensor]]:
        """Tell the latents, and what was seen on the way: the trunk's maps, the largest first."""
        known = 1 - mask
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            guess = self._guess(image, known) if hasattr(self, "basis") else None
            filled = membrane(image, mask) if guess is None else known * image + mask * self._image(guess.mean)
        shown = [(2 * image - 1) * known, mask]
        if self.mirrored:
            shown += [planes.flip(-1) for planes in shown]
        maps = self.trunk.maps(torch.cat([2 * filled - 1, *shown], dim=1))
        x = functional.leaky_relu(self.squeeze(functional.leaky_relu(maps[-1], SLOPE)), SLOPE)
        mean, log_variance = self.tell(x.flatten(1)).float().chunk(2, dim=1)
        if guess is not None:
            mean, log_variance = mean + guess.mean, log_variance + guess.log_variance
        # Smooth limits: a latent that is out of bounds still has a gradient.
        return Posterior(mean, LIMIT * torch.tanh(log_variance / LIMIT)), maps

    def _guess(self, image: Tensor, known: Tensor) -> Posterior:
        """Tell the latents by the basis alone, from what is known of each of its pixels."""
        side = self.basis.shape[-2:]
        share = functional.interpolate(known, side, mode="area")
        held = functional.interpolate(known * image, side, mode="area") - share * self.centre
        return linear_posterior(self.basis.flatten(1), held.flatten(1), share.expand_as(held).flatten(1))

    def _image(self, z: Tensor) -> Tensor:
        """Give the image that the basis makes of latents, enlarged."""
        small = self.centre + torch.einsum("nl,lchw->nchw", z, self.basis)
        return functional.interpolate(small, (self.size, self.size), mode="bilinear", align_corners=False)


def linear_posterior(basis: Tensor, held: Tensor, share: Tensor, noise: float = NOISE) -> Posterior:
    """Tell the latents of a linear model from some of its pixels: probabilistic principal components.

    Tipping and Bishop 1999, "Probabilistic Principal Component Analysis", section 3.3: latents z ~ N(0, 1) make pixels
    ``x = basis^T z + noise``. The posterior, given some pixels, is normal; its precision is
    ``1 + basis S basis^T / noise`` with S the shares of the pixels that are known.

    Parameters
    ----------
    basis : Tensor of float32, (latent, D)
    held : Tensor of float32, (N, D)
        Known pixels less their mean, times their shares.
    share : Tensor of float32, (N, D)
        0..1: how much of each pixel is known.
    noise : float
        Variance of what the model leaves of a pixel.

    Returns
    -------
    Posterior
        The covariance's diagonal alone.

    Examples
    --------
    >>> basis, held = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    >>> found = linear_posterior(basis, held, torch.tensor([[1.0, 0.0]]), noise=1.0)
    >>> found.mean, found.log_variance.exp()
    (tensor([[1.]]), tensor([[0.5000]]))
    """
    # Images with one mask have one precision: it is computed once.
    masks, which = torch.unique(share, dim=0, return_inverse=True)
    precision = (masks[:, None] * basis) @ basis.T
    factor = torch.linalg.cholesky(precision / noise + torch.eye(len(basis), device=basis.device))
    mean = torch.cholesky_solve((held @ basis.T / noise)[..., None], factor[which])[..., 0]
    variance = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)[which]
    return Posterior(mean, variance.log())


def membrane(image: Tensor, mask: Tensor) -> Tensor:
    """Span a membrane over the hole from the pixels around it: nearly, coarse to fine, for small images.

    `velatura.ops.poisson.membrane` is exact. This one is a few sums and runs on any device, for whole batches; its
    gradient is that of a linear map of `image`.

    Parameters
    ----------
    image : Tensor, (N, C, H, W)
        Values of known pixels; nothing is read where the mask is 1.
    mask : Tensor, (N, 1, H, W)
        1 = hole.

    Returns
    -------
    Tensor, (N, C, H, W)
        `image` where the mask is 0; zero if nothing is known.

    Examples
    --------
    >>> image, mask = torch.full((1, 1, 16, 16), 0.25), torch.zeros(1, 1, 16, 16)
    >>> mask[..., 4:12, 4:12] = 1
    >>> bool((membrane(image, mask) - 0.25).abs().max() < 1e-3)
    True
    """
    known = 1 - mask
    holds, held = [known], [known * image]
    while min(holds[-1].shape[-2:]) > 1:
        holds.append(functional.avg_pool2d(holds[-1], 2))
        held.append(functional.avg_pool2d(held[-1], 2))
    hold, pulled = (planes.sum((2, 3), keepdim=True) for planes in (holds[-1], held[-1]))
    u = pulled / (hold + 1e-6)
    for hold, pulled in zip(holds[::-1], held[::-1], strict=True):
        # Where no pixel is known the neighbours alone decide; elsewhere they hardly count.
        share = 1 / (STIFF * hold + 4)
        given = STIFF * pulled * share
        u = functional.interpolate(u, hold.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(FINE_SWEEPS if hold is known else SWEEPS):
            padded = functional.pad(u, (1, 1, 1, 1), mode="replicate")
            columns = padded[..., 1:-1, :]
            around = columns[..., :-2] + columns[..., 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
            u = torch.addcmul(given, share, around)
    return known * image + mask * u
