"""Pictures from sentences: GAN-CLS and GAN-INT, with the style encoder.

Paper: Reed, Akata, Yan, Logeswaran, Schiele, Lee, "Generative adversarial text to image synthesis", 2016
(arXiv 1605.05396), section 4 and figure 2. A sentence's numbers are condensed and stand beside the noise that a
generator begins with, and beside every place of the smallest map of the discriminator, which so judges whether a
picture is real *and* fits the sentence. The style encoder S turns a generator round: from a picture to its noise.

Differs from the paper: generator and discriminator are ours of `velatura.nets.dcgan` (residual, enlargement by
interpolation, no norm in the discriminator); the noise is normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.dcgan import Generator, Trunk, group_means
from velatura.nets.text_encoder import TextEncoder

__all__ = ["MatchingDiscriminator", "StyleEncoder", "TextToImage"]

SLOPE = 0.2  # of the leaky ReLU, section 4.1
PLACES = 16  # the smallest map is 4 x 4: section 4.1


class TextToImage(nn.Module):
    """From noise and sentences to pictures, with all that is needed for it.

    Parameters
    ----------
    text : mapping
        Arguments of `velatura.nets.text_encoder.TextEncoder`.
    noise : int
        How many numbers are drawn; 100 in the paper.
    condensed : int
        To how many numbers a sentence is condensed; 128 in the paper.
    width : int
        Channels of the generator at half the size.
    size : int
        Side of the pictures, 64 as in the paper.
    style_width : int
        Channels of the style encoder at half the size; 0 = there is none.
    basis : int
        Side of the principal components that begin what noise makes, which `begin` sets; 0 = none.

    Examples
    --------
    >>> net = TextToImage({"vocabulary": ["a", "red", "flower"]}, width=8, style_width=8).eval()
    >>> picture = net(net.draw(2, torch.Generator().manual_seed(7)), net.encode(["a red flower", "red"]))
    >>> picture.shape, net.style(picture).shape
    (torch.Size([2, 3, 64, 64]), torch.Size([2, 100]))
    """

    def __init__(
        self,
        text: Mapping[str, Any],
        noise: int = 100,
        condensed: int = 128,
        width: int = 48,
        size: int = 64,
        style_width: int = 0,
        basis: int = 0,
    ) -> None:
        super().__init__()
        self.noise, self.size = noise, size
        self.text = TextEncoder(**text)
        self.condense = nn.Linear(self.text.size, condensed)
        self.generator = Generator(noise + condensed, size=size, width=width, norm="batch", basis=basis)
        self.style = StyleEncoder(noise, width=style_width) if style_width else None

    @torch.no_grad()
    def begin(self, images: Tensor, descriptions: Tensor) -> None:
        """Make the linear part of the noise what no sentence says; the convolutions add nothing to it at first.

        Parameters
        ----------
        images : Tensor of float32, (N, 3, size, size)
            0..1; more of them than there are numbers.
        descriptions : Tensor of int64, (N,)
            From 0: images of one number are described alike, and only what makes them differ is the noise's.

        Notes
        -----
        See `velatura.nets.dcgan.Generator.begin`. Sentences have no linear part: what they say is learned.
        """
        small = functional.interpolate(images, self.generator.basis.shape[-2:], mode="area")
        means = group_means(small, descriptions, int(descriptions.max()) + 1)
        self.generator.begin(small - means[descriptions] + small.mean(0))
        self.generator.basis[self.noise :] = 0

    def forward(self, z: Tensor, sentence: Tensor) -> Tensor:
        """Make pictures.

        Parameters
        ----------
        z : Tensor of float32, (N, noise)
        sentence : Tensor of float32, (N, text size)
            Of `encode`, or between two of them.

        Returns
        -------
        Tensor of float32, (N, 3, size, size)
            About 0..1, not clipped.
        """
        condensed = functional.leaky_relu(self.condense(sentence), SLOPE)
        return self.generator(torch.cat([z, condensed.to(z.dtype)], dim=1))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences, (N, text size), where the weights are."""
        return self.text(self.text.tokens(texts).to(self.condense.weight.device))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, (count, noise), on the CPU."""
        return torch.randn(count, self.noise, generator=generator)


class MatchingDiscriminator(nn.Module):
    """Tell real pictures with the right sentence from all others.

    Parameters
    ----------
    text_size : int
        Numbers of a sentence.
    condensed, width, size
        As of `TextToImage`.

    Examples
    --------
    >>> net = MatchingDiscriminator(32, width=8).eval()
    >>> right, wrong = net(torch.rand(2, 3, 64, 64), torch.randn(2, 32), torch.randn(2, 32))
    >>> right.shape
    torch.Size([2])
    """

    def __init__(self, text_size: int = 256, condensed: int = 128, width: int = 48, size: int = 64) -> None:
        super().__init__()
        deepest = 4 * width
        self.trunk = Trunk(3, width, 3, norm="none")
        self.condense = nn.Linear(text_size, condensed)
        self.meet = nn.Conv2d(deepest + condensed, deepest, 1)
        self.score = nn.Linear(deepest * PLACES * (size // 64) ** 2, 1)

    def forward(self, image: Tensor, *sentences: Tensor) -> tuple[Tensor, ...]:
        """Judge pictures (N, 3, size, size) of 0..1 with each of some sentences (N, text_size): logits (N,) for each.

        The pictures are looked at once.
        """
        seen = functional.leaky_relu(self.trunk(2 * image - 1), SLOPE)
        return tuple(self._judge(seen, sentence) for sentence in sentences)

    def _judge(self, seen: Tensor, sentence: Tensor) -> Tensor:
        condensed = functional.leaky_relu(self.condense(sentence), SLOPE).to(seen.dtype)
        beside = condensed[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        met = functional.leaky_relu(self.meet(torch.cat([seen, beside], dim=1)), SLOPE)
        return self.score(met.flatten(1)).flatten().float()


class StyleEncoder(nn.Module):
    """S: what of a picture no sentence says, as the noise that a generator would make it from (section 4.4).

    Parameters
    ----------
    noise, width
        As of `TextToImage`.

    Examples
    --------
    >>> StyleEncoder(width=8).eval()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 100])
    """

    def __init__(self, noise: int = 100, width: int = 32) -> None:
        super().__init__()
        self.trunk = Trunk(3, width, 3, norm="batch")
        self.tell = nn.Linear(4 * width * PLACES, noise)

    def forward(self, image: Tensor) -> Tensor:
        """Guess the noise (N, noise) behind pictures (N, 3, 64, 64) of 0..1."""
        return self.tell(functional.leaky_relu(self.trunk(2 * image - 1), SLOPE).flatten(1)).float()
