"""Model cards, and the one door through which weights come in.

``catalog.toml`` beside this file holds one card per model that the package ships; ``weights/`` holds the files.
Reading cards needs no torch; `load` and `load_state` import it when they are called.

A weights file is a safetensors file whose header names what it is for (the format knows only strings, so anything
else is JSON in a string)::

    architecture    the class that takes the weights, e.g. "BlendingGAN"
    arguments       its keyword arguments, a JSON object
    recipe          what trained it: a JSON object of name and settings
    commit          at which state of the repository
    metrics         what the training measured, a JSON object

Numbers are float32, float16 or bfloat16 on disk and float32 in memory. A tensor may also be int8 with one scale
per output channel: ``name`` is int8 of shape (C, ...), ``name.scale`` is floating and of shape (C,), and the weight
is ``name * scale``, the scale spread over the first axis.

A file is judged before it is used: length of the header, size and sha256 where a card knows them, architecture
among those that the caller names, keys, shapes, types, finite numbers. Nothing is ever unpickled and no name read
from a file is ever imported. Nothing here uses the network; whatever will one day must ask `offline` first.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import math
import os
import re
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from velatura.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Card",
    "Header",
    "Images",
    "Score",
    "Weights",
    "assemble",
    "card",
    "cards",
    "fill_card",
    "fill_cards",
    "load",
    "load_state",
    "offline",
    "open_weights",
    "read_header",
    "verify",
]

Net = TypeVar("Net", bound="nn.Module")

WEIGHTS = Path(__file__).parent / "weights"
CATALOG = Path(__file__).parent / "catalog.toml"

MAX_FILE_MIB = 16  # one shipped file; a wheel has to hold them all
MAX_TOTAL_MIB = 80  # all shipped files together
MAX_HEADER_BYTES = 4 << 20  # ours are below 64 KiB; a lying length must not make us allocate
MAX_USER_BYTES = 4 << 30  # a user's own file; it is held in memory once
MAX_ARGUMENT = 1 << 16  # no width or depth is larger; a header must not make a constructor run for hours

_FLOATS = {"F64", "F32", "F16", "BF16"}
# Where others keep the weights inside a checkpoint, in order of preference: the average is the better model.
_WRAPPERS = ("params_ema", "params", "state_dict")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Images(_Frozen):
    """Images that a model saw in training, and on what terms."""

    set: str
    terms: str
    count: int = Field(gt=0)


class Score(_Frozen):
    """One measured figure with its 95 % interval, beside that of a baseline on the same images, if there is one."""

    metric: str
    unit: str = ""
    better: str = Field(pattern="^(lower|higher)$")
    value: float
    low: float
    high: float
    baseline: str = ""
    baseline_value: float = 0.0
    baseline_low: float = 0.0
    baseline_high: float = 0.0
    count: int = Field(gt=0)


class Card(_Frozen):
    """What is to be known about one model.

    Attributes
    ----------
    name : str
        The one name it has everywhere.
    task : str
        The application that uses it.
    architecture : str
        Name of the class that takes the weights.
    arguments : dict
        Keyword arguments of that class.
    parameters : int
        How many numbers the file holds.
    file, bytes, sha256
        The file in ``weights/`` and what it must be.
    images : tuple of Images
        What it saw in training, with the terms of each set.
    commercial_use : bool
        Whether its use is free for commerce, as far as the images' terms tell.
    commercial_use_reason : str
        Why, or why not.
    weights_licence : str
        The licence of the weights, apart from that of the code.
    recipe, commit : str
        What trained it, and at which state of this repository.
    protocol : str
        How the scores were measured.
    scores : tuple of Score
        Measured by ``velatura evaluate``, never typed.
    paper : str
        Authors, year, where to find it.
    limits : tuple of str
        What it cannot do, one sentence each.
    """

    name: str
    task: str
    architecture: str
    arguments: dict[str, Any]
    parameters: int = Field(gt=0)
    file: str = Field(pattern=r"^[a-z0-9-]+\.safetensors$")
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    images: tuple[Images, ...]
    commercial_use: bool
    commercial_use_reason: str
    weights_licence: str
    recipe: str
    commit: str
    protocol: str
    scores: tuple[Score, ...] = ()
    paper: str
    limits: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return WEIGHTS / self.file


@cache
def _read_catalog(path: Path) -> dict[str, Card]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    found = {}
    for name, values in table.items():
        try:
            found[name] = Card(name=name, **values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ModelError(f"{path.name}: card {name!r}, {where}: {first['msg']}") from None
    return found


def cards() -> tuple[Card, ...]:
    """All cards, in the order of the catalog."""
    return tuple(_read_catalog(CATALOG).values())


def card(name: str, architectures: Collection[str] = ()) -> Card:
    """Find the card of a model.

    Parameters
    ----------
    name : str
    architectures : collection of str
        What the caller can use: of other models nothing is said.

    Raises
    ------
    ModelError
        No model has this name; the nearest one is given.
    """
    found = _read_catalog(CATALOG)
    if name in found:
        return found[name]
    known = [one.name for one in found.values() if not architectures or one.architecture in architectures]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none yet'}"
    raise ModelError(f"unknown model {name!r}; {hint} (a file ends in .safetensors, .pth or .pt)")


def offline() -> bool:
    """Whether the network is forbidden: ``VELATURA_OFFLINE`` is set to something else than 0."""
    return os.environ.get("VELATURA_OFFLINE", "0") not in ("", "0")


# --- headers: no torch needed -----------------------------------------------------------------------------------------


class Header(_Frozen):
    """What a safetensors file says about itself, before any of its numbers is read.

    Attributes
    ----------
    architecture : str
        Empty where the file does not say.
    arguments : dict
    recipe : dict
        ``name`` and ``settings``.
    commit : str
    metrics : dict
    shapes : dict
        Name of each tensor -> its shape.
    types : dict
        Name of each tensor -> its type as safetensors writes it: ``F32``, ``F16``, ``I8``...
    """

    architecture: str = ""
    arguments: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    commit: str = ""
    metrics: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]

    @property
    def parameters(self) -> int:
        """How many numbers the weights are: without counters and without the scales of 8-bit tensors."""
        scales = {f"{name}.scale" for name, kind in self.types.items() if kind == "I8"}
        return sum(
            math.prod(shape)
            for name, shape in self.shapes.items()
            if (self.types[name] in _FLOATS and name not in scales) or self.types[name] == "I8"
        )


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file, and nothing else.

    Raises
    ------
    ModelError
        It is not there, is no safetensors file, or its header lies about its length.
    """
    path = _existing(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        _check_header_length(length, path.stat().st_size, path.name)
        return _parse_header(file.read(length), path.name)


def _check_header_length(length: int, size: int, name: str) -> None:
    if size < 8:
        raise ModelError(f"{name}: cut off after {size} bytes; expected a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise ModelError(f"{name}: its header claims {length} bytes, more than {MAX_HEADER_BYTES}; not a weights file")
    if 8 + length > size:
        raise ModelError(f"{name}: its header claims {length} bytes, but the file has {size}; it is cut off or damaged")


def _parse_header(text: bytes, name: str) -> Header:
    try:
        table = json.loads(text)
        notes = table.pop("__metadata__", {})
        return Header(
            architecture=notes.get("architecture", ""),
            arguments=json.loads(notes.get("arguments", "{}")),
            recipe=json.loads(notes.get("recipe", "{}")),
            commit=notes.get("commit", ""),
            metrics=json.loads(notes.get("metrics", "{}")),
            shapes={key: tuple(value["shape"]) for key, value in table.items()},
            types={key: value["dtype"] for key, value in table.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # Whatever is wrong with it, the user can do one thing.
        raise ModelError(f"{name}: its header is damaged; get the file again") from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a weights file (.safetensors, .pth or .pt)")
    return path


def _verified_bytes(found: Card) -> bytes:
    advice = "install velatura again"
    if not found.path.is_file():
        raise ModelError(f"{found.file}: the weights of {found.name!r} are not there; {advice}")
    data = found.path.read_bytes()
    if len(data) != found.bytes:
        raise ModelError(f"{found.file}: has {len(data)} bytes; its card says {found.bytes}; {advice}")
    if hashlib.sha256(data).hexdigest() != found.sha256:
        raise ModelError(f"{found.file}: its sha256 is not the one of its card; {advice}")
    return data


# --- weights: torch from here on --------------------------------------------------------------------------------------


def load(
    name_or_path: str | Path,
    architectures: Mapping[str, Callable[..., Net]],
    device: torch.device | str = "cpu",
    *,
    arguments: Mapping[str, Any] | None = None,
) -> Net:
    """Build a network and put verified weights into it.

    Parameters
    ----------
    name_or_path : str or path
        A name of the catalog, or a file: ``.safetensors`` with our header, or ``.pth`` / ``.pt`` of others.
    architectures : mapping
        The architectures that the caller accepts: name as in the header -> class.
    device : torch.device or str
        Where the network goes.
    arguments : mapping, optional
        Keyword arguments for a file that names none: a ``.pth``, or a safetensors file without our header. Such a
        file also needs ``architectures`` to hold exactly one.

    Returns
    -------
    torch.nn.Module
        In float32, in ``eval()``, without gradients.

    Raises
    ------
    ModelError
        Unknown name, or the file is refused; the message names the file and the reason.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> from torch import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "line.safetensors")
    ...     notes = {"architecture": "Line", "arguments": '{"in_features": 2, "out_features": 1}'}
    ...     save_file(nn.Linear(2, 1).half().state_dict(), path, notes)
    ...     net = load(path, {"Line": nn.Linear})
    >>> net.weight.dtype, net.training
    (torch.float32, False)
    """
    return assemble(open_weights(name_or_path, architectures), architectures, device, arguments=arguments)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file holds, read safely and not judged yet.

    Attributes
    ----------
    name : str
        The file's name, for messages.
    tensors : dict of str to Tensor
        On the CPU, in the types of the file.
    header : Header or None
        None for a ``.pth``.
    """

    name: str
    tensors: dict[str, Tensor]
    header: Header | None


def open_weights(name_or_path: str | Path, architectures: Collection[str] = ()) -> Weights:
    """Read a file of weights; nothing in it is run. Parameters and errors are those of `load`."""
    path, data = _read(name_or_path, architectures)
    tensors, header = _open(data, path.name)
    return Weights(path.name, tensors, header)


def assemble(
    weights: Weights,
    architectures: Mapping[str, Callable[..., Net]],
    device: torch.device | str = "cpu",
    *,
    arguments: Mapping[str, Any] | None = None,
    rename: Callable[[str], str] = str,
) -> Net:
    """Build a network and put weights that were read into it.

    Parameters
    ----------
    weights : Weights
        See `open_weights`.
    architectures, device, arguments
        As in `load`.
    rename : callable
        Says what the file calls a tensor of the network; messages then use the file's own names.

    Returns
    -------
    torch.nn.Module
        As from `load`.

    Raises
    ------
    ModelError
        The file is refused.
    """
    import torch

    name, header = weights.name, weights.header
    if header is not None and header.architecture:
        architecture, arguments = header.architecture, header.arguments
    elif len(architectures) == 1:
        architecture = next(iter(architectures))
    else:
        raise ModelError(f"{name}: names no architecture; expected one of {', '.join(architectures)}")
    if architecture not in architectures:
        raise ModelError(f"{name}: holds a {architecture}; expected {' or '.join(architectures)}")
    arguments = dict(arguments or {})
    if any(isinstance(number, int | float) and number > MAX_ARGUMENT for number in _leaves(arguments)):
        raise ModelError(f"{name}: its arguments hold a number over {MAX_ARGUMENT}; get the file again")

    build = architectures[architecture]
    # Building draws random numbers: the caller's own sequence must not notice that a model was loaded.
    with torch.random.fork_rng(devices=[]):
        try:
            # On the meta device a wrong size costs nothing: no memory is asked for before the file is known to fit.
            with torch.device("meta"):
                plan = build(**arguments)
            state = _fit(weights.tensors, {rename(key): value for key, value in _expected(plan).items()}, name)
            net = build(**arguments)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{name}: {architecture} refuses its arguments {arguments}: {error}") from None
    net.load_state_dict({key: state[rename(key)] for key in net.state_dict()})
    return net.to(device).eval().requires_grad_(False)


def load_state(name_or_path: str | Path, expected: nn.Module | Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Read verified weights without building a network.

    Parameters
    ----------
    name_or_path : str or path
        As in `load`.
    expected : torch.nn.Module or mapping
        A network that the weights must fit, or name -> shape of floating tensors.

    Returns
    -------
    dict of str to Tensor
        On the CPU; floating tensors are float32.

    Raises
    ------
    ModelError
        As in `load`.
    """
    weights = open_weights(name_or_path)
    return _fit(weights.tensors, _expected(expected), weights.name)


def _read(name_or_path: str | Path, architectures: Collection[str] = ()) -> tuple[Path, bytes]:
    """Find the file and read it once: what was verified is what is used."""
    looks_like_file = Path(name_or_path).suffix in (".safetensors", ".pth", ".pt")
    if isinstance(name_or_path, str) and not looks_like_file and Path(name_or_path).name == name_or_path:
        found = card(name_or_path, architectures)
        return found.path, _verified_bytes(found)
    path = _existing(name_or_path)
    if not looks_like_file:
        raise ModelError(f"{path.name}: unknown kind of weights file; expected .safetensors, .pth or .pt")
    if path.stat().st_size > MAX_USER_BYTES:
        raise ModelError(f"{path.name}: larger than {MAX_USER_BYTES >> 30} GiB; not a model for this package")
    return path, path.read_bytes()


def _open(data: bytes, name: str) -> tuple[dict[str, Tensor], Header | None]:
    """Take the bytes of a file apart into tensors, still in the types of the file."""
    if not name.endswith(".safetensors"):
        return _open_pickle(data, name), None
    from safetensors import SafetensorError
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    _check_header_length(length, len(data), name)
    header = _parse_header(data[8 : 8 + length], name)
    try:
        return load(data), header
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name}: not a whole safetensors file ({error}); get it again") from None


def _open_pickle(data: bytes, name: str) -> dict[str, Tensor]:
    """Read a checkpoint of torch by its restricted reader, which runs no code."""
    import pickle

    import torch

    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch.save stores without compressing: what is packed unpacks to any size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ModelError(f"{name}: a packed archive, not a checkpoint that torch wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on old ways of writing, which are not the user's to change
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Its own message is a page that explains how to run the code: the opposite of what is wanted.
        raise ModelError(
            f"{name}: holds more than weights, or is damaged; save its state_dict as safetensors"
        ) from None
    except Exception as error:  # the reader fails in many ways on damaged bytes, none of them ours
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise ModelError(f"{name}: cut off or damaged ({reason}); get it again") from None
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
            break
    if not isinstance(found, dict):
        raise ModelError(f"{name}: holds a {type(found).__name__}; expected a state_dict")
    for key, value in found.items():
        # Meta, sparse and quantized tensors come through the restricted reader too, and have no plain numbers.
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(f"{name}: {key!r} is a {type(value).__name__}; expected weights by name")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ModelError(f"{name}: {key!r} holds no plain numbers; save its state_dict as safetensors")
    return {key: value.detach() for key, value in found.items()}


def _expected(expected: nn.Module | Mapping[str, Sequence[int]]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    import torch

    if isinstance(expected, Mapping):
        return {name: (tuple(shape), torch.float32) for name, shape in expected.items()}
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in expected.state_dict().items()}


def _fit(
    state: dict[str, Tensor], expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]], name: str
) -> dict[str, Tensor]:
    """Check keys, shapes, types and numbers; give float32."""
    import torch

    state = _unpack_int8(state, name)
    _refuse_difference(set(expected) - set(state), "misses", name)
    _refuse_difference(set(state) - set(expected), "has the unknown", name)
    fitted = {}
    for key, (shape, kind) in expected.items():
        tensor = state[key]
        if tuple(tensor.shape) != shape:
            raise ModelError(f"{name}: {key!r} has shape {tuple(tensor.shape)}; expected {shape}")
        if tensor.is_floating_point() != kind.is_floating_point or (
            tensor.dtype != kind and not kind.is_floating_point
        ):
            raise ModelError(f"{name}: {key!r} is {_plain(tensor.dtype)}; expected {_plain(kind)}")
        if kind.is_floating_point:
            tensor = tensor.to(torch.float32)
            # After the conversion: a float64 may overflow in it.
            if not torch.isfinite(tensor).all():
                raise ModelError(f"{name}: {key!r} holds numbers that are not finite; get the file again")
        fitted[key] = tensor
    return fitted


def _unpack_int8(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Turn int8 tensors that have a scale per output channel into float32."""
    import torch

    unpacked = dict(state)
    for key, tensor in state.items():
        scale = state.get(f"{key}.scale")
        if tensor.dtype != torch.int8 or scale is None:
            continue
        if tensor.ndim == 0 or tuple(scale.shape) != tuple(tensor.shape[:1]) or not scale.is_floating_point():
            raise ModelError(f"{name}: the scale of {key!r} has shape {tuple(scale.shape)}; expected one per channel")
        spread = scale.to(torch.float32).reshape(-1, *(1 for _ in tensor.shape[1:]))
        unpacked[key] = tensor.to(torch.float32) * spread
        del unpacked[f"{key}.scale"]
    return unpacked


def _refuse_difference(names: Iterable[str], what: str, file: str) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ModelError(f"{file}: {what} tensor {names[0]!r}{more}; it is of another architecture")


def _plain(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _leaves(value: Any) -> Iterable[Any]:
    """Walk through nested lists and objects of JSON."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


# --- keeping the catalog true -----------------------------------------------------------------------------------------


def verify() -> list[str]:
    """Compare cards and files; an empty list means that every weight has its card and every card its file.

    Returns
    -------
    list of str
        One sentence per problem.
    """
    problems = []
    known = cards()
    files = sorted(WEIGHTS.glob("*")) if WEIGHTS.is_dir() else []
    described = {found.file for found in known}
    problems += [f"{path.name}: has no card in {CATALOG.name}" for path in files if path.name not in described]
    for found in known:
        try:
            _verified_bytes(found)
            header = read_header(found.path)
        except ModelError as error:
            problems.append(str(error))
            continue
        for field in ("architecture", "arguments", "parameters"):
            said, held = getattr(found, field), getattr(header, field)
            if said != held:
                problems.append(f"{found.file}: its {field} are {held}, its card says {said}")
        if found.bytes > MAX_FILE_MIB << 20:
            problems.append(f"{found.file}: has {found.bytes >> 20} MiB; at most {MAX_FILE_MIB} are allowed")
    total = sum(path.stat().st_size for path in files)
    if total > MAX_TOTAL_MIB << 20:
        problems.append(f"weights: {total >> 20} MiB together; at most {MAX_TOTAL_MIB} are allowed")
    return problems


def fill_card(name: str, report: str | Path | None = None) -> None:
    """Write into ``catalog.toml`` what the weights file itself tells, so that no figure is typed by hand.

    ``architecture, arguments, parameters, bytes, sha256, recipe, commit`` of the card ``name`` come from the file;
    ``protocol`` and ``scores`` from a JSON file of ``velatura evaluate``. The rest of the card, and comments, stay.

    Parameters
    ----------
    name : str
        A section of ``catalog.toml`` with at least its ``file``.
    report : path, optional
        What ``velatura evaluate TASK --model NAME --json FILE`` wrote.

    Raises
    ------
    ModelError
        There is no such section, or no such file.
    """
    # A blank card does not validate yet: read the plain table.
    table = tomllib.loads(CATALOG.read_text(encoding="utf-8"))
    if name not in table:
        raise ModelError(f"{CATALOG.name}: no section [{name}]; write one with its file, images and limits first")
    path = WEIGHTS / table[name].get("file", f"{name}.safetensors")
    header = read_header(path)
    data = path.read_bytes()
    figures: dict[str, Any] = {
        "architecture": header.architecture,
        "arguments": header.arguments,
        "parameters": header.parameters,
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    figures |= {"recipe": header.recipe["name"]} if "name" in header.recipe else {}
    figures |= {"commit": header.commit} if header.commit else {}
    scores = None
    if report is not None:
        measured = json.loads(Path(report).read_text(encoding="utf-8"))
        figures["protocol"] = measured["protocol"]
        scores = measured["scores"]
    text = _edit_section(CATALOG.read_text(encoding="utf-8"), name, figures, scores)
    # In one step: training and tests read it meanwhile.
    partial = CATALOG.with_name(f".{CATALOG.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(CATALOG)
    _read_catalog.cache_clear()


def fill_cards(reports: str | Path) -> list[str]:
    """Fill every card of ``catalog.toml``: what ``make cards`` runs.

    Parameters
    ----------
    reports : path
        Folder of ``evaluate-NAME.json``, where a model has been measured.

    Returns
    -------
    list of str
        The names of the cards.
    """
    names = list(tomllib.loads(CATALOG.read_text(encoding="utf-8")))
    for name in names:
        report = Path(reports) / f"evaluate-{name}.json"
        fill_card(name, report if report.is_file() else None)
    return names


def _edit_section(text: str, name: str, figures: Mapping[str, Any], scores: Sequence[Mapping[str, Any]] | None) -> str:
    """Set ``key = value`` lines of the section ``[name]`` and replace its ``[[name.scores]]``."""
    blocks = re.split(r"(?m)^(?=\[)", text)
    edited = []
    for block in blocks:
        title = block.split("\n", 1)[0].strip()
        if title == f"[[{name}.scores]]" and scores is not None:
            continue
        if title == f"[{name}]":
            for key, value in figures.items():
                line = f"{key} = {_toml(value)}"
                block, count = re.subn(rf"(?m)^{key} = .*$", line.replace("\\", r"\\"), block)
                if not count:
                    block = block.rstrip("\n") + f"\n{line}\n\n"
        edited.append(block)
    if scores is not None:
        last = max(i for i, block in enumerate(edited) if re.match(rf"\[+{re.escape(name)}[.\]]", block))
        added = [f"[[{name}.scores]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in s.items()) + "\n" for s in scores]
        edited[last] = edited[last].rstrip("\n") + "\n\n"
        edited[last + 1 : last + 1] = added
    return "".join(edited).rstrip("\n") + "\n"


def _toml(value: Any) -> str:
    """Write a value of JSON as TOML on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
