"""Our features as style losses want them: in their teachers' own scale, for the price of one activation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.features import Features

__all__ = ["STYLE_FEATURES", "StyleFeatures"]

#: The catalog's: trained further than what images are compared in, for Gram matrices like the teachers'.
STYLE_FEATURES = "style-features"


class StyleFeatures(nn.Module):
    """`velatura.nets.features.Features` whose units are part of its last layers.

    Gram matrices are made of maps behind their activation, in the teachers' own scale. To bring standardised maps there
    costs as much as the convolution that makes them, at the fine strides; here the convolution does it.

    Parameters
    ----------
    features : Features
        Trained; it stays as it is.

    Attributes
    ----------
    LAYERS : tuple of str
        As of `Features`.

    Examples
    --------
    >>> features, image = Features().requires_grad_(False), torch.rand(1, 3, 32, 32)
    >>> ours = StyleFeatures(features)
    >>> one, two = (net.activated(net(image, ["stride2"]))["stride2"] for net in (features, ours))
    >>> torch.allclose(one, two, atol=1e-5)
    True
    """

    LAYERS: ClassVar[tuple[str, ...]] = Features.LAYERS

    @torch.no_grad()
    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = copy.deepcopy(features)
        for name in self.LAYERS:
            head = self.features.heads[name]
            convolution, spread, mean = head.convolution, head.spread, head.mean
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(spread, Tensor)
            assert isinstance(mean, Tensor)
            assert convolution.bias is not None
            convolution.weight.mul_(spread[..., None])
            convolution.bias.mul_(spread.flatten()).add_(mean.flatten())
            self.features.calibrate(name, torch.zeros_like(mean), torch.ones_like(spread))

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Give the maps of `layers` before activation, as `Features.forward` does, in their teachers' own scale."""
        return self.features(image, layers)

    @staticmethod
    def activated(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Apply the ReLU that `forward` left out."""
        return {name: functional.relu(found) for name, found in maps.items()}
