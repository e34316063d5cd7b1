"""Give a photograph the style of any picture: in one pass (Ghiasi et al. 2017), or by optimisation (Gatys et al. 2015).

Ghiasi et al., arXiv 1705.06830; Gatys, Ecker, Bethge, arXiv 1508.06576; the photograph's own colours: Gatys, Bethge,
Hertzmann, Shechtman, "Preserving color in neural artistic style transfer", 2016 (arXiv 1606.05897).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from velatura import catalog
from velatura.errors import InputError, ModelError
from velatura.hidden import without_hidden
from velatura.image import LUMA, Picture, open_image, open_mask, save_image
from velatura.ops.resize import RowResize, resize
from velatura.task import Bands, ImageLike, Input, Params, Progress, Result, SaveOptions, Task
from velatura.tiling import DEFAULT_MEMORY_MIB, RowBuffer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from velatura.nets.style_features import StyleFeatures
    from velatura.nets.style_transfer import StyleTransfer
    from velatura.nets.vgg19 import VGG19
    from velatura.stylization import Curve, Optimization

__all__ = ["StyleVector", "Stylize", "StylizeParams", "StylizeResult", "stylize", "with_colours_of"]

MODEL = "style-fast"
ARCHITECTURE = "StyleTransfer"
VECTOR = ".safetensors"  # suffix of a style that was saved
LOOK = 256  # pixels of a side that the prediction network was trained on: styles are shrunk to as many in all
LEAST = 32  # pixels of a side: smaller images are mirrored before a network sees them
WHOLE = 768 * 768  # pixels that pass through the transformer in one piece, with their own statistics
BAND, BYTES = 2**17, 2048  # pixels of a band at most, and what the transformer works with for each
STRIP = 64  # rows that are made at a time


def _numbers(value: Any) -> Any:
    """Accept ``"0.7,0.3"`` where numbers are wanted."""
    return tuple(value.split(",")) if isinstance(value, str) else value


def _layers(value: Any) -> Any:
    """Accept ``"stride1,stride2=0.5"`` where layers and weights are wanted."""
    if not isinstance(value, str):
        return value
    pairs = (part.partition("=") for part in value.split(","))
    return {name.strip(): weight if equals else 1.0 for name, equals, weight in pairs}


Layers = Annotated[dict[str, Annotated[float, Field(gt=0)]] | None, BeforeValidator(_layers)]


class StylizeParams(Params):
    """Options of `Stylize`."""

    method: Literal["fast", "optimize"] = Field(
        "fast", description="fast: one pass through a network; optimize: the picture itself is changed step by step"
    )
    strength: float = Field(1.0, ge=0, le=1, description="from the photograph as it is (0) to all of the style (1)")
    keep_color: Literal["luminance", "histogram"] | None = Field(
        None,
        description="luminance: only light and dark are painted; "
        "histogram: the style first gets the photograph's colours",
    )
    also: tuple[str, ...] = Field(
        (), description="a further style to mix with the first, once for each", json_schema_extra={"repeated": True}
    )
    weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...] | None, BeforeValidator(_numbers)] = Field(
        None, description="shares of several styles, such as 0.7,0.3; if not given, all alike"
    )
    style_scale: float = Field(1.0, ge=0.1, le=8, description="how large the style's pattern is; 2: twice as large")
    style_out: str | None = Field(None, description=f"file for the style vector ({VECTOR}), which is a style, too")
    features: str = Field(
        "velatura", description="what optimize looks through: velatura, a file of such features, or vgg19:FILE"
    )
    steps: int = Field(200, ge=1, le=100_000, description="of optimize")
    optimizer: Literal["adam", "lbfgs"] = Field("adam", description="of optimize")
    rate: float | None = Field(
        None, gt=0, le=10, description="learning rate of optimize; if not given, 0.02 of Adam and 1 of L-BFGS"
    )
    content_layers: Layers = Field(
        None, description="layers of the features that content is compared in, and weights: stride4=1"
    )
    style_layers: Layers = Field(None, description="layers that style is compared in, and weights: stride1,stride2=0.5")
    style_weight: float = Field(
        3.0, gt=0, description="of the style loss of optimize: that of the photograph, in variances of its content"
    )
    smoothness: float = Field(0.01, ge=0, description="weight of the total variation of optimize")
    start: Literal["content", "noise", "fast"] = Field("content", description="what optimize begins with")
    size: int = Field(
        512,
        ge=32,
        description="longer side that optimize works at; larger photographs get its result enlarged",
        json_schema_extra={"unit": "px"},
    )
    seed: int = Field(0, ge=0, description="of the start from noise")
    frames: str | None = Field(None, description="folder for a picture every so many steps of optimize")
    every: int = Field(10, ge=1, description="steps of optimize from one picture to the next")
    curve: str | None = Field(None, description="file for a plot of optimize's losses (.svg)")


@dataclass(frozen=True, slots=True, eq=False)
class StylizeResult(Result):
    """What `Stylize` gives.

    Attributes
    ----------
    style : ndarray of float32, (100,), or None
        The style vector, of method ``fast``.
    curve : velatura.stylization.Curve or None
        Losses step by step, of method ``optimize``.
    """

    style: np.ndarray | None = None
    curve: Curve | None = None


@dataclass(frozen=True, slots=True)
class StyleVector:
    """A style that was saved.

    Attributes
    ----------
    values : ndarray of float32, (style,)
    model : str
        Which network's, as `_fingerprint` says.
    """

    values: np.ndarray
    model: str


class Stylize(Task):
    """Paint CONTENT in the style of STYLE.

    Parameters
    ----------
    name_or_path : str or path, optional
        A model of the catalog or a file, of method ``fast``.
    device : str
        Where networks run.
    memory : float
        MiB at most for the bands that the network works on. Optimisation takes about 3 KiB for each pixel of its size.

    Notes
    -----
    ``fast``: a network turns the style into 100 numbers, another paints with scales and shifts made from these. Up to
    768x768 pixels a photograph passes through it whole. Of a larger one the norms' statistics are measured when it is
    shrunk to as many; then it passes in bands of rows, each layer keeping the rows that its next band needs: no seams,
    nothing twice. ``strength`` lies between the photograph's own style vector and the wanted one; as
    they come to be equal, the photograph shows through, and with strength 0 it is what it was.

    ``optimize``: see `velatura.stylization`. Depth, alpha, profile and metadata are those of the photograph; a grey one
    becomes coloured, unless ``keep_color`` is ``luminance``.

    Differs from the papers: see `velatura.nets.style_transfer` and `velatura.stylization`.
    """

    name = "stylize"
    default_model = MODEL
    Params = StylizeParams
    inputs = (
        Input("content", "the photograph", leading=True),
        Input("style", f"the picture whose style it gets, or a saved style ({VECTOR})"),
        Input("mask", "white = paint; of the photograph's size", required=False),
    )

    def __init__(
        self, name_or_path: str | Path | None = None, *, device: str = "auto", memory: float = DEFAULT_MEMORY_MIB
    ) -> None:
        self._model = MODEL if name_or_path is None else name_or_path
        self._device_name = device
        self._memory = memory
        self._replace = False
        self._extractors: dict[str, StyleFeatures | VGG19] = {}
        if name_or_path is not None:
            self.network  # noqa: B018  a model that was named is checked at once

    @classmethod
    def models(cls) -> tuple[str, ...]:
        """Names that `from_pretrained` takes beside files, the default first."""
        return tuple(dict.fromkeys((MODEL, *(card.name for card in catalog.cards() if card.task == cls.name))))

    @cached_property
    def network(self) -> StyleTransfer:
        """The networks of method ``fast``."""
        from velatura.nets.style_transfer import StyleTransfer

        return catalog.load(self._model, {ARCHITECTURE: StyleTransfer}, self._device)

    @cached_property
    def _device(self) -> torch.device:
        from velatura.device import resolve_device

        return resolve_device(self._device_name)

    @cached_property
    def _fingerprint(self) -> str:
        """Tell one prediction network from another."""
        digest = hashlib.sha256()
        for value in self.network.predictor.state_dict().values():
            digest.update(value.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def prepare(self, params: StylizeParams) -> None:
        """Load what the options need, and refuse what they cannot have."""
        if params.method == "fast" or params.start == "fast":
            self.network  # noqa: B018
        for name in ("frames", "curve"):
            if getattr(params, name) is not None and (params.method == "fast" or params.strength == 0):
                raise InputError(f"{name} shows the steps of optimize; add --method optimize, with a strength over 0")
        if params.method == "optimize":
            if params.style_out is not None:
                raise InputError("optimize has no style vector to save; leave out --style-out, or take --method fast")
            _options(self._extractor(params.features), params)
        if params.style_out is not None and Path(params.style_out).suffix != VECTOR:
            raise InputError(f"{params.style_out}: a style vector is saved as {VECTOR}")
        if params.curve is not None and Path(params.curve).suffix != ".svg":
            raise InputError(f"{params.curve}: the plot of the losses is an .svg")

    @classmethod
    def further_inputs(cls, params: StylizeParams) -> tuple[str | Path, ...]:
        """Name the further styles."""
        return params.also

    @classmethod
    def further_models(cls, params: StylizeParams) -> tuple[str | Path, ...]:
        """Name the features that optimize looks through."""
        return (params.features.removeprefix("vgg19:"),) if params.method == "optimize" else ()

    @classmethod
    def single_outputs(cls, params: StylizeParams) -> tuple[str, ...]:
        """Name what is written beside the result."""
        return tuple(name for name in ("style_out", "curve", "frames") if getattr(params, name) is not None)

    @classmethod
    def further_outputs(cls, params: StylizeParams) -> tuple[str | Path, ...]:
        """Name the files of the style vector and of the losses."""
        return tuple(file for file in (params.style_out, params.curve) if file is not None)

    def open(self, values: tuple[Any, ...], *, max_megapixels: float) -> tuple[Any, ...]:
        """Read the photograph, the style or styles, and the mask."""
        content, style, mask = values
        several = list(style) if isinstance(style, list | tuple) else [style]
        if not several:
            raise InputError("got no style; expected at least one picture")
        return (
            open_image(content, max_megapixels=max_megapixels, name="content"),
            [_read_style(one, max_megapixels) for one in several],
            None if mask is None else open_mask(mask, max_megapixels=max_megapixels),
        )

    def read(self, values: tuple[Any, ...], params: StylizeParams, *, max_megapixels: float) -> tuple[Any, ...]:
        """Read the further styles, too."""
        content, styles, mask = self.open(values, max_megapixels=max_megapixels)
        return content, [*styles, *(_read_style(file, max_megapixels) for file in params.also)], mask

    def stages(self, params: StylizeParams) -> tuple[str, ...]:
        """Optimisation counts its steps before rows are counted."""
        return ("optimising", "stylizing") if params.method == "optimize" else ()

    def plan(self, images: tuple[Any, ...], params: StylizeParams) -> Mapping[str, tuple[int, int]]:
        """Check weights, mask and saved styles."""
        content, styles, mask = images
        _shares(params.weights, len(styles))
        if mask is not None and mask.shape != content.pixels.shape[:2]:
            size = f"{mask.shape[1]}x{mask.shape[0]}"
            raise InputError(f"mask is {size}; expected the photograph's {content.width}x{content.height}")
        for style in styles:
            if isinstance(style, StyleVector):
                self._check_saved(style, params)
        return {"": (content.height, content.width)}

    def write(
        self,
        values: tuple[ImageLike | None, ...],
        out: str | Path,
        params: Any,
        save: SaveOptions | None = None,
        **options: Any,
    ) -> Bands:
        """Do the work of `to_file`; pictures of the steps are replaced where the result may be."""
        self._replace = save is not None and save.overwrite
        try:
            return super().write(values, out, params, save, **options)
        finally:
            self._replace = False

    def bands(self, images: tuple[Any, ...], params: StylizeParams, progress: Progress) -> Bands:
        """Find the style, and hand out the rows."""
        content, styles, mask = images
        shares = _shares(params.weights, len(styles))
        if params.method == "fast" and not (params.strength or params.style_out):
            return _unchanged(content)
        styles = [_small(style, content, params) if isinstance(style, Picture) else style for style in styles]
        if params.keep_color == "histogram":
            styles = [with_colours_of(style, content) for style in styles]
        extras: dict[str, Any] = {}
        files: dict[Path, Callable[[], bytes]] = {}
        if params.method == "fast":
            extras["style"] = vector = self._vector(styles, shares, params.style_scale)
            if params.style_out is not None:
                files[Path(params.style_out)] = partial(_bytes_of, StyleVector(vector, self._fingerprint))
        if params.strength == 0:
            return replace(_unchanged(content), extras=extras, files=files)
        seen = without_hidden(content)
        if params.method == "fast":
            painted, kept = self._fast(seen, extras["style"], params.strength)
        else:
            painted, curve = self._optimized(seen, styles, shares, params, progress)
            extras["curve"], kept = curve, 1 - params.strength
            if params.curve is not None:
                files[Path(params.curve)] = partial(_plot_of, curve, params)
        grey = content.channels == 1 and params.keep_color == "luminance"
        return Bands(
            # A grey profile does not fit what is coloured now.
            like=content if grey or content.channels == 3 else content.replace(icc=None),
            height=content.height,
            width=content.width,
            rows=_written(painted, content, mask, kept, params, progress),
            channels=1 if grey else 3,
            alpha=content.alpha is not None,
            made_by=_label(params, self._model),
            extras=extras,
            files=files,
        )

    def result(self, bands: Bands, params: Params) -> StylizeResult:
        """Gather the rows, with the style vector or the losses."""
        return StylizeResult(bands.gather(), params, bands.made_by, **bands.extras)

    def __call__(
        self,
        content: ImageLike,
        style: ImageLike | Sequence[ImageLike],
        mask: ImageLike | None = None,
        *,
        progress: Progress | None = None,
        **params: Any,
    ) -> StylizeResult:
        """Paint ``content`` in a style.

        Parameters
        ----------
        content : image
            (H, W[, C]) or a path; grey, RGB, with alpha; 8 or 16 bit, or float in [0, 1].
        style : image or path, or a sequence of them
            Pictures, or styles that ``style_out`` saved; several are mixed by ``weights``.
        mask : image, optional
            (H, W): 1 or white = paint; soft edges are kept.
        progress : callable, optional
            ``progress(done, total, stage)``.
        **params
            Fields of `StylizeParams`.

        Returns
        -------
        StylizeResult

        Raises
        ------
        InputError
            A mask of another size, as many weights as there are no styles, a saved style where an image is needed, a
            bad option.
        ModelError
            A saved style of another model, features that cannot be read.
        """
        done = self.run((content, style, mask), params, progress)  # pyright: ignore[reportArgumentType]
        assert isinstance(done, StylizeResult)
        return done

    def style_vector(self, style: ImageLike, *, style_scale: float = 1.0) -> np.ndarray:
        """Give the style vector of a picture, (100,): what ``style_out`` saves."""
        return self._vector([open_image(style, name="style")], (1.0,), style_scale)

    def _extractor(self, spec: str) -> StyleFeatures | VGG19:
        """Read what the losses look through, once."""
        from velatura.stylization import load_extractor

        if spec not in self._extractors:
            self._extractors[spec] = load_extractor(spec, self._device)
        return self._extractors[spec]

    def _check_saved(self, style: StyleVector, params: StylizeParams) -> None:
        """Refuse a saved style where it cannot serve."""
        if params.method == "optimize":
            raise InputError("optimize needs the style's picture; a saved style serves --method fast only")
        if params.keep_color == "histogram":
            raise InputError("histogram needs the style's picture; take --keep-color luminance with a saved style")
        if style.model != self._fingerprint or len(style.values) != self.network.predictor.style:
            raise ModelError(f"the saved style is of another model than {self._model}; save it anew")

    # --- one pass -----------------------------------------------------------------------------------------------------

    def _vector(self, styles: Sequence[Picture | StyleVector], shares: tuple[float, ...], scale: float) -> np.ndarray:
        """Mix the style vectors of pictures (Ghiasi et al. 2017, section 3.4)."""
        mixed = np.zeros(self.network.predictor.style, np.float32)
        for style, share in zip(styles, shares, strict=True):
            if isinstance(style, StyleVector):
                mixed += np.float32(share) * style.values
            else:
                mixed += np.float32(share) * self._predicted(style, scale)
        return mixed

    def _rounding(self) -> torch.autocast:
        """Compute convolutions in half precision, where the device does so natively."""
        import torch

        from velatura.device import half_precision

        half = half_precision(self._device)
        return torch.autocast(self._device.type, half or torch.bfloat16, enabled=half is not None)

    def _predicted(self, picture: Picture, scale: float = 1.0) -> np.ndarray:
        import torch

        with torch.inference_mode(), self._rounding():
            image = _tensor(_mirrored(_looked_at(without_hidden(picture), scale))).to(self._device)
            return self.network.predictor(image)[0].float().cpu().numpy()

    def _fast(self, picture: Picture, vector: np.ndarray, strength: float) -> tuple[Iterator[np.ndarray], float]:
        """Give the painted rows, and the share of the photograph that stays."""
        import torch

        from velatura.nets.style_transfer import likeness

        own = self._predicted(picture)
        wanted = own + np.float32(strength) * (vector - own)
        kept = float(likeness(torch.from_numpy(wanted)[None], torch.from_numpy(own)[None]))
        style = torch.from_numpy(wanted)[None].to(self._device)
        if picture.height * picture.width <= WHOLE:
            return self._in_one_piece(picture, style), kept
        return self._in_bands(picture, style), kept

    def _in_one_piece(self, picture: Picture, style: Tensor) -> Iterator[np.ndarray]:
        import torch

        from velatura.device import half_precision

        half = half_precision(self._device)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, half or torch.bfloat16, enabled=half is not None),
        ):
            image = _tensor(_colours(picture, 0, picture.height)).to(self._device)
            made = self.network.transformer(image.contiguous(memory_format=torch.channels_last), style=style)
        yield _array(made)

    def _in_bands(self, picture: Picture, style: Tensor) -> Iterator[np.ndarray]:
        import torch

        from velatura.device import half_precision
        from velatura.nets.inference import for_inference
        from velatura.nets.rows import in_bands

        half, height = half_precision(self._device), picture.height
        with torch.inference_mode():
            small = _tensor(_resized(picture, (WHOLE / (height * picture.width)) ** 0.5)).to(self._device)
            with self._rounding():
                fixed = self.network.transformer.fixed(small, style)
            network = for_inference(fixed, half)
            pixels = min(BAND, int(self._memory * 2**20 / BYTES))
            rows = max(pixels // picture.width // network.multiple, 1) * network.multiple

            def bands() -> Iterator[tuple[Tensor, bool]]:
                for start in range(0, height, rows):
                    stop = min(start + rows, height)
                    yield _tensor(_colours(picture, start, stop)).to(self._device), stop == height

            for made in in_bands(network, bands()):
                yield _array(made)

    # --- optimisation -------------------------------------------------------------------------------------------------

    def _optimized(
        self,
        picture: Picture,
        styles: Sequence[Picture | StyleVector],
        shares: tuple[float, ...],
        params: StylizeParams,
        progress: Progress,
    ) -> tuple[Iterator[np.ndarray], Curve]:
        """Give the rows of the optimised picture, enlarged to the photograph's size, and the losses."""
        from velatura import stylization
        from velatura.device import half_precision

        features = self._extractor(params.features)
        options = _options(features, params)
        small = _fitted(picture, params.size)
        height, width = small.shape[:2]
        content = _tensor(_mirrored(small)).to(self._device)
        pictures = [without_hidden(style) for style in styles if isinstance(style, Picture)]
        seen_styles = [_tensor(_colours(style, 0, style.height)) for style in pictures]

        def grams_at(scale: float) -> Mapping[str, Tensor]:
            longest = scale * max(height, width) * params.style_scale
            shrunk = [_style_at(style, longest).to(self._device) for style in seen_styles]
            return stylization.mixed_grams(features, shrunk, shares, options.style_layers)

        def step_done(step: int, image: Tensor) -> None:
            progress(step, params.steps, "optimising")
            if params.frames is not None and step % params.every == 0:
                self._write_frame(picture, _array(image)[:height, :width], Path(params.frames), step)

        start = self._start(small, content, styles, shares, params)
        half = half_precision(self._device) if params.features == "velatura" else None
        image, curve = stylization.optimize(
            features, content, grams_at, options, start=start, step_done=step_done, half=half
        )
        return _enlarged(_array(image)[:height, :width], picture), curve

    def _start(
        self,
        small: np.ndarray,
        content: Tensor,
        styles: Sequence[Picture | StyleVector],
        shares: tuple[float, ...],
        params: StylizeParams,
    ) -> Tensor | None:
        """Make what optimisation begins with; None is the photograph."""
        from velatura.stylization import noise

        if params.start == "content":
            return None
        if params.start == "noise":
            return noise(content.shape[-2], content.shape[-1], params.seed).to(self._device)
        vector = self._vector(styles, shares, params.style_scale)
        rows, _ = self._fast(Picture(small), vector, 1.0)
        return _tensor(_mirrored(np.concatenate(list(rows)))).to(self._device)

    def _write_frame(self, picture: Picture, image: np.ndarray, folder: Path, step: int) -> None:
        stem = picture.form.path.stem if picture.form.path else "step"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be a folder ({error.strerror}); name another for --frames") from None
        pixels = np.rint(255 * image).astype(np.uint8)
        save_image(Picture(pixels), folder / f"{stem}-{step:05d}.png", overwrite=self._replace)


def stylize(
    content: ImageLike,
    style: ImageLike | Sequence[ImageLike],
    mask: ImageLike | None = None,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **params: Any,
) -> StylizeResult:
    """Paint once; `Stylize` keeps the model for many calls.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    >>> made = stylize(noise, noise[::-1], method="optimize", steps=2)
    >>> made.image.shape, len(made.curve.total)
    ((40, 48, 3), 2)
    """
    return Stylize.from_pretrained(model, device=device)(content, style, mask, progress=progress, **params)


# --- styles -----------------------------------------------------------------------------------------------------------


def _read_vector(path: Path) -> StyleVector:
    """Read a style that was saved; nothing in the file is run."""
    found = catalog.open_weights(path)
    values = found.tensors.get("style")
    if found.header is None or found.header.architecture != "StyleVector" or values is None or values.ndim != 1:
        raise ModelError(f"{path.name}: holds no style; expected a file that --style-out wrote")
    vector = values.float().numpy()
    if not np.isfinite(vector).all():
        raise ModelError(f"{path.name}: holds numbers that are not finite; save the style anew")
    return StyleVector(vector, str(found.header.arguments.get("model", "")))


def _bytes_of(style: StyleVector) -> bytes:
    from safetensors.numpy import save

    header = {"architecture": "StyleVector", "arguments": json.dumps({"model": style.model})}
    return save({"style": style.values}, metadata=header)


def _plot_of(curve: Curve, params: StylizeParams) -> bytes:
    from velatura.stylization import plot

    height, width = curve.sizes[-1]
    return plot(curve, f"{params.optimizer}, {width}x{height}, {params.features.partition(':')[0]}").encode()


def _read_style(value: Any, max_megapixels: float) -> Picture | StyleVector:
    """Read a style."""
    if isinstance(value, str | Path) and Path(value).suffix == VECTOR:
        return _read_vector(Path(value))
    return open_image(value, max_megapixels=max_megapixels, name="style")


def _small(style: Picture, content: Picture, params: StylizeParams) -> Picture:
    """Shrink a style to what is looked at, before it becomes floating-point numbers as a whole."""
    height, width = style.height, style.width
    # Twice the side that the prediction network sees: shrunk again, it stays as sharp.
    ratio = 2 * LOOK * max(params.style_scale, 1) / (height * width) ** 0.5
    if params.method == "optimize":
        longest = min(params.size, max(content.height, content.width)) * params.style_scale / max(height, width)
        ratio = max(longest, ratio if params.start == "fast" else 0)
    elif params.keep_color != "histogram":
        return style  # it is shrunk some rows at a time
    return Picture(_resized(without_hidden(style), ratio)) if ratio < 1 else style


def _shares(weights: tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    """Bring the weights of styles to a sum of 1."""
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        raise InputError(f"got {len(weights)} weights for {count} styles; expected one each")
    total = sum(weights)
    if not total > 0 or not np.isfinite(total):
        raise InputError(f"weights {weights} have no finite sum over 0; expected one above 0 at least")
    return tuple(weight / total for weight in weights)


def with_colours_of(style: Picture, content: Picture) -> Picture:
    """Give a style the mean colour of the photograph, and how its colours vary (Gatys et al. 2016, section 3.1)."""
    style, content = without_hidden(style), without_hidden(content)
    pixels, target = (_looked_at(picture).reshape(-1, 3).astype(np.float64) for picture in (style, content))
    spreads = [np.cov(colours, rowvar=False, bias=True) + 1e-5 * np.eye(3) for colours in (pixels, target)]
    # Of the transforms that fit, the one that changes colours least: the roots' own axes.
    change = _root(spreads[1]) @ np.linalg.inv(_root(spreads[0]))
    # As it is used, small by now: in single precision, to take no more than the picture itself.
    made = (_colours(style, 0, style.height) - pixels.mean(0).astype(np.float32)) @ change.T.astype(np.float32)
    made += target.mean(0).astype(np.float32)
    return Picture(np.clip(made, 0, 1, out=made))


def _root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _style_at(style: Tensor, longest: float) -> Tensor:
    """Bring a style's longer side to a number of pixels, and its sides to at least what the features want."""
    from torch.nn import functional

    height, width = style.shape[-2:]
    ratio = longest / max(height, width)
    size = (max(round(height * ratio), 1), max(round(width * ratio), 1))
    if size != (height, width):
        style = functional.interpolate(style, size=size, mode="bicubic", antialias=True, align_corners=False)
    return _tensor(_mirrored(_array(style.clamp(0, 1))))


def _options(features: Any, params: StylizeParams) -> Optimization:
    from velatura import stylization

    content, style = stylization.default_layers(features)
    content, style = params.content_layers or content, params.style_layers or style
    stylization.check_layers(features, (*content, *style))
    rate = params.rate or (0.02 if params.optimizer == "adam" else 1.0)
    return stylization.Optimization(
        params.steps, params.optimizer, rate, content, style, params.style_weight, params.smoothness
    )


def _label(params: StylizeParams, model: str | Path) -> str:
    """Say what did the work."""
    from velatura.nets.style_features import STYLE_FEATURES

    if params.method == "fast":
        return Path(model).stem
    return STYLE_FEATURES if params.features == "velatura" else Path(params.features.rpartition(":")[2]).stem


# --- images for networks ----------------------------------------------------------------------------------------------


def _floats(picture: Picture, start: int, stop: int) -> np.ndarray:
    return picture.pixels[start:stop] * np.float32(1 / picture.white)


def _colours(picture: Picture, start: int, stop: int) -> np.ndarray:
    """Rows as (h, W, 3) of 0..1, grey as three equal channels."""
    values = _floats(picture, start, stop)
    return np.repeat(values, 3, 2) if picture.channels == 1 else values


def _looked_at(picture: Picture, scale: float = 1.0) -> np.ndarray:
    """Give (h, w, 3) of as many pixels as the prediction network was trained on, or fewer, times a scale squared."""
    ratio = scale * min(LOOK / (picture.height * picture.width) ** 0.5, 1)
    return _resized(picture, ratio)


def _fitted(picture: Picture, longest: int) -> np.ndarray:
    """Shrink until the longer side has at most so many pixels: (h, w, 3)."""
    return _resized(picture, min(longest / max(picture.height, picture.width), 1))


def _resized(picture: Picture, ratio: float) -> np.ndarray:
    height, width = (max(round(length * ratio), 1) for length in (picture.height, picture.width))
    if (height, width) == (picture.height, picture.width):
        return _colours(picture, 0, height)
    if ratio < 1:
        return _shrunk(picture, height, width)
    return np.clip(resize(_colours(picture, 0, picture.height), height, width, "bicubic"), 0, 1)


def _shrunk(picture: Picture, height: int, width: int) -> np.ndarray:
    """Shrink by area, some rows at a time."""
    resized = RowResize((picture.height, picture.width), (height, width), "area")
    step = max(STRIP * height // picture.height, 1)
    parts = []
    for start in range(0, height, step):
        rows = (start, min(start + step, height))
        first, last = resized.needs(rows)
        parts.append(resized.rows(_colours(picture, first, last), first, rows))
    return np.concatenate(parts).astype(np.float32)


def _mirrored(image: np.ndarray) -> np.ndarray:
    """Continue an image to the right and below by its mirror image until a network can see it."""
    missing = [(0, max(LEAST - length, 0)) for length in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="symmetric") if any(end for _, end in missing) else image


def _tensor(image: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]


def _array(image: Tensor) -> np.ndarray:
    return image[0].float().permute(1, 2, 0).cpu().numpy()


def _enlarged(image: np.ndarray, picture: Picture) -> Iterator[np.ndarray]:
    """Give rows of the photograph's size."""
    if image.shape[:2] == (picture.height, picture.width):
        yield image
        return
    resized = RowResize((image.shape[0], image.shape[1]), (picture.height, picture.width), "bicubic")
    for start in range(0, picture.height, STRIP):
        rows = (start, min(start + STRIP, picture.height))
        first, last = resized.needs(rows)
        yield np.clip(resized.rows(image[first:last], first, rows), 0, 1)


# --- rows of the result -----------------------------------------------------------------------------------------------


def _unchanged(picture: Picture) -> Bands:
    """Give the photograph as it is."""

    def rows() -> Iterator[np.ndarray]:
        for start in range(0, picture.height, STRIP):
            band = picture.pixels[start : start + STRIP]
            if picture.alpha is not None:
                band = np.concatenate([band, picture.alpha[start : start + STRIP, :, None]], -1)
            yield band

    alpha = picture.alpha is not None
    return Bands(picture, picture.height, picture.width, rows(), picture.channels, alpha)


def _written(
    painted: Iterator[np.ndarray],
    picture: Picture,
    mask: np.ndarray | None,
    kept: float,
    params: StylizeParams,
    progress: Progress,
) -> Iterator[np.ndarray]:
    """Turn painted rows into rows of the picture's own kind, with its colours where asked for, inside the mask."""
    grey = picture.channels == 1 and params.keep_color == "luminance"
    luma, height = np.array(LUMA, np.float32), picture.height
    progress(0, height, "stylizing")
    done = 0
    buffer = RowBuffer(painted)
    while done < height:
        stop = min(done + STRIP, height)
        band, original = buffer.window(done, stop), _colours(picture, done, stop)
        if params.keep_color == "luminance":
            band = np.clip(original + ((band - original) @ luma)[..., None], 0, 1)
        weight = np.float32(1 - kept)
        if mask is not None:
            weight = weight * mask[done:stop, :, None] * np.float32(1 / 255)
        made = original + weight * (band - original)
        made = _quantized((made[..., :1] if grey else made) * np.float32(picture.white), picture)
        if picture.alpha is not None:
            made = np.concatenate([made, picture.alpha[done:stop, :, None]], -1)
        yield made
        done = stop
        progress(done, height, "stylizing")


def _quantized(values: np.ndarray, picture: Picture) -> np.ndarray:
    """Turn colours in units of the picture's dtype into it."""
    dtype = picture.pixels.dtype
    values = values if dtype.kind == "f" else np.rint(values)
    return np.clip(values, 0, picture.white).astype(dtype, copy=False)
