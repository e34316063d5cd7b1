"""Where files lie: in a folder, or in a store that a URL names (``s3://bucket/scans``), by fsspec.

A path is text. Stores are read and written through local files, because decoders and encoders seek: `borrowed` brings
the inputs of one image, gives it local names to write to, and puts what was written into the store, whole or not at
all. Who may read and write is told by the environment alone, in each store's own ways (``AWS_PROFILE``, the role of a
machine...); a URL that holds a password is refused.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from velatura.catalog import offline
from velatura.errors import InputError, MachineError, VelaturaError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = [
    "File",
    "Loan",
    "borrowed",
    "files",
    "find",
    "held",
    "is_url",
    "join",
    "kind_of",
    "place",
    "read",
    "remove",
    "resolved",
    "write",
]

# Stores whose objects appear whole, when the last byte has come; others get a temporary name first.
_WHOLE_OBJECTS = frozenset(["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "tos"])
_S3 = frozenset(["s3", "s3a"])
PAGE = 1000  # names that a store is asked for at a time: S3 gives no more
_IN_THIS_PROCESS = frozenset(["memory"])

_SECRET = re.compile(r"(?i)\b(sig|signature|token|secret|password|credential|key|x-amz-[a-z-]+)=")
# A name and a password before a host; passwords hold slashes, too. Behind a port comes the path.
_PASSWORD = re.compile(r"//[^/@]*:(?!\d+(/|$))[^@]*@")


@dataclass(frozen=True, slots=True)
class File:
    """A file that was found.

    Attributes
    ----------
    path : str
        Below the folder that was listed, with slashes; of a single file its name.
    bytes : int or None
        None where it is listed and cannot be opened, as a link that leads nowhere.
    mark : mapping
        What changes when the file does: ``mtime_ns``, or a store's ``etag`` or time.
    identity : str
        The same for two names of one file; empty where it is not known.
    """

    path: str
    bytes: int | None
    mark: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""


# --- names ------------------------------------------------------------------------------------------------------------


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell a URL from a path.

    Examples
    --------
    >>> is_url("s3://bucket/scans"), is_url("scans/a.png"), is_url("C:/scans")
    (True, False, False)
    """
    return isinstance(path, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def place(path: str | os.PathLike[str]) -> str:
    """Check what a user named, and give it in the form that the rest of this module takes.

    Raises
    ------
    InputError
        The URL holds a password or a signature, or names nothing, or the network is forbidden.

    Examples
    --------
    >>> place("file:///scans/a%20b.png"), place("s3://bucket/scans/"), place("scans/")
    ('/scans/a b.png', 's3://bucket/scans', 'scans')
    """
    if not is_url(path):
        if "::" in str(path) and "://" in str(path):
            raise InputError("a URL within another is not taken; expected one like s3://bucket/folder")
        return str(Path(path))
    path = str(path)
    parts = urlsplit(path)
    if parts.scheme == "file":
        return str(Path(url2pathname(parts.path)))
    if parts.password is not None or _PASSWORD.search(path) or _SECRET.search(parts.query):
        # What stands in the place of the host may be a part of the secret.
        raise InputError(
            f"{parts.scheme}: the URL holds a secret, which would be written down; leave it out, and give it in the "
            "environment"
        )
    if parts.scheme not in _IN_THIS_PROCESS:
        if not parts.netloc:
            raise InputError(f"{path}: names no bucket; expected one like {parts.scheme}://bucket/folder")
        if offline():
            raise InputError(f"{path}: the network is forbidden by VELATURA_OFFLINE; name a folder, or allow it")
    return path.rstrip("/")


def join(folder: str, below: str) -> str:
    """Name a file below a folder."""
    return f"{folder}/{below}" if is_url(folder) else str(Path(folder, below))


def resolved(path: str) -> str:
    """Give one name to what two paths lead to."""
    return path if is_url(path) else str(Path(path).resolve())


@contextmanager
def held(folder: str) -> Iterator[None]:
    """Be the only one that works in a folder; it is made. Stores and Windows know no such thing.

    The system lets go of it when the process ends, however it does.

    Raises
    ------
    InputError
        Another process holds it.
    """
    if is_url(folder) or fcntl is None:
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # whoever writes there says what is wrong
            if not Path(folder).exists():
                Path(folder).mkdir(parents=True)
                stack.callback(_remove_empty, folder)
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{folder}: another batch works there; wait until it is over, or choose another folder"
                ) from None
        yield


def _remove_empty(folder: str) -> None:
    with suppress(OSError):
        Path(folder).rmdir()


# --- the store behind a URL -------------------------------------------------------------------------------------------


def _store(url: str) -> tuple[Any, str]:
    """Give fsspec's file system of a URL, and the path in it."""
    scheme = url.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise MachineError(f"{url}: needs fsspec; pip install 'velatura[cloud]'") from None
    with _explaining(url):
        # No cache of listings: it would hold every name of a bucket, and miss what others write.
        system = fsspec.filesystem(scheme, use_listings_cache=False)
        return system, system._strip_protocol(url)


@contextmanager
def _explaining(url: str) -> Iterator[None]:
    """Turn what a store says into one line, and never pass on its own words: they can name keys."""
    try:
        yield
    except VelaturaError:
        raise
    except FileNotFoundError:
        raise InputError(f"{url}: no such bucket, folder or object; check the name and the region") from None
    except PermissionError:
        raise InputError(f"{url}: access denied; check the environment's credentials and what they may do") from None
    except ImportError as error:
        raise MachineError(
            f"{url}: needs a library for this store ({error.name or 'see fsspec'}); pip install 'velatura[cloud]' "
            "brings the one of s3://"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"{url}: the disk is full ({error.strerror}); make room") from error
        raise MachineError(_silent(url, error)) from None
    except Exception as error:
        if "Credentials" in type(error).__name__:
            raise InputError(f"{url}: no credentials found; set them up as for the store's own tools") from None
        if isinstance(error, ValueError) and "rotocol" in str(error):
            raise InputError(f"{url}: no store of this kind is known; expected s3://, gs://, file://...") from None
        raise MachineError(_silent(url, error)) from None


def _silent(url: str, error: Exception) -> str:
    return f"{url}: the store does not answer ({type(error).__name__}); try again with --resume"


def _file(path: str, info: Mapping[str, Any], url: str) -> File:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    time = info.get("LastModified") or info.get("mtime") or info.get("created") or info.get("updated")
    mark = {"etag": str(etag).strip('"')} if etag else {"time": str(time)} if time else {}
    return File(path, info.get("size", info.get("Size")), mark, url)


# --- finding ----------------------------------------------------------------------------------------------------------


def kind_of(path: str) -> Literal["file", "folder"] | None:
    """Say what a path leads to; None if to nothing.

    Raises
    ------
    InputError
        Access is denied.
    MachineError
        The store does not answer.
    """
    if not is_url(path):
        found = Path(path)
        return "folder" if found.is_dir() else "file" if found.exists() else None
    system, inner = _store(path)
    with _explaining(path):
        try:
            return "folder" if system.info(inner)["type"] == "directory" else "file"
        except FileNotFoundError:
            return None


def find(path: str) -> File | None:
    """Look at one file; None if it is not there."""
    if not is_url(path):
        return _found(Path(path), Path(path).name)
    system, inner = _store(path)
    with _explaining(path):
        try:
            return _file(PurePosixPath(inner).name, system.info(inner), path)
        except FileNotFoundError:
            return None


def _found(path: Path, name: str) -> File | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return File(name, found.st_size, {"mtime_ns": found.st_mtime_ns}, f"{found.st_dev}:{found.st_ino}")


def files(folder: str, without: Collection[str] = ()) -> Iterator[File]:
    """List the files of a folder and its folders one by one, in any order, without those that are hidden.

    No list is held: a store is asked page by page where it can be (S3), else folder by folder.

    Parameters
    ----------
    folder : str
    without : collection of str
        Folders that are left out, `resolved`.

    Raises
    ------
    InputError
        No such folder, or access is denied.
    """
    if not is_url(folder):
        yield from _in_folder(Path(folder), without)
        return
    skipped = [f"{one.removeprefix(f'{folder}/')}/" for one in without if one.startswith(f"{folder}/")]
    system, inner = _store(folder)
    listed = _on_s3(system, inner) if folder.partition("://")[0] in _S3 else _in_store(system, inner)
    with _explaining(folder):
        for path, info in listed:
            hidden = path.startswith(".") or "/." in path
            if not hidden and not path.endswith("/") and not path.startswith(tuple(skipped)):
                yield _file(path, info, f"{folder}/{path}")


def _in_folder(folder: Path, without: Collection[str]) -> Iterator[File]:
    left = [""]
    while left:
        below = left.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if not entry.is_symlink() and str((folder / path).resolve()) not in without:
                        left.append(f"{path}/")
                    continue
                yield _found(Path(entry.path), path) or File(path, None)


def _on_s3(system: Any, inner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    bucket, _, prefix = inner.partition("/")
    prefix = f"{prefix}/" if prefix else ""
    after: dict[str, str] = {}
    while True:
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **after)
        for found in page.get("Contents", ()):
            yield found["Key"].removeprefix(prefix), found
        if not page.get("IsTruncated"):
            return
        after = {"ContinuationToken": page["NextContinuationToken"]}


def _in_store(system: Any, inner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for root, _, found in system.walk(inner, detail=True):
        below = root.removeprefix(inner).strip("/")
        for name, info in found.items():
            yield f"{below}/{name}" if below else name, info


# --- reading and writing ----------------------------------------------------------------------------------------------


def read(path: str) -> bytes | None:
    """Give the bytes of a small file; None if it is not there."""
    if not is_url(path):
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None
    system, inner = _store(path)
    with _explaining(path):
        try:
            return system.cat_file(inner)
        except FileNotFoundError:
            return None


def write(path: str, content: bytes) -> None:
    """Write a small file into a store, whole or not at all."""
    system, inner = _store(path)
    with _explaining(path), _whole(system, path, inner) as target:
        system.pipe_file(target, content)


@contextmanager
def _whole(system: Any, url: str, inner: str) -> Iterator[str]:
    """Give a name to write to, that becomes the real one when the block ends."""
    if url.partition("://")[0] in _WHOLE_OBJECTS:
        yield inner
        return
    folder = inner.rpartition("/")[0]
    temporary = f"{folder}/.velatura-{secrets.token_hex(6)}.tmp"
    system.makedirs(folder, exist_ok=True)
    try:
        yield temporary
        system.mv(temporary, inner)
    except BaseException:
        with suppress(Exception):  # what went wrong before is what is told
            system.rm_file(temporary)
        raise


@dataclass(frozen=True, slots=True)
class Loan:
    """Local names of inputs and outputs that may lie in a store.

    Attributes
    ----------
    inputs : tuple of str or None
    outputs : tuple of Path
    """

    inputs: tuple[str | None, ...]
    outputs: tuple[Path, ...]
    _named: Mapping[str, str] = field(default_factory=dict)

    def in_words(self, text: str) -> str:
        """Put the names that the user knows into a message."""
        for local, url in self._named.items():
            text = text.replace(local, url)
        return text


@contextmanager
def borrowed(inputs: Sequence[str | None], outputs: Sequence[str]) -> Iterator[Loan]:
    """Give local names to inputs and outputs for the length of a block.

    What lies here keeps its name. Inputs in a store are fetched; outputs that go there are put there when the block
    ends without an error, one after the other, each whole or not at all.

    Raises
    ------
    InputError
        An input is not there, or access is denied.
    MachineError
        The store does not answer, or this machine's disk is full.
    """
    if not any(is_url(path) for path in (*inputs, *outputs) if path is not None):
        yield Loan(tuple(inputs), tuple(map(Path, outputs)))
        return
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="velatura-")))
        named: dict[str, str] = {}

        def local(number: int, path: str) -> Path:
            if not is_url(path):
                return Path(path)
            # The name stays: its suffix says the format. A folder for each: two may be called the same.
            here = scratch / str(number) / PurePosixPath(path).name
            here.parent.mkdir()
            named[str(here)] = path
            return here

        there = [None if path is None else local(number, path) for number, path in enumerate(inputs)]
        for path, here in zip(inputs, there, strict=True):
            if path is not None and here is not None and is_url(path):
                system, inner = _store(path)
                with _explaining(path):
                    system.get_file(inner, str(here))
        made = [local(len(inputs) + number, path) for number, path in enumerate(outputs)]
        yield Loan(tuple(None if here is None else str(here) for here in there), tuple(made), named)
        for path, here in zip(outputs, made, strict=True):
            if is_url(path):
                system, inner = _store(path)
                with _explaining(path), _whole(system, path, inner) as target:
                    system.put_file(str(here), target)


def remove(path: str) -> None:
    """Remove a file; it may be gone already."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
        return
    system, inner = _store(path)
    with _explaining(path), suppress(FileNotFoundError):
        system.rm_file(inner)
