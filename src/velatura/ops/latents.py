"""Ways between latents."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["great_circle"]

NEAR = 0.02  # radians: ends so near are joined by a line


def great_circle(first: NDArray[np.float32], second: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Give latents from one to another, each about as likely as the ends, as those on a line are not.

    White, "Sampling Generative Networks", 2016 (arXiv 1609.04468), section 2.1.

    Parameters
    ----------
    first, second : ndarray of float32, (latent,)
    count : int
        How many, the ends among them.

    Returns
    -------
    ndarray of float32, (count, latent)

    Examples
    --------
    >>> np.round(great_circle(np.float32([2, 0]), np.float32([0, 2]), 3).astype(float), 3).tolist()
    [[2.0, 0.0], [1.414, 1.414], [0.0, 2.0]]
    """
    share = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    angle = math.acos(min(max(float(first @ second) / lengths, -0.9999), 0.9999)) if lengths else 0.0
    if angle < NEAR:  # or one is the mean: the line is the arc
        return ((1 - share) * first + share * second).astype(np.float32)
    arc = np.sin((1 - share) * angle) * first + np.sin(share * angle) * second
    return (arc / math.sin(angle)).astype(np.float32)
