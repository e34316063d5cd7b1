"""VAE: an encoder and a generator of small images that share a latent space.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013 (arXiv 1312.6114), section 3 and appendix C; the
report on brain scans puts it in the place of the GAN of Yeh et al. 2017 (arXiv 1607.07539).

Differs from the paper: convolutions; the encoder may be shown an image with a hole and then tells which latents the
known pixels leave open (`velatura.nets.masked_encoder`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.nets.dcgan import Generator
from velatura.nets.masked_encoder import MaskedEncoder, Posterior

__all__ = ["VAE"]


class VAE(nn.Module):
    """Encoder and decoder.

    Parameters
    ----------
    latent, channels, size, width, kernel, basis, seeing
        As of `velatura.nets.dcgan.Generator`, which is the decoder. A seeing one is shown what the encoder saw around a
        hole (Ivanov et al. 2019, section 4.3), so that latents need not tell it; of an image without a hole, or of no
        image, it knows the latents alone.
    mirrored
        As of `velatura.nets.masked_encoder.MaskedEncoder`, which is the encoder.

    Attributes
    ----------
    encoder : MaskedEncoder
    decoder : Generator

    Raises
    ------
    ValueError
        The size is no multiple of 16, or the kernel is even.

    Examples
    --------
    >>> import torch
    >>> net = VAE().eval()
    >>> [sum(p.numel() for p in part.parameters()) for part in (net.encoder, net.decoder)]
    [2843472, 2673084]
    >>> image, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    >>> made, posterior = net(image, mask)
    >>> made.shape, bool((made == net.decoder(posterior.mean)).all())
    (torch.Size([2, 3, 64, 64]), True)
    """

    def __init__(
        self,
        latent: int = 192,
        channels: int = 3,
        size: int = 64,
        width: int = 48,
        kernel: int = 3,
        basis: int = 0,
        seeing: bool = False,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = MaskedEncoder(latent, channels, size, width, kernel, basis, mirrored)
        self.decoder = Generator(latent, channels, size, width, kernel, basis=basis, seeing=seeing)

    @torch.no_grad()
    def begin(self, images: Tensor) -> None:
        """Begin with what matrices can do: latents are principal components of `images`, convolutions add nothing.

        Parameters
        ----------
        images : Tensor of float32, (N, channels, size, size)
            0..1; more of them than there are latents.

        Notes
        -----
        See `velatura.nets.dcgan.Generator.begin`; the encoder begins with the posterior of that model.
        """
        self.decoder.begin(images)
        self.encoder.basis.copy_(self.decoder.basis)
        self.encoder.centre.copy_(self.decoder.centre + 0.5)
        for weights in self.encoder.tell.parameters():
            weights.zero_()

    def forward(self, image: Tensor, mask: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior]:
        """Encode and decode.

        Parameters
        ----------
        image : Tensor of float32, (N, channels, size, size)
            0..1.
        mask : Tensor of float32, (N, 1, size, size)
            1 = hole; all zero for the plain autoencoder.
        noise : Tensor, (N, latent), optional
            Standard normal, for a sample of the posterior; without it its mean is decoded.

        Returns
        -------
        made : Tensor of float32, (N, channels, size, size)
            About 0..1, not clipped; the known pixels are *not* put back.
        posterior : Posterior
        """
        posterior, seen = self.encoder.look(image, mask)
        z = posterior.mean if noise is None else posterior.sample(noise)
        if not self.decoder.seeing:
            return self.decoder(z), posterior
        holed = mask.amax((1, 2, 3), keepdim=True)
        return self.decoder(z, [maps * holed.to(maps.dtype) for maps in seen]), posterior
