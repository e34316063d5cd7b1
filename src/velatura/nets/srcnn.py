"""SRCNN: bicubic enlargement, then three convolutions that sharpen its luma.

Paper: Dong, Loy, He, Tang, "Image Super-Resolution Using Deep Convolutional Networks", 2014 (arXiv 1501.00092),
section 3.

Differs from the paper: the borders are padded, so that the image keeps its size; what the network gives is a
correction of the enlarged luma (``residual=False`` is the paper's own form; in one probe of 150 steps each, five
held-out images stood at 24.98 dB in that form and 25.23 with a correction, bicubic at 24.81); the weights start by the
rule of Kaiming He et al. 2015, not with a deviation of 0.001, which needs the paper's 8e8 backpropagations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.rows import WHOLE, Rows
from velatura.ops.resize import weights

__all__ = ["SRCNN", "Bicubic", "luma"]

FILTERS = (64, 32)  # SRCNN section 4.1: n1 = 64, n2 = 32
FIRST, LAST = 9, 5  # SRCNN section 4.1: f1 = 9, f3 = 5
LUMA = (0.299, 0.587, 0.114)  # BT.601


class SRCNN(nn.Module):
    """Enlarge by `scale`: bicubic, and a correction of luma.

    Only luma is corrected: the same change is added to red, green and blue, so that the colour differences stay
    those of the bicubic enlargement, as in section 4.4 of the paper (training on Y alone).

    Parameters
    ----------
    scale : {2, 3, 4}
        How many times larger the output is.
    middle : {1, 3, 5}
        Size of the second layer's filters: 9-1-5, 9-3-5 or 9-5-5 (section 4.3.2). The paper reports 9-5-5.
    residual : bool
        Whether the last layer gives a correction of the enlarged luma; without it, the luma itself.

    Attributes
    ----------
    receptive_radius : int
        Pixels of the *input* on each side that an output pixel depends on, exactly: the halo of a tile.

    Notes
    -----
    Differs from the paper: see the module.

    Examples
    --------
    >>> net = SRCNN()
    >>> sum(p.numel() for p in net.parameters())  # 57,184 weights and 97 biases
    57281
    >>> net(torch.rand(1, 3, 12, 16)).shape, net.receptive_radius
    (torch.Size([1, 3, 48, 64]), 4)
    """

    def __init__(self, scale: int = 4, middle: int = 5, residual: bool = True) -> None:
        super().__init__()
        self.scale, self.residual = scale, residual
        self.enlarge = Bicubic(scale)

        def layer(inputs: int, outputs: int, size: int) -> nn.Conv2d:
            # A border of zeros would be a black frame.
            return nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode="replicate")

        self.extract = layer(1, FILTERS[0], FIRST)  # section 3.1.1, patch extraction and representation
        self.map = layer(FILTERS[0], FILTERS[1], middle)  # section 3.1.2, non-linear mapping
        self.reconstruct = layer(FILTERS[1], 1, LAST)  # section 3.1.3, reconstruction
        for one in (self.extract, self.map, self.reconstruct):
            nn.init.kaiming_normal_(one.weight, nonlinearity="relu")
            nn.init.zeros_(one.bias)  # type: ignore[arg-type]
        if residual:
            # Begin with the bicubic enlargement.
            nn.init.zeros_(self.reconstruct.weight)
        self.receptive_radius = self.enlarge.radius(FIRST // 2 + middle // 2 + LAST // 2)

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
        enlarged = rows(self.enlarge, image)
        before = luma(enlarged)
        x = functional.relu(rows(self.extract, before - 0.5))
        x = functional.relu(rows(self.map, x))
        # Float32 from here on: the sum must not be rounded to what bfloat16 can hold.
        x = rows(self.reconstruct, x).to(image.dtype)
        enlarged = rows.match(self, enlarged, x)
        return enlarged + x if self.residual else enlarged + (x + 0.5 - luma(enlarged))


class Bicubic(nn.Module):
    """Bicubic enlargement by a whole number, exactly as `velatura.ops.resize.resize` does it, on any device.

    An output pixel at the same place between two input pixels has the same weights, so the enlargement is one
    convolution per place, interleaved (the kernel of Keys 1981 with a = -0.5; torch's own has a = -0.75).

    Parameters
    ----------
    scale : {2, 3, 4}

    Raises
    ------
    ValueError
        Another scale.

    Examples
    --------
    >>> Bicubic(2)(torch.full((1, 3, 4, 5), 0.25)).unique().tolist()
    [0.25]
    """

    reach = 2  # input pixels on each side: the support of Keys' kernel
    border = "symmetric"

    def __init__(self, scale: int) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"got scale {scale}; expected 2, 3 or 4")
        self.scale = scale
        taps = 2 * self.reach + 1
        # Five pixels enlarged: the rows of the middle one see all five, and no border.
        rows = weights(taps, taps * scale, "bicubic").toarray()[self.reach * scale : (self.reach + 1) * scale]
        self.phases = torch.from_numpy(rows)  # (scale, 5)
        kernels = torch.einsum("py,qx->pqyx", self.phases, self.phases).reshape(scale**2, 1, taps, taps)
        self.register_buffer("kernels", kernels.float(), persistent=False)
        self.kernels: Tensor

    def radius(self, reach: int) -> int:
        """How far what sees `reach` output pixels on each side sees in the input, in input pixels."""
        first = [int(row.nonzero()[0, 0]) - self.reach for row in self.phases]
        return -min(pixel // self.scale + first[pixel % self.scale] for pixel in range(-reach, self.scale))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image (N, C, H, W): a Tensor (N, C, scale H, scale W), not clipped."""
        return self.inside(image.index_select(2, self._mirrored(image.shape[2]).to(image.device)))

    def inside(self, image: Tensor) -> Tensor:
        """Enlarge (N, C, H, W) that has two rows more on each side: a Tensor (N, C, scale (H - 4), scale W)."""
        height, width = image.shape[2] - 2 * self.reach, image.shape[3]
        wide = image.index_select(3, self._mirrored(width).to(image.device)).flatten(0, 1)[:, None]
        with torch.autocast(image.device.type, enabled=False):
            places = functional.conv2d(wide, self.kernels.to(wide.dtype))
        return functional.pixel_shuffle(places, self.scale).reshape(
            *image.shape[:2], height * self.scale, width * self.scale
        )

    def _mirrored(self, size: int) -> Tensor:
        """Where to read pixels -2 .. size + 1: beyond the border the image is mirrored, its last pixel doubled."""
        # Without a remainder, which ONNX's exporter cannot take by a size that is known only later.
        index = torch.arange(-self.reach, size + self.reach)
        index = torch.maximum(index, -1 - index)
        return torch.minimum(index, 2 * size - 1 - index).clamp(min=0)


def luma(image: Tensor) -> Tensor:
    """BT.601 luma (N, 1, H, W), 0..1, of RGB (N, 3, H, W)."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
