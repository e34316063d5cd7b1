"""EXIF, XMP and ICC on their way through: what is kept, what is reset, what must not survive."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from velatura.image import ImageWarning, open_image, save_image, to_form
from velatura.image.metadata import clean_exif, clean_xmp, read_exif, resize_exif, state_origin

RNG = np.random.default_rng(2)
RGB = RNG.integers(0, 256, (12, 16, 3), np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="uuid:7" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/" tiff:Orientation="6" xmp:CreatorTool="Camera 1">'
    "<dc:rights><rdf:Alt><rdf:li xml:lang='x-default'>© Ana &amp; Co</rdf:li></rdf:Alt></dc:rights>"
    "<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType='Resource'><xmpGImg:image>U0VDUkVU</xmpGImg:image></rdf:li>"
    "</rdf:Alt></xmp:Thumbnails>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


def exif_with_thumbnail(order: str = "<", orientation: int = 6) -> tuple[bytes, bytes]:
    """Make an EXIF stream by hand: IFD0 with an EXIF directory below, IFD1 with a JPEG thumbnail."""
    thumbnail = b"\xff\xd8THUMBNAIL-SHOWS-THE-FACE\xff\xd9"

    def slot(tag: int, kind: int, count: int, value: int | bytes) -> bytes:
        packed = value if isinstance(value, bytes) else struct.pack(order + ("H" if kind == 3 else "I"), value)
        return struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")

    ifd0, exif_ifd, maker, note, ifd1 = 8, 8 + 2 + 36 + 4, 120, 140, 160
    data = bytearray(220)
    data[:8] = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", ifd0)
    table = slot(271, 2, 11, maker) + slot(274, 3, 1, orientation) + slot(34665, 4, 1, exif_ifd)
    data[ifd0:exif_ifd] = struct.pack(order + "H", 3) + table + struct.pack(order + "I", ifd1)
    below = slot(0x927C, 7, 16, note) + slot(0xA002, 4, 1, 16) + slot(0xA003, 4, 1, 12)
    data[exif_ifd : exif_ifd + 42] = struct.pack(order + "H", 3) + below + bytes(4)
    data[maker : maker + 12] = b"Velacamera\0\0"
    data[note : note + 16] = b"PRIVATE NOTES 16"
    table = slot(513, 4, 1, 200) + slot(514, 4, 1, len(thumbnail))
    data[ifd1 : ifd1 + 30] = struct.pack(order + "H", 2) + table + bytes(4)
    return bytes(data[:200]) + thumbnail, thumbnail


# --- EXIF ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_edited_in_place(order: str) -> None:
    exif, thumbnail = exif_with_thumbnail(order)
    before = Image.Exif()
    before.load(exif)
    assert before[274] == 6
    assert before.get_ifd(ExifTags.IFD.IFD1)[513] == 200  # the stream made here is sound
    cleaned = clean_exif(b"Exif\0\0" + exif)
    assert cleaned is not None
    tags = Image.Exif()
    tags.load(cleaned)
    assert tags[274] == 1
    assert tags[271] == "Velacamera"
    assert not tags.get_ifd(ExifTags.IFD.IFD1)
    assert tags.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"PRIVATE NOTES 16"
    assert thumbnail[2:-2] not in cleaned
    # Offsets inside makers' notes hold only as long as nothing moves.
    assert cleaned.index(b"PRIVATE NOTES 16") == exif.index(b"PRIVATE NOTES 16")


def test_exif_that_pillow_cannot_rewrite_does_not_stop_avif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Exif, offset: int = 8) -> bytes:
        raise struct.error("odd tag")

    exif = clean_exif(exif_with_thumbnail()[0])
    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    with pytest.warns(ImageWarning, match="damaged EXIF"):
        save_image(open_image(RGB).replace(exif=exif), tmp_path / "a.avif")


def test_damaged_exif_is_dropped_and_never_raises() -> None:
    exif, thumbnail = exif_with_thumbnail()
    assert clean_exif(b"") is None
    assert clean_exif(b"Exif\0\0nonsense") is None
    for size in range(len(exif)):
        clean_exif(exif[:size])
    for _ in range(2000):
        data = bytearray(exif)
        for _ in range(3):
            data[int(RNG.integers(len(data)))] = int(RNG.integers(256))
        cleaned = clean_exif(bytes(data))
        if cleaned is not None:
            read_exif(cleaned)
            resize_exif(cleaned, 1, 1)
    assert thumbnail


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_exif_goes_from_file_to_file(suffix: str, tmp_path: Path) -> None:
    exif, thumbnail = exif_with_thumbnail()
    Image.fromarray(RGB).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif)
    path = save_image(open_image(tmp_path / "in.jpg"), tmp_path / f"out.{suffix}")
    assert thumbnail[2:-2] not in path.read_bytes()
    with Image.open(path) as image:
        tags = image.getexif()
        assert tags.get(274, 1) == 1
        assert tags[271] == "Velacamera"
        below = tags.get_ifd(ExifTags.IFD.Exif)
        assert below[0x927C] == b"PRIVATE NOTES 16"
        # The picture was turned: so is the size that EXIF states.
        assert (below[0xA002], below[0xA003]) == image.size == (12, 16)
    again = open_image(path)
    assert again.exif is not None
    directory = read_exif(again.exif)
    assert directory is not None
    assert directory.entries[271].value.rstrip(b"\0") == b"Velacamera"


def test_exif_of_a_tiff_with_its_directories(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.load(exif_with_thumbnail(orientation=1)[0])
    Image.fromarray(RGB).save(tmp_path / "in.tif", exif=exif, icc_profile=SRGB)
    with Image.open(tmp_path / "in.tif") as image:
        from_pil = open_image(image)
    for picture in (open_image(tmp_path / "in.tif"), from_pil):
        for out in ("out.tif", "out.jpg", "out.png"):
            path = save_image(picture, tmp_path / out, overwrite=True)
            with Image.open(path) as image:
                tags = image.getexif()
                assert tags[271] == "Velacamera"
                assert tags.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"PRIVATE NOTES 16"
                assert image.info["icc_profile"] == SRGB
                assert image.size == (16, 12)


def test_big_endian_exif_makes_a_big_endian_tiff(tmp_path: Path) -> None:
    exif, _ = exif_with_thumbnail(">", orientation=1)
    picture = open_image(RGB.astype(np.uint16) * 257).replace(exif=exif)
    path = save_image(picture, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.byteorder == ">"
        assert tiff.pages[0].tags["Make"].value == "Velacamera"
        assert tiff.pages[0].tags["ExifTag"].value["MakerNote"] == b"PRIVATE NOTES 16"
        assert np.array_equal(tiff.pages[0].asarray(), picture.pixels)


def test_exif_of_imagemagick_in_png_text(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    exif, _ = exif_with_thumbnail(orientation=3)
    info = PngInfo()
    profile = b"Exif\0\0" + exif
    info.add_text("Raw profile type exif", f"\nexif\n{len(profile):8d}\n{profile.hex()}\n", zip=True)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    picture = open_image(tmp_path / "a.png")
    assert np.array_equal(picture.pixels, RGB[::-1, ::-1])
    assert picture.exif is not None


# --- XMP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_xmp_goes_from_file_to_file(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "in.jpg", xmp=XMP)
    picture = open_image(tmp_path / "in.jpg")
    assert (picture.width, picture.height) == (12, 16)  # XMP's orientation counts where EXIF has none
    path = save_image(picture, tmp_path / f"out.{suffix}")
    with Image.open(path) as image:
        xmp = image.info["xmp"]
    assert xmp == picture.xmp == clean_xmp(XMP)
    assert b"U0VDUkVU" not in path.read_bytes()
    assert open_image(path).width == 12


def test_xmp_keeps_its_other_content_to_the_letter() -> None:
    cleaned = clean_xmp(XMP)
    assert cleaned is not None
    start, stop = XMP.index(b"<xmp:Thumbnails"), XMP.index(b"</xmp:Thumbnails>") + len(b"</xmp:Thumbnails>")
    assert cleaned == (XMP[:start] + XMP[stop:]).replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"')


def test_xmp_elements_and_other_prefixes() -> None:
    xmp = XMP.replace(b"xmlns:tiff=", b"xmlns:t=").replace(b'tiff:Orientation="6"', b"")
    xmp = xmp.replace(b"<dc:rights>", b"<t:Orientation>8</t:Orientation><dc:rights>")
    xmp = xmp.replace(b"xmlns:xmp=", b"xmlns:xap=").replace(b"xmp:", b"xap:")
    cleaned = clean_xmp(xmp)
    assert cleaned is not None
    assert b"<t:Orientation>1</t:Orientation>" in cleaned
    assert b"U0VDUkVU" not in cleaned


def test_xmp_in_utf16_becomes_utf8() -> None:
    cleaned = clean_xmp(XMP.decode().encode("utf-16"))
    assert cleaned is not None
    assert "© Ana".encode() in cleaned


@pytest.mark.parametrize(
    "xmp",
    [
        b"",
        b"nonsense",
        XMP[:-40],
        b"\xff\xfe\xff",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        XMP.replace(b"&amp;", b"&"),
    ],
)
def test_unreadable_xmp_is_dropped(xmp: bytes) -> None:
    assert clean_xmp(xmp) is None


def _property(xmp: bytes, name: str) -> list[str]:
    """Read a property with an independent parser: attributes and elements of that name."""
    found = []
    for element in ElementTree.fromstring(xmp.decode()).iter():
        found += [element.text or ""] if element.tag == name else []
        found += [value for key, value in element.attrib.items() if key == name]
    return found


SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
TOOL = "{http://ns.adobe.com/xap/1.0/}CreatorTool"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


@pytest.mark.parametrize("before", [None, XMP, b"nonsense"])
def test_the_origin_is_stated_once(before: bytes | None) -> None:
    xmp = state_origin(state_origin(before, "first"), 'inpaint "a" <b> & c')
    assert _property(xmp, SOURCE_TYPE) == [COMPOSITE]
    assert _property(xmp, TOOL) == ['Velatura: inpaint "a" <b> & c']
    assert (b"Ana &amp; Co" in xmp) == (before == XMP)
    about = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}about"
    assert len(set(_property(xmp, about))) == 1
    assert clean_xmp(xmp) is not None


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_made_by_is_written(suffix: str, tmp_path: Path) -> None:
    path = save_image(open_image(RGB).replace(xmp=clean_xmp(XMP)), tmp_path / f"a.{suffix}", made_by="upscale srresnet")
    with Image.open(path) as image:
        xmp = image.info["xmp"]
    assert _property(xmp, SOURCE_TYPE) == [COMPOSITE]
    assert _property(xmp, TOOL) == ["Velatura: upscale srresnet"]
    plain = save_image(RGB, tmp_path / f"b.{suffix}")
    with Image.open(plain) as image:
        assert "xmp" not in image.info


# --- everything at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_lossless_formats_lose_nothing(suffix: str, dtype: type, samples: int, tmp_path: Path) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max + 1, (40, 30, samples)).astype(dtype)
    exif = clean_exif(exif_with_thumbnail()[0])
    assert exif is not None
    picture = open_image(array).replace(icc=SRGB if samples > 2 else None, exif=exif, xmp=clean_xmp(XMP))
    again = open_image(save_image(picture, tmp_path / f"a.{suffix}"))
    assert np.array_equal(again.pixels, picture.pixels)
    assert (again.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None:
        assert np.array_equal(again.alpha, picture.alpha)
    assert again.icc == picture.icc
    assert again.xmp == picture.xmp
    assert again.exif is not None
    first, second = read_exif(resize_exif(exif, 40, 30)), read_exif(again.exif)
    assert first is not None
    assert second is not None
    first.entries.pop(274, None), second.entries.pop(274, None)
    assert (first.entries, first.children) == (second.entries, second.children)


def test_a_profile_of_another_colour_model_is_not_written(tmp_path: Path) -> None:
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    path = save_image(open_image(RGB).replace(icc=bytes(grey)), tmp_path / "a.png")
    with Image.open(path) as image:
        assert "icc_profile" not in image.info
    path = save_image(open_image(RGB[..., 0]).replace(icc=bytes(grey)), tmp_path / "b.png")
    with Image.open(path) as image:
        assert image.info["icc_profile"] == bytes(grey)


def test_metadata_reaches_the_pil_image_that_goes_out(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif_with_thumbnail()[0], xmp=XMP)
    image = to_form(open_image(tmp_path / "in.jpg"))
    assert isinstance(image, Image.Image)
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=image.info["exif"])
    with Image.open(stream) as again:
        assert again.getexif()[271] == "Velacamera"
