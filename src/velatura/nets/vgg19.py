"""VGG-19: the network whose maps the papers call features. A teacher: its weights are others' and never shipped.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015
(arXiv 1409.1556), table 1, column E, without the three dense layers.

Two files of weights are in use, each with its own idea of an input. Here the image is RGB in 0..1 less `MEAN`, and the
rest (order of channels, 0..255 or standard deviations) goes into the weights of conv1_1, which changes nothing: beyond
the border an image is the same grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VGG19"]

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions and channels, table 1, column E
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of ImageNet, RGB, 0..255: the input of the authors' own weights
TORCH_MEAN, TORCH_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the same photographs, RGB, 0..1


class VGG19(nn.Module):
    """VGG-19's convolutions up to a layer.

    Parameters
    ----------
    last : str
        The deepest convolution, such as ``"conv5_4"``.
    mean : sequence of three float
        Of the input, RGB, 0..1: taken off before the first convolution.

    Attributes
    ----------
    LAYERS : tuple of str
        All of VGG-19's convolutions: ``conv1_1`` ... ``conv5_4``.
    layers : tuple of str
        Those of this network.

    Raises
    ------
    ValueError
        No such convolution.

    Examples
    --------
    >>> net = VGG19("conv2_2")
    >>> {name: tuple(found.shape) for name, found in net(torch.rand(1, 3, 32, 48), ["conv1_2", "conv2_2"]).items()}
    {'conv1_2': (1, 64, 32, 48), 'conv2_2': (1, 128, 16, 24)}
    """

    mean: Tensor

    LAYERS: ClassVar[tuple[str, ...]] = tuple(
        f"conv{block}_{i}" for block, (count, _) in enumerate(BLOCKS, 1) for i in range(1, count + 1)
    )

    def __init__(self, last: str = "conv5_4", mean: Iterable[float] = TORCH_MEAN) -> None:
        super().__init__()
        if last not in self.LAYERS:
            raise ValueError(f"got layer {last!r}; expected one of {', '.join(self.LAYERS)}")
        self.layers = self.LAYERS[: self.LAYERS.index(last) + 1]
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, 3, 1, 1))
        widths = [width for count, width in BLOCKS for _ in range(count)]
        pairs = zip(self.layers, [3, *widths], widths, strict=False)
        self.convolutions = nn.ModuleDict({name: nn.Conv2d(a, b, 3, padding=1) for name, a, b in pairs})

    @classmethod
    def from_keras(cls, arrays: Mapping[str, NDArray]) -> Self:
        """Take the authors' weights as Keras keeps them.

        Parameters
        ----------
        arrays : mapping
            ``block1_conv1.kernel`` (height, width, in, out; BGR of 0..255), ``block1_conv1.bias`` and so on, as deep
            as they go.

        Raises
        ------
        ValueError
            An array is missing or has a wrong shape.
        """
        weights = {}
        for name in cls.LAYERS:
            key = "block{}_conv{}".format(*name.removeprefix("conv").split("_"))
            if f"{key}.kernel" not in arrays:
                break
            kernel = torch.from_numpy(np.ascontiguousarray(arrays[f"{key}.kernel"]))
            weights[name] = kernel.permute(3, 2, 0, 1), torch.from_numpy(np.ascontiguousarray(arrays[f"{key}.bias"]))
        return cls._filled(weights, [value / 255 for value in CAFFE_MEAN], lambda first: 255 * first.flip(1))

    @classmethod
    def from_torchvision(cls, state: Mapping[str, Tensor]) -> Self:
        """Take a state dict of torchvision's ``vgg19``: ``features.0.weight`` and so on; the dense layers are left out.

        Raises
        ------
        ValueError
            A tensor is missing or has a wrong shape.
        """
        weights, number = {}, 0
        for count, _ in BLOCKS:
            for _ in range(count):
                name, key = cls.LAYERS[len(weights)], f"features.{number}"
                if f"{key}.weight" not in state or f"{key}.bias" not in state:
                    raise ValueError(f"{key}.weight is missing; expected the state dict of torchvision's vgg19")
                weights[name] = state[f"{key}.weight"], state[f"{key}.bias"]
                number += 2  # each convolution and its ReLU
            number += 1  # the maximum at the end of the block
        spread = torch.tensor(TORCH_SPREAD).view(1, 3, 1, 1)
        return cls._filled(weights, TORCH_MEAN, lambda first: first / spread)

    @classmethod
    def _filled(
        cls,
        weights: Mapping[str, tuple[Tensor, Tensor]],
        mean: Iterable[float],
        adapted: Callable[[Tensor], Tensor],
    ) -> Self:
        if not weights:
            raise ValueError("got no block1_conv1.kernel; expected VGG-19's weights as Keras keeps them")
        net = cls(tuple(weights)[-1], mean)
        with torch.no_grad():
            for name, (weight, bias) in weights.items():
                layer = net.convolutions[name]
                assert isinstance(layer, nn.Conv2d)
                value = adapted(weight.float()) if name == cls.LAYERS[0] else weight
                if value.shape != layer.weight.shape or len(bias) != layer.out_channels:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {tuple(layer.weight.shape)}")
                layer.weight.copy_(value)
                layer.bias.copy_(bias)  # type: ignore[union-attr]
        return net.eval().requires_grad_(False)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of `layers` before their activation; nothing is computed beyond the deepest of them.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        layers : iterable of str, optional
            Of `self.layers`; all of them if not given.

        Returns
        -------
        dict of str to Tensor
            From shallow to deep, in the scale of the weights' own authors.

        Raises
        ------
        ValueError
            A layer is unknown, or deeper than the weights go.
        """
        wanted = set(self.layers if layers is None else layers)
        if unknown := sorted(wanted - set(self.layers)):
            raise ValueError(f"got layer {unknown[0]!r}; expected some of {', '.join(self.layers)}")
        maps: dict[str, Tensor] = {}
        x = image - self.mean
        for name, convolution in self.convolutions.items():
            if len(maps) == len(wanted):
                break
            if name.endswith("_1") and name != self.LAYERS[0]:
                x = functional.max_pool2d(x, 2)
            x = convolution(x.to(convolution.weight.dtype))
            if name in wanted:
                maps[name] = x
            x = functional.relu(x)
        return maps

    @staticmethod
    def activated(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply the ReLU that `forward` left out."""
        return {name: functional.relu(found) for name, found in maps.items()}
