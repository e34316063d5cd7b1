"""TIFF: reading through tifffile, and a writer that appends strips as rows come.

libtiff is not used: it writes its complaints to the terminal, and Pillow cuts 16-bit colour to 8. The writer is
small because it writes one kind of TIFF only: chunky, deflated strips with horizontal differencing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from velatura.image.memory import rescaled, split_pil
from velatura.image.metadata import (
    LONG,
    LONG8,
    SHORT,
    UNDEFINED,
    Directory,
    Entry,
    describing,
    exif_from_directory,
    pack_directory,
    read_directory,
    read_exif,
)

__all__ = ["TiffHeader", "TiffWriter", "decode_tiff", "read_tiff_header"]

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
_SAMPLES = {
    _MIN_IS_WHITE: 1,
    _MIN_IS_BLACK: 1,
    _RGB: 3,
    _PALETTE: 1,
    _MASK: 1,
    _CMYK: 4,
    _YCBCR: 3,
    _CIELAB: 3,
    _ICCLAB: 3,
}

# Above this, an uncompressed file is mapped instead of read: pages come and go as they are needed.
_MAP_BYTES = 1 << 28

# Strips of about this size (TIFF 6.0 section "Rows per strip" advises small ones; 8 KB is of 1992).
_STRIP_BYTES = 1 << 18

# A classic TIFF addresses 4 GiB. The margin is for the directory and for data that deflate makes larger.
_CLASSIC_LIMIT = (1 << 32) - (1 << 26)

_STDERR_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """What the first page of a TIFF file says."""

    width: int
    height: int
    channels: int
    alpha: bool
    bits: int
    orientation: int
    several: bool
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None


def read_tiff_header(path: Path) -> TiffHeader:
    """Read the first page's tags.

    Raises
    ------
    ValueError
        If it holds no picture of a kind that can be read.
    """
    with tifffile.TiffFile(path) as tiff:
        return _describe(tiff)


def _describe(tiff: tifffile.TiffFile) -> TiffHeader:
    page = _first_page(tiff)
    photometric = int(page.photometric)
    _check_layout(page, photometric)
    grey = photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK, _MASK)
    kept = grey or photometric in (_RGB, _PALETTE)
    return TiffHeader(
        width=page.imagewidth,
        height=page.imagelength,
        channels=1 if grey else 3,
        alpha=_alpha_kind(page, photometric) != 0,
        bits=16 if page.bitspersample > 8 and (grey or photometric == _RGB) else 8,
        orientation=_orientation(page),
        several=_has_second_page(tiff),
        icc=_bytes_of(page, 34675) if kept else None,
        exif=_read_exif(tiff, page),
        xmp=_bytes_of(page, 700),
    )


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if not len(tiff.pages):
        raise ValueError("it holds no page")
    page = tiff.pages[0]
    if not isinstance(page, tifffile.TiffPage):
        raise ValueError("its first page has no tags")
    # DNG and most makers' raw files are TIFF files whose first page is a small preview.
    if 50706 in page.tags or (page.subfiletype & 1 and 330 in page.tags):
        raise ValueError("it is a camera's raw file: develop it to a 16-bit TIFF first")
    return page


def _check_layout(page: tifffile.TiffPage, photometric: int) -> None:
    """Refuse what is not a picture of 1 to 16 bits."""
    if page.imagewidth < 1 or page.imagelength < 1:
        raise ValueError(f"it declares {page.imagewidth} x {page.imagelength} pixels")
    if photometric not in _SAMPLES:
        raise ValueError(f"its photometric interpretation {photometric} is not one of a picture")
    if page.imagedepth != 1:
        raise ValueError("it is a volume, not a picture")
    # 1 and 4 are unsigned integers and undefined (taken for the same).
    if int(page.sampleformat) not in (1, 4) or not 1 <= page.bitspersample <= 16:
        kind = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}.get(int(page.sampleformat), "unsigned")
        raise ValueError(f"its samples are {kind} with {page.bitspersample} bits; save it with 8 or 16 bits")
    if not _SAMPLES[photometric] <= page.samplesperpixel <= _SAMPLES[photometric] + 4:
        raise ValueError(f"it has {page.samplesperpixel} samples per pixel")


def _alpha_kind(page: tifffile.TiffPage, photometric: int) -> int:
    """Return 0 without alpha, 1 if colour is multiplied by it (associated), 2 if not."""
    extra = page.samplesperpixel - _SAMPLES[photometric]
    if extra < 1 or photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        return 0
    kinds = tuple(int(kind) for kind in page.extrasamples)
    if not kinds:
        return 2  # RGBA written without saying so
    return kinds[0] if kinds[0] in (1, 2) else 0


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(274)
    value = tag.value if tag is not None else 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_second_page(tiff: tifffile.TiffFile) -> bool:
    """Tell whether there is another full picture; smaller copies and masks of the first do not count."""
    with contextlib.suppress(Exception):
        for page in tiff.pages[1:5]:
            if not (isinstance(page, tifffile.TiffPage) and page.subfiletype & 0b101):
                return True
    return False


def _bytes_of(page: tifffile.TiffPage, code: int) -> bytes | None:
    tag = page.tags.get(code)
    if tag is None:
        return None
    value = tag.value
    if isinstance(value, str):
        value = value.encode()
    elif isinstance(value, tuple):
        value = bytes(value) if all(isinstance(v, int) and 0 <= v < 256 for v in value) else b""
    return bytes(value) or None if isinstance(value, (bytes, bytearray)) else None


def _read_exif(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> bytes | None:
    handle = tiff.filehandle

    def read_at(offset: int, size: int) -> bytes:
        handle.seek(offset)
        return handle.read(size)

    try:
        return exif_from_directory(read_directory(read_at, page.offset, tiff.byteorder, big=tiff.is_bigtiff))
    except (OSError, ValueError, struct.error):
        return None  # a photograph without its notes is better than none


# --- reading pixels --------------------------------------------------------------------------------------------


def decode_tiff(path: Path, check_size: Callable[[int, int], None]) -> tuple[TiffHeader, np.ndarray, np.ndarray | None]:
    """Decode the first page of a TIFF file, as stored (the orientation is not applied).

    Uncompressed files of 256 MiB or more, in the machine's byte order, are mapped and not read; for others the
    peak is one copy of the array for chunky files, two for planar ones.

    Parameters
    ----------
    path : Path
        The file.
    check_size : callable
        Called with width and height before anything is decoded; raises to refuse.

    Returns
    -------
    header : TiffHeader
    pixels : ndarray, shape (H, W, C)
    alpha : ndarray, shape (H, W), or None

    Raises
    ------
    ValueError
        If the file is damaged, ends early or holds something else than a picture of 1 to 16 bits.
    """
    with tifffile.TiffFile(path) as tiff:
        header = _describe(tiff)
        check_size(header.width, header.height)
        page = _first_page(tiff)
        _check_segments(page, tiff.filehandle.size)
        if _needs_libtiff(page):
            pixels = _decode_with_libtiff(path)
            # Pillow has turned it already.
            return dataclasses.replace(header, orientation=1), pixels, None
        values = _chunky(
            page, _mapped(path, page) if _is_mappable(tiff, page) else page.asarray(maxworkers=1, buffersize=1 << 24)
        )
        colormap = page.colormap
    pixels, alpha = _interpret(page, header, values, colormap)
    return header, pixels, alpha


def _is_mappable(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> bool:
    native = tiff.byteorder == ("<" if sys.byteorder == "little" else ">")
    whole_bytes = page.bitspersample in (8, 16)
    return native and whole_bytes and page.is_memmappable and page.nbytes >= _MAP_BYTES and _orientation(page) == 1


def _mapped(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    return np.memmap(path, np.dtype(f"u{page.bitspersample // 8}"), "r", page.dataoffsets[0], page.shape)


def _needs_libtiff(page: tifffile.TiffPage) -> bool:
    """Tell the two rare kinds that tifffile cannot decode: the JPEG of TIFF 6.0, and plain subsampled YCbCr."""
    compression = int(page.compression)
    if int(page.photometric) != _YCBCR or compression == 7:
        return False
    return compression == 6 or tuple(page.subsampling or (1, 1)) != (1, 1)


def _decode_with_libtiff(path: Path) -> np.ndarray:
    with _without_stderr(), TiffImagePlugin.TiffImageFile(path) as image:
        return split_pil(image)[0]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Point file descriptor 2 elsewhere while libtiff, which prints to it, is at work.

    What other threads print meanwhile is lost, therefore only the rarest files are read this way.
    """
    with _STDERR_LOCK:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def _check_segments(page: tifffile.TiffPage, file_size: int) -> None:
    """Refuse files that end before their strips or tiles do: tifffile would fill the gap with black."""
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not segments:
        raise ValueError("it has no image data")
    plain = int(page.compression) == 1
    wanted = math.prod(page.chunked)
    in_one_piece = plain and len(segments) == 1 and segments[0][0] + page.nbytes <= file_size
    if len(segments) < wanted and not in_one_piece:
        raise ValueError(f"it has {len(segments)} strips or tiles where {wanted} are needed")
    for offset, size in segments:
        # Some writers put any large number where the size of plain data is clear anyway.
        needed = min(size, page.nbytes) if plain else size
        if needed <= 0 or offset <= 0 or offset + needed > file_size:
            raise ValueError("its image data are missing or end early")
    # A tile may be larger than the picture, but not by so much that decoding it would fill the memory.
    if page.is_tiled and page.tilewidth * page.tilelength > 4 * max(page.imagewidth * page.imagelength, 1 << 20):
        raise ValueError(f"it declares tiles of {page.tilewidth} x {page.tilelength} pixels")


def _chunky(page: tifffile.TiffPage, values: np.ndarray) -> np.ndarray:
    """Return (H, W, S) from the ways tifffile lays a page out."""
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if values.shape == (height, width):
        return values[..., None]
    if values.shape == (height, width, samples):
        return values
    if values.shape == (samples, height, width):
        return np.moveaxis(values, 0, 2)
    raise ValueError(f"its data have the shape {values.shape}")


def _interpret(
    page: tifffile.TiffPage, header: TiffHeader, values: np.ndarray, colormap: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    photometric = int(page.photometric)
    if photometric == _PALETTE:
        return _look_up(values[..., 0], colormap), None
    if photometric in (_CMYK, _YCBCR, _CIELAB, _ICCLAB):
        return _other_model(page, values, photometric), None
    samples = _full_range(values, page.bitspersample)
    channels = header.channels
    pixels = samples[..., :channels]
    if photometric == _MIN_IS_WHITE:
        pixels = np.iinfo(pixels.dtype).max - pixels
    kind = _alpha_kind(page, photometric)
    if not kind:
        return pixels, None
    alpha = samples[..., channels]
    return (_straight(pixels, alpha) if kind == 1 else pixels), alpha


def _full_range(values: np.ndarray, bits: int) -> np.ndarray:
    """Stretch 1 to 7 bits to 8, and 9 to 15 to 16, so that white is white."""
    if bits in (8, 16):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    dtype, white = (np.uint8, 255) if bits < 8 else (np.uint16, 65535)
    top = (1 << bits) - 1
    return ((values.astype(np.uint32) * white + top // 2) // top).astype(dtype)


def _straight(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divide colour by alpha, rounding to the nearest."""
    white = np.iinfo(pixels.dtype).max
    opacity = np.maximum(alpha, 1).astype(np.uint32)[..., None]
    return np.minimum((pixels.astype(np.uint32) * white + opacity // 2) // opacity, white).astype(pixels.dtype)


def _look_up(indices: np.ndarray, colormap: Any) -> np.ndarray:
    if colormap is None:
        raise ValueError("its palette is missing")
    palette = np.asarray(colormap).T
    if indices.size and int(indices.max()) >= len(palette):
        raise ValueError("its palette is too short")
    # The palette has 16 bits (TIFF 6.0, ColorMap); some writers put 8-bit values there.
    palette = palette >> 8 if palette.max() > 255 else palette
    return palette.astype(np.uint8)[indices.astype(np.intp, copy=False)]


def _other_model(page: tifffile.TiffPage, values: np.ndarray, photometric: int) -> np.ndarray:
    """Convert CMYK, YCbCr and L*a*b* to sRGB, through Pillow and LittleCMS."""
    is_jpeg = int(page.compression) == 7
    if page.bitspersample == 16 and photometric == _CMYK:
        values = rescaled(values, np.uint8)
    if values.dtype != np.uint8 or (is_jpeg and photometric in (_CIELAB, _ICCLAB)):
        raise ValueError(f"its colour model {photometric} with {page.bitspersample} bits; save it as RGB")
    values = np.ascontiguousarray(values[..., : _SAMPLES[photometric]])
    if photometric == _YCBCR and is_jpeg:
        return values  # the JPEG decoder has done it
    size = (values.shape[1], values.shape[0])
    if photometric == _CMYK:
        image = Image.frombytes("CMYK", size, values.tobytes())
        if profile := _bytes_of(page, 34675):
            image.info["icc_profile"] = profile
    elif photometric == _YCBCR:
        image = Image.frombytes("YCbCr", size, values.tobytes())
    else:
        if photometric == _ICCLAB:
            # ICCLAB stores a* and b* with an offset of 128, CIELAB as signed bytes (TIFF technical note 4).
            values = values ^ np.array([0, 128, 128], np.uint8)
        image = Image.frombytes("LAB", size, values.tobytes(), "raw", "LAB")
    return split_pil(image)[0]


# --- writing ---------------------------------------------------------------------------------------------------


class TiffWriter:
    """Writes a TIFF file from the top down, in bands of any height, with flat memory.

    The byte order is that of the EXIF data, whose values are then copied as they are. Files that could outgrow
    4 GiB are BigTIFF from the start.

    Parameters
    ----------
    stream : file object
        Open for writing in binary, able to seek.
    height, width : int
        Size of the image.
    samples : int
        1, 2 (grey and alpha), 3 or 4 samples per pixel.
    bits : {8, 16}
        Bits of a sample.
    icc, exif, xmp : bytes, optional
        Metadata.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        height: int,
        width: int,
        samples: int,
        bits: int,
        icc: bytes | None = None,
        exif: bytes | None = None,
        xmp: bytes | None = None,
    ) -> None:
        self._stream = stream
        self._shape = (height, width, samples)
        self._bits = bits
        self._described = read_exif(exif) if exif else None
        self._order = self._described.order if self._described is not None else "<"
        self._icc, self._xmp = icc, xmp
        row_bytes = width * samples * bits // 8
        self._rows_per_strip = min(height, max(1, _STRIP_BYTES // row_bytes))
        self._big = height * row_bytes + len(icc or b"") + len(exif or b"") + len(xmp or b"") > _CLASSIC_LIMIT
        self._waiting: list[np.ndarray] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        # The offset of the directory is filled in when it is known.
        stream.write(self._start(0))

    def _start(self, offset: int) -> bytes:
        mark = b"II" if self._order == "<" else b"MM"
        if self._big:
            return mark + struct.pack(self._order + "HHHQ", 43, 8, 0, offset)
        return mark + struct.pack(self._order + "HI", 42, offset)

    def write(self, rows: np.ndarray) -> None:
        """Append rows, shape (h, W, S), uint8 or uint16 as the file's bits say."""
        top = 0
        while top < len(rows):
            waiting = sum(map(len, self._waiting))
            part = rows[top : top + self._rows_per_strip - waiting]
            # Copied, for the caller may reuse the band before the strip is full.
            whole = len(part) == self._rows_per_strip
            self._waiting.append(part if whole else part.copy())
            top += len(part)
            if waiting + len(part) == self._rows_per_strip:
                self._put_strip()

    def _put_strip(self) -> None:
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = []
        # Horizontal differencing, TIFF 6.0 section 14: modulo the sample's range, per sample.
        differences = np.array(rows)
        differences[:, 1:] -= rows[:, :-1]
        if self._bits == 16:
            differences = differences.astype(f"{self._order}u2", copy=False)
        # libdeflate: measured four times as fast as zlib at the same level and size.
        data = imagecodecs.deflate_encode(differences.tobytes(), level=6)
        self._offsets.append(self._stream.tell())
        self._sizes.append(len(data))
        self._stream.write(data)

    def close(self) -> None:
        """Write what is left, and the directory; the stream stays open."""
        if self._waiting:
            self._put_strip()
        position = self._stream.seek(0, 2)
        self._stream.write(bytes(position % 2))
        position += position % 2
        self._stream.write(pack_directory(self._directory(), position, big=self._big))
        self._stream.seek(0)
        self._stream.write(self._start(position))
        self._stream.seek(0, 2)

    def _directory(self) -> Directory:
        height, width, samples = self._shape
        directory = Directory(self._order)
        if self._described is not None:
            directory.entries |= describing(self._described)
            directory.children |= self._described.children
        wide = LONG8 if self._big else LONG
        directory.add(256, LONG, width)
        directory.add(257, LONG, height)
        directory.add(258, SHORT, *([self._bits] * samples))
        directory.add(259, SHORT, 8)  # Adobe deflate
        directory.add(262, SHORT, _RGB if samples >= 3 else _MIN_IS_BLACK)
        directory.add(273, wide, *self._offsets)
        directory.add(274, SHORT, 1)
        directory.add(277, SHORT, samples)
        directory.add(278, LONG, self._rows_per_strip)
        directory.add(279, wide, *self._sizes)
        directory.add(284, SHORT, 1)  # chunky
        directory.add(317, SHORT, 2)  # horizontal differencing
        directory.add(339, SHORT, *([1] * samples))
        if samples in (2, 4):
            directory.add(338, SHORT, 2)  # alpha, colour not multiplied by it
        if self._icc:
            directory.entries[34675] = Entry(UNDEFINED, len(self._icc), self._icc)
        if self._xmp:
            directory.entries[700] = Entry(1, len(self._xmp), self._xmp)
        return directory
