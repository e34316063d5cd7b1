"""A small real task, which can be told to misbehave: what tasks share is tested with it, apart from any application.

It is a module of its own because worker processes import it by its name.
"""

from __future__ import annotations

import errno
import os
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from velatura.device import resolve_device
from velatura.errors import ModelError
from velatura.image import ImageWarning, Picture
from velatura.manifest import Notes
from velatura.task import Bands, Input, Output, Params, Task

ROWS = 4  # of a band: small, so that every image has several


class InvertParams(Params):
    strength: float = Field(1.0, ge=0, le=1, description="how much of it")
    shift: Annotated[
        tuple[int, int], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
    ] = Field((0, 0), description="X,Y to roll the result by", json_schema_extra={"unit": "px"})
    tone: Literal["plain", "warm"] = Field("plain", description="colour of the result")
    keep_sign: bool = Field(False, description="give the picture back as it came")
    #: What happens in the second band of an image whose top left pixel is red.
    red: Literal["nothing", "memory", "disk", "bug", "die", "sleep", "warn"] = "nothing"
    pause: float = Field(0.0, ge=0, description="before each band", json_schema_extra={"unit": "s"})


class Invert(Task):
    """Turn a picture into its negative."""

    name = "invert"
    Params = InvertParams
    inputs = (
        Input("image", "the picture", leading=True),
        Input("mask", "white = invert here", required=False),
    )

    def __init__(self, device: str) -> None:
        self.device = device

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = 512
    ) -> Invert:
        if name_or_path is not None:
            raise ModelError(f"unknown model {str(name_or_path)!r}; known: none")
        return cls(device)

    def prepare(self, params: InvertParams) -> None:
        if self.device != "auto":
            resolve_device(self.device)

    def bands(self, images: tuple[Any, ...], params: InvertParams, progress: Any) -> Bands:
        image, mask = images
        pixels = image.pixels
        white = np.iinfo(pixels.dtype).max
        negative = np.roll(white - pixels, params.shift, (1, 0)) if not params.keep_sign else pixels
        done = np.rint(pixels + params.strength * (negative.astype(np.float64) - pixels)).astype(pixels.dtype)
        if mask is not None:
            done = np.where(mask.pixels[..., :1] > 127, done, pixels)
        is_red = tuple(pixels[0, 0]) == (255, 0, 0)

        def rows():
            for top in range(0, len(done), ROWS):
                progress(top, len(done), "invert")
                time.sleep(params.pause)
                if top and is_red:
                    misbehave(params.red)
                yield done[top : top + ROWS]

        return Bands(image, *done.shape[:2], rows(), channels=done.shape[2])


def misbehave(how: str) -> None:
    if how == "memory":
        raise MemoryError
    if how == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(30)
    if how == "warn":
        warnings.warn("this one is red", ImageWarning, stacklevel=1)


class DiesAfterwards(Invert):
    """Once, the worker of a red picture is killed when all is done and nobody was told."""

    def write(self, values: tuple[Any, ...], out: str | Path, *arguments: Any, **more: Any) -> Bands:
        made = super().write(values, out, *arguments, **more)
        if tuple(made.like.pixels[0, 0]) == (255, 0, 0):
            append = Notes.append

            def last(notes: Notes, line: Any) -> None:
                append(notes, line)
                misbehave("die")

            Notes.append = last  # type: ignore[method-assign]
        return made


class TracedParams(InvertParams):
    change: bool = Field(False, description="how much was changed where")


class Traced(Invert):
    """Turn a picture into its negative, and show where."""

    name = "traced"
    Params = TracedParams
    outputs = (Output("change", "how much was changed where"),)

    def bands(self, images: tuple[Any, ...], params: TracedParams, progress: Any) -> Bands:
        made, changes = super().bands(images, params, progress), []
        pixels = images[0].pixels

        def rows():
            top = 0
            for band in made.rows:
                before = pixels[top : top + len(band)].astype(int)
                changes.append(np.abs(band - before).max(2, keepdims=True).astype(np.uint8))
                top += len(band)
                yield band

        def change() -> Bands:
            like = Picture(np.zeros((1, 1, 1), np.uint8))
            return Bands(like, made.height, made.width, iter(changes), channels=1)

        return replace(made, rows=rows(), maps={"change": change} if params.change else {})
