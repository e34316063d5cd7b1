"""The Blending GAN: a low-resolution network that gives a composite the light of its background.

Paper: Wu, Zheng, Zhang, Huang, "GP-GAN: Towards Realistic High-Resolution Image Blending", 2017
(arXiv 1703.07195), section 3.2.

Differs from the paper: the mask is a fourth input (the paper's network must guess where the source is), the
encoder-decoder has skips, no batch statistics, and what it gives is a correction of the composite, in the form of
a local affine change of colours that acts where the mask is. ``BlendingGAN(see_mask=False, residual=False,
skips=False, bottleneck=4000)`` is the paper's own form.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BlendingGAN", "Critic"]

SIZE = 64  # GP-GAN section 3.2: composites are shrunk to 64x64


class BlendingGAN(nn.Module):
    """Generator: composite in, blended image out, both 64x64.

    The encoder halves the image five times, to 2x2, and `bottleneck` channels at 1x1 hold what is known of the
    image as a whole; the decoder mirrors it. With ``residual`` the last layer gives twelve maps at 32x32, an affine
    change of colours ``A(x), b(x)`` at every place, enlarged smoothly: exposure, contrast, white balance and
    saturation are all of this form, and detail passes through untouched. The correction ``A c + b`` is
    multiplied with the mask, because the background is already right.

    Parameters
    ----------
    width : int
        Channels at 32x32; 2, 3, 4 and 4 times as many at 16, 8, 4 and 2 pixels.
    bottleneck : int
        Channels at 1x1.
    see_mask : bool
        Whether the network sees the mask; without it the mask is ignored altogether.
    residual : bool
        Whether the output is ``composite + correction``; without it the output is the image itself.
    skips : bool
        Whether the decoder sees the encoder's maps of the same size.

    Notes
    -----
    Differs from the paper: see the module. Leaky ReLU as in DCGAN, whose layout the paper follows.

    Examples
    --------
    >>> net = BlendingGAN(width=8, bottleneck=16)
    >>> composite, mask = torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64)
    >>> net(composite, mask).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        width: int = 48,
        bottleneck: int = 192,
        see_mask: bool = True,
        residual: bool = True,
        skips: bool = True,
        passes: int = 1,
    ) -> None:
        super().__init__()
        self.passes = passes
        self.see_mask = see_mask
        self.residual = residual
        self.skips = skips
        widths = [width, 2 * width, 3 * width, 4 * width, 4 * width]  # at 32, 16, 8, 4 and 2 pixels

        # The first layer takes blocks of 2x2 pixels as channels: most of the work then is done at 32x32.
        inputs = 4 * (3 + 4 if see_mask else 3)
        self.enter = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.squeeze = nn.Conv2d(widths[-1], bottleneck, 2)
        self.expand = nn.Conv2d(bottleneck, widths[-1], 1)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(
            nn.Conv2d(2 * channels if skips else channels, channels, 3, padding=1) for channels in widths
        )
        self.leave = nn.Conv2d(widths[0], 12, 3, padding=1)
        if residual:
            # Begin as the identity: a correction of exactly nothing.
            nn.init.zeros_(self.leave.weight)
            assert self.leave.bias is not None
            nn.init.zeros_(self.leave.bias)

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """Blend.

        Parameters
        ----------
        composite : Tensor of float32, (N, 3, 64, 64)
            The source pasted into the destination, RGB, 0..1.
        mask : Tensor of float32, (N, 1, 64, 64)
            1 = source, 0 = destination, soft edges allowed.

        Returns
        -------
        Tensor of float32, (N, 3, 64, 64)
            About 0..1, not clipped.
        """
        for _ in range(self.passes):
            composite = self._once(composite, mask)
        return composite

    def _once(self, composite: Tensor, mask: Tensor) -> Tensor:
        image = composite - 0.5
        # The source alone as well: a convolution cannot multiply by the mask.
        seen = torch.cat([image, mask - 0.5, image * mask], dim=1) if self.see_mask else image
        x = functional.leaky_relu(self.enter(functional.pixel_unshuffle(seen, 2)), 0.2)
        maps = [x]
        for layer in self.down:
            x = functional.leaky_relu(layer(x), 0.2)
            maps.append(x)
        x = functional.leaky_relu(self.squeeze(x), 0.2)
        x = functional.leaky_relu(self.expand(x), 0.2).expand_as(maps[-1])
        for level in reversed(range(len(maps))):
            if level < len(maps) - 1:
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
                x = functional.leaky_relu(self.up[level](x), 0.2)
            joined = torch.cat([x, maps[level]], dim=1) if self.skips else x
            x = functional.leaky_relu(self.merge[level](joined), 0.2)
        x = self.leave(x)
        if not self.residual:
            return functional.pixel_shuffle(x, 2).float() + 0.5
        # Float32 from here on: the sum must not be rounded to what bfloat16 can hold.
        affine = functional.interpolate(x.float(), scale_factor=2, mode="bilinear", align_corners=False)
        matrix, offset = affine[:, :9].unflatten(1, (3, 3)), affine[:, 9:]
        correction = (matrix * image[:, None]).sum(dim=2) + offset
        return composite + (correction * mask if self.see_mask else correction)


class Critic(nn.Module):
    """Wasserstein critic: one number per image, larger for natural ones.

    Four strided convolutions to 4x4 as in DCGAN, then one number. No batch norm, which a gradient penalty
    forbids (it is about single images).

    Parameters
    ----------
    width : int
        Channels at 32x32, doubled at each halving.

    Examples
    --------
    >>> Critic(width=8)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.score = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, image: Tensor) -> Tensor:
        """Score images (N, 3, 64, 64) of 0..1: a Tensor (N,)."""
        x = image - 0.5
        for layer in self.down:
            x = functional.leaky_relu(layer(x), 0.2)
        return self.score(x).flatten()
