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
from velatura.training.recipes import load_run

__all__ = ["export_run", "export_weights"]


def export_run(run: Path, path: Path, *, metrics: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write the averaged network of a run.

    Parameters
    ----------
    run : Path
        The run's folder.
    path : Path
        The ``.safetensors`` file, replaced whole.
    metrics : dict
        Held-out figures, for the header.
    dtype : torch.dtype
        Of the weights.

    Raises
    ------
    ModelError
        There is no checkpoint, or a weight does not fit `dtype`.
    """
    recipe, network, step = load_run(run)
    settings = recipe.config.model_dump()
    # Where the data lay and how many threads there were is the machine's, not the model's.
    recipe_settings = {
        k: v for k, v in settings.items() if k not in {"data", "photographs", "pretrained", "scenes", "threads"}
    }
    for name in ("start", "features", "generator"):
        if recipe_settings.get(name):
            recipe_settings[name] = Path(recipe_settings[name]).name
    header = {
        "architecture": recipe.architecture,
        "arguments": recipe.arguments,
        "recipe": {"name": recipe.name, "settings": recipe_settings},
        "commit": commit(),
        "step": step,
        "metrics": metrics,
    }
    export_weights(dict(network.state_dict()), path, header, dtype)


def export_weights(weights: dict[str, Tensor], path: Path, header: dict[str, Any], dtype: torch.dtype) -> None:
    """Write weights with a header: texts as they are, anything else as JSON.

    Raises
    ------
    ModelError
        A weight is not finite in `dtype`.
    """
    converted = {}
    for name, tensor in weights.items():
        converted[name] = tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor.contiguous()
        if not converted[name].isfinite().all():
            raise ModelError(f"weight {name} is not finite as {dtype}")
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file(converted, partial, metadata=metadata)
    partial.replace(path)
