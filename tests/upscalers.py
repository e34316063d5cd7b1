"""Small upscalers that do something, as files: what tests of the application, the command and the figures share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from velatura.nets.rrdb import RRDB
from velatura.nets.srcnn import SRCNN
from velatura.nets.srresnet import SRResNet
from velatura.nets.srvgg import SRVGG

KINDS: dict[str, tuple[Callable[..., nn.Module], dict]] = {
    "srcnn": (SRCNN, {}),
    "srcnn-3": (SRCNN, {"scale": 3, "middle": 1}),
    "srresnet": (SRResNet, {"width": 16, "blocks": 3}),
    "srresnet-2": (SRResNet, {"scale": 2, "width": 8, "blocks": 1}),
    "srresnet-norm": (SRResNet, {"scale": 2, "width": 8, "blocks": 1, "norm": True, "residual": False}),
    "rrdb": (RRDB, {"width": 8, "growth": 4, "blocks": 1, "tail": 8}),
    "rrdb-unshuffle": (
        RRDB,
        {"scale": 1, "width": 8, "growth": 4, "blocks": 1, "tail": 8, "residual": False, "unshuffle": 4},
    ),
    "srvgg": (SRVGG, {"width": 8, "depth": 3}),
    "srvgg-1": (SRVGG, {"scale": 1, "width": 8, "depth": 1}),
}


CHANGE = 4 / 255  # of the plain enlargement, in the mean


def make(kind: str, seed: int = 0) -> nn.Module:
    """Build one of `KINDS`: all its weights do something, and what comes out is near the plain enlargement."""
    build, arguments = KINDS[kind]
    torch.manual_seed(seed)
    network = build(**arguments).eval().requires_grad_(False)
    for parameter in network.parameters():
        # Also the last layers, which begin as zeros; biases too.
        parameter.add_(torch.randn_like(parameter) * (0.5 / max(parameter[0].numel(), 16) ** 0.5))
    if arguments.get("residual", True):
        image = torch.rand(1, 3, 24, 24)
        last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
        made = network(image)
        weight, bias = last.weight.clone(), last.bias.clone()
        plain = (last.weight.zero_(), last.bias.zero_(), network(image))[-1]
        factor = CHANGE / (made - plain).abs().mean()
        last.weight.copy_(weight * factor)
        last.bias.copy_(bias * factor)
    return network


def save(folder: Path, kind: str, seed: int = 0, name: str = "") -> Path:
    """Write the weights of `make`, with a header that says what they are."""
    network, (build, arguments) = make(kind, seed), KINDS[kind]
    path = folder / f"{name or kind}.safetensors"
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, path, {"architecture": build.__name__, "arguments": json.dumps(arguments)})
    return path
