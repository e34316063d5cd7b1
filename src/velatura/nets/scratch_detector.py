"""A detector of scratches, holes, stains and the like: which pixels of a scan are damaged.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), section 4.1, find scratches by a U-Net.

Differs from the paper: it works at the scan's own size, in tiles, where the published code shrinks scans to 256 pixels;
no norms, so that tiles give what the whole gives; a few hundred thousand weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from velatura.nets.unet import SPREAD, UNet

__all__ = ["ScratchDetector"]

RARE = -3.0  # logit of about a twentieth: as rare as damage is, so that training need not begin by learning that


class ScratchDetector(nn.Module):
    """Give each pixel the logit of being damaged.

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

    Examples
    --------
    >>> import torch
    >>> net = ScratchDetector()
    >>> sum(p.numel() for p in net.parameters())
    388073
    >>> net(torch.rand(1, 3, 37, 50)).shape, net.multiple, net.receptive_radius
    (torch.Size([1, 1, 37, 50]), 8, 69)
    """

    scale = 1

    def __init__(self, widths: Sequence[int] = (16, 24, 48, 80), blocks: Sequence[int] = (1, 1, 1, 2)) -> None:
        super().__init__()
        self.unet = UNet(3, 1, widths, blocks)
        nn.init.constant_(self.unet.leave.bias, RARE)  # type: ignore[arg-type]
        self.multiple, self.receptive_radius = self.unet.multiple, self.unet.receptive_radius

    def forward(self, image: Tensor) -> Tensor:
        """Judge images (N, 3, H, W), RGB, 0..1: float32 logits, (N, 1, H, W)."""
        return self.unet((image - 0.5) / SPREAD)
