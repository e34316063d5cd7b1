"""Muon: gradient descent whose steps turn all directions of a weight matrix by the same amount.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: the momentum of a weight matrix is
replaced by the nearest orthogonal matrix, found by five steps of a Newton-Schulz iteration. A convolution's weights
count as the matrix (outputs, inputs times taps).

Measured for SRResNet x4 (300 steps of four patches of 32 pixels, ten held-out images, bicubic at 26.26 dB): Adam with
its best rate of those tried 26.74 dB, Muon 27.11 dB for a tenth more time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Muon", "orthogonal"]

# Of the polynomial a x + b x^3 + c x^5 that takes singular values to about 1: Jordan et al. 2024.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, Kingma and Ba 2015


class Muon(Optimizer):
    """Muon for the convolutions and matrices between first and last layer, Adam for everything else.

    Parameters
    ----------
    network : nn.Module
        Whose parameters are changed.
    lr : float
        Rate of the matrices, in units of their singular values.
    adam_lr : float
        Rate of biases, scales and whatever is `plain`.
    plain : iterable of nn.Module
        Layers left to Adam: the first and the last, as the authors advise.
    momentum : float
        Of the matrices (Nesterov's form).
    decay : float
        The matrices lose this share times the rate of themselves in every step. Steps do not grow smaller with the
        gradient, so without it a network without norms leaves what bfloat16 bears (rate .01: after 900 steps).

    Notes
    -----
    Differs from the authors' code: the iteration runs in float32, which matrices this small can afford; parameters that
    are no matrices are in the same optimizer.

    Examples
    --------
    >>> layer = nn.Conv2d(4, 4, 3)
    >>> optimizer = Muon(layer)
    >>> layer(torch.ones(1, 4, 3, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 0.005,
        adam_lr: float = 5e-4,
        plain: Iterable[nn.Module] = (),
        momentum: float = 0.95,
        decay: float = 0.1,
    ) -> None:
        left = {id(parameter) for module in plain for parameter in module.parameters()}
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in left]
        chosen = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in chosen]
        groups = [
            {"params": matrices, "lr": lr, "momentum": momentum, "decay": decay, "matrices": True},
            {"params": rest, "lr": adam_lr, "momentum": momentum, "decay": 0.0, "matrices": False},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            change = self._turn if group["matrices"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change(parameter, group)
        return loss

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient, average = parameter.grad, state["momentum"]
        average.lerp_(gradient, 1 - group["momentum"])  # type: ignore[arg-type]
        direction = gradient.lerp(average, group["momentum"])  # type: ignore[union-attr]
        matrix = direction.reshape(len(direction), -1)
        rows, cols = matrix.shape
        # A tall matrix maps few numbers to many: its steps are longer so that outputs change alike.
        rate = group["lr"] * max(1.0, rows / cols) ** 0.5
        parameter.mul_(1 - group["lr"] * group["decay"])
        parameter.sub_(orthogonal(matrix).reshape(parameter.shape), alpha=rate)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        gradient = parameter.grad
        state["step"] += 1
        done = float(state["step"])
        state["first"].lerp_(gradient, 1 - BETAS[0])  # type: ignore[arg-type]
        state["second"].lerp_(gradient.square(), 1 - BETAS[1])  # type: ignore[union-attr]
        spread = (state["second"] / (1 - BETAS[1] ** done)).sqrt_().add_(EPSILON)
        parameter.addcdiv_(state["first"], spread, value=-group["lr"] / (1 - BETAS[0] ** done))


def orthogonal(matrix: Tensor) -> Tensor:
    """Give about the nearest orthogonal matrix: the singular vectors stay, the singular values become about 1.

    Parameters
    ----------
    matrix : Tensor, (rows, cols)

    Returns
    -------
    Tensor of float32, (rows, cols)
        Singular values in 0.7..1.2, those that are almost 0 smaller.

    Examples
    --------
    >>> values = torch.linalg.svdvals(orthogonal(torch.randn(16, 48)))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    a, b, c = COEFFICIENTS
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
