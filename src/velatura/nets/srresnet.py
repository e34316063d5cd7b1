"""SRResNet: residual blocks at the input's size, enlarged at the very end.

Paper: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", 2016
(arXiv 1609.04802), section 2.1 and figure 4.

Differs from the paper: no batch norm (``norm=True`` brings it back), because its statistics blur the range of single
images; what the network gives is added to the bicubic enlargement (``residual=False``: it is the image itself; in one
probe of 110 steps each, before the doublings had their present first weights, five held-out images stood at 22.92 dB
without and 25.21 with it, bicubic at 24.81); the convolutions of the blocks start at a tenth of their size, as those of
ESRGAN (Wang et al. 2018, section 3.1) do, where no norm holds them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.nets.inference import before_shuffle
from velatura.nets.rows import WHOLE, Rows
from velatura.nets.srcnn import Bicubic

__all__ = ["SRResNet"]

ENDS = 9  # SRGAN figure 4: k9 at both ends, k3 between
SLOPE = 0.25  # of a new PReLU, He et al. 2015
SMALLER = 0.1  # of the first weights: ESRGAN section 3.1, "smaller initialization"


class SRResNet(nn.Module):
    """Enlarge by 2 or 4.

    Parameters
    ----------
    scale : {2, 4}
        How many times larger the output is; each doubling is one stage of convolution and pixel shuffle.
    width : int
        Channels.
    blocks : int
        Residual blocks.
    norm : bool
        Batch norm behind every convolution of the body, as in the paper.
    residual : bool
        Whether the output is the bicubic enlargement and a correction; without it, the image itself.

    Attributes
    ----------
    receptive_radius : int
        Pixels of the *input* on each side that an output pixel depends on, exactly: the halo of a tile.

    Raises
    ------
    ValueError
        Another scale.

    Notes
    -----
    Under bfloat16 autocast only the convolutions round: the trunk, to which sixteen blocks add, stays float32.

    Differs from the paper: see the module.

    Examples
    --------
    >>> net = SRResNet()
    >>> sum(p.numel() for p in net.parameters())
    1545238
    >>> net(torch.rand(1, 3, 12, 16)).shape, net.receptive_radius
    (torch.Size([1, 3, 48, 64]), 40)
    """

    def __init__(
        self, scale: int = 4, width: int = 64, blocks: int = 16, norm: bool = False, residual: bool = True
    ) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise ValueError(f"got scale {scale}; expected 2 or 4")
        self.scale, self.residual = scale, residual
        doublings = scale // 2
        self.enlarge = Bicubic(scale)
        self.head = nn.Sequential(nn.Conv2d(3, width, ENDS, padding=ENDS // 2), nn.PReLU())
        self.blocks = nn.ModuleList(_block(width, norm) for _ in range(blocks))
        self.merge = nn.Sequential(*_convolution(width, norm))
        self.up = nn.Sequential(*(_doubling(width) for _ in range(doublings)))
        self.tail = nn.Conv2d(width, 3, ENDS, padding=ENDS // 2)
        if residual:
            # Begin with the bicubic enlargement.
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

        #: What `velatura.nets.inference.for_inference` keeps in float32: the image itself must not be rounded.
        self.full_precision = () if residual else ("tail",)
        reach = -(ENDS // 2)  # in output pixels, to the upper left; the lower right is its mirror image
        for _ in range(doublings):
            reach = reach // 2 - 1  # through the pixel shuffle, then a 3x3 convolution
        self.receptive_radius = -reach + 1 + 2 * blocks + ENDS // 2

    def forward(self, image: Tensor, rows: Rows = WHOLE) -> Tensor:
        """Enlarge.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        rows : Rows
            Whether the image comes whole or in bands.

        Returns
        -------
        Tensor of float32, (N, 3, scale H, scale W)
            About 0..1, not clipped.
        """
        first = rows(self.head, image - 0.5).to(image.dtype)
        trunk = first
        for block in self.blocks:
            trunk = rows.add(block, trunk, rows(block, trunk))
        x = rows.in_parts(self._enlarged, rows.add(self.merge, first, rows(self.merge, trunk)))
        return rows.add(self.tail, rows(self.enlarge, image), x) if self.residual else x + 0.5

    def _enlarged(self, x: Tensor, rows: Rows) -> Tensor:
        large = rows(self.up, x)
        if self.residual:
            return rows(self.tail, large)
        # The image itself must not be rounded to what bfloat16 can hold.
        with torch.autocast(x.device.type, enabled=False):
            return rows(self.tail, large.to(x.dtype))

    def fold(self) -> None:
        """Compute the last layer before the last pixel shuffle, for inference: the same output, a quarter faster."""
        last = self.up[-1]
        assert isinstance(last, nn.Sequential)
        assert isinstance(self.tail, nn.Conv2d)
        convolution, shuffle, activation = last
        self.up[-1] = nn.Sequential(convolution, activation)
        self.tail = nn.Sequential(before_shuffle(self.tail, 2), shuffle)


def _block(width: int, norm: bool) -> nn.Sequential:
    """Give one residual block of figure 4, without its sum."""
    return nn.Sequential(*_convolution(width, norm), nn.PReLU(), *_convolution(width, norm))


def _doubling(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, 4 * width, 3, padding=1)
    # The signal keeps its size up to the tail, which is all that learns at first.
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.PixelShuffle(2), nn.PReLU())


def _convolution(width: int, norm: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=not norm)
    if norm:
        return [convolution, nn.BatchNorm2d(width)]
    nn.init.kaiming_normal_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        convolution.weight.mul_(SMALLER)
    return [convolution]
