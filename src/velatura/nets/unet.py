"""A U-Net of residual blocks that looks at images of any size, and knows exactly how far it sees.

Ronneberger et al., "U-Net", 2015 (arXiv 1505.04597), figure 1.

Differs from the paper: residual blocks in place of plain convolutions; maps are halved by a convolution of 2x2 pixels
and doubled by a pixel shuffle, both of which stay within their cells, so that tiles which begin at multiples of the
coarsest cell give what the whole image gives; skipped maps are added; borders are padded; no norms, whose statistics
over an image would differ from tile to tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SPREAD", "UNet", "cells", "full", "residual_block", "steady"]

SLOPE = 0.1  # of LeakyReLU: no place without a gradient
SPREAD = 0.25  # about one standard deviation of photographs
SMALLER = 0.1  # of the first weights, where no norm holds the sum of the blocks: ESRGAN section 3.1


class UNet(nn.Module):
    """From `inputs` to `outputs` channels, at the same size.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    widths : sequence of int
        Channels of each level, from fine to coarse; each level has half the size of the one before.
    blocks : sequence of int
        Residual blocks of each level: as many on the way down as on the way up, the coarsest level's once.

    Attributes
    ----------
    multiple : int
        Pixels of the coarsest cell: tiles begin at multiples of it.
    receptive_radius : int
        Pixels on each side that an output pixel depends on at most: the halo of a tile, once rounded up to `multiple`.

    Raises
    ------
    ValueError
        As many blocks as widths are wanted.

    Notes
    -----
    The last layer starts at zero. Under bfloat16 autocast only the convolutions round: what blocks add to stays
    float32.

    Examples
    --------
    >>> net = UNet(4, 3, (8, 16), (1, 2))
    >>> net(torch.rand(1, 4, 21, 30)).shape, net.multiple, net.receptive_radius
    (torch.Size([1, 3, 21, 30]), 2, 15)
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"got {len(widths)} widths and {len(blocks)} numbers of blocks; expected one per level")
        self.enter = steady(nn.Conv2d(inputs, widths[0], 3, padding=1))
        fine = list(zip(widths[:-1], widths[1:], blocks[:-1], strict=True))
        self.before = nn.ModuleList(_blocks(a, count) for a, _, count in fine)
        self.down = nn.ModuleList(steady(nn.Conv2d(a, b, 2, 2)) for a, b, _ in fine)
        self.middle = _blocks(widths[-1], blocks[-1])
        self.up = nn.ModuleList(nn.Sequential(steady(nn.Conv2d(b, 4 * a, 1)), nn.PixelShuffle(2)) for a, b, _ in fine)
        self.after = nn.ModuleList(_blocks(a, count) for a, _, count in fine)
        self.leave = nn.Conv2d(widths[0], outputs, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.multiple = 2 ** len(fine)
        self.receptive_radius = max(_reach(phase, blocks) for phase in range(self.multiple))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (N, inputs, H, W) of any size: float32, (N, outputs, H, W)."""
        height, width = x.shape[-2:]
        x = full(self.enter(cells(x, self.multiple)))
        skipped = []
        for blocks, down in zip(self.before, self.down, strict=True):
            x = _through(blocks, x)
            skipped.append(x)
            x = full(down(x))
        x = _through(self.middle, x)
        for up, blocks in zip(reversed(self.up), reversed(self.after), strict=True):
            x = _through(blocks, full(up(x)) + skipped.pop())
        return full(self.leave(x))[..., :height, :width]


def cells(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples of a number.

    Examples
    --------
    >>> cells(torch.rand(1, 1, 3, 8), 4).shape
    torch.Size([1, 1, 4, 8])
    """
    height, width = x.shape[-2:]
    if height % multiple == width % multiple == 0:
        return x
    return functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def steady(convolution: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution so that what comes out varies as much as what goes in, and give it back.

    Without norms, torch's own start would leave a twentieth of a signal behind four of them.
    """
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def full(x: Tensor) -> Tensor:
    """Bring what a convolution has rounded under autocast back to float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def residual_block(width: int) -> nn.Sequential:
    """Give two convolutions of 3x3 with an activation before each, without their sum."""
    layers: list[nn.Module] = []
    for _ in range(2):
        convolution = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        layers += [nn.LeakyReLU(SLOPE), convolution]
    with torch.no_grad():
        layers[-1].weight.mul_(SMALLER)  # type: ignore[operator]
    return nn.Sequential(*layers)


def _blocks(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(residual_block(width) for _ in range(count))


def _through(blocks: nn.Module, x: Tensor) -> Tensor:
    for block in blocks:  # type: ignore[attr-defined]
        x = x + block(x)
    return x


def _reach(phase: int, blocks: Sequence[int]) -> int:
    """How far the output at a place within the coarsest cell looks, by following what it needs down and up again."""

    def needed(low: int, high: int, level: int) -> tuple[int, int]:
        wide = 2 * blocks[level]
        low, high = low - wide, high + wide
        if level < len(blocks) - 1:
            below = needed(low // 2, high // 2, level + 1)
            low, high = min(low, 2 * below[0]) - wide, max(high, 2 * below[1] + 1) + wide
        return low, high

    low, high = needed(phase - 1, phase + 1, 0)
    return max(phase - (low - 1), high + 1 - phase)
