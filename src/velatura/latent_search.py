"""Semantic inpainting's search: the latent whose image agrees with the known pixels and looks like an image.

Yeh et al., "Semantic Image Inpainting with Deep Generative Models", 2017 (arXiv 1607.07539), section 3.2. With an
encoder's latents to start from (`velatura.nets.masked_encoder`) a few steps do; from random ones, as in the paper, it
takes hundreds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Found", "Search", "context_loss", "context_weights", "search"]


@dataclass(frozen=True, slots=True)
class Search:
    """How to search.

    Attributes
    ----------
    steps : int
        Of the optimizer; the paper takes 1500.
    optimizer : {"adam", "lbfgs"}
    rate : float
        Learning rate of Adam, or the longest step of L-BFGS.
    norm : {"l1", "l2"}
        Of the context loss; L1 was found slightly better (section 3.3).
    window : int
        Side of the window in which missing pixels are counted, odd (section 3.3: 7).
    prior : float
        Weight of the prior loss, the paper's lambda.
    bound : float
        Largest absolute value of a number of ``z``, at the start and after every step.
    """

    steps: int = 1500
    optimizer: Literal["adam", "lbfgs"] = "adam"
    rate: float = 0.03
    norm: Literal["l1", "l2"] = "l1"
    window: int = 7
    prior: float = 0.003
    bound: float = 4.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, for each image.

    Attributes
    ----------
    z : Tensor, (N, latent)
    image : Tensor, (N, C, H, W)
        What the generator makes of it.
    context, prior : Tensor, (N,)
        Both losses at the end, unweighted: small numbers are better candidates.
    """

    z: Tensor
    image: Tensor
    context: Tensor
    prior: Tensor


def context_weights(mask: Tensor, window: int = 7) -> Tensor:
    """Weigh known pixels by how much is missing around them (section 3.3, equation 3).

    Parameters
    ----------
    mask : Tensor, (N, 1, H, W)
        1 = hole, 0 = known.
    window : int
        Side of the window, odd; pixels beyond the border are not counted.

    Returns
    -------
    Tensor, (N, 1, H, W)
        The share of missing pixels among those around; 0 in the hole and far from it. If no pixel is near a hole,
        every known one counts alike.

    Notes
    -----
    Differs from the paper: one of the reports prints the mask inverted, which would weigh the hole.

    Examples
    --------
    >>> mask = torch.tensor([0.0, 0.0, 1.0, 0.0]).view(1, 1, 1, 4)
    >>> context_weights(mask, 3).flatten().tolist()
    [0.0, 0.5, 0.0, 1.0]
    """
    if window % 2 == 0 or window < 3:
        raise ValueError(f"got window {window}; expected an odd number from 3")
    counted = functional.avg_pool2d(
        functional.pad(torch.cat([mask, torch.ones_like(mask)], 1), (window // 2,) * 4), window, stride=1
    )
    missing, there = (counted * window**2).split(1, 1)
    weights = (1 - mask) * missing / (there - 1)
    return torch.where(weights.sum((1, 2, 3), keepdim=True) > 0, weights, 1 - mask)


def context_loss(made: Tensor, image: Tensor, weights: Tensor, norm: Literal["l1", "l2"] = "l1") -> Tensor:
    """Say how far an image is from the known pixels (section 3.3, equation 4).

    Parameters
    ----------
    made, image : Tensor, (N, C, H, W)
    weights : Tensor, (N, 1, H, W)
        As `context_weights` gives them.
    norm : {"l1", "l2"}

    Returns
    -------
    Tensor, (N,)
        The weighted mean of absolute or squared differences.

    Notes
    -----
    Differs from the paper: the mean, not the sum, so that the weight of the prior means the same for every mask.
    """
    difference = (made - image).abs() if norm == "l1" else (made - image).square()
    total = (weights * difference).sum((1, 2, 3))
    return total / (weights.sum((1, 2, 3)) * made.shape[1]).clamp_min(1e-12)


def search(
    generator: Callable[[Tensor], Tensor],
    image: Tensor,
    mask: Tensor,
    z: Tensor,
    options: Search,
    *,
    critic: nn.Module | None = None,
    half: torch.dtype | None = None,
    tick: Callable[[int], None] = lambda step: None,
) -> Found:
    """Search for latents; by Adam each image of the batch for itself, by L-BFGS with one curvature for all.

    Parameters
    ----------
    generator : callable
        From (N, latent) to (N, C, H, W) in 0..1: a network in ``eval()``.
    image : Tensor of float32, (N, C, H, W)
        0..1; nothing under the mask is read.
    mask : Tensor of float32, (N, 1, H, W)
        1 = hole.
    z : Tensor, (N, latent)
        Where to start.
    options : Search
    critic : nn.Module, optional
        Gives logits of being real: the prior loss is the paper's ``log(1 - D(G(z)))``. Without it ``z`` is taken as
        standard normal, and the loss is the mean of its squares.
    half : torch.dtype, optional
        What the steps are computed in, where the device is quick at it; what is found is float32 in any case.
    tick : callable
        Called with the number of steps done; may raise to stop.

    Returns
    -------
    Found
        The best of all steps, by the sum of both losses.
    """
    weights = context_weights(mask, options.window)
    z = z.detach().clamp(-options.bound, options.bound).requires_grad_(True)
    best = torch.full((len(z),), torch.inf, device=z.device)
    kept = z.detach().clone()

    def losses() -> tuple[Tensor, Tensor, Tensor]:
        made = generator(z).float()
        context = context_loss(made, image, weights, options.norm)
        # log(1 - D) of a logit is -softplus.
        prior = z.square().mean(1) if critic is None else -functional.softplus(critic(made).reshape(len(z), -1).mean(1))
        return context, prior, context + options.prior * prior

    def remember(total: Tensor) -> None:
        better = total.detach() < best
        best[better] = total.detach()[better]
        kept[better] = z.detach()[better]

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(z.device.type, half, enabled=half is not None):
            total = losses()[2]
        remember(total)
        total.sum().backward(inputs=[z])
        return total.sum()

    if options.optimizer == "adam":
        optimizer = torch.optim.Adam([z], lr=options.rate)
    else:
        optimizer = torch.optim.LBFGS([z], lr=options.rate, max_iter=1, history_size=10)
    for step in range(options.steps):
        optimizer.step(closure)
        with torch.no_grad():
            z.clamp_(-options.bound, options.bound)
        tick(step + 1)
    with torch.no_grad():
        remember(losses()[2])
        z.copy_(kept)
        context, prior, _ = losses()
        return Found(kept, generator(kept), context, prior)
