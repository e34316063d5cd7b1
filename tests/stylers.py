"""A small style transfer that does something, as a file: what tests of the application, command and figures share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from velatura.nets.style_transfer import StyleTransfer

ARGUMENTS: dict[str, Any] = {"width": 12, "outer": 2, "inner": 1}


def make(seed: int = 0) -> StyleTransfer:
    """Build one whose vectors differ between styles and whose norms listen to them."""
    torch.manual_seed(seed)
    network = StyleTransfer(**ARGUMENTS).eval().requires_grad_(False)
    for layer in network.transformer.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(5)
    return network


def save(folder: Path, name: str = "styler", seed: int = 0) -> Path:
    """Write the weights of `make`, with a header that says what they are."""
    path = folder / f"{name}.safetensors"
    state = {key: value.contiguous() for key, value in make(seed).state_dict().items()}
    save_file(state, path, {"architecture": "StyleTransfer", "arguments": json.dumps(ARGUMENTS)})
    return path
