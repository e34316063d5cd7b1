"""Writing: everything that can be refused is refused before the work, and a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from PIL import Image

from velatura.errors import InputError, MachineError
from velatura.image.decode import open_image
from velatura.image.memory import rescaled
from velatura.image.metadata import EXIF_PREFIX, icc_space, resize_exif, state_origin
from velatura.image.picture import Picture, warn, white_of
from velatura.image.png import PngWriter
from velatura.image.tiff import TiffWriter

if TYPE_CHECKING:
    import torch

__all__ = ["RowWriter", "check_output", "file_of", "save_image", "write_file"]


@dataclass(frozen=True, slots=True)
class _Format:
    """What a format can hold."""

    suffixes: tuple[str, ...]
    max_side: int
    max_pixels: int | None = None
    deep: bool = False  # 16 bits
    alpha: bool = False
    grey: bool = True
    metadata: bool = True  # ICC, EXIF and XMP
    quality: int | None = None  # default of a lossy format
    # Least part of the plain pixels that a file takes: BMP takes them all. A photograph takes about half as PNG, but
    # nobody should be refused a drawing that takes a hundredth.
    least: float = 0.01


_FORMATS = {
    # libjpeg's JPEG_MAX_DIMENSION; the format itself ends at 65 535. APP1 and APP2 hold the metadata.
    "jpeg": _Format((".jpg", ".jpeg", ".jpe"), 65_500, quality=95),
    "png": _Format((".png",), (1 << 31) - 1, deep=True, alpha=True),
    "webp": _Format((".webp",), 16_383, alpha=True, grey=False, quality=90),
    "tiff": _Format((".tif", ".tiff"), (1 << 31) - 1, deep=True, alpha=True),
    # A file of 4 GiB at most: its size is stored in 32 bits.
    "bmp": _Format((".bmp", ".dib"), (1 << 31) - 1, ((1 << 32) - 4096) // 3, metadata=False, least=1.0),
    "gif": _Format((".gif",), 65_535, metadata=False),
    # libavif's own limits for readers: avifDecoder.imageDimensionLimit and imageSizeLimit.
    "avif": _Format((".avif",), 32_768, 16_384 * 16_384, alpha=True, grey=False, quality=85),
}

# JPEG keeps EXIF in one segment of 65 533 bytes, and so XMP, less their prefixes.
_JPEG_SEGMENT = 65_500

# What the file system says when it is the machine's fault and not the path's.
_MACHINE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, getattr(errno, "EDQUOT", errno.ENOSPC)}
)


# --- before the work -------------------------------------------------------------------------------------------


def check_output(
    path: str | os.PathLike[str],
    *,
    inputs: Iterable[object] = (),
    overwrite: bool = False,
    height: int | None = None,
    width: int | None = None,
    format: str | None = None,
    bits: int = 8,
) -> Path:
    """Refuse an output that cannot be written, before any work is done for it.

    Parameters
    ----------
    path : str or path
        The file to write. Its folder must exist.
    inputs : iterable
        What is read: none of them is ever written onto, not even with `overwrite`. An image that was made in memory
        is passed over; one that was opened from a file counts as the file.
    overwrite : bool
        Whether an existing file may be replaced.
    height, width : int, optional
        Size of the output, if it is known.
    format : str, optional
        ``"jpeg"``, ``"png"``, ...; by default what the suffix says.
    bits : int
        Bits of a sample, for the estimate of its size.

    Returns
    -------
    Path
        `path` as a Path.

    Raises
    ------
    InputError
        If the suffix is unknown, the folder is missing or not writable, the file exists, is an input or not a
        regular file, or the image is too large for the format.
    MachineError
        If the disk is too full for it.
    """
    path = Path(path)
    name = _format_of(path, format)
    with _explaining(path):
        _check_place(path, inputs, overwrite)
    if height is not None and width is not None:
        _check_room(path, name, height, width, bits)
    return path


def _format_of(path: Path, format: str | None) -> str:
    if format is not None:
        asked = "." + format.lower().lstrip(".")
        known = asked[1:]
    else:
        asked, known = path.suffix.lower(), ""
    for name, spec in _FORMATS.items():
        if known == name or asked in spec.suffixes:
            return name
    suffixes = ", ".join(suffix for spec in _FORMATS.values() for suffix in spec.suffixes)
    got = f"format {format!r}" if format is not None else f"the suffix {path.suffix!r}" if asked else "no suffix"
    raise InputError(f"{path}: {got} is none that can be written; expected one of {suffixes}")


def _check_place(path: Path, inputs: Iterable[object], overwrite: bool) -> None:
    for source in inputs:
        file = file_of(source)
        if file is not None and _same_file(path, file):
            raise InputError(f"{path} is an input of this work and is never written onto; choose another output")
    # Where a link leads to is what would be written.
    target = path.resolve()
    if target.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file in it")
    if target.exists():
        if not stat.S_ISREG(target.stat().st_mode):
            raise InputError(f"{path} is not a regular file; choose another output")
        if not overwrite:
            raise InputError(f"{path} exists; choose another name or allow it to be replaced with --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write into {target.parent}; choose another folder")
    if not shutil.disk_usage(target.parent).total:
        # No disk, or one that does not tell its size: only trying shows whether it takes files.
        with tempfile.TemporaryFile(dir=target.parent):
            pass


def file_of(source: object) -> Path | None:
    """Name the file that an input is, or was read from; None for an image that was made in memory."""
    if isinstance(source, Picture):
        return source.form.path
    # PIL images and memory maps know their file.
    file = source if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", None)
    return Path(os.fsdecode(file)) if file else None


def _same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return path.absolute() == source.absolute()


def _check_room(path: Path, name: str, height: int, width: int, bits: int) -> None:
    spec = _FORMATS[name]
    if max(height, width) > spec.max_side:
        raise InputError(
            f"{path}: {width} x {height} pixels are too many for {name.upper()}, which ends at {spec.max_side} a "
            "side; save it as TIFF or PNG"
        )
    if spec.max_pixels is not None and height * width > spec.max_pixels:
        raise InputError(
            f"{path}: {width} x {height} pixels are too many for {name.upper()}, which ends at "
            f"{spec.max_pixels // 1_000_000} megapixels; save it as TIFF or PNG"
        )
    # Three samples a pixel, though it may be one: only BMP is exact, and it stores grey in a third.
    plain = height * width * (2 if bits > 8 and spec.deep else 1) * (1 if spec.least == 1 else 3)
    least = int(plain * spec.least)
    disk = shutil.disk_usage(path.resolve().parent)
    if disk.total and least > disk.free:
        raise MachineError(
            f"{path}: {width} x {height} pixels take at least {least / 1e6:.0f} MB as {name.upper()}, and the disk "
            f"has {disk.free / 1e6:.0f} MB left; make room or choose another disk"
        )


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line."""
    try:
        yield
    except MemoryError:
        raise MachineError(f"{path}: not enough memory to write it; close other programs") from None
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            step = "make room on the disk" if error.errno != errno.EIO else "check the disk"
            raise MachineError(f"{path}: not written ({error.strerror}); {step}") from error
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: no permission to write it; choose another folder") from error
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another name") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path!s:.200}: cannot be written ({error}); choose another name") from error


# --- saving ----------------------------------------------------------------------------------------------------


def save_image(
    picture: Picture | Image.Image | np.ndarray | torch.Tensor,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    made_by: str | None = None,
) -> Path:
    """Write a picture to a file, whole or not at all.

    PNG and TIFF keep 8 and 16 bits (floats are written with 16), alpha, ICC, EXIF and XMP; nothing is lost. JPEG,
    WebP and AVIF keep 8 bits and the metadata, BMP and GIF only 8 bits. What a format cannot hold is left out with
    one `ImageWarning`; alpha is flattened on white where it cannot be kept, silently if nothing is transparent.

    Parameters
    ----------
    picture : Picture, or anything that `open_image` reads
        What to write.
    path : str or path
        The file; its suffix says the format: ``.jpg .jpeg .png .webp .tif .tiff .bmp .gif .avif``.
    format : str, optional
        The format, if the suffix shall not decide.
    quality : int, optional
        1 to 100, for JPEG (default 95, colour never subsampled), WebP (90; 100 is lossless) and AVIF (85, colour
        never subsampled). Others ignore it.
    overwrite : bool
        Whether an existing file may be replaced.
    made_by : str, optional
        If given, XMP says that a trained model made part of the image (IPTC digital source type
        ``compositeWithTrainedAlgorithmicMedia``), and that ``Velatura: <made_by>`` did.

    Returns
    -------
    Path
        `path` as a Path.

    Raises
    ------
    InputError, MachineError
        As for `check_output`, and if the disk fills up.
    """
    picture = open_image(picture, max_megapixels=float("inf"))
    path = Path(path)
    alpha = picture.alpha
    if alpha is not None and not _FORMATS[_format_of(path, format)].alpha and alpha.min() >= picture.white:
        alpha = None
    with RowWriter(
        path,
        picture,
        picture.height,
        picture.width,
        picture.channels,
        picture.pixels.dtype,
        alpha is not None,
        format=format,
        quality=quality,
        overwrite=overwrite,
        made_by=made_by,
    ) as writer:
        if alpha is None:
            writer.write(picture.pixels)
        else:
            # In bands, so that colour and alpha are not joined in a second whole image.
            step = max(1, (1 << 22) // picture.width)
            for top in range(0, picture.height, step):
                rows = slice(top, top + step)
                writer.write(np.concatenate((picture.pixels[rows], alpha[rows, :, None]), axis=2))
    return path


class RowWriter:
    """Write an image band by band, as a context manager; the file appears when the block ends without an error.

    PNG and TIFF are streamed, with memory for a few bands; other formats are collected in 8 bits and encoded at the
    end. On any exception, Ctrl-C included, nothing is left behind.

    Parameters
    ----------
    path : str or path
        The file to write; checked as `check_output` does.
    like : Picture, optional
        Whose ICC profile, EXIF and XMP the file gets; its pixels do not matter.
    height, width : int
        Size of the output.
    channels : {1, 3}
        Grey or RGB.
    dtype : dtype
        uint8, uint16 or float32 (in [0, 1]): what `write` is given.
    alpha : bool
        Whether rows have alpha as their last channel.
    format, quality, overwrite, made_by
        As for `save_image`.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name) / "grey.png"
    >>> with RowWriter(path, None, height=4, width=6, channels=1, dtype=np.uint8, alpha=False) as writer:
    ...     for _ in range(2):
    ...         writer.write(np.full((2, 6, 1), 128, np.uint8))
    >>> path.exists()
    True
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        like: Picture | None,
        height: int,
        width: int,
        channels: int,
        dtype: np.dtype | type = np.uint8,
        alpha: bool = False,
        *,
        format: str | None = None,
        quality: int | None = None,
        overwrite: bool = False,
        made_by: str | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise TypeError(f"channels must be 1 or 3, got {channels}")
        if quality is not None and not 1 <= quality <= 100:
            raise InputError(f"quality {quality}: expected 1 to 100")
        self._dtype = np.dtype(dtype)
        bits = 8 if self._dtype == np.uint8 else 16
        self.path = check_output(path, overwrite=overwrite, height=height, width=width, format=format, bits=bits)
        self._name = _format_of(self.path, format)
        spec = _FORMATS[self._name]
        self._shape = (height, width, channels)
        self._alpha = alpha
        self._out_dtype = np.dtype(np.uint16 if bits == 16 and spec.deep else np.uint8)
        self._quality = quality or spec.quality
        self._overwrite = overwrite
        self._rows = 0
        self._metadata, lost = _metadata_for(self._name, like, made_by, self._shape)
        if self._dtype == np.uint16 and not spec.deep:
            lost.append("16 bits become 8")
        if alpha and not spec.alpha:
            lost.append("transparency is flattened on white")
        if self._name == "gif" and channels == 3:
            lost.append("256 colours are chosen")
        if lost:
            hint = "PNG and TIFF keep everything"
            warn(f"{path}: {self._name.upper()} cannot hold all of it: {', '.join(lost)} ({hint})")

    def __enter__(self) -> Self:
        with _explaining(self.path):
            self._file = _AtomicFile(self.path, self._overwrite)
        try:
            with _explaining(self.path):
                self._sink = self._make_sink(self._file.stream)
        except BaseException:
            self._file.discard()
            raise
        return self

    def _make_sink(self, stream: BinaryIO) -> PngWriter | TiffWriter | _Collector:
        height, width, channels = self._shape
        samples = channels + (self._alpha and _FORMATS[self._name].alpha)
        if self._name in ("png", "tiff"):
            writer = PngWriter if self._name == "png" else TiffWriter
            bits = self._out_dtype.itemsize * 8
            return writer(stream, height=height, width=width, samples=samples, bits=bits, **self._metadata)
        return _Collector(stream, (height, width, samples), self._name, self._quality, self._metadata)

    def write(self, rows: np.ndarray) -> None:
        """Append rows, shape (h, W, C) or, with alpha, (h, W, C + 1), in the dtype that was declared."""
        height, width, channels = self._shape
        expected = (width, channels + self._alpha)
        if rows.ndim != 3 or rows.shape[1:] != expected or rows.dtype != self._dtype:
            raise TypeError(
                f"rows must be {self._dtype} (h, {expected[0]}, {expected[1]}), got {rows.dtype} {rows.shape}"
            )
        if self._rows + len(rows) > height:
            raise TypeError(f"{self._rows + len(rows)} rows for an image of {height}")
        self._rows += len(rows)
        if not len(rows):
            return
        if self._alpha and not _FORMATS[self._name].alpha:
            rows = _on_white(rows)
        with _explaining(self.path):
            self._sink.write(rescaled(rows, self._out_dtype))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.discard()
            return
        try:
            if self._rows != self._shape[0]:
                raise RuntimeError(f"{self._rows} rows were written, {self._shape[0]} expected")
            with _explaining(self.path):
                self._sink.close()
                self._file.commit()
        except BaseException:
            self._file.discard()
            raise


def _metadata_for(
    name: str, like: Picture | None, made_by: str | None, shape: tuple[int, int, int]
) -> tuple[dict[str, bytes | None], list[str]]:
    """Return the metadata that the format can hold, and what is lost."""
    height, width, channels = shape
    icc, exif, xmp = (like.icc, like.exif, like.xmp) if like is not None else (None, None, None)
    lost: list[str] = []
    spec = _FORMATS[name]
    if not spec.metadata:
        lost += [word for word, value in (("the ICC profile", icc), ("EXIF", exif), ("XMP", xmp)) if value]
        return {"icc": None, "exif": None, "xmp": None}, lost
    if made_by is not None:
        xmp = state_origin(xmp, made_by)
    exif = resize_exif(exif, height, width) if exif else None
    space = icc_space(icc)
    stored_grey = channels == 1 and spec.grey
    if (space == "GRAY" and not stored_grey) or space not in (None, "RGB", "GRAY"):
        # A profile for another colour model says nothing about these pixels, and readers refuse the file.
        if channels == 1:
            lost.append("the grey ICC profile")
        icc = None
    if name == "avif" and exif and not _pillow_understands(exif):
        exif = None
        lost.append("damaged EXIF")
    if name == "jpeg":
        if exif and len(exif) > _JPEG_SEGMENT:
            exif = None
            lost.append("EXIF of more than 64 KB")
        if xmp and len(xmp) > _JPEG_SEGMENT:
            xmp = None
            lost.append("XMP of more than 64 KB")
    return {"icc": icc, "exif": exif, "xmp": xmp}, lost


def _pillow_understands(exif: bytes) -> bool:
    """Tell whether Pillow can rewrite EXIF, which it does for AVIF to take the orientation out."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        tags.tobytes()
    except Exception:  # whatever its parser meets in a damaged stream
        return False
    return True


def _on_white(rows: np.ndarray) -> np.ndarray:
    """Lay colour with alpha, (h, W, C + 1), over white; (h, W, C) in the same dtype."""
    white = white_of(rows.dtype)
    alpha = rows[..., -1:].astype(np.float32) / white
    flat = rows[..., :-1] * alpha + white * (1 - alpha)
    return flat.astype(rows.dtype) if rows.dtype.kind == "f" else (flat + 0.5).astype(rows.dtype)


# --- formats that are encoded in one piece ---------------------------------------------------------------------


class _Collector:
    """Collects 8-bit rows and encodes them with Pillow at the end."""

    def __init__(
        self,
        stream: BinaryIO,
        shape: tuple[int, int, int],
        name: str,
        quality: int | None,
        metadata: dict[str, bytes | None],
    ) -> None:
        self._stream, self._shape, self._name = stream, shape, name
        self._quality, self._metadata = quality, metadata
        self._canvas: np.ndarray | None = None
        self._filled = 0
        # Into memory first: when the disk is full Pillow's encoders raise errors that do not say so.
        self._encoded = io.BytesIO()

    def write(self, rows: np.ndarray) -> None:
        if rows.shape == self._shape:
            self._encode(rows)  # everything at once needs no copy
            return
        if self._canvas is None:
            self._canvas = np.empty(self._shape, np.uint8)
        self._canvas[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def _encode(self, pixels: np.ndarray) -> None:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if self._shape[2] == 1 else pixels))
        try:
            _encode(image, self._encoded, self._name, self._quality, self._metadata)
        except Exception as error:  # MemoryError too; encoders are as varied as decoders in what they raise
            raise MachineError(f"the {self._name.upper()} encoder failed ({error}); save it as PNG or TIFF") from error

    def close(self) -> None:
        if self._canvas is not None:
            self._encode(self._canvas)
            self._canvas = None
        self._stream.write(self._encoded.getbuffer())


def _encode(
    image: Image.Image, stream: BinaryIO, name: str, quality: int | None, metadata: dict[str, bytes | None]
) -> None:
    options: dict[str, Any] = {}
    if metadata["icc"]:
        options["icc_profile"] = metadata["icc"]
    if metadata["exif"]:
        options["exif"] = EXIF_PREFIX + metadata["exif"] if name == "jpeg" else metadata["exif"]
    if metadata["xmp"]:
        options["xmp"] = metadata["xmp"]
    match name:
        case "jpeg":
            # Edited colour edges show it first when chroma is halved.
            options |= {"quality": quality, "subsampling": "4:4:4"}
        case "webp":
            # "exact" keeps the colour under what is transparent.
            lossless = quality == 100
            options |= {"quality": 80 if lossless else quality, "lossless": lossless, "exact": lossless, "method": 4}
        case "avif":
            options |= {"quality": quality, "subsampling": "4:4:4"}
        case "gif":
            image = image if image.mode == "L" else image.quantize(256)
    image.save(stream, name.upper(), **options)


# --- the file itself -------------------------------------------------------------------------------------------


def write_file(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = False) -> Path:
    """Write a file that is no image, such as latents: it appears whole, and on the disk, or not at all.

    Raises
    ------
    InputError
        It exists, and `overwrite` is False; its folder is not there.
    """
    path = Path(path)
    with _explaining(path):
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; name another file, or add --overwrite")
        file = _AtomicFile(path, overwrite)
        try:
            file.stream.write(content)
            file.commit()
        finally:
            file.discard()
    return path


class _AtomicFile:
    """A temporary file in the folder of the target, that takes its name once it is complete and on the disk."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        self._target = path.resolve()
        self._overwrite = overwrite
        # Short and plain: a long or odd name of the target must not make this one impossible.
        self._temporary = self._target.parent / f".velatura-{secrets.token_hex(6)}.tmp"
        # Before it is there: a signal may come between its making and the block that would remove it.
        weakref.finalize(self, _remove, self._temporary, os.getpid())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        # 0o666 less the umask, as any new file; tempfile's 0o600 would hide the result from the user's group.
        descriptor = os.open(self._temporary, flags, 0o666)
        self.stream: BinaryIO = os.fdopen(descriptor, "w+b", buffering=1 << 18)

    def commit(self) -> None:
        """Flush to the disk and rename."""
        self.stream.flush()
        if self._overwrite and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):  # a file that is replaced keeps its permissions
                os.fchmod(self.stream.fileno(), stat.S_IMODE(self._target.stat().st_mode))
        os.fsync(self.stream.fileno())
        self.stream.close()
        if self._overwrite:
            os.replace(self._temporary, self._target)  # noqa: PTH105 - says what it does
        else:
            self._rename_if_free()
        self._sync_folder()

    def _rename_if_free(self) -> None:
        """Rename, but never onto a file that appeared in the meantime."""
        try:
            os.link(self._temporary, self._target)  # unlike a rename, this fails if the target exists
        except FileExistsError:
            raise InputError(
                f"{self._target} has appeared in the meantime; choose another name or allow it to be replaced with "
                "--overwrite"
            ) from None
        except (OSError, AttributeError, NotImplementedError):
            # No hard links on this file system: look, then rename.
            if self._target.exists():
                raise InputError(f"{self._target} has appeared in the meantime; choose another name") from None
            self._temporary.rename(self._target)
        else:
            self._temporary.unlink()

    def _sync_folder(self) -> None:
        """Make the new name survive a power cut, where folders can be synced at all."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """Remove the temporary file; nothing happens if it has its final name already."""
        with contextlib.suppress(OSError):
            self.stream.close()  # flushes: on a full disk that fails, and does not matter
        _remove(self._temporary, os.getpid())


def _remove(path: Path, process: int) -> None:
    """Remove a file, if this is the process that made it and not a child that was forked from it."""
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            path.unlink()
