"""Fill holes in a photograph: by what faces or brains look like (Yeh et al. 2017), or by the photograph's own texture.

Which of them fills a hole is decided hole by hole: see `Inpaint`. Texture: Wexler et al. 2007, Barnes et al. 2009.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from velatura import catalog
from velatura.completion import (
    Place,
    as_channels,
    covers,
    cut,
    holds,
    look_for_faces,
    place_of_face,
    place_of_whole,
    put_back,
)
from velatura.device import half_precision, limit_threads
from velatura.errors import InputError, ModelError
from velatura.holes import Region, compose, find_coverage, find_regions, in_pieces, is_known
from velatura.image import Picture, open_image, open_mask
from velatura.image.picture import warn
from velatura.ops.exemplar import SEARCHED, fill_by_exemplar
from velatura.task import Bands, ImageLike, Input, Output, Params, Progress, Result, Task
from velatura.tasks.upscale import Upscale
from velatura.tiling import DEFAULT_MEMORY_MIB

if TYPE_CHECKING:
    from velatura.faces import Face
    from velatura.latent_search import Search
    from velatura.semantic import Model

__all__ = ["Inpaint", "InpaintParams", "inpaint"]

AUTO, TEXTURE = "auto", "texture"
FACES, FINDER = "vae-faces", "face-finder"  # what `auto` takes
FEW = 2  # rows of a search, such as an image and its mirror image, that one thread fills as quickly as several
ARCHITECTURES = ("VAE", "Generator")  # that fill holes
LEVELS = 64  # of 255: the standard deviation of candidates that a map of disagreement shows in white
STRIP = 128  # rows of a map
FACTOR = 4  # by which the upscaler enlarges a filled square


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


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number")
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
    aligned: bool = Field(
        False, description="the image is a face cut out upright, as the model's faces are: look for none"
    )
    method: Literal["encoder", "latent"] = Field(
        "encoder",
        description="encoder: latents are told by a network that was shown holes, then refined; "
        "latent: they are searched for from a random start, as in the paper",
    )
    steps: int | None = Field(
        None, ge=0, le=100_000, description="of the latent search; if not given, 20 after the encoder, 1500 without it"
    )
    optimizer: Literal["adam", "lbfgs"] = Field("adam", description="of the latent search")
    rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="learning rate of the latent search; if not given, 0.01 after the encoder, 0.03 without it",
    )
    norm: Literal["l1", "l2"] | None = Field(
        None, description="of the context loss; if not given, l2 after the encoder, l1 without it"
    )
    window: Annotated[int, AfterValidator(_odd)] = Field(
        7,
        ge=3,
        le=63,
        description="side of the window in which missing pixels weigh a known one, odd",
        json_schema_extra={"unit": "px of 64"},
    )
    prior: float = Field(
        0.003, ge=0, description="weight lambda of the prior loss: of a GAN's critic, of the latents' size in a VAE"
    )
    bound: float = Field(4.0, gt=0, le=100, description="largest absolute value of a latent number")
    candidates: int = Field(
        1, ge=1, le=32, description="so many different fills: OUT is the best, OUT-candidate-2... are the others"
    )
    mirror: bool = Field(
        True, description="fill the mirror image, too, and take the mean: surer, in twice the time; after the encoder"
    )
    enlarge: Literal["srresnet", "bicubic"] = Field(
        "srresnet", description="what makes a fill four times larger, if the face or the slice is larger than 64 pixels"
    )
    disagreement: bool = Field(False, description="map of where the candidates differ")
    seed: int = Field(
        0, ge=0, description="another number gives another texture, other candidates, another start of method latent"
    )

    def search(self) -> Search:
        """Give the options of the latent search."""
        from velatura.semantic import DEFAULTS

        asked = {one.name: getattr(self, one.name) for one in fields(DEFAULTS[self.method])}
        return replace(DEFAULTS[self.method], **{name: value for name, value in asked.items() if value is not None})


class Inpaint(Task):
    """Fill the holes of IMAGE that MASK shows in white.

    Parameters
    ----------
    name_or_path : str or path, optional
        ``auto`` (the default): a hole on a face is filled by `vae-faces`, any other by texture. ``texture``: patches of
        the image itself; it invents nothing that the image does not show elsewhere. A model, by name or file: a VAE,
        or a GAN's generator with its encoder and critic beside it; one of faces fills the holes that lie on faces, any
        other (of brains) takes the image as a whole.
    device : str
        Where networks run.
    memory : float
        Unused: holes are filled one by one, each with its surroundings.

    Notes
    -----
    What the mask leaves out stays bit for bit; a grey mask fades the fill in. Depth, profile and metadata are those of
    the image. Without a mask, a box or a colour, the hole is where the image is fully transparent.

    A face is cut out upright at 64x64 pixels and filled there (Yeh et al. 2017, arXiv 1607.07539, section 3). If it is
    larger, the fill is enlarged four times by `velatura.Upscale`; then it is turned back and joined to the image by
    Poisson's equation at the image's own size. What of a hole lies beyond the face is filled by texture then.

    Differs from the papers: see `velatura.semantic`, `velatura.completion` and `velatura.ops.exemplar`.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.tile(np.uint8([40, 40, 200, 200]), (48, 12))
    >>> damaged = photo.copy()
    >>> damaged[20:28, 20:28] = 0
    >>> filled = Inpaint.from_pretrained("texture")(damaged, box=(20, 20, 8, 8)).image
    >>> bool(np.abs(filled.astype(int) - photo).max() < 30)
    True
    """

    name = "inpaint"
    default_model = FACES
    Params = InpaintParams
    inputs = (
        Input("image", "the photograph with the hole", leading=True),
        Input("mask", "white = fill; of the photograph's size", required=False),
    )
    outputs = (
        Output("disagreement", f"map of where the candidates differ, white = {LEVELS} levels of 255, as an image"),
    )

    def __init__(self, name_or_path: str | Path | None = None, *, device: str = "auto") -> None:
        self._name = AUTO if name_or_path is None else name_or_path
        self._device = device
        self._upscalers: dict[str, Upscale] = {}
        if self._name not in (AUTO, TEXTURE):
            self.model  # noqa: B018  a model that was named is checked at once

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> Self:
        """Make the task; see the class."""
        return cls(name_or_path, device=device)

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        return AUTO, TEXTURE, *(card.name for card in catalog.cards() if card.architecture in ARCHITECTURES)

    @cached_property
    def model(self) -> Model:
        """The networks that fill semantically."""
        from velatura.device import resolve_device
        from velatura.semantic import load_model

        name = FACES if self._name == AUTO else self._name
        if isinstance(name, str) and not Path(name).suffix and not _is_shipped(name):
            raise ModelError(f"unknown model {name!r}; expected {', '.join(self.models())} or a file")
        return load_model(name, resolve_device(self._device))

    def prepare(self, params: InpaintParams) -> None:
        """Refuse options that the model cannot follow."""
        if params.disagreement and params.candidates < 2:
            raise InputError("a map of disagreement needs candidates to compare; give --candidates 2 or more")
        if params.method == "encoder" and self._name not in (AUTO, TEXTURE):
            self.model.need_encoder()

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read image and mask."""
        image, mask = values
        return (
            open_image(image, max_megapixels=max_megapixels),
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels),
        )

    def bands(self, images: tuple[Any, ...], params: InpaintParams, progress: Progress) -> Bands:
        """Find the holes and what they lie on, and hand out the rows."""
        picture, mask = images
        coverage = find_coverage(picture, mask, params.box, params.mask_color)
        work = _Work(picture, coverage, find_regions(coverage, picture.alpha), params, progress)
        work.places = self._places(work)
        work.cut()
        if any(work.places):
            work.model, work.enlarge = self.model, partial(self._enlarge, params.enlarge)
            if self.model.subject == "brain":
                warn(f"{self.model.name} makes up what may have been in the hole: for research, never for a diagnosis")
        bands = work.bands(0)
        for index in range(1, params.candidates):
            bands.maps[f"candidate-{index + 1}"] = partial(work.bands, index)
        if params.disagreement:
            bands.maps["disagreement"] = work.disagreement
        return bands

    @classmethod
    def alternatives(cls, params: InpaintParams, out: str) -> dict[str, str]:
        """Name the files of all candidates but the best."""
        suffix = Path(out).suffix
        stem = out.removesuffix(suffix)
        return {f"candidate-{index}": f"{stem}-candidate-{index}{suffix}" for index in range(2, params.candidates + 1)}

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
            With more than one candidate ``maps["candidate-2"]``... beside the best, and ``maps["disagreement"]`` if it
            was asked for: 8 bit.

        Raises
        ------
        InputError
            No hole, nothing but hole, a mask of another size, a box outside, no face for a model of faces, a bad
            option.
        ModelError
            The method wants an encoder, and the model has none.
        """
        return self.run((image, mask), params, progress)

    def _places(self, work: _Work) -> list[list[Place]]:
        """Say for every region which squares a model fills; none where texture fits better."""
        picture, automatic = work.picture, self._name == AUTO
        none: list[list[Place]] = [[] for _ in work.regions]
        if self._name == TEXTURE or (automatic and not _is_shipped(FACES)):
            return none
        whole = work.params.aligned
        if not automatic:
            # A picture of the model's very size is what it was trained on: the papers' setting.
            whole |= self.model.subject != "faces" or picture.height == picture.width == self.model.size
        if whole:
            # One for all holes: the model fills them together.
            place = place_of_whole(picture.height, picture.width, self.model.size)
            return [[place] for _ in work.regions]
        if automatic and not _is_shipped(FINDER):
            return none
        places = [(face, place_of_face(face, self.model.size)) for face in self._faces(work)]
        shape, found = (picture.height, picture.width), none
        for region, mine in zip(work.regions, found, strict=True):
            hole = region.own.copy()
            for face, place in places:
                # What a surer face has filled is no hole for another.
                if holds(face, hole, region.inner, shape, place.size):
                    mine.append(place)
                    hole &= ~covers(place, region.inner, shape)
        if not automatic and not any(found):
            raise InputError(
                f"no hole lies on a face that {self.model.name} could fill; take --model {TEXTURE}, or --aligned "
                "if the image is a face cut out upright"
            )
        return found

    def _faces(self, work: _Work) -> list[Face]:
        """Find the faces of the picture."""
        from velatura.faces import load_finder

        if not _is_shipped(FINDER):
            raise ModelError(
                f"{self.model.name} fills aligned faces, and this version has no face finder; give a face cut out "
                "upright, and --aligned"
            )
        return look_for_faces(work.picture, work.known, load_finder(FINDER, self._device))

    def _enlarge(self, name: str, square: np.ndarray) -> np.ndarray:
        """Make a filled square larger."""
        if name not in self._upscalers:
            self._upscalers[name] = Upscale.from_pretrained(name, device=self._device)
        return self._upscalers[name](square, scale=float(FACTOR)).image


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


def _is_shipped(name: str) -> bool:
    return any(card.name == name for card in catalog.cards())


# --- one picture ------------------------------------------------------------------------------------------------------


@dataclass
class _Work:
    """One picture while its holes are filled.

    Attributes
    ----------
    places : list of list of Place
        For every region the squares that a model fills.
    model, enlarge
        What fills a square, and what makes it larger; set where there is one.
    """

    picture: Picture
    coverage: np.ndarray
    regions: list[Region]
    params: InpaintParams
    progress: Progress
    places: list[list[Place]] = field(default_factory=list)
    model: Model | None = None
    enlarge: Callable[[np.ndarray], np.ndarray] | None = None

    @cached_property
    def known(self) -> np.ndarray:
        """What a fill may be made of, (H, W) bool."""
        return is_known(self.coverage, self.picture.alpha)

    def cut(self) -> None:
        """Cut long thin holes that texture fills; a model fills a hole as a whole."""
        regions: list[Region] = []
        places: list[list[Place]] = []
        for region, squares in zip(self.regions, self.places, strict=True):
            pieces = [region] if squares else in_pieces(region, self.known, len(regions))
            regions += pieces
            places += [squares] * len(pieces)
        self.regions, self.places = regions, places

    @cached_property
    def fills(self) -> list[list[np.ndarray]]:
        """What each candidate puts into each region, the best candidate first."""
        squares = self._squares()
        fills: list[list[np.ndarray]] = [[] for _ in range(self.params.candidates)]
        for done, (region, places) in enumerate(zip(self.regions, self.places, strict=True)):

            def tick(done: int = done) -> None:
                self.progress(done, len(self.regions), "filling")

            tick()
            for index, candidate in enumerate(fills):
                if places:
                    candidate.append(self._seen(region, [(place, squares[id(place)][index]) for place in places], tick))
                else:
                    before = [(self.regions[i], candidate[i]) for i in region.before]
                    candidate.append(self._texture(region, self.params.seed + index, tick, before))
        self.progress(len(self.regions), len(self.regions), "filling")
        return fills

    def _seen(self, region: Region, squares: list[tuple[Place, np.ndarray]], tick: Callable[[], None]) -> np.ndarray:
        """Fill one region by squares: (h, w, C) float32 in [0, 1], its inner part."""
        picture, part = self.picture, region.inner
        filled = picture.pixels[part] * np.float32(1 / picture.white)
        done = self.known[part].copy()
        for place, square in squares:
            filled = put_back(square, place, picture, self.known, part, (filled, done), tick=tick)
            done |= covers(place, part, (picture.height, picture.width))
        if done[region.own].all():
            return filled
        # What lies beyond the squares; not by the seed, which is for what is chosen at random: a face is not.
        return self._texture(region, 0, tick, [(replace(region, own=done), filled)])

    def _squares(self) -> dict[int, list[np.ndarray]]:
        """Fill the squares of all places at once: for each, by its identity, all candidates, (S, S, C)."""
        places = list({id(place): place for region in self.places for place in region}.values())
        if not places:
            return {}
        import torch

        from velatura.semantic import fill, join

        assert self.model is not None
        cuts = [cut(self.picture, self.known, place) for place in places]
        images, masks = (torch.from_numpy(np.stack(parts)) for parts in zip(*cuts, strict=True))
        options = self.params.search()
        # These are thousands of tiny operations: a second thread gains nothing, and waits for a busy core.
        few = self.params.candidates + self.params.mirror <= FEW
        with limit_threads(1 if few else None):
            found = fill(
                self.model,
                torch.from_numpy(as_channels(images.numpy(), self.model.channels)),
                masks[:, None],
                method=self.params.method,
                options=options,
                candidates=self.params.candidates,
                mirror=self.params.mirror,
                seed=self.params.seed,
                half=half_precision(self.model.device, gradients=True),
                tick=lambda step: self.progress(step, options.steps, "searching"),
            )
        squares = {}
        for place, made, image, mask in zip(places, found.made, images, masks, strict=True):
            made = torch.from_numpy(as_channels(made.numpy(), self.picture.channels))
            joined = np.ascontiguousarray(join(made, image, mask[None]).permute(0, 2, 3, 1).numpy())
            # A face that is no larger in the photograph has all its pixels.
            enlarge = self.enlarge if place.side > place.size else None
            squares[id(place)] = [enlarge(one) if enlarge else one for one in joined]
        return squares

    def _texture(
        self,
        region: Region,
        seed: int,
        tick: Callable[[], None],
        before: Sequence[tuple[Region, np.ndarray]] = (),
    ) -> np.ndarray:
        """Fill one region, or what is left of it, from what is around: (h, w, C) float32 in [0, 1], its inner part."""
        window = self.picture.pixels[region.outer] * np.float32(1 / self.picture.white)
        hole = ~self.known[region.outer]
        for other, fill in before:
            here, there = other.overlap(region.outer)
            window[here] = np.where(other.own[there][..., None], fill[there], window[here])
            hole[here] &= ~other.own[there]
        # All pieces of a hole together are searched as long as one hole.
        searched = int(SEARCHED * region.share)
        return fill_by_exemplar(window, hole, seed=seed, searched=searched, tick=tick)[region.within].copy()

    def bands(self, index: int) -> Bands:
        """Hand out the rows of one candidate."""
        picture = self.picture

        def rows() -> Iterator[np.ndarray]:
            yield from compose(picture, self.coverage, self.regions, self.fills[index])

        return Bands(
            like=picture,
            height=picture.height,
            width=picture.width,
            rows=rows(),
            channels=picture.channels,
            alpha=picture.alpha is not None,
            made_by=None if self.model is None else self.model.name,
        )

    def disagreement(self) -> Bands:
        """Hand out the map of where the candidates differ: their standard deviation, the mean of the channels."""
        spread = np.zeros((self.picture.height, self.picture.width), np.uint8)
        for region, fills in zip(self.regions, zip(*self.fills, strict=True), strict=True):
            share = self.coverage[region.inner] * np.float32(1 / 255)
            levels = 255 * share * np.std(fills, axis=0).mean(-1)
            levels = np.rint((255 / LEVELS) * levels).clip(0, 255).astype(np.uint8)
            np.copyto(spread[region.inner], levels, where=region.own)
        rows = (spread[top : top + STRIP, :, None] for top in range(0, self.picture.height, STRIP))
        return Bands(Picture(np.zeros((1, 1, 1), np.uint8)), *spread.shape, rows, channels=1)
