"""SRVGG: a plain stack of convolutions at the input's size, on top of the nearest-neighbour enlargement.

The network of the small Real-ESRGAN models (``realesr-general-x4v3``, ``realesr-animevideov3``) and of many that
others trained. It came with the code of Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", 2021 (arXiv 2107.10833), not with its text.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.rows import WHOLE, Rows

__all__ = ["SRVGG"]


class SRVGG(nn.Module):
    """Enlarge by `scale`, with all convolutions at the input's size.

    Parameters
    ----------
    scale : int
        How many times larger the output is; 1 cleans without enlarging.
    width : int
        Channels.
    depth : int
        Convolutions between the first and the last: 16 in ``realesr-animevideov3``, 32 in ``realesr-general-x4v3``.
    channels : {1, 3}
        Of the image.

    Attributes
    ----------
    receptive_radius : int
        Pixels of the *input* on each side that an output pixel depends on, exactly: the halo of a tile.

    Raises
    ------
    ValueError
        The scale or the depth is out of range.

    Notes
    -----
    The names of the weights are those of the published files: ``body.0``, ``body.1``...

    Examples
    --------
    >>> import torch
    >>> net = SRVGG()
    >>> sum(p.numel() for p in net.parameters())
    621424
    >>> net(torch.rand(1, 3, 12, 16)).shape, net.receptive_radius
    (torch.Size([1, 3, 48, 64]), 18)
    """

    def __init__(self, scale: int = 4, width: int = 64, depth: int = 16, channels: int = 3) -> None:
        super().__init__()
        if scale < 1 or depth < 0:
            raise ValueError(f"got scale {scale} and depth {depth}; expected at least 1 and 0")
        self.scale = scale
        widths = [channels, *[width] * (depth + 1)]
        layers = []
        for inputs in widths[:-1]:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, channels * scale**2, 3, padding=1))
        self.receptive_radius = depth + 2

    def forward(self, image: Tensor, rows: Rows = WHOLE) -> Tensor:
        """Enlarge.

        Parameters
        ----------
        image : Tensor of float32, (N, channels, H, W)
            0..1.
        rows : Rows
            Whether the image comes whole or in bands.

        Returns
        -------
        Tensor of float32, (N, channels, scale H, scale W)
            About 0..1, not clipped.
        """
        x = image
        for layer in self.body:
            # In half precision only the convolutions are converted.
            activation = isinstance(layer, nn.PReLU)
            x = functional.prelu(x, layer.weight.to(x.dtype)) if activation else rows(layer, x)
        image = rows.match(self, image, x)
        # Every place between the pixels takes its correction and the pixel's own value.
        places = x.to(image.dtype).unflatten(1, (-1, self.scale**2)) + image[:, :, None]
        return functional.pixel_shuffle(places.flatten(1, 2), self.scale)
