"""Masks: any image at all, as one channel of 0 to 255."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from velatura.errors import InputError
from velatura.image.decode import open_image
from velatura.image.memory import bands, rescaled
from velatura.image.picture import LUMA, Picture

if TYPE_CHECKING:
    import torch

__all__ = ["open_mask"]

# In 1/65536, as Pillow has it, so that grey stays what it is.
_LUMA = np.rint(np.multiply(LUMA, 1 << 16)).astype(np.uint32)


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
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None and alpha.min() != alpha.max() and _has_one_colour(pixels, alpha):
        return rescaled(alpha, np.uint8)
    white = _white_of_binary(pixels)
    mask = np.empty(pixels.shape[:2], np.uint8)
    for rows in bands(pixels):  # sums take 12 bytes per pixel
        band = pixels[rows] if white is None else (pixels[rows] == white) * np.uint8(255)
        grey = _luminance(rescaled(band, np.uint8))
        if alpha is not None:
            grey = (grey.astype(np.uint16) * rescaled(alpha[rows], np.uint8) + 127) // 255
        mask[rows] = grey
    return mask


def _small_integers(array: np.ndarray, name: str) -> np.ndarray:
    """Return uint8 of integers of any width, which is what comparisons and label images give."""
    if array.size and not (int(array.min()) >= 0 and int(array.max()) <= 255):
        raise InputError(
            f"{name}: got integers from {array.min()} to {array.max()}; expected 0 and 1, or 0 to 255 "
            "(uint16 may use its full range)"
        )
    return array.astype(np.uint8)


def _has_one_colour(pixels: np.ndarray, alpha: np.ndarray) -> bool:
    """Tell whether everything visible has the same colour; something is."""
    colour = pixels[np.unravel_index(np.argmax(alpha > 0), alpha.shape)]
    return all(bool(((pixels[rows] == colour) | (alpha[rows] == 0)[..., None]).all()) for rows in bands(pixels))


def _white_of_binary(pixels: np.ndarray) -> int | None:
    """White of masks of 0 and 1, and of masks of 0 and 255 that were stored in 16 bits; None for other images."""
    if pixels.dtype.kind == "f":
        return None
    top = int(pixels.max())
    if top <= 1:
        return 1
    stored_deep = top == 255 and pixels.dtype == np.uint16
    if stored_deep and all(bool(((pixels[rows] == 0) | (pixels[rows] == top)).all()) for rows in bands(pixels)):
        return top
    return None


def _luminance(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return ((pixels.astype(np.uint32) @ _LUMA + 0x8000) >> 16).astype(np.uint8)
