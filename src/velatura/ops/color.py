"""Encoded values and linear light."""

from __future__ import annotations

import numpy as np

__all__ = ["from_linear", "to_linear"]

# IEC 61966-2-1, the transfer function of sRGB.
_SLOPE, _OFFSET, _POWER = 12.92, 0.055, 2.4
_KNEE = 0.04045


def to_linear(image: np.ndarray) -> np.ndarray:
    """Turn values encoded as in sRGB into linear light.

    Parameters
    ----------
    image : numpy.ndarray
        float32 in [0, 1].

    Returns
    -------
    numpy.ndarray
        float32 in [0, 1].

    Examples
    --------
    >>> to_linear(np.float32([0, 0.5, 1])).round(4).tolist()
    [0.0, 0.21400000154972076, 1.0]
    """
    curve = np.power((image + np.float32(_OFFSET)) * np.float32(1 / (1 + _OFFSET)), np.float32(_POWER))
    return np.where(image <= _KNEE, image * np.float32(1 / _SLOPE), curve)


def from_linear(light: np.ndarray) -> np.ndarray:
    """Undo `to_linear`.

    Parameters
    ----------
    light : numpy.ndarray
        float32; what is below 0 counts as 0.

    Returns
    -------
    numpy.ndarray
        float32.

    Examples
    --------
    >>> x = np.linspace(0, 1, 9, dtype=np.float32)
    >>> bool(abs(from_linear(to_linear(x)) - x).max() < 1e-6)
    True
    """
    light = np.maximum(light, 0)
    curve = np.float32(1 + _OFFSET) * np.power(light, np.float32(1 / _POWER)) - np.float32(_OFFSET)
    return np.where(light <= _KNEE / _SLOPE, light * np.float32(_SLOPE), curve)
