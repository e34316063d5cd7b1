"""The manifest of a batch: what was asked for, and what is finished.

``OUT/manifest.jsonl`` begins with a header of everything that decides the bytes. Every worker notes what it finished in
a part of its own below ``OUT/manifest.parts``, one JSON object per line, written and synced before anybody is told: so
no writer waits for another, and neither a killed worker nor a killed driver loses what is done. A batch that ends in
order moves the parts into the manifest; reading merges what it finds, later runs over earlier ones.

A store appends to no object. There a part is a row of small objects, the last of which is written anew with each line,
and the parts stay where they are.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from velatura import storage
from velatura.errors import InputError, MachineError

__all__ = ["MANIFEST", "PARTS", "Manifest", "Notes", "begun_with", "finished", "lines", "scratch_database"]

MANIFEST = "manifest.jsonl"
PARTS = "manifest.parts"

SEGMENT = 256  # lines of an object: half of them are sent again with each line, and each costs a request to read
AT_ONCE = 64  # objects that are read at a time: waiting for a store is most of it


# --- one writer's part ------------------------------------------------------------------------------------------------


class Notes:
    """One writer's part of the manifest.

    Parameters
    ----------
    out : str
        The output folder, which may be a URL.
    run : str
        Which run of the batch; later ones sort after earlier ones.
    """

    def __init__(self, out: str, run: str) -> None:
        self._name = f"{run}-{secrets.token_hex(6)}"
        self._folder = storage.join(out, PARTS)
        self._file: IO[bytes] | None = None
        self._torn = False
        self._segment: list[bytes] = []
        self._number = 0

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line, and wait until it is safe.

        Raises
        ------
        MachineError
            The disk is full, or the store does not answer.
        InputError
            Access is denied.
        """
        text = json.dumps(line).encode() + b"\n"
        if storage.is_url(self._folder):
            self._put(text)
        else:
            self._write(text)

    def _write(self, text: bytes) -> None:
        try:
            if self._file is None:
                folder = Path(self._folder)
                folder.mkdir(parents=True, exist_ok=True)
                self._file = (folder / f"{self._name}.jsonl").open("ab", buffering=0)
            # What a full disk left of a line must not spoil the next one.
            whole = b"\n" + text if self._torn else text
            self._torn = True
            if self._file.write(whole) != len(whole):
                raise MachineError(f"{self._folder}: the disk is full; free some space, then --resume")
            os.fsync(self._file.fileno())
            self._torn = False
        except OSError as error:
            raise MachineError(f"{self._folder}: {error.strerror}; free some space, then --resume") from error

    def _put(self, text: bytes) -> None:
        if len(self._segment) == SEGMENT:
            self._segment, self._number = [], self._number + 1
        self._segment.append(text)
        storage.write(f"{self._folder}/{self._name}-{self._number:06}.jsonl", b"".join(self._segment))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


# --- reading ----------------------------------------------------------------------------------------------------------


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if it is torn or damaged: its image is made again."""
    try:
        parsed = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _parts(out: str) -> list[str]:
    """List the parts, those of earlier runs first."""
    folder = storage.join(out, PARTS)
    if not storage.is_url(folder) and not Path(folder).is_dir():
        return []
    return sorted(storage.join(folder, file.path) for file in storage.files(folder) if file.path.endswith(".jsonl"))


def _raw(paths: Iterable[str]) -> Iterator[bytes]:
    """Give the lines of files one by one; objects of a store are read some at a time."""
    left = iter(paths)
    with ThreadPoolExecutor(AT_ONCE) as readers:
        while group := list(islice(left, AT_ONCE)):
            objects = iter(readers.map(storage.read, filter(storage.is_url, group)))
            for path in group:
                if storage.is_url(path):
                    yield from (next(objects) or b"").splitlines(keepends=True)
                else:
                    with suppress(FileNotFoundError, NotADirectoryError), Path(path).open("rb") as file:
                        yield from file


def lines(out: str | Path) -> Generator[dict[str, Any], None, None]:
    """Give the header and what is finished, merged: of two lines on one output the later one counts.

    Parameters
    ----------
    out : path or URL
        The output folder.
    """
    out = storage.place(out)
    paths = [storage.join(out, MANIFEST), *_parts(out)]
    yield from (line for line in map(_parse, _raw(paths)) if line is not None)


def begun_with(out: str | Path) -> dict[str, Any]:
    """Give the options that the batch of an output folder was begun with; nothing where there is no batch."""
    with closing(lines(out)) as found:
        return next((line for line in found if "manifest" in line), {})


def finished(out: str, run: str, output: str) -> dict[str, Any] | None:
    """Look for what a worker that died noted of a job before it could tell."""
    ours = [part for part in _parts(out) if PurePosixPath(part.replace("\\", "/")).name.startswith(f"{run}-")]
    found = (line for line in map(_parse, _raw(ours)) if line is not None and line.get("output") == output)
    return next(found, None)


def scratch_database() -> sqlite3.Connection:
    """Make tables that lie on the disk and not in memory, in a file without a name that goes when it is closed."""
    database = sqlite3.connect("")
    database.execute("PRAGMA journal_mode = OFF")
    return database


# --- the driver's view ------------------------------------------------------------------------------------------------


class Manifest:
    """The manifest of a running batch, on disk: its memory does not grow with the number of images.

    Attributes
    ----------
    out : str
    run : str
        Name of this run, for `Notes`.
    """

    def __init__(self, out: str, number: int, parts: Iterable[str], records: sqlite3.Connection) -> None:
        self.out = out
        self.run = f"{number:06}"
        self._found = list(parts)  # of earlier runs
        self._records = records
        self._notes = Notes(out, self.run)

    @classmethod
    def begin(cls, out: str, header: Mapping[str, Any]) -> Self:
        """Start a new one; an old one is replaced."""
        for part in _parts(out):
            storage.remove(part)
        path, text = storage.join(out, MANIFEST), json.dumps(header).encode() + b"\n"
        if storage.is_url(out):
            storage.write(path, text)
        else:
            _append(Path(path), [text], "wb")
        return cls(out, 1, (), _records())

    @classmethod
    def resume(cls, out: str, header: Mapping[str, Any]) -> Self:
        """Go on with one that is there, after checking that it was begun with the same options.

        Raises
        ------
        InputError
            It is no manifest, or the options differ.
        """
        path = storage.join(out, MANIFEST)
        old = begun_with(out)
        if not old:
            first = next(_raw([path]), b"")
            if first.endswith(b"\n"):
                raise InputError(f"{path}: is not a manifest of velatura; choose another output folder")
            return cls.begin(out, header)
        records = _records()
        rows = (
            (os.fsencode(line["output"]), line.get("status"), line.get("bytes"), _canonical(line.get("inputs")))
            for line in lines(out)
            if "output" in line
        )
        with records:
            records.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", rows)
        if records.execute("SELECT 1 FROM record WHERE status = 'done' LIMIT 1").fetchone() is None:
            return cls.begin(out, header)  # nothing that other options could be mixed with
        _refuse_difference(old, json.loads(json.dumps(header)), path)
        parts = _parts(out)
        numbers = (int(PurePosixPath(part).name.partition("-")[0]) for part in parts)
        if not storage.is_url(out):
            _cut_torn_end(Path(path))
        return cls(out, 1 + max(numbers, default=0), parts, records)

    def size_of(self, output: str, inputs: Mapping[str, Any]) -> int | None:
        """Give the size that an output had when it was made of these inputs; None if it was not."""
        query = "SELECT bytes FROM record WHERE output = ? AND status = 'done' AND inputs = ?"
        found = self._records.execute(query, (os.fsencode(output), _canonical(inputs))).fetchone()
        return found[0] if found else None

    def append(self, line: Mapping[str, Any]) -> None:
        """Note what no worker notes: see `Notes.append`."""
        self._notes.append(line)

    def close(self) -> None:
        """Move the parts into the manifest, where it lies in a folder; what cannot be moved stays and counts."""
        self._notes.close()
        self._records.close()
        if storage.is_url(self.out):
            return
        ours = [part for part in _parts(self.out) if part in self._found or Path(part).name.startswith(f"{self.run}-")]
        with suppress(OSError):
            _append(Path(self.out, MANIFEST), (line for line in _raw(ours) if _parse(line) is not None), "ab")
            for part in ours:
                storage.remove(part)
            if ours:
                Path(self.out, PARTS).rmdir()


def _records() -> sqlite3.Connection:
    records = scratch_database()
    records.execute("CREATE TABLE record (output BLOB PRIMARY KEY, status TEXT, bytes INT, inputs TEXT) WITHOUT ROWID")
    return records


def _canonical(inputs: Any) -> str:
    return json.dumps(inputs, sort_keys=True)


def _append(path: Path, text: Iterable[bytes], mode: str) -> None:
    first = next(it := iter(text), None)
    if first is None:
        return
    with path.open(mode) as file:
        file.writelines(chain([first], it))
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_end(path: Path) -> None:
    """Cut off a line that a kill, or a full disk, left unfinished."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - (1 << 16))
            file.seek(start)
            end = file.read(size - start).rfind(b"\n")
            if end >= 0:
                file.truncate(start + end + 1)
                return
            size = start


def _refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> None:
    """Refuse to mix results: name the first option that is not what it was."""
    for before, now in ((old, new), (old.get("params", {}), new.get("params", {}))):
        for key in dict.fromkeys((*before, *now)):
            if key != "params" and before.get(key) != now.get(key):
                raise InputError(
                    f"{path} was begun with {key} {json.dumps(before.get(key))}, now it is {json.dumps(now.get(key))}; "
                    "give the same options, or --overwrite to start anew"
                )
