"""How different two images look to a network: our own distance, in the manner of LPIPS.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018
(arXiv 1801.03924), equation 1: at every place of a layer the channels are brought to unit length; the squares of their
differences are summed, averaged over places, and added up over layers.

Differs from the paper: the maps are those of `velatura.nets.features.Features` (or of its teachers), before activation
and standardised per channel, which stands in for the weights that the paper learns from people's judgements; layers
are averaged. So the figures are not LPIPS and are never called so: `PROTOCOL` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EMBEDDING", "PROTOCOL", "compare", "distances", "embedding_distance", "perceptual_distance"]

Extractor = Callable[..., dict[str, Tensor]]

PROTOCOL = (
    "velatura-features distance: five layers (strides 1 to 16), standardised channels before activation brought to "
    "unit length, squared difference summed over channels, mean over places and layers; RGB at native size, 8 bit, "
    "whole image; 0 = equal, lower = more alike; not LPIPS"
)

EMBEDDING = (
    "1 - cosine between the means over places of velatura-features' deepest layer (stride 16), RGB at native size, "
    "8 bit; 0 = equal; not a face recogniser"
)

EPSILON = 1e-8  # below any length that a map has


def distances(images: Tensor, references: Tensor, features: Extractor, layers: Iterable[str] | None = None) -> Tensor:
    """Give the distance of each pair, with a gradient where one is asked for.

    Parameters
    ----------
    images, references : Tensor of float32, (N, 3, H, W)
        RGB, 0..1, each side at least 32.
    features : callable
        ``features(image, layers) -> dict[str, Tensor]``: a `velatura.nets.features.Features`, or, for a second
        opinion, one of its teachers.
    layers : iterable of str, optional
        All of the extractor's if not given.

    Returns
    -------
    Tensor, (N,)
        0 for equal images, at most 4.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> from velatura.nets.features import Features
    >>> image = torch.rand(2, 3, 32, 40)
    >>> with torch.no_grad():
    ...     distances(image, image, Features()).tolist()
    [0.0, 0.0]
    """
    if images.shape != references.shape:
        raise ValueError(f"got shapes {tuple(images.shape)} and {tuple(references.shape)}; expected the same")
    wanted = None if layers is None else list(layers)
    ours, theirs = features(images, wanted), features(references, wanted)
    return compare(ours, theirs)


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """Give the distance of each pair, (N,), from maps of the same layers that are there already."""
    per_layer = [(_unit(ours[name]) - _unit(theirs[name])).square().sum(1).mean((1, 2)) for name in ours]
    return torch.stack(per_layer).mean(0)


@torch.no_grad()
def perceptual_distance(image: NDArray, reference: NDArray, features: Extractor) -> float:
    """Give the distance of two images, as `PROTOCOL` says.

    Parameters
    ----------
    image, reference : ndarray, (H, W), (H, W, 1) or (H, W, 3)
        uint8 or uint16 of their whole range, or floating in 0..1; rounded to 8 bits. Each side at least 32.
    features : callable
        As in `distances`, on the CPU or, if it is a module, wherever its weights are.

    Returns
    -------
    float
        0 for equal images; the larger, the more different they look. It takes about 2 KiB of memory a pixel.

    Raises
    ------
    ValueError
        The sizes differ.

    Examples
    --------
    >>> from velatura.nets.features import Features
    >>> grey = np.full((32, 48), 128, np.uint8)
    >>> perceptual_distance(grey, grey, Features())
    0.0
    """
    device = _device(features)
    return float(distances(_tensor(image).to(device), _tensor(reference).to(device), features)[0])


@torch.no_grad()
def embedding_distance(image: NDArray, reference: NDArray, features: Extractor) -> float:
    """Give the distance of what the deepest layer says of two images as a whole, as `EMBEDDING` says.

    Parameters
    ----------
    image, reference : ndarray
        As in `perceptual_distance`, but of any two sizes.
    features : callable
        As in `perceptual_distance`, with a layer ``stride16``.

    Returns
    -------
    float
        From 0, for equal images, to 2.

    Examples
    --------
    >>> from velatura.nets.features import Features
    >>> noise = np.random.default_rng(0).random((64, 64, 3))
    >>> abs(embedding_distance(noise, noise, Features())) < 1e-6
    True
    """
    device = _device(features)
    ours, theirs = (features(_tensor(one).to(device), ["stride16"])["stride16"].float() for one in (image, reference))
    return float(1 - torch.cosine_similarity(ours.mean((2, 3)), theirs.mean((2, 3)))[0])


def _device(features: Extractor) -> torch.device:
    return next(features.parameters()).device if isinstance(features, torch.nn.Module) else torch.device("cpu")


def _unit(maps: Tensor) -> Tensor:
    maps = maps.float()
    # The root of a sum and not the larger of two: its derivative is finite everywhere.
    return maps * (maps.square().sum(1, keepdim=True) + EPSILON).rsqrt()


def _tensor(image: NDArray) -> Tensor:
    """Round to 8 bits: (1, 3, H, W), 0..1."""
    image = np.asarray(image)
    top = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    values = np.rint(np.clip(image / np.float64(top), 0, 1) * 255) / 255
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in (1, 3):
        raise ValueError(f"got shape {np.shape(image)}; expected (H, W), (H, W, 1) or (H, W, 3)")
    rgb = np.repeat(values, 3 // values.shape[2], axis=2)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32))[None]
