"""Make pictures from words: GAN-INT-CLS with its style encoder (Reed et al. 2016, arXiv 1605.05396)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field

from velatura.catalog import cards, load
from velatura.errors import InputError
from velatura.image import Picture, check_output, open_image, rescaled, save_image, to_pil
from velatura.task import ImageLike, Output, Params, Progress, no_progress, parse_params

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from velatura.nets.gan_cls import TextToImage

__all__ = ["Imagine", "ImagineParams", "Imagined", "imagine"]

MODEL = "imagine-flowers"
MOST = 100_000  # pictures of one call
LONGEST = 1000  # characters of a text
VARIETY = 0.35  # of the noise of pictures of one style, after the first


class ImagineParams(Params):
    """Options of `Imagine`."""

    count: int = Field(1, ge=1, le=MOST, description="how many pictures")
    seed: int = Field(
        0, ge=0, lt=2**63, description="the same seed, the same pictures; picture i never depends on count"
    )
    interpolate: tuple[str, str] | None = Field(
        None, description="from one text to another, with one noise, instead of pictures side by side"
    )
    frames: int = Field(8, ge=2, le=MOST, description="pictures of an interpolation")
    upscale: float | None = Field(None, ge=1, le=8, description="how many times the upscaler enlarges the pictures")


@dataclass(frozen=True, slots=True, eq=False)
class Imagined:
    """What `Imagine` gives back.

    Attributes
    ----------
    pictures : tuple of Picture
        8 bits, RGB.
    unknown : tuple of str
        Words that the model does not know, and left out of account.
    params : ImagineParams
        The options that were used, defaults included.
    made_by : str
    inputs : tuple of Path
        The file of the style, if there was one; it is never replaced.
    """

    pictures: tuple[Picture, ...]
    unknown: tuple[str, ...]
    params: ImagineParams
    made_by: str
    inputs: tuple[Path, ...] = ()

    @property
    def images(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [to_pil(picture) for picture in self.pictures]

    @property
    def grid(self) -> Picture:
        """All pictures on one sheet: an interpolation in one row, others as square as can be; black where none is."""
        count = len(self.pictures)
        columns = count if self.params.interpolate else math.ceil(math.sqrt(count))
        height, width, _ = self.pictures[0].pixels.shape
        sheet = np.zeros((-(-count // columns) * height, columns * width, 3), np.uint8)
        for i, picture in enumerate(self.pictures):
            top, left = i // columns * height, i % columns * width
            sheet[top : top + height, left : left + width] = picture.pixels
        return Picture(sheet)

    def save(self, folder: str | Path, *, overwrite: bool = False, mark: bool = True) -> list[Path]:
        """Write each picture as a PNG, ``0000.png`` and so on, into a folder that is made if need be.

        Raises
        ------
        InputError
            A file exists, and ``overwrite`` is False; or it is the style's.
        """
        folder = Path(folder)
        paths = [folder / f"{i:04d}.png" for i in range(len(self.pictures))]
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            check_output(path, inputs=self.inputs, overwrite=overwrite)
        return [
            save_image(picture, path, overwrite=overwrite, made_by=self.made_by if mark else None)
            for picture, path in zip(self.pictures, paths, strict=True)
        ]

    def save_grid(self, path: str | Path, *, overwrite: bool = False, mark: bool = True) -> Path:
        """Write all pictures as one file; see `grid`."""
        check_output(path, inputs=self.inputs, overwrite=overwrite)
        return save_image(self.grid, path, overwrite=overwrite, made_by=self.made_by if mark else None)


class Imagine:
    """Make pictures from TEXT.

    Parameters
    ----------
    name_or_path : str or path, optional
        A model of the catalog, ``flowers`` or ``emoji`` for short, or a file of weights.
    device : str
        Where the network runs.

    Notes
    -----
    The noise of picture i is drawn from (seed, i), and every picture is made by itself: it is the same bytes whether
    it is made alone or among others.

    Differs from the paper: see `velatura.nets.gan_cls` and `velatura.training.recipes.imagine`.
    """

    name: ClassVar[str] = "imagine"
    Params: ClassVar[type[Params]] = ImagineParams
    outputs: ClassVar[tuple[Output, ...]] = ()
    default_model: ClassVar[str] = MODEL

    def __init__(self, name_or_path: str | Path | None = None, *, device: str = "auto") -> None:
        short = name_or_path in ("flowers", "emoji")
        self._model = MODEL if name_or_path is None else f"imagine-{name_or_path}" if short else name_or_path
        self._device = device

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None, *, device: str = "auto") -> Self:
        """Make the task; see the class."""
        return cls(name_or_path, device=device)

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        names = [card.name for card in cards() if card.architecture == "TextToImage"]
        return tuple(sorted(names, key=lambda name: name != MODEL))

    @property
    def made_by(self) -> str:
        """Name of the model."""
        return Path(self._model).stem if Path(self._model).suffix else str(self._model)

    @cached_property
    def network(self) -> TextToImage:
        """The network, read once.

        Raises
        ------
        ModelError
            The model is unknown, or is none that makes pictures from words.
        """
        from velatura.device import resolve_device
        from velatura.nets.gan_cls import TextToImage

        return load(self._model, {"TextToImage": TextToImage}, resolve_device(self._device))

    def __call__(
        self,
        text: str | None = None,
        *,
        style: ImageLike | None = None,
        progress: Progress | None = None,
        **params: Any,
    ) -> Imagined:
        """Make pictures.

        Parameters
        ----------
        text : str, optional
            What is to be seen; left out where ``interpolate`` names two texts.
        style : image, optional
            Whose background and pose to take: the first picture has just these, others differ a little. Its middle
            square counts.
        progress : callable, optional
        **params
            The fields of `ImagineParams`.

        Returns
        -------
        Imagined

        Raises
        ------
        InputError
            An option or a text does not do, or the model has no style encoder.
        ModelError
            See `network`.

        Warns
        -----
        UserWarning
            Words are unknown to the model: one warning that names them all.
        """
        checked = parse_params(ImagineParams, params)
        if (text is None) == (checked.interpolate is None):
            raise InputError("expected a text, or two texts to interpolate; not both")
        texts = [text] if text is not None else list(checked.interpolate or ())
        unknown = self._check(texts)
        progress = progress or no_progress
        sentences = self._sentences(texts, checked.frames)
        count = checked.count if len(sentences) == 1 else len(sentences)
        start = None if style is None else self._style(style)
        pictures = []
        for i in range(count):
            sentence = sentences[i if len(sentences) > 1 else 0]
            pictures.append(self._made(sentence, self._noise(checked.seed, i if len(sentences) == 1 else 0, start)))
            progress(i + 1, count, "imagining")
        if checked.upscale is not None:
            pictures = self._enlarged(pictures, checked.upscale, progress)
        inputs = (Path(style).absolute(),) if isinstance(style, str | Path) else ()
        return Imagined(tuple(pictures), unknown, checked, self.made_by, inputs)

    def _check(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Refuse texts that say nothing; warn of words that are not known."""
        from velatura.nets.text_encoder import words_of

        for text in texts:
            words = words_of(text)
            if not words or len(text) > LONGEST:
                raise InputError(f"got a text of {len(words)} words, {len(text)} characters; expected 1 to {LONGEST}")
        unknown = tuple(dict.fromkeys(word for text in texts for word in self.network.text.unknown(text)))
        if unknown:
            warnings.warn(f"{self.made_by} does not know {', '.join(unknown)}; the other words count", stacklevel=3)
        return unknown

    def _sentences(self, texts: Sequence[str], frames: int) -> list[Tensor]:
        """Embed a text; of two, what lies between them."""
        import torch

        with torch.inference_mode():
            ends = [self.network.encode([text]) for text in texts]
            if len(ends) == 1:
                return ends
            return [torch.lerp(ends[0], ends[1], i / (frames - 1)) for i in range(frames)]

    def _style(self, image: ImageLike) -> Tensor:
        """Give the noise that a picture's middle square would be made from, (1, noise)."""
        import torch
        from torch.nn import functional

        network = self.network
        if network.style is None:
            raise InputError(f"{self.made_by} has no style encoder; leave out the style, or take {MODEL}")
        picture = open_image(image, name="style")
        side = min(picture.height, picture.width)
        top, left = (picture.height - side) // 2, (picture.width - side) // 2
        square = rescaled(picture.pixels[top : top + side, left : left + side], np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
        size = (network.size, network.size)
        if side > network.size:
            small = functional.adaptive_avg_pool2d(tensor, size)
        else:
            small = functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
        with torch.inference_mode():
            return network.style(small.to(network.condense.weight.device)).cpu()

    def _noise(self, seed: int, number: int, start: Tensor | None) -> Tensor:
        """Draw the noise of one picture; near `start`, if there is one."""
        import torch

        state = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])
        drawn = self.network.draw(1, torch.Generator().manual_seed(state))
        if start is None:
            return drawn
        return start if number == 0 else math.sqrt(1 - VARIETY**2) * start + VARIETY * drawn

    def _made(self, sentence: Tensor, z: Tensor) -> Picture:
        """Make one picture by itself: in batches, a convolution might round differently."""
        import torch

        with torch.inference_mode():
            image = self.network(z.to(sentence.device), sentence)[0]
        levels = (255 * image.float().clamp(0, 1)).round().byte().permute(1, 2, 0)
        return Picture(np.ascontiguousarray(levels.cpu().numpy()))

    def _enlarged(self, pictures: list[Picture], scale: float, progress: Progress) -> list[Picture]:
        from velatura.tasks.upscale import Upscale

        upscale, large = Upscale.from_pretrained(device=self._device), []
        for i, picture in enumerate(pictures):
            large.append(upscale(picture, scale=scale).picture)
            progress(i + 1, len(pictures), "enlarging")
        return large


def imagine(
    text: str | None = None,
    *,
    model: str | Path | None = None,
    style: ImageLike | None = None,
    device: str = "auto",
    **params: Any,
) -> Imagined:
    """Make pictures from a text once; see `Imagine` for what makes many."""
    return Imagine.from_pretrained(model, device=device)(text, style=style, **params)
