"""Upscaling models, from the catalog or from other people's files, behind one function.

A file of others holds names and shapes, and nothing says what they mean. Two families are read here, strictly: every
tensor must be there, nothing else may be, and the numbers of the network are read off the shapes.

ESRGAN (`velatura.nets.rrdb`), in three layouts::

    conv_first    body.0.rdb1.conv1          conv_body      conv_up1   conv_hr   conv_last     BasicSR, Real-ESRGAN
    conv_first    RRDB_trunk.0.RDB1.conv1    trunk_conv     upconv1    HRconv    conv_last     ESRGAN, BSRGAN
    model.0       model.1.sub.0.RDB1.conv1.0 model.1.sub.N  model.3    model.8   model.10      the first files

The compact networks of Real-ESRGAN (`velatura.nets.srvgg`): ``body.0``, ``body.1``...

The weights may lie in ``params_ema``, ``params`` or ``state_dict``, and every name may begin with ``module.``.
Whatever else spandrel (MIT) knows is read by it, where ``velatura[community]`` is installed; the file is opened by
`velatura.catalog` all the same, which runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura import catalog
from velatura.catalog import Weights
from velatura.errors import MachineError, ModelError
from velatura.nets.rows import WHOLE, Rows
from velatura.nets.rrdb import RRDB
from velatura.nets.srcnn import SRCNN
from velatura.nets.srresnet import SRResNet
from velatura.nets.srvgg import SRVGG

__all__ = ["Adapted", "Spandrel", "load_upscaler", "measured_radius"]

OURS = {"SRCNN": SRCNN, "SRResNet": SRResNet, "RRDB": RRDB, "SRVGG": SRVGG}

Shapes = Mapping[str, tuple[int, ...]]

# What the files of others call the layers of `RRDB`; what is missing has the same name. {} in a block: its number,
# that of the dense block and that of the convolution, from 0, 1 and 1.
_BLOCK = "body.{}.rdb{}.conv{}"
_BASICSR = {"block": _BLOCK}
_ESRGAN = {
    "block": "RRDB_trunk.{}.RDB{}.conv{}",
    "conv_body": "trunk_conv",
    "conv_up1": "upconv1",
    "conv_up2": "upconv2",
    "conv_hr": "HRconv",
}
_OLD_BLOCK = "model.1.sub.{}.RDB{}.conv{}.0"

HALF_LEVEL = 0.5  # grey levels of 255: less does not change a picture
WINDOW = 32  # transformers cut an image into windows of 8, 16 or 32 pixels, and spandrel does not say which do
CONTEXT = 48  # pixels beyond a cut that the probe has: what is further away decides less and less
PROBE = 160  # side of the probe, pixels


# --- one door ---------------------------------------------------------------------------------------------------------


def load_upscaler(name_or_path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load a network that enlarges images.

    Parameters
    ----------
    name_or_path : str or path
        A name of the catalog, a file of ours, or one of others: ``.safetensors``, ``.pth`` or ``.pt``.
    device : torch.device or str
        Where the network goes.

    Returns
    -------
    torch.nn.Module
        From (N, 3, H, W), RGB, 0..1, to (N, 3, scale H, scale W), about 0..1; in float32, in ``eval()``, without
        gradients, and with the attributes

        - ``scale``, int;
        - ``receptive_radius``, int: pixels of the input on each side that an output pixel depends on; exact, but for
          what spandrel loads: there it is measured, when it is first asked for;
        - ``multiple``, int: bands of rows but the last, and places where tiles begin, must be multiples of it.

        Those that we read ourselves take ``rows``, see `velatura.nets.rows`.

    Raises
    ------
    ModelError
        Unknown name, or the file is refused; the message names the file and the reason.
    MachineError
        The file needs spandrel, which is installed but does not work.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "2x-mine.pth")
    ...     torch.save({"params": SRVGG(2, width=8, depth=3).state_dict()}, path)
    ...     network = load_upscaler(path)
    >>> network(torch.rand(1, 3, 12, 16)).shape, network.scale, network.receptive_radius
    (torch.Size([1, 3, 24, 32]), 2, 5)
    """
    weights = catalog.open_weights(name_or_path, OURS)
    if weights.header is not None and weights.header.architecture:
        network = catalog.assemble(weights, OURS, device)
        network = _adapted(network, multiple=int(weights.header.arguments.get("unshuffle", 1)))
    else:
        network = _of_others(weights, device)
    if not hasattr(network, "multiple"):
        network.multiple = 1  # type: ignore[assignment]
    return network


class Adapted(nn.Module):
    """A network of one channel, or one whose image must have certain sides, for RGB images of any size.

    Each colour passes through a network of one channel by itself; an image that is too small is continued by its last
    row and column.

    Parameters
    ----------
    network : nn.Module
        Takes ``rows``.
    channels : {1, 3}
        What the network takes and gives.
    multiple : int
        Of which the sides must be multiples.
    """

    def __init__(self, network: nn.Module, channels: int, multiple: int) -> None:
        super().__init__()
        self.network, self.channels, self.multiple = network, channels, multiple
        self.scale: int = network.scale  # type: ignore[assignment]
        self.receptive_radius: int = network.receptive_radius  # type: ignore[assignment]
        own = getattr(network, "full_precision", ())
        #: See `velatura.nets.inference.for_inference`.
        self.full_precision = tuple(f"network.{name}" for name in own)

    def forward(self, image: Tensor, rows: Rows = WHOLE) -> Tensor:
        """Enlarge.

        Parameters
        ----------
        image : Tensor of float32, (N, 3, H, W)
            RGB, 0..1.
        rows : Rows
            Whether the image comes whole or in bands; every band but the last is a multiple of ``multiple`` high.

        Returns
        -------
        Tensor of float32, (N, 3, scale H, scale W)
            About 0..1, not clipped.
        """
        count, _, height, width = image.shape
        x = image if self.channels == 3 else image.reshape(-1, 1, height, width)
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            x = functional.pad(x, (0, right, 0, below), mode="replicate")
        x = self.network(x, rows)
        x = x[:, :, : x.shape[2] - self.scale * below, : self.scale * width]
        return x.reshape(count, 3, *x.shape[2:])


def _adapted(network: nn.Module, channels: int = 3, multiple: int = 1) -> nn.Module:
    return network if (channels, multiple) == (3, 1) else Adapted(network, channels, multiple)


# --- reading names and shapes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to build the network of a file, and what the file calls its tensors."""

    build: Callable[..., nn.Module]
    arguments: dict[str, int | bool]
    rename: Callable[[str], str]
    channels: int
    multiple: int = 1


class _Unread(Exception):
    """A file of none of the networks that we build; somebody else may read it."""


def _of_others(weights: Weights, device: torch.device | str) -> nn.Module:
    """Build the network of a file that says nothing about itself."""
    name = weights.name
    for key, tensor in weights.tensors.items():
        # Sizes will be believed: a tensor that repeats one number must not pass for a large one.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"{name}: {key!r} claims more numbers than the file holds; get it again")
    prefix = "module." if all(key.startswith("module.") for key in weights.tensors) else ""
    shapes = {key.removeprefix(prefix): tuple(tensor.shape) for key, tensor in weights.tensors.items()}
    try:
        plan = _plan(shapes, name)
    except _Unread as reason:
        return _by_spandrel(weights, str(reason), device)
    network = catalog.assemble(
        weights,
        {"ESRGAN" if plan.build is not SRVGG else "SRVGG": plan.build},
        device,
        arguments=plan.arguments,
        rename=lambda key: prefix + plan.rename(key),
    )
    return _adapted(network, plan.channels, plan.multiple)


def _plan(shapes: Shapes, file: str) -> _Plan:
    if not any(".conv1x1." in key for key in shapes):  # ESRGAN+ has one more layer in each dense block
        for layout in (_BASICSR, _ESRGAN, _old(shapes)):
            if blocks := _count(shapes, layout["block"]):
                return _plan_rrdb(shapes, layout, blocks, file)
    if "body.0.weight" in shapes and "body.2.weight" in shapes:
        return _plan_srvgg(shapes, file)
    first = next(iter(sorted(shapes)), None)
    raise _Unread(f"neither an ESRGAN nor an SRVGG (it holds {first!r})" if first else "no weights at all")


def _old(shapes: Shapes) -> dict[str, str]:
    """Name the layers of the first files, which are numbered in the order of their use."""
    last = max((int(found[1]) for key in shapes if (found := re.fullmatch(r"model\.(\d+)\.weight", key))), default=0)
    names = {
        "block": _OLD_BLOCK,
        "conv_first": "model.0",
        "conv_body": f"model.1.sub.{_count(shapes, _OLD_BLOCK)}",
        "conv_hr": f"model.{last - 2}",
        "conv_last": f"model.{last}",
    }
    # An enlargement, a convolution, an activation, and again.
    return names | {f"conv_up{at // 3}": f"model.{at}" for at in range(3, last - 3, 3)}


def _count(shapes: Shapes, block: str) -> int:
    """Count the blocks."""
    pattern = re.compile(re.escape(block).replace(r"\{\}", r"(\d+)") + r"\.weight")
    return len({found[1] for key in shapes if (found := pattern.fullmatch(key))})


def _plan_rrdb(shapes: Shapes, layout: Mapping[str, str], blocks: int, file: str) -> _Plan:
    def rename(key: str) -> str:
        layer, kind = key.rsplit(".", 1)
        inside = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer)
        theirs = layout["block"].format(*inside.groups()) if inside else layout.get(layer, layer)
        return f"{theirs}.{kind}"

    width, inputs = _shape(shapes, rename("conv_first.weight"), file)[:2]
    channels, tail = _shape(shapes, rename("conv_last.weight"), file)[:2]
    growth = _shape(shapes, rename("body.0.rdb1.conv1.weight"), file)[0]
    unshuffle = _root(inputs, channels)
    if channels not in (1, 3) or unshuffle not in (1, 2, 4):
        raise _Unread(f"an ESRGAN of {inputs} channels in and {channels} out; expected 1 or 3 of both")
    # In BasicSR there are always two, and smaller scales begin with a pixel unshuffle.
    ups = [rename(f"conv_up{at}.weight") in shapes for at in (1, 2, 3)]
    doublings = 2 if layout is _BASICSR else sum(ups)
    scale = 2**doublings // unshuffle
    if doublings not in (1, 2) or not scale:
        raise _Unread(f"an ESRGAN with {doublings} doublings; expected 1 or 2")

    def build(**arguments: Any) -> RRDB:
        network = RRDB(**arguments, residual=False)
        if channels == 1:
            network.conv_first = nn.Conv2d(inputs, width, 3, padding=1)
            network.conv_last = nn.Conv2d(tail, channels, 3, padding=1)
        return network

    arguments = {"scale": scale, "width": width, "growth": growth, "blocks": blocks, "tail": tail}
    return _Plan(build, arguments | {"unshuffle": unshuffle}, rename, channels, multiple=unshuffle)


def _plan_srvgg(shapes: Shapes, file: str) -> _Plan:
    layers = {found[1] for key in shapes if (found := re.fullmatch(r"body\.(\d+)\.weight", key))}
    depth = (len(layers) - 3) // 2
    width, channels = _shape(shapes, "body.0.weight", file)[:2]
    _shape(shapes, "body.1.weight", file, dimensions=1)  # a PReLU has weights; other activations cannot be told apart
    outputs = _shape(shapes, f"body.{2 * depth + 2}.weight", file)[0]
    scale = _root(outputs, channels)
    if channels not in (1, 3) or not scale:
        raise _Unread(f"an SRVGG of {channels} channels in and {outputs} places out; expected 1 or 3, and a square")
    arguments = {"scale": scale, "width": width, "depth": depth, "channels": channels}
    return _Plan(SRVGG, arguments, str, channels)


def _shape(shapes: Shapes, key: str, file: str, dimensions: int = 4) -> tuple[int, ...]:
    if key not in shapes:
        raise ModelError(f"{file}: misses tensor {key!r}; it is cut off, or of another architecture")
    shape = shapes[key]
    if len(shape) != dimensions or not all(shape):
        raise ModelError(f"{file}: {key!r} has shape {shape}; expected {dimensions} sides")
    return shape


def _root(many: int, few: int) -> int:
    """Give the number whose square times ``few`` is ``many``, or 0."""
    root = isqrt(many // few)
    return root if root**2 * few == many else 0


# --- what spandrel knows ----------------------------------------------------------------------------------------------


class Spandrel(nn.Module):
    """A network that spandrel built, with our interface.

    Parameters
    ----------
    descriptor : spandrel.ImageModelDescriptor
        Its sides' requirements are met by padding, its output is clipped to 0..1.

    Attributes
    ----------
    scale : int
    multiple : int
        Of which places where tiles begin must be multiples, so that windows fall as in the whole image.
    tiles_well : bool
        Whether it may see the image in tiles; where not, it looks at the image as a whole, or cuts it up itself.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        self._descriptor = descriptor
        self.scale = int(descriptor.scale)
        self.channels = int(descriptor.input_channels)
        self.multiple = lcm(int(descriptor.size_requirements.multiple_of), WINDOW)
        self.tiles_well = descriptor.tiling.name == "SUPPORTED"

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge (N, 3, H, W), RGB, 0..1: a Tensor (N, 3, scale H, scale W) of 0..1."""
        count, _, height, width = image.shape
        planes = image if self.channels == 3 else image.reshape(-1, 1, height, width)
        # It is made for one image at a time.
        done = torch.cat([self._descriptor(plane[None]) for plane in planes])
        return done.reshape(count, 3, *done.shape[2:])

    @cached_property
    def measured(self) -> tuple[int, float]:
        """What `measured_radius` gives."""
        return measured_radius(self)

    @property
    def receptive_radius(self) -> int:
        """Pixels of the input on each side that decide an output pixel: measured."""
        return self.measured[0]


def _by_spandrel(weights: Weights, reason: str, device: torch.device | str) -> nn.Module:
    """Let spandrel build the network of weights that were read safely."""
    name = weights.name
    for key, tensor in weights.tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name}: {key!r} holds numbers that are not finite; get the file again")
    try:
        import spandrel  # pyright: ignore[reportMissingImports] - an extra
    except ModuleNotFoundError as error:
        if error.name != "spandrel":
            raise _broken(name, reason, error) from None
        raise ModelError(f'{name}: {reason}; for other families: pip install "velatura[community]"') from None
    except Exception as error:  # torchvision raises RuntimeError where it does not fit torch
        raise _broken(name, reason, error) from None
    with torch.random.fork_rng(devices=[]):
        try:
            state = spandrel.canonicalize_state_dict(dict(weights.tensors))
            descriptor = spandrel.ModelLoader().load_from_state_dict(state)
        except spandrel.UnsupportedModelError:
            raise ModelError(f"{name}: {reason}; spandrel {spandrel.__version__} does not know it either") from None
        except Exception as error:  # it trusts a file that looks right, and fails in many ways
            raise ModelError(f"{name}: spandrel cannot read it ({str(error)[:120]}); get the file again") from None
    channels = getattr(descriptor, "input_channels", 0), getattr(descriptor, "output_channels", 0)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or channels not in ((1, 1), (3, 3)):
        raise ModelError(f"{name}: a {descriptor.architecture.name}, from {channels[0]} channels to {channels[1]}; "
                         "expected a network from images to images of 1 or 3")  # fmt: skip
    descriptor.float().to(device)
    return Spandrel(descriptor).eval().requires_grad_(False)


def _broken(name: str, reason: str, error: Exception) -> MachineError:
    return MachineError(
        f"{name}: {reason}, and spandrel cannot be imported ({str(error)[:120]}); install a torchvision that fits torch"
    )


# --- how far a network looks ------------------------------------------------------------------------------------------


@torch.inference_mode()
def measured_radius(network: nn.Module, image: Tensor | None = None) -> tuple[int, float]:
    """Measure how far a network looks, as far as it shows.

    Photographs are enlarged whole and after a part was cut away, at the upper left and at the lower right. Near the
    cut the results differ; the radius is where they no longer do by more than half a grey level. In a deep network it
    is far smaller than what the layers add up to. It holds for photographs like these: others may differ by more.

    Parameters
    ----------
    network : nn.Module
        With ``scale`` and, if it has one, ``multiple``; see `load_upscaler`.
    image : Tensor of float32, (N, 3, H, W), optional
        What to probe with, RGB, 0..1; by default a face and a printed page, of 160 x 160 pixels.

    Returns
    -------
    radius : int
        Pixels of the input: the halo of a tile. A multiple of ``multiple``.
    error : float
        The largest difference left beyond it, in grey levels of 255. If it is over 0.5, the network looks further
        than the probe is wide.

    Raises
    ------
    ValueError
        The image has less than three times `CONTEXT` pixels on a side.

    Examples
    --------
    >>> from velatura.nets.srcnn import Bicubic
    >>> measured_radius(Bicubic(2))
    (2, 0.0)
    """
    image = _photographs() if image is None else image
    if min(image.shape[2:]) < 3 * CONTEXT:
        raise ValueError(f"got an image of {tuple(image.shape[2:])} pixels; expected at least {3 * CONTEXT} on a side")
    step = int(getattr(network, "multiple", 1))
    cut = -(-CONTEXT // step) * step
    parameter = next(network.parameters(), None)
    image = image if parameter is None else image.to(parameter.device)
    scale = int(network.scale)  # type: ignore[arg-type]
    height, width = (side // step * step for side in image.shape[2:])
    image = image[:, :, :height, :width]

    whole = network(image).clamp(0, 1)
    after = network(image[:, :, cut:, cut:]).clamp(0, 1) - whole[:, :, scale * cut :, scale * cut :]
    before = network(image[:, :, :-cut, :-cut]).clamp(0, 1) - whole[:, :, : -scale * cut, : -scale * cut]
    # The largest difference in each pixel of the input, with the cut at the upper left in both.
    apart = torch.cat([after, before.flip(2, 3)]).abs().amax((0, 1))
    apart = functional.max_pool2d(apart[None], scale)[0] * 255
    reach = min(apart.shape) - CONTEXT // 2  # what lies beyond must still be something
    left = [float(apart[radius:, radius:].max()) for radius in range(0, reach, step)]
    found = next((at for at, error in enumerate(left) if error <= HALF_LEVEL), len(left) - 1)
    return found * step, left[found]


def _photographs() -> Tensor:
    """A face before a flag, and a printed page: a Tensor (2, 3, 160, 160)."""
    from skimage import data

    face = torch.from_numpy(data.astronaut()[20 : 20 + PROBE, 140 : 140 + PROBE])
    page = torch.from_numpy(data.page()[:PROBE, :PROBE, None]).expand(-1, -1, 3)
    return torch.stack([face, page]).permute(0, 3, 1, 2).float() / 255
