"""Zips that are written while they are sent: they take no room on the disk, and little memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["streamed"]

CHUNK = 1 << 20


class _Buffer(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def streamed(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """Write a zip of files, not compressed, piece by piece; a file that has vanished is left out.

    Parameters
    ----------
    files : iterable of (str, Path)
        Labels and where the files lie; of equal labels, the later ones get numbers.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a")
    >>> _ = path.write_bytes(b"hello")
    >>> made = b"".join(streamed([("a.txt", path), ("A.txt", path), ("gone", path / "b")]))
    >>> zipfile.ZipFile(io.BytesIO(made)).namelist()
    ['a.txt', 'A-2.txt']
    """
    buffer, used = _Buffer(), set[str]()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            try:
                source = path.open("rb")
            except OSError:
                continue
            entry = zipfile.ZipInfo.from_file(path, _free(name, used))
            with source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield buffer.taken()
    yield buffer.taken()


def _free(name: str, used: set[str]) -> str:
    """Give a name that is not used yet, whatever its capitals."""
    label, number = name, 2
    while label.lower() in used:
        label, number = f"{Path(name).stem}-{number}{Path(name).suffix}", number + 1
    used.add(label.lower())
    return label
