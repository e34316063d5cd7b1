"""Small networks of random numbers that fill holes, as the files that the package would ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from velatura import catalog
from velatura.faces import TEMPLATE, Face
from velatura.nets.dcgan import Discriminator, Generator
from velatura.nets.face_finder import FaceFinder
from velatura.nets.masked_encoder import MaskedEncoder
from velatura.nets.vae import VAE

SMALL = {"size": 64, "width": 4}
CARD = (
    'task = "inpaint"\ncommercial_use = true\ncommercial_use_reason = "made of random numbers"\n'
    'weights_licence = "Apache-2.0"\nrecipe = "none"\ncommit = "none"\nprotocol = "none"\npaper = "none"\n'
    "limits = []\nimages = []\n"
)


def save(folder: Path, name: str, kind: type[nn.Module], subject: str = "faces", settings=None, **arguments) -> Path:
    """Write a network of random numbers; its image is not flat."""
    torch.manual_seed(len(name))
    with torch.no_grad():
        net = kind(**arguments)
        for key, weight in net.named_parameters():
            if key.endswith("leave.weight"):
                weight *= 3
    path = folder / f"{name}.safetensors"
    notes = {
        "architecture": kind.__name__,
        "arguments": json.dumps(arguments),
        "recipe": json.dumps({"name": name, "settings": {"subject": subject, **(settings or {})}}),
    }
    save_file(net.state_dict(), path, notes)
    return path


def save_vae(folder: Path, name: str = "vae-faces", subject: str = "faces", channels: int = 3, **settings) -> Path:
    return save(folder, name, VAE, subject, settings, latent=8, channels=channels, **SMALL)


def save_gan(folder: Path, name: str = "dcgan-faces", *, encoder: bool = True, critic: bool = True, **more) -> Path:
    """Write a generator, and beside it what belongs to it."""
    path = save(folder, name, Generator, latent=8, norm="batch", **SMALL, **more)
    if encoder:
        save(folder, f"{name}-encoder", MaskedEncoder, latent=8, **SMALL)
    if critic:
        save(folder, f"{name}-critic", Discriminator, **SMALL)
    return path


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, *, finder: bool = True) -> None:
    """Let the catalog hold VAEs of faces and brains, a GAN of faces, and a face finder that finds nothing."""
    weights = folder / "shipped"
    weights.mkdir()
    save_vae(weights)
    save_vae(weights, "vae-brain", "brain", 1)
    save_gan(weights)
    if finder:
        save(weights, "face-finder", FaceFinder)
    names = [path.stem for path in sorted(weights.iterdir())]
    table = folder / "catalog.toml"
    table.write_text("".join(f'[{name}]\nfile = "{name}.safetensors"\n{CARD}\n' for name in names))
    monkeypatch.setattr(catalog, "WEIGHTS", weights)
    monkeypatch.setattr(catalog, "CATALOG", table)
    for name in names:
        catalog.fill_card(name)


def upright(left: float, top: float, side: float) -> Face:
    """The face whose aligned square begins at (left, top)."""
    points = TEMPLATE * side + (left, top)
    box = (left + 0.18 * side, top + 0.1 * side, left + 0.82 * side, top + 0.98 * side)
    return Face(box, tuple(map(tuple, points)), 1.0)
