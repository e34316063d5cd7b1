"""The networks that restore old photographs, sent over scans of any size in tiles: arrays in, rows out, no files.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484). `velatura.tasks.restore` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from velatura import catalog
from velatura.device import half_precision
from velatura.nets.fading import FadingEstimator
from velatura.nets.restoration import Restorer
from velatura.nets.scratch_detector import ScratchDetector
from velatura.nets.tiles import in_tiles
from velatura.nets.triplet import Triplet
from velatura.ops.degrade import Fading
from velatura.ops.fading import from_numbers, statistics
from velatura.tiling import tile_side

__all__ = ["Detector", "Restoring", "estimate", "load_detector", "load_estimator", "load_restorer"]

ARCHITECTURES: dict[str, type[nn.Module]] = {"Restorer": Restorer, "Triplet": Triplet}
HALF = 0.5  # probability over which a pixel is damaged, where the weights name no threshold
STEEP = 6.0  # how far the threshold's logit goes over all sensitivities
LEAST = 64  # pixels: a smaller tile is little but halo
BYTES = {Restorer: 1000, Triplet: 1400, ScratchDetector: 600}  # for each pixel of a tile: measured 755, 1059 and 418

#: ``read(start, stop)``: rows of an image, (stop - start, W, C) float32, 0..1.
Read = Callable[[int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Detector:
    """What finds damage.

    Attributes
    ----------
    network : nn.Module
        From images to logits.
    threshold : float
        Probability over which a pixel is damaged.
    """

    network: nn.Module
    threshold: float

    def tuned(self, sensitivity: float) -> Detector:
        """Mark more or less than measured: 0.5 keeps the threshold; its logit falls by `STEEP` from 0 to 1.

        Examples
        --------
        >>> [round(Detector(nn.Identity(), 0.5).tuned(each).threshold, 3) for each in (0, 0.5, 1)]
        [0.953, 0.5, 0.047]
        """
        odds = self.threshold / (1 - self.threshold) * math.exp(STEEP * (0.5 - sensitivity))
        return replace(self, threshold=odds / (1 + odds))

    @torch.inference_mode()
    def marks(self, read: Read, height: int, width: int, memory: float) -> Iterator[np.ndarray]:
        """Find damage in an image of three channels: rows (h, W) uint8, 255 = damaged."""
        for band in _in_tiles(self.network, read, height, width, memory):
            yield (band[0, 0].sigmoid() > self.threshold).cpu().numpy() * np.uint8(255)


@dataclass(frozen=True, slots=True)
class Restoring:
    """What restores.

    Attributes
    ----------
    name : str
        Of the model.
    network : nn.Module
        From images and masks to images.
    """

    name: str
    network: nn.Module

    @property
    def undoes_fading(self) -> bool:
        """Whether colours come out unfaded."""
        return isinstance(self.network, Triplet)

    @torch.inference_mode()
    def rows(self, read: Read, height: int, width: int, memory: float) -> Iterator[np.ndarray]:
        """Restore an image of four channels, the last the mask (1 = damaged): rows (h, W, 3) float32, 0..1."""
        for band in _in_tiles(self.network, read, height, width, memory):
            yield band[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def load_restorer(name_or_path: str | Path, device: torch.device) -> Restoring:
    """Read a restorer, direct or triplet; errors are those of `velatura.catalog.load`."""
    network = catalog.load(name_or_path, ARCHITECTURES, device)
    return Restoring(Path(name_or_path).stem, network)


def load_detector(name_or_path: str | Path, device: torch.device) -> Detector:
    """Read a detector of damage and the threshold that was measured for it."""
    architectures = {"ScratchDetector": ScratchDetector}
    weights = catalog.open_weights(name_or_path, architectures)
    network = catalog.assemble(weights, architectures, device)
    metrics = weights.header.metrics if weights.header else {}
    thresholds = metrics.get("thresholds")
    found = thresholds.get("ours") if isinstance(thresholds, dict) else None
    return Detector(network, found if isinstance(found, float) and 0 < found < 1 else HALF)


def load_estimator(name_or_path: str | Path) -> FadingEstimator:
    """Read what tells fading."""
    return catalog.load(name_or_path, {"FadingEstimator": FadingEstimator})


@torch.inference_mode()
def estimate(network: FadingEstimator, thumbnail: np.ndarray) -> Fading:
    """Tell how a photograph has faded by its thumbnail (h, w, 1 or 3), 0..1."""
    colours = np.broadcast_to(thumbnail, (*thumbnail.shape[:2], 3)).reshape(1, -1, 3)
    return from_numbers(network(torch.from_numpy(statistics(colours)))[0].double().numpy())


def _in_tiles(network: nn.Module, read: Read, height: int, width: int, memory: float) -> Iterator[Tensor]:
    """Send an image through a network in tiles with all that it sees around them; (1, C, h, W) from top to bottom."""
    device = next(network.parameters()).device
    multiple, radius = int(network.multiple), int(network.receptive_radius)  # type: ignore[arg-type]
    # Tiles begin where the network's own cells do; only so is a tile's result that of the whole image.
    halo = -(-radius // multiple) * multiple
    least = -(-LEAST // multiple) * multiple
    side = max(tile_side(memory, BYTES[type(network)], halo, multiple=multiple), least)
    if height * width * BYTES[type(network)] <= memory * 2**20:
        side = -(-max(height, width, least) // multiple) * multiple  # one tile: nothing is computed twice

    def tensor(start: int, stop: int) -> Tensor:
        return torch.from_numpy(read(start, stop)).to(device).permute(2, 0, 1)[None]

    yield from in_tiles(_Planes(network, half_precision(device)), tensor, height, width, side, halo)


class _Planes(nn.Module):
    """A network that takes image and mask as one; its convolutions compute in half precision where the device does."""

    scale = 1

    def __init__(self, network: nn.Module, half: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.precision = network, half
        self.multiple = network.multiple

    def forward(self, planes: Tensor) -> Tensor:
        planes = planes.contiguous(memory_format=torch.channels_last)
        parts = (planes,) if planes.shape[1] == 3 else (planes[:, :3], planes[:, 3:])
        with torch.autocast(planes.device.type, self.precision, enabled=self.precision is not None):
            return self.network(*parts).float()
