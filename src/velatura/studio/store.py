"""Temporary files by unguessable ids, with a quota."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from velatura.errors import InputError, MachineError
from velatura.image import probe

__all__ = ["Item", "NoRoom", "Store", "Unknown", "plain_name"]

Kind = Literal["image", "latents"]
MEDIA = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "avif": "image/avif",
    "heic": "image/heic",
    "safetensors": "application/octet-stream",
}
SUFFIX = {"jpeg": ".jpg", "tiff": ".tif"}
LONGEST_NAME = 120


class Unknown(InputError):
    """No file has this id, or no longer."""


class NoRoom(MachineError):
    """The quota is used up by what is still needed."""


def plain_name(name: str | None, fallback: str = "image") -> str:
    r"""Make a label of a file name: no folders, no control characters, not too long. It never becomes a path.

    Examples
    --------
    >>> plain_name("../../etc/passwd"), plain_name("C:\\photos\\boat.png"), plain_name("a\r\nb.png"), plain_name("")
    ('passwd', 'boat.png', 'ab.png', 'image')
    """
    last = re.split(r"[/\\\\]", name or "")[-1]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '"<>|:*?').strip(" .-")
    return kept[:LONGEST_NAME] or fallback


@dataclass(frozen=True, slots=True)
class Item:
    """One stored file.

    Attributes
    ----------
    id : str
    name : str
        What a person calls it.
    path : Path
        Where it lies; made from the id alone.
    kind : str
        ``image`` or ``latents``.
    format : str
    bytes : int
    width, height, bits : int
        0 where it is no image.
    alpha : bool
    """

    id: str
    name: str
    path: Path
    kind: Kind
    format: str
    bytes: int
    width: int = 0
    height: int = 0
    bits: int = 0
    alpha: bool = False

    @property
    def media(self) -> str:
        """MIME type."""
        return MEDIA[self.format]

    def described(self) -> dict[str, Any]:
        """Give all but the path."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


class Store:
    """A temporary folder of files.

    Parameters
    ----------
    quota : int
        Bytes of all files together; when there is no room, the oldest files that nobody needs are dropped.
    max_megapixels : float
        Larger images are refused.
    needed : callable, optional
        Gives the ids that must stay.
    """

    def __init__(
        self, quota: int, *, max_megapixels: float = 100, needed: Callable[[], Iterable[str]] = frozenset
    ) -> None:
        self.quota, self.max_megapixels, self.needed = quota, max_megapixels, needed
        self.folder = Path(tempfile.mkdtemp(prefix="velatura-studio-"))
        self._items: dict[str, Item] = {}
        self._used: dict[str, float] = {}
        self._lock = threading.RLock()

    def new_folder(self) -> Path:
        """Make an empty folder for the files of one job."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder

    def new_path(self) -> Path:
        """Name a file that is not there yet."""
        return self.folder / f"{secrets.token_urlsafe(16)}.part"

    def add(self, path: Path, name: str, kind: Kind = "image") -> Item:
        """Take over a file, and look what it is.

        Raises
        ------
        InputError
            No image that can be read, or too large a one; the file is gone then.
        NoRoom
            What is still needed fills the quota.
        """
        key = secrets.token_urlsafe(16)
        try:
            size = path.stat().st_size
            details: dict[str, Any] = {"format": "safetensors"}
            if kind == "image":
                info = _probed(path, name, self.max_megapixels)
                details = {part: getattr(info, part) for part in ("width", "height", "bits", "alpha", "format")}
            with self._lock:
                self._make_room(size)
                target = self.folder / f"{key}{SUFFIX.get(details['format'], '.' + details['format'])}"
                path.replace(target)
                self._items[key] = Item(key, plain_name(name), target, kind, bytes=size, **details)
                self._used[key] = time.monotonic()
                return self._items[key]
        finally:
            path.unlink(missing_ok=True)

    def get(self, key: str) -> Item:
        """Find a file.

        Raises
        ------
        Unknown
            There is none.
        """
        with self._lock:
            if key not in self._items:
                raise Unknown("no such image here; it was removed, or made way for newer ones: open it again")
            self._used[key] = time.monotonic()
            return self._items[key]

    def image(self, key: str) -> Item:
        """Find an image; see `get`."""
        item = self.get(key)
        if item.kind != "image":
            raise InputError(f"{item.name} is no image")
        return item

    def remove(self, key: str) -> None:
        """Forget a file, with what was made of it for screens."""
        with self._lock:
            item = self._items.pop(key, None)
            self._used.pop(key, None)
        if item is not None:
            item.path.unlink(missing_ok=True)
            for preview in self.folder.glob(f"{key}-*.preview"):
                preview.unlink(missing_ok=True)

    def preview_path(self, item: Item, side: int) -> Path:
        """Name the file of a preview."""
        return self.folder / f"{item.id}-{side}.preview"

    @property
    def bytes(self) -> int:
        """Size of everything in the folder; what vanishes meanwhile has none."""
        files = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        return sum(map(_size, files))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        """Drop what was not used for the longest time until ``size`` more bytes fit; they lie in the folder already."""
        while (excess := self.bytes - self.quota) > 0:
            needed = set(self.needed())
            droppable = sorted((used, key) for key, used in self._used.items() if key not in needed)
            if not droppable:
                raise NoRoom(
                    f"no room for {size / 2**20:.0f} MiB: the temporary files may take {self.quota / 2**20:.0f} MiB, "
                    f"{excess / 2**20:.0f} less would do; remove results, or start the studio with a larger --quota"
                )
            self.remove(droppable[0][1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _probed(path: Path, name: str, max_megapixels: float) -> Any:
    """Read the header; errors name the file as its owner does."""
    try:
        return probe(path, max_megapixels=max_megapixels)
    except InputError as error:
        raise type(error)(str(error).replace(str(path), plain_name(name))) from None
