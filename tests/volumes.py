"""Brains made of ellipsoids, as NIfTI files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="needs the extra medical")

RIGHT_FRONT_HEAD = np.array([[2.0, 0, 0, -40], [0, 2.0, 0, -50], [0, 0, 3.0, -10], [0, 0, 0, 1]])


def brain(shape=(44, 52, 6)) -> np.ndarray:
    """An ellipsoid in black with a darker front half and a bright spot on the right: (right, front, head), 0..900."""
    x, y, z = (np.linspace(-1, 1, n) for n in shape)
    radius = x[:, None, None] ** 2 + y[None, :, None] ** 2 + 0.2 * z**2
    values = np.where(radius < 0.8, 700.0, 0.0)
    values[:, shape[1] // 2 :] *= 0.5
    values[shape[0] * 3 // 4, shape[1] // 4] = 900
    return values


def lesion(shape=(44, 52, 6)) -> np.ndarray:
    """A hole in the back of the middle slices."""
    mask = np.zeros(shape, bool)
    mask[18:26, 12:20, 2:4] = True
    return mask


def save(path: Path, values: np.ndarray, affine=RIGHT_FRONT_HEAD, dtype=np.int16, kind=None) -> Path:
    """Write an image; values are stored as they are."""
    image = (kind or nibabel.Nifti1Image)(values.astype(dtype), affine, dtype=dtype)
    nibabel.save(image, path)
    return path
