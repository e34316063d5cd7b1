"""Images going out: whole or not at all, never onto an input, and read back by independent readers."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage.io
import tifffile
from PIL import Image

from velatura.errors import InputError, MachineError
from velatura.image import ImageWarning, RowWriter, check_output, open_image, save_image
from velatura.image.encode import _FORMATS

RNG = np.random.default_rng(4)
RGB = RNG.integers(0, 256, (30, 20, 3), np.uint8)
RGBA = RNG.integers(0, 256, (30, 20, 4), np.uint8)
DEEP = RNG.integers(0, 65536, (30, 20, 4), np.uint16)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- pixels, by independent readers ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png_is_what_libpng_and_pillow_read(dtype: type, samples: int, tmp_path: Path) -> None:
    # Smooth parts, noise and flat parts, so that every filter is chosen somewhere; more than one band.
    height, width = 1500, 401
    ramp = np.add.outer(np.arange(height) * 7, np.arange(width) * 3)[..., None] * np.arange(1, samples + 1)
    array = ramp.astype(dtype)
    array[500:900] = RNG.integers(0, np.iinfo(dtype).max, (400, width, samples)).astype(dtype)
    array[900:1100] = 7
    path = save_image(array, tmp_path / "a.png")
    assert np.array_equal(imagecodecs.png_decode(path.read_bytes()), array.squeeze())
    with Image.open(path) as image:
        image.verify()
    if dtype == np.uint8:
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), array.squeeze())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_tiff_is_what_tifffile_and_skimage_read(dtype: type, samples: int, tmp_path: Path) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max, (900, 311, samples)).astype(dtype)
    path = save_image(array, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert np.array_equal(page.asarray(), array.squeeze())
        assert len(page.dataoffsets) > 1
        assert page.compression == 8
        assert tuple(page.extrasamples) == ((2,) if samples in (2, 4) else ())
    assert np.array_equal(skimage.io.imread(path), array.squeeze())
    if dtype == np.uint8:
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), array.squeeze())


def test_a_tiff_that_could_outgrow_4_gib_is_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velatura.image.tiff._CLASSIC_LIMIT", 1000)
    exif = Image.Exif()
    exif[271] = "A maker with a long name"
    picture = open_image(DEEP).replace(exif=exif.tobytes()[6:])
    path = save_image(picture, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert np.array_equal(tiff.pages[0].asarray(), DEEP)
        assert tiff.pages[0].tags["Make"].value == "A maker with a long name"
    assert open_image(path).exif == picture.exif


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_lossy_formats_are_close_at_their_default_quality(suffix: str, tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(64) * 2, np.arange(64))
    smooth = np.dstack((ramp, ramp[::-1], np.full_like(ramp, 90))).astype(np.uint8)
    path = save_image(smooth, tmp_path / f"a.{suffix}")
    error = np.abs(open_image(path).pixels.astype(int) - smooth)
    assert error.mean() < 1.5
    assert save_image(smooth, tmp_path / f"b.{suffix}", quality=20).stat().st_size < path.stat().st_size


def test_jpeg_keeps_its_chroma(tmp_path: Path) -> None:
    path = save_image(RGB, tmp_path / "a.jpg")
    with Image.open(path) as image:
        assert image.layer[0][1:3] == (1, 1)  # pyright: ignore[reportAttributeAccessIssue]


def test_webp_of_quality_100_is_lossless(tmp_path: Path) -> None:
    with Image.open(save_image(RGBA, tmp_path / "a.webp", quality=100)) as image:
        assert np.array_equal(np.asarray(image), RGBA)


def test_floats_are_written_with_16_bits_where_possible(tmp_path: Path) -> None:
    values = RNG.random((6, 5, 3), np.float32)
    assert np.array_equal(
        imagecodecs.png_decode(save_image(values, tmp_path / "a.png").read_bytes()),
        np.round(values * 65535.0).astype(np.uint16),
    )
    with Image.open(save_image(values, tmp_path / "a.bmp")) as image:
        assert np.array_equal(np.asarray(image), np.round(values * 255).astype(np.uint8))


# --- what a format cannot hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "suffix", "words"),
    [
        (DEEP[..., :3], "jpg", ["16 bits"]),
        (RGBA, "jpg", ["transparency"]),
        (DEEP, "jpg", ["16 bits", "transparency"]),
        (DEEP, "webp", ["16 bits"]),
        (DEEP, "bmp", ["16 bits", "transparency"]),
        (RGB, "gif", ["256 colours"]),
    ],
)
def test_one_warning_says_all_that_is_lost(array: np.ndarray, suffix: str, words: list[str], tmp_path: Path) -> None:
    with pytest.warns(ImageWarning) as record:
        save_image(array, tmp_path / f"a.{suffix}")
    assert len(record) == 1
    assert record[0].filename == __file__
    for word in words:
        assert word in str(record[0].message)


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_alpha_is_flattened_on_white(suffix: str, tmp_path: Path) -> None:
    with pytest.warns(ImageWarning, match="white"):
        path = save_image(np.tile(np.uint8([[[10, 20, 30, 0]]]), (8, 8, 1)), tmp_path / f"a.{suffix}")
    assert open_image(path).pixels.min() == 255
    with pytest.warns(ImageWarning, match="white"):
        path = save_image(RGBA, tmp_path / "b.bmp")
    white = Image.new("RGBA", (20, 30), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(RGBA)).convert("RGB"))
    assert np.abs(open_image(path).pixels.astype(int) - expected).max() <= 1


def test_alpha_that_hides_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    opaque = np.dstack((RGB, np.full((30, 20), 255, np.uint8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(opaque, tmp_path / "a.jpg")
        save_image(RGB[..., 0], tmp_path / "a.webp")
        save_image(RGB, tmp_path / "a.bmp")


def test_metadata_too_large_for_jpeg_is_left_out(tmp_path: Path) -> None:
    xmp = b"<a>" + b"x" * 70_000 + b"</a>"
    with pytest.warns(ImageWarning, match="XMP of more than 64 KB"):
        save_image(open_image(RGB).replace(xmp=xmp), tmp_path / "a.jpg")
    assert open_image(save_image(open_image(RGB).replace(xmp=xmp), tmp_path / "a.png")).xmp == xmp


# --- refused before the work -----------------------------------------------------------------------------------


def test_suffixes(tmp_path: Path) -> None:
    for name in ("a.JPG", "a.Jpeg", "a.PNG", "a.TIF", "a.tiff", "a.WebP", "a.bmp", "a.gif", "a.avif"):
        assert check_output(tmp_path / name) == tmp_path / name
    for name in ("a.heic", "a.txt", "a", "a.", ".png"):
        with pytest.raises(InputError, match=r"\.jpg, \.jpeg.*\.avif"):
            check_output(tmp_path / name)
    assert check_output(tmp_path / "a", format="PNG")
    assert check_output(tmp_path / "a.txt", format="jpg")
    with pytest.raises(InputError, match="format 'heic'"):
        check_output(tmp_path / "a.png", format="heic")


def test_the_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; make it first"):
        check_output(tmp_path / "none" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path / "folder.png", overwrite=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError):
        check_output(tmp_path / "file" / "a.png")
    with pytest.raises(InputError):
        check_output(tmp_path / ("x" * 300 + ".png"), overwrite=True)
    with pytest.raises(InputError):
        check_output("a\0.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(InputError, match="regular"):
            check_output(tmp_path / "pipe.png", overwrite=True)


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="--overwrite"):
        save_image(RGB, path)
    assert path.read_bytes() == b"precious"
    save_image(RGB, path, overwrite=True)
    assert np.array_equal(open_image(path).pixels, RGB)
    assert leftovers(tmp_path) == ["a.png"]


def test_an_input_is_never_written_onto(tmp_path: Path) -> None:
    source = save_image(RGB, tmp_path / "a.png")
    (tmp_path / "soft.png").symlink_to(source)
    os.link(source, tmp_path / "hard.png")
    for output in (source, tmp_path / "soft.png", tmp_path / "hard.png", tmp_path / "." / "a.png"):
        with pytest.raises(InputError, match="is an input"):
            check_output(output, inputs=[RGB, None, str(source)], overwrite=True)
    with Image.open(source) as image, pytest.raises(InputError, match="is an input"):
        check_output(source, inputs=[image], overwrite=True)
    assert check_output(tmp_path / "b.png", inputs=[source, tmp_path / "none.png"])


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    save_image(RGBA, tmp_path / "target" / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "target" / "a.png")
    save_image(RGB, tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert np.array_equal(open_image(tmp_path / "target" / "a.png").pixels, RGB)


@pytest.mark.parametrize(
    ("suffix", "width"), [("jpg", 65_501), ("webp", 16_384), ("gif", 65_536), ("avif", 32_769), ("png", 1 << 31)]
)
def test_too_large_for_the_format(suffix: str, width: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save it as TIFF or PNG"):
        check_output(tmp_path / f"a.{suffix}", height=1, width=width)
    assert check_output(tmp_path / f"a.{suffix}", height=1, width=width - 1)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
def test_the_largest_side_can_really_be_written(suffix: str, tmp_path: Path) -> None:
    side = _FORMATS[{"jpg": "jpeg"}.get(suffix, suffix)].max_side
    path = save_image(np.zeros((1, side), np.uint8), tmp_path / f"a.{suffix}")
    assert open_image(path).width == side


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system that holds no files")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(InputError, match=r"/proc/x\.png: (cannot be written|no permission)"):
        check_output("/proc/x.png", height=4, width=4)


def test_a_disk_that_does_not_tell_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 0, "free": 0})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert save_image(np.zeros((50, 50, 3), np.uint8), tmp_path / "a.bmp").exists()


def test_too_large_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 20_000_000, "free": 10_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MachineError, match="the disk has 10 MB left") as error:
        check_output(tmp_path / "a.bmp", height=5000, width=5000)
    assert error.value.exit_code == 1
    assert check_output(tmp_path / "a.png", height=5000, width=5000)
    with pytest.raises(MachineError):
        check_output(tmp_path / "a.tif", height=50_000, width=50_000, bits=16)


# --- whole or not at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing(suffix: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="not written") as error:
        save_image(RGB, tmp_path / f"a.{suffix}")
    assert error.value.exit_code == 1
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_disk_that_fills_up_while_writing(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def open_full(path: object, flags: int, mode: int = 0o777) -> int:
        real_descriptor = real(path, flags, mode)  # pyright: ignore[reportArgumentType]
        if str(path).endswith(".tmp"):
            os.close(real_descriptor)
            return real("/dev/full", os.O_RDWR)
        return real_descriptor

    monkeypatch.setattr(os, "open", open_full)
    noise = RNG.integers(0, 256, (600, 700, 3), np.uint8)
    with pytest.raises(MachineError, match="make room"):
        save_image(noise, tmp_path / f"a.{suffix}")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_an_interrupted_writer_leaves_nothing(error: type[BaseException], suffix: str, tmp_path: Path) -> None:
    def work() -> None:
        with RowWriter(tmp_path / f"a.{suffix}", None, 30, 20, 3) as writer:
            writer.write(RGB[:10])
            assert len(leftovers(tmp_path)) == 1
            raise error

    with pytest.raises(error):
        work()
    assert leftovers(tmp_path) == []


def test_a_signal_between_the_file_and_its_block_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    """The handler of a signal runs between two steps of Python: here after the file was made, before it has a name."""

    def interrupted(*_: object, **__: object) -> None:
        assert len(leftovers(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdopen", interrupted)
    caught = False
    try:
        save_image(RGB, tmp_path / "a.png")
    except KeyboardInterrupt:
        caught = True
    gc.collect()
    assert caught
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_missing_rows_leave_nothing(suffix: str, tmp_path: Path) -> None:
    def work() -> None:
        with RowWriter(tmp_path / f"a.{suffix}", None, 30, 20, 3) as writer:
            writer.write(RGB[:29])

    with pytest.raises(RuntimeError, match="29 rows"):
        work()
    assert leftovers(tmp_path) == []


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"

    def work() -> None:
        with RowWriter(path, None, 30, 20, 3) as writer:
            writer.write(RGB)
            path.write_bytes(b"somebody else's")

    with pytest.raises(InputError, match="in the meantime"):
        work()
    assert path.read_bytes() == b"somebody else's"
    assert leftovers(tmp_path) == ["a.png"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", fail)
    assert np.array_equal(open_image(save_image(RGB, tmp_path / "a.png")).pixels, RGB)
    assert leftovers(tmp_path) == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_image(RGB, tmp_path / "a.png")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    assert save_image(RGB, path, overwrite=True).stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="permission"):
            save_image(RGB, tmp_path / "a.png")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["x" * 240 + ".png", "söme ünïcode 画像.png", "%s%n.png", "a b'\".png", "-o.png"])
def test_odd_names(name: str, tmp_path: Path) -> None:
    assert np.array_equal(open_image(save_image(RGB, tmp_path / name)).pixels, RGB)
    assert leftovers(tmp_path) == [name]


# --- band by band ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("step", [1, 7, 30])
def test_bands_give_the_same_bytes_as_the_whole(suffix: str, alpha: bool, step: int, tmp_path: Path) -> None:
    array = RGBA if alpha else RGB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        whole = save_image(array, tmp_path / f"whole.{suffix}", quality=100)
        path = tmp_path / f"bands.{suffix}"
        with RowWriter(path, None, 30, 20, 3, np.uint8, alpha, quality=100) as writer:
            band = np.empty((step, *array.shape[1:]), np.uint8)
            for top in range(0, 30, step):
                rows = array[top : top + step]
                band[: len(rows)] = rows
                writer.write(band[: len(rows)])
                band[...] = 0  # the caller may reuse its band at once
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bands_of_a_larger_image_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    # The memory budget decides how high bands are: it must not decide the bytes.
    array = np.cumsum(RNG.integers(0, 5, (1200, 700, 3)), axis=1).astype(np.uint8)
    whole = save_image(array, tmp_path / f"whole.{suffix}").read_bytes()
    for step in (37, 512):
        path = tmp_path / f"{step}.{suffix}"
        with RowWriter(path, None, 1200, 700, 3) as writer:
            for top in range(0, 1200, step):
                writer.write(array[top : top + step])
        assert path.read_bytes() == whole


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="rows must be"), RowWriter(tmp_path / "a.png", None, 30, 20, 3) as writer:
        writer.write(RGBA)
    with pytest.raises(TypeError, match="60 rows"), RowWriter(tmp_path / "a.png", None, 30, 20, 3) as writer:
        writer.write(np.concatenate((RGB, RGB)))
    with pytest.raises(InputError, match="quality 101"):
        save_image(RGB, tmp_path / "a.jpg", quality=101)
    assert leftovers(tmp_path) == []


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("png", "tif", "jpg", "webp", "avif"):
        first = save_image(RGB, tmp_path / f"a.{suffix}", made_by="test")
        second = save_image(RGB, tmp_path / f"b.{suffix}", made_by="test")
        assert first.read_bytes() == second.read_bytes()
