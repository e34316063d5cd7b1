"""Reading: every way in, through one gate that lets a short list of formats pass and turns every failure into a line.

A file is known by its content, never by its name. What its header declares is checked before anything is decoded.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from velatura.errors import InputError, MachineError, TooManyPixels, VelaturaError
from velatura.image import png, tiff
from velatura.image.memory import from_array, from_pil, from_tensor, is_tensor, oriented, split_pil
from velatura.image.metadata import EXIF_PREFIX, clean_exif, clean_xmp, read_orientation
from velatura.image.picture import Form, ImageInfo, Picture, warn

if TYPE_CHECKING:
    import torch

__all__ = ["SUFFIXES", "open_image", "probe"]

#: Suffixes of files that can be read, for telling the images of a folder; what a file is, its content says.
SUFFIXES = frozenset(
    [".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]
)

# Pillow's classes are called by name instead of through Image.open: nothing else is ever tried, and the limit on
# the number of pixels is ours, not a global of Pillow's.
_PLUGINS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}

_FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC"

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (png.SIGNATURE, "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)

# Brands of ISO base media files (ISO/IEC 23008-12 annex B, AVIF section 6).
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"miaf"})

# Formats that are refused, but by their name.
_STRANGERS = (
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"DDS ", "a DirectDraw texture"),
    (b"qoif", "a QOI file"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"PK\x03\x04", "a ZIP archive"),
)

# Each scan of a progressive JPEG passes over the whole picture: a file of a few KB can keep a decoder busy for
# hours. Real ones have about 10; libjpeg-turbo's own fuzzers stop at 500.
_MAX_JPEG_SCANS = 500

# Decoders log what they find odd. That belongs in the log of who set one up, not on the terminal of who did not.
for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


# --- public ----------------------------------------------------------------------------------------------------


def open_image(
    source: str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor | Picture,
    *,
    max_megapixels: float = 100,
    name: str = "image",
) -> Picture:
    """Open an image, whatever it is.

    EXIF orientation is applied; EXIF and XMP are kept with the orientation reset and without thumbnails; the ICC
    profile is kept while the colour model stays, and other models (CMYK, L*a*b*, YCbCr) go to sRGB; palettes become
    RGB; fewer than 8 bits are stretched to 8; 16 bits stay 16 bits; alpha is split off. Of several frames the first
    is used, with an `ImageWarning`.

    Parameters
    ----------
    source : str, path, PIL.Image.Image, ndarray, Tensor or Picture
        A file (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF; HEIC with the extra ``heic``), known by its content; an array
        (H, W) or (H, W, C), C in {1, 2, 3, 4}; a tensor (C, H, W) or (1, C, H, W). Arrays and tensors hold uint8,
        uint16, bool, or floats in [0, 1]. A `Picture` is returned as it is.
    max_megapixels : float
        Files that declare more than this are refused before they are decoded.
    name : str
        What messages call an image that is no file.

    Returns
    -------
    Picture
        Arrays passed in are shared with it where their dtype allows, marked read-only. For files the peak memory is
        the array and the decoder's own image: 4 bytes per pixel for 8-bit colour, none for 16-bit PNG and TIFF.
        Uncompressed TIFF files of 256 MiB or more are mapped, not read.

    Raises
    ------
    InputError
        If it is missing, no picture, damaged, cut short, too large, or of a kind that cannot be read.
    MachineError
        If memory is too small for it.

    Examples
    --------
    >>> import numpy as np
    >>> open_image(np.zeros((4, 6, 4), np.uint8)).alpha.shape
    (4, 6)
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _open_file(Path(source), max_megapixels)
    if isinstance(source, Image.Image):
        # A PIL image may be a file that has not been decoded yet ("tile" says what is still to do).
        if getattr(source, "tile", None):
            _check_size(name, source.width, source.height, max_megapixels)
        with _refusing(name, "PIL image"):
            return from_pil(source, name)
    if isinstance(source, np.ndarray):
        return from_array(source, name)
    if is_tensor(source):
        return from_tensor(source, name)  # pyright: ignore[reportArgumentType]
    raise InputError(
        f"{name}: got {type(source).__name__}; expected a path, a PIL image, a NumPy array or a torch tensor"
    )


def probe(path: str | os.PathLike[str], *, max_megapixels: float = 100) -> ImageInfo:
    """Read the header of a file: what `open_image` would return, without decoding it.

    Parameters
    ----------
    path : str or path
        The file.
    max_megapixels : float
        Files that declare more than this are refused.

    Returns
    -------
    ImageInfo

    Raises
    ------
    InputError
        If there is no picture of a kind that can be read. Damage behind the header is not seen.
    """
    path = Path(path)
    kind = _identify(path)
    with _refusing(path, kind):
        if kind == "tiff":
            return _probe_tiff(path, max_megapixels)
        if kind == "png":
            return _probe_png(path, max_megapixels)
        return _probe_pillow(path, kind, max_megapixels)


# --- files: what may come in -----------------------------------------------------------------------------------


def _identify(path: Path) -> str:
    """Return the format of a file, by its first bytes.

    Raises
    ------
    InputError
        If it is not a regular file, cannot be read, or is of a format that is not on the list.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder; expected an image file")
        if not stat.S_ISREG(status.st_mode):
            # A pipe or a device could keep us waiting for ever.
            raise InputError(f"{path} is not a regular file; save the image to a file first")
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the name and the folder") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change its permissions or copy it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{_shown(path)}: cannot be read ({_reason(error)}); check the name") from None
    if not head:
        raise InputError(f"{path} is empty (0 bytes); expected {_FORMATS}")
    kind = _sniff(head)
    if kind is None:
        stranger = next((text for mark, text in _STRANGERS if head.lstrip().startswith(mark)), "not an image we know")
        raise InputError(f"{path} is {stranger}; expected {_FORMATS}: convert it first")
    return kind


def _sniff(head: bytes) -> str | None:
    for mark, kind in _SIGNATURES:
        if head.startswith(mark):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        # The major brand, then (after a version) the compatible ones.
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, size, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            return "heic"
    return None


def _check_size(name: object, width: int, height: int, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise TooManyPixels(
            f"{name} declares {width} x {height} = {megapixels:.6g} megapixels; the limit is {max_megapixels:g}: "
            f"raise it with --max-megapixels {int(np.ceil(megapixels))} if you trust the file"
        )


# --- files: every failure is one line --------------------------------------------------------------------------


class _Quiet:
    """Silence Pillow's Python warnings, also while several threads decode.

    `warnings.catch_warnings` swaps a list that all threads share. Nesting it from several threads could leave the
    wrong list behind, so only the first to enter and the last to leave touch it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved: warnings.catch_warnings | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|tifffile|imagecodecs")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()


@contextmanager
def _refusing(name: object, kind: str) -> Iterator[None]:
    """Turn whatever a decoder throws into one line that names the file."""
    try:
        with _quiet:
            yield
    except VelaturaError:
        raise
    except MemoryError:
        raise MachineError(f"{name}: not enough memory to decode it; close other programs or make it smaller") from None
    except Exception as error:
        # Decoders throw OSError, ValueError, SyntaxError, IndexError, struct.error and many more at damaged files.
        raise InputError(
            f"{name}: {_NAMES.get(kind, kind)} that is damaged, cut short or of an unusual kind ({_reason(error)}); "
            "open it in an image editor and save it again"
        ) from error


_NAMES = {
    "jpeg": "a JPEG file",
    "png": "a PNG file",
    "webp": "a WebP file",
    "tiff": "a TIFF file",
    "bmp": "a BMP file",
    "gif": "a GIF file",
    "avif": "an AVIF file",
    "heic": "a HEIC file",
    "PIL image": "a PIL image",
}


def _reason(error: BaseException) -> str:
    """Return a decoder's own words, short and printable; its type if it has none."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text[:120] or type(error).__name__


def _shown(path: Path) -> str:
    return str(path).encode("unicode_escape").decode("ascii")[:200]


# --- files: decoding -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Decoded:
    """What a decoder of one format hands back; pixels are upright."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    several: bool = False
    warning: str | None = None


def _open_file(path: Path, max_megapixels: float) -> Picture:
    kind = _identify(path)
    with _refusing(path, kind):
        if kind == "tiff":
            decoded = _decode_tiff(path, max_megapixels)
        elif kind == "png":
            decoded = _decode_png(path, max_megapixels)
        else:
            decoded = _decode_pillow(path, kind, max_megapixels)
        picture = Picture(
            decoded.pixels,
            decoded.alpha,
            icc=decoded.icc or None,
            exif=clean_exif(decoded.exif),
            xmp=clean_xmp(decoded.xmp),
            form=Form("path", format=kind, path=path),
        )
    notes = [decoded.warning] if decoded.warning else []
    if decoded.several:
        notes.append("it holds several frames or pages; the first is used")
    if notes:
        warn(f"{path}: {'; '.join(notes)}")
    return picture


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    return array if orientation == 1 else np.ascontiguousarray(oriented(array, orientation))


def _decode_tiff(path: Path, max_megapixels: float) -> _Decoded:
    def check_size(width: int, height: int) -> None:
        _check_size(path, width, height, max_megapixels)

    header, pixels, alpha = tiff.decode_tiff(path, check_size)
    turn = header.orientation
    return _Decoded(
        _upright(pixels, turn),
        None if alpha is None else _upright(alpha, turn),
        header.icc,
        header.exif,
        header.xmp,
        header.several,
    )


def _decode_png(path: Path, max_megapixels: float) -> _Decoded:
    with path.open("rb") as stream:
        header = png.read_header(stream)
        _check_size(path, header.width, header.height, max_megapixels)
        if not header.complete:
            raise ValueError("the end of the file is missing")
        orientation = read_orientation(_bare(header.exif), header.xmp)
        warning = None
        if header.depth == 16:
            pixels, alpha, warning = _split_16bit(png.decode_16bit(stream, header), header)
            pixels = _upright(pixels, orientation)
            alpha = None if alpha is None else _upright(alpha, orientation)
        else:
            stream.seek(0)
            with PngImagePlugin.PngImageFile(stream) as image:
                _check_size(path, *image.size, max_megapixels)
                pixels, alpha, _ = split_pil(image, orientation)
    return _Decoded(pixels, alpha, header.icc, header.exif, header.xmp, header.several, warning)


def _split_16bit(samples: np.ndarray, header: png.PngHeader) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """Part 16-bit samples into colour and alpha; a transparent colour (tRNS) becomes alpha.

    Not so for grey: there the one level of 65 536 is a marker for missing data rather than transparency, other
    readers of 16-bit grey (Pillow, imagecodecs) leave it opaque, and tools that compare with them would find an
    alpha channel that nobody drew. It is said in a warning.
    """
    if header.colour_type in (4, 6):
        return samples[..., :-1], samples[..., -1], None
    key = header.transparency
    if key is None or (header.colour_type == 2 and len(key) != 6):
        return samples, None, None
    if header.colour_type == 0:
        return samples, None, "its transparent grey level (tRNS) is not applied to 16-bit grey"
    transparent = (samples == np.frombuffer(key, ">u2")).all(axis=2)
    return samples, np.where(transparent, np.uint16(0), np.uint16(65535)), None


def _decode_pillow(path: Path, kind: str, max_megapixels: float) -> _Decoded:
    with path.open("rb") as stream:
        image = _open_pillow(stream, kind, path, max_megapixels)
        with image:
            # Pillow turns AVIF's irot and imir into an EXIF orientation, which is applied here like any other;
            # pillow_heif turns the picture itself, and resets the orientation.
            exif = _exif_of(image)
            xmp = image.info.get("xmp")
            orientation = read_orientation(_bare(exif), xmp)
            pixels, alpha, kept = split_pil(image, orientation)
            several = getattr(image, "is_animated", False)
            icc = image.info.get("icc_profile") if kept else None
    return _Decoded(pixels, alpha, icc, exif, xmp, several)


def _open_pillow(stream: BinaryIO, kind: str, path: Path, max_megapixels: float) -> ImageFile.ImageFile:
    if kind == "heic":
        image = _heic_plugin(path)(stream)
    else:
        if kind == "jpeg":
            _check_jpeg(stream)
        image = _PLUGINS[kind](stream)
    _check_size(path, *image.size, max_megapixels)
    return image


def _heic_plugin(path: Path) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    try:
        from pillow_heif import HeifImageFile  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            f'{path} is a HEIC file, which needs an extra library: pip install "velatura[heic]", or save it as JPEG'
        ) from None
    return HeifImageFile


def _exif_of(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    return exif if isinstance(exif, bytes) else None


def _bare(exif: bytes | None) -> bytes | None:
    return exif.removeprefix(EXIF_PREFIX) if exif else None


def _check_jpeg(stream: BinaryIO) -> None:
    """Refuse a JPEG file without its end, for Pillow forgives some, and one with too many scans."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, scans = 2, 0
        while True:
            # Markers are 0xFF and another byte; in compressed data 0xFF is followed by 0 or a restart marker.
            match = _JPEG_MARKER.search(data, position)
            if match is None:
                raise ValueError("the end of the file is missing")
            marker, position = match[1][0], match.end()
            if marker == 0xD9:
                break
            if marker == 0xDA:
                scans += 1
                if scans > _MAX_JPEG_SCANS:
                    raise ValueError(f"it has more than {_MAX_JPEG_SCANS} scans")
            if marker not in (0x01, 0xD8):
                position += int.from_bytes(data[position : position + 2], "big")
    stream.seek(0)


_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)


# --- files: headers only ---------------------------------------------------------------------------------------


def _probe_tiff(path: Path, max_megapixels: float) -> ImageInfo:
    header = tiff.read_tiff_header(path)
    _check_size(path, header.width, header.height, max_megapixels)
    height, width = _turned(header.height, header.width, header.orientation)
    return ImageInfo(height, width, header.channels, header.alpha, header.bits, "tiff", header.several)


def _probe_png(path: Path, max_megapixels: float) -> ImageInfo:
    with path.open("rb") as stream:
        header = png.read_header(stream)
    _check_size(path, header.width, header.height, max_megapixels)
    height, width = _turned(header.height, header.width, read_orientation(_bare(header.exif), header.xmp))
    deep = header.depth == 16
    alpha = header.colour_type in (4, 6) or (header.transparency is not None and not (deep and header.colour_type == 0))
    channels = 1 if header.colour_type in (0, 4) else 3
    return ImageInfo(height, width, channels, alpha, 16 if deep else 8, "png", header.several)


def _probe_pillow(path: Path, kind: str, max_megapixels: float) -> ImageInfo:
    with path.open("rb") as stream, _open_pillow(stream, kind, path, max_megapixels) as image:
        orientation = read_orientation(_bare(_exif_of(image)), image.info.get("xmp"))
        height, width = _turned(image.height, image.width, orientation)
        alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        channels = 1 if image.mode in ("1", "L", "LA", "La") else 3
        return ImageInfo(height, width, channels, alpha, 8, kind, getattr(image, "is_animated", False))


def _turned(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation >= 5 else (height, width)
