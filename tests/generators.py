"""Small generators as files: what tests of the application, command and figures share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from velatura.nets.dcgan import Generator
from velatura.nets.lapgan import LAPGAN
from velatura.nets.vae import VAE

DCGAN_ARGUMENTS: dict[str, Any] = {"latent": 6, "size": 32, "width": 4}
VAE_ARGUMENTS: dict[str, Any] = {"latent": 6, "size": 32, "width": 4, "channels": 1}
LAPGAN_ARGUMENTS: dict[str, Any] = {
    "latent": 6,
    "size": 32,
    "width": 4,
    "start_width": 4,
    "classes": ["forest", "sea"],
}


def save(folder: Path) -> None:
    """Write ``dcgan``, ``vae`` and ``lapgan.safetensors``, each with a header that says what it is."""
    torch.manual_seed(0)
    _write(folder / "dcgan.safetensors", Generator(**DCGAN_ARGUMENTS), DCGAN_ARGUMENTS)
    _write(folder / "vae.safetensors", VAE(**VAE_ARGUMENTS), VAE_ARGUMENTS)
    _write(folder / "lapgan.safetensors", LAPGAN(**LAPGAN_ARGUMENTS), LAPGAN_ARGUMENTS)


def _write(path: Path, network: nn.Module, arguments: dict[str, Any]) -> None:
    header = {"architecture": type(network).__name__, "arguments": json.dumps(arguments)}
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, header)
