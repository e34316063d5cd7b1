"""What happens to prints: scratches, dust, holes, creases, tears, stains. For making pairs to train and to measure on.

A *family* of damage takes an image and a generator of random numbers, and gives the damaged image and how much of each
pixel is damaged::

    family(image, rng) -> image, cover

`FAMILIES` names them all, so that a detector can be tested on a family that it never saw. `old_scan` wears a clean
image as old photographs are worn, from the lens to the scanner. Images are float32 (H, W, 3), RGB, 0..1; nothing given
is changed, and the same state of the generator gives the same result. Sizes are in pixels, because scanners do not ask
how large a scratch is.

Wan et al., "Bringing Old Photos Back to Life", 2020 (arXiv 2004.09484), section 4.1, lay scratch textures of a
collection over photographs. Here every mark is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from velatura.ops.degrade import (
    UNFADED,
    Fading,
    Operation,
    Range,
    chain,
    fade,
    grey,
    random_blur,
    random_fading,
    random_grain,
    random_halftone,
    random_jpeg,
    random_noise,
    random_reduction,
    shuffled,
    sometimes,
)
from velatura.ops.resize import resize

__all__ = [
    "COVERED",
    "FAMILIES",
    "OLD",
    "THROUGH",
    "Family",
    "Wear",
    "Worn",
    "cracks",
    "creases",
    "damaged",
    "dust",
    "hairs",
    "holes",
    "ink",
    "mould",
    "old_scan",
    "patches",
    "scratches",
    "stains",
    "tears",
]

Image = NDArray[np.float32]
Plane = NDArray[np.float32]
Family = Callable[[Image, np.random.Generator], tuple[Image, Plane]]

COVERED = 0.25  # of a pixel: where damage covers more, the mask is 1
STEP = 0.7  # pixels between the points of a line

# --- lines ------------------------------------------------------------------------------------------------------------


class Path(NamedTuple):
    """Points of a line, in pixels; the centre of pixel (i, j) is at x = j + .5, y = i + .5."""

    x: NDArray[np.floating]
    y: NDArray[np.floating]


def _wander(rng: np.random.Generator, start: tuple[float, float], heading: float, length: float, bend: float) -> Path:
    """Walk from a point; the heading changes by a normal number of deviation `bend` per pixel, smoothed."""
    count = max(int(length / STEP), 2)
    turn = rng.normal(0, bend * STEP**0.5, count // 8 + 2)
    headings = heading + np.interp(np.arange(count) / 8, np.arange(len(turn)), np.cumsum(turn) * 8**0.5)
    return Path(start[0] + STEP * np.cumsum(np.cos(headings)), start[1] + STEP * np.cumsum(np.sin(headings)))


def _rough(rng: np.random.Generator, count: int, low: float, high: float, every: float) -> NDArray[np.floating]:
    """Numbers between low and high that change over about `every` places."""
    knots = rng.uniform(low, high, int(count / every) + 2)
    return np.interp(np.arange(count) / every, np.arange(len(knots)), knots)


def _drawn(cover: Plane, path: Path, radius: NDArray[np.floating]) -> None:
    """Draw a line of varying radius with soft edges into a plane; where the radius is 0 the line has a gap."""
    kept = radius > 0
    x, y, radius = path.x[kept], path.y[kept], radius[kept]
    if not len(x):
        return
    height, width = cover.shape
    reach = int(np.ceil(radius.max() + 0.5))
    rows, cols = (np.floor(v).astype(np.int64)[:, None, None] for v in (y, x))
    around = np.arange(-reach, reach + 1)
    rows, cols = rows + around[:, None], cols + around
    distance = np.hypot(cols + 0.5 - x[:, None, None], rows + 0.5 - y[:, None, None])
    wide = radius[:, None, None]
    # A line that is thinner than a pixel covers no pixel wholly.
    value = (wide + 0.5 - distance).clip(0, np.minimum(1, 2 * wide)).astype(np.float32)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width) & (value > 0)
    places = np.broadcast_to(rows, inside.shape)[inside] * width + np.broadcast_to(cols, inside.shape)[inside]
    np.maximum.at(cover.reshape(-1), places, value[inside])


def _gaps(rng: np.random.Generator, count: int, share: float) -> NDArray[np.floating]:
    """Ones, and zeros for about a share of the places, in runs."""
    return (_rough(rng, count, 0, 1, rng.uniform(4, 25)) >= share).astype(float)


# --- areas ------------------------------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, height: int, width: int, size: float) -> Plane:
    """Smooth noise of deviation about 1, whose spots are of about `size` pixels."""
    rows, cols = int(np.ceil(height / size)) + 2, int(np.ceil(width / size)) + 2
    return resize(rng.standard_normal((rows, cols), np.float32), height, width, "bicubic")


def _blob(rng: np.random.Generator, height: int, width: int, radius: float, centre: tuple[float, float]) -> Plane:
    """Distance inside a ragged round outline, in pixels: positive within."""
    y, x = np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32) + 0.5
    flat, turn = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))
    across = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) / np.float32(flat)
    inside = np.float32(radius) - np.hypot(along, across)
    for share, size in ((0.35, 1.0), (0.12, 0.3)):
        inside = inside + np.float32(rng.uniform(0.3, 1) * share * radius) * _noise(
            rng, height, width, max(size * radius, 2.0)
        )
    return inside  # type: ignore[return-value]


def _edge(inside: Plane, softness: float = 1.0) -> Plane:
    """From distance inside to how much of a pixel is covered."""
    return (inside / np.float32(softness) + np.float32(0.5)).clip(0, 1)  # type: ignore[return-value]


def _place(rng: np.random.Generator, image: Image, margin: float = 0.0) -> tuple[float, float]:
    """Draw x and y, `margin` of the sides beyond the border at most."""
    x, y = rng.uniform(-margin, 1 + margin, 2) * (image.shape[1], image.shape[0])
    return float(x), float(y)


# --- paint ------------------------------------------------------------------------------------------------------------


def _paper(rng: np.random.Generator) -> Image:
    """The colour of bare paper: white to cream."""
    light, warm = rng.uniform(0.8, 1.0), rng.uniform(0, 0.25)
    return (light * np.array([1, 1 - 0.35 * warm, 1 - warm])).astype(np.float32)


def _paint(rng: np.random.Generator, white: float = 0.5, dark: float = 0.35) -> Image:
    """White, dark, or, for the rest of the draws, coloured."""
    kind = rng.random()
    if kind < white:
        return _paper(rng)
    if kind < white + dark:
        return (rng.uniform(0, 0.25) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.5, 1)])).astype(np.float32)
    return rng.uniform(0, 1, 3).astype(np.float32)


def _laid(image: Image, cover: Plane, paint: Image, opacity: float = 1.0) -> Image:
    """Lay paint, a colour or an image, over an image."""
    share = cover[..., None] * np.float32(opacity)
    return image + share * (paint - image)  # type: ignore[return-value]


# --- families ---------------------------------------------------------------------------------------------------------


def scratches(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to four long thin lines, almost straight, white, dark or coloured; some are bundles, as of a film's gate."""
    (height, width), cover = image.shape[:2], np.zeros(image.shape[:2], np.float32)
    side = min(height, width)
    paint, opacity = _paint(rng), rng.uniform(0.5, 1)
    for _ in range(int(rng.integers(1, 5))):
        bundle = int(rng.integers(2, 6)) if rng.random() < 0.2 else 1
        heading = np.pi / 2 + rng.normal(0, 0.03) if bundle > 1 else rng.uniform(0, np.pi)
        path = _wander(rng, _place(rng, image, 0.1), heading, rng.uniform(0.2, 1.3) * side, rng.uniform(0, 0.02))
        thick = float(np.exp(rng.uniform(np.log(0.3), np.log(1.8))))
        for i in range(bundle):
            count = len(path.x)
            radius = thick * _rough(rng, count, 0.6, 1.3, 20) * _gaps(rng, count, rng.uniform(-0.5, 0.5))
            beside = i * rng.uniform(2, 8)
            _drawn(cover, Path(path.x + beside, path.y), radius)
    return _laid(image, cover, paint, opacity), cover


def hairs(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to five short curved fibres, as they lie on a scanner's glass."""
    cover = np.zeros(image.shape[:2], np.float32)
    for _ in range(int(rng.integers(1, 6))):
        length, bend = rng.uniform(12, 90), rng.uniform(0.03, 0.2)
        path = _wander(rng, _place(rng, image), rng.uniform(0, 2 * np.pi), length, bend)
        _drawn(cover, path, np.full(len(path.x), rng.uniform(0.35, 1.1)))
    return _laid(image, cover, _paint(rng, 0.45, 0.5), rng.uniform(0.5, 1)), cover


def dust(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """Four to sixty specks of one to nine pixels, on a patch of 128 pixels."""
    cover = np.zeros(image.shape[:2], np.float32)
    area = cover.size / 128**2
    for _ in range(max(int(rng.integers(4, 60) * min(area, 16)), 1)):
        path = _wander(rng, _place(rng, image), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 5), 0.3)
        _drawn(cover, path, np.full(len(path.x), float(np.exp(rng.uniform(np.log(0.7), np.log(2.2))))))
    return _laid(image, cover, _paint(rng, 0.55, 0.4), rng.uniform(0.6, 1)), cover


def holes(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to four ragged holes of two to ten pixels' radius, to the paper or through it, some with a rim."""
    (height, width), cover = image.shape[:2], np.zeros(image.shape[:2], np.float32)
    done = image
    for _ in range(int(rng.integers(1, 5))):
        inside = _blob(rng, height, width, rng.uniform(2, 10), _place(rng, image))
        done = _laid(done, _edge(inside), _paint(rng, 0.6, 0.3), rng.uniform(0.85, 1))
        whole = inside
        if rng.random() < 0.4:
            rim = rng.uniform(1, 2.5)
            done = _laid(
                done,
                _edge(np.float32(rim / 2) - np.abs(inside + np.float32(rim / 2))),
                _paint(rng, 0.5, 0.5),
                rng.uniform(0.5, 1),
            )
            whole = inside + np.float32(rim)
        cover = np.maximum(cover, _edge(whole))
    return done, cover


def creases(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One or two folds across the image: light on one side, shade on the other, the emulsion broken along them."""
    (height, width), cover = image.shape[:2], np.zeros(image.shape[:2], np.float32)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    done, diagonal = image, float(np.hypot(height, width))
    for _ in range(int(rng.integers(1, 3))):
        (x0, y0), angle = _place(rng, image, -0.1), rng.uniform(0, np.pi)
        along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        knots = np.cumsum(rng.normal(0, rng.uniform(0.1, 1.0), int(2 * diagonal / 12) + 2))
        at = np.arange(len(knots)) * 12.0 - diagonal
        middle = float(np.interp(0, at, knots))
        across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle) - np.interp(along, at, knots) + middle
        half, light = rng.uniform(1.2, 4.5), rng.uniform(0.2, 0.5) * rng.choice([-1, 1])
        shade = light * np.sin(np.pi * (across / half).clip(-1, 1))
        done = (done * (1 + shade[..., None])).clip(0, 1).astype(np.float32)
        cover = np.maximum(cover, _edge(np.float32(half) - np.abs(across).astype(np.float32)))

        s = np.arange(-diagonal, diagonal, STEP)
        off = np.interp(s, at, knots) - middle
        path = Path(x0 + s * np.cos(angle) - off * np.sin(angle), y0 + s * np.sin(angle) + off * np.cos(angle))
        radius = _rough(rng, len(s), 0, rng.uniform(0.6, 2), 6) * _gaps(rng, len(s), rng.uniform(0, 0.8))
        broken = np.zeros_like(cover)
        _drawn(broken, path, radius)
        done = _laid(done, broken, _paper(rng), rng.uniform(0.6, 1))
        cover = np.maximum(cover, broken)
    return done, cover


def tears(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """A ragged tear from the border inwards: bare paper, with a shadow along one side."""
    height, width = image.shape[:2]
    side, edge = min(height, width), int(rng.integers(4))
    x0, y0 = _place(rng, image)
    start = ((0.0, y0), (float(width), y0), (x0, 0.0), (x0, float(height)))[edge]
    heading = (0, np.pi, np.pi / 2, -np.pi / 2)[edge] + rng.normal(0, 0.4)
    path = _wander(rng, start, heading, rng.uniform(0.25, 0.9) * side, rng.uniform(0.05, 0.2))
    count = len(path.x)
    radius = rng.uniform(1, 5) * np.linspace(1, rng.uniform(0.1, 0.6), count) * _rough(rng, count, 0.4, 1.3, 4)
    shadow, cover = np.zeros((2, height, width), np.float32)
    away, turn = rng.uniform(0.5, 2), rng.uniform(0, 2 * np.pi)
    _drawn(shadow, Path(path.x + away * np.cos(turn), path.y + away * np.sin(turn)), radius)
    _drawn(cover, path, radius)
    done = _laid(image, shadow, np.zeros(3, np.float32), rng.uniform(0.3, 0.8))
    return _laid(done, cover, _paper(rng), rng.uniform(0.85, 1)), np.maximum(shadow, cover)


def stains(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to three stains that the picture shines through, brown, of any colour or bleached; or small spots of foxing.

    Many have the dark rim that a drying drop leaves.
    """
    (height, width), cover = image.shape[:2], np.zeros(image.shape[:2], np.float32)
    done, side = image, min(height, width)
    foxing = rng.random() < 0.3
    for _ in range(int(rng.integers(4, 12)) if foxing else int(rng.integers(1, 4))):
        radius = rng.uniform(1.5, 5) if foxing else rng.uniform(0.05, 0.2) * side
        inside = _blob(rng, height, width, radius, _place(rng, image, 0.05))
        soft = float(rng.uniform(1, min(6, radius)))
        alpha = _edge(inside, soft)
        tint = rng.uniform(0.3, 1, 3) if rng.random() < 0.25 else np.array([0.95, 0.75, 0.45]) ** rng.uniform(0.6, 2)
        if rng.random() < 0.2:
            done = _laid(done, alpha, _laid(done, np.ones_like(alpha), _paper(rng), rng.uniform(0.3, 0.7)))
        else:
            rim = 1 - rng.uniform(0, 0.35) * np.exp(-0.5 * ((inside - soft) / rng.uniform(1, 3)) ** 2)
            done = _laid(done, alpha, (done * tint.astype(np.float32) * rim[..., None]).astype(np.float32))
        cover = np.maximum(cover, alpha)
    return done, cover


def patches(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """Lose a large part of the picture: a corner, an edge or the middle, down to the paper or to a mottled ground."""
    (height, width), side = image.shape[:2], min(image.shape[:2])
    radius = rng.uniform(0.1, 0.22) * side
    x, y = _place(rng, image)
    if rng.random() < 0.4:  # from an edge
        x, y = (x, 0.0) if rng.random() < 0.5 else (0.0, y)
        x, y = (width - x, height - y) if rng.random() < 0.5 else (x, y)
    cover = _edge(_blob(rng, height, width, radius, (x, y)), rng.uniform(1, 2.5))
    ground = _paint(rng, 0.6, 0.25) + np.float32(rng.uniform(0, 0.06)) * _noise(rng, height, width, 4)[..., None]
    return _laid(image, cover, ground.clip(0, 1), rng.uniform(0.9, 1)), cover


def ink(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to three strokes of a pen: blue, black, red or any colour, half to two and a half pixels wide each way."""
    cover = np.zeros(image.shape[:2], np.float32)
    colors = np.array([[0.1, 0.15, 0.5], [0.05, 0.05, 0.08], [0.7, 0.1, 0.1], [0.1, 0.4, 0.2]])
    paint = (colors[rng.integers(4)] if rng.random() < 0.7 else rng.uniform(0, 1, 3)).astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        path = _wander(rng, _place(rng, image), rng.uniform(0, 2 * np.pi), rng.uniform(20, 150), rng.uniform(0.05, 0.3))
        _drawn(cover, path, rng.uniform(0.5, 2.5) * _rough(rng, len(path.x), 0.7, 1.1, 15))
    return _laid(image, cover, paint, rng.uniform(0.7, 1)), cover


def cracks(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """A net of thin cracks in the emulsion, over a part of the image or all of it."""
    height, width = image.shape[:2]
    y, x = (plane + np.float32(0.5) for plane in np.mgrid[:height, :width].astype(np.float32))
    size = rng.uniform(14, 45)
    for plane in (x, y):
        plane += np.float32(rng.uniform(0.05, 0.2) * size) * _noise(rng, height, width, size / 2)
    # One seed per cell of a grid, so that the nearest two are among those of 5x5 cells.
    rows, cols = (int(np.ceil(n / size)) + 6 for n in (height, width))
    seeds = (np.mgrid[:rows, :cols].transpose(1, 2, 0) - 3 + rng.uniform(0, 1, (rows, cols, 2))) * size
    cell_y, cell_x = (np.floor(plane / size).astype(int) for plane in (y, x))
    nearest = np.full((2, height, width), np.inf, np.float32)
    for down in range(-2, 3):
        for right in range(-2, 3):
            seed = seeds[(cell_y + down + 3).clip(0, rows - 1), (cell_x + right + 3).clip(0, cols - 1)]
            distance = np.hypot(y - seed[..., 0], x - seed[..., 1]).astype(np.float32)
            nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], distance))
            nearest[0] = np.minimum(nearest[0], distance)
    off = (nearest[1] - nearest[0]) / 2  # about the distance from the line between two seeds
    half = np.float32(rng.uniform(0.3, 1.0)) * (1 + np.float32(0.3) * _noise(rng, height, width, 20))
    cover = (half + np.float32(0.5) - off).clip(0, np.minimum(1, 2 * half.clip(0, None)))
    if rng.random() < 0.5:
        cover = cover * _edge(_noise(rng, height, width, 50) + np.float32(rng.uniform(-0.3, 0.8)), 0.3)
    return _laid(image, cover, _paint(rng, 0.5, 0.5), rng.uniform(0.5, 1)), cover


def mould(image: Image, rng: np.random.Generator) -> tuple[Image, Plane]:
    """One to three colonies of mould on a film: light threads that grow from a point, branch and branch again.

    Dark ones would look like twigs against the sky, which are no damage.
    """
    cover, side = np.zeros(image.shape[:2], np.float32), min(image.shape[:2])
    for _ in range(int(rng.integers(1, 4))):
        centre, radius, reach = _place(rng, image), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.45) * side
        growing = [(centre, rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1) * reach) for _ in range(rng.integers(3, 9))]
        for _ in range(3):  # generations
            branches = []
            for start, heading, length in growing:
                path = _wander(rng, start, heading, length, rng.uniform(0.02, 0.12))
                _drawn(cover, path, radius * _rough(rng, len(path.x), 0.6, 1.2, 12))
                for index in rng.integers(len(path.x), size=rng.integers(0, 3)):
                    fork = heading + rng.choice((-1, 1)) * rng.uniform(0.4, 1.2)
                    branches.append(
                        ((float(path.x[index]), float(path.y[index])), fork, rng.uniform(0.3, 0.7) * length)
                    )
            growing = branches
    return _laid(image, cover, _paper(rng), rng.uniform(0.5, 1)), cover


#: All families by name.
FAMILIES: Mapping[str, Family] = {
    "scratches": scratches,
    "hairs": hairs,
    "dust": dust,
    "holes": holes,
    "creases": creases,
    "tears": tears,
    "stains": stains,
    "patches": patches,
    "ink": ink,
    "cracks": cracks,
    "mould": mould,
}
#: Those that the picture shines through: there it is to be undone, not filled.
THROUGH = ("stains",)

# --- an old scan ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wear:
    """How likely and how strong each thing is that happens to a photograph.

    Attributes
    ----------
    grey : float
        Share of the photographs that have no colour; half of those are scanned in colour.
    lens : float
        Share that is blurred when it is taken or printed.
    sigma : (float, float)
        Of that blur, pixels.
    printed : float
        Share that is printed in dots.
    faded : float
        Share that `velatura.ops.degrade.random_fading` happens to.
    damaged : float
        Share with structured damage, of one to `most` families.
    most : int
    grain : (float, float)
        Standard deviation of the print's noise, 0..1.
    quality : (float, float)
        Of JPEG, where a print is a copy.
    copied : (float, float, float, float)
        Shares of the prints that have noise, JPEG's marks, a smaller size and back, and blur. Damage lies over these.
    scanned : float
        Share that has what a scanner and its file add in the end: a little noise, blur and JPEG.
    """

    grey: float = 0.35
    lens: float = 0.5
    sigma: Range = (0.3, 1.6)
    printed: float = 0.03
    faded: float = 0.5
    damaged: float = 0.75
    most: int = 3
    grain: Range = (3 / 255, 30 / 255)
    quality: Range = (40, 95)
    copied: tuple[float, float, float, float] = (0.8, 0.6, 0.35, 0.25)
    scanned: float = 0.7


#: What training wears photographs by.
OLD = Wear()


class Worn(NamedTuple):
    """An old scan and what is true of it.

    Attributes
    ----------
    image : ndarray of float32, (H, W, 3)
        As it is found, in steps of 1 / 255.
    mask : ndarray of float32, (H, W)
        1 where damage covers more than a quarter of a pixel, else 0; what the picture shines through is not in it.
    stained : ndarray of float32, (H, W)
        1 where a stain covers more than a quarter of a pixel and no other damage does, else 0.
    faded : ndarray of float32, (H, W, 3)
        The original with its fading and nothing else: what is to come back where colours are another's task.
    original : ndarray of float32, (H, W, 3)
        The clean image, grey if the scan is of a photograph without colour.
    fading : Fading
        From `original` to `faded`.
    """

    image: Image
    mask: Plane
    stained: Plane
    faded: Image
    original: Image
    fading: Fading

    @property
    def damage(self) -> Plane:
        """`mask` and `stained` in one."""
        return self.mask + self.stained  # type: ignore[return-value]


def old_scan(
    image: Image, rng: np.random.Generator, wear: Wear = OLD, families: Sequence[str] = tuple(FAMILIES)
) -> Worn:
    """Wear one clean image the way old photographs are worn: lens, print, age, damage, scanner, file.

    As in the paper, what has happened to structures lies over noise, blur and the marks of copies.

    Parameters
    ----------
    image : ndarray of float32, (H, W, 3)
        RGB, 0..1.
    rng : numpy.random.Generator
        Where all randomness comes from.
    wear : Wear
        How likely each thing is.
    families : sequence of str
        Of `FAMILIES`: what damage is drawn from.

    Returns
    -------
    Worn

    Examples
    --------
    >>> worn = old_scan(np.full((64, 48, 3), 0.5, np.float32), np.random.default_rng(1))
    >>> worn.image.shape, worn.mask.shape, bool(np.isin(worn.mask, (0, 1)).all())
    ((64, 48, 3), (64, 48), True)
    """
    colorless = bool(rng.random() < wear.grey)
    original = grey(image) if colorless else image
    # A grey photograph stays grey if its scan has no colour: no tint, grey noise, grey damage.
    no_color = colorless and bool(rng.random() < 0.5)
    fading = random_fading(rng) if rng.random() < wear.faded else UNFADED
    if no_color:
        fading = _without_tint(fading)

    lens = partial(random_blur, sigma=wear.sigma, ringing=0.0)
    taken = chain(original, rng, sometimes(lens, wear.lens), sometimes(random_halftone, wear.printed))
    gray = 1.0 if no_color else 0.4
    done = fade(_copied(wear, gray)(taken.clip(0, 1), rng).clip(0, 1), fading)
    count = int(rng.integers(1, wear.most + 1)) if rng.random() < wear.damaged else 0
    done, mask, stained = damaged(done, rng, families, count)
    if no_color:
        done = grey(done)
    if rng.random() < wear.scanned:
        done = _scanned(done.clip(0, 1), rng, gray)
    if no_color:
        done = grey(done)
    rounded = (np.rint(255 * done.clip(0, 1)) / 255).astype(np.float32)
    return Worn(rounded, mask, stained, fade(original, fading), original, fading)


def damaged(image: Image, rng: np.random.Generator, families: Sequence[str], count: int) -> tuple[Image, Plane, Plane]:
    """Let some families of damage happen to an image, each once at most.

    Parameters
    ----------
    image : ndarray of float32, (H, W, 3)
        RGB, 0..1.
    rng : numpy.random.Generator
        Where all randomness comes from.
    families : sequence of str
        Of `FAMILIES`.
    count : int
        How many of them.

    Returns
    -------
    tuple of ndarray of float32
        The image, and `mask` and `stained` as of `Worn`.
    """
    lost, stained = np.zeros((2, *image.shape[:2]), np.float32)
    for index in rng.permutation(len(families))[:count]:
        name = families[int(index)]
        image, cover = FAMILIES[name](image, rng)
        plane = stained if name in THROUGH else lost
        np.maximum(plane, cover, out=plane)
    mask = lost > COVERED
    return image, mask.astype(np.float32), ((stained > COVERED) & ~mask).astype(np.float32)


def _copied(wear: Wear, gray: float) -> Operation:
    noise, file, small, soft = wear.copied
    return shuffled(
        sometimes(partial(random_grain, sigma=wear.grain, gray=gray), noise),
        sometimes(partial(random_jpeg, quality=wear.quality), file),
        sometimes(random_reduction, small),
        sometimes(partial(random_blur, sigma=(0.3, 1.0)), soft),
    )


def _scanned(image: Image, rng: np.random.Generator, gray: float) -> Image:
    return chain(
        image,
        rng,
        sometimes(partial(random_blur, sigma=(0.2, 0.5), ringing=0.0), 0.4),
        partial(random_noise, sigma=(0.5 / 255, 5 / 255), grey=gray),
        sometimes(partial(random_jpeg, quality=(75, 98)), 0.5),
    )


def _without_tint(fading: Fading) -> Fading:
    """The same loss of contrast in all channels."""
    b, w, g = (float(np.mean(values)) for values in (fading.black, fading.white, fading.gamma))
    return Fading((b, b, b), (w, w, w), (g, g, g), fading.saturation)
