"""Restore an old photograph: damage found and filled, noise, blur and fading undone (Wan et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from velatura import catalog
from velatura.errors import InputError, ModelError
from velatura.hidden import on_paper, without_hidden
from velatura.image import Picture, open_image, open_mask
from velatura.image.picture import warn
from velatura.ops.degrade import UNFADED, Fading
from velatura.ops.fading import thumbnail, undone
from velatura.ops.resize import RowResize
from velatura.task import Bands, ImageLike, Input, Output, Params, Progress, Result, Task
from velatura.tiling import DEFAULT_MEMORY_MIB, RowBuffer

if TYPE_CHECKING:
    from velatura.nets.fading import FadingEstimator
    from velatura.restoration import Detector, Restoring

__all__ = ["Restore", "RestoreParams", "restore"]

MODEL, TRIPLET = "direct", "triplet"
DETECTOR, ESTIMATOR = "scratch-detector", "fading-estimator"
FACES = ("face-finder", "face-refiner")  # without these faces stay as they are
FILES = (".safetensors", ".pth", ".pt")
WORDS = ("auto", "off")  # for the mask of scratches
STRIP = 128  # rows that are looked at, or written, at a time
SHEET, GAP = 1024, 8  # pixels of the longer side of each picture of a comparison, and between the two
#: What refines the faces of an image where it lies, float32 (H, W, 3), 0..1.
Refine = Callable[[np.ndarray], None]
LEAST = 32  # pixels of the shorter side: what is smaller does not tell how it has faded


class RestoreParams(Params):
    """Options of `Restore`."""

    scratches: Literal["auto", "off"] = Field(
        "auto",
        description="the damage: auto, found by a network; off, none; or a mask, a file of the photograph's size: "
        "white = damaged",
    )
    sensitivity: float = Field(
        0.5, ge=0, le=1, description="how readily something is taken for damage; 0.5 = as was measured to be best"
    )
    fading: bool | None = Field(
        None, description="undo fading, yellowing and colour cast; on, but for triplet, which does it by itself"
    )
    faces: bool | None = Field(None, description="refine faces; on where there is a model for it")
    face_strength: float = Field(1.0, ge=0, le=1, description="how much faces are refined; 0 = not at all")
    strength: float = Field(
        1.0, ge=0, le=1, description="from the photograph as it is (0, to the last bit) to restored (1)"
    )
    mask_out: bool = Field(False, description="the mask of what is damaged, as it was found or given")
    compare: bool = Field(False, description="the photograph and the result side by side")


class Restore(Task):
    """Restore PHOTO: scratches, noise, blur, fading.

    Parameters
    ----------
    name_or_path : str or path, optional
        ``direct`` (the default): one network from the scan and its damage to the photograph. ``triplet``: the paper's
        way, through the latents of two autoencoders. Or a file of either.
    device : str
        Where the networks run.
    memory : float
        MiB at most for the tiles that a network works on.

    Notes
    -----
    Size, depth, alpha, profile and metadata are those of the photograph. A photograph without colour, in one channel
    or in three that are equal, stays so. Damage is found at the scan's own size, in tiles; then the network restores,
    in tiles whose halo is all that it sees, so that there are no seams. Fading is told once, from a thumbnail of the
    scan without its damage, and undone everywhere alike (`velatura.ops.fading`).

    Differs from the paper: damage is found at the scan's own size; the direct way, the paper's comparison, is the
    default; fading is not left to the network, but for `triplet`.

    Examples
    --------
    >>> import numpy as np
    >>> scan = np.full((40, 50, 3), 128, np.uint8)
    >>> bool((Restore.from_pretrained()(scan, strength=0).image == scan).all())
    True
    """

    name = "restore"
    default_model = MODEL
    Params = RestoreParams
    inputs = (
        Input("photo", "the photograph to restore", leading=True),
        Input(
            "scratches",
            "the damage: auto, found by a network; off, none; or a mask of the photograph's size, white = damaged",
            required=False,
        ),
    )
    outputs = (
        Output("mask_out", "the mask of what is damaged, as it was found or given: to be edited, and given back"),
        Output("compare", f"the photograph and the result side by side, at most {SHEET} pixels each, as an image"),
    )

    def __init__(
        self, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> None:
        self._model = MODEL if name_or_path is None else name_or_path
        self._device = device
        self._memory = memory
        known = self.models()
        if isinstance(self._model, str) and not _is_file(self._model) and self._model not in known:
            raise ModelError(
                f"unknown model {self._model!r}; expected {', '.join(known)}, or a file ({', '.join(FILES)})"
            )
        if name_or_path is not None:
            self.network  # noqa: B018  a model that was named is checked at once

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        shipped = (one.name for one in catalog.cards() if one.architecture in ("Restorer", "Triplet"))
        return tuple(dict.fromkeys((MODEL, TRIPLET, *shipped)))

    @cached_property
    def network(self) -> Restoring:
        """What restores."""
        from velatura.device import resolve_device
        from velatura.restoration import load_restorer

        return load_restorer(self._model, resolve_device(self._device))

    @cached_property
    def detector(self) -> Detector:
        """What finds damage."""
        from velatura.device import resolve_device
        from velatura.restoration import load_detector

        return load_detector(DETECTOR, resolve_device(self._device))

    @cached_property
    def estimator(self) -> FadingEstimator:
        """What tells fading."""
        from velatura.restoration import load_estimator

        return load_estimator(ESTIMATOR)

    def prepare(self, params: RestoreParams) -> None:
        """Read the networks that the options need; whether damage is to be found, the inputs decide."""
        if params.strength == 0:
            return
        if self.network.undoes_fading:
            if params.fading is not None:
                raise InputError(
                    f"{self.network.name} undoes fading by itself, always; leave out fading, or take --model {MODEL}"
                )
        elif params.fading is not False:
            self.estimator  # noqa: B018  read now

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read photograph and mask."""
        photo, mask = values
        return (
            open_image(photo, max_megapixels=max_megapixels),
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels, name="mask of scratches"),
        )

    def stages(self, params: RestoreParams) -> tuple[str, ...]:
        """Damage is looked for before the first row."""
        return ("finding damage", "restoring") if params.scratches == "auto" else ()

    def plan(self, images: tuple[Any, ...], params: RestoreParams) -> Mapping[str, tuple[int, int]]:
        """Check the mask."""
        picture, mask = images
        size = picture.height, picture.width
        if mask is not None and mask.shape != size:
            raise InputError(
                f"mask of scratches is {mask.shape[1]}x{mask.shape[0]}, photograph {size[1]}x{size[0]}; "
                "expected the same size"
            )
        return {"": size}

    def bands(self, images: tuple[Any, ...], params: RestoreParams, progress: Progress) -> Bands:
        """Hand out the rows."""
        picture, mask = images
        work = _Work(self, picture, params, progress, self._memory, mask)
        if mask is None and params.scratches == "auto" and (params.strength or params.mask_out):
            self.detector  # noqa: B018  refused before the first row
        work.refine = self._refiner(params)
        maps: dict[str, Callable[[], Bands]] = {}
        if params.mask_out:
            maps["mask_out"] = work.mask_bands
        if params.compare:
            maps["compare"] = work.comparison
        return Bands(
            like=picture,
            height=picture.height,
            width=picture.width,
            rows=work.rows(),
            channels=picture.channels,
            alpha=picture.alpha is not None,
            made_by=self.network.name if params.strength else None,
            maps=maps,
        )

    def __call__(
        self,
        photo: ImageLike,
        scratches: ImageLike | Literal["auto", "off"] = "auto",
        *,
        progress: Progress | None = None,
        **params: Any,
    ) -> Result:
        """Restore ``photo``.

        Parameters
        ----------
        photo : image
            (H, W[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        scratches : {"auto", "off"} or image
            A mask (H, W) of what is damaged, 1 or white = damaged; or whether to look for it.
        progress : callable, optional
            ``progress(done, total, stage)``.
        **params
            Fields of `RestoreParams`.

        Returns
        -------
        Result
            ``maps["mask_out"]`` and ``maps["compare"]`` beside the image, if they were asked for: 8 bit.

        Raises
        ------
        InputError
            A mask of another size, a bad option.
        ModelError
            Weights that are needed are not there.
        """
        if isinstance(scratches, str) and scratches in WORDS:
            return self.run((photo, None), {**params, "scratches": scratches}, progress)
        return self.run((photo, scratches), params, progress)

    def _refiner(self, params: RestoreParams) -> Refine | None:
        """Give what refines the faces of a whole image; None where there is nothing, or no wish."""
        if params.faces is False or params.face_strength == 0 or params.strength == 0:
            return None
        missing = [name for name in FACES if not _is_shipped(name)]
        if not missing:
            from velatura.face_refinement import load_refiner, refine_in_place

            return partial(refine_in_place, strength=params.face_strength, refiner=load_refiner(device=self._device))
        if params.faces:
            warn(f"faces are not refined: this version has no {' and no '.join(missing)}")
        return None


def restore(
    photo: ImageLike,
    scratches: ImageLike | Literal["auto", "off"] = "auto",
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **params: Any,
) -> Result:
    """Restore once; `Restore` keeps the networks for many calls.

    Examples
    --------
    >>> import numpy as np
    >>> restore(np.full((32, 32), 128, np.uint8), strength=0).image.shape
    (32, 32)
    """
    return Restore.from_pretrained(model, device=device)(photo, scratches, progress=progress, **params)


def _is_shipped(name: str) -> bool:
    return any(card.name == name for card in catalog.cards())


def _is_file(model: str) -> bool:
    """Tell a path from a name of the catalog."""
    path = Path(model)
    return path.name != model or path.suffix in FILES


# --- one photograph ---------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """One photograph while it is restored.

    Attributes
    ----------
    memory : float
        MiB for the tiles of a network.
    mask : ndarray of uint8, (H, W), optional
        What is damaged: as given, or once it was found.
    refine : callable, optional
        What refines the faces of a whole image.
    after : ndarray of uint8, (h, w, C), optional
        The result as it is compared, once its rows have passed.
    """

    task: Restore
    picture: Picture
    params: RestoreParams
    progress: Progress
    memory: float
    mask: np.ndarray | None = None
    refine: Refine | None = None
    after: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.picture.height, self.picture.width

    @cached_property
    def source(self) -> Picture:
        """What the networks see: one channel if there is no colour, and nothing of what is fully transparent."""
        picture = self.picture
        if picture.channels == 3 and _has_no_colour(picture.pixels):
            picture = picture.replace(pixels=picture.pixels[..., :1])
        return without_hidden(picture)

    def rows(self) -> Iterator[np.ndarray]:
        """Hand out the rows of the result, in the photograph's own kind."""
        rows = self._restored_rows() if self.params.strength else self._own_rows()
        yield from self._noted(rows) if self.params.compare else rows

    def _own_rows(self) -> Iterator[np.ndarray]:
        """Hand out the photograph as it is."""
        if self.params.mask_out:
            self.find()
        for top, bottom in _strips(self.size[0]):
            yield self._with_alpha(self.picture.pixels[top:bottom], top)

    def _restored_rows(self) -> Iterator[np.ndarray]:
        """Restore, band by band."""
        height, top = self.size[0], 0
        self.find()
        self.progress(0, height, "restoring")
        colours = self._colours_made()
        for band in colours if self.refine is None else self._refined(colours):
            yield self._with_alpha(self._written(band, top), top)
            top += len(band)
            self.progress(top, height, "restoring")

    def _with_alpha(self, pixels: np.ndarray, top: int) -> np.ndarray:
        alpha = self.picture.alpha
        return pixels if alpha is None else np.concatenate([pixels, alpha[top : top + len(pixels), :, None]], 2)

    def _written(self, band: np.ndarray, top: int) -> np.ndarray:
        """Mix rows of colour, 0..1, with the photograph's, and turn them into its own kind."""
        picture, strength = self.picture, np.float32(self.params.strength)
        before, white = picture.pixels[top : top + len(band)], np.float32(picture.white)
        made = band * white
        if strength < 1:
            made = before + strength * (made - before)
        if before.dtype.kind != "f":
            np.rint(made, out=made)
        made = np.clip(made, 0, white).astype(before.dtype)
        if made.shape[2] < before.shape[2]:
            made = made.repeat(3, 2)
        if picture.alpha is not None:
            np.copyto(made, before, where=(picture.alpha[top : top + len(band)] == 0)[..., None])
        return made

    # --- damage

    def find(self) -> np.ndarray:
        """Say what is damaged: (H, W) uint8."""
        if self.mask is None:
            self.mask = np.zeros(self.size, np.uint8)
            if self.params.scratches == "auto":
                self._mark(self.mask)
        return self.mask

    def _mark(self, mask: np.ndarray) -> None:
        """Write into a mask what the network finds."""
        (height, width), top = self.size, 0
        self.progress(0, height, "finding damage")
        detector = self.task.detector.tuned(self.params.sensitivity)
        for band in detector.marks(self._colours, height, width, self.memory):
            mask[top : top + len(band)] = band
            top += len(band)
            self.progress(top, height, "finding damage")
        if self.picture.alpha is not None:
            mask[self.picture.alpha == 0] = 0

    def mask_bands(self) -> Bands:
        """Hand out the mask."""
        return _eight_bit(self.find()[..., None])

    # --- colours, float32 in [0, 1]

    def _colours(self, start: int, stop: int) -> np.ndarray:
        """Give rows of what the networks see, (h, W, 3)."""
        rows = self.source.pixels[start:stop] * np.float32(1 / self.source.white)
        return rows if rows.shape[2] == 3 else rows.repeat(3, 2)

    def _share(self, start: int, stop: int) -> np.ndarray:
        """Give how much of each pixel is damaged, (h, W)."""
        return self.find()[start:stop] * np.float32(1 / 255)

    def _planes(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([self._colours(start, stop), self._share(start, stop)[..., None]], 2)

    def _colours_made(self) -> Iterator[np.ndarray]:
        """Restore: rows (h, W, C) of as many channels as there are to see."""
        fading = self._fading()
        for band in self.task.network.rows(self._planes, *self.size, self.memory):
            for top, bottom in _strips(len(band)):  # a row of tiles is tall, and each step makes a copy
                rows = band[top:bottom]
                yield undone(rows.mean(2, keepdims=True) if self.source.channels == 1 else rows, fading)

    def _fading(self) -> Fading:
        """Tell how the photograph has faded."""
        if self.task.network.undoes_fading or self.params.fading is False or min(self.size) < LEAST:
            return UNFADED
        from velatura.restoration import estimate

        def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            return self._colours(start, stop), 1 - self._share(start, stop)

        return estimate(self.task.estimator, thumbnail(rows, *self.size))

    def _refined(self, colours: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Refine the faces; they are looked for in the image as a whole."""
        whole, top = np.empty((*self.size, 3), np.float32), 0
        for band in colours:
            whole[top : top + len(band)] = band
            top += len(band)
        assert self.refine is not None
        self.refine(whole)
        for top, bottom in _strips(self.size[0]):
            rows = whole[top:bottom]
            yield rows.mean(2, keepdims=True) if self.source.channels == 1 else rows

    # --- side by side

    def _noted(self, rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass rows on, and shrink them for the comparison."""
        small = _fitted(*self.size)
        cells, buffer, done = RowResize(self.size, small, "area"), RowBuffer(rows), 0
        self.after = np.empty((*small, self.picture.channels), np.uint8)
        for top, bottom in _strips(small[0], STRIP // 8):
            start, stop = cells.needs((top, bottom))
            first = min(start, done)
            window = buffer.window(first, stop)
            seen = window[start - first :]
            colours, alpha = (seen, None) if self.picture.alpha is None else (seen[..., :-1], seen[..., -1])
            self.after[top:bottom] = self._shrunk(cells, colours, alpha, start, (top, bottom))
            yield window[done - first :]
            done = stop

    def _shrunk(
        self, cells: RowResize, colours: np.ndarray, alpha: np.ndarray | None, start: int, rows: tuple[int, int]
    ) -> np.ndarray:
        """Shrink rows, on white paper, to 8 bits."""
        return np.rint(255 * cells.rows(on_paper(colours, alpha), start, rows)).clip(0, 255).astype(np.uint8)

    def comparison(self) -> Bands:
        """Hand out the photograph and the result side by side."""
        assert self.after is not None
        small = self.after.shape[:2]
        cells, sheet = RowResize(self.size, small, "area"), np.full_like(self.after, 255)
        for top, bottom in _strips(small[0], STRIP // 8):
            start, stop = cells.needs((top, bottom))
            alpha = None if self.picture.alpha is None else self.picture.alpha[start:stop]
            sheet[top:bottom] = self._shrunk(cells, self.picture.pixels[start:stop], alpha, start, (top, bottom))
        gap = np.full((small[0], GAP, self.picture.channels), 255, np.uint8)
        return _eight_bit(np.concatenate([sheet, gap, self.after], 1), self.picture.icc)


def _has_no_colour(pixels: np.ndarray) -> bool:
    """Tell whether the three channels are equal."""
    return all(
        bool((pixels[top:bottom, :, 1:] == pixels[top:bottom, :, :1]).all()) for top, bottom in _strips(len(pixels))
    )


def _strips(height: int, rows: int = STRIP) -> Iterator[tuple[int, int]]:
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _fitted(height: int, width: int) -> tuple[int, int]:
    """Give the size of an image that is shrunk, if need be, so that its longer side is `SHEET`."""
    share = min(SHEET / max(height, width), 1)
    return max(round(height * share), 1), max(round(width * share), 1)


def _eight_bit(pixels: np.ndarray, icc: bytes | None = None) -> Bands:
    """Hand out an image (H, W, C) that lies in memory, with the profile that its colours are of."""
    height, width, channels = pixels.shape
    rows = (pixels[top:bottom] for top, bottom in _strips(height))
    return Bands(Picture(np.zeros((1, 1, channels), np.uint8), icc=icc), height, width, rows, channels=channels)
