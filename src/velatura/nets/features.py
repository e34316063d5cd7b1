"""Velatura's own feature extractor: one small encoder in place of VGG-19 and GoogLeNet.

Content losses, style losses and perceptual distances compare what a network sees in two images. The networks of the
papers are large, and others' weights are not ours to ship: this one was trained to see what they see, by regression of
their maps (Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, arXiv 1412.6550, equation 3). Its teachers are
`velatura.nets.vgg19` (Simonyan and Zisserman 2015, arXiv 1409.1556) and `velatura.nets.googlenet` (Szegedy et al. 2015,
arXiv 1409.4842), its recipe `velatura.training.recipes.features`.

Differs from the paper: five maps are hints, not one, and there is no second stage; the regressors stay, because their
maps are what is used; a map is regressed per channel in units of the teacher's standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Features"]

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's photographs, RGB: what lies beyond the border is this grey, as for VGG-19
SPREAD = 0.25  # about one standard deviation of photographs
SLOPE = 0.1  # of LeakyReLU: no place without a gradient
SMALLEST = 32  # pixels of a side: two places of the coarsest map
HALVING = (1, 3, 3, 1)  # a smooth low pass whose outputs lie in the middle of 2x2 pixels


class Features(nn.Module):
    """What VGG-19 and GoogLeNet see, at five scales.

    Every layer gives one teacher's map *before* its activation (as ESRGAN wants, section 3.3), each channel less the
    teacher's mean and over the teacher's standard deviation, both measured on photographs and kept here as buffers.
    So one unit means the same in every channel of every layer.

    ===========  ====================================  ========
    layer        student of                            channels
    ===========  ====================================  ========
    `stride1`    VGG-19 conv1_2                        64
    `stride2`    VGG-19 conv2_2                        128
    `stride4`    VGG-19 conv3_4                        256
    `stride8`    GoogLeNet inception_3b                480
    `stride16`   GoogLeNet inception_4c                512
    ===========  ====================================  ========

    Of GoogLeNet's fourth stage it is 4c, the middle one: every further block widens the receptive field by 64 pixels
    beyond its 299, more than the crops hold that the student learns from, and 4e has 832 channels.

    Parameters
    ----------
    widths : sequence of five int
        Channels of the trunk at each stride.

    Attributes
    ----------
    LAYERS : tuple of str
        From shallow to deep; the number is the stride in pixels.
    CHANNELS : dict
        Of each layer.

    Notes
    -----
    No norms and no maxima: an image's maps do not depend on its neighbours in the batch, and the gradient with respect
    to the image has no grid, because maps are halved by a low pass that gives every pixel the same weight.

    Examples
    --------
    >>> net = Features()
    >>> sum(p.numel() for p in net.parameters())
    1774240
    >>> maps = net(torch.rand(1, 3, 48, 64), layers=["stride2", "stride8"])
    >>> {name: tuple(found.shape) for name, found in maps.items()}
    {'stride2': (1, 128, 24, 32), 'stride8': (1, 480, 6, 8)}
    """

    mean: Tensor

    LAYERS: ClassVar[tuple[str, ...]] = ("stride1", "stride2", "stride4", "stride8", "stride16")
    CHANNELS: ClassVar[dict[str, int]] = dict(zip(LAYERS, (64, 128, 256, 480, 512), strict=True))

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128, 192)) -> None:
        super().__init__()
        if len(widths) != len(self.LAYERS):
            raise ValueError(f"got {len(widths)} widths; expected {len(self.LAYERS)}, one per stride")
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        before = (3, *widths[:-1])
        # At the fine strides a convolution costs most: one there, two where maps are small.
        self.stages = nn.ModuleList(
            _Stage(a, b, depth=1 if level < 2 else 2, halve=level > 0)
            for level, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.heads = nn.ModuleDict(
            {name: _Head(width, self.CHANNELS[name]) for name, width in zip(self.LAYERS, widths, strict=True)}
        )

    @property
    def first(self) -> nn.Module:
        """The first convolution, which sees the image."""
        return next(module for module in self.stages.modules() if isinstance(module, nn.Conv2d))

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of `layers`; nothing is computed beyond the deepest of them.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1, each side at least 32.
        layers : iterable of str, optional
            Of `LAYERS`; all of them if not given.

        Returns
        -------
        dict of str to Tensor, (N, channels, H // stride, W // stride)
            From shallow to deep, in standard deviations of the teacher's channels, before activation.

        Raises
        ------
        ValueError
            A layer is unknown, or a side is below 32.
        """
        wanted = set(self.LAYERS if layers is None else layers)
        if unknown := sorted(wanted - set(self.LAYERS)):
            raise ValueError(f"got layer {unknown[0]!r}; expected some of {', '.join(self.LAYERS)}")
        if min(image.shape[-2:]) < SMALLEST:
            size = f"{image.shape[-2]}x{image.shape[-1]}"
            raise ValueError(f"got {size} pixels; expected at least {SMALLEST}x{SMALLEST}")
        maps: dict[str, Tensor] = {}
        x = (image - self.mean) / SPREAD
        for name, stage in zip(self.LAYERS, self.stages, strict=True):
            if len(maps) == len(wanted):
                break
            x = stage(x)
            if name in wanted:
                maps[name] = self.heads[name](x)
        return maps

    def activated(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring maps to the teachers' own scale, behind the ReLU: what Gram matrices are made of.

        Parameters
        ----------
        maps : mapping of str to Tensor
            What `forward` gave.

        Returns
        -------
        dict of str to Tensor
            Of the same shapes, never negative.

        Notes
        -----
        A regression gives less than the teacher where the teacher gives much and rarely does: the Gram matrices of
        `stride8` and `stride16` are fainter than GoogLeNet's, so weigh each layer by its own size.
        """
        return {name: functional.relu(self._head(name).raw(found)) for name, found in maps.items()}

    def standardized(self, name: str, raw: Tensor) -> Tensor:
        """Bring a teacher's map of the layer `name` to the units of `forward`."""
        head = self._head(name)
        return (raw - head.mean) / head.spread

    @torch.no_grad()
    def calibrate(self, name: str, mean: Tensor, spread: Tensor) -> None:
        """Keep the teacher's mean and standard deviation of each channel of the layer `name`; both are (channels,)."""
        head = self._head(name)
        head.mean.copy_(mean.view_as(head.mean))
        head.spread.copy_(spread.view_as(head.spread))

    def _head(self, name: str) -> _Head:
        head = self.heads[name]
        assert isinstance(head, _Head)
        return head


class _Stage(nn.Module):
    """Halve, widen, and refine by a residual branch of `depth` convolutions."""

    def __init__(self, before: int, width: int, depth: int, halve: bool) -> None:
        super().__init__()
        self.halve = _Halve() if halve else nn.Identity()
        self.enter = _convolution(before, width)
        branch: list[nn.Module] = []
        for _ in range(depth):
            branch += [_convolution(width, width), nn.LeakyReLU(SLOPE)]
        self.branch = nn.Sequential(*branch[:-1])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.enter(self.halve(x)), SLOPE)
        return functional.leaky_relu(x + self.branch(x), SLOPE)


class _Head(nn.Module):
    """From the trunk to the teacher's channels, and what their units are."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, channels, 1)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("spread", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)

    def raw(self, standardized: Tensor) -> Tensor:
        return standardized * self.spread + self.mean


class _Halve(nn.Module):
    """Low-pass and keep every second row and column (Zhang 2019, arXiv 1904.11486)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor(HALVING, dtype=torch.float32)
        self.register_buffer("kernel", torch.outer(row, row)[None, None] / row.sum() ** 2, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _LowPass.apply(x, self.kernel)  # pyright: ignore[reportReturnType]


class _LowPass(torch.autograd.Function):
    """The low pass of `_Halve`; its slope is that of every second pixel, drawn over all of them.

    The transposed convolution with (1, 3, 3, 1) is bilinear enlargement by 2, which is several times quicker.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.size = x.shape[-2:]
        channels = x.shape[1]
        kernel = kernel.to(x.dtype).expand(channels, -1, -1, -1)
        return functional.conv2d(x, kernel, stride=2, padding=1, groups=channels)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        height, width = ctx.size
        # Zeros lie around, as they do around what was low-passed; what is enlarged from them alone goes.
        framed = functional.pad(slope, (1, 1, 1, 1)) / len(HALVING)
        large = functional.interpolate(framed, scale_factor=2, mode="bilinear", align_corners=False)
        return large[..., 2 : height + 2, 2 : width + 2], None


def _convolution(before: int, after: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution
