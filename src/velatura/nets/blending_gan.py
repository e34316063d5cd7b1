"""The Blending GAN: a low-resolution network that gives a composite the light of its background.

Paper: Wu, Zheng, Zhang, Huang, "GP-GAN: Towards Realistic High-Resolution Image Blending", 2017
(arXiv 1703.07195), section 3.2.

Differs from the paper: the mask is a fourth input (the paper's network must guess where the source is), the
encoder-decoder has skips, no batch statistics, it begins with what the seam itself tells in closed form, and what it
gives is a correction of the composite, in the form of a local affine change of colours that acts where the mask is.
``BlendingGAN(see_mask=False, residual=False, skips=False, bottleneck=4000)`` is the paper's own form.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BlendingGAN", "Critic", "Prior", "seam_prior"]

SIZE = 64  # GP-GAN section 3.2: composites are shrunk to 64x64


class BlendingGAN(nn.Module):
    """Generator: composite in, blended image out, both 64x64.

    With ``prior``, what the seam itself tells is worked out first, in closed form (`seam_prior`); the network sees
    it and learns how far to trust it, and what it misses.

    The encoder halves the image five times, to 2x2, and `bottleneck` channels at 1x1 hold what is known of the
    image as a whole; the decoder mirrors it. With ``residual`` the last layer gives an affine change of colours at
    every place of a 32x32 grid, enlarged smoothly: exposure, contrast, white balance and saturation are all of this
    form, and detail passes through untouched. The correction is multiplied with the mask, because the
    background is already right.

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
    prior : bool
        Whether the correction starts from `seam_prior`; needs ``see_mask`` and ``residual``.

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
        width: int = 32,
        bottleneck: int = 128,
        see_mask: bool = True,
        residual: bool = True,
        skips: bool = True,
        prior: bool = True,
    ) -> None:
        super().__init__()
        self.see_mask = see_mask
        self.residual = residual
        self.skips = skips
        self.prior = prior and see_mask and residual
        widths = [width, 2 * width, 3 * width, 4 * width, 4 * width]  # at 32, 16, 8, 4 and 2 pixels

        # The first layer takes blocks of 2x2 pixels as channels: most of the work then is done at 32x32.
        inputs = 3 + 4 * see_mask + 5 * self.prior
        self.enter = nn.Conv2d(4 * inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.squeeze = nn.Conv2d(widths[-1], bottleneck, 2)
        self.expand = nn.Conv2d(bottleneck, widths[-1], 1)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(
            nn.Conv2d(2 * channels if skips else channels, channels, 3, padding=1) for channels in widths
        )
        # Residual: a matrix (9), an offset (3), the trust in the prior (1). Else: 2x2 pixels of the image.
        outputs = 12 + self.prior
        self.leave = nn.Conv2d(widths[0], outputs, 3, padding=1)
        # Without norms the first weights must keep the signal's size through all layers.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if residual:
            # Begin with no correction but the prior's.
            nn.init.zeros_(self.leave.weight)

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
        image = composite - 0.5
        if not self.residual:
            return functional.pixel_shuffle(self._maps(image, mask, None, None), 2) + 0.5
        prior = self._read_seam(composite, mask)
        guess = image if prior is None else prior.guess(composite, mask) - 0.5
        matrix, offset, trust = self._affine(image, mask, guess, prior)
        correction = (matrix * guess[:, None]).sum(dim=2) + offset
        if prior is not None:
            correction = correction + trust * (guess - image)
        return composite + (correction * mask if self.see_mask else correction)

    def colour_map(self, composite: Tensor, mask: Tensor) -> Tensor:
        """Say how the source's colours change, for use at any resolution.

        The seam is read at the resolution that is given: the finer, the nearer are the pixels on its two sides. The
        network itself looks at 64x64.

        Parameters
        ----------
        composite : Tensor of float32, (N, 3, S, S)
            As for `forward`; S = 64, 128, 256...
        mask : Tensor of float32, (N, 1, S, S)

        Returns
        -------
        Tensor of float32, (N, 12, S, S)
            At every place a matrix (9, by rows) and an offset (3): a colour ``x`` becomes ``x + matrix x + offset``.

        Examples
        --------
        >>> net = BlendingGAN(width=8, bottleneck=16)
        >>> composite, mask = torch.rand(1, 3, 128, 128), torch.ones(1, 1, 128, 128)
        >>> net.colour_map(composite, mask).shape
        torch.Size([1, 12, 128, 128])
        """
        size = composite.shape[-2:]
        small, small_mask = (functional.adaptive_avg_pool2d(planes, SIZE) for planes in (composite, mask))
        if not self.residual:
            change = functional.interpolate(self(small, small_mask) - small, size, mode="bilinear")
            return torch.cat([torch.zeros_like(change).repeat(1, 3, 1, 1), change], dim=1)
        prior = self._read_seam(composite, mask)
        image = small - 0.5
        guess = image if prior is None else prior.shrunk(SIZE).guess(small, small_mask) - 0.5
        matrix, offset, trust = (
            functional.interpolate(maps.flatten(1, -3), size, mode="bilinear")
            for maps in self._affine(image, small_mask, guess, prior)
        )
        matrix = matrix.unflatten(1, (3, 3))
        if prior is None:
            return torch.cat([matrix.flatten(1, 2), offset - 0.5 * matrix.sum(dim=2)], dim=1)
        # The guess is P x + k, the change M (P x + k - 1/2) + o + t (P x + k - x).
        whole = torch.einsum("nijhw,njk->nikhw", matrix, prior.matrix)
        whole = whole + trust[:, None] * (prior.matrix - torch.eye(3, device=matrix.device))[..., None, None]
        moved = (matrix * (prior.offset - 0.5)[:, None]).sum(dim=2) + offset + trust * prior.offset
        return torch.cat([whole.flatten(1, 2), moved], dim=1)

    def _read_seam(self, composite: Tensor, mask: Tensor) -> Prior | None:
        if not self.prior:
            return None
        with torch.autocast(composite.device.type, enabled=False):
            return seam_prior(composite, mask)

    def _affine(self, image: Tensor, mask: Tensor, guess: Tensor, prior: Prior | None) -> tuple[Tensor, Tensor, Tensor]:
        """Matrix (N, 3, 3, 64, 64), offset (N, 3, 64, 64) and trust in the prior (N, 1, 64, 64)."""
        maps = self._maps(image, mask, guess, prior)
        maps = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        trust = 1 + maps[:, 12:] if self.prior else torch.zeros_like(maps[:, :1])
        return maps[:, :9].unflatten(1, (3, 3)), maps[:, 9:12], trust

    def _maps(self, image: Tensor, mask: Tensor, guess: Tensor | None, prior: Prior | None) -> Tensor:
        """Run the network: float32 maps at 32x32."""
        seen = [image]
        if self.see_mask:
            # The source alone as well: a convolution cannot multiply by the mask.
            seen += [mask - 0.5, image * mask]
        if prior is not None and guess is not None:
            # A convolution would have to find out by itself whether the seam can be trusted.
            seen += [guess - image, prior.alike.expand(-1, -1, *image.shape[2:])]
        x = functional.leaky_relu(self.enter(functional.pixel_unshuffle(torch.cat(seen, dim=1), 2)), 0.2)
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
        # Float32 from here on: the sums must not be rounded to what bfloat16 can hold.
        return self.leave(x).float()


class Prior(NamedTuple):
    """What the seam tells: a colour ``x`` of the source becomes ``matrix x + offset``.

    Attributes
    ----------
    matrix : Tensor, (N, 3, 3)
    offset : Tensor, (N, 3, H, W)
    alike : Tensor, (N, 2, 1, 1)
        Whether the two sides show one thing: the correlation of their colours, -1..1, high for one scene in two
        lights and near 0 for two scenes; and the distance that the change leaves between them, 0..1.
    """

    matrix: Tensor
    offset: Tensor
    alike: Tensor

    def guess(self, composite: Tensor, mask: Tensor) -> Tensor:
        """Give the composite with its source changed, 0..1."""
        changed = (self.matrix @ composite.flatten(2)).reshape(composite.shape) + self.offset
        return (composite + mask * (changed - composite)).clamp(0, 1)

    def shrunk(self, size: int) -> Prior:
        """Give the same for a smaller image."""
        return self._replace(offset=functional.adaptive_avg_pool2d(self.offset, size))


@torch.no_grad()
def seam_prior(composite: Tensor, mask: Tensor) -> Prior:
    """The change of colours that makes the two sides of the seam agree, without any learning.

    Two neighbouring pixels, one of the source and one of the destination, show nearly the same thing in two
    lights. The colours of all such pairs have two means and two covariances, and the linear Monge-Kantorovich map
    (Pitie, Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping") takes one to the other. It is less
    close than least squares where pairs match, but neighbours differ, and least squares takes that for lost
    contrast. What the pairs still differ by is spread over the source as a membrane (Perez et al. 2003).

    Parameters
    ----------
    composite : Tensor, (N, 3, H, W)
        RGB, 0..1; H and W equal, a power of two.
    mask : Tensor, (N, 1, H, W)
        1 = source. Where the edge is soft, the pairs are further apart.

    Returns
    -------
    Prior
        Without any seam: no change.

    Notes
    -----
    Only products of matrices and sums, no decompositions: the same on every device, and ONNX can say it.
    """
    # Pairs of pixels across the edge. Nearer ones are worth so much more that further ones count only where no
    # nearer one spans the edge.
    pairs = []
    for distance, worth in ((1, 1.0), (3, 1e-4), (8, 1e-8)):
        for axis in (2, 3):
            n = composite.shape[axis] - distance
            a, b = composite.narrow(axis, 0, n), composite.narrow(axis, distance, n)
            step = mask.narrow(axis, distance, n) - mask.narrow(axis, 0, n)
            weight = worth * step * step * (step.abs() > 0.8)
            source = torch.where(step > 0, b, a)
            pairs.append((weight, source, a + b - source, axis, distance))

    total = torch.full_like(mask[:, :, :1, :1], 1e-12)
    mean_source = mean_destination = torch.zeros_like(composite[:, :, :1, :1])
    for weight, source, destination, _, _ in pairs:
        total = total + weight.sum((2, 3), keepdim=True)
        mean_source = mean_source + (weight * source).sum((2, 3), keepdim=True)
        mean_destination = mean_destination + (weight * destination).sum((2, 3), keepdim=True)
    mean_source, mean_destination = mean_source / total, mean_destination / total
    # The ridge keeps the map near "no change" of contrast where a side has hardly more than one colour.
    spread_source = spread_destination = 0.0003 * torch.eye(3, dtype=composite.dtype, device=composite.device)
    common = torch.zeros_like(total)
    for weight, source, destination, _, _ in pairs:
        x, y = (source - mean_source).flatten(2), (destination - mean_destination).flatten(2)
        share = (weight / total).flatten(2)
        spread_source = spread_source + (share * x) @ x.transpose(1, 2)
        spread_destination = spread_destination + (share * y) @ y.transpose(1, 2)
        common = common + (share * x * y).sum((1, 2))[:, None, None, None]
    root, inverse_root = _roots(spread_source)
    matrix = inverse_root @ _roots(root @ spread_destination @ root)[0] @ inverse_root

    def change(colors: Tensor) -> Tensor:
        return (matrix @ (colors - mean_source).flatten(2)).reshape(colors.shape) + mean_destination

    # What is left at the seam, on the pixels of each pair, and the membrane through it:
    # minimize sum_pairs w (u - left)^2 + 8 sum |grad u|^2. Pairs that differ by much more than 0.2 show two things,
    # not two lights. 8 and 0.2 were the best of powers of two on training images.
    strongest = torch.stack([weight.amax((1, 2, 3), keepdim=True) for weight, *_ in pairs]).amax(0).clamp_min(1e-12)
    pull, pulled = torch.zeros_like(mask), torch.zeros_like(composite)
    distant = torch.zeros_like(total)
    for weight, source, destination, axis, distance in pairs:
        left = destination - change(source)
        apart = left.square().sum(1, keepdim=True)
        distant = distant + (weight / total * (apart + 1e-6).sqrt()).sum((2, 3), keepdim=True)
        strength = weight / (8 * strongest) / (1 + apart / 0.2**2)
        drawn = strength * left
        for offset in (0, distance):
            pull.narrow(axis, offset, weight.shape[axis]).add_(strength)
            pulled.narrow(axis, offset, weight.shape[axis]).add_(drawn)
    seen = total > 2e-12
    moved = mean_destination - (matrix @ mean_source.flatten(2)).reshape(mean_source.shape)
    offset = torch.where(seen, moved + _membrane(pull, pulled), torch.zeros_like(composite))
    matrix = torch.where(seen[:, 0], matrix, torch.eye(3, dtype=matrix.dtype, device=matrix.device))
    own = (_trace(spread_source) * _trace(spread_destination)).sqrt()
    return Prior(matrix, offset, torch.cat([common / own, distant], dim=1))


def _trace(matrix: Tensor) -> Tensor:
    """Trace of matrices (N, 3, 3), as (N, 1, 1, 1)."""
    return matrix.diagonal(dim1=1, dim2=2).sum(1)[:, None, None, None]


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Square root and its inverse of positive definite matrices (N, 3, 3), by the Newton-Schulz iteration.

    Twenty rounds are enough for a condition number of 1,000 (Higham 2008, "Functions of Matrices", equation 6.35).
    """
    norm = _trace(matrix)[..., 0]  # the trace bounds the largest eigenvalue
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    root, inverse = matrix / norm, eye.expand_as(matrix)
    for _ in range(20):
        step = 1.5 * eye - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * norm.sqrt(), inverse / norm.sqrt()


def _membrane(pull: Tensor, pulled: Tensor) -> Tensor:
    """Solve ``(pull - Laplacian) u = pulled`` nearly: coarse to fine, four damped Jacobi sweeps on each level.

    The finest level is left out: `u` is smooth.
    """
    levels = [(pull, pulled)]
    while levels[-1][0].shape[-1] > 1:
        # Sums over 2x2; the Laplacian of a plane keeps its weight when the grid is halved.
        levels.append((4 * functional.avg_pool2d(levels[-1][0], 2), 4 * functional.avg_pool2d(levels[-1][1], 2)))
    w, r = levels[-1]
    u = r / (w + 1e-6)
    for w, r in levels[-2:0:-1]:
        u = functional.interpolate(u, scale_factor=2, mode="bilinear", align_corners=False)
        for _ in range(4):
            p = functional.pad(u, (1, 1, 1, 1), mode="replicate")
            around = p[:, :, 1:-1, :-2] + p[:, :, 1:-1, 2:] + p[:, :, :-2, 1:-1] + p[:, :, 2:, 1:-1]
            u = u + 0.8 * ((around + r) / (w + 4) - u)
    return functional.interpolate(u, scale_factor=2, mode="bilinear", align_corners=False)


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
