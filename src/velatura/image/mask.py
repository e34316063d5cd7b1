"""Masks: any image at all, as one channel of 0 to 255."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from velatura.errors import InputError
from velatura.image.decode import open_image
from velatura.image.memory import rescaled
from velatura.image.picture import Picture

if TYPE_CHECKING:
    import torch

__all__ = ["open_mask"]


def open_mask(
    source: str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor | Picture,
    *,
    max_megapixels: float = 100,
    name: str = "mask",
) -> np.ndarray:
    """Open a mask: white (or 1) marks the place to change, grey is a soft edge.

    Anything that `open_image` reads is a mask, and arrays of any integers or bool besides. What counts is luminance
    (ITU-R BT.601), over black where the image is transparent. If what is visible has one colour only and the opacity
    varies, the opacity is the mask: that is how drawing programs export a selection or a layer of strokes. Images
    whose largest value is 1 are masks of 0 and 1.

    Parameters
    ----------
    source, max_megapixels, name
        As for `open_image`.

    Returns
    -------
    ndarray, shape (H, W), uint8
        0 to 255.

    Raises
    ------
    InputError
        As for `open_image`.

    Examples
    --------
    >>> import numpy as np
    >>> open_mask(np.array([[0, 1]])).tolist()
    [[0, 255]]
    """
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu" and source.dtype != np.uint16:
        source = _small_integers(source, name)
    picture = open_image(source, max_megapixels=max_megapixels, name=name)
    pixels, alpha = _binary_as_full_range(picture.pixels), picture.alpha
    if alpha is None:
        return _luminance(pixels)
    opacity = rescaled(alpha, np.uint8)
    visible = pixels[alpha > 0]
    if alpha.min() != alpha.max() and bool((visible == visible[0]).all()):
        return opacity
    grey = _luminance(pixels).astype(np.uint16)
    return ((grey * opacity + 127) // 255).astype(np.uint8)


def _small_integers(array: np.ndarray, name: str) -> np.ndarray:
    """Return uint8 of integers of any width, which is what comparisons and label images give."""
    if array.size and not (int(array.min()) >= 0 and int(array.max()) <= 255):
        raise InputError(
            f"{name}: got integers from {array.min()} to {array.max()}; expected 0 and 1, or 0 to 255 "
            "(uint16 may use its full range)"
        )
    return array.astype(np.uint8)


def _binary_as_full_range(pixels: np.ndarray) -> np.ndarray:
    """Stretch masks of 0 and 1 to the full range, and masks of 0 and 255 that were stored in 16 bits."""
    if pixels.dtype.kind == "f":
        return pixels
    top = pixels.max()
    if top <= 1 or (top == 255 and pixels.dtype == np.uint16 and bool(((pixels == 0) | (pixels == 255)).all())):
        return (pixels == top).astype(np.uint8) * np.uint8(255 if top else 0)
    return pixels


def _luminance(pixels: np.ndarray) -> np.ndarray:
    values = rescaled(pixels, np.uint8)
    if values.shape[2] == 1:
        return values[..., 0].copy()
    # BT.601 in sixteenths of a thousandth, as Pillow has it, so that grey stays what it is.
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((values.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)
