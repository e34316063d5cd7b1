"""Models of the catalog in the form that browsers, phones and other runtimes read: ONNX.

The file holds float32 weights and, in ``metadata_props``, what is to be known about them: ``name``, ``licence``,
``range``, ``scale``, ``sha256`` of our own file of weights and more. Height and width are free, but for networks that
see one size only. Operators are those of opset 18.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from velatura import __version__, catalog
from velatura.catalog import Card
from velatura.community import OURS, measured_radius
from velatura.errors import InputError, MachineError, ModelError
from velatura.nets.blending_gan import SIZE, BlendingGAN

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OPSET", "export_onnx"]

OPSET = 18  # what torch's exporter writes without converting, and what every runtime of the last years reads

ARCHITECTURES = {**OURS, "BlendingGAN": BlendingGAN}
RANGE = "RGB, NCHW, float32, 0..1 in and about 0..1 out: clip the output"


def export_onnx(name: str, path: str | Path, *, overwrite: bool = False) -> dict[str, str]:
    """Write a model of the catalog as an ONNX file.

    Parameters
    ----------
    name : str
        An upscaler, or ``blending-gan``: a network from images to an image.
    path : str or path
        Ends in ``.onnx``; it appears whole or not at all.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    dict of str to str
        The metadata in the file.

    Raises
    ------
    ModelError
        The model is unknown, damaged, or gives something else than an image.
    InputError
        The file exists and ``overwrite`` is False, or it cannot be written.
    MachineError
        onnx or onnxscript is not installed.
    """
    path = _checked(Path(path), overwrite)
    card = catalog.card(name)
    if card.architecture not in ARCHITECTURES:
        known = ", ".join(one.name for one in catalog.cards() if one.architecture in ARCHITECTURES)
        raise ModelError(f"{name}: a {card.architecture} does not give an image; what can be exported: {known}")
    _require("onnx", "onnxscript")
    network = catalog.load(name, ARCHITECTURES)
    notes = _notes(card, network)
    model = _converted(network)
    model.graph.name = name
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    _write(path, model.SerializeToString())
    return notes


def _checked(path: Path, overwrite: bool) -> Path:
    """Refuse a file that cannot be written, before the work."""
    if path.suffix != ".onnx":
        raise InputError(f"{path}: expected a name that ends in .onnx")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written; name a file in a folder that exists")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; name another file, or add --overwrite")
    return path


def _require(*modules: str) -> None:
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            raise MachineError(f'{module} is not installed; pip install "velatura[onnx]"') from None


def _notes(card: Card, network: nn.Module) -> dict[str, str]:
    notes: dict[str, Any] = {
        "name": card.name,
        "task": card.task,
        "licence": card.weights_licence,
        "commercial_use": f"{'yes' if card.commercial_use else 'no'}: {card.commercial_use_reason}",
        "range": RANGE,
        "scale": getattr(network, "scale", 1),
        "architecture": card.architecture,
        "arguments": json.dumps(card.arguments),
        "sha256": card.sha256,
        "paper": card.paper,
        "limits": " ".join(card.limits),
        "velatura": __version__,
    }
    if hasattr(network, "receptive_radius"):
        notes["receptive_radius"] = network.receptive_radius
        notes["multiple"] = card.arguments.get("unshuffle", 1)
        # Runtimes cut images into tiles, and cannot measure this themselves.
        notes["halo"] = measured_radius(network)[0]
    return {key: str(value) for key, value in notes.items()}


def _converted(network: nn.Module) -> ModelProto:
    """Let torch trace the network."""
    if isinstance(network, BlendingGAN):
        names, examples = ["composite", "mask"], (torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE))
        output, free = "blended", None
    else:
        names, examples = ["image"], (torch.zeros(1, 3, 16, 24),)
        output, free = "enlarged", ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    with _quiet():
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            dynamic_shapes=free,
            input_names=names,
            output_names=[output],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _clean(model)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says to its own developers off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _clean(model: ModelProto) -> None:
    """Take out where the code lay on this machine, and give the free sides their names."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.metadata_props[:], model.metadata_props[:]
    sides = graph.input[0].type.tensor_type.shape.dim
    words = {side.dim_param: word for side, word in zip(sides, ("", "", "height", "width"), strict=True)}
    words.pop("", None)
    for value in (*graph.value_info, *graph.input, *graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = re.sub(r"\w+", lambda found: words.get(found[0], found[0]), side.dim_param)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None
        raise
