"""What recipes with a discriminator share: its turn, the penalty on its slope, and the generator's turn after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # measuring a network needs no Lightning
    from velatura.training.loop import Training

__all__ = ["Penalized", "descend_critic", "frozen", "r1"]


class Penalized(Protocol):
    """Settings of the penalty."""

    @property
    def penalty(self) -> float:
        """Weight gamma; 0 = none."""
        ...

    @property
    def penalty_every(self) -> int:
        """Steps between penalties, each as much stronger."""
        ...


def descend_critic(
    training: Training, loss: Tensor, slope: Callable[[], Tensor], config: Penalized, step: int
) -> Tensor:
    """Let the network ``discriminator`` learn, in some steps with a penalty on its slope.

    Parameters
    ----------
    training : Training
    loss : Tensor
        What it descends.
    slope : callable
        Gives `r1`; called in steps with a penalty alone.
    config : Penalized
    step : int

    Returns
    -------
    Tensor
        The slope, 0 in steps without.
    """
    found = torch.zeros_like(loss)
    if config.penalty > 0 and step % config.penalty_every == 0:
        with training.fabric.autocast():
            found = slope()
    training.descend("discriminator", loss + 0.5 * config.penalty * config.penalty_every * found)
    return found.detach()


def r1(critic: Callable[..., Tensor], images: Sequence[Tensor]) -> Tensor:
    """Give the mean squared gradient of the logits with respect to photographs, summed over the images of each.

    Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018 (arXiv 1801.04406),
    equation 9.

    Parameters
    ----------
    critic : callable
        From the images to the sum of the logits; not Fabric's wrapper, which allows no gradient but that of `descend`.
    images : sequence of Tensor, (N, C, H, W)
        Of any sizes; what the critic does not look at adds nothing.

    Examples
    --------
    >>> r1(lambda image: 3 * image.sum(), [torch.zeros(2, 1, 2, 2)]).item()
    36.0
    """
    seen = [image.detach().requires_grad_() for image in images]
    gradients = torch.autograd.grad(critic(*seen), seen, create_graph=True, allow_unused=True)
    return torch.stack([each.square().sum((1, 2, 3)).mean() for each in gradients if each is not None]).sum()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of a network's weights: the generator's turn needs those of its input alone.

    Examples
    --------
    >>> layer = nn.Linear(1, 1)
    >>> with frozen(layer):
    ...     layer.weight.requires_grad
    False
    >>> layer.weight.requires_grad
    True
    """
    learning = [weights for weights in network.parameters() if weights.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for weights in learning:
            weights.requires_grad_(True)
