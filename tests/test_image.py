"""The door for pixels: what comes in, against independent readers."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from velatura.errors import InputError
from velatura.image import (
    SUFFIXES,
    ImageWarning,
    Picture,
    in_profile_of,
    open_image,
    open_mask,
    premultiply,
    probe,
    rescaled,
    to_form,
    unpremultiply,
)
from velatura.image.encode import _FORMATS

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (11, 17), np.uint8)
RGB = RNG.integers(0, 256, (11, 17, 3), np.uint8)
RGBA = RNG.integers(0, 256, (11, 17, 4), np.uint8)
RGB16 = RNG.integers(0, 65536, (11, 17, 3), np.uint16)


def joined(picture: Picture) -> np.ndarray:
    if picture.alpha is None:
        return picture.pixels
    return np.dstack((picture.pixels, picture.alpha))


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


# --- files of 8 bits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "webp"])
def test_lossless_modes_match_pillow(mode: str, suffix: str, tmp_path: Path) -> None:
    if (mode in ("LA", "RGBA") and suffix in ("bmp", "gif")) or (mode == "RGB" and suffix == "gif"):
        pytest.skip("not held by the format")
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(RGBA).convert(mode).save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    picture = open_image(path)
    with Image.open(path) as image:
        wanted = "LA" if picture.channels == 1 else "RGBA"
        if picture.alpha is None:
            wanted = wanted[:-1] if wanted == "LA" else "RGB"
        expected = np.asarray(image.convert(wanted))
        assert (picture.alpha is not None) == image.has_transparency_data
    assert np.array_equal(joined(picture).squeeze(), expected)
    assert picture.form.format == {"tif": "tiff"}.get(suffix, suffix)


@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_matches_an_independent_decoder(quality: int, tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.jpg", quality=quality, subsampling=0)
    assert np.abs(open_image(path).pixels.astype(int) - imagecodecs.jpeg8_decode(path.read_bytes())).max() <= 1


def test_palette_with_transparency_becomes_rgba(tmp_path: Path) -> None:
    image = Image.fromarray(GREY // 64, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    path = save(image, tmp_path / "a.png", transparency=b"\0\x80")
    picture = open_image(path)
    assert np.array_equal(joined(picture), imagecodecs.png_decode(path.read_bytes()))
    assert set(np.unique(picture.alpha)) == {0, 128, 255}


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_stretched_to_the_full_range(bits: int, tmp_path: Path) -> None:
    levels = (np.arange(64).reshape(8, 8) % (1 << bits)).astype(np.uint8)
    packed = np.packbits(
        ((levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(8, -1), axis=1
    )
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(8, 8, bits, 0, b"".join(b"\0" + row.tobytes() for row in packed)))
    expected = levels.astype(int) * 255 // ((1 << bits) - 1)
    assert np.array_equal(open_image(path).pixels[..., 0], expected)
    assert np.array_equal(imagecodecs.png_decode(path.read_bytes()), expected)


def png_bytes(
    width: int, height: int, depth: int, colour_type: int, filtered: bytes, *chunks: bytes, interlace=0
) -> bytes:

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace))
    extra = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + ihdr + extra + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


# --- 16 bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_16_bit_png_keeps_16_bits(samples: int, tmp_path: Path) -> None:
    # Taller than one band, so that the filters have to reach across bands.
    array = np.cumsum(RNG.integers(0, 9, (700, 300, samples)), axis=0).astype(np.uint16) * 257
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(array.squeeze()))
    picture = open_image(path)
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(joined(picture), array)
    assert (picture.alpha is not None) == (samples in (2, 4))


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_interlaced_16_bit_png(colour_type: int, tmp_path: Path) -> None:
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    array = RNG.integers(0, 65536, (13, 10, samples), np.uint16)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, dx, dy in passes:
        for row in array[y::dy, x::dx]:
            rows += b"\0" + row.astype(">u2").tobytes() if row.size else b""
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(10, 13, 16, colour_type, rows, interlace=1))
    assert np.array_equal(joined(open_image(path)), array)


def test_16_bit_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    array = RGB16.copy()
    array[3, 4] = (1, 515, 65535)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(17, 11, 16, 2, rows, b"tRNS\x00\x01\x02\x03\xff\xff"))
    picture = open_image(path)
    assert np.array_equal(joined(picture), imagecodecs.png_decode(path.read_bytes()))
    assert picture.alpha is not None
    assert np.argwhere(picture.alpha == 0).tolist() == [[3, 4]]


def test_16_bit_transparent_grey_stays_opaque_and_says_so(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB16[..., 0])
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(17, 11, 16, 0, rows, b"tRNS\x00\x01"))
    with pytest.warns(ImageWarning, match="tRNS"):
        assert open_image(path).alpha is None
    assert probe(path).alpha is False


TIFF_KINDS = {
    "strips": {},
    "tiles": {"tile": (16, 16)},
    "lzw, predictor": {"compression": "lzw", "predictor": True},
    "deflate, tiles, predictor": {"compression": "zlib", "predictor": True, "tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "big-endian, predictor": {"byteorder": ">", "compression": "zlib", "predictor": True},
    "packbits": {"compression": "packbits"},
    "BigTIFF": {"bigtiff": True},
    "planar": {"planarconfig": "separate"},
    "planar, tiles": {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_tiff_layouts(kind: str, dtype: type, tmp_path: Path) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max + 1, (21, 37, 3)).astype(dtype)
    planar = "planar" in kind
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(array, 2, 0) if planar else array, photometric="rgb", **TIFF_KINDS[kind])
    picture = open_image(path)
    assert picture.pixels.dtype == dtype
    assert picture.pixels.dtype.isnative
    assert np.array_equal(picture.pixels, array)


def test_tiff_min_is_white_and_associated_alpha(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "w.tif", GREY, photometric="miniswhite")
    assert np.array_equal(open_image(tmp_path / "w.tif").pixels[..., 0], 255 - GREY)
    colour, alpha = np.array([[[200, 100, 50]]], np.uint8), np.array([[128]], np.uint8)
    stored = np.dstack(((colour.astype(int) * 128 + 127) // 255, alpha)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    picture = open_image(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - colour).max() <= 1
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[128]]


def test_a_large_plain_tiff_is_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velatura.image.tiff._MAP_BYTES", 100)
    tifffile.imwrite(tmp_path / "a.tif", RGB16, photometric="rgb", byteorder="<" if sys.byteorder == "little" else ">")
    picture = open_image(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, RGB16)
    base = picture.pixels
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not picture.pixels.flags.writeable


@pytest.mark.parametrize("array", [RGB.astype(np.float32), GREY.astype(np.int32), np.zeros((3, 8, 8, 3), np.complex64)])
def test_tiff_of_other_numbers_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    with pytest.raises(InputError, match="8 or 16 bits"):
        open_image(tmp_path / "a.tif")


def test_a_tiff_of_millions_of_missing_strips_is_refused_at_once(tmp_path: Path) -> None:
    longs = {256: 1, 257: 16_000_000, 273: 8, 278: 1, 279: 3}
    shorts = {258: 8, 259: 1, 262: 1, 277: 1}
    table = b"".join(
        struct.pack("<HHII", tag, 4 if tag in longs else 3, 1, value) for tag, value in sorted((longs | shorts).items())
    )
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<II", 12, 0) + struct.pack("<H", 9) + table + bytes(4))
    with pytest.raises(InputError, match="1 strips or tiles where 16000000 are needed"):
        open_image(tmp_path / "a.tif")


# --- orientation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_orientation_is_applied_once(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    smooth = np.add.outer(np.arange(24) * 3, np.arange(40) * 4)
    image = Image.fromarray(np.dstack((smooth, smooth[::-1], smooth[:, ::-1])).astype(np.uint8))
    path = save(image, tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(path) as reader:
        upright = ImageOps.exif_transpose(reader)
    for picture in (open_image(path), open_image(Image.open(path))):
        assert np.array_equal(picture.pixels, np.asarray(upright))
        assert picture.exif is None or Image.Exif().tobytes() is not None
        if picture.exif:
            tags = Image.Exif()
            tags.load(picture.exif)
            assert tags.get(274, 1) == 1
    info = probe(path)
    assert (info.width, info.height) == upright.size


def test_16_bit_png_is_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 8
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB16)
    (tmp_path / "a.png").write_bytes(png_bytes(17, 11, 16, 2, rows, b"eXIf" + exif.tobytes()[6:]))
    assert np.array_equal(open_image(tmp_path / "a.png").pixels, np.rot90(RGB16))


def test_what_can_be_written_can_be_read() -> None:
    assert {suffix for spec in _FORMATS.values() for suffix in spec.suffixes} == SUFFIXES - {".heic", ".heif"}


# --- colour models ---------------------------------------------------------------------------------------------

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# The primaries of red and green change places.
SWAPPED = SRGB.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_icc_is_kept_while_the_colour_model_stays(suffix: str, tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / f"a.{suffix}", icc_profile=SRGB)
    assert open_image(path).icc == SRGB


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_only_8_bits_change_their_profile(dtype: type) -> None:
    picture = Picture(rescaled(RGB, dtype), icc=SWAPPED)
    with pytest.warns(ImageWarning, match="only 8-bit colours can be converted, not 16-bit ones or floats"):
        assert in_profile_of(picture, Picture(RGB, icc=SRGB)) is picture


@pytest.mark.parametrize("icc", [SRGB, None])
def test_profiles_are_compared_by_what_they_mean(icc: bytes | None) -> None:
    other = bytearray(SRGB)
    other[80:84] = b"Mine"  # the header's creator: other bytes, the same colours
    picture = Picture(rescaled(RGB, np.uint16), icc=bytes(other))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_profile_of(picture, Picture(RGB, icc=icc)) is picture


def test_profiles_are_converted_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velatura.image.memory._BAND_BYTES", 100)
    picture = Picture(RGB, icc=SWAPPED)
    converted = in_profile_of(picture, Picture(RGB, icc=SRGB))
    assert converted.icc == SRGB
    assert np.abs(converted.pixels.astype(int) - RGB[..., [1, 0, 2]]).max() <= 1
    with pytest.warns(ImageWarning, match="damaged"):
        assert in_profile_of(picture, Picture(RGB, icc=b"broken" * 30)) is picture


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_without_a_profile(suffix: str, tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB).convert("CMYK"), tmp_path / f"a.{suffix}")
    with Image.open(path) as image:
        assert np.array_equal(open_image(path).pixels, np.asarray(image.convert("RGB")))


def test_cmyk_goes_through_its_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # No CMYK profile may be shipped with the tests: what counts is that LittleCMS gets the embedded one.
    seen = []

    def convert(image: Image.Image, source: io.BytesIO, *args: object, **kwargs: object) -> Image.Image:
        seen.append(source.getvalue())
        return Image.new("RGB", image.size, (1, 2, 3))

    monkeypatch.setattr("velatura.image.memory.ImageCms.profileToProfile", convert)
    path = save(Image.fromarray(RGB).convert("CMYK"), tmp_path / "a.jpg", icc_profile=b"profile" * 30)
    picture = open_image(path)
    assert seen == [b"profile" * 30]
    assert picture.pixels[0, 0].tolist() == [1, 2, 3]
    assert picture.icc is None


def test_a_broken_cmyk_profile_is_no_obstacle(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB).convert("CMYK"), tmp_path / "a.jpg", icc_profile=b"broken" * 30)
    assert open_image(path).icc is None


def test_lab_goes_to_srgb(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    smooth = Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], (20, 1, 3)))
    path = save(ImageCms.profileToProfile(smooth, srgb, lab, outputMode="LAB"), tmp_path / "a.tif")
    assert np.abs(open_image(path).pixels.astype(int) - np.asarray(smooth)).max() <= 4


# --- several frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_of_several_frames_the_first_is_used_with_a_warning(suffix: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    path = save(first, tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    with pytest.warns(ImageWarning, match="first is used") as record:
        picture = open_image(path)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert np.abs(picture.pixels[0, 0].astype(int) - (255, 0, 0)).max() <= 3
    assert probe(path).several


def test_a_thumbnail_page_is_no_second_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RGB, photometric="rgb")
        tiff.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
    assert open_image(tmp_path / "a.tif").height == 11


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif", "avif"])
def test_too_many_declared_pixels_name_the_option(suffix: str, tmp_path: Path) -> None:
    path = save(Image.new("RGB", (120, 100)), tmp_path / f"a.{suffix}")
    for reader in (open_image, probe, open_mask):
        with pytest.raises(InputError, match=r"120 x 100 = 0\.012 megapixels; .*--max-megapixels"):
            reader(path, max_megapixels=0.011)
    assert open_image(path, max_megapixels=0.012).width == 120


def test_a_limit_above_pillows_own_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    assert np.array_equal(open_image(path).pixels, RGB)


def test_a_pil_image_that_is_not_decoded_yet_is_limited_too(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (120, 100)), tmp_path / "a.png")
    with Image.open(path) as image, pytest.raises(InputError, match="--max-megapixels"):
        open_image(image, max_megapixels=0.001)


def test_a_huge_declared_png_costs_nothing(tmp_path: Path) -> None:
    for depth in (8, 16):
        (tmp_path / "a.png").write_bytes(png_bytes(1 << 20, 1 << 20, depth, 2, b""))
        with pytest.raises(InputError, match="megapixels"):
            open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just some text\n", "expected JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r'pip install "velatura\[heic\]"'),
    ],
)
def test_other_files_under_an_image_name(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if the extra were not installed
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        open_image(tmp_path / "a.png")
    assert "a.png" in str(error.value)


def test_heic_with_the_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    smooth = np.add.outer(np.arange(48), np.arange(64) * 2)
    array = np.dstack((smooth, smooth[::-1], smooth)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    heif.from_pillow(Image.fromarray(array)).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    picture = open_image(tmp_path / "a.heic")
    assert np.abs(picture.pixels.astype(int) - np.rot90(array, -1)).mean() < 3


def test_formats_are_known_by_content_not_by_name(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(open_image(path).pixels, RGB)


def test_missing_folder_pipe_and_odd_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        open_image("a\0b.png")
    with pytest.raises(InputError):
        open_image(tmp_path / ("x" * 5000 + ".png"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(InputError, match="not a regular file"):
            open_image(tmp_path / "pipe.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(InputError, match="permission"):
        open_image(path)


def test_a_jpeg_with_endless_scans_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    scan = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:scan] + data[scan:-2] * 600 + b"\xff\xd9")
    with pytest.raises(InputError, match="scans"):
        open_image(tmp_path / "a.jpg")


def test_threads_that_decode_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [open_image(path) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_no_torch_is_loaded() -> None:
    code = "import sys, numpy, velatura.image as v; v.open_image(numpy.zeros((2, 2))); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# --- arrays, PIL images, tensors -------------------------------------------------------------------------------

ARRAYS = [
    GREY,
    GREY[..., None],
    RGB,
    RGBA,
    RGB16,
    RGB16[..., 0],
    GREY > 128,
    (RGB / 255).astype(np.float32),
    RGBA / 255,
]


@pytest.mark.parametrize("array", ARRAYS, ids=[f"{a.dtype}-{a.shape}" for a in ARRAYS])
def test_arrays_come_back_as_they_were(array: np.ndarray) -> None:
    copy = array.copy()
    picture = open_image(array)
    result = to_form(picture)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == (array.shape, array.dtype)
    assert np.allclose(result, array, atol=1e-7)
    result[...] = 0  # what comes out is the caller's to draw on, and no view of what went in
    assert np.array_equal(array, copy)


def test_arrays_are_shared_but_read_only() -> None:
    picture = open_image(RGB)
    assert np.shares_memory(picture.pixels, RGB)
    assert not picture.pixels.flags.writeable
    assert RGB.flags.writeable


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.zeros((4, 4), complex), "complex"),
        (np.full((4, 4), np.nan), "nan"),
        (np.full((4, 4), 1.5), "1.5"),
        (np.full((4, 4), -0.1), "-0.1"),
        (np.array([["a"]]), "<U1"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_image(array, name="source")
    assert str(error.value).startswith("source: ")
    assert "expected" in str(error.value)


def test_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match="got dict; expected a path"):
        open_image({})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_pil_modes(mode: str) -> None:
    image = Image.fromarray(RGBA)
    image = image.convert("LA").convert(mode) if mode in ("La", "PA") else image.convert(mode)
    before = image.tobytes()
    picture = open_image(image)
    wanted = ("L" if picture.channels == 1 else "RGB") + ("A" if picture.alpha is not None else "")
    middle = {"La": "LA", "RGBa": "RGBA"}.get(mode, wanted)
    assert np.array_equal(joined(picture).squeeze(), np.asarray(image.convert(middle)))
    assert (picture.alpha is not None) == (mode in ("LA", "La", "PA", "RGBA", "RGBa"))
    assert image.tobytes() == before
    result = to_form(picture)
    assert isinstance(result, Image.Image)
    assert result.mode == wanted


def test_pil_16_bit_grey_stays_pil() -> None:
    image = Image.fromarray(RGB16[..., 0])
    assert image.mode == "I;16"
    result = to_form(open_image(image))
    assert isinstance(result, Image.Image)
    assert result.mode == "I;16"
    assert np.array_equal(np.asarray(result), RGB16[..., 0])
    wide = Image.fromarray(RGB16[..., 0].astype(np.int32))
    assert np.array_equal(open_image(wide).pixels[..., 0], RGB16[..., 0])
    with pytest.raises(InputError, match="mode I holds"):
        open_image(Image.fromarray(np.array([[70000]], np.int32)))
    with pytest.raises(InputError, match="mode F"):
        open_image(Image.fromarray(np.zeros((2, 2), np.float32)))


def test_a_path_gives_pil_or_for_16_bits_an_array(tmp_path: Path) -> None:
    path = save(Image.fromarray(RGBA), tmp_path / "a.png", icc_profile=SRGB)
    result = to_form(open_image(path))
    assert isinstance(result, Image.Image)
    assert np.array_equal(np.asarray(result), RGBA)
    assert result.info["icc_profile"] == SRGB
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(RGB16))
    assert np.array_equal(to_form(open_image(str(tmp_path / "b.png"))), RGB16)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 3, 5, 7), (1, 5, 7), (4, 5, 7), (5, 7)])
def test_tensors_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).to(kind)
    if kind.is_floating_point:
        tensor = tensor * 0.5
    picture = open_image(tensor)
    assert (picture.height, picture.width) == (5, 7)
    result = to_form(picture)
    assert (result.shape, result.dtype, result.device) == (tensor.shape, tensor.dtype, tensor.device)
    assert torch.equal(result, tensor)
    if kind == torch.float32:
        result.zero_()
        assert tensor.any()


def test_other_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(2, 3, 4, 4), torch.zeros(5, 4, 4), torch.full((3, 4, 4), 2.0), torch.zeros(3, 0, 4)):
        with pytest.raises(InputError, match="expected"):
            open_image(tensor)


# --- masks -----------------------------------------------------------------------------------------------------

HALF = np.zeros((4, 6), bool)
HALF[:, 3:] = True


@pytest.mark.parametrize(
    "mask",
    [
        HALF,
        HALF.astype(np.uint8),
        HALF.astype(np.int64),
        HALF * np.uint8(255),
        HALF.astype(np.int32) * 255,
        HALF.astype(float),
        HALF.astype(np.uint16),
        HALF.astype(np.uint16) * 255,
        HALF.astype(np.uint16) * 65535,
        np.dstack([HALF * np.uint8(255)] * 3),
        Image.fromarray(HALF),
        Image.fromarray(HALF * np.uint8(255)).convert("P"),
        Image.fromarray(HALF.astype(np.uint8)),
    ],
    ids=lambda mask: f"{getattr(mask, 'dtype', mask)}"[:40],
)
def test_masks_of_any_kind(mask: object) -> None:
    result = open_mask(mask)  # pyright: ignore[reportArgumentType]
    assert result.dtype == np.uint8
    assert np.array_equal(result, HALF * np.uint8(255))


def test_an_empty_mask_stays_empty_and_soft_edges_stay_soft() -> None:
    assert not open_mask(np.zeros((3, 3), np.uint8)).any()
    assert np.array_equal(open_mask(GREY), GREY)
    assert np.array_equal(open_mask(GREY / 255), GREY)


def test_luminance_is_pillows() -> None:
    assert np.array_equal(open_mask(RGB), np.asarray(Image.fromarray(RGB).convert("L")))


def test_a_mask_in_the_alpha_channel() -> None:
    strokes = np.zeros((4, 6, 4), np.uint8)
    strokes[..., 3] = HALF * np.uint8(200)
    assert np.array_equal(open_mask(strokes), HALF * np.uint8(200))  # black strokes on nothing
    strokes[~HALF, :3] = 77  # what is invisible does not count
    assert np.array_equal(open_mask(strokes), HALF * np.uint8(200))
    opaque = np.dstack([HALF * np.uint8(255)] * 3 + [np.full(HALF.shape, 255, np.uint8)])
    assert np.array_equal(open_mask(opaque), HALF * np.uint8(255))
    nothing = np.zeros((4, 6, 4), np.uint8)
    assert not open_mask(nothing).any()


@pytest.mark.parametrize("kind", ["RGB", "RGB, 0 and 1", "RGB, 16 bits", "RGB, float", "RGBA", "RGBA, one colour"])
def test_a_mask_takes_memory_for_itself_alone(kind: str) -> None:
    shape = (2000, 1500)
    mask = np.full((*shape, 3), {"RGB, 0 and 1": 1}.get(kind, 200), np.uint8)
    mask[: shape[0] // 2] = 0
    if "RGBA" in kind:
        alpha = np.full((*shape, 1), 255, np.uint8)
        alpha[0] = 7
        mask = np.concatenate((mask if kind == "RGBA" else np.zeros_like(mask), alpha), axis=2)
    mask = rescaled(mask, {"RGB, 16 bits": np.uint16, "RGB, float": np.float32}.get(kind, np.uint8))
    open_mask(mask[:2])  # what is loaded at the first call does not count
    tracemalloc.start()
    result = open_mask(mask)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.shape == shape
    # One byte per pixel for the result, one for a comparison; the rest is a band's.
    assert peak < 2 * result.nbytes + (20 << 20)


def test_other_masks_are_refused() -> None:
    with pytest.raises(InputError, match="from 0 to 300"):
        open_mask(np.array([[0, 300]]))
    with pytest.raises(InputError, match="from -1"):
        open_mask(np.array([[0, -1]]))


# --- arithmetic ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtypes", [("uint8", "float32"), ("float32", "uint8"), ("uint16", "uint8"), ("uint8", "uint16")]
)
def test_rescaling_takes_memory_for_the_result_alone(dtypes: tuple[str, str]) -> None:
    values = np.ones((2000, 1500, 3), dtypes[0])
    tracemalloc.start()
    result = rescaled(values, np.dtype(dtypes[1]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(result, np.broadcast_to(rescaled(values[:1, :1], np.dtype(dtypes[1])), values.shape))
    assert peak < result.nbytes + (12 << 20)


def test_rescaling_rounds_and_returns() -> None:
    every = np.arange(256, dtype=np.uint8)
    for dtype in (np.uint16, np.float32):
        assert np.array_equal(rescaled(rescaled(every, dtype), np.uint8), every)
    deep = np.arange(65536).astype(np.uint16)
    assert np.array_equal(rescaled(deep, np.uint8), np.round(deep / 257).astype(np.uint8))
    assert np.array_equal(rescaled(rescaled(deep, np.float32), np.uint16), deep)


def test_premultiplied_colour_comes_back() -> None:
    colour, alpha = RNG.random((5, 6, 3), np.float32), RNG.random((5, 6), np.float32)
    alpha[0] = 0
    result = unpremultiply(premultiply(colour, alpha), alpha)
    assert np.allclose(result[1:], colour[1:], atol=1e-6)
    assert not result[0].any()


def test_a_picture_checks_its_shapes() -> None:
    with pytest.raises(TypeError, match="pixels must have shape"):
        Picture(GREY)
    with pytest.raises(TypeError, match="alpha must have shape"):
        Picture(RGB, GREY[1:])
    with pytest.raises(TypeError, match="pixels must be"):
        Picture(RGB.astype(np.float64))
