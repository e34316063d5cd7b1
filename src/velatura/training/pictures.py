"""Small square pictures of one kind, as generators learn them: faces, slices of brains, a folder of the user's.

A set is decoded once. What is measured is the whole picture, reduced by area to the size asked for; what is trained on
may be a little larger, moved, turned, bent, mirrored, lighter or darker, its colours a little different.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from velatura.errors import InputError
from velatura.training import data
from velatura.training.recipe import TrainConfig

__all__ = ["Pictures", "PicturesConfig", "contact_sheet", "to_tensor"]

MESH = 4  # parts of a side that is bent
HELD_OUT_EVERY = 20  # of a user's pictures by name: every twentieth is held out
LARGEST = 2  # times the size: larger originals are shrunk when they are read, so that a set fits into memory


class PicturesConfig(TrainConfig):
    """Which pictures, how large, how much they are changed."""

    subject: Literal["faces", "brain"] = Field("faces", description="our set: faces128 in colour and grey, or brain96")
    photographs: str | None = Field(None, description="folder of pictures instead of our set, such as CelebA's")
    size: int = Field(64, ge=16, description="side in pixels, a multiple of 16")
    gray_share: float = Field(0.35, ge=0, le=1, description="of faces: how many of the draws are grey photographs")
    zoom: float = Field(0.0, ge=0, lt=1, description="share of the side that may be cut off, at random places")
    turn: float = Field(0.0, ge=0, description="degrees that a picture may be turned, either way")
    warp: float = Field(0.0, ge=0, lt=0.1, description="share of the side that inner points may be moved, each way")
    light: float = Field(0.0, ge=0, lt=1, description="share that the contrast may change, either way")
    tint: float = Field(0.0, ge=0, lt=1, description="the same, for each channel alone")

    @property
    def channels(self) -> int:
        """1 for brains, else 3: grey faces have three equal channels."""
        return 1 if self.subject == "brain" else 3


class Pictures:
    """One side of the split, in memory.

    Parameters
    ----------
    config : PicturesConfig
        Which, and how they are changed.
    side : {"train", "held-out"}

    Attributes
    ----------
    groups : list of (float, Images)
        Share of the draws, and the pictures.

    Notes
    -----
    Of the faces, ``faces256`` is left out: the same faces at the same or a larger size are in ``faces128``. Of the
    brains nothing is left out: every one of the 5,568 slices shows brain, on 43 to 52 % of its pixels.

    Raises
    ------
    InputError
        A set or the folder is missing or too small.
    """

    def __init__(self, config: PicturesConfig, side: Literal["train", "held-out"]) -> None:
        self.config = config
        mode, shortest = ("L" if config.channels == 1 else "RGB"), LARGEST * config.size
        if config.photographs:
            images = data.read_folder(Path(config.photographs), mode=mode, shortest=shortest)
            self.groups = [(1.0, _side(images, side))]
        elif config.subject == "brain":
            folder = data.data_folder(config.data)
            self.groups = [(1.0, data.read_set(folder, "brain96", side, mode=mode, shortest=shortest))]
        else:
            folder = data.data_folder(config.data)
            shares = {"color/": 1 - config.gray_share, "gray/": config.gray_share}
            self.groups = [
                (share, data.read_set(folder, "faces128", side, under=under, shortest=shortest))
                for under, share in shares.items()
                if share
            ]

    def draw(self, rng: np.random.Generator, n: int) -> Tensor:
        """Draw pictures, changed as the settings say.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where all randomness comes from.
        n : int

        Returns
        -------
        Tensor of float32, (n, channels, size, size)
            0..1.
        """
        shares = np.array([share for share, _ in self.groups])
        drawn = np.empty((n, self.config.size, self.config.size, self.config.channels), np.uint8)
        for i, chosen in enumerate(rng.choice(len(shares), size=n, p=shares / shares.sum())):
            images = self.groups[chosen][1]
            drawn[i] = self._changed(images[int(rng.integers(len(images)))], rng)
        return to_tensor(drawn)

    def whole(self, count: int | None = None, group: int = 0) -> Tensor:
        """Give whole pictures, reduced by area: all of a group, or `count` of them, spread evenly over the names.

        Returns
        -------
        Tensor of float32, (count, channels, size, size)
            0..1.
        """
        images = self.groups[group][1]
        chosen = np.linspace(0, len(images) - 1, min(count or len(images), len(images))).round().astype(int)
        size = self.config.size
        return to_tensor(np.stack([_reduced(_square(images[int(i)]), size) for i in chosen]))

    def _changed(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        config, image = self.config, _square(image)
        side = len(image)
        if config.turn:
            angle = rng.uniform(-config.turn, config.turn)
            turned = _pillow(image).rotate(angle, Image.Resampling.BICUBIC)
            image = np.asarray(turned).reshape(side, side, -1)
        if config.warp:
            image = _warped(image, config.warp * side, rng)
        box = None
        if config.zoom:
            length = side * (1 - rng.uniform(0, config.zoom))
            left, top = rng.uniform(0, side - length, 2)
            box = (left, top, left + length, top + length)
        small = _reduced(image, config.size, box)
        if config.light or config.tint:
            gain = 1 + rng.uniform(-config.light, config.light)
            if config.tint:
                gain = gain * (1 + rng.uniform(-config.tint, config.tint, small.shape[-1]))
            small = np.rint(np.clip(gain * small.astype(np.float32), 0, 255)).astype(np.uint8)
        return small[:, ::-1] if rng.random() < 0.5 else small


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """From (N, H, W, C) of 8 bits to (N, C, H, W) of 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def contact_sheet(rows: Tensor, scale: int = 2) -> NDArray[np.uint8]:
    """Put pictures (rows, columns, C, H, W) of about 0..1 side by side: (H', W', 3), each pixel `scale` times."""
    count, across, channels, height, width = rows.shape
    sheet = rows.permute(0, 3, 1, 4, 2).reshape(count * height, across * width, channels)
    eight_bit = (255 * sheet.float().cpu().clamp(0, 1)).round().byte().numpy()
    return np.repeat(eight_bit, 3 // channels, axis=2).repeat(scale, axis=0).repeat(scale, axis=1)


def _side(images: data.Images, side: str) -> data.Images:
    """Keep every twentieth of a user's pictures, or all the others."""
    held = {i for i in range(len(images)) if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1} or {len(images) - 1}
    chosen = [i for i in range(len(images)) if (i in held) == (side == "held-out")]
    if not chosen:
        raise InputError("one picture is not enough: at least one is to be trained on and one to be measured")
    return data.Images(
        names=tuple(images.names[i] for i in chosen),
        pixels=np.concatenate([images[i].ravel() for i in chosen]),
        shapes=images.shapes[chosen],
    )


def _warped(image: NDArray[np.uint8], most: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bend a square picture: the inner points of a mesh are moved at most so many pixels each way, its border stays."""
    side = len(image)
    lines = np.linspace(0, side, MESH + 1).round().astype(int)
    points = np.stack(np.meshgrid(lines, lines), -1).astype(float)
    points[1:-1, 1:-1] += rng.uniform(-most, most, (MESH - 1, MESH - 1, 2))
    quads = []
    for row in range(MESH):
        for column in range(MESH):
            box = (lines[column], lines[row], lines[column + 1], lines[row + 1])
            ends = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            quads.append((tuple(map(int, box)), tuple(float(x) for end in ends for x in points[end])))
    bent = _pillow(image).transform((side, side), Image.Transform.MESH, quads, Image.Resampling.BICUBIC)
    return np.asarray(bent).reshape(side, side, -1)


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the middle out of an oblong picture."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def _reduced(
    image: NDArray[np.uint8], size: int, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Reduce a square by area."""
    factor, rest = divmod(len(image), size)
    if box is None and not rest:  # Pillow rounds twice
        means = image.reshape(size, factor, size, factor, -1).mean((1, 3))
        return np.rint(means).astype(np.uint8)
    small = _pillow(image).resize((size, size), Image.Resampling.BOX, box=box)
    return np.asarray(small).reshape(size, size, -1)


def _pillow(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
