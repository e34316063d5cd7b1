"""What images are compared in: our own features, or a VGG-19 of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from velatura import catalog
from velatura.errors import ModelError
from velatura.nets.features import Features
from velatura.nets.vgg19 import VGG19

__all__ = ["load_features"]


def load_features(spec: str = "velatura", own: str = "features") -> Features | VGG19:
    """Get what a content or a style loss looks through.

    Parameters
    ----------
    spec : str
        ``velatura``: our own features; a ``.safetensors`` file of such; or ``vgg19:FILE`` with a user's copy of
        torchvision's ``vgg19-*.pth`` (or the same as ``.safetensors``), or of Keras' weights as ``.npz``.
    own : str
        Which of the catalog's are our own.

    Returns
    -------
    Features or VGG19
        On the CPU, without gradients of its own; both give maps before activation by
        ``features(image, layers) -> dict[str, Tensor]``.

    Raises
    ------
    ModelError
        The file is missing, unsafe or of another network.
    """
    kind, colon, file = spec.partition(":")
    if kind == "vgg19" and colon:
        return _vgg19(Path(file).expanduser())
    name: str | Path = own if spec == "velatura" else Path(spec).expanduser()
    return catalog.load(name, {"Features": Features})


def _vgg19(path: Path) -> VGG19:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return VGG19.from_keras(dict(file))
        return VGG19.from_torchvision(catalog.open_weights(path).tensors)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; expected torchvision's vgg19-*.pth") from None
    except ModelError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path.name}: {error}") from None
