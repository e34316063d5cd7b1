"""Training images: read from zips or folders, decoded once, kept as one array of bytes.

A *data folder* holds the sets, each as ``NAME.zip`` or as a folder ``NAME/``. What is held out is decided by
name alone, by the rules in ``splits.toml`` beside this file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from velatura.errors import InputError

__all__ = ["Images", "concatenate", "data_folder", "held_out", "read_folder", "read_set"]

Side = Literal["train", "held-out", "both"]
# What Pillow reads everywhere. Not `velatura.image.SUFFIXES`: training must run without that door's decoders.
ENDINGS = {".webp", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Images:
    """Images of any sizes in one flat array, because thousands of small arrays are slow to make and to copy.

    Attributes
    ----------
    names : tuple of str
        ``set/path/in/the/set.webp``, in the order of the images.
    pixels : ndarray of uint8, (bytes,)
        All images one after the other.
    shapes : ndarray of int64, (n, 3)
        Height, width and channels of each.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]
    shapes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One image, (H, W, C), a view."""
        start = self._starts[index]
        shape = self.shapes[index]
        return self.pixels[start : start + int(shape.prod())].reshape(shape)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        ends = np.cumsum(self.shapes.prod(axis=1))
        return np.concatenate([[0], ends[:-1]]).astype(np.int64)


def data_folder(given: str | Path | None) -> Path:
    """The data folder: the one given, else the environment's ``VELATURA_DATA``.

    Raises
    ------
    InputError
        None is named, or it is not a folder.
    """
    named = str(given or os.environ.get("VELATURA_DATA", ""))
    if not named:
        raise InputError("no data folder: name one with `--set data=DIR` or in VELATURA_DATA")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise InputError(f"data folder {folder} is not a folder: name another with `--set data=DIR`")
    return folder


def read_set(
    folder: Path,
    name: str,
    side: Side = "train",
    *,
    under: str = "",
    mode: str = "RGB",
    shortest: int | None = None,
    purpose: str = "",
) -> Images:
    """Decode one set of the data folder.

    Parameters
    ----------
    folder : Path
        The data folder.
    name : str
        A set that ``splits.toml`` knows, such as ``"scenes96"``.
    side : {"train", "held-out", "both"}
        Which side of the split.
    under : str
        Only files whose path in the set begins so, such as ``"color/"``.
    mode : str
        Pillow mode to convert to: ``"RGB"``, ``"L"``, ``"RGBA"``.
    shortest : int, optional
        Shrink larger images so that their shorter side is this many pixels.
    purpose : str
        Whose split, where ``splits.toml`` has one of its own for it: ``"upscale"``.

    Returns
    -------
    Images
        Sorted by name.

    Raises
    ------
    InputError
        The set is unknown, missing or empty.
    """
    rules = _rules()
    if name not in rules:
        raise InputError(f"image set {name!r} has no split; known: {', '.join(rules)}")
    key_of = _key_function(folder, name)
    never = rules[name].get("never", [])

    def wanted(path: str) -> bool:
        if PurePosixPath(path).parts[0] in never or not path.startswith(under):
            return False
        return side == "both" or (side == "held-out") == held_out(name, key_of(path), purpose)

    images = _decode(((f"{name}/{path}", content) for path, content in _files(folder, name, wanted)), mode, shortest)
    if not len(images):
        raise InputError(f"no images in {name} for side {side!r}, path {under + '*'!r}")
    return images


def read_folder(folder: Path, *, mode: str = "RGB", shortest: int | None = None) -> Images:
    """Decode every image of a folder and its subfolders; arguments as in `read_set`, names relative to it.

    Raises
    ------
    InputError
        It is not a folder or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    images = _decode(((p.relative_to(folder).as_posix(), p.read_bytes()) for p in paths), mode, shortest)
    if not len(images):
        raise InputError(f"no images ({', '.join(sorted(ENDINGS))}) in {folder}")
    return images


def concatenate(*parts: Images) -> Images:
    """Several sets as one."""
    return Images(
        names=tuple(name for part in parts for name in part.names),
        pixels=np.concatenate([part.pixels for part in parts]),
        shapes=np.concatenate([part.shapes for part in parts]),
    )


def held_out(name: str, key: str, purpose: str = "") -> bool:
    """Whether the group `key` of the set `name` is held out, from everybody or from what has this `purpose`.

    Examples
    --------
    >>> held_out("faces128", "ann example") == held_out("faces256", "ann example")
    True
    """
    rule = _rules()[name]
    digest = hashlib.blake2b(f"velatura/1/{rule['family']}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < rule.get("shares", {}).get(purpose, rule["share"])


@cache
def _rules() -> dict[str, dict]:
    return tomllib.loads(Path(__file__).with_name("splits.toml").read_text("utf-8"))


def _key_function(folder: Path, name: str) -> Callable[[str], str]:
    """From the path of a file in the set to the key of its group."""
    kind = _rules()[name]["key"]
    if kind == "person":
        # faces256 has no index of its own: its faces are all in faces128.
        names = {PurePosixPath(row["file"]).stem: row["name"] for row in _index(folder, "faces128")}
        return lambda path: _person(PurePosixPath(path).stem, names.get(PurePosixPath(path).stem, ""))
    if kind == "photograph":
        photographs = {row["file"]: f"{row['repository']}/{row['blob']}" for row in _index(folder, name)}
        return lambda path: photographs[path]
    if kind == "subject":
        return lambda path: PurePosixPath(path).stem.split("_")[0]
    return lambda path: str(PurePosixPath(path).with_suffix(""))


def _person(stem: str, name: str) -> str:
    """First name and surname in lower case; the stem where no name is known.

    Middle names are dropped: they differ between sources, and a key that two people share does no harm.
    """
    if name:
        surname, _, given = name.lower().partition(",")
        first = given.split()[0] if given.split() else ""
        return f"{first} {surname.split()[-1]}".strip()
    if stem.startswith("usgov_"):  # named after the person: usgov_first-last
        words = stem.removeprefix("usgov_").lower().split("-")
        return f"{words[0]} {words[-1]}"
    return stem


def _index(folder: Path, name: str) -> list[dict[str, str]]:
    for _, content in _files(folder, name, lambda path: path == "index.csv", endings={".csv"}):
        return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))
    raise InputError(f"{name} in {folder} has no index.csv, which its split needs")


def _files(
    folder: Path, name: str, wanted: Callable[[str], bool], endings: set[str] = ENDINGS
) -> Iterator[tuple[str, bytes]]:
    """Path in the set and content of each file, sorted, from ``NAME.zip`` or the folder ``NAME``."""
    archive, plain = folder / f"{name}.zip", folder / name

    def chosen(path: str) -> bool:
        return PurePosixPath(path).suffix.lower() in endings and wanted(path)

    if archive.is_file():
        with zipfile.ZipFile(archive) as opened:
            for path in sorted(filter(chosen, opened.namelist())):
                yield path, opened.read(path)
    elif plain.is_dir():
        for path in sorted(p.relative_to(plain).as_posix() for p in plain.rglob("*")):
            if chosen(path):
                yield path, (plain / path).read_bytes()
    else:
        raise InputError(f"data folder {folder} has neither {name}.zip nor {name}/")


def _decode(files: Iterator[tuple[str, bytes]], mode: str, shortest: int | None) -> Images:
    names, arrays = [], []
    for name, content in files:
        try:
            with Image.open(io.BytesIO(content)) as opened:
                image = opened.convert(mode)
        except (OSError, SyntaxError) as error:
            raise InputError(f"{name} cannot be decoded: {error}") from error
        if shortest and min(image.size) > shortest:
            scale = shortest / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.LANCZOS)
        array = np.asarray(image)
        names.append(name)
        arrays.append(array.reshape(*array.shape[:2], -1))
    pixels = np.concatenate([a.ravel() for a in arrays]) if arrays else np.empty(0, np.uint8)
    shapes = np.array([a.shape for a in arrays], dtype=np.int64).reshape(-1, 3)
    return Images(tuple(names), pixels, shapes)
