"""One forward for a whole image and for bands of its rows.

A convolution needs a few rows above and below; everything else in these networks looks at one place. So a picture may
pass through a whole network in bands from top to bottom, each layer keeping the few rows that its next band needs.
Nothing is computed twice, as tiles with a halo do, the result is that of the whole image, and memory grows with the
width of the image alone. A network that can do this takes its layers through `Rows`::

    def forward(self, image, rows=WHOLE):
        x = rows(self.convolution, image)       # as self.convolution(image)
        return rows.add(self, image, x)         # as image + x, although x may be some rows behind

and `WHOLE` is what it is while the image comes in one piece.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.errors import MachineError

__all__ = ["WHOLE", "Bands", "Rows", "Stencil", "in_bands", "lacks_memory", "takes_rows"]

LEAST = 2  # rows of the first band: what a mirrored border needs


class Rows:
    """The whole image in one piece: layers are called as they are."""

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """Apply a layer, or the layers of an `nn.Sequential`, to (N, C, H, W)."""
        return module(x)

    def match(self, key: Any, x: Tensor, like: Tensor) -> Tensor:
        """Give the rows of ``x`` that belong to those of ``like``, which was made from it; ``key`` names the place."""
        return x

    def add(self, key: Any, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``, where ``y`` was made from ``x``."""
        return self.match(key, x, y) + y

    def in_parts(self, layers: Callable[[Tensor, Rows], Tensor], x: Tensor) -> Tensor:
        """Apply layers that enlarge, ``layers(x, rows)``, to few rows at a time: the last band brings many at once."""
        return layers(x, self)


#: The whole image in one piece.
WHOLE = Rows()


@runtime_checkable
class Stencil(Protocol):
    """A layer of one's own that looks at rows above and below.

    Attributes
    ----------
    reach : int
        How many on each side.
    border : {"zeros", "replicate", "symmetric"}
        What it takes for rows beyond the image; ``symmetric`` doubles the last one.
    """

    reach: int
    border: str

    def inside(self, x: Tensor) -> Tensor:
        """Apply it where all rows are there: ``2 reach`` fewer come out, but for a factor of enlargement."""
        ...


class Bands(Rows):
    """An image that comes in bands of rows, from top to bottom; for inference.

    Within one forward a layer and a key may be used once. Convolutions must keep the size of what they see.

    Attributes
    ----------
    last : bool
        Whether the band that goes in ends with the last row of the image; to be set before.
    most : int
        Rows of one part of `in_parts`.
    """

    def __init__(self, most: int = 16) -> None:
        self.last = False
        self.most = most
        self._kept: dict[Any, Tensor] = {}  # rows from the end of the band before, by layer or key

    def state(self) -> dict[Any, Tensor]:
        """Give what is kept, for `restore`."""
        return dict(self._kept)

    def restore(self, state: dict[Any, Tensor]) -> None:
        """Go back to where `state` was taken."""
        self._kept = dict(state)

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """Apply a layer to the next rows; what comes out is as many rows behind as the layer reaches down."""
        if isinstance(module, nn.Sequential):
            for layer in module:
                x = self(layer, x)
            return x
        # In half precision nothing but the convolutions rounds.
        dtype = module.weight.dtype if isinstance(module, nn.Conv2d) else x.dtype
        reach, border = _reach(module)
        before = self._kept.pop(module, None)
        if before is None and not x.shape[2]:
            return _nothing(module, x.to(dtype))
        if not reach or (self.last and before is None):
            return module(x.to(dtype))
        if before is None:
            before = _beyond(x[:, :, :reach], reach, border)
        parts = [before, x]
        if self.last:
            end = x if x.shape[2] >= reach else _stacked(parts, dtype)
            parts.append(_beyond(end[:, :, -reach:].flip(2), reach, border).flip(2))
        x = _stacked(parts, dtype)
        if not self.last:
            self._kept[module] = _copied(x[:, :, -2 * reach :])
        return _inside(module, x) if x.shape[2] > 2 * reach else _nothing(module, x)

    def match(self, key: Any, x: Tensor, like: Tensor) -> Tensor:
        """Give the rows of ``x`` that belong to those of ``like``, and keep the others for the next band."""
        before = self._kept.pop((key, "match"), None)
        if before is not None:
            x = _stacked([before, x], x.dtype)
        count = like.shape[2]
        if x.shape[2] > count:
            self._kept[key, "match"] = _copied(x[:, :, count:])
        return x[:, :, :count]

    def in_parts(self, layers: Callable[[Tensor, Rows], Tensor], x: Tensor) -> Tensor:
        """Apply layers to at most `most` rows at a time."""
        last, done = self.last, []
        parts = x.split(self.most, 2)
        for number, part in enumerate(parts, 1):
            self.last = last and number == len(parts)
            done.append(layers(part, self))
        self.last = last
        return done[0] if len(done) == 1 else torch.cat(done, 2)


def in_bands(network: nn.Module, bands: Iterable[tuple[Tensor, bool]]) -> Iterator[Tensor]:
    """Send an image through a network, band by band.

    Parameters
    ----------
    network : nn.Module
        Its ``forward`` takes ``rows``; all bands but the last are multiples of its ``multiple``, if it has one.
    bands : iterable of (Tensor, bool)
        (1, C, h, W) from top to bottom, the first with at least `LEAST` rows; and whether it is the last.

    Yields
    ------
    Tensor
        The rows of the result, as they are done.

    Raises
    ------
    MachineError
        Not even a band of a few rows fits into memory; others are halved where they do not, with a warning.

    Examples
    --------
    >>> from velatura.nets.srcnn import SRCNN
    >>> net, image = SRCNN().eval(), torch.rand(1, 3, 20, 8)
    >>> with torch.inference_mode():
    ...     parts = list(in_bands(net, [(image[:, :, :12], False), (image[:, :, 12:], True)]))
    ...     whole = net(image)
    >>> [part.shape[2] for part in parts], bool((torch.cat(parts, 2) - whole).abs().max() < 1e-6)
    ([32, 48], True)
    """
    rows, most, multiple = Bands(most=1), sys.maxsize, int(getattr(network, "multiple", 1))
    waiting = deque[tuple[Tensor, bool]]()
    for one in bands:
        waiting.append(one)
        while waiting:
            band, last = waiting.popleft()
            height = band.shape[2]
            if height > most:
                waiting.extendleft([(band[:, :, most:], last), (band[:, :, :most], False)])
                continue
            rows.last, rows.most, before = last, min(max(rows.most, height), most), rows.state()
            try:
                done = network(band, rows)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                most = height // 2 // multiple * multiple
                if most < LEAST:
                    raise MachineError("out of memory: the image is too wide for this network and machine") from None
                # As if it had not begun, and from here on with fewer rows.
                rows.restore(before)
                waiting.appendleft((band, last))
                warnings.warn(f"out of memory: going on with bands of {most} rows", RuntimeWarning, stacklevel=2)
                continue
            if done.shape[2]:
                yield done


def takes_rows(network: nn.Module) -> bool:
    """Whether a network's ``forward`` takes an image in bands."""
    return "rows" in inspect.signature(network.forward).parameters


def lacks_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that there was no memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _reach(module: nn.Module) -> tuple[int, str]:
    """Rows that a layer looks at above and below, and what it takes where there are none."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size[0] // 2, module.padding_mode
    if isinstance(module, Stencil):
        return module.reach, module.border
    return 0, ""


def _stacked(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Join rows, in one type and in the memory order of those in the middle."""
    n, channels, _, width = parts[1].shape
    last = parts[1].is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    size = (n, channels, sum(part.shape[2] for part in parts), width)
    joined = torch.empty(size, dtype=dtype, device=parts[1].device, memory_format=order)
    start = 0
    for part in parts:
        joined[:, :, start : start + part.shape[2]] = part
        start += part.shape[2]
    return joined


def _copied(rows: Tensor) -> Tensor:
    """Copy a few rows: a view would keep the whole band."""
    return rows.clone(memory_format=torch.preserve_format)


def _beyond(x: Tensor, reach: int, border: str) -> Tensor:
    """What stands above the image's first row, given the first rows."""
    if border == "zeros":
        return x.new_zeros(1).expand(*x.shape[:2], reach, x.shape[3])
    if border == "replicate":
        return x[:, :, :1].expand(-1, -1, reach, -1)
    if border == "symmetric":
        return x.flip(2)
    raise ValueError(f"got border {border!r}; expected zeros, replicate or symmetric")


def _nothing(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer to no row: the result has its channels and its width."""
    return module(x.new_zeros(*x.shape[:2], 1, x.shape[3]))[:, :, :0]


def _inside(module: Any, x: Tensor) -> Tensor:
    """Apply a layer to rows that hold those above and below, too."""
    if isinstance(module, nn.Conv2d):
        across = module.padding[1]
        if module.padding_mode != "zeros":
            x, across = functional.pad(x, (int(across), int(across), 0, 0), module.padding_mode), 0
        return functional.conv2d(x, module.weight, module.bias, padding=(0, across))  # type: ignore[arg-type]
    return module.inside(x)
