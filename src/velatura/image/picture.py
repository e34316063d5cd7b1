"""What one image is in memory, and the few sums on it that every task needs."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["LUMA", "Form", "ImageInfo", "ImageWarning", "Picture", "premultiply", "unpremultiply", "warn", "white_of"]

#: Weights of red, green and blue in the luma of ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)


class ImageWarning(UserWarning):
    """Something of an image was left out; the message says what, and how to keep it."""


def warn(message: str) -> None:
    """Issue an `ImageWarning` that points at the first caller outside this package."""
    level, frame = 1, sys._getframe(0)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "velatura":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ImageWarning, stacklevel=level)


def white_of(dtype: np.dtype | type) -> float:
    """Return the value of white in `dtype`: 255, 65535 or, for floats, 1.0."""
    dtype = np.dtype(dtype)
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


@dataclass(frozen=True, slots=True)
class Form:
    """What an image came in as, so that the same kind can go out.

    Attributes
    ----------
    kind : {"path", "pil", "numpy", "torch"}
        A path is given back as a PIL image, all others as themselves.
    format : str, optional
        Format of the file, in lower case (``"jpeg"``); None for images made in memory.
    mode : str, optional
        Mode of a PIL image (``"RGB"``, ``"I;16"``).
    dtype : str, optional
        Name of the caller's dtype (``"float64"``, ``"bfloat16"``, ``"bool"``).
    ndim : int, optional
        Number of dimensions of the caller's array or tensor.
    device : Any, optional
        Device of a tensor.
    path : Path, optional
        The file the image was read from.
    """

    kind: Literal["path", "pil", "numpy", "torch"] = "numpy"
    format: str | None = None
    mode: str | None = None
    dtype: str | None = None
    ndim: int | None = None
    device: Any = None
    path: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One image in memory, with what its file says about it.

    Attributes
    ----------
    pixels : ndarray, shape (H, W, C), C in {1, 3}
        uint8, uint16, or float32 in [0, 1] (only if the caller passed floats). Colour is straight: not
        multiplied by alpha. It may be the caller's own memory: read it, never write it.
    alpha : ndarray, shape (H, W), optional
        Opacity, in the dtype of `pixels`.
    icc, exif, xmp : bytes, optional
        ICC profile; EXIF as a TIFF stream (without the prefix ``Exif`` and two NULs), its orientation reset and its
        thumbnail dropped; XMP packet in UTF-8.
    form : Form
        What came in.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    form: Form = Form()

    def __post_init__(self) -> None:
        # A wrong shape here is a mistake in our own code, not in the input: plain exceptions will do.
        if self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3):
            raise TypeError(f"pixels must have shape (H, W, 1) or (H, W, 3), got {self.pixels.shape}")
        if self.pixels.dtype not in (np.uint8, np.uint16, np.float32):
            raise TypeError(f"pixels must be uint8, uint16 or float32, got {self.pixels.dtype}")
        if self.alpha is not None and (
            self.alpha.shape != self.pixels.shape[:2] or self.alpha.dtype != self.pixels.dtype
        ):
            raise TypeError(
                f"alpha must have shape {self.pixels.shape[:2]} and dtype {self.pixels.dtype}, "
                f"got {self.alpha.shape} and {self.alpha.dtype}"
            )

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB; alpha is not counted."""
        return self.pixels.shape[2]

    @property
    def white(self) -> float:
        """Value of white: 255, 65535 or 1.0."""
        return white_of(self.pixels.dtype)

    @property
    def bits(self) -> int:
        """Bits of one sample in memory: 8, 16 or, for floats, 32."""
        return self.pixels.dtype.itemsize * 8

    def replace(self, **changes: Any) -> Picture:
        """Return a copy with some attributes changed; everything else is shared.

        Examples
        --------
        >>> import numpy as np
        >>> picture = Picture(np.zeros((2, 3, 3), np.uint8))
        >>> picture.replace(pixels=np.ones((4, 6, 3), np.uint8)).width
        6
        """
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of a file says, without decoding it.

    Attributes
    ----------
    height, width : int
        Size as it will be seen: after the EXIF orientation.
    channels : int
        1 for grey, 3 for colour, as `open_image` would return it.
    alpha : bool
        Whether there is transparency.
    bits : int
        8 or 16, as `open_image` would return it.
    format : str
        ``"jpeg"``, ``"png"``, ``"webp"``, ``"tiff"``, ``"bmp"``, ``"gif"``, ``"avif"`` or ``"heic"``.
    several : bool
        Whether the file holds more than one frame or page.
    """

    height: int
    width: int
    channels: int
    alpha: bool
    bits: int
    format: str
    several: bool = False


def premultiply(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Multiply colour by opacity, so that what is transparent cannot bleed into its neighbours.

    Parameters
    ----------
    pixels : ndarray, shape (..., H, W, C)
        float32 colour in [0, 1].
    alpha : ndarray, shape (..., H, W)
        float32 opacity in [0, 1].

    Returns
    -------
    ndarray, shape (..., H, W, C)

    Examples
    --------
    >>> import numpy as np
    >>> premultiply(np.full((1, 1, 3), 0.5, np.float32), np.full((1, 1), 0.5, np.float32)).tolist()
    [[[0.25, 0.25, 0.25]]]
    """
    return pixels * alpha[..., None]


def unpremultiply(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo `premultiply`; where nothing is visible the colour is black.

    Parameters
    ----------
    pixels : ndarray, shape (..., H, W, C)
        float32 colour, multiplied by opacity.
    alpha : ndarray, shape (..., H, W)
        float32 opacity in [0, 1].

    Returns
    -------
    ndarray, shape (..., H, W, C)
        Clipped to [0, 1]: a filter with negative lobes may have left more colour than opacity.

    Examples
    --------
    >>> import numpy as np
    >>> unpremultiply(np.full((1, 1, 1), 0.25, np.float32), np.full((1, 1), 0.5, np.float32)).tolist()
    [[[0.5]]]
    """
    opacity = alpha[..., None]
    colour = np.divide(pixels, opacity, out=np.zeros_like(pixels), where=opacity > 0)
    return np.clip(colour, 0, 1, out=colour)
