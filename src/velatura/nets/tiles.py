"""A whole image through a network that cannot take it in bands: tiles with a halo."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from velatura.errors import MachineError
from velatura.nets.rows import lacks_memory
from velatura.tiling import tiles

__all__ = ["in_tiles"]

LEAST = 16  # pixels: no smaller tile helps


def in_tiles(
    network: nn.Module, read: Callable[[int, int], Tensor], height: int, width: int, side: int, halo: int
) -> Iterator[Tensor]:
    """Enlarge an image in tiles, and give its rows.

    Parameters
    ----------
    network : nn.Module
        From (1, C, h, w) to (1, C', scale h, scale w), with `scale` and, if tiles must begin at multiples of a number
        of pixels, `multiple`.
    read : callable
        Rows ``start`` to ``stop`` of the image: a Tensor (1, C, stop - start, width).
    height, width : int
        Of the image.
    side : int
        Of a tile, without its halo; a multiple of what the network wants, as is `halo`.
    halo : int
        Pixels around a tile that the network sees; the result is that of the whole image if they are its receptive
        radius.

    Yields
    ------
    Tensor
        (1, C', h, scale width) from top to bottom.

    Raises
    ------
    MachineError
        Not even a small tile fits into memory; others are halved where they do not, with a warning.
    """
    scale: int = network.scale  # pyright: ignore[reportAssignmentType]
    multiple = int(getattr(network, "multiple", 1))
    least = -(-LEAST // multiple) * multiple
    top = 0
    while top < height:
        try:
            row = [one for one in tiles(height - top, width, side, halo) if one.inner_rows[0] == 0]
            bottom = top + row[0].inner_rows[1]
            start = max(top - halo, 0)
            window = read(start, min(bottom + halo, height))
            parts = []
            for tile in row:
                enlarged = network(window[..., slice(*tile.outer_cols)])
                left = (tile.inner_cols[0] - tile.outer_cols[0]) * scale
                columns = slice(left, left + (tile.inner_cols[1] - tile.inner_cols[0]) * scale)
                parts.append(enlarged[:, :, (top - start) * scale : (bottom - start) * scale, columns])
            done = torch.cat(parts, 3)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            if side <= least:
                raise MachineError("out of memory, even for the smallest tile; close other programs") from None
            side = max(side // 2 // multiple * multiple, least)
            warnings.warn(f"out of memory: going on with tiles of {side} pixels", RuntimeWarning, stacklevel=2)
            continue
        yield done
        top = bottom
