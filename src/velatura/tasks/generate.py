"""Make pictures from noise: DCGAN (Radford et al. 2015), VAE (Kingma and Welling 2013), LAPGAN (Denton et al. 2015)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BeforeValidator, Field, NonNegativeInt

from velatura.catalog import cards, load
from velatura.errors import InputError, ModelError
from velatura.image import Picture, Sheet, check_output, open_image, rescaled
from velatura.image.encode import file_of
from velatura.image.metadata import state_origin
from velatura.ops.latents import great_circle
from velatura.task import ImageLike, Output, Params, Progress, no_progress, parse_params
from velatura.tasks.upscale import enlarged

if TYPE_CHECKING:
    from torch import Tensor

    from velatura.nets.dcgan import Generator
    from velatura.nets.lapgan import LAPGAN

__all__ = ["Generate", "GenerateParams", "Generated", "Latents", "generate"]

MODEL = "vae-faces"
ARCHITECTURES = ("Generator", "VAE", "LAPGAN")
MOST = 100_000  # images of one call
MILLISECONDS = 40  # that a frame of an animation is shown
QUALITY = 90  # of an animated WebP


def _pair(value: Any) -> Any:
    """Accept ``"A,B"`` where two numbers are wanted."""
    return tuple(value.split(",")) if isinstance(value, str) else value


class GenerateParams(Params):
    """Options of `Generate`."""

    count: int = Field(1, ge=1, le=MOST, description="how many images")
    seed: int = Field(0, ge=0, description="the same seed, the same images; number i never depends on count")
    truncation: float = Field(
        1.0, ge=0, le=2, description="what latents are multiplied by: less is more usual and less varied, 0 the mean"
    )
    interpolate: Annotated[tuple[NonNegativeInt, NonNegativeInt] | None, BeforeValidator(_pair)] = Field(
        None, description="from image A of this seed to image B, instead of images side by side: A,B"
    )
    frames: int = Field(30, ge=2, le=MOST, description="images of an interpolation")
    class_name: str | None = Field(None, description="what to make, of a model that knows classes; else any of them")
    upscale: float | None = Field(None, ge=1, le=8, description="how many times the upscaler enlarges the images")


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """What images are made from.

    Attributes
    ----------
    model : str
        Name of the model whose latents they are.
    values : ndarray of float32, (n, latent)
    classes : ndarray of int64, (n,), or None
        Numbers of classes, of a model that knows them.
    """

    model: str
    values: np.ndarray
    classes: np.ndarray | None = None

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write them to a ``.safetensors`` file, which `Generate` takes again.

        Raises
        ------
        InputError
            The file is of another kind, exists, or its folder does not.
        """
        import json

        from safetensors.numpy import save_file

        path = _latents_file(path, overwrite=overwrite)
        arrays = {"latents": self.values} | ({} if self.classes is None else {"classes": self.classes})
        partial = path.with_name(f".{path.name}.partial")
        save_file(arrays, partial, {"architecture": "Latents", "arguments": json.dumps({"model": self.model})})
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            The file is missing or holds no latents.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from velatura.catalog import read_header

        refusal = InputError(f"{path}: holds no latents; expected a file that --save-latents wrote")
        try:
            header = read_header(path)
            arrays = load_file(path)
            values, classes = arrays["latents"], arrays.get("classes")
        except (ModelError, SafetensorError, KeyError, OSError):
            raise refusal from None
        good = values.ndim == 2 and values.dtype == np.float32 and len(values) and np.isfinite(values).all()
        if not good or not (classes is None or (classes.dtype == np.int64 and classes.shape == values.shape[:1])):
            raise refusal
        return cls(str(header.arguments.get("model", "")), values, classes)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Generated(Sheet):
    """What `Generate` gives back.

    Attributes
    ----------
    latents : Latents
        What they were made from, truncated and interpolated: given back to `Generate`, they make the same pictures.
    params : GenerateParams
        The options that were used, defaults included.
    """

    latents: Latents
    params: GenerateParams

    def save_animation(self, path: str | Path, *, overwrite: bool = False, mark: bool = True) -> Path:
        """Write all images as an animated WebP of 25 images a second, there and back, for ever.

        Raises
        ------
        InputError
            The file is no ``.webp``, or exists.
        """
        path = Path(path)
        if path.suffix.lower() != ".webp":
            raise InputError(f"{path}: expected an animation to end in .webp")
        check_output(path, inputs=self.inputs, overwrite=overwrite)
        images = [image.convert("RGB") for image in self.images]
        images += images[-2:0:-1]
        partial = path.with_name(f".{path.name}.partial")
        xmp = {"xmp": state_origin(None, self.made_by)} if mark else {}
        try:
            images[0].save(
                partial,
                "WEBP",
                save_all=True,
                append_images=images[1:],
                duration=MILLISECONDS,
                loop=0,
                quality=QUALITY,
                **xmp,
            )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path


class Generate:
    """Make images by MODEL.

    Parameters
    ----------
    name_or_path : str or path, optional
        A generator, a VAE or a LAPGAN of the catalog, or a file of one.
    device : str
        Where the network runs.

    Notes
    -----
    Image number i of a seed is drawn from (seed, i) and made by itself: it is the same bytes whether it is made alone
    or among others.

    Differs from the papers: see the networks and `velatura.training.recipes`.

    Examples
    --------
    >>> faces = Generate.from_pretrained("vae-faces")
    >>> [image.size for image in faces(2, seed=7).images]
    [(64, 64), (64, 64)]
    """

    name: ClassVar[str] = "generate"
    Params: ClassVar[type[Params]] = GenerateParams
    outputs: ClassVar[tuple[Output, ...]] = ()
    default_model: ClassVar[str] = MODEL

    def __init__(self, name_or_path: str | Path | None = None, *, device: str = "auto") -> None:
        self._model = MODEL if name_or_path is None else name_or_path
        self._device = device

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None, *, device: str = "auto") -> Self:
        """Make the task; see the class."""
        return cls(name_or_path, device=device)

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        names = [card.name for card in cards() if card.architecture in ARCHITECTURES]
        return tuple(sorted(names, key=lambda name: name != MODEL))

    @property
    def made_by(self) -> str:
        """Name of the model."""
        return Path(self._model).stem if Path(self._model).suffix else str(self._model)

    @cached_property
    def network(self) -> Generator | LAPGAN:
        """The network, read once.

        Raises
        ------
        ModelError
            The model is unknown, or is none that makes images from noise.
        """
        from velatura.device import resolve_device
        from velatura.nets.dcgan import Generator
        from velatura.nets.lapgan import LAPGAN
        from velatura.nets.vae import VAE

        known: dict[str, Any] = {"Generator": Generator, "VAE": VAE, "LAPGAN": LAPGAN}
        found = load(self._model, known, resolve_device(self._device))
        return found.decoder if isinstance(found, VAE) else found

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the model knows."""
        return getattr(self.network, "classes", ())

    def __call__(
        self,
        count: int | None = None,
        *,
        coarse: ImageLike | None = None,
        latents: Latents | str | Path | None = None,
        progress: Progress | None = None,
        **params: Any,
    ) -> Generated:
        """Make images.

        Parameters
        ----------
        count : int, optional
            How many; 1 if not given.
        coarse : image, optional
            Of a LAPGAN: a picture whose middle square, reduced to the smallest size, all images are drawn on.
        latents : Latents or path, optional
            What to make images from, instead of a seed. Without `count`, all of them.
        progress : callable, optional
        **params
            The fields of `GenerateParams`.

        Returns
        -------
        Generated

        Raises
        ------
        InputError
            An option, the latents or the image do not fit the model.
        ModelError
            See `network`.
        """
        asked = params if count is None else {"count": count, **params}
        checked = parse_params(GenerateParams, asked)
        given = Latents.load(latents) if isinstance(latents, str | Path) else latents
        if given is not None and "count" not in asked:
            checked = checked.model_copy(update={"count": len(given.values)})
        drawn = self._latents(checked, given)
        start = None if coarse is None else self._coarse(coarse)
        progress = progress or no_progress
        pictures = []
        for i, picture in enumerate(self._made(drawn, start)):
            pictures.append(picture)
            progress(i + 1, len(drawn.values), "generating")
        if checked.upscale is not None:
            pictures = enlarged(pictures, checked.upscale, device=self._device, progress=progress)
        inputs = tuple(file.absolute() for file in (file_of(coarse), file_of(latents)) if file)
        return Generated(pictures=tuple(pictures), made_by=self.made_by, inputs=inputs, latents=drawn, params=checked)

    def _latents(self, params: GenerateParams, given: Latents | None) -> Latents:
        """Draw or take latents, truncate them, and go from one to the other if asked for."""
        ends = params.interpolate
        numbers = range(params.count) if ends is None else ends
        label = self._class(params.class_name)
        found = self._drawn(params.seed, numbers) if given is None else self._taken(given, numbers)
        values, classes = np.float32(params.truncation) * found.values, found.classes
        if classes is not None and label is not None:
            classes = np.full_like(classes, label)
        if ends is not None:
            values = great_circle(values[0], values[1], params.frames)
            classes = None if classes is None else np.repeat(classes[:1], params.frames)
        return Latents(self.made_by, values, classes)

    def _drawn(self, seed: int, numbers: Sequence[int]) -> Latents:
        """Draw image after image, each from its own number."""
        import torch

        values, classes = [], []
        for number in numbers:
            state = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])
            generator = torch.Generator().manual_seed(state)
            values.append(self.network.draw(1, generator).numpy())
            if self.classes:
                classes.append(self.network.draw_classes(1, generator).numpy())  # type: ignore[union-attr]
        return Latents(self.made_by, np.concatenate(values), np.concatenate(classes) if classes else None)

    def _taken(self, given: Latents, numbers: Sequence[int]) -> Latents:
        """Check latents, and give those of these numbers."""
        width = self.network.latent
        if given.model != self.made_by or given.values.shape[1] != width:
            raise InputError(
                f"latents are of {given.model or 'no model'}, {given.values.shape[1]} numbers each; expected those of "
                f"{self.made_by}, {width} numbers"
            )
        if max(numbers) >= len(given.values):
            raise InputError(f"got {len(given.values)} latents; image {max(numbers)} (from 0) is not among them")
        known = given.classes
        if (known is None) == bool(self.classes) or (
            known is not None and not 0 <= known.min() <= known.max() < len(self.classes)
        ):
            raise InputError(f"the classes of the latents are not those of {self.made_by}")
        chosen = list(numbers)
        return Latents(given.model, given.values[chosen], None if known is None else known[chosen])

    def _class(self, name: str | None) -> int | None:
        if name is None:
            return None
        if not self.classes:
            raise InputError(f"{self.made_by} knows no classes; leave out --class {name}")
        if name not in self.classes:
            near = difflib.get_close_matches(name, self.classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(self.classes)}"
            raise InputError(f"unknown class {name!r}; {hint}")
        return self.classes.index(name)

    def _coarse(self, image: ImageLike) -> Tensor:
        """Reduce the middle square of an image to the pyramid's smallest size: (1, C, S, S)."""
        import torch
        from torch.nn import functional

        from velatura.nets.lapgan import LAPGAN

        if not isinstance(self.network, LAPGAN):
            raise InputError(f"{self.made_by} starts from numbers alone; --from wants a LAPGAN")
        picture = open_image(image, name="coarse")
        side, least = min(picture.height, picture.width), self.network.start_size
        if side < least:
            raise InputError(f"coarse image has {picture.width}x{picture.height}; expected {least}x{least} at least")
        top, left = (picture.height - side) // 2, (picture.width - side) // 2
        square = rescaled(picture.pixels[top : top + side, left : left + side], np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None]
        tensor = tensor.mean(1, keepdim=True) if self.network.channels == 1 else tensor.expand(-1, 3, -1, -1)
        return functional.adaptive_avg_pool2d(tensor, least)

    def _made(self, latents: Latents, start: Tensor | None) -> Iterator[Picture]:
        """Make image after image: in batches, a convolution might round differently."""
        import torch

        from velatura.nets.lapgan import LAPGAN

        network = self.network
        device = next(network.parameters()).device
        coarse = None if start is None else start.to(device)
        for i, row in enumerate(latents.values):
            z = torch.from_numpy(row[None]).to(device)
            label = None if latents.classes is None else torch.tensor([latents.classes[i]], device=device)
            with torch.inference_mode():
                image = network.sample(z, label, coarse) if isinstance(network, LAPGAN) else network(z)
            yield Picture(rescaled(np.ascontiguousarray(image[0].float().permute(1, 2, 0).cpu()), np.uint8))


def generate(model: str | Path | None = None, count: int = 1, *, device: str = "auto", **params: Any) -> Generated:
    """Make images once; see `Generate` for what makes many.

    Examples
    --------
    >>> generate("vae-faces", seed=7).pictures[0].pixels.shape
    (64, 64, 3)
    """
    return Generate.from_pretrained(model, device=device)(count, **params)


def _latents_file(path: str | Path, *, overwrite: bool) -> Path:
    """Refuse a file that latents cannot be written to."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a file of latents to end in .safetensors")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; --overwrite replaces it")
    return path
