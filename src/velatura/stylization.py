"""Style transfer by patient optimisation: the picture itself is what is learned.

Gatys, Ecker, Bethge, "A neural algorithm of artistic style", 2015 (arXiv 1508.06576), and "Image style transfer using
convolutional neural networks", 2016 (CVPR), which begins with the photograph and takes L-BFGS; total variation after
Johnson et al. 2016 (arXiv 1603.08155, section 3.2).

Differs from the papers: losses are in units of each pair (`velatura.losses.StyleLoss`), so that one weight suits every
extractor; a large picture is made coarse to fine (Gatys et al. 2017, arXiv 1611.07865, section 6): at each size it
starts from the enlarged one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from velatura.errors import InputError
from velatura.losses import FLOOR, FeatureMaps, StyleLoss, gram_matrix, total_variation
from velatura.nets.features import Features
from velatura.nets.style_features import STYLE_FEATURES, StyleFeatures
from velatura.nets.vgg19 import VGG19
from velatura.perceptual import load_features

__all__ = [
    "Curve",
    "Optimization",
    "check_layers",
    "default_layers",
    "load_extractor",
    "mixed_grams",
    "noise",
    "optimize",
    "plot",
]

# Layers and weights: our own, the coarse ones, whose Gram matrices follow their teachers less, a half; and the papers'.
OURS = {"stride4": 1.0}, {"stride1": 1.0, "stride2": 1.0, "stride4": 1.0, "stride8": 0.5, "stride16": 0.5}
GATYS = {"conv4_2": 1.0}, {f"conv{block}_1": 1.0 for block in range(1, 6)}  # Gatys et al. 2016, section 3

COARSEST = 256  # pixels of the longer side that a large picture begins with
NARROWEST = 32  # pixels of the shorter side: what the features want at least
SHARE = 0.5  # of the steps for the last, largest size: most of the work is done where it is cheap
PLOT, MARGIN = (640, 360), 48  # of the plot of losses, in its own units
DECADES = 4  # that it shows at most
INKS = ("#222", "#2a7", "#c43")  # of total, content, style
NOISE = 0.25  # standard deviation around mid-grey of a start from noise


def load_extractor(spec: str, device: torch.device | str = "cpu") -> StyleFeatures | VGG19:
    """Get what the losses look through.

    Parameters
    ----------
    spec : str
        As of `velatura.perceptual.load_features`; our own are ``style-features``.
    device : torch.device or str

    Returns
    -------
    StyleFeatures or VGG19
        Without gradients of its own.

    Raises
    ------
    ModelError
        The file is missing, unsafe or of another network.
    """
    features = load_features(spec, STYLE_FEATURES)
    found = StyleFeatures(features) if isinstance(features, Features) else features
    return found.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def default_layers(features: StyleFeatures | VGG19) -> tuple[dict[str, float], dict[str, float]]:
    """Give the usual layers of content and of style, and their weights; of a VGG-19 as far as it goes."""
    if isinstance(features, StyleFeatures):
        return dict(OURS[0]), dict(OURS[1])
    content, style = ({name: 1.0 for name in layers if name in features.layers} for layers in GATYS)
    return content or {features.layers[-1]: 1.0}, style


def check_layers(features: StyleFeatures | VGG19, layers: Iterable[str]) -> None:
    """Refuse layers that an extractor does not have.

    Raises
    ------
    InputError
        One is unknown.
    """
    known = features.LAYERS if isinstance(features, StyleFeatures) else features.layers
    for name in layers:
        if name not in known:
            raise InputError(f"unknown layer {name!r}; these features have {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Optimization:
    """How to optimise.

    Attributes
    ----------
    steps : int
        Of the optimizer, over all sizes.
    optimizer : {"adam", "lbfgs"}
    rate : float
        Of Adam, in units of the range 0..1; of L-BFGS, the first step of its line search.
    content_layers, style_layers : mapping of str to float
        Layer -> weight.
    style_weight : float
        The style loss of the unstyled photograph counts as much as so many variances of its content.
    smoothness : float
        Weight of the total variation, in units of the photograph's own.
    floor : float
        See `velatura.losses.StyleLoss`.
    """

    steps: int = 200
    optimizer: Literal["adam", "lbfgs"] = "adam"
    rate: float = 0.02
    content_layers: Mapping[str, float] = field(default_factory=lambda: dict(OURS[0]))
    style_layers: Mapping[str, float] = field(default_factory=lambda: dict(OURS[1]))
    style_weight: float = 3.0
    smoothness: float = 0.01
    floor: float = FLOOR


@dataclass(slots=True)
class Curve:
    """Losses, one entry per step.

    Attributes
    ----------
    total, content, style, variation : list of float
        Unweighted, but the total.
    sizes : list of (int, int)
        Height and width that the step worked at.
    """

    total: list[float] = field(default_factory=list)
    content: list[float] = field(default_factory=list)
    style: list[float] = field(default_factory=list)
    variation: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)


def noise(height: int, width: int, seed: int) -> Tensor:
    """Give white noise around mid-grey, (1, 3, height, width), always the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + NOISE * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def mixed_grams(
    features: FeatureMaps, styles: Sequence[Tensor], weights: Sequence[float], layers: Mapping[str, float]
) -> dict[str, Tensor]:
    """Give the weighted mean of the Gram matrices of several styles, by layer.

    Parameters
    ----------
    features : FeatureMaps
    styles : sequence of Tensor, (1, 3, H, W)
        Of any sizes.
    weights : sequence of float
        One each, with sum 1.
    layers : mapping of str to float
        Whose keys are wanted.
    """
    mixed: dict[str, Tensor] = {}
    with torch.no_grad():
        for style, weight in zip(styles, weights, strict=True):
            for name, maps in features.activated(features(style, layers)).items():
                gram = weight * gram_matrix(maps)
                mixed[name] = mixed[name] + gram if name in mixed else gram
    return mixed


def optimize(
    features: FeatureMaps,
    content: Tensor,
    grams_at: Callable[[float], Mapping[str, Tensor]],
    options: Optimization,
    *,
    start: Tensor | None = None,
    step_done: Callable[[int, Tensor], None] = lambda step, image: None,
    half: torch.dtype | None = None,
) -> tuple[Tensor, Curve]:
    """Change a picture until it has the photograph's content and the style's Gram matrices.

    Parameters
    ----------
    features : FeatureMaps
        What losses look through; on the device of `content`.
    content : Tensor of float32, (1, 3, H, W)
        RGB, 0..1, each side at least what the layers want.
    grams_at : callable
        Gives the style's Gram matrices for a size, as a share of the final one: styles shrink with the picture.
    options : Optimization
    start : Tensor of float32, (1, 3, H, W), optional
        What the picture begins as; the photograph if not given.
    step_done : callable
        Is told the number of steps done and sees the picture; raising stops the work.
    half : torch.dtype, optional
        What the device computes natively, for the features alone; None leaves float32.

    Returns
    -------
    image : Tensor of float32, (1, 3, H, W)
        0..1.
    curve : Curve

    Examples
    --------
    >>> from velatura.nets.features import Features
    >>> net, photo, style = Features().requires_grad_(False), torch.rand(1, 3, 40, 32), torch.rand(1, 3, 32, 32)
    >>> options = Optimization(steps=3)
    >>> grams = mixed_grams(net, [style], [1.0], options.style_layers)
    >>> image, curve = optimize(net, photo, lambda scale: grams, options)
    >>> image.shape, curve.total[-1] < curve.total[0]
    (torch.Size([1, 3, 40, 32]), True)
    """
    image = content if start is None else start
    curve = Curve()
    for (height, width), steps in _schedule(content.shape[-2], content.shape[-1], options.steps):
        scale = height / content.shape[-2]
        target = _resized(content, height, width)
        layers = options.content_layers, options.style_layers
        loss = StyleLoss(features, target, grams_at(scale), *layers, options.floor)
        image = _descend(loss, target, _resized(image, height, width), options, steps, curve, step_done, half)
    return image, curve


def plot(curve: Curve, title: str) -> str:
    """Draw the losses over the steps, as an SVG: logarithmic, one line each; a grey line where the size changes.

    Examples
    --------
    >>> curve = Curve([3.0, 2.0, 1.0], [0.0, 0.2, 0.2], [1.0, 0.6, 0.3], [1.0, 1.0, 1.0], [(8, 8)] * 3)
    >>> plot(curve, "losses").count("<polyline")
    3
    """
    series = {"total": curve.total, "content": curve.content, "style": curve.style}
    values = [value for line in series.values() for value in line if value > 0] or [1.0]
    high = np.ceil(np.log10(max(values)) + 1e-9)
    low = max(np.floor(np.log10(min(values))), high - DECADES)
    left, top, width, height = MARGIN, MARGIN, PLOT[0] - 2 * MARGIN, PLOT[1] - 2 * MARGIN

    def place(step: int, value: float) -> str:
        across = left + width * step / max(len(curve.total) - 1, 1)
        share = (np.log10(max(value, 10**low)) - low) / (high - low)
        return f"{across:.1f},{top + height * (1 - share):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PLOT[0]} {PLOT[1]}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{left}" y="{top - 16}" font-size="14">{escape(title)}</text>'
    ]
    for power in range(int(low), int(high) + 1):
        at = place(0, 10.0**power).partition(",")[2]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{at}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{at}" text-anchor="end">{10.0**power:g}</text>')
    for step in range(1, len(curve.sizes)):
        if curve.sizes[step] != curve.sizes[step - 1]:
            at = place(step, 1.0).partition(",")[0]
            parts.append(f'<line x1="{at}" x2="{at}" y1="{top}" y2="{top + height}" stroke="#999"/>')
    for number, (name, line) in enumerate(series.items()):
        points = " ".join(place(step, value) for step, value in enumerate(line))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{INKS[number]}" stroke-width="1.5"/>')
        parts.append(f'<text x="{left + 90 * number}" y="{PLOT[1] - 8}" fill="{INKS[number]}">{name}</text>')
    parts.append(f'<text x="{left + width}" y="{PLOT[1] - 8}" text-anchor="end">{len(curve.total)} steps</text></svg>')
    return "\n".join(parts)


def _schedule(height: int, width: int, steps: int) -> list[tuple[tuple[int, int], int]]:
    """Say which sizes to work at, ascending, and for how many steps each."""
    sizes, longest = [(height, width)], max(height, width)
    while longest > 2 * COARSEST:
        longest = (longest + 1) // 2
        shrunk = longest / max(height, width)
        if shrunk * min(height, width) < NARROWEST:
            break
        sizes.insert(0, (max(round(height * shrunk), 1), max(round(width * shrunk), 1)))
    if len(sizes) == 1 or steps < len(sizes):
        return [(sizes[-1], steps)]
    last = max(round(SHARE * steps), 1)
    before, coarse = len(sizes) - 1, steps - last
    shares = [coarse // before + (index < coarse % before) for index in range(before)]
    return list(zip(sizes, [*shares, last], strict=True))


def _descend(
    loss: StyleLoss,
    content: Tensor,
    image: Tensor,
    options: Optimization,
    steps: int,
    curve: Curve,
    step_done: Callable[[int, Tensor], None],
    half: torch.dtype | None,
) -> Tensor:
    """Work at one size."""
    # The order in which convolutions are quickest; L-BFGS wants one long row.
    quick = torch.channels_last if options.optimizer == "adam" else torch.contiguous_format
    picture = image.clone(memory_format=quick).requires_grad_(True)
    rough = float(total_variation(content)) + 1e-3
    size = (picture.shape[-2], picture.shape[-1])

    found: list[tuple[float, ...]] = []

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(picture.device.type, half or torch.bfloat16, enabled=half is not None):
            lost, lacking = (value.sum() for value in loss(picture))
        variation = total_variation(picture) / rough
        total = lost + options.style_weight * lacking + options.smoothness * variation
        total.backward()
        found.append(tuple(float(value.detach()) for value in (total, lost, lacking, variation)))
        return total

    optimizer = _optimizer(picture, options)
    for _ in range(steps):
        found.clear()
        optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType]
        with torch.no_grad():
            picture.clamp_(0, 1)
        # Where it searches along a line, the first of the losses is that of the picture before the step.
        for series, value in zip((curve.total, curve.content, curve.style, curve.variation), found[0], strict=True):
            series.append(value)
        curve.sizes.append(size)
        step_done(len(curve.total), picture.detach())
    return picture.detach()


def _optimizer(picture: Tensor, options: Optimization) -> torch.optim.Optimizer:
    if options.optimizer == "adam":
        return torch.optim.Adam([picture], lr=options.rate)
    return torch.optim.LBFGS([picture], lr=options.rate, max_iter=1, history_size=20, line_search_fn="strong_wolfe")


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return functional.interpolate(
        image, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
