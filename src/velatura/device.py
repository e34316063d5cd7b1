"""Where to compute, in what precision, with how many threads.

This module imports torch only when a device is asked for: `threads` serves code that never needs it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from velatura.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["half_precision", "limit_threads", "resolve_device", "threads"]

_limits: list[list[int]] = []  # in force, the last entered last
_changing = threading.Lock()
_torchs_own: int | None = None  # torch's number of threads before a limit changed it


def threads() -> int:
    """Threads that one task may use: what `limit_threads` set, else the processors this process may run on."""
    if _limits:
        return _limits[-1][0]
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` threads (None: no limit) inside the block, in torch and in the transforms.

    When the block ends torch has as many threads as before. If it is loaded inside the block, the limit reaches it in
    `resolve_device`.

    Raises
    ------
    InputError
        ``count`` is less than 1.
    """
    if count is None:
        yield
        return
    if count < 1:
        raise InputError(f"got {count} threads; expected at least 1")
    limit = [count]  # an object of its own: blocks of several threads may end in any order
    with _changing:
        _limits.append(limit)
        _tell_torch()
    try:
        yield
    finally:
        with _changing:
            _limits[:] = [other for other in _limits if other is not limit]
            _tell_torch()


def _tell_torch() -> None:
    """Give torch, if it is loaded, the limit in force, or back what it had before the first."""
    global _torchs_own
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if _limits:
        _torchs_own = _torchs_own or torch.get_num_threads()
        torch.set_num_threads(_limits[-1][0])
    elif _torchs_own is not None:
        torch.set_num_threads(_torchs_own)
        _torchs_own = None


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu`` into a device that is there.

    ``auto`` takes the first of CUDA, MPS, XPU and the CPU. The number of threads is torch's own, but inside
    `limit_threads`.

    Raises
    ------
    InputError
        The name is unknown, or this machine has no such device.
    """
    import torch

    _tell_torch()  # it may have been loaded just now
    available = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": lambda: hasattr(torch, "xpu") and torch.xpu.is_available(),
        "cpu": lambda: True,
    }
    if name == "auto":
        name = next(kind for kind, is_available in available.items() if is_available())
    kind, _, index = name.partition(":")
    if kind not in available or (index and not index.isdigit()):
        raise InputError(f"unknown device {name!r}; expected auto, {', '.join(available)}, or one like cuda:1")
    if not available[kind]():
        raise InputError(f"this machine has no {kind!r} device that torch can use; try --device auto")
    if index and kind in ("cuda", "xpu") and int(index) >= getattr(torch, kind).device_count():
        raise InputError(f"device {name!r} is not there; this machine has {getattr(torch, kind).device_count()}")
    return torch.device(name)


def half_precision(device: torch.device, *, gradients: bool = False) -> torch.dtype | None:
    """Give the half-precision type that ``device`` computes natively, or None where float32 is as fast.

    On a CPU that is bfloat16 with AVX-512 BF16 or AMX; emulated bfloat16 is slower than float32. With ``gradients``
    never float16, whose smallest numbers are too large for them.
    """
    import torch

    short = None if gradients else torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else short
    if device.type in ("mps", "xpu"):
        return short
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if probe is not None and probe() else None
