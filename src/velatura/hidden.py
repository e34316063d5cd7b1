"""Colours that nobody sees: what lies under full transparency must not bleed into what is seen."""

from __future__ import annotations

import numpy as np

from velatura.image import Picture, white_of
from velatura.ops.pyramid import fill_holes_in_bands

__all__ = ["on_paper", "without_hidden"]


def without_hidden(picture: Picture) -> Picture:
    """Replace the colours of fully transparent pixels by those around them.

    Parameters
    ----------
    picture : Picture
        It stays as it is.

    Returns
    -------
    Picture
        Of the same dtype; the picture itself where nothing, or everything, is hidden.

    Examples
    --------
    >>> pixels, alpha = np.full((1, 3, 1), 9, np.uint8), np.uint8([[255, 0, 255]])
    >>> pixels[0, 1] = 200
    >>> without_hidden(Picture(pixels, alpha=alpha)).pixels[0, :, 0].tolist()
    [9, 9, 9]
    """
    alpha = picture.alpha
    if alpha is None or alpha.all() or not alpha.any():
        return picture
    pixels, top = picture.pixels.copy(), 0

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return np.moveaxis(picture.pixels[start:stop].astype(np.float32), -1, 0), alpha[start:stop] > 0

    for band in fill_holes_in_bands(rows, picture.height):
        made, hidden = pixels[top : top + band.shape[1]], alpha[top : top + band.shape[1]] == 0
        filled = band[:, hidden].T
        made[hidden] = (filled if pixels.dtype.kind == "f" else np.rint(filled)).clip(0, picture.white)
        top += len(made)
    return picture.replace(pixels=pixels)


def on_paper(colours: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Lay colours on white paper.

    Parameters
    ----------
    colours : ndarray, (H, W, C)
    alpha : ndarray, (H, W), optional
        Of the same dtype; opaque if not given.

    Returns
    -------
    ndarray of float32, (H, W, C)
        0..1.

    Examples
    --------
    >>> on_paper(np.full((1, 2, 1), 51, np.uint8), np.uint8([[255, 0]]))[0, :, 0].astype(float).round(3).tolist()
    [0.2, 1.0]
    """
    unit = np.float32(1 / white_of(colours.dtype))
    made = colours * unit
    if alpha is None:
        return made
    return 1 + (made - 1) * (alpha * unit)[..., None]
