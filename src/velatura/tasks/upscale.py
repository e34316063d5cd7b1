"""Enlarge a photograph: SRCNN (Dong et al. 2014), SRResNet and SRGAN (Ledig et al. 2016), ESRGAN (Wang et al. 2018)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, PositiveInt

from velatura.catalog import cards, open_weights
from velatura.errors import InputError, ModelError
from velatura.image import LUMA, Picture, premultiply, unpremultiply
from velatura.openvino_engine import ExportedUpscaler
from velatura.ops.color import from_linear, to_linear
from velatura.ops.consistency import MARGIN, Shrinking
from velatura.ops.evidence import Calibration, variance_within
from velatura.ops.pyramid import fill_holes_in_bands
from velatura.ops.resize import Kernel, RowResize
from velatura.task import Bands, ImageLike, Input, Output, Params, Progress, Result, Task, parse_params
from velatura.tiling import DEFAULT_MEMORY_MIB, RowBuffer, tile_side, tiles

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Upscale", "UpscaleParams", "enlarged", "upscale"]

MODEL = "srresnet"
KERNELS: dict[str, Kernel] = {"bicubic": "bicubic", "lanczos": "lanczos"}  # models that are none
# The faithful model of the same architecture that a model with invented detail began as.
FAITHFUL = {"srgan": "srresnet", "esrgan": "esrgan-psnr", "esrgan-photo": "esrgan-psnr"}
# Models that take the place of another where the result is at most so many times as large on both sides, ascending.
BY_SCALE = {"srresnet": {2: "srresnet-x2"}}
FILES = (".safetensors", ".pth", ".pt", ".onnx")

LARGEST, SMALLEST = 8.0, 1.0  # scale
STRIP = 64  # rows of the result that are made at a time
BAND = 8192  # pixels of the photograph in one band at most: measured, more leave the processor's caches
BYTES = 16_384  # that a network works with for each of them, the last layers at four times the size
EXPORTED_BYTES = 8192  # that OpenVINO works with for each pixel of a tile, measured for SRResNet

# Measured by `velatura evaluate upscale` on held-out images, at the network's own factor.
CALIBRATIONS = {
    "srresnet": Calibration(0.0078, 2.1e-4),
    "srcnn": Calibration(0.0099, 3.8e-4),
    "srresnet-x2": Calibration(0.0031, 1.5e-4),
    "esrgan-psnr": Calibration(0.0080, 2.2e-4),
    "srgan": Calibration(0.0156, 2.29e-3),
    "esrgan": Calibration(0.0161, 1.94e-3),
    "esrgan-photo": Calibration(0.0151, 1.04e-3),
    "bicubic": Calibration(0.0108, 2.2e-4),
    "lanczos": Calibration(0.0104, 2.7e-4),
}


def _size(value: Any) -> Any:
    """Accept ``"WxH"``, ``"Wx"`` and ``"xH"`` where a size is wanted."""
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]*)x([0-9]*)", value.lower())
        value = tuple(int(part) if part else None for part in found.groups()) if found else ()
    if isinstance(value, tuple | list) and not any(value):
        raise ValueError("expected WxH, Wx or xH, in pixels, at least one side")
    return value


def _calibration(model: str | Path) -> Calibration:
    """Give that of a model; of one that has none, the usual model's."""
    return CALIBRATIONS.get(str(model), CALIBRATIONS[MODEL])


def _pair(model: str | Path) -> tuple[str, str]:
    """Name the faithful and the inventing model of one architecture, whichever of them is given."""
    for sharp, faithful in FAITHFUL.items():
        if model in (sharp, faithful):
            return faithful, sharp
    raise InputError(f"realism lies between two models; {model} has no counterpart, take {', '.join(FAITHFUL)}")


def _taking_part(model: str | Path, realism: float | None) -> tuple[str | Path, ...]:
    """Name the models whose weights are used."""
    if realism is None:
        return (model,)
    faithful, sharp = _pair(model)
    return tuple(name for name, share in ((faithful, 1 - realism), (sharp, realism)) if share)


def _label(models: tuple[str | Path, ...], realism: float | None) -> str:
    """Say what did the work."""
    names = "+".join(Path(model).stem for model in models)
    return names if len(models) == 1 else f"{names}@{realism:g}"


def _is_file(model: str) -> bool:
    """Tell a path from a name of the catalog."""
    path = Path(model)
    return path.name != model or path.suffix in FILES


class UpscaleParams(Params):
    """Options of `Upscale`."""

    scale: float = Field(4.0, ge=SMALLEST, le=LARGEST, description="how many times larger, any number")
    size: Annotated[tuple[PositiveInt | None, PositiveInt | None] | None, BeforeValidator(_size)] = Field(
        None, description="size of the result instead of a scale: WxH, Wx or xH", json_schema_extra={"unit": "px"}
    )
    realism: float | None = Field(
        None, ge=0, le=1, description="from faithful (0) to sharp, invented detail (1), between two models"
    )
    consistent: bool = Field(False, description="let the result shrink to exactly what was given")
    kernel: Literal["bicubic", "area", "lanczos"] = Field(
        "bicubic", description="how the photograph was shrunk, for consistent"
    )
    evidence: bool = Field(False, description="map of how much of the detail the photograph does not determine")

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Give the height and width of the result.

        Raises
        ------
        InputError
            The size is out of range for this image.
        """
        if self.size is None:
            return max(round(height * self.scale), 1), max(round(width * self.scale), 1)
        new_width, new_height = self.size
        new_width = new_width or max(round(width * (new_height or 0) / height), 1)
        new_height = new_height or max(round(height * new_width / width), 1)
        for new, old in ((new_width, width), (new_height, height)):
            if not SMALLEST * old <= new <= LARGEST * old:
                raise InputError(
                    f"size {new_width}x{new_height} is out of reach for {width}x{height}; expected each side from "
                    f"{SMALLEST:g} to {LARGEST:g} times as long"
                )
        return new_height, new_width


class Upscale(Task):
    """Enlarge IMAGE, faithfully or with invented detail.

    Parameters
    ----------
    name_or_path : str or path, optional
        A model of the catalog, ``bicubic``, ``lanczos``, or a file: ours, or an ESRGAN or compact model of others; an
        ``.onnx`` file of ours runs by OpenVINO, without torch and in half the memory.
    device : str
        Where the network runs.
    memory : float
        MiB at most for the bands that the network works on. More than 128 changes nothing, as larger bands are slower;
        networks that take tiles instead use all of it. What the layers keep between two bands comes on top: it grows
        with the width of the image, never with its height.

    Notes
    -----
    The image passes through the network in bands of rows, each layer keeping the rows that its next band needs
    (`velatura.nets.rows`): there are no tiles, so there are no seams, and nothing is computed twice. Depth, alpha,
    profile and metadata are those of the image. On a processor that has it the convolutions compute in bfloat16.

    A network enlarges by its own factor; the rest is done by antialiased resizing, in linear light where that makes the
    image smaller. Where the result is at most twice as large on both sides, ``srresnet`` without ``realism`` leaves the
    work to ``srresnet-x2``, if the catalog has it.

    Differs from the papers: see the networks and `velatura.training.recipes.upscale`.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.full((6, 8, 3), 128, np.uint8)
    >>> Upscale.from_pretrained("bicubic")(photo, scale=1.5).image.shape
    (9, 12, 3)
    """

    name = "upscale"
    default_model = MODEL
    Params = UpscaleParams
    inputs = (Input("image", "the photograph to enlarge", leading=True),)
    outputs = (Output("evidence", "map of how much of the detail the photograph does not determine, as an image"),)

    def __init__(
        self, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> None:
        self._model = MODEL if name_or_path is None else name_or_path
        self._device = device
        self._memory = memory
        self._networks: dict[tuple[str | Path, float | None], nn.Module | ExportedUpscaler] = {}
        if isinstance(self._model, str) and not _is_file(self._model) and self._model not in self.models():
            near = difflib.get_close_matches(self._model, self.models(), n=1)
            known = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(self.models())},"
            raise ModelError(f"unknown model {self._model!r}; {known} or a file ({', '.join(FILES)})")
        if name_or_path is not None:
            self.prepare(parse_params(UpscaleParams, {}))  # a model that was named is checked at once

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make the task; see the class."""
        return cls(name_or_path, device=device, memory=memory)

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        networks = (card.name for card in cards() if card.task == cls.name)
        return *dict.fromkeys((MODEL, *networks)), *KERNELS

    def calibration(self, factor: float) -> Calibration:
        """Say what detail of a result so many times as large is worth."""
        return _calibration(self._model_for(factor, None))

    def prepare(self, params: UpscaleParams) -> None:
        """Read the networks that the options need; which one a size needs, the image decides."""
        if self._kernel is not None:
            if params.realism is not None:
                raise InputError(f"realism lies between networks; {self._model} is none, take {', '.join(FAITHFUL)}")
        elif params.size is not None and params.realism is None and self._model_for(SMALLEST, None) != self._model:
            from velatura.device import resolve_device

            resolve_device(self._device)
            for model in (self._model, self._model_for(SMALLEST, None)):
                open_weights(model)
        else:
            self._network(self._model_for(params.scale, params.realism), params.realism)

    def _model_for(self, factor: float, realism: float | None) -> str | Path:
        """Name the model that makes images so many times as large."""
        if realism is None:
            known = {card.name for card in cards()}
            for most, name in BY_SCALE.get(str(self._model), {}).items():
                if factor <= most and name in known:
                    return name
        return self._model

    def _network(self, model: str | Path, realism: float | None) -> nn.Module | ExportedUpscaler:
        """Give a network, read once."""
        key = model, realism
        if key not in self._networks:
            # The plain networks and the last mixture: a slider would fill the memory.
            plain = {known: network for known, network in self._networks.items() if known[1] is None}
            self._networks = plain | {key: self._load(model, realism)}
        return self._networks[key]

    @property
    def _kernel(self) -> Kernel | None:
        """The kernel that stands in for a network."""
        return KERNELS.get(str(self._model))

    def _load(self, model: str | Path, realism: float | None) -> nn.Module | ExportedUpscaler:
        """Read the network, or mix two (ESRGAN, Wang et al. 2018, section 3.4), ready to enlarge bands of rows."""
        if Path(model).suffix == ".onnx":
            return self._exported(realism)
        from velatura.community import load_upscaler
        from velatura.device import half_precision, resolve_device
        from velatura.nets.inference import for_inference
        from velatura.nets.rows import takes_rows

        device = resolve_device(self._device)
        if realism is None:
            network = load_upscaler(model, device)
        else:
            network, other = (load_upscaler(one, device) for one in _pair(model))
            for parameter, goal in zip(network.parameters(), other.parameters(), strict=True):
                parameter.lerp_(goal, realism)
        return for_inference(network, half_precision(device)) if takes_rows(network) else network

    def _exported(self, realism: float | None) -> ExportedUpscaler:
        """Read a network that was exported; it runs without torch."""
        if realism is not None:
            raise InputError(
                f"realism lies between two networks, and an exported file holds one; name {', '.join(FAITHFUL)}"
            )
        if self._device not in ("auto", "cpu"):
            raise InputError(f"exported networks run on the CPU, not on {self._device!r}; leave out --device")
        return ExportedUpscaler(self._model)

    def bands(self, images: tuple[Any, ...], params: UpscaleParams, progress: Progress) -> Bands:
        """Check the size, and hand out the rows."""
        picture: Picture = images[0]
        size = params.target(picture.height, picture.width)
        small = picture.height, picture.width
        model = self._model_for(max(size[0] / small[0], size[1] / small[1]), params.realism)
        models = _taking_part(model, params.realism)
        # Networks of others that enlarge by 1 take away noise, and the like.
        unchanged = size == small and (self._kernel is not None or self._network(model, params.realism).scale != 1)
        seen = _seen(picture) if self._kernel is None or params.consistent else picture
        if unchanged:
            colours = (_floats(picture.pixels, picture.white, *rows) for rows in _strips(size[0]))
        elif self._kernel is not None:
            colours = _by_kernel(picture, size, self._kernel)
        else:
            colours = _by_network(self._network(model, params.realism), seen, size, self._memory)
        if params.consistent and not unchanged:
            colours = _projected(RowBuffer(colours), seen, Shrinking(size, small, params.kernel))
        evidence = np.empty(small if params.evidence else (0, 0), np.uint8)
        if params.evidence:
            colours = _witnessed(RowBuffer(colours), small, size, models, evidence)
        return Bands(
            like=picture,
            height=size[0],
            width=size[1],
            rows=_written(colours, _opacity(picture, size), picture, size[0], progress),
            channels=picture.channels,
            alpha=picture.alpha is not None,
            made_by=_label(models, params.realism) if self._kernel is None and not unchanged else None,
            maps={"evidence": lambda: _map_bands(_as_seen(evidence, picture.alpha), size)} if params.evidence else {},
        )

    def __call__(self, image: ImageLike, *, progress: Progress | None = None, **params: Any) -> Result:
        """Enlarge ``image``.

        Parameters
        ----------
        image : image
            (H, W[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        progress : callable, optional
            ``progress(done, total, stage)``.
        **params
            Fields of `UpscaleParams`.

        Returns
        -------
        Result
            ``maps["evidence"]`` beside the image, if it was asked for: 8 bit, of the size of the result.

        Raises
        ------
        InputError
            A size out of reach, a bad option.
        """
        return self.run((image,), params, progress)


def upscale(
    image: ImageLike,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **params: Any,
) -> Result:
    """Enlarge once; `Upscale` keeps the model for many calls.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.full((32, 32, 3), 128, np.uint8)
    >>> upscale(photo, model="lanczos", size=(100, None)).image.shape
    (100, 100, 3)
    """
    return Upscale.from_pretrained(model, device=device)(image, progress=progress, **params)


def enlarged(pictures: Sequence[Picture], scale: float, *, device: str, progress: Progress) -> list[Picture]:
    """Enlarge pictures that another task drew, by the default model.

    Parameters
    ----------
    pictures : sequence of Picture
    scale : float
        As in `UpscaleParams`.
    device : str
    progress : callable
        Told of every picture, in the stage "enlarging".

    Returns
    -------
    list of Picture
    """
    task, large = Upscale.from_pretrained(device=device), []
    for i, picture in enumerate(pictures):
        large.append(task(picture, scale=scale).picture)
        progress(i + 1, len(pictures), "enlarging")
    return large


# --- rows of colour, float32 in [0, 1] ----------------------------------------------------------------------------


def _seen(picture: Picture) -> Picture:
    """Replace colours that nobody sees by those around them, so that they cannot bleed."""
    if picture.alpha is None or picture.alpha.all():
        return picture
    alpha, pixels = picture.alpha, picture.pixels.copy()

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        planes = np.moveaxis(_floats(picture.pixels, picture.white, start, stop), -1, 0)
        return planes, alpha[start:stop] > 0

    top = 0
    for band in fill_holes_in_bands(rows, picture.height):
        made, hidden = pixels[top : top + band.shape[1]], alpha[top : top + band.shape[1]] == 0
        made[hidden] = _quantized(band[:, hidden].T * np.float32(picture.white), pixels.dtype, picture.white)
        top += len(made)
    return picture.replace(pixels=pixels)


def _by_kernel(picture: Picture, size: tuple[int, int], kernel: Kernel) -> Iterator[np.ndarray]:
    """Enlarge by interpolation, colours multiplied by their opacity."""
    resized = RowResize((picture.height, picture.width), size, kernel)
    for rows in _strips(size[0]):
        start, stop = resized.needs(rows)
        colours = _floats(picture.pixels, picture.white, start, stop)
        if picture.alpha is None:
            made = resized.rows(colours, start, rows)
        else:
            opacity = _floats(picture.alpha, picture.white, start, stop)
            made = resized.rows(premultiply(colours, opacity), start, rows)
            made = unpremultiply(made, resized.rows(opacity, start, rows).clip(0, 1))
        yield np.clip(made, 0, 1, out=made)


def _by_network(
    network: nn.Module | ExportedUpscaler, picture: Picture, size: tuple[int, int], memory: float
) -> Iterator[np.ndarray]:
    """Enlarge by the network's own factor, then to the size asked for."""
    scale: int = network.scale  # pyright: ignore[reportAssignmentType]
    own = picture.height * scale, picture.width * scale
    if isinstance(network, ExportedUpscaler):
        rows = _exported_rows(network, picture, memory)
    else:
        rows = _network_rows(network, picture, memory)
    if own == size:
        yield from rows
        return
    # A photograph is made smaller in linear light, as a lens would do it; larger, in values that the eye finds even.
    smaller = size[0] * size[1] < own[0] * own[1]
    buffer = RowBuffer(to_linear(band) for band in rows) if smaller else RowBuffer(rows)
    resized = RowResize(own, size, "bicubic")
    for strip in _strips(size[0]):
        start, stop = resized.needs(strip)
        made = resized.rows(buffer.window(start, stop), start, strip)
        yield np.clip(from_linear(made) if smaller else made, 0, 1)


def _network_rows(network: nn.Module, picture: Picture, memory: float) -> Iterator[np.ndarray]:
    """Send an image through a network, in bands if it takes them, else in tiles."""
    import torch

    from velatura.nets.rows import LEAST, in_bands, takes_rows
    from velatura.nets.tiles import LEAST as LEAST_TILE
    from velatura.nets.tiles import in_tiles

    device = next(network.parameters()).device
    height, width = picture.height, picture.width
    multiple: int = getattr(network, "multiple", 1)

    def tensor(start: int, stop: int) -> torch.Tensor:
        planes = torch.from_numpy(_floats(picture.pixels, picture.white, start, stop)).to(device)
        return planes.permute(2, 0, 1)[None].expand(-1, 3, -1, -1)  # grey as a colour image

    @torch.inference_mode()
    def made() -> Iterator[torch.Tensor]:
        if takes_rows(network):
            rows = max(int(min(BAND, memory * 2**20 / BYTES)) // width, LEAST)
            rows = -(-rows // multiple) * multiple
            starts = range(0, height, rows)
            yield from in_bands(network, ((tensor(y, min(y + rows, height)), y + rows >= height) for y in starts))
        else:
            halo = int(network.receptive_radius)  # pyright: ignore[reportArgumentType]
            side = tile_side(memory, BYTES, halo, multiple=max(multiple, LEAST_TILE))
            if not getattr(network, "tiles_well", True):
                side = max(height, width)
            yield from in_tiles(network, tensor, height, width, side, halo)

    for band in made():
        colours = band[0].mean(0, keepdim=True) if picture.channels == 1 else band[0]
        yield colours.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _exported_rows(network: ExportedUpscaler, picture: Picture, memory: float) -> Iterator[np.ndarray]:
    """Send an image through an exported network, in tiles with all that it sees around them."""
    halo, scale = network.receptive_radius, network.scale
    side = tile_side(memory, EXPORTED_BYTES, halo)
    band = np.empty((0, 0, 0), np.float32)
    for tile in tiles(picture.height, picture.width, side, halo):
        (top, bottom), (left, right) = tile.inner_rows, tile.inner_cols
        if left == 0:
            band = np.empty(((bottom - top) * scale, picture.width * scale, picture.channels), np.float32)
        seen = _floats(picture.pixels[:, slice(*tile.outer_cols)], picture.white, *tile.outer_rows)
        made = network(np.repeat(seen, 3, 2) if picture.channels == 1 else seen)
        part = made[tuple(slice(span.start * scale, span.stop * scale) for span in tile.crop)]
        band[:, left * scale : right * scale] = part.mean(2, keepdims=True) if picture.channels == 1 else part
        if right == picture.width:
            yield np.clip(band, 0, 1, out=band)


# --- what the photograph determines -----------------------------------------------------------------------------------


def _projected(colours: RowBuffer, picture: Picture, shrinking: Shrinking) -> Iterator[np.ndarray]:
    """Change rows as little as possible, so that they shrink to the photograph."""
    whole, small = shrinking.size, shrinking.small
    columns = list(tiles(1, small[1], STRIP, MARGIN))
    for top, bottom in _strips(small[0]):
        around = max(top - MARGIN, 0), min(bottom + MARGIN, small[0])
        start, stop = (_first(row, small[0], whole[0]) for row in (top, bottom))
        windows = [shrinking.window(around, tile.outer_cols) for tile in columns]
        first, last = windows[0].row_span
        before = colours.window(min(start, first), max(stop, last))
        done = np.empty((stop - start, *before.shape[1:]), np.float32)
        for window, tile in zip(windows, columns, strict=True):
            given = _floats(picture.pixels[:, slice(*tile.outer_cols)], picture.white, *around)
            seen = slice(max(first - start, 0), max(first - start, 0) + last - first)
            made = window.project(before[seen, slice(*window.col_span)], given)
            left, right = (_first(column, small[1], whole[1]) for column in tile.inner_cols)
            side = window.col_span[0]
            done[:, left:right] = made[start - first : stop - first, left - side : right - side]
        yield done


def _witnessed(
    colours: RowBuffer, small: tuple[int, int], size: tuple[int, int], models: tuple[str | Path, ...], found: np.ndarray
) -> Iterator[np.ndarray]:
    """Pass rows on, and write into ``found`` how much of their detail is not determined by the photograph."""
    cells = RowResize(size, small, "area")
    for top, bottom in _strips(small[0]):
        around = max(top - 1, 0), min(bottom + 1, small[0])
        start, stop = (_first(row, small[0], size[0]) for row in (top, bottom))
        needed = cells.needs(around)
        first, last = min(start, needed[0]), max(stop, needed[1])
        window = colours.window(first, last)
        luma = window @ _luma_weights(window.shape[-1])
        variance = variance_within(cells, luma, first, around)
        share = np.maximum.reduce([_calibration(model).share(variance) for model in models])
        found[top:bottom] = np.rint(255 * share[top - around[0] : bottom - around[0]])
        yield window[start - first : stop - first]


def _first(pixel: int, small: int, large: int) -> int:
    """Give the first pixel of the large image that begins not before one of the small image does."""
    return -(-pixel * large // small)


def _luma_weights(channels: int) -> np.ndarray:
    return np.ones(1, np.float32) if channels == 1 else np.array(LUMA, np.float32)


def _as_seen(found: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Leave out what nobody sees."""
    return found if alpha is None else np.where(alpha > 0, found, np.uint8(0))


def _map_bands(found: np.ndarray, size: tuple[int, int]) -> Bands:
    """Enlarge the map to the size of the result."""
    resized = RowResize(found.shape, size, "linear")
    like = Picture(np.zeros((1, 1, 1), np.uint8))

    def rows() -> Iterator[np.ndarray]:
        for strip in _strips(size[0]):
            start, stop = resized.needs(strip)
            made = resized.rows(found[start:stop], start, strip)[..., None]
            yield _quantized(made, like.pixels.dtype, 255)

    return Bands(like, *size, rows(), channels=1)


# --- rows of the result -----------------------------------------------------------------------------------------------


def _strips(height: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + STRIP, height)) for start in range(0, height, STRIP))


def _floats(values: np.ndarray, white: float, start: int, stop: int) -> np.ndarray:
    return values[start:stop] * np.float32(1 / white)


def _quantized(values: np.ndarray, dtype: np.dtype, white: float) -> np.ndarray:
    """Turn colours in units of the dtype, used up, into it."""
    if dtype.kind != "f":
        np.rint(values, out=values)
    return np.clip(values, 0, white, out=values).astype(dtype, copy=False)


def _opacity(picture: Picture, size: tuple[int, int]) -> RowBuffer | None:
    """Enlarge the opacity."""
    alpha = picture.alpha
    if alpha is None:
        return None
    resized = RowResize((picture.height, picture.width), size, "bicubic")

    def rows() -> Iterator[np.ndarray]:
        for strip in _strips(size[0]):
            start, stop = resized.needs(strip)
            yield resized.rows(_floats(alpha, picture.white, start, stop), start, strip).clip(0, 1)

    return RowBuffer(rows())


def _written(
    colours: Iterator[np.ndarray], opacity: RowBuffer | None, picture: Picture, height: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Turn colours into rows of the picture's own kind, with its opacity."""
    dtype, white, done = picture.pixels.dtype, np.float32(picture.white), 0
    progress(0, height, "upscaling")
    for band in colours:
        stop = done + len(band)
        if opacity is not None:
            band = np.concatenate([band, opacity.window(done, stop)[..., None]], -1)
        yield _quantized(band * white, dtype, float(white))
        done = stop
        progress(done, height, "upscaling")
