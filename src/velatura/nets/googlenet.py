"""GoogLeNet (Inception-v1): what is in a photograph. A teacher: its weights are others' and never shipped.

Paper: Szegedy et al., "Going Deeper with Convolutions", 2015 (arXiv 1409.4842), table 1, without the two auxiliary
classifiers. The weights are those of the Caffe model zoo (``bvlc_googlenet``), whose maxima round their sizes up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GoogLeNet"]

MEAN = (123.0, 117.0, 104.0)  # RGB, 0..255, as the weights' authors have it

# Channels of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection: table 1.
BLOCKS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE = ("inception_3a", "inception_4a", "inception_5a")
CLASSES = 1000
WINDOW, ALPHA = 5, 1e-4  # of the weights' own description, which has a power of .75


class GoogLeNet(nn.Module):
    """Inception-v1 with its classifier.

    Attributes
    ----------
    LAYERS : tuple of str
        The blocks, ``inception_3a`` (stride 8) ... ``inception_5b`` (stride 32).

    Examples
    --------
    >>> net = GoogLeNet()
    >>> {name: tuple(found.shape) for name, found in net(torch.rand(1, 3, 64, 96), ["inception_4c"]).items()}
    {'inception_4c': (1, 512, 4, 6)}
    >>> net.embedding(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1024])
    """

    mean: Tensor

    LAYERS: ClassVar[tuple[str, ...]] = tuple(BLOCKS)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.reduce2 = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.blocks = nn.ModuleDict()
        before = 192
        for name, widths in BLOCKS.items():
            self.blocks[name] = _Inception(before, *widths)
            before = widths[0] + widths[2] + widths[4] + widths[5]
        self.classifier = nn.Linear(before, CLASSES)

    @classmethod
    def from_caffe(cls, arrays: Mapping[str, NDArray]) -> Self:
        """Take the Caffe model zoo's weights.

        Parameters
        ----------
        arrays : mapping
            ``conv1/7x7_s2.weight`` (out, in, height, width; BGR of 0..255), ``inception_3a/1x1.bias`` and so on,
            ``loss3/classifier.weight``.

        Raises
        ------
        ValueError
            An array is missing or has a wrong shape.
        """
        net = cls()
        places: dict[str, nn.Conv2d | nn.Linear] = {
            "conv1/7x7_s2": net.conv1,
            "conv2/3x3_reduce": net.reduce2,
            "conv2/3x3": net.conv2,
            "loss3/classifier": net.classifier,
        }
        for name, block in net.blocks.items():
            assert isinstance(block, _Inception)
            places |= {f"{name}/{part}": layer for part, layer in block.parts()}
        with torch.no_grad():
            for key, layer in places.items():
                for kind in ("weight", "bias"):
                    own = getattr(layer, kind)
                    if f"{key}.{kind}" not in arrays:
                        raise ValueError(f"{key}.{kind} is missing; expected Caffe's bvlc_googlenet")
                    value = torch.from_numpy(np.asarray(arrays[f"{key}.{kind}"], np.float32))
                    if value.shape != own.shape:
                        raise ValueError(f"{key}.{kind} has shape {tuple(value.shape)}; expected {tuple(own.shape)}")
                    own.copy_(value)
            net.conv1.weight.copy_(net.conv1.weight.flip(1))  # BGR to RGB
        return net.eval().requires_grad_(False)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of `layers` before their activation; nothing is computed beyond the deepest of them.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1, each side at least 32.
        layers : iterable of str, optional
            Of `LAYERS`; all of them if not given.

        Returns
        -------
        dict of str to Tensor
            From shallow to deep; the four branches of a block one after the other.

        Raises
        ------
        ValueError
            A layer is unknown.
        """
        wanted = set(self.LAYERS if layers is None else layers)
        if unknown := sorted(wanted - set(self.LAYERS)):
            raise ValueError(f"got layer {unknown[0]!r}; expected some of {', '.join(self.LAYERS)}")
        maps: dict[str, Tensor] = {}
        x = (255 * image - self.mean).to(self.conv1.weight.dtype)
        x = _normalized(_pool(functional.relu(self.conv1(x))))
        x = _normalized(functional.relu(self.conv2(functional.relu(self.reduce2(x)))))
        for name, block in self.blocks.items():
            if len(maps) == len(wanted):
                break
            x = block(_pool(x) if name in POOLED_BEFORE else x)
            if name in wanted:
                maps[name] = x
            x = functional.relu(x)
        return maps

    @staticmethod
    def activated(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply the ReLU that `forward` left out."""
        return {name: functional.relu(found) for name, found in maps.items()}

    def embedding(self, image: Tensor) -> Tensor:
        """Mean of the last block over places, (N, 1024): what Frechet and kernel distances compare.

        Its size does not depend on the image's; the weights' authors resize to 224x224.
        """
        last = self.LAYERS[-1]
        return functional.relu(self(image, [last])[last]).mean(dim=(2, 3))

    def logits(self, image: Tensor) -> Tensor:
        """Scores of ImageNet's 1000 classes, (N, 1000), before the softmax."""
        return self.classifier(self.embedding(image))


class _Inception(nn.Module):
    """One block of four branches (figure 2b), before the ReLU behind them."""

    def __init__(self, before: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, one, 1)
        self.reduce3, self.three = nn.Conv2d(before, reduce3, 1), nn.Conv2d(reduce3, three, 3, padding=1)
        self.reduce5, self.five = nn.Conv2d(before, reduce5, 1), nn.Conv2d(reduce5, five, 5, padding=2)
        self.pool = nn.Conv2d(before, pool, 1)

    def parts(self) -> Iterable[tuple[str, nn.Conv2d]]:
        """Each convolution under its name in Caffe's file."""
        yield "1x1", self.one
        yield "3x3_reduce", self.reduce3
        yield "3x3", self.three
        yield "5x5_reduce", self.reduce5
        yield "5x5", self.five
        yield "pool_proj", self.pool

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(functional.relu(self.reduce3(x)))
        five = self.five(functional.relu(self.reduce5(x)))
        pool = self.pool(functional.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.one(x), three, five, pool], dim=1)


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, stride=2, ceil_mode=True)


def _normalized(x: Tensor) -> Tensor:
    """Local response normalisation over channels (Krizhevsky et al. 2012, section 3.3), alpha over the window."""
    # torch's own knows no bfloat16 and is slow; a product with a band matrix sums the neighbours fastest.
    band = x.new_ones(x.shape[1], x.shape[1]).triu(-(WINDOW // 2)).tril(WINDOW // 2)
    small = math.sqrt(ALPHA / WINDOW) * x  # before it is squared: half precision ends at 65504
    size = 1 + functional.conv2d(small.square(), band[:, :, None, None])
    return x * (size.rsqrt() * size.sqrt().rsqrt())  # to the power of -.75
