from __future__ import annotations

from pathlib import Path

import pytest
from stores import new_bucket, s3_server

from velatura import storage
from velatura.errors import InputError, MachineError

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server():
    with s3_server():
        yield


@pytest.fixture
def bucket(server) -> str:
    return new_bucket()


# --- names -----------------------------------------------------------------------------------------------------------


def test_places(monkeypatch: pytest.MonkeyPatch):
    assert storage.place("a/b/../c/") == str(Path("a/b/../c"))
    assert storage.place("file:///tmp/a%20b/") == "/tmp/a b"
    assert storage.place("s3://bucket/a/") == "s3://bucket/a"
    assert storage.place("abfs://container@account/x") == "abfs://container@account/x"
    monkeypatch.setenv("VELATURA_OFFLINE", "1")
    with pytest.raises(InputError, match="the network is forbidden by VELATURA_OFFLINE"):
        storage.place("s3://bucket/a")
    assert storage.place("file:///tmp") == "/tmp"


@pytest.mark.parametrize(
    "url",
    [
        *("s3://name:hush@bucket/a", "s3://AKIA:hu/hush/sh@bucket/a", "ftp://name:hush@host/a"),
        *("https://host/a?X-Amz-Signature=hush", "simplecache::ftp://name:hush@host/a", "gs:///a"),
    ],
)
def test_urls_that_hold_secrets_or_nothing_are_refused(url: str):
    with pytest.raises(InputError, match=r"holds a secret|within another|names no bucket") as refused:
        storage.place(url)
    assert "hush" not in str(refused.value)


def test_a_port_is_no_password(monkeypatch: pytest.MonkeyPatch):
    assert storage.place("http://host:8080/you@home") == "http://host:8080/you@home"
    assert storage.place("s3://bucket/10:30/you@home") == "s3://bucket/10:30/you@home"


@pytest.mark.skipif(storage.fcntl is None, reason="the system has no fcntl")
def test_a_folder_is_held_by_one(tmp_path: Path):
    folder = tmp_path / "new" / "out"
    with storage.held(str(folder)):
        with pytest.raises(InputError, match="another batch works there"), storage.held(str(folder)):
            pass
        (folder / "a").touch()
    with storage.held(str(folder)):
        (folder / "a").unlink()
    with storage.held(str(tmp_path / "other")):
        pass
    assert not (tmp_path / "other").exists()  # what nobody wrote into does not stay
    assert folder.exists()
    (tmp_path / "file").touch()
    with storage.held(str(tmp_path / "file")), storage.held("s3://bucket/out"):
        pass


# --- finding ---------------------------------------------------------------------------------------------------------


def put(url: str, content: bytes = b"x") -> None:
    storage.write(url, content)


def test_listing_a_store_goes_page_by_page(bucket: str, monkeypatch: pytest.MonkeyPatch):
    names = ["a.png", "b/c.png", "b/d/e.png", "out/f.png", ".hidden/g.png", "b/.h.png", "outer.png"]
    for name in names:
        put(f"{bucket}/in/{name}")
    monkeypatch.setattr(storage, "PAGE", 2)
    listed = {file.path: file for file in storage.files(f"{bucket}/in", [f"{bucket}/in/out"])}
    assert sorted(listed) == ["a.png", "b/c.png", "b/d/e.png", "outer.png"]
    assert listed["a.png"].bytes == 1
    before = listed["a.png"].mark
    put(f"{bucket}/in/a.png", b"y")
    assert next(f for f in storage.files(f"{bucket}/in") if f.path == "a.png").mark != before
    assert storage.find(f"{bucket}/in/a.png") is not None


def test_kinds(bucket: str, tmp_path: Path):
    put(f"{bucket}/in/a.png")
    assert storage.kind_of(f"{bucket}/in") == "folder"
    assert storage.kind_of(f"{bucket}/in/a.png") == "file"
    assert storage.kind_of(f"{bucket}/nothing") is None
    assert storage.kind_of("s3://no-such-bucket-anywhere/a") is None
    assert storage.kind_of(str(tmp_path)) == "folder"
    assert storage.find(str(tmp_path / "nothing")) is None
    with pytest.raises(InputError, match="no such bucket, folder or object"):
        list(storage.files("s3://no-such-bucket-anywhere"))


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_outputs_appear_whole_or_not_at_all(bucket: str, kind: str):
    folder = bucket if kind == "s3" else "memory://whole"
    put(f"{folder}/in.txt", b"in")

    def broken_off() -> None:
        with storage.borrowed([f"{folder}/in.txt", None], [f"{folder}/o/a.txt"]) as loan:
            assert Path(loan.inputs[0] or "").read_bytes() == b"in"
            assert loan.in_words(f"{loan.inputs[0]} is bad") == f"{folder}/in.txt is bad"
            loan.outputs[0].write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert storage.kind_of(f"{folder}/o/a.txt") is None
    with storage.borrowed([f"{folder}/in.txt"], [f"{folder}/o/a.txt"]) as loan:
        loan.outputs[0].write_bytes(b"out")
        assert storage.read(f"{folder}/o/a.txt") is None
    assert storage.read(f"{folder}/o/a.txt") == b"out"
    assert [file.path for file in storage.files(f"{folder}/o")] == ["a.txt"]
    storage.remove(f"{folder}/o/a.txt")
    assert storage.read(f"{folder}/o/a.txt") is None


def test_what_is_broken_off_in_a_store_goes(monkeypatch: pytest.MonkeyPatch):
    system, _ = storage._store("memory://broken")

    def break_off(here: str, there: str) -> None:
        system.pipe_file(there, b"half")
        raise OSError(5, "the line is dead")

    def upload() -> None:
        with storage.borrowed([], ["memory://broken/a.txt"]) as loan:
            loan.outputs[0].write_bytes(b"whole")

    monkeypatch.setattr(system, "put_file", break_off)
    with pytest.raises(MachineError, match="the store does not answer"):
        upload()
    assert system.find("broken") == []


def test_files_here_keep_their_names(tmp_path: Path):
    with storage.borrowed([str(tmp_path / "a"), None], [str(tmp_path / "b")]) as loan:
        assert loan.inputs == (str(tmp_path / "a"), None)
        assert loan.outputs == (tmp_path / "b",)


class Refusing:
    """A store whose answers are errors."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def info(self, path: str) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (PermissionError("key AKIA123"), InputError, "access denied; check the environment's credentials"),
        (OSError(5, "key AKIA123"), MachineError, r"the store does not answer \(OSError\)"),
        (type("NoCredentialsError", (Exception,), {})("AKIA123"), InputError, "no credentials found"),
        (ZeroDivisionError("AKIA123"), MachineError, r"the store does not answer \(ZeroDivisionError\)"),
    ],
)
def test_errors_of_stores_are_one_line_without_their_words(monkeypatch, error: Exception, kind: type, text: str):
    monkeypatch.setattr(storage, "_store", lambda url: (Refusing(error), "bucket/a"))
    with pytest.raises(kind, match=text) as told:
        storage.kind_of("s3://bucket/a")
    assert "AKIA" not in str(told.value)


def test_stores_that_nobody_knows_are_named():
    with pytest.raises(InputError, match="nowhere://bucket/a: no store of this kind is known"):
        storage.kind_of("nowhere://bucket/a")
