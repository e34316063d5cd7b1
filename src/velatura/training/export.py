"""From a run to the file that is shipped: the averaged weights in half precision, with a JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from velatura.errors import ModelError
from velatura.metrics.report import commit
from velatura.training import checkpoint
from velatura.training.recipes import load_run

__all__ = ["export_run", "export_weights"]


def export_run(
    run: Path, path: Path, *, metrics: dict[str, Any], dtype: torch.dtype = torch.float16, network: str = ""
) -> None:
    """Write the averaged network of a run, or another one.

    Parameters
    ----------
    run : Path
        The run's folder.
    path : Path
        The ``.safetensors`` file, replaced whole.
    metrics : dict
        Held-out figures, for the header.
    dtype : torch.dtype
        Of the weights; for ``torch.int8`` see `export_weights`.
    network : str
        One of those that the recipe's ``others`` names with architecture and arguments; not averaged.

    Raises
    ------
    ModelError
        There is no checkpoint or no such network, or a weight does not fit `dtype`.
    """
    recipe, average, step = load_run(run)
    architecture, arguments, weights = recipe.architecture, recipe.arguments, dict(average.state_dict())
    if network:
        others = getattr(recipe, "others", {})
        if network not in others:
            raise ModelError(f"recipe {recipe.name} has no network {network!r}; known: {', '.join(others) or 'none'}")
        architecture, arguments = others[network]
        found = checkpoint.latest(run)
        assert found is not None  # load_run would have refused
        weights = checkpoint.load(found)[0][network]
    settings = recipe.config.model_dump()
    # Where the data lay and how many threads there were is the machine's, not the model's.
    machine = {"data", "photographs", "pretrained", "scenes", "threads"}
    recipe_settings = {k: _without_folder(v) for k, v in settings.items() if k not in machine}
    header = {
        "architecture": architecture,
        "arguments": arguments,
        "recipe": {"name": recipe.name, "settings": recipe_settings},
        "commit": commit(),
        "step": step,
        "metrics": metrics,
    }
    export_weights(weights, path, header, dtype)


def export_weights(weights: dict[str, Tensor], path: Path, header: dict[str, Any], dtype: torch.dtype) -> None:
    """Write weights with a header: texts as they are, anything else as JSON.

    As ``torch.int8``, matrices and convolutions have 8 bits and a scale for each output channel
    (`velatura.catalog`), half of the bytes; all else stays in half precision.

    Raises
    ------
    ModelError
        A weight is not finite in `dtype`.
    """
    converted = {}
    for name, tensor in weights.items():
        if dtype == torch.int8 and tensor.is_floating_point() and tensor.ndim > 1:
            converted[name], converted[f"{name}.scale"] = _eight_bits(tensor)
        else:
            plain = torch.float16 if dtype == torch.int8 else dtype
            converted[name] = tensor.to(plain).contiguous() if tensor.is_floating_point() else tensor.contiguous()
    for name, tensor in converted.items():
        if not tensor.isfinite().all():
            raise ModelError(f"weight {name} is not finite as {dtype}")
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file(converted, partial, metadata=metadata)
    partial.replace(path)


def _eight_bits(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round to whole multiples, -127..127, of a scale for every entry of the first axis."""
    largest = tensor.flatten(1).abs().amax(1).float()
    scale = torch.where(largest > 0, largest / 127, 1.0)
    steps = tensor / scale.view(-1, *(1 for _ in tensor.shape[1:]))
    return steps.round().to(torch.int8).contiguous(), scale


def _without_folder(value: Any) -> Any:
    """Keep of a path its last part: where a file lay is the machine's, too."""
    return Path(value).name if isinstance(value, str) else value
