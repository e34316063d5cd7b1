"""What every task does: options, inputs, files; with a small task of the tests' own."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from filters import Invert, InvertParams, Traced
from PIL import Image

from velatura.errors import Cancelled, InputError
from velatura.image import open_image
from velatura.schema import default, expected, json_schema, options_table, params_table
from velatura.task import SaveOptions, parse_params


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (13, 9, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def task() -> Invert:
    return Invert.from_pretrained()


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strenght": 1}, "unknown option 'strenght'; did you mean 'strength'?"),
        ({"zzz": 1}, "unknown option 'zzz'; known: strength, shift, tone, keep_sign, red, pause"),
        ({"strength": 2}, "option 'strength': got 2; input should be less than or equal to 1"),
        ({"shift": (1, "x")}, "option 'shift': got 'x'; input should be a valid integer, unable to parse"),
        ({"tone": "cold"}, "option 'tone': got 'cold'; input should be 'plain' or 'warm'"),
    ],
)
def test_bad_options_are_one_line(values, message: str):
    with pytest.raises(InputError) as refused:
        parse_params(InvertParams, values)
    assert str(refused.value).startswith(message)


def test_schema_names_inputs_and_options():
    schema = json_schema(Invert)
    assert (schema["name"], schema["help"]) == ("invert", "Turn a picture into its negative.")
    assert [(one["name"], one["required"], one["leading"]) for one in schema["inputs"]] == [
        ("image", True, True),
        ("mask", False, False),
    ]
    strength = schema["params"]["properties"]["strength"]
    assert (strength["minimum"], strength["maximum"], strength["default"]) == (0, 1, 1)
    assert schema["params"]["properties"]["shift"]["unit"] == "px"


def test_table_is_what_the_params_declare():
    lines = options_table(Invert).splitlines()
    assert options_table(Invert) == params_table(InvertParams)
    assert lines[:2] == ["| Option | Default | Values | Meaning |", "|---|---|---|---|"]
    assert lines[2] == "| `--strength` | `1` | 0 to 1 | how much of it |"
    assert lines[3] == "| `--shift` | `0,0` | px | X,Y to roll the result by |"
    assert lines[4] == r"| `--tone` | `plain` | plain \| warm | colour of the result |"
    assert lines[5] == "| `--keep-sign` | `off` |  | give the picture back as it came |"
    assert len(lines) == 2 + len(InvertParams.model_fields)
    assert all(default(field) for field in InvertParams.model_fields.values())
    assert expected(InvertParams.model_fields["pause"]) == "at least 0 s"


def test_maps_are_files_in_the_table():
    *options, last = options_table(Traced).splitlines()
    assert options == params_table(InvertParams).splitlines()
    assert last == "| `--change` |  | a file | how much was changed where |"


# --- work ------------------------------------------------------------------------------------------------------------


def test_file_to_file_and_memory_give_the_same(task: Invert, photo: Path):
    out = task.to_file(photo, out=photo.with_name("out.png"), strength=0.5)
    in_memory = task.run((photo, None), {"strength": 0.5})
    assert isinstance(in_memory.image, Image.Image)
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(in_memory.image))
    assert in_memory.params == InvertParams(strength=0.5)
    again = in_memory.save(photo.with_name("again.png"))
    assert again.read_bytes() == out.read_bytes()


def test_the_kind_that_came_in_comes_out_and_is_not_modified(task: Invert, photo: Path):
    array = np.asarray(Image.open(photo)).copy()
    before = array.copy()
    result = task.run((array, None), {}).image
    assert isinstance(result, np.ndarray)
    assert np.array_equal(result, 255 - before)
    assert np.array_equal(array, before)


def test_refused_before_the_inputs_are_read(task: Invert, photo: Path):
    taken = photo.with_name("taken.png")
    taken.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        task.to_file(photo.with_name("nothing.png"), out=taken)
    assert taken.read_text() == "mine"
    task.to_file(photo, out=taken, save=SaveOptions(overwrite=True))
    assert taken.read_bytes()[:4] == b"\x89PNG"


class Place:
    """A path that is neither a string nor a `Path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("opened", [str, Place, Image.open, open_image])
def test_input_is_never_replaced(task: Invert, photo: Path, opened, monkeypatch: pytest.MonkeyPatch):
    before = photo.read_bytes()
    monkeypatch.chdir(photo.parent)
    image = opened(photo.relative_to(photo.parent))
    with pytest.raises(InputError, match="is an input of this work"):
        task.to_file(image, out=photo, save=SaveOptions(overwrite=True))
    result = task.run((image, None), {})
    monkeypatch.chdir("/")
    with pytest.raises(InputError, match="is an input of this work"):
        result.save(photo, overwrite=True)
    assert photo.read_bytes() == before


def test_result_may_replace_another_file(task: Invert, photo: Path):
    other = photo.with_name("other.png")
    other.write_text("old")
    result = task.run((photo, None), {})
    assert result.inputs == (photo,)
    assert result.save(other, overwrite=True).read_bytes()[:4] == b"\x89PNG"


def test_files_over_the_limit_are_refused_unread(task: Invert, photo: Path):
    huge = photo.with_name("huge.png")
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    huge.write_bytes(head + struct.pack(">I", zlib.crc32(head[12:])))
    with pytest.raises(InputError, match=r"declares 20000 x 20000 = 400 megapixels; the limit is 100"):
        task.run((huge, None), {})
    with pytest.raises(InputError, match="the limit is 100"):
        task.to_file(huge, out=photo.with_name("out.png"))
    task.max_megapixels = 1e-4
    for work in (lambda one: task.run((one, None), {}), lambda one: task.to_file(one, out=photo.with_name("out.png"))):
        with pytest.raises(InputError, match=r"declares 9 x 13 .* the limit is 0\.0001"):
            work(photo)
    assert task.to_file(photo, out=photo.with_name("out.png"), max_megapixels=1).exists()
    assert task.run((np.asarray(Image.open(photo)), None), {}).picture.width == 9  # decoded already: no limit


def test_no_device_is_said_before_the_inputs_are_read(photo: Path):
    task, damaged = Invert.from_pretrained(device="cuda:99"), photo.with_name("damaged.png")
    damaged.write_bytes(photo.read_bytes()[:50])
    with pytest.raises(InputError, match="cuda"):
        task.run((damaged, None), {})
    with pytest.raises(InputError, match="cuda"):
        task.to_file(damaged, out=photo.with_name("out.png"))


def test_slips_in_names_are_said_before_anything_is_loaded(photo: Path):
    task, out = Traced.from_pretrained(device="cuda:99"), photo.with_name("out.png")
    with pytest.raises(InputError, match=r"nothing\.png: no such file; check the name"):
        task.to_file("nothing.png", out=out)
    with pytest.raises(InputError, match=r"nothing\.png: no such file; check the name"):
        task.to_file(photo, Path("nothing.png"), out=out)
    with pytest.raises(InputError, match="nowhere"):
        task.to_file(photo, out=photo.parent / "nowhere" / "out.png")
    with pytest.raises(InputError, match="nowhere"):
        task.to_file(photo, out=out, maps={"change": photo.parent / "nowhere" / "map.png"})
    with pytest.raises(InputError, match="cuda"):
        task.to_file(photo, out=out)


def test_hook_sees_the_progress_and_stops_the_work(task: Invert, photo: Path):
    steps = []

    def hook(done: int, total: int, stage: str) -> None:
        steps.append((done, total, stage))
        if done:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        task.to_file(photo, out=photo.with_name("out.png"), progress=hook)
    assert steps == [(0, 13, "invert"), (4, 13, "invert")]
    assert list(photo.parent.iterdir()) == [photo]


def test_write_gives_what_was_written(task: Invert, photo: Path):
    bands = task.write((photo,), photo.with_name("out.png"), InvertParams())
    assert (bands.height, bands.width, bands.made_by) == (13, 9, None)


# --- pictures beside the result --------------------------------------------------------------------------------------


@pytest.fixture
def traced() -> Traced:
    return Traced.from_pretrained()


def test_maps_are_made_when_asked_for(traced: Traced, photo: Path):
    before = np.asarray(Image.open(photo)).astype(int)
    assert traced.run((photo, None), {}).maps == {}
    result = traced.run((photo, None), {"change": True})
    assert list(result.maps) == ["change"]
    assert np.array_equal(result.maps["change"].pixels[..., 0], np.abs(255 - 2 * before).max(2))


def test_naming_a_file_asks_for_its_map(traced: Traced, photo: Path):
    out, beside = photo.with_name("out.png"), photo.with_name("change.tif")
    traced.to_file(photo, out=out, maps={"change": beside}, strength=0.5)
    result = traced.run((photo, None), {"change": True, "strength": 0.5})
    assert np.array_equal(np.asarray(Image.open(beside)), result.maps["change"].pixels[..., 0])
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(result.image))


@pytest.mark.parametrize("name", ["photo.png", "out.png", "taken.png", "no-folder/map.png", "map.xyz"])
def test_files_of_maps_are_checked_before_the_work(traced: Traced, photo: Path, name: str):
    taken = photo.with_name("taken.png")
    taken.write_text("mine")
    before = sorted(photo.parent.iterdir())
    with pytest.raises(InputError):
        traced.to_file(photo, out=photo.with_name("out.png"), maps={"change": photo.parent / name})
    assert sorted(photo.parent.iterdir()) == before
    assert taken.read_text() == "mine"


def test_maps_that_no_format_holds_are_refused_before_the_work(traced: Traced, tmp_path: Path):
    wide = np.zeros((1, 16400, 3), np.uint8)
    with pytest.raises(InputError, match="too many for WEBP"):
        traced.to_file(wide, out=tmp_path / "out.png", maps={"change": tmp_path / "map.webp"})
    with pytest.raises(InputError, match="the result and its change; name two files"):
        traced.to_file(wide, out=tmp_path / "out.png", maps={"change": tmp_path / "out.png"})
    assert not list(tmp_path.iterdir())


def test_maps_follow_the_options_of_saving_but_for_the_format(traced: Traced, photo: Path):
    out, beside = photo.with_name("out"), photo.with_name("change.png")
    beside.write_text("old")
    traced.to_file(photo, out=out, maps={"change": beside}, save=SaveOptions(format="jpeg", overwrite=True))
    assert Image.open(out).format == "JPEG"
    assert Image.open(beside).format == "PNG"


def test_a_map_that_no_task_gives_is_an_unknown_option(task: Invert, photo: Path):
    with pytest.raises(InputError, match="unknown option 'change'"):
        task.to_file(photo, out=photo.with_name("out.png"), maps={"change": photo.with_name("change.png")})
