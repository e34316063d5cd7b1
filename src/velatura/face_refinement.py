"""Refine the faces of a restored photograph: found, cut out upright, made clear, blended back.

Wan et al., "Old Photo Restoration via Deep Latent Space Translation", 2022 (arXiv 2009.07047), section 3.3.

    image ── find_faces ──► align ──► FaceRefiner ──► change ── membrane, feather ──► warp_back ──► image

Only the *change* of a face is taken back, so that a face larger than the network's crops keeps its own detail. As in
Poisson blending (Perez et al. 2003, equation 4) the change loses what a membrane spans over it from its border, so that
no step and no tone stands around a face; then it is feathered.

Differs from the paper: faces are found once; nothing outside the feathered mask changes; how much is a matter of taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from velatura import catalog
from velatura.device import resolve_device
from velatura.errors import InputError
from velatura.faces import Face, align, find_faces, warp_back
from velatura.nets.face_refiner import FaceRefiner
from velatura.ops.poisson import membrane

__all__ = ["feather", "load_refiner", "refine", "refine_in_place"]

Image = NDArray[np.float32]

REFINER = "face-refiner"
SMALLEST = 48  # px: faces whose crops have a smaller side are left as they are: there is too little to go by
# Of the crop's side: where the mask ends. It holds the face's box, of which it rounds the corners off.
MIDDLE, REACH = (0.5, 0.52), (0.46, 0.47)
ROUND = 4  # exponent of the outline; 2 would be an ellipse
SOFT = 0.3  # of the way from the outline to the middle: where the mask falls from 1 to 0


def refine(
    image: Image,
    *,
    strength: float = 1.0,
    faces: Sequence[Face] | None = None,
    refiner: FaceRefiner | None = None,
) -> Image:
    """Refine the faces of an image: `refine_in_place` of a copy.

    Parameters
    ----------
    image : ndarray of float32, (H, W, 3)
        RGB, 0..1.
    strength : float
        From the image as it is (0, to the last bit) to refined (1).
    faces : sequence of Face, optional
        Where they are; looked for if not given.
    refiner : FaceRefiner, optional
        From `load_refiner`, on any device; the one that comes with the package if none is given.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        Bit for bit the image but for the faces; a face without colour stays so. The image itself where there is
        nothing to do.

    Raises
    ------
    InputError
        No such image, or a strength out of range.
    ModelError
        The weights are missing or damaged.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((40, 30, 3), np.float32)
    >>> refine(image, strength=0) is image, refine(image, faces=[], refiner=FaceRefiner()) is image
    (True, True)
    """
    _check(image, strength)
    found = find_faces(image) if faces is None and strength else faces
    if not (found and strength):
        return image
    result = image.copy()
    refine_in_place(result, strength=strength, faces=found, refiner=refiner)
    return result


def refine_in_place(
    image: Image,
    *,
    strength: float = 1.0,
    faces: Sequence[Face] | None = None,
    refiner: FaceRefiner | None = None,
) -> None:
    """Refine the faces of an image where it lies: a large one need not be held twice.

    See `refine` for parameters and errors; ``image`` is changed.
    """
    _check(image, strength)
    if strength == 0:
        return
    found = _apart(find_faces(image) if faces is None else faces)
    if not found:
        return
    net = load_refiner() if refiner is None else refiner
    for face in found:
        _refine_one(image, face, net, strength)


def _check(image: Image, strength: float) -> None:
    """Refuse what is no such image, and a strength out of range."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.float32 or not 0 <= strength <= 1:
        raise InputError(
            f"got {image.dtype} of shape {image.shape}, strength {strength}; expected float32 (H, W, 3), and 0..1"
        )


def feather(side: int) -> Image:
    """Give how much of the change of each pixel of a crop counts: (side, side), 1 in the middle, 0 at the border."""
    place = (np.arange(side) + 0.5) / side
    x, y = (np.abs(place - middle) / reach for middle, reach in zip(MIDDLE, REACH, strict=True))
    inside = (1 - (x[None] ** ROUND + y[:, None] ** ROUND) ** (1 / ROUND)) / SOFT
    rise = inside.clip(0, 1)
    return (rise * rise * (3 - 2 * rise)).astype(np.float32)


@lru_cache(maxsize=2)
def load_refiner(name_or_path: str | Path = REFINER, device: str = "cpu") -> FaceRefiner:
    """Load a refiner once.

    Raises
    ------
    ModelError
        The weights are missing or damaged.
    """
    return catalog.load(name_or_path, {"FaceRefiner": FaceRefiner}, resolve_device(device))


def _apart(faces: Sequence[Face]) -> list[Face]:
    """Leave out what holds the middle of a surer face, as a head with its shoulders does: a face holds no other."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        left, top, right, bottom = face.box
        middles = [((one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2) for one in kept]
        if not any(left < x < right and top < y < bottom for x, y in middles):
            kept.append(face)
    return kept


def _refine_one(image: Image, face: Face, net: FaceRefiner, strength: float) -> None:
    """Refine one face in place."""
    crop, transform = align(image, face, net.side)
    if net.side / transform.scale < SMALLEST:
        return
    mask = feather(net.side)
    change = strength * _without_border(_change(net, crop.clip(0, 1)), mask > 0)
    window = warp_back(change, transform, image, mask)
    part, weight = image[window.rows, window.cols], window.mask[..., None]
    np.copyto(part, (part + weight * window.pixels).clip(0, 1), where=weight > 0)


@torch.inference_mode()
def _change(net: FaceRefiner, crop: Image) -> Image:
    """Say what is to be added to a crop."""
    device = next(net.parameters()).device
    given = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))[None].to(device)
    change = (net(given) - given)[0].permute(1, 2, 0).cpu().numpy()
    has_no_colour = bool((crop == crop[..., :1]).all())
    return change.mean(2, keepdims=True).repeat(3, 2) if has_no_colour else change


def _without_border(change: Image, free: NDArray[np.bool_]) -> Image:
    """Take away what a membrane spans over the change from its border; beyond that there is none."""
    planes = np.ascontiguousarray(change.transpose(2, 0, 1))
    return ((planes - membrane(planes, free)) * free).transpose(1, 2, 0)
