"""A discriminator that looks through a network trained before: it judges maps of features, not pixels.

Paper: Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster", 2021 (arXiv 2111.01007), sections 3 and 4. What
a discriminator of pixels learns for hours is there from the first step, so it teaches a generator sooner.

Differs from the paper: the features are `velatura.nets.features`, not ImageNet's EfficientNet; every map is mixed
across its channels at random, and the scales are not mixed with each other; a class or a sentence is a projection
(Miyato and Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["ProjectedDiscriminator"]

SLOPE = 0.2


class ProjectedDiscriminator(nn.Module):
    """Judge the maps of images, every place of every map.

    Parameters
    ----------
    channels : mapping of str to int
        Of each layer that it sees.
    width : int
        Channels of its own.
    classes : int
        How many; 0 = unconditional, or on sentences.
    text_size : int
        Numbers of a sentence; 0 = there are none.

    Examples
    --------
    >>> net = ProjectedDiscriminator({"stride8": 480, "stride16": 512}, width=16, classes=2)
    >>> maps = {"stride8": torch.rand(3, 480, 8, 8), "stride16": torch.rand(3, 512, 4, 4)}
    >>> [tuple(logits.shape) for logits in net(maps, torch.tensor([0, 1, 0]))]
    [(3, 8, 8), (3, 4, 4)]
    """

    def __init__(self, channels: Mapping[str, int], width: int = 64, classes: int = 0, text_size: int = 0) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: _Head(many, width, classes, text_size) for name, many in channels.items()})

    def forward(self, maps: Mapping[str, Tensor], label: Tensor | None = None) -> list[Tensor]:
        """Judge.

        Parameters
        ----------
        maps : mapping of str to Tensor, (N, channels, H, W)
            About standardised, as `velatura.nets.features.Features` gives them.
        label : Tensor, optional
            Numbers of classes, (N,), int64; or sentences, (N, text_size).

        Returns
        -------
        list of Tensor of float32, (N, H, W)
            Logits of each layer, larger for what looks real.
        """
        return [head(maps[name], label) for name, head in self.heads.items()]


class _Head(nn.Module):
    """The judge of one layer."""

    mixing: Tensor

    def __init__(self, channels: int, width: int, classes: int, text_size: int) -> None:
        super().__init__()
        # Mixed at random and for ever: a judge that may choose its channels would soon look at a few (section 3.2).
        self.register_buffer("mixing", torch.randn(2 * width, channels, 1, 1) / channels**0.5)
        self.enter = spectral_norm(nn.Conv2d(2 * width, width, 3, padding=1))
        self.inner = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.name: nn.Embedding | nn.Linear | None = None
        if classes or text_size:
            self.name = nn.Embedding(classes, width) if classes else nn.Linear(text_size, width, bias=False)
            nn.init.zeros_(self.name.weight)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        x = functional.leaky_relu(self.enter(functional.conv2d(x, self.mixing.to(x.dtype))), SLOPE)
        x = functional.leaky_relu(self.inner(x), SLOPE)
        logits = self.score(x).squeeze(1).float()
        if self.name is None:
            return logits
        return logits + (x.float() * self.name(label)[..., None, None]).sum(1)
