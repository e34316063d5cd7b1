"""A face refiner: an aligned face that an old scan left unclear in, the same face clear out.

Wan et al., "Old Photo Restoration via Deep Latent Space Translation", 2022 (arXiv 2009.07047), section 3.3, generate
the face from coarse to fine and let the degraded face modulate the features at every size by spatially adaptive
normalisation (SPADE, Park et al. 2019, arXiv 1903.07291, equation 1).

Differs from the paper: what modulates is not the shrunk face itself but maps made of it on the way down; features are
normalised over the channels of each place (Karras et al. 2018, arXiv 1710.10196, section 4.2), not over a batch;
generation begins with a learned map, because all crops are aligned alike; and what is given is a correction of the
face, so that one that is clear needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.unet import SLOPE, SMALLER, SPREAD, full, residual_block, steady

__all__ = ["FaceRefiner", "Modulated"]

FLOOR = 1e-4  # of the mean square that features are divided by


class FaceRefiner(nn.Module):
    """Refine aligned faces of one size.

    Parameters
    ----------
    side : int
        Of the crops, in pixels: a multiple of ``2 ** (len(widths) - 1)``.
    widths : sequence of int
        Channels of each level, from fine to coarse; each level has half the size of the one before.
    blocks : sequence of int
        Modulated blocks of each level on the way up.

    Raises
    ------
    ValueError
        As many blocks as widths are wanted, and a side that can be halved so often.

    Notes
    -----
    Before it is trained it gives the face.

    Examples
    --------
    >>> net = FaceRefiner()
    >>> sum(p.numel() for p in net.parameters())
    1768699
    >>> face = torch.rand(1, 3, 128, 128)
    >>> bool((net(face) == face).all())
    True
    """

    def __init__(
        self,
        side: int = 128,
        widths: Sequence[int] = (24, 48, 80, 112, 128),
        blocks: Sequence[int] = (1, 1, 1, 1, 1),
    ) -> None:
        super().__init__()
        halvings = len(widths) - 1
        if len(blocks) != len(widths) or side % 2**halvings:
            raise ValueError(f"got side {side}, {len(widths)} widths, {len(blocks)} blocks; expected them to fit")
        self.side = side
        self.enter = steady(nn.Conv2d(3, widths[0], 3, padding=1))
        steps = list(pairwise(widths))
        self.before = nn.ModuleList(residual_block(width) for width in widths)
        self.down = nn.ModuleList(steady(nn.Conv2d(a, b, 2, 2)) for a, b in steps)
        self.layout = nn.Parameter(torch.randn(1, widths[-1], side >> halvings, side >> halvings) * SMALLER)
        self.up = nn.ModuleList(nn.Sequential(steady(nn.Conv2d(b, 4 * a, 1)), nn.PixelShuffle(2)) for a, b in steps)
        self.after = nn.ModuleList(
            nn.ModuleList(Modulated(width) for _ in range(count)) for width, count in zip(widths, blocks, strict=True)
        )
        self.leave = nn.Conv2d(widths[0], 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, face: Tensor) -> Tensor:
        """Refine.

        Parameters
        ----------
        face : Tensor of float32, (N, 3, side, side)
            RGB, 0..1, aligned as `velatura.faces.align` does.

        Returns
        -------
        Tensor of float32, (N, 3, side, side)
            About 0..1, not clipped.

        Raises
        ------
        ValueError
            Another size.
        """
        if face.shape[-2:] != (self.side, self.side):
            raise ValueError(f"got a face of {face.shape[-1]}x{face.shape[-2]}; expected {self.side}x{self.side}")
        seen = full(self.enter((face - 0.5) / SPREAD))
        levels = []
        for level, block in enumerate(self.before):
            seen = seen + block(seen)
            levels.append(seen)
            if level < len(self.down):
                seen = full(self.down[level](seen))
        x = self.layout.expand(len(face), -1, -1, -1)
        for level in reversed(range(len(levels))):
            if level < len(self.up):
                x = full(self.up[level](x))
            for block in self.after[level]:  # type: ignore[attr-defined]
                x = block(x, levels[level])
        return face + full(self.leave(functional.leaky_relu(x, SLOPE)))


class Modulated(nn.Module):
    """A residual block whose features are normalised, then scaled and shifted at each place by other maps.

    ``(1 + gamma(maps)) x / rms(x) + beta(maps)``, SPADE (Park et al. 2019), equation 1.

    Parameters
    ----------
    width : int
        Channels of the features and of the maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.modulations = nn.ModuleList(steady(nn.Conv2d(width, 2 * width, 1)) for _ in range(2))
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, a=SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        """Change features (N, width, H, W) by maps of the same shape."""
        y = x
        for convolution, modulation in zip(self.convolutions, self.modulations, strict=True):
            scale, shift = full(modulation(maps)).chunk(2, 1)
            y = y * (y.square().mean(1, keepdim=True) + FLOOR).rsqrt()
            y = full(convolution(functional.leaky_relu((1 + scale) * y + shift, SLOPE)))
        return x + y
