"""Blend a piece of one photograph into another (GP-GAN, Wu et al. 2017, and its classical relatives)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from velatura.image import ImageLike, open_image, open_mask
from velatura.task import Bands, Input, Params, Progress, Result, Task

__all__ = ["Blend", "BlendParams", "blend"]


def _pair(value: Any) -> Any:
    """Accept ``"X,Y"`` where a pair is wanted."""
    return tuple(value.split(",")) if isinstance(value, str) else value


class BlendParams(Params):
    """Options of `Blend`."""

    method: Literal["gp-gan", "gaussian-poisson", "poisson", "mixed", "paste"] = Field(
        "gp-gan", description="how the seam and the colours are joined"
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
        1.0, gt=0, le=100, description="weight of the colour against the gradients (gp-gan, gaussian-poisson)"
    )


class Blend(Task):
    """Blend SOURCE into DESTINATION where MASK is white."""

    name = "blend"
    Params = BlendParams
    inputs = (
        Input("source", "the photograph that holds the piece"),
        Input("destination", "the photograph that takes it", leading=True),
        Input("mask", "white = take the source; of the source's size (default: the source's alpha)", required=False),
    )

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None, *, device: str = "auto") -> Self:
        return cls()

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        source, destination, mask = values
        return (
            open_image(source, max_megapixels=max_megapixels, name="source"),
            open_image(destination, max_megapixels=max_megapixels, name="destination"),
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels),
        )

    def bands(self, images: tuple[Any, ...], params: BlendParams, progress: Progress) -> Bands:
        raise AssertionError

    def __call__(
        self,
        source: ImageLike,
        destination: ImageLike,
        mask: ImageLike | None = None,
        *,
        progress: Progress | None = None,
        **params: Any,
    ) -> Result:
        return self.run((source, destination, mask), params, progress)


def blend(source: ImageLike, destination: ImageLike, mask: ImageLike | None = None, **params: Any) -> Result:
    """Blend with the default model; see `Blend`."""
    return Blend.from_pretrained()(source, destination, mask, **params)
