"""Checkpoints: folders of safetensors and one JSON file; complete or absent, never a pickle.

::

    RUN/checkpoints/step-00001200/
        generator.safetensors            one file per part: a network, its average, an optimizer
        generator-adam-1-of-3.safetensors    or several, each under 16 MiB
        state.json                       step, settings, the numbers of the optimizers, list of the files

A folder is a checkpoint while it has its ``state.json`` and every file that this lists.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from velatura.errors import ModelError

__all__ = ["latest", "load", "optimizer_state", "remove_remains", "restore_optimizer", "save", "write_text"]

LARGEST = 15 * 2**20  # bytes of tensors in one file, so that with its header it stays under 16 MiB
Parts = dict[str, dict[str, Tensor]]


def save(run: Path, step: int, parts: Parts, state: dict[str, Any], keep: int = 2) -> Path:
    """Write one checkpoint, then remove all but the last `keep`.

    One of the same step that is complete stays as it is: it has the same tensors.

    Parameters
    ----------
    run : Path
        The run's folder.
    step : int
        Number of finished steps; names the checkpoint.
    parts : dict of dicts of Tensor
        Named tensors by part (network, average, optimizer).
    state : dict
        Whatever else is to be remembered, as JSON can say it.
    keep : int
        How many checkpoints stay.

    Returns
    -------
    Path
        The checkpoint's folder.
    """
    checkpoints = run / "checkpoints"
    final = checkpoints / f"step-{step:08d}"
    if _is_complete(final):  # the same step, saved twice: by time, then on leaving
        return final
    partial = checkpoints / f".partial-{step:08d}-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        files: dict[str, list[str]] = {}
        for part, tensors in parts.items():
            shards = _shards(tensors)
            many = len(shards) > 1
            files[part] = [
                f"{part}-{i}-of-{len(shards)}.safetensors" if many else f"{part}.safetensors"
                for i in range(1, len(shards) + 1)
            ]
            for file, shard in zip(files[part], shards, strict=True):
                save_file(shard, partial / file)
                _sync(partial / file)
        shapes = {
            part: {name: list(tensor.shape) for name, tensor in tensors.items()} for part, tensors in parts.items()
        }
        write_text(partial / "state.json", json.dumps({"step": step, **state, "files": files, "shapes": shapes}))
        if final.exists():
            _remove(final)
        partial.rename(final)
        _sync(checkpoints)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in _complete(run)[:-keep]:
        _remove(old)
    return final


def remove_remains(run: Path) -> None:
    """Remove what killed saves left; call it before the first save of a process, while no other one saves here."""
    checkpoints = run / "checkpoints"
    broken_off = [folder for folder in checkpoints.glob("step-*") if not (folder / "state.json").exists()]
    for folder in [*checkpoints.glob(".partial-*"), *broken_off]:
        shutil.rmtree(folder, ignore_errors=True)


def latest(run: Path) -> Path | None:
    """The last complete checkpoint of a run; remains of a killed save are passed over."""
    found = _complete(run)
    return found[-1] if found else None


def load(folder: Path) -> tuple[Parts, dict[str, Any]]:
    """Read a checkpoint back.

    Returns
    -------
    parts : dict of dicts of Tensor
        On the CPU.
    state : dict
        As given to `save`, with ``step``.

    Raises
    ------
    ModelError
        A file is missing or damaged.
    """
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        files, shapes = state.pop("files"), state.pop("shapes")
        parts: Parts = {}
        for part, names in files.items():
            pieces: dict[str, list[Tensor]] = {name: [] for name in shapes[part]}
            for file in names:
                shard = load_file(folder / file)
                for key in sorted(shard, key=_piece_number):
                    pieces[key.rpartition("#")[0]].append(shard[key])
            parts[part] = {
                name: torch.cat([p.flatten() for p in found]).reshape(shapes[part][name])
                for name, found in pieces.items()
            }
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"checkpoint {folder} is incomplete or damaged: {error!r}") from error
    return parts, state


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and, apart, plain numbers."""
    given = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, values in given["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return tensors, {"numbers": numbers, "groups": given["param_groups"]}


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["numbers"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    # JSON knows no tuples, and Adam's betas are one.
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in plain["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Pack tensors into dicts of at most `LARGEST` bytes; a larger one is cut. Keys become ``name#piece``."""
    shards: list[dict[str, Tensor]] = [{}]
    room = LARGEST
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        per_piece = LARGEST // flat.element_size()
        for number, piece in enumerate(flat.split(per_piece) if flat.numel() else [flat]):
            size = piece.numel() * piece.element_size()
            if size > room:
                shards.append({})
                room = LARGEST
            shards[-1][f"{name}#{number}"] = piece.clone()  # safetensors refuses views of one storage
            room -= size
    return shards


def _piece_number(key: str) -> int:
    return int(key.rpartition("#")[2])


def _complete(run: Path) -> list[Path]:
    return sorted(folder for folder in (run / "checkpoints").glob("step-*") if _is_complete(folder))


def _is_complete(folder: Path) -> bool:
    try:
        files = json.loads((folder / "state.json").read_text("utf-8"))["files"]
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return all((folder / file).is_file() for names in files.values() for file in names)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; whenever that is broken off, what is left is none."""
    with suppress(OSError):
        (folder / "state.json").unlink()
    shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    _sync(partial)
    partial.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
