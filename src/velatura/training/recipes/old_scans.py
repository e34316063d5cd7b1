"""Clean photographs, worn as old scans are: what all recipes of restoration train and measure on.

Grounds are photographs, faces, paintings; what wears them is `velatura.ops.damage.old_scan`, or, for the papers' own
settings, the chain of Wan et al. 2020 (arXiv 2004.09484, section 4.1). Some families of damage are never trained on
(``unseen``), so that a detector can be asked about what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator
from scipy.ndimage import gaussian_filter, grey_dilation
from torch import Tensor

from velatura.errors import InputError
from velatura.ops.damage import FAMILIES, OLD, Wear, Worn, damaged, old_scan
from velatura.ops.degrade import UNFADED, fade, grey, random_fading, unstructured
from velatura.training import data
from velatura.training.recipe import TrainConfig
from velatura.training.recipes.upscale import contact_sheet, draw_places

__all__ = [
    "CLEAN",
    "KINDS",
    "Grounds",
    "ScansConfig",
    "Worn",
    "careless",
    "eight_bit",
    "held_out_scans",
    "large_enough",
    "seen",
    "sheet",
    "side_of",
    "stacked",
    "wear_one",
]

# Share of the patches, set, folder in the set; of BSDS500 the same fifty photographs are held out as for upscaling, so
# that chains of both are measured on images that neither saw.
SETS = (
    (0.35, "sr_t91_bsds400", ""),
    (0.35, "sr_hr_patches", ""),
    (0.12, "faces256", "color/"),
    (0.08, "faces128", "gray/"),
    (0.1, "styles", "misc/"),
)
MEASURED = (("sr_t91_bsds400", "bsds500_"), ("sr_hr_patches", ""))  # sets, and the beginning of the paths
PURPOSE = "upscale"
HELD_OUT_EVERY = 20  # of a user's photographs by name: every twentieth is held out
HELD_OUT_SEED = 2004  # of how held-out photographs are worn

#: A photograph that nothing has happened to, but that it may have lost its colour.
CLEAN = Wear(lens=0, printed=0, faded=0, damaged=0, copied=(0, 0, 0, 0), scanned=0)
LINES = ("scratches", "hairs", "dust", "creases", "tears", "ink")
AREAS = ("holes", "patches")
DECOYS = (0.7, 1.5)  # pixels: how soft lines are that belong to the picture
# There is noise on every scan that is measured: PSNR of one that nothing has happened to would be infinite.
NOISY = replace(OLD, faded=0, damaged=0, copied=(1, *OLD.copied[1:]))
# A film full of scratches, a night sky of dust: damage of one or two families, again and again.
HEAVY = replace(OLD, damaged=1, most=8)
#: What is measured: how photographs are worn, and by which families.
KINDS: Mapping[str, tuple[Wear, tuple[str, ...]]] = MappingProxyType(
    {
        "unstructured": (NOISY, LINES),
        "lines": (replace(NOISY, damaged=1), LINES),
        "areas": (replace(NOISY, damaged=1, most=2), AREAS),
        "unseen": (replace(NOISY, damaged=1, most=1), ("cracks",)),
        "faded": (replace(NOISY, faded=1), LINES),
        "clean": (CLEAN, LINES),
        "stains": (replace(NOISY, damaged=1, most=1), ("stains",)),
    }
)


class ScansConfig(TrainConfig):
    """Which patches, and how they are worn."""

    photographs: str | None = Field(None, description="folder of clean photographs instead of our sets")
    patch: int = Field(128, ge=32, description="side of a patch in pixels")
    clean: float = Field(0.15, ge=0, le=1, description="share of the patches that nothing happens to")
    wear: Literal["scan", "paper"] = Field("scan", description="as old scans are worn, or as in Wan et al. 2020")
    unseen: tuple[str, ...] = Field(("cracks",), description="families of damage that are never trained on")
    heavy: float = Field(0, ge=0, le=1, description="share of the worn patches with far more damage than the others")
    smallest: float = Field(1, gt=0, le=1, description="share of their size that photographs are reduced to at most")
    decoys: float = Field(0, ge=0, le=1, description="share of the patches with lines and specks that are no damage")

    @field_validator("unseen")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(FAMILIES)):
            raise ValueError(f"unknown family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
        return names


class Grounds:
    """Clean images of one side of the split, in memory.

    Parameters
    ----------
    config : ScansConfig
    side : {"train", "held-out"}

    Attributes
    ----------
    sets : list of (float, list of ndarray of uint8, (H, W, 3))
        Share of the patches, and the images.

    Raises
    ------
    InputError
        A set or the folder is missing or too small.
    """

    def __init__(self, config: ScansConfig, side: Literal["train", "held-out"]) -> None:
        self.config = config
        self.sets = [(share, _arrays(images)) for share, images in large_enough(self._read(side), config.patch)]
        self._sizes = [np.array([image.shape[:2] for image in images], dtype=np.int64) for _, images in self.sets]

    def draw(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw one patch (patch, patch, 3), each of all possible ones of a set with the same chance, in eight turns."""
        shares = np.array([share for share, _ in self.sets])
        chosen = int(rng.choice(len(shares), p=shares / shares.sum()))
        sizes, side = self._sizes[chosen], self.config.patch
        if self.config.smallest < 1:
            larger = round(side / rng.uniform(self.config.smallest, 1))
            side = max(side, min(larger, int(sizes.min(1).max())))
        (place,) = draw_places(sizes, rng, 1, side, 1)
        return _reduced(place.cut(self.sets[chosen][1][place.index]), self.config.patch)

    def scan(self, rng: np.random.Generator) -> Worn:
        """Draw a patch and wear it, or leave it clean."""
        return wear_one(self.config, self.draw(rng), rng)

    def _read(self, side: Literal["train", "held-out"]) -> list[tuple[float, data.Images]]:
        if self.config.photographs:
            return [(1.0, side_of(data.read_folder(Path(self.config.photographs)), side))]
        folder = data.data_folder(self.config.data)
        if side == "train":
            return [
                (share, data.read_set(folder, name, side, under=under, purpose=PURPOSE)) for share, name, under in SETS
            ]
        return [(1.0, data.read_set(folder, name, side, under=under, purpose=PURPOSE)) for name, under in MEASURED]


def large_enough(sets: list[tuple[float, data.Images]], patch: int) -> list[tuple[float, data.Images]]:
    """Leave out sets whose images are all smaller than a patch; if none is left, drawing says so."""
    return [(share, images) for share, images in sets if images.shapes[:, :2].min(1).max() >= patch] or sets


def seen(config: ScansConfig) -> tuple[str, ...]:
    """Name the families that are trained on."""
    return tuple(name for name in FAMILIES if name not in config.unseen)


def wear_one(config: ScansConfig, image: NDArray[np.uint8], rng: np.random.Generator) -> Worn:
    """Wear an image as the settings say, or leave it clean."""
    unit = image.astype(np.float32) / np.float32(255)
    if config.decoys and rng.random() < config.decoys:
        unit = _with_decoys(unit, rng)
    if rng.random() < config.clean:
        return old_scan(unit, rng, CLEAN, seen(config))
    if config.wear == "scan":
        if config.heavy and rng.random() < config.heavy:
            return old_scan(unit, rng, HEAVY, tuple(rng.choice(seen(config), 2)) * (HEAVY.most // 2))
        return old_scan(unit, rng, OLD, seen(config))
    return _as_in_the_paper(unit, rng, seen(config))


def held_out_scans(config: ScansConfig, kind: str, count: int, side: int) -> list[Worn]:
    """Give held-out photographs, spread evenly over the names, worn in one way that stays the same.

    Parameters
    ----------
    config : ScansConfig
        Where the photographs are.
    kind : str
        Of `KINDS`.
    count : int
        How many at most.
    side : int
        Pixels: the middle of larger photographs is taken.
    """
    images = [image for _, images in Grounds(config, "held-out").sets for image in images]
    wear, families = KINDS[kind]
    found = []
    for index in np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)):
        image = images[index]
        top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
        unit = image[top : top + side, left : left + side].astype(np.float32) / np.float32(255)
        rng = np.random.default_rng((HELD_OUT_SEED, list(KINDS).index(kind), int(index)))
        found.append(old_scan(unit, rng, wear, families))
    return found


def careless(scan: Worn, rng: np.random.Generator) -> NDArray[np.float32]:
    """Give a scan's mask as a detector or a hand draws it: half are exact, others too wide, with parts missing, empty.

    Half of them mark stains, too: a hand does, a detector does not.

    Returns
    -------
    ndarray of float32, (H, W)
        0 or 1.
    """
    mask, kind = scan.damage if rng.random() < 0.5 else scan.mask, rng.random()
    if kind < 0.5:
        return mask
    if kind < 0.8:
        size = int(rng.choice((3, 5)))
        return np.asarray(grey_dilation(mask, (size, size)), np.float32)
    if kind < 0.93:
        cell = int(rng.integers(8, 33))
        rows, cols = (-(-n // cell) for n in mask.shape)
        kept = (rng.random((rows, cols)) < 0.8).repeat(cell, 0).repeat(cell, 1)[: mask.shape[0], : mask.shape[1]]
        return mask * kept.astype(np.float32)
    return np.zeros_like(mask)


def stacked(planes: Sequence[NDArray[np.float32]]) -> Tensor:
    """From images (H, W, 3) or masks (H, W) of one size to (N, C, H, W)."""
    array = np.stack(planes)
    return torch.from_numpy(array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2).copy())


def eight_bit(image: NDArray[np.floating] | Tensor) -> NDArray[np.uint8]:
    """Round an image (H, W, 3) of about 0..1, or a Tensor (3, H, W), to 8 bits."""
    array = image.permute(1, 2, 0).float().cpu().numpy() if isinstance(image, Tensor) else image
    return np.rint(255 * array.clip(0, 1)).astype(np.uint8)


def sheet(columns: Sequence[Sequence[NDArray[np.floating] | Tensor]], side: int) -> NDArray[np.uint8]:
    """Put the middles of images side by side: a row per image, a column per state, two rows abreast."""
    return contact_sheet([[eight_bit(image) for image in column] for column in columns], side)


def _reduced(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if len(image) == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _with_decoys(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Lay wires, twigs and specks into the picture itself, as soft as a lens makes them, below all that wears it."""
    drawn, _, _ = damaged(image, rng, LINES, int(rng.integers(1, 3)))
    return gaussian_filter(drawn, (*[rng.uniform(*DECOYS)] * 2, 0)).astype(np.float32)


def _as_in_the_paper(image: NDArray[np.float32], rng: np.random.Generator, families: Sequence[str]) -> Worn:
    """Unstructured degradations, then fading and damage on top, a tenth of the photographs grey."""
    original = grey(image) if rng.random() < 0.1 else image
    fading = random_fading(rng) if rng.random() < 0.5 else UNFADED
    count = int(rng.integers(1, 4)) if rng.random() < 0.7 else 0
    done, mask, stained = damaged(fade(unstructured(original, rng), fading), rng, families, count)
    rounded = (np.rint(255 * done.clip(0, 1)) / 255).astype(np.float32)
    return Worn(rounded, mask, stained, fade(original, fading), original, fading)


def _arrays(images: data.Images) -> list[NDArray[np.uint8]]:
    return [images[i] for i in range(len(images))]


def side_of(images: data.Images, side: str) -> data.Images:
    """Keep every twentieth of a user's photographs, or all the others."""
    held = [i for i in range(len(images)) if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1] or [len(images) - 1]
    chosen = held if side == "held-out" else [i for i in range(len(images)) if i not in held]
    if not chosen:
        raise InputError("one photograph is not enough: at least one is to be trained on and one to be measured")
    return data.Images(
        names=tuple(images.names[i] for i in chosen),
        pixels=np.concatenate([images[i].ravel() for i in chosen]),
        shapes=images.shapes[chosen],
    )
