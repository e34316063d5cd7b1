"""How a photograph has faded, told from the statistics of its colours.

No paper's: a small regression, trained on photographs that faded by `velatura.ops.degrade.random_fading`. Its ten
numbers are those of `velatura.ops.degrade.Fading`; it is trained by how far the colours are off once they are used, so
that what cannot be told (is it fog, or has the print faded?) is left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velatura.ops.fading import COUNT

__all__ = ["FadingEstimator"]

SLOPE = 0.1  # of LeakyReLU
LIMIT = 5.0  # standard deviations of a statistic: nothing further out is believed
# How far each number may go: more than the fadings that are trained on, and never so far that white meets black.
BLACK, WHITE, GAMMA, SATURATION = (-0.03, 0.3), (-0.05, 0.45), 0.5, 0.95
EDGE = 0.1  # of the gate: beyond its ends it is quite shut, or quite open


class FadingEstimator(nn.Module):
    """From `velatura.ops.fading.statistics` to the numbers of `velatura.ops.fading.to_numbers`.

    Parameters
    ----------
    width : int
        Of the two hidden layers.
    dropout : float
        Share of their numbers that training leaves out.

    Attributes
    ----------
    mean, deviation : Tensor, (COUNT,)
        Of the statistics of the images it is trained on.

    Notes
    -----
    A gate between 0 and 1 scales how far the numbers are from those of an unfaded photograph. It reaches 0, and then
    they are those of an unfaded photograph to the last bit.

    Examples
    --------
    >>> net = FadingEstimator()
    >>> sum(p.numel() for p in net.parameters())
    39059
    >>> numbers = net(torch.zeros(2, COUNT))
    >>> numbers.shape
    torch.Size([2, 10])
    """

    unfaded: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(COUNT))
        self.register_buffer("deviation", torch.ones(COUNT))
        self.register_buffer("unfaded", torch.tensor([0.0] * 3 + [1.0] * 3 + [0.0] * 4), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(COUNT, width),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            nn.Linear(width, 11),
        )
        self.straight = nn.Linear(COUNT, 11)  # where black and white lie is almost linear in the quantiles
        for last in (self.layers[-1], self.straight):
            nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, statistics: Tensor) -> Tensor:
        """Tell the fading of images by their statistics (N, COUNT): (N, 10), float32."""
        seen = ((statistics - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)
        made = self.layers(seen) + self.straight(seen)
        gate = ((1 + 2 * EDGE) * torch.sigmoid(2 * made[:, 10:]) - EDGE).clamp(0, 1)
        bent = torch.tanh(made[:, :10])
        apart = torch.cat(
            [
                (BLACK[1] * bent[:, :3]).clamp_min(BLACK[0]),
                -(WHITE[1] * bent[:, 3:6]).clamp_min(WHITE[0]),
                GAMMA * bent[:, 6:9],
                -SATURATION * bent[:, 9:].clamp_min(-0.3),
            ],
            1,
        )
        return self.unfaded + gate * apart
