"""A small model that makes pictures from words, as a file: what tests of the application and the command share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from velatura.nets.gan_cls import TextToImage

WORDS = ["a", "blue", "flower", "red", "with"]
ARGUMENTS: dict[str, Any] = {
    "text": {"vocabulary": WORDS, "embedding": 4, "width": 4, "size": 8},
    "noise": 6,
    "condensed": 4,
    "width": 4,
}


def save(folder: Path) -> None:
    """Write ``words.safetensors``, and ``plain.safetensors`` without a style encoder."""
    for name, more in {"words": {"style_width": 4}, "plain": {}}.items():
        torch.manual_seed(0)
        arguments = {**ARGUMENTS, **more}
        header = {"architecture": "TextToImage", "arguments": json.dumps(arguments)}
        state = {key: value.contiguous() for key, value in TextToImage(**arguments).state_dict().items()}
        save_file(state, folder / f"{name}.safetensors", header)
