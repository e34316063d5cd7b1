from __future__ import annotations

import json
from pathlib import Path

import pytest

from velatura import manifest, storage
from velatura.errors import InputError, MachineError
from velatura.manifest import Manifest, Notes

HEADER = {"manifest": 1, "params": {"strength": 1}}


def line(name: str, *, status: str = "done", size: int = 3, print_: str = "a") -> dict:
    return {"name": name, "output": name, "status": status, "bytes": size, "inputs": {"image": {"etag": print_}}}


@pytest.fixture(params=["folder", "store"])
def out(request, tmp_path: Path) -> str:
    """The same promises hold for both."""
    if request.param == "store":
        pytest.importorskip("fsspec")
        return f"memory://{tmp_path.name}"
    (tmp_path / "out").mkdir()
    return str(tmp_path / "out")


def outputs(out: str) -> list[str]:
    return [found["output"] for found in manifest.lines(out) if "output" in found]


def test_many_writers_are_merged_on_reading(out: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(manifest, "SEGMENT", 2)
    begun = Manifest.begin(out, HEADER)
    writers = [Notes(out, begun.run) for _ in range(3)]
    for number in range(4):
        for index, writer in enumerate(writers):
            writer.append(line(f"{number}-{index}"))
    assert sorted(outputs(out)) == sorted(f"{number}-{index}" for number in range(4) for index in range(3))
    assert manifest.begun_with(out) == HEADER
    assert manifest.finished(out, begun.run, "2-1") == line("2-1")
    assert manifest.finished(out, begun.run, "9-9") is None
    assert manifest.finished(out, "000007", "2-1") is None
    begun.close()
    assert len(outputs(out)) == 12


def test_later_runs_count_more(out: str):
    first = Manifest.begin(out, HEADER)
    Notes(out, first.run).append(line("a"))
    # Nobody closes it: the driver was killed.
    second = Manifest.resume(out, HEADER)
    assert second.run > first.run
    assert second.size_of("a", line("a")["inputs"]) == 3
    Notes(out, second.run).append(line("a", size=5, print_="b"))
    third = Manifest.resume(out, HEADER)
    assert third.size_of("a", line("a")["inputs"]) is None
    assert third.size_of("a", line("a", print_="b")["inputs"]) == 5
    Notes(out, third.run).append(line("a", status="failed"))
    fourth = Manifest.begin(out, HEADER) if not outputs(out) else Manifest.resume(out, HEADER)
    assert fourth.size_of("a", line("a")["inputs"]) is None


def test_other_options_are_refused_and_nothing_done_is_nothing_mixed(out: str):
    begun = Manifest.begin(out, HEADER)
    begun.append(line("a", status="failed"))
    again = Manifest.resume(out, {**HEADER, "params": {"strength": 2}})
    again.append(line("a"))
    with pytest.raises(InputError, match="begun with strength 2, now it is 1"):
        Manifest.resume(out, HEADER)


def test_a_folder_ends_with_one_file(tmp_path: Path):
    out = str(tmp_path)
    begun = Manifest.begin(out, HEADER)
    Notes(out, begun.run).append(line("a"))
    begun.append(line("b", status="failed"))
    assert (tmp_path / manifest.PARTS).is_dir()
    begun.close()
    assert [path.name for path in tmp_path.iterdir()] == [manifest.MANIFEST]
    assert len((tmp_path / manifest.MANIFEST).read_text().splitlines()) == 3


def test_torn_lines_are_left_out(tmp_path: Path):
    out = str(tmp_path)
    begun = Manifest.begin(out, HEADER)
    Notes(out, begun.run).append(line("a"))
    (part,) = (tmp_path / manifest.PARTS).iterdir()
    with part.open("ab") as file:
        file.write(b"\x00\xff{\n" + json.dumps(line("b")).encode()[:-4])
    assert outputs(out) == ["a"]
    with (tmp_path / manifest.MANIFEST).open("ab") as file:
        file.write(b'{"output": "torn')
    Manifest.resume(out, HEADER).close()
    assert (tmp_path / manifest.MANIFEST).read_bytes().endswith(b"\n")
    assert outputs(out) == ["a"]


def test_a_full_disk_spoils_no_later_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notes = Notes(str(tmp_path), "000001")
    notes.append(line("a"))
    assert notes._file is not None
    notes._file.write(b'{"output": "half')
    notes._torn = True
    notes.append(line("b"))
    assert outputs(str(tmp_path)) == ["a", "b"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest.os, "fsync", full)
    with pytest.raises(MachineError, match="No space left on device; free some space, then --resume"):
        notes.append(line("c"))


def test_a_store_gets_few_objects(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    monkeypatch.setattr(manifest, "SEGMENT", 3)
    notes = Notes("memory://few", "000001")
    for number in range(7):
        notes.append(line(str(number)))
    assert len(list(storage.files("memory://few"))) == 3
    assert outputs("memory://few") == [str(number) for number in range(7)]
