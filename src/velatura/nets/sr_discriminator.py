"""Discriminators of super-resolution: what tells photographs from what a generator made of their low resolution.

Papers: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", 2016
(arXiv 1609.04802), section 2.1.1 and figure 4, which ESRGAN (Wang et al. 2018, arXiv 1809.00219) keeps; Wang et al.,
"Real-ESRGAN", 2021 (arXiv 2107.10833), section 3.3 and figure 6.

Differs from the papers: a quarter to a half of their channels; SRGAN's discriminator has spectral norm in place of
batch norm (``norm="batch"`` is the paper's), whose statistics of a few patches tell real from fake by themselves, and
judges every place of the last map, not the patch as a whole (``window=6`` is the paper's, for patches of 96 pixels).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["Discriminator", "UNetDiscriminator"]

SLOPE = 0.2  # of the leaky ReLU, SRGAN section 2.1.1


class Discriminator(nn.Module):
    """SRGAN's: eight convolutions, of which every second halves the map, and two dense layers.

    Parameters
    ----------
    width : int
        Channels of the first convolution, doubled at each halving but the first; 64 in the paper.
    dense : int
        Width of the first dense layer; 1024 in the paper.
    window : int
        Places of 16 pixels, each way, that one judgement covers: the dense layers slide over the last map.
    norm : {"spectral", "batch", "none"}
        Of all convolutions but the first, where the paper has batch norm.

    Examples
    --------
    >>> import torch
    >>> Discriminator(width=8, dense=16)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1, 4, 4])
    >>> paper = Discriminator(64, 1024, window=6, norm="batch")
    >>> paper(torch.rand(2, 3, 96, 96)).shape, sum(p.numel() for p in paper.parameters())
    (torch.Size([2, 1, 1, 1]), 23563649)
    """

    def __init__(
        self,
        width: int = 32,
        dense: int = 256,
        window: int = 1,
        norm: Literal["spectral", "batch", "none"] = "spectral",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(SLOPE)]
        inputs = width
        for factor, stride in zip((1, 2, 2, 4, 4, 8, 8), (2, 1, 2, 1, 2, 1, 2), strict=True):
            outputs = factor * width
            convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=norm != "batch")
            layers.append(spectral_norm(convolution) if norm == "spectral" else convolution)
            if norm == "batch":
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(SLOPE))
            inputs = outputs
        layers += [nn.Conv2d(inputs, dense, window), nn.LeakyReLU(SLOPE), nn.Conv2d(dense, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Judge images (N, 3, H, W) of 0..1: a Tensor (N, 1, h, w) of logits, one per window of places."""
        return self.layers(image - 0.5).float()


class UNetDiscriminator(nn.Module):
    """Real-ESRGAN's: a U-Net with spectral norm that judges every pixel.

    Parameters
    ----------
    width : int
        Channels at full size, doubled at each of three halvings; 64 in the paper.

    Examples
    --------
    >>> import torch
    >>> UNetDiscriminator(width=4)(torch.rand(2, 3, 32, 40)).shape
    torch.Size([2, 1, 32, 40])
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(fine, coarse, 4, 2, 1, bias=False)) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(coarse, fine, 3, padding=1, bias=False))
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.leave = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False)) for _ in range(2))
        self.score = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Judge images (N, 3, H, W) of 0..1, H and W multiples of 8: a Tensor (N, 1, H, W) of logits."""
        x = _leaky(self.enter(image - 0.5))
        skipped = []
        for layer in self.down:
            skipped.append(x)
            x = _leaky(layer(x))
        for layer in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _leaky(layer(x)) + skipped.pop()
        for layer in self.leave:
            x = _leaky(layer(x))
        return self.score(x).float()


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
