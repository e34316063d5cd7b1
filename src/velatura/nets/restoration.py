"""A restorer: an old scan and its damage in, what it was out.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), go through the latents of two autoencoders
(`velatura.nets.triplet`). This is the direct way, which the paper has for comparison, as a compact U-Net: it gives a
correction of the scan, so that a clean one needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from velatura.nets.unet import SPREAD, UNet

__all__ = ["Restorer"]


class Restorer(nn.Module):
    """Undo noise, blur, blocks and, where the mask says so, damage.

    Parameters
    ----------
    widths, blocks : sequence of int
        As of `velatura.nets.unet.UNet`.

    Attributes
    ----------
    scale : int
        1: the output has the input's size.
    multiple, receptive_radius : int
        As of `velatura.nets.unet.UNet`.

    Notes
    -----
    The network sees the scan under the mask, too: scratches and stains are often translucent. Before it is trained it
    gives the scan.

    Examples
    --------
    >>> net = Restorer()
    >>> sum(p.numel() for p in net.parameters())
    1820435
    >>> image, mask = torch.rand(1, 3, 37, 50), torch.zeros(1, 1, 37, 50)
    >>> bool((net(image, mask) == image).all()), net.multiple, net.receptive_radius
    (True, 8, 101)
    """

    scale = 1

    def __init__(self, widths: Sequence[int] = (32, 48, 96, 128), blocks: Sequence[int] = (1, 1, 2, 3)) -> None:
        super().__init__()
        self.unet = UNet(4, 3, widths, blocks)
        self.multiple, self.receptive_radius = self.unet.multiple, self.unet.receptive_radius

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
        return image + self.unet(torch.cat([(image - 0.5) / SPREAD, mask], 1))
