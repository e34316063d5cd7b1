"""Fill a hole with what the rest of the image is made of.

Wexler, Shechtman, Irani, "Space-Time Completion of Video", 2007: the fill is the image whose every patch looks like
some patch of the known part; finding these patches and averaging what they say take turns, from coarse to fine. The
patches are found as in Barnes et al., "PatchMatch", 2009: neighbours have neighbouring partners, and a good partner is
found near a good one.

Differs from the papers: all pixels of the hole ask their neighbours at the same time, at distances 4, 2 and 1, not one
after the other; at the end the detail of the fill is kept and its colours are those of the rim (Poisson blending);
large holes take over their finest levels from a coarser one; the random numbers come from a seed, so that the fill is
always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from velatura.ops.poisson import membrane, ring
from velatura.ops.pyramid import double, halve

__all__ = ["SEARCHED", "fill_by_exemplar"]

RADIUS = 3  # of a patch: 7 x 7 pixels, Wexler et al. have 5 to 7
SMALLEST = 24  # pixels: the shorter side of the coarsest level has at least as many
ROUNDS = (12, 8, 5, 3)  # turns of finding and voting, from the coarsest level on; the last number for all finer ones
SEARCHED = 40_000  # patches of a level that are searched for
STEPS = (4, 2, 1)  # distances at which a pixel asks its neighbours
QUANTILE = 0.5  # of the costs: their usual size; .75, as in Wexler et al., blurs grass, .2 leaves patches side by side
CHUNK = 1 << 22  # numbers compared at a time


def fill_by_exemplar(
    image: np.ndarray,
    hole: np.ndarray,
    *,
    seed: int = 0,
    searched: int = SEARCHED,
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Fill a hole from the image's own patches.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W, C) float32 in [0, 1]; what is in the hole is not looked at.
    hole : numpy.ndarray
        (H, W) bool.
    seed : int
        Of the random search.
    searched : int
        Patches; a level with more takes its partners over from the coarser one.
    tick : callable
        Called between the steps; may raise to stop the work.

    Returns
    -------
    numpy.ndarray
        (H, W, C) float32; the same as ``image`` outside the hole. Where no whole patch is known, a membrane.

    Examples
    --------
    >>> stripes = np.tile(np.float32([0, 0, 1, 1]), (48, 12))[..., None]
    >>> hole = np.zeros((48, 48), bool)
    >>> hole[18:30, 17:31] = True
    >>> bool(np.abs(fill_by_exemplar(stripes, hole) - stripes).max() < 0.1)
    True
    """
    rng = np.random.default_rng(seed)
    levels = [(np.where(hole[..., None], 0, image).astype(np.float32), hole)]
    while _goes_coarser(levels[-1][1]):
        levels.append(_halved(*levels[-1]))
    pixels, hole = levels[-1]
    filled = said = _spanned(pixels, hole)
    offsets: np.ndarray | None = None
    for depth, (pixels, hole) in enumerate(reversed(levels)):
        if depth:
            coarse = filled
            filled = np.where(hole[..., None], _doubled(coarse, hole.shape), pixels)
        search = _Search.of(hole)
        if search is None:
            offsets = None
            continue
        partners = search.started(offsets, rng)
        few = len(search.places) <= searched or offsets is None
        for _ in range(ROUNDS[min(depth, len(ROUNDS) - 1)] if few else 1):
            tick()
            partners, costs = (
                search.improved(filled, partners, rng) if few else (partners, search.costs(filled, partners))
            )
            said = search.vote(filled, partners, costs)
            filled = np.where(hole[..., None], said, pixels)
        offsets = search.offsets(partners)
        if depth == len(levels) - 1:
            filled = _joined(pixels, hole, said, tick)
    return filled


@dataclass(frozen=True)
class _Search:
    """The patches of one level that touch the hole, and the ones that they may take after.

    Attributes
    ----------
    shape : tuple of int
    places : numpy.ndarray
        (n, 2): rows and columns of the centres of patches that touch the hole.
    number : numpy.ndarray
        (H, W): index into ``places``, -1 elsewhere.
    known : numpy.ndarray
        (H, W): whether the patch around a pixel is known altogether.
    sources : numpy.ndarray
        (m, 2): where it is.
    """

    shape: tuple[int, int]
    places: np.ndarray
    number: np.ndarray
    known: np.ndarray
    sources: np.ndarray

    @classmethod
    def of(cls, hole: np.ndarray) -> _Search | None:
        """Make the search of a level; None where there is nothing to search, or to be found."""
        window = np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), bool)
        touched = np.asarray(ndimage.binary_dilation(hole, window), bool)
        inside = np.zeros_like(hole)
        inside[RADIUS : hole.shape[0] - RADIUS, RADIUS : hole.shape[1] - RADIUS] = True
        known, places = inside & ~touched, np.argwhere(touched & inside)
        if not known.any() or not len(places):
            return None
        number = np.full(hole.shape, -1)
        number[tuple(places.T)] = np.arange(len(places))
        return cls(hole.shape, places, number, known, np.argwhere(known))

    def started(self, coarser: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Take over the partners of the coarser level, (H, W, 2) of offsets, where they are allowed; else any."""
        chosen = self.sources[rng.integers(len(self.sources), size=len(self.places))]
        if coarser is None:
            return chosen
        rows, cols = self.places.T // 2
        wished = self.places + 2 * coarser[rows, cols]
        return np.where(self._allowed(wished)[:, None], wished, chosen)

    def improved(
        self, image: np.ndarray, partners: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Let every patch try its neighbours' partners, moved, and some around its own."""
        partners = partners.copy()
        costs = self.costs(image, partners)
        for step in STEPS:
            for move in ((step, 0), (-step, 0), (0, step), (0, -step)):
                neighbours = self._numbers(self.places - move)
                self._try(image, partners, costs, partners[neighbours] + move, neighbours >= 0)
        reach = float(max(self.shape))
        while reach >= 1:
            around = partners + np.rint(rng.uniform(-reach, reach, partners.shape)).astype(int)
            self._try(image, partners, costs, around, np.ones(len(around), bool))
            reach /= 2
        return partners, costs

    def vote(self, image: np.ndarray, partners: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Give the mean of what the patches over each pixel say, the likeliest most; elsewhere the image."""
        spread = max(float(np.quantile(costs, QUANTILE)), 1e-6)
        weight = (np.exp(-costs / (2 * spread)) + 1e-6).astype(np.float32)
        total = np.zeros((*self.shape, image.shape[2]), np.float32)
        weights = np.zeros(self.shape, np.float32)
        for dy in range(-RADIUS, RADIUS + 1):
            for dx in range(-RADIUS, RADIUS + 1):
                # Of one offset, every patch speaks of another pixel.
                y, x = self.places[:, 0] + dy, self.places[:, 1] + dx
                total[y, x] += weight[:, None] * image[partners[:, 0] + dy, partners[:, 1] + dx]
                weights[y, x] += weight
        said = (weights > 0)[..., None]
        return np.where(said, total / np.where(said, weights[..., None], 1), image)

    def offsets(self, partners: np.ndarray) -> np.ndarray:
        """Give the partners as (H, W, 2) of offsets, for the next finer level."""
        found = np.zeros((*self.shape, 2), int)
        found[tuple(self.places.T)] = partners - self.places
        return found

    def costs(self, image: np.ndarray, partners: np.ndarray) -> np.ndarray:
        """Give the mean squared difference of every patch and its partner."""
        return self._costs(image, partners, np.arange(len(partners)))

    def _numbers(self, places: np.ndarray) -> np.ndarray:
        """Index of the patch at a place; -1 where there is none."""
        inside = ((places >= 0) & (places < self.shape)).all(1)
        found = np.full(len(places), -1)
        found[inside] = self.number[tuple(places[inside].T)]
        return found

    def _allowed(self, places: np.ndarray) -> np.ndarray:
        allowed = np.flatnonzero(((places >= 0) & (places < self.shape)).all(1))
        found = np.zeros(len(places), bool)
        found[allowed] = self.known[tuple(places[allowed].T)]
        return found

    def _try(
        self, image: np.ndarray, partners: np.ndarray, costs: np.ndarray, wished: np.ndarray, where: np.ndarray
    ) -> None:
        """Take the partners wished for where they are allowed and better, in place."""
        index = np.flatnonzero(where & self._allowed(wished))
        if not len(index):
            return
        tried = self._costs(image, wished[index], index)
        better = tried < costs[index]
        partners[index[better]] = wished[index[better]]
        costs[index[better]] = tried[better]

    def _costs(self, image: np.ndarray, partners: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Give the mean squared difference of some patches and their partners."""
        span = np.arange(-RADIUS, RADIUS + 1)
        dy, dx = (grid.ravel() for grid in np.meshgrid(span, span, indexing="ij"))
        flat, width = image.reshape(-1, image.shape[2]), self.shape[1]
        offsets = dy * width + dx
        ours, theirs = (places[:, 0] * width + places[:, 1] for places in (self.places[index], partners))
        costs = np.empty(len(partners), np.float32)
        size = max(CHUNK // (len(offsets) * image.shape[2]), 1)
        for start in range(0, len(partners), size):
            part = slice(start, start + size)
            difference = flat[ours[part, None] + offsets] - flat[theirs[part, None] + offsets]
            costs[part] = np.einsum("npc,npc->n", difference, difference)
        costs /= len(offsets) * image.shape[2]
        return costs


def _goes_coarser(hole: np.ndarray) -> bool:
    """Whether a level is to be halved: the hole is thicker than a patch, and enough is left."""
    if min(hole.shape) < 2 * SMALLEST:
        return False
    return bool(ndimage.binary_erosion(hole, np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), bool)).any())


def _halved(pixels: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average what is known of each four pixels; a pixel of which less than half is known is a hole."""
    share = halve(~hole)
    planes = halve(np.moveaxis(pixels * ~hole[..., None], -1, 0))
    coarse_hole = share < 0.5
    mean = planes / np.where(coarse_hole, 1, share)
    return np.moveaxis(np.where(coarse_hole, 0, mean), 0, -1), coarse_hole


def _doubled(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(double(np.moveaxis(pixels, -1, 0), shape[0], shape[1]), 0, -1)


def _spanned(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole by a membrane."""
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return np.ascontiguousarray(np.moveaxis(membrane(planes, hole), 0, -1))


def _joined(pixels: np.ndarray, hole: np.ndarray, said: np.ndarray, tick: Callable[[], None]) -> np.ndarray:
    """Take over the detail of what is said, in the colours of what is known (Perez et al. 2003)."""
    wrong = np.where(ring(hole)[..., None], pixels - said, 0)
    correction = membrane(np.ascontiguousarray(np.moveaxis(wrong, -1, 0)), hole, tick=tick)
    return np.where(hole[..., None], np.clip(said + np.moveaxis(correction, 0, -1), 0, 1), pixels)
