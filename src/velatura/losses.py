"""What generators are trained by, beyond the recipe's own: pixels, features, critics, smoothness.

Every function gives a scalar Tensor, a mean over images, so that weights do not depend on sizes. Images are
float32 (N, 3, H, W), RGB, 0..1; logits are what a critic gives *before* a sigmoid, of any shape.

    pixels        `l1`, `mse`, `charbonnier`
    features      `content_loss`, `StyleLoss` and the `gram_matrix` that it compares
    critics       `adversarial` (SRGAN's and the hinge's forms), `relativistic` (ESRGAN's)
    smoothness    `total_variation`
    frequencies   `spectral`, of a set of images as a whole
    variety       `energy_score`, of two draws of one label
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "FeatureMaps",
    "StyleLoss",
    "adversarial",
    "charbonnier",
    "content_loss",
    "energy_score",
    "gram_matrix",
    "l1",
    "mse",
    "relativistic",
    "spectral",
    "style_grams",
    "total_variation",
]

Extractor = Callable[[Tensor, Iterable[str]], dict[str, Tensor]]

EPSILON = 1e-3  # Charbonnier: Lai et al. 2017 (LapSRN, arXiv 1704.03915), section 3.3
FLOOR = 0.01  # of what a map or a Gram matrix holds: what two images do not differ in is not to be matched exactly
TINY = 1e-12  # a map of nothing but zeros
UNSEEN = 1e-4**2  # power of a frequency that no eye sees: an amplitude of a twentieth of a step of 8 bits


class FeatureMaps(Protocol):
    """An extractor whose maps can be brought behind their activation: `velatura.nets.features.Features`, a teacher."""

    def __call__(self, image: Tensor, layers: Iterable[str], /) -> dict[str, Tensor]:
        """Give the maps of some layers, before activation."""
        ...

    def activated(self, maps: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """Bring them behind it, in the teacher's own scale."""
        ...


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference: ``mean |x - y|``, the content term of ESRGAN (Wang et al. 2018, section 3.2)."""
    return functional.l1_loss(image, target)


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference: ``mean (x - y)^2``, SRGAN (Ledig et al. 2016, arXiv 1609.04802), equation 4."""
    return functional.mse_loss(image, target)


def charbonnier(image: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Give ``mean sqrt((x - y)^2 + epsilon^2)``: L1 with a round foot (Charbonnier et al. 1994; LapSRN, section 3.3).

    Parameters
    ----------
    image, target : Tensor
        Of the same shape.
    epsilon : float
        Below it the loss is a square; also its value for equal images.
    """
    return ((image - target).square() + epsilon**2).sqrt().mean()


def content_loss(features: Extractor, image: Tensor, target: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Compare features: ``sum_j w_j mean (phi_j(x) - phi_j(y))^2``.

    SRGAN (Ledig et al. 2016), equation 5, with maps before activation where `features` gives them (ESRGAN,
    section 3.3); the sum over layers is that of perceptual losses (Johnson et al. 2016, arXiv 1603.08155, equation 2).

    Differs from the papers: the mean goes over channels too, so that a weight means the same in every layer.

    Parameters
    ----------
    features : callable
        ``features(image, layers) -> dict[str, Tensor]``: `velatura.nets.features.Features`, or a teacher.
    image, target : Tensor of float32, (N, 3, H, W)
        RGB, 0..1. Gradients flow to `image` only.
    weights : mapping of str to float
        Layer -> weight; other layers are not computed.

    Raises
    ------
    ValueError
        No layer is weighed.

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 3, 4, 4)
    >>> float(content_loss(lambda x, layers: {"half": x / 2}, image, image, {"half": 1.0}))
    0.0
    """
    if not weights:
        raise ValueError("got no layers; expected a weight for at least one")
    ours = features(image, weights)
    theirs = features(target.detach(), weights)
    losses = [weight * mse(ours[layer], theirs[layer].detach()) for layer, weight in weights.items()]
    return sum(losses[1:], start=losses[0])


def gram_matrix(maps: Tensor) -> Tensor:
    """Say which channels answer together: ``G_ab = mean over places of phi_a phi_b``.

    Gatys, Ecker, Bethge, "A neural algorithm of artistic style", 2015 (arXiv 1508.06576), equation 3.

    Differs from the paper: a mean over places, not a sum, so that images of two sizes can be compared.

    Parameters
    ----------
    maps : Tensor, (N, C, H, W)
        In half precision their products are rounded to it, by .2 % at most.

    Returns
    -------
    Tensor of float32, (N, C, C)
        Symmetric.

    Examples
    --------
    >>> gram_matrix(torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])).tolist()
    [[[5.0, 3.0], [3.0, 2.0]]]
    """
    with torch.autocast(maps.device.type, enabled=False):
        return _Gram.apply(maps)  # pyright: ignore[reportReturnType]


class _Gram(torch.autograd.Function):
    """The product of a matrix with itself: its derivative takes one product, where the general one takes two."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.save_for_backward(maps)
        flat, last = _flat(maps)
        # One image after the other: products of batches would copy the transposed maps first.
        products = torch.stack([one.T @ one if last else one @ one.T for one in flat])
        return products.to(torch.promote_types(maps.dtype, torch.float32)) / (maps.shape[2] * maps.shape[3])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (maps,) = ctx.saved_tensors
        flat, last = _flat(maps)
        n, channels, height, width = maps.shape
        both = ((slope + slope.transpose(1, 2)) / (height * width)).to(maps.dtype)
        if last:
            return (flat @ both).view(n, height, width, channels).permute(0, 3, 1, 2)
        return (both @ flat).view(maps.shape)


def _flat(maps: Tensor) -> tuple[Tensor, bool]:
    """Give maps as matrices, without a copy, and whether their rows are places and not channels."""
    if maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous():
        return maps.permute(0, 2, 3, 1).flatten(1, 2), True
    return maps.flatten(2), False


class _MeanSquare(torch.autograd.Function):
    """The mean of squares of each image's values: half precision is added up, but never spread out, in single."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        length = torch.linalg.vector_norm(values, dim=(1, 2, 3), dtype=torch.promote_types(values.dtype, torch.float32))
        return length.square() / values[0].numel()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (values,) = ctx.saved_tensors
        return values * (2 * slope / values[0].numel()).to(values.dtype).view(-1, 1, 1, 1)


def _mean_square(values: Tensor) -> Tensor:
    """Give the mean of the squares of each image's values (N, C, H, W): float32, (N,)."""
    with torch.autocast(values.device.type, enabled=False):
        return _MeanSquare.apply(values)  # pyright: ignore[reportReturnType]


def style_grams(features: FeatureMaps, style: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Give the Gram matrices of a style, of maps behind their activation, (N, C, C) by layer; without gradients."""
    with torch.no_grad():
        maps = features.activated(features(style, layers))
    return {name: gram_matrix(found) for name, found in maps.items()}


class StyleLoss:
    """What a picture has lost of its content and lacks of a style (Gatys et al. 2015, equations 1 and 4).

    ``C(x) = sum_j w_j mean (phi_j(x) - phi_j(c))^2 / var phi_j(c)`` and
    ``S(x) = sum_i v_i |G_i(x) - G_i(s)|^2 / |G_i(c) - G_i(s)|^2``.

    Differs from the paper: both are in units of the pair's own, per layer: content is 1 where as much is lost as a
    featureless picture of the same mean would lack, style is 1 for the photograph as it is. So a weight means the same
    in every layer, for every pair and with every extractor. To the denominators comes `floor` of what is there.

    Parameters
    ----------
    features : FeatureMaps
        Maps are compared behind their activation.
    content : Tensor of float32, (N, 3, H, W)
        RGB, 0..1.
    grams : mapping of str to Tensor
        Of the style or styles: see `style_grams`; (N or 1, C, C).
    content_weights : mapping of str to float
        Layer -> `w_j`.
    style_weights : mapping of str to float
        Layer -> `v_i`; they are brought to a sum of 1.
    floor : float

    Raises
    ------
    ValueError
        No layer is weighed.

    Examples
    --------
    >>> from velatura.nets.features import Features
    >>> net, photo, style = Features().requires_grad_(False), torch.rand(1, 3, 32, 32), torch.rand(1, 3, 48, 32)
    >>> weights = {"stride1": 1.0, "stride2": 1.0}
    >>> loss = StyleLoss(net, photo, style_grams(net, style, weights), {"stride4": 1.0}, weights, floor=0)
    >>> content, lacking = loss(photo)
    >>> content.tolist(), [round(value, 4) for value in lacking.tolist()]
    ([0.0], [1.0])
    """

    def __init__(
        self,
        features: FeatureMaps,
        content: Tensor,
        grams: Mapping[str, Tensor],
        content_weights: Mapping[str, float],
        style_weights: Mapping[str, float],
        floor: float = FLOOR,
    ) -> None:
        if not content_weights or not style_weights:
            raise ValueError("got no layers; expected a weight for at least one of content and one of style")
        self.features = features
        self.content_weights, total = dict(content_weights), sum(style_weights.values())
        self.style_weights = {name: weight / total for name, weight in style_weights.items()}
        with torch.no_grad():
            maps = self._maps(content)
        self._content = {name: maps[name] for name in content_weights}
        self._units = {name: _variance(found, floor) for name, found in self._content.items()}
        self._grams = {name: grams[name] for name in style_weights}
        self._lacking = {
            name: _squares(gram_matrix(maps[name]) - gram) + floor * _squares(gram)
            for name, gram in self._grams.items()
        }

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Give content and style losses of each image of a batch, (N,)."""
        maps = self._maps(image)
        content = [
            weight * _mean_square(maps[name] - self._content[name]) / self._units[name]
            for name, weight in self.content_weights.items()
        ]
        style = [
            weight * _squares(gram_matrix(maps[name]) - self._grams[name]) / self._lacking[name]
            for name, weight in self.style_weights.items()
        ]
        return torch.stack(content).sum(0), torch.stack(style).sum(0)

    def _maps(self, image: Tensor) -> dict[str, Tensor]:
        return self.features.activated(self.features(image, {**self.content_weights, **self.style_weights}))


def _variance(maps: Tensor, floor: float) -> Tensor:
    """Mean variance of the channels over places, (N,), and a little of their squares."""
    maps = maps.float()
    return maps.var((2, 3), correction=0).mean(1) + floor * maps.square().mean((1, 2, 3)) + TINY


def _squares(grams: Tensor) -> Tensor:
    return grams.square().sum((1, 2)) + TINY


def adversarial(logits: Tensor, real: bool, form: Literal["log", "hinge"] = "log", *, critic: bool = True) -> Tensor:
    """What one set of logits costs a critic, or the generator.

    ``log`` is Goodfellow et al. 2014 (arXiv 1406.2661): the critic pays ``-log D`` for real images and ``-log(1 - D)``
    for others; the generator pays ``-log D(G)`` (SRGAN, equation 6), with ``D = sigmoid(logits)``. ``hinge`` is Lim
    and Ye 2017 (arXiv 1705.02894): the critic pays ``max(0, 1 - logits)`` and ``max(0, 1 + logits)``; the generator
    pays ``-logits``.

    Parameters
    ----------
    logits : Tensor
        Before the sigmoid.
    real : bool
        What the payer wants them to say; a generator always wants ``True``.
    form : {"log", "hinge"}
    critic : bool
        Whether the critic pays.

    Raises
    ------
    ValueError
        The generator is asked to make its images look false.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(4)
    >>> round(float(adversarial(logits, True)), 4), float(adversarial(logits, False, "hinge"))
    (0.6931, 1.0)
    """
    if not critic and not real:
        raise ValueError("got real=False for a generator; it wants its images to look real")
    sign = 1 if real else -1
    if form == "log":
        return functional.softplus(-sign * logits).mean()
    return functional.relu(1 - sign * logits).mean() if critic else -logits.mean()


def relativistic(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Relativistic average losses of generator and critic (Jolicoeur-Martineau 2018; ESRGAN, equations 1 and 2).

    With ``D(a, b) = sigmoid(C(a) - mean C(b))``:
    ``L_G = -mean log(1 - D(real, fake)) - mean log D(fake, real)``,
    ``L_D = -mean log D(real, fake) - mean log(1 - D(fake, real))``.

    Parameters
    ----------
    real_logits, fake_logits : Tensor
        What the critic gives for originals and for made images; for ``L_D`` the made images are to be detached.

    Returns
    -------
    generator_loss, discriminator_loss : Tensor

    Examples
    --------
    >>> import torch
    >>> generator, critic = relativistic(torch.full((2,), 3.0), torch.full((2,), -3.0))
    >>> round(float(generator), 3), round(float(critic), 3)  # the critic is sure, and right
    (12.005, 0.005)
    """
    real = real_logits - fake_logits.mean()
    fake = fake_logits - real_logits.mean()
    generator = adversarial(real, False) + adversarial(fake, True)
    discriminator = adversarial(real, True) + adversarial(fake, False)
    return generator, discriminator


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, down and to the right: smooth images cost little.

    SRGAN's first version (Ledig et al. 2016, v1), section 2.2.3, after Aly and Dubois 2005.

    Differs from the paper: the two directions are added, not joined in one gradient's length, which has no derivative
    where an image is flat.

    Parameters
    ----------
    image : Tensor of float32, (N, C, H, W)

    Examples
    --------
    >>> import torch
    >>> float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])))
    1.0
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    right = (image[..., :, 1:] - image[..., :, :-1]).abs().mean()
    return down + right


def spectral(images: Tensor, targets: Tensor) -> Tensor:
    """Find frequencies that are too strong: mean square of the logarithm by which a set's mean power exceeds another's.

    What a generator makes of single pixels, a grid above all, discriminators may never find; the spectrum has it at
    once. After Durall, Keuper, Keuper, "Watch your Up-Convolution", 2020 (arXiv 2003.01826), section 4. Differs from
    the paper: frequencies of all directions are compared, not rings of them, so that a grid stays apart from what is
    fine in every direction; a squared logarithm in place of cross entropy; photographs of the batch in place of a mean
    over the set; and what is too weak costs nothing, else a generator pays for weak frequencies with a single bright
    pixel, whose spectrum is flat.

    Parameters
    ----------
    images, targets : Tensor of float32, (N, C, H, W)
        0..1. The sets need not be of the same number. With few images chance costs, too: sets of 32 of the same
        spectrum pay about .03, sets of 16 .07, a slight push towards what is smooth.

    Returns
    -------
    Tensor
        A scalar; 0 where no frequency is stronger than in `targets`.

    Examples
    --------
    >>> flat, grid = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0.4, 0.6]).repeat(1, 1, 4, 2)
    >>> spectral(flat, flat).item()
    0.0
    >>> bool(spectral(grid, flat) > 1)
    True
    """
    made, wanted = _power(images), _power(targets).detach()
    return ((made + UNSEEN) / (wanted + UNSEEN)).log().relu().square().mean()


def _power(images: Tensor) -> Tensor:
    """Give the mean power of every frequency of half the plane, that of the mean 0: (H, W // 2 + 1)."""
    height, width = images.shape[-2:]
    centred = images.float() - images.float().mean((-1, -2), keepdim=True)
    return torch.fft.rfft2(centred).abs().square().mean((0, 1)) / (height * width) ** 2


def energy_score(one: Tensor, other: Tensor, real: Tensor) -> Tensor:
    """Score two draws as forecasts of a photograph: near it, but no nearer to one another than to it.

    Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007, section 4.3, equation 22
    with beta = 1. Nothing has a better expected score than draws of the distribution that the photograph is of: a
    generator whose draws are all alike pays for it at once.

    Differs from the paper: lower is better; the difference is a root mean square; and the distance of the two draws has
    its full weight in place of half of it, as the gradient is by one draw of the two. So the gradient by `one` is, in
    expectation, that of the score, but the value is not the score: it is negative where draws vary more than
    photographs do.

    Parameters
    ----------
    one, other : Tensor, (N, ...)
        Two independent draws; the gradient is by the first alone.
    real : Tensor, (N, ...)
        A photograph of the same class or sentence.

    Returns
    -------
    Tensor
        Mean of the root mean squared difference to the photograph, less that to the other draw; 0 in expectation where
        draws are such as photographs.

    Examples
    --------
    >>> draws = torch.randn(3, 100_000, 1, generator=torch.Generator().manual_seed(0))
    >>> [round(energy_score(k * draws[0], k * draws[1], draws[2]).item(), 1) + 0 for k in (0.1, 1, 3)]
    [0.7, 0.0, -0.9]
    """
    near, apart = ((each.detach() - one).flatten(1).square().mean(1).add(1e-8).sqrt() for each in (real, other))
    return (near - apart).mean()
