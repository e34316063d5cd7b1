"""Fill holes in a photograph: with what the rest of it is made of (Wexler et al. 2007, Barnes et al. 2009)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, Field
from scipy import ndimage

from velatura.errors import InputError
from velatura.image import Picture, open_image, open_mask, rescaled
from velatura.ops.exemplar import fill_by_exemplar
from velatura.task import Bands, ImageLike, Input, Params, Progress, Result, Task
from velatura.tiling import DEFAULT_MEMORY_MIB

__all__ = ["Inpaint", "InpaintParams", "inpaint"]

MODEL = "texture"
NEAR = 8  # px: holes that lie as near are filled together
LEAST_CONTEXT, MOST_CONTEXT = 64, 512  # px around a hole that are looked at: as many as it is long, within these
CLOSE = 12  # levels of 255 by which a painted colour may be off, in each channel: what JPEG does to it
RIM = 2  # px around a painted colour: where a soft brush mixed it
STRIP = 128  # rows of one band


def _box(value: Any) -> Any:
    """Accept ``"X,Y,W,H"`` where a box is wanted."""
    if not isinstance(value, str):
        return value
    if value.count(",") != 3:
        raise ValueError("expected X,Y,W,H: four whole numbers")
    return tuple(value.split(","))


def _color(value: Any) -> Any:
    """Accept ``"rrggbb"`` and ``"#rrggbb"`` only."""
    if isinstance(value, str) and not re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        raise ValueError("expected a colour such as ff00ff")
    return value


class InpaintParams(Params):
    """Options of `Inpaint`."""

    box: Annotated[tuple[int, int, int, int] | None, BeforeValidator(_box)] = Field(
        None,
        description="a rectangle to fill: X,Y of its upper left corner, width, height",
        json_schema_extra={"unit": "px"},
    )
    mask_color: Annotated[str | None, BeforeValidator(_color)] = Field(
        None, description="fill what is painted in this colour: rrggbb, such as ff00ff"
    )
    seed: int = Field(0, ge=0, description="another number gives another fill")


class Inpaint(Task):
    """Fill the holes of IMAGE that MASK shows in white.

    Parameters
    ----------
    name_or_path : str or path, optional
        ``texture``: holes are filled with patches of the image itself. It invents nothing that the image does not show
        elsewhere: walls, grass, sky and fabric go on, a face does not come back.
    device : str
        Unused: the work is done on the CPU.
    memory : float
        Unused: holes are filled one by one, each with its surroundings.

    Notes
    -----
    What the mask leaves out stays bit for bit; a grey mask fades the fill in. Depth, profile and metadata are those of
    the image. Without a mask, a box or a colour, the hole is where the image is fully transparent.

    Differs from the papers: see `velatura.ops.exemplar`.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.tile(np.uint8([40, 40, 200, 200]), (48, 12))
    >>> damaged = photo.copy()
    >>> damaged[20:28, 20:28] = 0
    >>> filled = Inpaint.from_pretrained()(damaged, box=(20, 20, 8, 8)).image
    >>> bool(np.abs(filled.astype(int) - photo).max() < 30)
    True
    """

    name = "inpaint"
    default_model = None
    Params = InpaintParams
    inputs = (
        Input("image", "the photograph with the hole", leading=True),
        Input("mask", "white = fill; of the photograph's size", required=False),
    )

    def __init__(self, name_or_path: str | Path | None = None) -> None:
        if name_or_path not in (None, MODEL):
            raise InputError(f"unknown model {str(name_or_path)!r}; expected {MODEL}")

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make the task; see the class."""
        return cls(name_or_path)

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read image and mask."""
        image, mask = values
        return (
            open_image(image, max_megapixels=max_megapixels),
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels),
        )

    def bands(self, images: tuple[Any, ...], params: InpaintParams, progress: Progress) -> Bands:
        """Find the holes, and hand out the rows."""
        picture, mask = images
        coverage = _coverage(picture, mask, params)
        return Bands(
            like=picture,
            height=picture.height,
            width=picture.width,
            rows=_rows(picture, coverage, params.seed, progress),
            channels=picture.channels,
            alpha=picture.alpha is not None,
        )

    def __call__(
        self, image: ImageLike, mask: ImageLike | None = None, *, progress: Progress | None = None, **params: Any
    ) -> Result:
        """Fill the holes of ``image``.

        Parameters
        ----------
        image : image
            (H, W[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        mask : image, optional
            (H, W): 1 or white = fill; soft edges are kept.
        progress : callable, optional
            ``progress(done, total, stage)``.
        **params
            Fields of `InpaintParams`.

        Returns
        -------
        Result

        Raises
        ------
        InputError
            No hole, nothing but hole, a mask of another size, a box outside, a bad option.
        """
        return self.run((image, mask), params, progress)


def inpaint(
    image: ImageLike,
    mask: ImageLike | None = None,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **params: Any,
) -> Result:
    """Fill the holes of one image.

    Examples
    --------
    >>> import numpy as np
    >>> grey = np.full((40, 40), 90, np.uint8)
    >>> bool((inpaint(grey, box=(10, 10, 5, 5)).image == grey).all())
    True
    """
    return Inpaint.from_pretrained(model, device=device)(image, mask, progress=progress, **params)


# --- the holes --------------------------------------------------------------------------------------------------------


def _coverage(picture: Picture, mask: np.ndarray | None, params: InpaintParams) -> np.ndarray:
    """Give how much of each pixel is to be filled, (H, W) uint8: by mask, box and colour, or where transparent."""
    size = picture.height, picture.width
    coverage = np.zeros(size, np.uint8)
    if mask is not None:
        if mask.shape != size:
            raise InputError(
                f"mask is {mask.shape[1]}x{mask.shape[0]}, image {size[1]}x{size[0]}; expected the same size"
            )
        coverage = mask.copy()
    if params.box is not None:
        x, y, width, height = params.box
        if width < 1 or height < 1 or x + width <= 0 or y + height <= 0 or x >= size[1] or y >= size[0]:
            raise InputError(f"box {x},{y},{width},{height} covers nothing of the image, which is {size[1]}x{size[0]}")
        coverage[max(y, 0) : y + height, max(x, 0) : x + width] = 255
    if params.mask_color is not None:
        coverage |= _painted(picture, params.mask_color)
    if mask is None and params.box is None and params.mask_color is None:
        if picture.alpha is None:
            raise InputError("no hole to fill: give a mask, a box (--box X,Y,W,H) or a colour (--mask-color)")
        coverage = (picture.alpha == 0) * np.uint8(255)
    if not coverage.any():
        raise InputError("nothing to fill: no pixel of the mask is white")
    if not _known(coverage, picture.alpha).any():
        raise InputError("nothing is left to fill from: the whole image is hole")
    return coverage


def _painted(picture: Picture, color: str) -> np.ndarray:
    """Give 255 where the image has a colour, and around it."""
    text = color.removeprefix("#")
    wanted = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)])
    if picture.channels == 1:
        if wanted.min() < wanted.max():
            raise InputError(f"the image is grey, and {color} is a colour; give a grey, or a mask")
        wanted = wanted[:1]
    found = np.empty((picture.height, picture.width), bool)
    for top in range(0, picture.height, STRIP):
        rows = rescaled(picture.pixels[top : top + STRIP], np.uint8).astype(np.int16)
        found[top : top + STRIP] = (np.abs(rows - wanted) <= CLOSE).all(-1)
    return ndimage.maximum_filter(found, 2 * RIM + 1) * np.uint8(255)


@dataclass(frozen=True, slots=True)
class _Region:
    """Holes that lie together: what is filled (inner), and with it what is looked at (outer)."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]


def _regions(coverage: np.ndarray, alpha: np.ndarray | None) -> list[_Region]:
    """List the holes, those near each other as one; something is known around each."""
    rows, cols = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
    top, left = int(rows[0]), int(cols[0])
    within = coverage[top : rows[-1] + 1, left : cols[-1] + 1] > 0
    labels = np.empty(within.shape, np.int32)
    ndimage.label(ndimage.maximum_filter(within, 2 * NEAR + 1), output=labels)
    regions = []
    for down, across in ndimage.find_objects(labels):
        inner = _moved(down, top), _moved(across, left)
        context = min(max(*(part.stop - part.start for part in inner), LEAST_CONTEXT), MOST_CONTEXT)
        outer = _grown(inner, context, coverage.shape)
        # Where all around is transparent, what is seen lies further away.
        while not _known(coverage[outer], None if alpha is None else alpha[outer]).any():
            context *= 2
            outer = _grown(inner, context, coverage.shape)
        regions.append(_Region(inner, outer))
    return regions


def _known(coverage: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Tell what a fill may be made of: what is no hole, and seen."""
    return coverage == 0 if alpha is None else (coverage == 0) & (alpha > 0)


def _grown(inner: tuple[slice, slice], by: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Grow a box, as far as the image reaches."""
    rows, cols = (
        slice(max(part.start - by, 0), min(part.stop + by, size)) for part, size in zip(inner, shape, strict=True)
    )
    return rows, cols


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


# --- rows of the result -----------------------------------------------------------------------------------------------


def _rows(picture: Picture, coverage: np.ndarray, seed: int, progress: Progress) -> Iterator[np.ndarray]:
    """Fill the holes, and put them into the rows."""
    regions = _regions(coverage, picture.alpha)
    fills = []
    for done, region in enumerate(regions):
        progress(done, len(regions), "filling")
        fills.append(
            _filled(picture, coverage, region, seed, lambda done=done: progress(done, len(regions), "filling"))
        )
    progress(len(regions), len(regions), "filling")
    dtype, white = picture.pixels.dtype, np.float32(picture.white)
    for top in range(0, picture.height, STRIP):
        bottom = min(top + STRIP, picture.height)
        out = picture.pixels[top:bottom].copy()
        for region, fill in zip(regions, fills, strict=True):
            (rows, cols), start = region.inner, region.inner[0].start
            first, last = max(rows.start, top), min(rows.stop, bottom)
            if first >= last:
                continue
            share = coverage[first:last, cols, None] * np.float32(1 / 255)
            base = out[first - top : last - top, cols]
            mixed = base + share * (fill[first - start : last - start] * white - base)
            if dtype.kind != "f":
                np.rint(mixed, out=mixed)
            # Only the hole: another one may reach into this box.
            np.copyto(base, np.clip(mixed, 0, white).astype(dtype), where=share > 0)
        if picture.alpha is not None:
            opaque = rescaled(coverage[top:bottom], dtype)
            out = np.concatenate([out, np.maximum(picture.alpha[top:bottom], opaque)[..., None]], -1)
        yield out


def _filled(picture: Picture, coverage: np.ndarray, region: _Region, seed: int, tick: Any) -> np.ndarray:
    """Fill one region: (h, w, C) float32 in [0, 1], its inner part."""
    window = picture.pixels[region.outer] * np.float32(1 / picture.white)
    alpha = None if picture.alpha is None else picture.alpha[region.outer]
    filled = fill_by_exemplar(window, ~_known(coverage[region.outer], alpha), seed=seed, tick=tick)
    rows, cols = (_moved(inner, -outer.start) for inner, outer in zip(region.inner, region.outer, strict=True))
    return filled[rows, cols].copy()
