"""A small net that says where faces of about one size are: boxes, five landmarks, scores.

A student of YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023), which is without anchors,
too: every cell says whether it lies on the middle of a face, and where its box and landmarks are.

Differs from the paper: one head for faces between `BAND` pixels instead of three for small, middle and large ones;
larger faces are found in the same picture at half, a quarter... of its size (`velatura.faces`), by the same weights, so
that each learns from faces of all sizes. Plain convolutions in residual blocks instead of depthwise ones, which are
slow on processors for what they compute. No batch norm: nothing depends on the other images of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BAND", "STRIDE", "UNIT", "FaceFinder", "cells", "decode"]

STRIDE = 8  # pixels between cells
BAND = (16.0, 52.0)  # pixels: the faces to find, by the geometric mean of their box's sides; more than an octave
UNIT = 32.0  # pixels that one unit of the net's output stands for: of the order of a face
CHANNELS = 1 + 4 + 10  # score; centre and logarithms of width and height; five landmarks
SMALLER = 0.1  # of the first weights of a block's end: blocks begin near the identity
RARE = 0.01  # the score that all cells begin with: Lin et al., "Focal Loss", 2017, section 4.1


class FaceFinder(nn.Module):
    """Say for every cell whether it is the middle of a face, and where that face is.

    Parameters
    ----------
    stem : (int, int)
        Channels at strides 2 and 4.
    width : int
        Channels at stride 8.
    blocks : (int, int)
        Residual blocks at strides 4 and 8.

    Attributes
    ----------
    receptive_radius : int
        A cell at pixel x sees no pixel farther than this from x: the halo of a tile that begins at a multiple of
        `STRIDE`.

    Notes
    -----
    Differs from the paper: see the module.

    Examples
    --------
    >>> net = FaceFinder()
    >>> sum(p.numel() for p in net.parameters()), net.receptive_radius
    (264623, 63)
    >>> net(torch.rand(1, 3, 61, 80)).shape
    torch.Size([1, 15, 8, 10])
    """

    def __init__(self, stem: tuple[int, int] = (16, 32), width: int = 64, blocks: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        first, second = stem
        self.first = nn.Conv2d(3, first, 3, stride=2, padding=1)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            *(_Block(second) for _ in range(blocks[0])),
            nn.ReLU(),
            nn.Conv2d(second, width, 3, stride=2, padding=1),
            *(_Block(width) for _ in range(blocks[1])),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(width, CHANNELS, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, _Block):
                    module.second.weight.mul_(SMALLER)
            self.last.weight.mul_(SMALLER)
            self.last.bias[0] = -torch.log(torch.tensor(1 / RARE - 1))  # type: ignore[index]
        # Each 3x3 convolution reaches one of its own input's pixels further.
        self.receptive_radius = 1 + 2 + 4 * 2 * blocks[0] + 4 + 8 * 2 * blocks[1]

    def forward(self, image: Tensor) -> Tensor:
        """Look at images.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.

        Returns
        -------
        Tensor of float32, (N, 15, ceil(H / 8), ceil(W / 8))
            Per cell: the score's logit; centre x and y from the cell, in `UNIT`; logarithms of width and height in
            `UNIT`; x and y of the landmarks from the cell, in `UNIT`: the two eyes, the nose, the two corners of the
            mouth, each pair from the left of the image to the right.
        """
        return self.last(self.body(self.first(image - 0.5))).float()


def cells(image: Tensor) -> Tensor:
    """Give the places of all cells of an image (..., H, W): (2, ceil(H / 8), ceil(W / 8)), x and y in pixels.

    The left edge of the image is x = 0; a cell lies in the middle of the pixel that its convolutions are centred on.

    Examples
    --------
    >>> cells(torch.rand(1, 3, 8, 20))[0]
    tensor([[ 0.5000,  8.5000, 16.5000]])
    """
    height, width = image.shape[-2:]
    y = torch.arange(0, height, STRIDE, device=image.device, dtype=torch.float32) + 0.5
    x = torch.arange(0, width, STRIDE, device=image.device, dtype=torch.float32) + 0.5
    return torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))])


def decode(maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Turn what the net says into pixels.

    Parameters
    ----------
    maps : Tensor, (N, 15, h, w)
        See `FaceFinder.forward`.
    places : Tensor, (2, h, w)
        See `cells`.

    Returns
    -------
    boxes : Tensor, (N, 4, h, w)
        Left, top, right, bottom.
    landmarks : Tensor, (N, 5, 2, h, w)
        x and y.

    Examples
    --------
    >>> boxes, landmarks = decode(torch.zeros(1, 15, 1, 1), cells(torch.rand(8, 8)))
    >>> boxes.flatten().tolist(), landmarks[0, 0].flatten().tolist()
    ([-15.5, -15.5, 16.5, 16.5], [0.5, 0.5])
    """
    centre = places + UNIT * maps[:, 1:3]
    half = UNIT / 2 * maps[:, 3:5].clamp(-4, 4).exp()  # no face is 50 times as large; training must not overflow
    landmarks = places + UNIT * maps[:, 5:].unflatten(1, (5, 2))
    return torch.cat([centre - half, centre + half], dim=1), landmarks


class _Block(nn.Module):
    """Add to the input what two convolutions make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))
