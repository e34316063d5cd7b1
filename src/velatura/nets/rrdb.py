"""RRDB-net, the generator of ESRGAN: residual-in-residual dense blocks, enlarged at the end.

Paper: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", 2018 (arXiv 1809.00219),
section 3.1 and figure 4. The names of the layers are those of the authors' published weights.

Differs from the paper: what the network gives is added to the bicubic enlargement, as in `velatura.nets.srresnet`
(``residual=False``: it is the image itself); behind the enlargement there are fewer channels, because one there costs
sixteen times what it costs before (``tail=64`` and ``width=64, growth=32, blocks=23, residual=False`` are the paper's
network, of 16.7 M weights). In 75 seconds of one core's training each, ten held-out images stood at 24.60 dB for the
SRResNet of 1.5 M weights, 24.79 for the default here, 24.79 for ``growth=24, blocks=4`` and 24.71 for ``width=64``;
bicubic at 24.07.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.rows import WHOLE, Rows
from velatura.nets.srcnn import Bicubic

__all__ = ["RRDB"]

SCALING = 0.2  # of every residual, ESRGAN section 3.1
SLOPE = 0.2  # of the leaky ReLU
SMALLER = 0.1  # of the first weights: ESRGAN section 3.1, "smaller initialization"
DENSE = 3  # dense blocks in an RRDB, figure 4
CONVOLUTIONS = 5  # in a dense block, figure 4


class RRDB(nn.Module):
    """Enlarge by 1, 2 or 4.

    Parameters
    ----------
    scale : {1, 2, 4}
        How many times larger the output is.
    width : int
        Channels of the trunk.
    growth : int
        Channels that each convolution of a dense block adds.
    blocks : int
        Residual-in-residual dense blocks.
    tail : int
        Channels behind the enlargement.
    residual : bool
        Whether the output is the bicubic enlargement and a correction; without it, the image itself.
    unshuffle : {1, 2, 4}
        Pixels of so many rows and columns become channels first, and the trunk works on an image so many times
        smaller, as Real-ESRGAN (Wang et al. 2021, section 3.2) does for scales 1 and 2. Height and width, of bands of
        rows too, must then be multiples of it.

    Attributes
    ----------
    receptive_radius : int
        Pixels of the *input* on each side that an output pixel depends on, exactly: the halo of a tile.

    Raises
    ------
    ValueError
        Another scale, or a scale of 1 with the bicubic enlargement.

    Notes
    -----
    Under bfloat16 autocast only the convolutions round: the trunk, to which the blocks add, stays float32.

    Differs from the paper: see the module.

    Examples
    --------
    >>> net = RRDB()
    >>> sum(p.numel() for p in net.parameters())
    1736547
    >>> net(torch.rand(1, 3, 12, 16)).shape, net.receptive_radius
    (torch.Size([1, 3, 48, 64]), 49)
    """

    def __init__(
        self,
        scale: int = 4,
        width: int = 48,
        growth: int = 32,
        blocks: int = 3,
        tail: int = 32,
        residual: bool = True,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        doublings = {2: 1, 4: 2}.get(scale * unshuffle)
        if scale not in (1, 2, 4) or unshuffle not in (1, 2, 4) or not doublings:
            raise ValueError(f"got scale {scale} and unshuffle {unshuffle}; expected a product of 2 or 4")
        if scale == 1 and residual:
            raise ValueError("got scale 1 with residual; expected residual=False, as nothing is enlarged")
        self.scale, self.residual, self.doublings = scale, residual, doublings
        self.unshuffle = nn.PixelUnshuffle(unshuffle)
        self.enlarge = Bicubic(scale) if residual else None
        self.repeat = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv_first = _convolution(3 * unshuffle**2, width)
        self.body = nn.ModuleList(_Block(width, growth) for _ in range(blocks))
        self.conv_body = _convolution(width, width)
        self.conv_up1 = _convolution(width, tail)
        self.conv_up2 = _convolution(tail, tail) if doublings == 2 else None
        self.conv_hr = _convolution(tail, tail)
        self.conv_last = _convolution(tail, 3)
        if residual:
            # Begin with the bicubic enlargement.
            nn.init.zeros_(self.conv_last.weight)
        #: What `velatura.nets.inference.for_inference` keeps in float32: the image itself must not be rounded.
        self.full_precision = () if residual else ("conv_last",)
        self.receptive_radius = _radius(scale, unshuffle, doublings, 2 + DENSE * CONVOLUTIONS * blocks)

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
        first = rows(self.conv_first, rows(self.unshuffle, image)).to(image.dtype)
        trunk = first
        for block in self.body:
            trunk = block(trunk, rows)
        x = rows.in_parts(self._enlarged, rows.add(self.conv_body, first, rows(self.conv_body, trunk)))
        return x if self.enlarge is None else rows.add(self.conv_last, rows(self.enlarge, image), x)

    def _enlarged(self, x: Tensor, rows: Rows) -> Tensor:
        large = x
        for layer in (self.conv_up1, self.conv_up2):
            if layer is not None:
                large = _leaky(rows(layer, rows(self.repeat, large)))
        large = _leaky(rows(self.conv_hr, large))
        if self.enlarge is not None:
            return rows(self.conv_last, large)
        # The image itself must not be rounded to what bfloat16 can hold.
        with torch.autocast(x.device.type, enabled=False):
            return rows(self.conv_last, large.to(x.dtype))


class _Block(nn.Module):
    """A residual-in-residual dense block, figure 4."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_Dense(width, growth) for _ in range(DENSE))

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        inside = x
        for dense in (self.rdb1, self.rdb2, self.rdb3):
            inside = dense(inside, rows)
        return rows.add(self, x, SCALING * inside)


class _Dense(nn.Module):
    """A dense block, figure 4: each convolution sees the input and what all before it gave."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = (
            _convolution(width + i * growth, growth if i < CONVOLUTIONS - 1 else width) for i in range(CONVOLUTIONS)
        )
        for layer in self.children():
            with torch.no_grad():
                layer.weight.mul_(SMALLER)  # type: ignore[operator]

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        features = x
        for i, layer in enumerate((self.conv1, self.conv2, self.conv3, self.conv4)):
            new = _leaky(rows(layer, features))
            # In the convolutions' own type, or half of the concatenation would be rounded again for each of them.
            features = torch.cat([rows.match((self, i), features, new).to(new.dtype), new], 1)
        return rows.add(self, x, SCALING * rows(self.conv5, features))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)


def _radius(scale: int, unshuffle: int, doublings: int, reach: int) -> int:
    """How far an output pixel sees, `reach` being that of the convolutions of the trunk."""

    def uppermost(pixel: int) -> int:
        """The first row of the trunk that an output row depends on."""
        row = pixel - 2  # two convolutions at the output's size
        for _ in range(doublings):
            row = (row - 1) // 2  # one at the doubled size
        return row - reach

    # An input pixel is one of `unshuffle` in a pixel of the trunk, and not all of them see equally far.
    return max(place - unshuffle * uppermost(scale * place) for place in range(unshuffle))
