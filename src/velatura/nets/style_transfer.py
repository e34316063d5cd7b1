"""Any style in one pass: a network that looks at the style tells another how to paint.

Paper: Ghiasi, Lee, Kudlur, Dumoulin, Shlens, "Exploring the structure of a real-time, arbitrary neural artistic
stylization network", 2017 (arXiv 1705.06830), sections 2 and 3; the conditional instance norms are those of Dumoulin,
Shlens, Kudlur, "A learned representation for artistic style", 2017 (arXiv 1610.07629), equation 5.

Differs from the papers: the prediction network sees through the first stages of our own `velatura.nets.features`
instead of Inception-v3, and gets the mean and the deviation of what they show; style vectors have unit variance. The
transformer takes blocks of pixels as channels instead of strided convolutions, works at two strides side by side, 4 and
8, so that it sees further for the same cost, has kernels of 3x3 throughout, and its last layer sees the photograph
beside what was painted, so that detail need not pass through the coarse layers. Its borders are mirrored at the edge of
the image, not at the middle of its last pixel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.features import MEAN, SPREAD, Features
from velatura.nets.rows import WHOLE, Rows
from velatura.nets.unet import cells, full

__all__ = ["ConditionalNorm", "StylePredictor", "StyleTransfer", "StyleTransformer"]

STRIDE = 4  # the transformer's own, in pixels; its inner blocks have twice that
EPSILON = 1e-3  # of the variance: noise on a flat image is not made into a picture
SHARPNESS = 1000.0  # of `likeness`: a photograph and its mirror image lie 1e-4 apart, and a style mostly over .01
SMALLER = 0.2  # of the first scales behind a residual
VARIED = 1e-5  # below any variance of a map, so that a root has a derivative


class StyleTransfer(nn.Module):
    """Predictor and transformer.

    Parameters
    ----------
    width : int
        Channels of the transformer at strides 4 and 8; half as many at 2, a third at 1.
    outer, inner : int
        Residual blocks at stride 4 and at stride 8.
    widths : sequence of int
        Channels of the predictor's stages, as those of `velatura.nets.features.Features`.
    style : int
        Numbers of a style vector.

    Attributes
    ----------
    predictor : StylePredictor
    transformer : StyleTransformer

    Examples
    --------
    >>> net = StyleTransfer()
    >>> sum(p.numel() for p in net.parameters())
    2759686
    >>> photo, style = torch.rand(1, 3, 30, 41), torch.rand(1, 3, 64, 48)
    >>> net(photo, style).shape, net.predictor(style).shape
    (torch.Size([1, 3, 30, 41]), torch.Size([1, 100]))
    """

    def __init__(
        self,
        width: int = 96,
        outer: int = 2,
        inner: int = 4,
        widths: Sequence[int] = (32, 64, 96, 128),
        style: int = 100,
    ) -> None:
        super().__init__()
        self.predictor = StylePredictor(widths, style)
        self.transformer = StyleTransformer(width, outer, inner, style)

    def forward(self, image: Tensor, style: Tensor) -> Tensor:
        """Paint an image in a style.

        Parameters
        ----------
        image, style : Tensor of float32, (N, 3, H, W)
            RGB, 0..1; of different sizes.

        Returns
        -------
        Tensor of float32, (N, 3, H, W)
            0..1.
        """
        return self.transformer(image, style=self.predictor(style))


def likeness(style: Tensor, other: Tensor) -> Tensor:
    """Give the share of a photograph that stays, (N,), from two style vectors (N, style): 1 where they are equal.

    Examples
    --------
    >>> likeness(torch.ones(1, 100), torch.ones(1, 100)), float(likeness(torch.ones(1, 100), -torch.ones(1, 100)))
    (tensor([1.]), 0.0)
    """
    return torch.exp(-SHARPNESS * (style - other).float().square().mean(1))


class StylePredictor(nn.Module):
    """From an image to its style vector.

    Parameters
    ----------
    widths : sequence of int
        Channels of the stages, at strides 1, 2, 4...
    style : int
        Numbers of a style vector, 100 in the paper (section 2.2).
    hidden : int
        Of the layer between statistics and vector.

    Attributes
    ----------
    style : int

    Notes
    -----
    The stages are those of `velatura.nets.features.Features`; training starts from its weights (`see_through`).
    """

    mean: Tensor

    def __init__(self, widths: Sequence[int], style: int, hidden: int = 256) -> None:
        super().__init__()
        self.style = style
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        # A fifth stage is what `Features` has and nobody needs here.
        self.stages = Features((*widths, 1)).stages[: len(widths)]
        self.look = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for width in widths)
        self.read = nn.Sequential(nn.Linear(4 * sum(widths), hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, style))

    def see_through(self, features: Features) -> None:
        """Start with the stages of trained features."""
        for stage, trained in zip(self.stages, features.stages, strict=False):
            stage.load_state_dict(trained.state_dict())

    def forward(self, image: Tensor) -> Tensor:
        """Give the style vectors of images.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1, each side at least 16.

        Returns
        -------
        Tensor of float32, (N, style)
            Mean 0 and variance 1 each.
        """
        x = (image - self.mean) / SPREAD
        found: list[Tensor] = []
        for stage, look in zip(self.stages, self.look, strict=True):
            x = stage(x)
            seen = functional.relu(look(x)).float()
            variance, mean = torch.var_mean(seen, (2, 3), correction=0)
            found += [mean, (variance + VARIED).sqrt()]
        vector = self.read(torch.cat(found, 1)).float()
        return functional.layer_norm(vector, vector.shape[1:])


class ConditionalNorm(nn.Module):
    """Instance norm whose scales and shifts come from a style vector (Dumoulin et al. 2017, equation 5).

    ``z = gamma(s) (x - mu) / sigma + beta(s)``, `mu` and `sigma` of each channel of each image.
    """

    def __init__(self, width: int, style: int) -> None:
        super().__init__()
        self.affine = nn.Linear(style, 2 * width)
        nn.init.normal_(self.affine.weight, std=0.02)
        with torch.no_grad():
            self.affine.bias.copy_(torch.cat([torch.ones(width), torch.zeros(width)]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalise (N, C, H, W) as the vectors (N, style) say."""
        # In the type of the maps: they are many.
        factor, addend = (value.to(x.dtype)[..., None, None] for value in self.line(x, style))
        return x * factor + addend

    def line(self, x: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Put norm, scale and shift into one factor and one addend for each channel of each image, (N, C)."""
        variance, mean = torch.var_mean(full(x), (2, 3), correction=0)
        scale, shift = full(self.affine(style)).chunk(2, 1)
        factor = scale * (variance + EPSILON).rsqrt()
        return factor, shift - factor * mean


class StyleTransformer(nn.Module):
    """From a photograph and a style vector to a painting.

    Parameters
    ----------
    width, outer, inner, style : int
        As of `StyleTransfer`.

    Attributes
    ----------
    multiple : int
        Bands of rows, but the last, are multiples of it.
    receptive_radius : int
        Pixels on each side that an output pixel depends on once the statistics are `fixed`.

    Notes
    -----
    Enlarging is repeating pixels, then a convolution (Odena et al. 2016), so that there are no checkerboards; borders
    repeat the edge, which for kernels of 3x3 is a mirror.
    """

    def __init__(self, width: int, outer: int, inner: int, style: int) -> None:
        super().__init__()
        self.multiple = 2 * STRIDE
        self.unshuffle, self.unshuffle_inner = nn.PixelUnshuffle(STRIDE), nn.PixelUnshuffle(self.multiple)
        self.enter = _Painted(3 * STRIDE**2, width, style)
        self.before = nn.ModuleList(_Residual(width, style) for _ in range(outer - outer // 2))
        self.enter_inner = _Painted(3 * self.multiple**2, width, style)
        self.inner = nn.ModuleList(_Residual(width, style) for _ in range(inner))
        self.enlarge = nn.Upsample(scale_factor=2)
        self.join = _Painted(width, width, style, linear=True)
        self.after = nn.ModuleList(_Residual(width, style) for _ in range(outer // 2))
        self.fine = _Painted(width, width // 2, style)
        self.finest = _Painted(width // 2, width // 3, style)
        self.shuffle = nn.PixelShuffle(STRIDE)
        self.leave = _Painted(width // 3 + 3, 3, style, linear=True)
        #: What `velatura.nets.inference.for_inference` keeps in float32: the picture itself must not be rounded.
        self.full_precision = ("leave",)
        # The finer layers and those at stride 4, and whichever of the two ways to them sees further; then the block.
        ways = STRIDE * (1 + 2 * (outer - outer // 2)), STRIDE + self.multiple * (1 + 2 * inner)
        self.receptive_radius = 1 + 1 + 2 + STRIDE * 2 * (outer // 2) + max(ways) + self.multiple

    def forward(self, image: Tensor, rows: Rows = WHOLE, *, style: Tensor | None = None) -> Tensor:
        """Paint.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        rows : Rows
            Whether the image comes whole or, with `fixed` norms, in bands.
        style : Tensor of float32, (N, style), optional
            Vectors of `StylePredictor`; None where the norms are fixed.

        Returns
        -------
        Tensor of float32, (N, 3, H, W)
            0..1.
        """
        height, width = image.shape[-2:]
        whole = cells(image - 0.5, self.multiple)
        blocks = rows(self.unshuffle, whole)
        x = self.enter(blocks, style, rows)
        for block in self.before:
            x = block(x, style, rows)
        inner = self.enter_inner(rows(self.unshuffle_inner, whole), style, rows)
        for block in self.inner:
            inner = block(inner, style, rows)
        x = rows.add(self, x, self.join(rows(self.enlarge, inner), style, rows))
        for block in self.after:
            x = block(x, style, rows)
        # The photograph as blocks goes along, for the last layer; layers without state name its places.
        x = torch.cat([x, rows.match(self.shuffle, blocks.to(x.dtype), x)], 1)
        painted = rows.in_parts(lambda part, parts: self._enlarged(part, style, parts), x)
        # Of a band fewer or more rows come out than went in; what was added is at the end of the last one.
        return painted[:, :, : painted.shape[2] - (-height % self.multiple), :width]

    def _enlarged(self, x: Tensor, style: Tensor | None, rows: Rows) -> Tensor:
        x, blocks = x.split([x.shape[1] - 3 * STRIDE**2, 3 * STRIDE**2], 1)
        x = self.fine(rows(self.enlarge, x), style, rows)
        x = self.finest(rows(self.enlarge, x), style, rows)
        with torch.autocast(x.device.type, enabled=False):
            image = rows.match(self.leave, rows(self.shuffle, full(blocks)), x)
            return torch.sigmoid(self.leave(torch.cat([full(x), image], 1), style, rows))

    @torch.no_grad()
    def fixed(self, image: Tensor, style: Tensor) -> Self:
        """Give a copy whose norms have the statistics of one image: a plain network, which takes bands and tiles.

        Parameters
        ----------
        image : Tensor of float32, (1, 3, H, W)
            A photograph, or the same shrunk.
        style : Tensor of float32, (1, style)

        Returns
        -------
        StyleTransformer
            Scales and shifts are part of its convolutions, which is why nothing is left to be computed for them.
        """
        taken = copy.deepcopy(self)
        layers = [layer for layer in taken.modules() if isinstance(layer, _Painted)]
        for layer in layers:
            layer.watched = True
        taken(image, style=style)
        for layer in layers:
            layer.fold()
        return taken


class _Painted(nn.Module):
    """Convolution, conditional norm, and a ReLU unless it is `linear`."""

    def __init__(self, before: int, width: int, style: int, linear: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, width, 3, padding=1, padding_mode="replicate")
        nn.init.kaiming_normal_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        self.norm: ConditionalNorm | None = ConditionalNorm(width, style)
        self.linear, self.watched = linear, False
        self._line: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, style: Tensor | None, rows: Rows) -> Tensor:
        x = rows(self.convolution, x)
        if self.norm is not None:
            assert style is not None
            if self.watched:
                self._line = self.norm.line(x, style)
            x = self.norm(x, style)
        return x if self.linear else functional.relu(x)

    def fold(self) -> None:
        """Make what the norm did to the image that was watched a part of the convolution."""
        assert self._line is not None
        scale, shift = (value[0] for value in self._line)
        self.convolution.weight.mul_(scale[:, None, None, None])
        self.convolution.bias.mul_(scale).add_(shift)  # type: ignore[union-attr]
        self.norm, self._line, self.watched = None, None, False


class _Residual(nn.Module):
    """Two convolutions, added to what they were made from."""

    def __init__(self, width: int, style: int) -> None:
        super().__init__()
        self.first = _Painted(width, width, style)
        self.second = _Painted(width, width, style, linear=True)
        with torch.no_grad():  # begin near the identity
            assert self.second.norm is not None
            self.second.norm.affine.bias[:width] = SMALLER

    def forward(self, x: Tensor, style: Tensor | None, rows: Rows) -> Tensor:
        return rows.add(self, x, self.second(self.first(x, style, rows), style, rows))
