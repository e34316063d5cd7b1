"""Small networks of random numbers that restore, as the files that the package would ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from velatura import catalog
from velatura.nets.fading import FadingEstimator
from velatura.nets.restoration import Restorer
from velatura.nets.scratch_detector import ScratchDetector
from velatura.nets.triplet import Triplet
from velatura.nets.unet import UNet

KINDS: dict[str, tuple[type[nn.Module], dict]] = {
    "direct": (Restorer, {"widths": [6, 8], "blocks": [1, 1]}),
    "triplet": (
        Triplet,
        {"latent": 4, "vae_width": 4, "vae_blocks": 1, "width": 8, "blocks": 2, "window": 4, "halo": 2},
    ),
    "scratch-detector": (ScratchDetector, {"widths": [6, 8], "blocks": [1, 1]}),
    "fading-estimator": (FadingEstimator, {"width": 4}),
}
THRESHOLD = 0.6
CARD = (
    'task = "restore"\ncommercial_use = true\ncommercial_use_reason = "made of random numbers"\n'
    'weights_licence = "Apache-2.0"\nrecipe = "none"\ncommit = "none"\nprotocol = "none"\npaper = "none"\n'
    "limits = []\nimages = []\n"
)


@torch.no_grad()
def make(name: str) -> nn.Module:
    """Build one of `KINDS`; it does something everywhere."""
    kind, arguments = KINDS[name]
    torch.manual_seed(len(name))
    net = kind(**arguments)
    for module in net.modules():
        if isinstance(module, UNet):  # its last layer begins as zeros
            module.leave.weight.normal_(0, 0.3 if kind is ScratchDetector else 0.01)
            module.leave.bias.zero_()
    if isinstance(net, FadingEstimator):
        bias = net.layers[-1].bias
        bias.copy_(torch.tensor([0.5, 0.3, 0.1, 0.1, 0.2, 0.5, 0.2, 0.0, -0.1, 0.3, 4.0]))  # the gate is open
    return net.eval().requires_grad_(False)


def save(folder: Path, name: str) -> Path:
    """Write the weights of `make`, with a header that says what they are."""
    kind, arguments = KINDS[name]
    path = folder / f"{name}.safetensors"
    notes = {"architecture": kind.__name__, "arguments": json.dumps(arguments)}
    if kind is ScratchDetector:
        notes["metrics"] = json.dumps({"thresholds": {"ours": THRESHOLD}})
    save_file({key: value.contiguous() for key, value in make(name).state_dict().items()}, path, notes)
    return path


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = tuple(KINDS)) -> Path:
    """Let the catalog hold these networks and nothing else; gives the folder of the weights."""
    weights = folder / "shipped"
    weights.mkdir(parents=True)
    table = folder / "catalog.toml"
    table.write_text("".join(f'[{name}]\nfile = "{save(weights, name).name}"\n{CARD}\n' for name in names))
    monkeypatch.setattr(catalog, "WEIGHTS", weights)
    monkeypatch.setattr(catalog, "CATALOG", table)
    for name in names:
        catalog.fill_card(name)
    return weights
