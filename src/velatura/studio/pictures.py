"""Images on their way to screens and back: previews, masks brought to size, pieces cut out, other formats."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from velatura.errors import InputError
from velatura.image import Picture, open_image, open_mask, rescaled, save_image, to_pil
from velatura.ops.resize import resize

__all__ = ["convert", "cut_out", "fit_mask", "mask_of", "write_preview"]

QUALITY = 90  # of a preview that shows less than all pixels
SAME_SHAPE = 0.02  # by which the sides of a mask may differ from the image's, in shares: previews are rounded


def write_preview(source: Path, target: Path, side: int, *, max_megapixels: float) -> None:
    """Write what a browser shows: 8 bits, PNG with all pixels if they fit, else at most ``side`` pixels, JPEG or PNG.

    The profile goes along, so that the colours are the image's.
    """
    picture = open_image(source, max_megapixels=max_megapixels)
    icc = picture.icc
    pixels = rescaled(picture.pixels, np.uint8)
    alpha = None if picture.alpha is None else rescaled(picture.alpha, np.uint8)
    image = to_pil(Picture(pixels, alpha))
    whole = max(image.size) <= side
    if not whole:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    stream = io.BytesIO()
    extra = {"icc_profile": icc} if icc else {}
    if whole or alpha is not None:
        image.save(stream, "PNG", compress_level=1, **extra)
    else:
        image.save(stream, "JPEG", quality=QUALITY, subsampling=0, **extra)
    partial = target.with_suffix(".partial")
    partial.write_bytes(stream.getvalue())
    partial.replace(target)


def fit_mask(source: Path, target: Path, size: tuple[int, int], *, max_megapixels: float) -> None:
    """Write a mask, painted on a preview, at the size of the image that it is for.

    Parameters
    ----------
    source, target : Path
    size : tuple of int
        Height and width.
    max_megapixels : float

    Raises
    ------
    InputError
        Its shape is not the image's.
    """
    mask = open_mask(source, max_megapixels=max_megapixels)
    if mask.shape != size:
        height, width = size
        apart = abs(mask.shape[1] * height / (mask.shape[0] * width) - 1)
        if apart > SAME_SHAPE and abs(mask.shape[1] * height / width - mask.shape[0]) > 1:
            raise InputError(
                f"mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}; expected the same shape"
            )
        mask = np.rint(resize(mask, height, width).clip(0, 255)).astype(np.uint8)
    save_image(mask, target, format="png", overwrite=True)


def mask_of(source: Path, target: Path, *, max_megapixels: float) -> None:
    """Write an image's opacity as a mask: white = opaque.

    Raises
    ------
    InputError
        Nothing is transparent.
    """
    picture = open_image(source, max_megapixels=max_megapixels)
    if picture.alpha is None:
        raise InputError("the image has no transparency to cut it out by; paint a mask")
    save_image(rescaled(picture.alpha, np.uint8), target, format="png", overwrite=True)


def cut_out(source: Path, mask: Path | None, target: Path, degrees: float, *, max_megapixels: float) -> None:
    """Cut a piece out by a mask and turn it about its middle; its opacity is the mask, its colours go on beyond it.

    Parameters
    ----------
    source : Path
    mask : Path or None
        Of the image's size; None takes the image's own opacity.
    target : Path
    degrees : float
        Clockwise. The canvas grows, so that nothing is cut off.
    max_megapixels : float
    """
    picture = open_image(source, max_megapixels=max_megapixels)
    opacity = np.full(picture.pixels.shape[:2], 255, np.uint8)
    if picture.alpha is not None:
        opacity = rescaled(picture.alpha, np.uint8)
    if mask is not None:
        painted = open_mask(mask, max_megapixels=max_megapixels)
        if painted.shape != opacity.shape:
            raise InputError("the mask is not of the image's size; upload it with mask_for")
        opacity = np.rint(opacity / 255.0 * painted).astype(np.uint8)
    pixels = rescaled(picture.pixels, np.uint8)
    colours = to_pil(Picture(pixels)).convert("RGB")
    # Beyond the corners lies the mean colour; nothing shows of it, as the mask is 0 there.
    turned = colours.rotate(-degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=_mean(pixels))
    cover = Image.fromarray(opacity).rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    made = Picture(np.asarray(turned), np.asarray(cover), icc=picture.icc if picture.channels == 3 else None)
    save_image(made, target, format="png", overwrite=True)


def _mean(pixels: np.ndarray) -> tuple[int, int, int]:
    mean = np.broadcast_to(pixels.reshape(-1, pixels.shape[-1]).mean(0), 3)
    return int(mean[0]), int(mean[1]), int(mean[2])


def convert(source: Path, target: Path, format: str, quality: int | None, *, max_megapixels: float) -> None:
    """Write an image in another format, with profile and metadata as far as it holds them."""
    picture = open_image(source, max_megapixels=max_megapixels)
    save_image(picture, target, format=format, quality=quality, overwrite=True)
