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
from velatura.image import Picture, Sheet, open_image, rescaled
from velatura.image.encode import file_of
from velatura.task import ImageLike, Output, Params, Progress, no_progress, parse_params
from velatura.tasks.upscale import enlarged

if TYPE_CHECKING:
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
    seed: int = Field(0, ge=0, description="the same seed, the same pictures; picture i never depends on count")
    interpolate: tuple[str, str] | None = Field(
        None, description="from one text to another, with one noise, instead of pictures side by side"
    )
    frames: int = Field(8, ge=2, le=MOST, description="pictures of an interpolation")
    upscale: float | None = Field(None, ge=1, le=8, description="how many times the upscaler enlarges the pictures")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Imagined(Sheet):
    """What `Imagine` gives back; the sheet of an interpolation is one row.

    Attributes
    ----------
    unknown : tuple of str
        Words that the model does not know, and left out of account.
    params : ImagineParams
        The options that were used, defaults included.
    """

    unknown: tuple[str, ...]
    params: ImagineParams


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
            pictures = enlarged(pictures, checked.upscale, device=self._device, progress=progress)
        file = file_of(style)
        return Imagined(
            pictures=tuple(pictures),
            made_by=self.made_by,
            inputs=(file.absolute(),) if file else (),
            columns=count if checked.interpolate else None,
            unknown=unknown,
            params=checked,
        )

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
        return Picture(rescaled(np.ascontiguousarray(image.float().permute(1, 2, 0).cpu()), np.uint8))


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
