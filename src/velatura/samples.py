"""Scenes made from the photographs that come with scikit-image, for the demo, the examples and the docs.

Nothing is downloaded: the photographs lie inside the scikit-image package. A scene is a piece of one photograph, the
mask that cuts it out, and its place in another photograph, as `velatura.blend` takes them. A photograph that was shrunk
is what `velatura.upscale` has to give back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

from velatura.ops.relight import identity_light, relight
from velatura.ops.resize import resize

__all__ = [
    "SCENES",
    "SHRUNK",
    "Scene",
    "Shrunk",
    "cat",
    "cup",
    "face",
    "fur",
    "galaxies",
    "launch",
    "light",
    "soft_mask",
]

Pixels = NDArray[np.uint8]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What one blend needs.

    Attributes
    ----------
    title : str
        What is done, in a few words.
    source, destination : numpy.ndarray
        (h, w, 3) and (H, W, 3) uint8.
    mask : numpy.ndarray
        (h, w) uint8, 255 = take the source.
    at : tuple of int
        X and Y of the source's top left corner in the destination.
    scale : float
        By which the source is enlarged before that.

    Examples
    --------
    >>> from velatura import blend
    >>> scene = galaxies()
    >>> result = blend(
    ...     scene.source, scene.destination, scene.mask, at=scene.at, scale=scene.scale, method="poisson"
    ... )
    >>> result.image.shape
    (427, 640, 3)
    """

    title: str
    source: Pixels
    mask: Pixels
    destination: Pixels
    at: tuple[int, int] = (0, 0)
    scale: float = 1.0


def galaxies() -> Scene:
    """Galaxies of the Hubble deep field in the evening sky over a rocket: their black sky has to become blue."""
    source = data.hubble_deep_field()[20:190, 210:660]
    # The upper edge lies outside of the destination: the seam runs below and beside.
    mask = soft_mask(source, _ellipse((225, 40), (195, 92)), softness=12)
    return Scene("galaxies over the launch pad", source, mask, data.rocket(), at=(95, -40))


def cat() -> Scene:
    """A cat looks out of the coffee, and takes its colour."""
    source = data.chelsea()
    mask = soft_mask(source, _ellipse((240, 165), (130, 97)), softness=6)
    cup = _enlarged(data.coffee()[10:220, 140:440], 2)
    return Scene("a cat in the coffee", source, mask, cup, at=(86, 132), scale=0.85)


def launch() -> Scene:
    """A rocket is reflected in the visor of an astronaut's helmet: dusk has to fade into black."""
    source = data.rocket()
    mask = soft_mask(source, _ellipse((322, 240), (165, 150)), softness=18)
    helmet = _enlarged(data.astronaut()[330:512, 250:512], 2)
    return Scene("a rocket in the visor", source, mask, helmet, at=(23, 32), scale=0.66)


def light() -> Scene:
    """One photograph in two lights: the destination itself is what should come out."""
    destination = data.astronaut()
    planes = np.moveaxis(destination, -1, 0)[None].astype(np.float32) / 255
    plain = identity_light(1, *destination.shape[:2])
    warm = np.array([1.0, 0.85, 0.65], np.float32)[:, None, None]
    evening = replace(plain, gain=plain.gain * warm, contrast=plain.contrast * 0.85)
    source = np.rint(np.moveaxis(relight(planes, evening)[0] * 255, 0, -1)).astype(np.uint8)
    # Cut out roughly: a seam through wall, flag, suit and table tells more of the light than one along the hair.
    outline = [(120, -20), (360, -20), (375, 300), (400, 420), (60, 430), (60, 200)]
    return Scene("one photograph in two lights", source, soft_mask(source, outline, softness=4), destination)


#: All scenes, by the names that the demo gives their folders.
SCENES: dict[str, Callable[[], Scene]] = {scene.__name__: scene for scene in (galaxies, cat, launch, light)}


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A photograph and what shrinking left of it.

    Attributes
    ----------
    title : str
        What is shown, in a few words.
    original : numpy.ndarray
        (4 h, 4 w, 3) uint8.

    Examples
    --------
    >>> from velatura import upscale
    >>> photograph = face()
    >>> upscale(photograph.small, model="bicubic").image.shape == photograph.original.shape
    True
    """

    title: str
    original: Pixels

    @property
    def small(self) -> Pixels:
        """A quarter as high and wide, (h, w, 3) uint8, by antialiased bicubic."""
        height, width = self.original.shape[:2]
        return np.rint(resize(self.original, height // 4, width // 4).clip(0, 255)).astype(np.uint8)


def face() -> Shrunk:
    """A face: eyes, teeth, hair, letters on a patch."""
    return Shrunk("a face", data.astronaut()[:320, 40:360])


def cup() -> Shrunk:
    """A cup of coffee: smooth china, a sharp rim, the grain of wood."""
    return Shrunk("a cup of coffee", data.coffee()[40:360, 130:530])


def fur() -> Shrunk:
    """A cat: an eye, whiskers, and fur that nobody can know."""
    return Shrunk("a cat's fur", data.chelsea()[20:276, 90:410])


#: All photographs that were shrunk, by the names that the demo gives their folders.
SHRUNK: dict[str, Callable[[], Shrunk]] = {one.__name__: one for one in (face, cup, fur)}


def soft_mask(image: Pixels, outline: Sequence[Point], softness: float) -> Pixels:
    """Fill a polygon and soften its edge.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, C), of which the mask takes the size.
    outline : sequence of (float, float)
        Corners, X and Y in px; those outside of the image are cut off.
    softness : float
        Standard deviation of the Gaussian, px.

    Returns
    -------
    numpy.ndarray
        (h, w) uint8.

    Examples
    --------
    >>> soft_mask(np.zeros((3, 5, 3), np.uint8), [(1, 0), (3, 0), (3, 2), (1, 2)], softness=0)[0].tolist()
    [0, 255, 255, 255, 0]
    """
    drawn = Image.new("L", (image.shape[1], image.shape[0]))
    ImageDraw.Draw(drawn).polygon([(round(x), round(y)) for x, y in outline], fill=255)
    return np.asarray(drawn.filter(ImageFilter.GaussianBlur(softness)))


def _ellipse(centre: Point, half_axes: Point) -> list[Point]:
    """Give the corners of a polygon that nobody tells from an ellipse."""
    (x, y), (a, b) = centre, half_axes
    return [(x + a * np.cos(angle), y + b * np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 360)]


def _enlarged(image: Pixels, factor: int) -> Pixels:
    height, width = image.shape[:2]
    return np.rint(resize(image, factor * height, factor * width).clip(0, 255)).astype(np.uint8)
