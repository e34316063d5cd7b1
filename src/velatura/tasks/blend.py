"""Blend a piece of one photograph into another (GP-GAN, Wu et al. 2017, arXiv 1703.07195, and its classical kin)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field

from velatura.image import open_image, open_mask, rescaled
from velatura.ops.gaussian_poisson import divergence
from velatura.ops.poisson import membrane, ring, solve_dirichlet
from velatura.ops.pyramid import fill_holes
from velatura.ops.resize import resize
from velatura.ops.seam import Equation, Level, close_seam, correct_tile
from velatura.placement import ColourMap, Piece, place
from velatura.task import Bands, ImageLike, Input, Params, Progress, Result, Task
from velatura.tiling import DEFAULT_MEMORY_MIB, tiles

if TYPE_CHECKING:
    from velatura.nets.blending_gan import BlendingGAN

__all__ = ["Blend", "BlendParams", "blend"]

MODEL = "blending-gan"
SEAM_SIZE = 256  # px; at which the network's prior reads the seam; measured: 64 leaves 59 % more error, 128 23 %
THINNED = 512  # px; a window of which every k-th pixel is left has this side at least, where it had
COARSEST = 64  # px; GP-GAN section 3.3: the longer side of the coarsest level of the pyramid
MOST_LEVELS = 4  # a coarsest pixel of 16: a seam's step of 100 levels is felt by 1 at 64 px, by .01 in the mean
TOLERANCE = 0.3 / 255  # of white: estimated error of an exact-mask solution
STRIP = 128  # rows of one band where no equation asks for another


def _pair(value: Any) -> Any:
    """Accept ``"X,Y"`` where a pair is wanted."""
    if not isinstance(value, str):
        return value
    if value.count(",") != 1:
        raise ValueError("expected X,Y: two whole numbers")
    return tuple(value.split(","))


class BlendParams(Params):
    """Options of `Blend`."""

    method: Literal["gp-gan", "gaussian-poisson", "poisson", "mixed", "paste"] = Field(
        "gp-gan",
        description="gp-gan: colours by the Blending GAN, seam by the Gaussian-Poisson equation; gaussian-poisson: "
        "colours as they are; poisson: destination's colours, exact mask; mixed: the stronger gradient wins; paste",
    )
    at: Annotated[tuple[int, int], BeforeValidator(_pair)] | None = Field(
        None,
        description="X,Y of the source's top left corner in the destination; may be negative",
        json_schema_extra={"unit": "px"},
    )
    scale: float = Field(1.0, gt=0, le=64, description="enlarge the source and its mask by this before placing it")
    form: Literal["gradient", "printed", "code"] = Field(
        "gradient", description="form of the Gaussian-Poisson equation (gp-gan, gaussian-poisson)"
    )
    beta: float = Field(
        1.0, ge=1e-3, le=100, description="weight of the colours against the gradients (gp-gan, gaussian-poisson)"
    )


class Blend(Task):
    """Blend SOURCE into DESTINATION where MASK is white.

    Parameters
    ----------
    name_or_path : str or path, optional
        The Blending GAN: a catalog name or a file. It is read when ``gp-gan`` first needs it.
    device : str
        Where the network runs; the equations are solved on the CPU.
    memory : float
        MiB for one window of the Gaussian-Poisson equation. The correction at half the resolution takes about 5 bytes
        per pixel of the destination besides; ``poisson`` and ``mixed`` take about 40 per pixel of the mask's bounds.

    Notes
    -----
    Of two inputs the destination counts: size, depth, colour model, profile and metadata of the output are its own.
    Where the mask is 0 and the seam is far, its pixels stay bit for bit.

    Differs from the paper: see `velatura.ops.gaussian_poisson`, `velatura.ops.seam` and
    `velatura.nets.blending_gan`; the network looks at the surroundings of the mask instead of the whole image.

    Examples
    --------
    >>> import numpy as np
    >>> destination = np.full((48, 64, 3), 90, np.uint8)
    >>> source, mask = np.full((16, 16, 3), 200, np.uint8), np.ones((16, 16), bool)
    >>> result = Blend.from_pretrained()(source, destination, mask, at=(20, 10), method="paste")
    >>> result.image[10:12, 19:21, 0].tolist()
    [[90, 200], [90, 200]]
    """

    name = "blend"
    default_model = MODEL
    Params = BlendParams
    inputs = (
        Input("source", "the photograph that holds the piece"),
        Input("destination", "the photograph that takes it", leading=True),
        Input("mask", "white = take the source; of the source's size (default: the source's alpha)", required=False),
    )

    def __init__(
        self, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> None:
        self._model = MODEL if name_or_path is None else name_or_path
        self._device = device
        self._memory = memory
        if name_or_path is not None:
            self.net  # noqa: B018  a model that was named is checked at once

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make the task; see the class."""
        return cls(name_or_path, device=device, memory=memory)

    def prepare(self, params: BlendParams) -> None:
        """Read the network if the method needs it."""
        if params.method == "gp-gan":
            self.net  # noqa: B018

    @cached_property
    def net(self) -> BlendingGAN:
        """The Blending GAN, ready for use."""
        from velatura import catalog
        from velatura.device import resolve_device
        from velatura.nets.blending_gan import BlendingGAN

        device = resolve_device(self._device)
        return catalog.load(self._model, {"BlendingGAN": BlendingGAN}, device)  # pyright: ignore[reportReturnType]

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read source, destination and mask."""
        source, destination, mask = values
        return (
            open_image(source, max_megapixels=max_megapixels, name="source"),
            open_image(destination, max_megapixels=max_megapixels, name="destination"),
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels),
        )

    def bands(self, images: tuple[Any, ...], params: BlendParams, progress: Progress) -> Bands:
        """Place the piece, solve what needs the whole image, and hand out the rows."""
        source, destination, mask = images

        def tick() -> None:
            progress(0, destination.height, "solving")

        # The margin is all that any level of the pyramid looks at on both sides of the seam.
        piece = place(source, destination, mask, params.at, params.scale, margin=2 ** (MOST_LEVELS + 1))
        match params.method:
            case "paste":
                rows = _paste_rows(piece)
            case "poisson" | "mixed":
                tick()
                rows = _exact_rows(piece, tick, mixed=params.method == "mixed")
            case _:
                tick()
                equation = Equation(params.form, params.beta, memory=self._memory)
                levels = level_count(*piece.shape[1:])
                if params.method == "gp-gan":
                    piece = replace(piece, colours=self._colour_map(piece))
                rows = _seam_rows(piece, close_seam(piece, equation, levels, tick=tick), equation)
        return Bands(
            like=destination,
            height=destination.height,
            width=destination.width,
            rows=_with_alpha(rows, piece, progress),
            channels=destination.channels,
            alpha=destination.alpha is not None,
            made_by=Path(self._model).stem if params.method == "gp-gan" else None,
        )

    def _colour_map(self, piece: Piece) -> ColourMap | None:
        """Let the Blending GAN say how the source's colours should change."""
        composite, destination, mask, window = shrink(piece, SEAM_SIZE)
        if np.array_equal(composite, destination):
            return None  # nothing to correct
        import torch

        from velatura.device import limit_threads

        parameter = next(self.net.parameters())
        inputs = (torch.from_numpy(planes)[None].to(parameter.device) for planes in (composite, mask))
        # Hundreds of tiny operations: a second thread would cost more than it gains, and could change the last bit.
        with torch.inference_mode(), limit_threads(1):
            planes = self.net.colour_map(*inputs)[0].float().cpu().numpy()
        if piece.shape[0] == 1:
            # Grey is the same in all three channels, before and after.
            planes = np.stack([planes[:9].sum(0) / 3, planes[9:].mean(0)])
        return ColourMap(planes, window)

    def __call__(
        self,
        source: ImageLike,
        destination: ImageLike,
        mask: ImageLike | None = None,
        *,
        progress: Progress | None = None,
        **params: Any,
    ) -> Result:
        """Blend ``source`` into ``destination``.

        Parameters
        ----------
        source : image
            (h, w[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        destination : image
            (H, W[, C]); the result is of its form, size, depth and colour model.
        mask : image, optional
            (h, w), of the source's size: 1 or white = take the source; soft edges are kept. Multiplied with the
            source's alpha, which alone is the mask if none is given.
        progress : callable, optional
            ``progress(done, total, stage)``.
        **params
            Fields of `BlendParams`.

        Returns
        -------
        Result

        Raises
        ------
        InputError
            Sizes that do not fit without ``at``, an empty mask, a piece that lies outside, a bad option.
        """
        return self.run((source, destination, mask), params, progress)


def blend(
    source: ImageLike,
    destination: ImageLike,
    mask: ImageLike | None = None,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **params: Any,
) -> Result:
    """Blend once; `Blend` keeps the model for many calls.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.full((32, 32, 3), 128, np.uint8)
    >>> same = blend(photo, photo, np.ones((32, 32), bool), method="gaussian-poisson").image
    >>> bool((same == photo).all())
    True
    """
    return Blend.from_pretrained(model, device=device)(source, destination, mask, progress=progress, **params)


def level_count(height: int, width: int) -> int:
    """Give the number of halvings to the coarsest level of the pyramid, at least 1."""
    return min(max(math.ceil(math.log2(max(height, width) / COARSEST)), 1), MOST_LEVELS)


# --- what the network sees ------------------------------------------------------------------------------------------


def shrink(piece: Piece, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Show the network the piece and as much again around it.

    Returns
    -------
    composite, destination : numpy.ndarray
        (3, size, size) float32 in [0, 1].
    mask : numpy.ndarray
        (1, size, size) float32 in [0, 1].
    window : tuple of int
        Top, left, height and width of what is shown, in pixels of the destination.
    """
    spans = []
    for (start, stop), whole in zip(piece.support, piece.shape[1:], strict=True):
        # As in training, where the mask is about half as wide as the image.
        extent = min(2 * (stop - start), whole)
        first = min(max((start + stop - extent) // 2, 0), whole - extent)
        spans.append((first, first + extent))
    rows, cols = spans
    thin = piece.thinned(rows, cols, THINNED)
    channels, height, width = thin.shape
    mask = thin.mask((0, height), (0, width))
    pixels = np.moveaxis(thin.destination.pixels, -1, 0) * np.float32(1 / piece.destination.white)
    change = thin.contrast((0, height), (0, width)) * mask
    opacity = thin.opacity((0, height), (0, width))
    if opacity is not None:
        # Colours that nobody sees are replaced by those around them.
        pixels = np.where(mask == 1, pixels, fill_holes(pixels, opacity > 0))
    mask, *planes = (resize(plane, size, size, "area") for plane in (mask, *pixels, *change))
    destination, change = np.stack(planes[:channels]), np.stack(planes[channels:])
    composite = destination + change
    if channels == 1:
        composite, destination = np.repeat(composite, 3, 0), np.repeat(destination, 3, 0)
    return composite, destination, mask[None], (rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])


# --- rows of the result --------------------------------------------------------------------------------------------


def _quantized(values: np.ndarray, dtype: np.dtype, white: float) -> np.ndarray:
    """Round and clip colour values in units of the dtype, in place."""
    if dtype.kind != "f":
        np.rint(values, out=values)
    return np.clip(values, 0, white, out=values)


def _unseen(dtype: np.dtype) -> float:
    """Give the change that is none, in units of the dtype: what rounding drops, or a float's own grain."""
    return 1e-6 if dtype.kind == "f" else 0.499


def _write(out: np.ndarray, base: np.ndarray | None, change: np.ndarray, white: float) -> None:
    """Set ``out = base + change``: (h, w, C), the same or None for zero, (C, h, w) in units of white, used up."""
    change *= np.float32(white)
    if base is not None and max(change.max(), -change.min()) < _unseen(out.dtype):
        out[:] = base
        return
    for channel, plane in enumerate(change):
        if base is not None:
            plane += base[..., channel]
        out[..., channel] = _quantized(plane, out.dtype, white)


def _paste_rows(piece: Piece) -> Iterator[np.ndarray]:
    _, height, width = piece.shape
    cols = (0, width)
    (top, bottom), span = piece.support
    for start in range(0, height, STRIP):
        rows = start, min(start + STRIP, height)
        out = piece.destination.pixels[slice(*rows), slice(*cols)].copy()
        rows = max(rows[0], top), min(rows[1], bottom)
        if rows[0] < rows[1]:
            change = piece.contrast(rows, span)
            change *= piece.mask(rows, span)
            base = piece.destination.pixels[slice(*rows), slice(*span)]
            _write(out[rows[0] - start : rows[1] - start, slice(*span)], base, change, piece.destination.white)
        yield out


def _seam_rows(piece: Piece, half: Level, equation: Equation) -> Iterator[np.ndarray]:
    """Solve the finest level window by window, and add it to the composite."""
    _, height, width = piece.shape
    white = piece.destination.white
    unseen = _unseen(piece.destination.pixels.dtype) / white
    out = np.empty(0)
    for tile in tiles(height, width, equation.side, equation.halo):
        if tile.inner_cols[0] == 0:
            if out.size:
                yield out
            out = piece.destination.pixels[slice(*tile.inner_rows)].copy()
        outer = tile.outer_rows, tile.outer_cols
        base = piece.destination.pixels[tile.inner]
        share = piece.flat_share(*outer)
        quiet = share is not None and half.largest(*outer) < unseen / 2
        if share == 0 and quiet:
            continue
        if share is None:
            mask, contrast = piece.mask(*outer), piece.contrast(*outer)
            change = correct_tile(mask, piece.faded(contrast, *outer), half, tile, equation)
            contrast *= mask
            change += contrast[:, *tile.crop]
        elif share == 0 or piece.colours is None:
            change = correct_tile(None, None, half, tile, equation)
            if share == 1:
                base = _source_window(piece, tile.inner_rows, tile.inner_cols)
        else:
            base = None
            change = piece.coloured(tile.inner_rows, tile.inner_cols)
            if not quiet:
                change += correct_tile(None, None, half, tile, equation)
        _write(out[:, slice(*tile.inner_cols)], base, change, white)
    yield out


def _source_window(piece: Piece, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    """Give the source in a window that it fills."""
    return piece.source[rows[0] - piece.top : rows[1] - piece.top, cols[0] - piece.left : cols[1] - piece.left]


def _exact_rows(piece: Piece, tick: Callable[[], None], *, mixed: bool) -> Iterator[np.ndarray]:
    """Solve Poisson's equation on the mask: (Perez et al. 2003, equation 11; mixed: 12 and 13)."""
    height, white = piece.shape[1], piece.destination.white
    # One pixel more than the mask: the destination's own pixels are the boundary.
    rows, cols = (
        (max(start - 1, 0), min(stop + 1, size))
        for (start, stop), size in zip(piece.support, piece.shape[1:], strict=True)
    )
    free = piece.coverage(rows, cols) > 0
    correction = piece.difference(rows, cols)
    if mixed:
        source = _mixed_source(piece, rows, cols, free)
        np.negative(correction, out=correction)
        correction *= ~free
        correction = solve_dirichlet(correction, free, source, tolerance=TOLERANCE, tick=tick)
    else:
        correction *= -ring(free).astype(np.float32)
        correction = membrane(correction, free, tolerance=TOLERANCE, tick=tick)
    # From "added to the source" to "added to the destination": nothing outside the mask.
    for start in range(0, height, STRIP):
        stop = min(start + STRIP, height)
        out = piece.destination.pixels[start:stop].copy()
        band = max(start, rows[0]), min(stop, rows[1])
        if band[0] < band[1]:
            change = correction[:, band[0] - rows[0] : band[1] - rows[0]]
            change += piece.contrast(band, cols)
            change *= piece.mask(band, cols)
            base = piece.destination.pixels[slice(*band), slice(*cols)]
            _write(out[band[0] - start : band[1] - start, slice(*cols)], base, change, white)
        yield out


def _mixed_source(piece: Piece, rows: tuple[int, int], cols: tuple[int, int], free: np.ndarray) -> np.ndarray:
    """Give ``-div (v - grad s)`` where ``v`` is the stronger of the two gradients: (C, h, w), in bands of rows."""
    out = np.empty((piece.shape[0], *free.shape), np.float32)
    for top in range(rows[0], rows[1], STRIP):
        bottom = min(top + STRIP, rows[1])
        wide = max(top - 1, rows[0]), min(bottom + 1, rows[1])
        band = slice(top - rows[0], bottom - rows[0])
        flow = _mixed_divergence(piece, wide, cols)[:, top - wide[0] : bottom - wide[0]]
        np.multiply(flow, -free[band].astype(np.float32), out=out[:, band])
    return out


def _mixed_divergence(piece: Piece, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
    """Give ``div (v - grad s)`` in a window: right but for rows next to a cut."""
    window = piece.destination.pixels[slice(*rows), slice(*cols)]
    destination = np.moveaxis(window, -1, 0).astype(np.float32) / np.float32(piece.destination.white)
    contrast = piece.contrast(rows, cols)
    opacity = piece.opacity(rows, cols)
    flux = []
    for axis in (-2, -1):
        ours, theirs = (np.diff(planes, axis=axis) for planes in (destination + contrast, destination))
        if opacity is not None:
            # Colours that nobody sees have no gradient worth keeping.
            theirs *= np.minimum(*_neighbours(opacity, axis))
        # All channels of an edge go together, or colours would mix; a tie, but for rounding, is the source's.
        stronger = (theirs**2).sum(0) > (ours**2).sum(0) * (1 + 1e-4) + 1e-10
        full = np.zeros_like(contrast)
        inner = full[:, :-1] if axis == -2 else full[..., :-1]
        np.multiply(theirs - ours, stronger, out=inner)
        flux.append(full)
    return divergence(*flux)


def _neighbours(plane: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each pixel and the next one along an axis."""
    return (plane[:-1], plane[1:]) if axis == -2 else (plane[:, :-1], plane[:, 1:])


def _with_alpha(rows: Iterator[np.ndarray], piece: Piece, progress: Progress) -> Iterator[np.ndarray]:
    """Report progress; put the destination's alpha back, over which the piece now lies."""
    destination = piece.destination
    done = 0
    for band in rows:
        span = done, done + len(band)
        if destination.alpha is not None:
            coverage = piece.coverage(span, (0, destination.width))
            alpha = destination.alpha[slice(*span)]
            cover = rescaled(coverage, np.float32)
            change = (destination.white - alpha.astype(np.float32)) * cover
            joined = _quantized(alpha + change, alpha.dtype, destination.white).astype(alpha.dtype)
            band = np.concatenate([band, joined[..., None]], -1)
        yield band
        done += len(band)
        progress(done, destination.height, "blending")
