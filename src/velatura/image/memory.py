"""Images that are in memory already: PIL images, NumPy arrays, torch tensors; in, and out again as they came.

torch is never imported here. Only a caller who has loaded it can hold a tensor.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from velatura.errors import InputError
from velatura.image.metadata import EXIF_PREFIX, clean_exif, clean_xmp, exif_from_directory, read_exif, read_orientation
from velatura.image.picture import Form, Picture, warn, white_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "bands",
    "from_array",
    "from_pil",
    "from_tensor",
    "in_profile_of",
    "is_tensor",
    "oriented",
    "rescaled",
    "split_pil",
    "to_form",
]

_EXPECTED = "expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16, bool, or float in [0, 1]"

# Rows are worked on in bands of about this many bytes, so that no second whole image is made.
_BAND_BYTES = 1 << 20

# EXIF orientation that undoes each orientation: only the two quarter turns are not their own inverse.
_INVERSE = {6: 8, 8: 6}


# --- values and orientation ------------------------------------------------------------------------------------


def bands(array: np.ndarray) -> Iterator[slice]:
    """Cut the rows of an array (H, ...) into bands small enough for sums in wider integers."""
    step = max(1, _BAND_BYTES * len(array) // array.nbytes) if array.nbytes else 1
    return (slice(top, top + step) for top in range(0, len(array), step))


def rescaled(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Convert samples (H, ...) between uint8, uint16 and float32 in [0, 1]; the full range stays the full range.

    Integers are rounded to the nearest (half up). If nothing changes, the array itself is returned; else the peak
    is the result and a band of rows.
    """
    dtype = np.dtype(dtype)
    if values.dtype == dtype:
        return values
    result = np.empty_like(values, dtype, subok=False)
    for rows in bands(values):
        result[rows] = _rescaled(values[rows], dtype)
    return result


def _rescaled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype) / np.asarray(white_of(values.dtype), dtype)
    if values.dtype.kind == "f":
        return (np.clip(values, 0, 1) * white_of(dtype) + 0.5).astype(dtype)
    if dtype == np.uint16:
        return values.astype(np.uint16) * np.uint16(257)
    # Not (v + 128) // 257 in uint16: it would overflow near white.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def oriented(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an array (H, W, ...) as an EXIF orientation asks for; a view, nothing is copied."""
    match orientation:
        case 2:
            return array[:, ::-1]
        case 3:
            return array[::-1, ::-1]
        case 4:
            return array[::-1]
        case 5:
            return array.swapaxes(0, 1)
        case 6:
            return array.swapaxes(0, 1)[:, ::-1]
        case 7:
            return array[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return array.swapaxes(0, 1)[::-1]
        case _:
            return array


# --- PIL -------------------------------------------------------------------------------------------------------


def split_pil(image: Image.Image, orientation: int = 1) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Copy the pixels of a PIL image into arrays, turned upright.

    Peak memory is Pillow's own image plus the arrays returned: rows are copied in bands.

    Returns
    -------
    pixels : ndarray, shape (H, W, C)
    alpha : ndarray, shape (H, W), or None
    kept : bool
        Whether the colour model stayed, so that the ICC profile still holds.

    Raises
    ------
    InputError
        If the mode holds something other than an 8-bit or 16-bit picture.
    """
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        values = _integers(image)
        return np.ascontiguousarray(oriented(values, orientation))[..., None], None, True
    image, kept = _to_common_mode(image)
    bands = len(image.getbands())
    width, height = image.size
    shape = (width, height) if orientation >= 5 else (height, width)
    channels = 1 if bands <= 2 else 3
    pixels = np.empty((*shape, channels), np.uint8)
    alpha = np.empty(shape, np.uint8) if bands in (2, 4) else None
    # Views of the results with the rows where the file has them: filling these turns the picture.
    inverse = _INVERSE.get(orientation, orientation)
    stored, stored_alpha = oriented(pixels, inverse), None if alpha is None else oriented(alpha, inverse)
    step = max(1, _BAND_BYTES // (width * bands))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        band = np.asarray(image.crop((0, top, width, bottom))).reshape(bottom - top, width, bands)
        stored[top:bottom] = band[..., :channels]
        if stored_alpha is not None:
            stored_alpha[top:bottom] = band[..., channels]
    return pixels, alpha, kept


def _integers(image: Image.Image) -> np.ndarray:
    """Return 16-bit grey from the modes that hold it; "I" is 32 bits wide, but files rarely fill them."""
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise InputError(
            f"a PIL image of mode I holds values from {values.min()} to {values.max()}; expected 0 to 65535: "
            "scale it first"
        )
    return values.astype(np.uint16)


def _to_common_mode(image: Image.Image) -> tuple[Image.Image, bool]:
    """Convert to L, LA, RGB or RGBA, and tell whether the ICC profile still holds."""
    mode, transparent = image.mode, "transparency" in image.info
    match mode:
        case "1" | "L":
            return (image.convert("LA") if transparent else image.convert("L")), True
        case "RGB" if transparent:
            return image.convert("RGBA"), True
        case "LA" | "RGB" | "RGBA":
            return image, True
        case "P" | "PA":
            opaque = mode == "P" and not transparent
            return image.convert("RGB" if opaque else "RGBA"), True
        case "La" | "RGBa":
            return image.convert("LA" if mode == "La" else "RGBA"), True
        case "RGBX":
            return image.convert("RGB"), True
        case "CMYK" | "LAB" | "YCbCr" | "HSV":
            return _to_srgb(image), False
        case "F":
            raise InputError(
                "a PIL image of mode F has no fixed range; expected L, RGB or I;16: scale it to [0, 1] and pass "
                "it as a NumPy array"
            )
        case _:
            raise InputError(f"PIL images of mode {mode} cannot be read; convert it to RGB first")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert another colour model to sRGB, through the embedded profile if there is a sound one."""
    profile = image.info.get("icc_profile")
    source = None
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif image.mode == "CMYK" and profile:
        source = io.BytesIO(profile)
    if source is not None:
        try:
            converted = ImageCms.profileToProfile(
                image,
                source,  # pyright: ignore[reportArgumentType] - a profile object is accepted too
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a profile that LittleCMS refuses is as good as none
        if converted is not None:
            return converted
    return image.convert("RGB")


def in_profile_of(picture: Picture, other: Picture) -> Picture:
    """Give ``picture`` the colour space of ``other``, so that equal numbers mean equal colours in both.

    An image without a profile counts as sRGB. Grey images stay as they are: their profiles are tone curves, rarely
    embedded and never far apart. LittleCMS is reached through Pillow, which knows 8 bits only: deeper images keep
    their numbers, with a warning, and so do those whose profile LittleCMS refuses.

    Returns
    -------
    Picture
        With the profile of ``other``; the picture itself where there is nothing to convert.
    """
    if picture.icc == other.icc or picture.channels == 1 or other.channels == 1:
        return picture
    source, target = (io.BytesIO(icc) if icc else ImageCms.createProfile("sRGB") for icc in (picture.icc, other.icc))
    try:
        transform = ImageCms.buildTransform(
            source,  # pyright: ignore[reportArgumentType] - a profile object is accepted too
            target,  # pyright: ignore[reportArgumentType]
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warn("a colour profile is damaged; colours are taken as they are")
        return picture
    if picture.bits != 8:
        if not _changes_nothing(transform):
            warn(
                "two images have different colour profiles, and only 8-bit colours can be converted, not 16-bit ones "
                "or floats; convert them first"
            )
        return picture
    pixels = np.empty(picture.pixels.shape, np.uint8)
    for rows in bands(pixels):
        pixels[rows] = _transformed(picture.pixels[rows], transform)
    return picture.replace(pixels=pixels, icc=other.icc)


def _transformed(pixels: np.ndarray, transform: ImageCms.ImageCmsTransform) -> np.ndarray:
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Tell whether two profiles mean the same: there are many files of sRGB, and their bytes differ."""
    colours = (17 * np.indices((16, 16, 16))).reshape(3, -1).T.reshape(64, 64, 3).astype(np.uint8)
    # One level is what rounding makes of profiles that differ in their last digits.
    return bool(np.abs(_transformed(colours, transform).astype(np.int16) - colours).max() <= 1)


def from_pil(image: Image.Image, name: str) -> Picture:
    """Make a `Picture` of a PIL image; the image itself stays as it is, but is loaded if it was not."""
    if 0 in image.size:
        raise InputError(f"{name}: a PIL image of {image.width} x {image.height} pixels is empty")
    image.load()  # Pillow turns TIFF upright when it loads them: the orientation is only right after that
    exif = _exif_of_pil(image)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    try:
        pixels, alpha, kept = split_pil(image, read_orientation(exif, xmp))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return Picture(
        pixels,
        alpha,
        icc=(image.info.get("icc_profile") or None) if kept else None,
        exif=clean_exif(exif),
        xmp=clean_xmp(xmp),
        form=Form("pil", mode=image.mode, format=image.format.lower() if image.format else None),
    )


def _exif_of_pil(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return exif.removeprefix(EXIF_PREFIX)
    # TIFF files have no EXIF block of their own: of their tags, those that describe the scene.
    tags = image.getexif()
    directory = read_exif(tags.tobytes().removeprefix(EXIF_PREFIX)) if len(tags) else None
    return exif_from_directory(directory) if directory is not None else None


# --- NumPy -----------------------------------------------------------------------------------------------------


def from_array(array: np.ndarray, name: str) -> Picture:
    """Make a `Picture` of an array; memory is shared where the dtype allows it, and marked read-only."""
    form = Form("numpy", dtype=str(array.dtype), ndim=array.ndim)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputError(f"{name}: got an array of shape {array.shape[: form.ndim]}; {_EXPECTED}")
    values = _plain_values(array, name).view()
    values.flags.writeable = False
    channels = 1 if array.shape[2] <= 2 else 3
    alpha = values[..., channels] if array.shape[2] in (2, 4) else None
    return Picture(values[..., :channels], alpha, form=form)


def _plain_values(array: np.ndarray, name: str) -> np.ndarray:
    """Return uint8, uint16 or float32 in native byte order."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if kind != "f" or size > 8:
        raise InputError(f"{name}: got an array of {array.dtype}; {_EXPECTED}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # false for NaN too
        raise InputError(f"{name}: got floats from {low:g} to {high:g}; {_EXPECTED}")
    return array.astype(np.float32, copy=False)


# --- torch -----------------------------------------------------------------------------------------------------


def is_tensor(source: object) -> bool:
    """Tell a torch tensor without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def from_tensor(tensor: torch.Tensor, name: str) -> Picture:
    """Make a `Picture` of a tensor (C, H, W) or (1, C, H, W), C in {1, 2, 3, 4}, or (H, W)."""
    torch = sys.modules["torch"]
    form = Form("torch", dtype=str(tensor.dtype).removeprefix("torch."), ndim=tensor.ndim, device=tensor.device)
    shape = tuple(tensor.shape)
    if tensor.ndim == 4 and shape[0] == 1:
        tensor = tensor[0]
    elif tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 2, 3, 4) or 0 in shape:
        raise InputError(
            f"{name}: got a tensor of shape {shape}; expected (H, W), (C, H, W) or (1, C, H, W) with C = 1, 2, 3 or 4"
        )
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    picture = from_array(np.moveaxis(tensor.cpu().numpy(), 0, 2), name)
    return picture.replace(form=form)


# --- out again -------------------------------------------------------------------------------------------------


def to_form(picture: Picture) -> Image.Image | np.ndarray | torch.Tensor:
    """Give a picture back as the kind that came in.

    A path gives a PIL image, or a NumPy array (H, W) or (H, W, C) if it has 16 bits, which PIL cannot hold. A PIL
    image gives a PIL image (same exception, but for 16-bit grey). Arrays keep their dtype, and their number of
    dimensions where the channels allow it; tensors keep layout, dtype and device too. If there is transparency, it
    is the last channel. What is returned may share memory with `picture`, never with what the caller passed in.
    """
    form = picture.form
    if form.kind == "torch":
        return _to_tensor(picture)
    if form.kind == "numpy":
        return _to_array(picture, form.ndim or 3, form.dtype)
    if form.kind == "pil" and picture.pixels.dtype == np.uint16 and picture.channels == 1 and picture.alpha is None:
        return _with_info(Image.fromarray(np.ascontiguousarray(picture.pixels[..., 0])), picture)
    if picture.pixels.dtype == np.uint16:
        return _to_array(picture, 2, "uint16")
    return to_pil(picture)


def to_pil(picture: Picture) -> Image.Image:
    """Make a PIL image of mode L, LA, RGB or RGBA, with the picture's metadata in ``info``; always 8 bits."""
    samples = rescaled(_joined(picture), np.uint8)
    return _with_info(Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples), picture)


def _with_info(image: Image.Image, picture: Picture) -> Image.Image:
    # Pillow expects the prefix here: JPEG needs it, other formats take it off.
    exif = EXIF_PREFIX + picture.exif if picture.exif else None
    for key, value in (("icc_profile", picture.icc), ("exif", exif), ("xmp", picture.xmp)):
        if value:
            image.info[key] = value
    return image


def _joined(picture: Picture) -> np.ndarray:
    """Return colour and alpha as one array (H, W, S)."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate((picture.pixels, picture.alpha[..., None]), axis=2)


def _to_array(picture: Picture, ndim: int, dtype: str | None) -> np.ndarray:
    samples = _joined(picture)
    if ndim == 2 and samples.shape[2] == 1:
        samples = samples[..., 0]
    samples = _as_dtype(samples, np.dtype(dtype or samples.dtype))
    # The caller may draw on the result; an array that is still the caller's own input is copied for that.
    return samples if samples.flags.writeable else samples.copy()


def _as_dtype(samples: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return samples > white_of(samples.dtype) / 2
    if dtype.kind == "f":
        return rescaled(samples, np.float32).astype(dtype, copy=False)
    return rescaled(samples, dtype.newbyteorder("=")).astype(dtype, copy=False)


def _to_tensor(picture: Picture) -> torch.Tensor:
    torch = sys.modules["torch"]
    form = picture.form
    kept = {"bool", "uint8", "uint16", "float32", "float64"}
    array = _to_array(picture, 3, form.dtype if form.dtype in kept else "float32")
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 2, 0)))
    tensor = tensor.to(device=form.device, dtype=getattr(torch, form.dtype or "float32"))
    if form.ndim == 4:
        return tensor[None]
    return tensor[0] if form.ndim == 2 and tensor.shape[0] == 1 else tensor
