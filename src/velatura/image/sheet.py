"""Several pictures that were made at once: as one sheet, and as numbered files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velatura.image.encode import check_output, save_image
from velatura.image.memory import to_pil
from velatura.image.picture import Picture

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Sheet", "side_by_side"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sheet:
    """Pictures of one size, made at once.

    Attributes
    ----------
    pictures : tuple of Picture
        8 bits, RGB or grey.
    made_by : str
        Name of the trained model whose work they are.
    inputs : tuple of Path
        Files that were read for them; these are never replaced.
    columns : int or None
        Of the sheet; None makes it as square as can be.
    """

    pictures: tuple[Picture, ...]
    made_by: str
    inputs: tuple[Path, ...] = ()
    columns: int | None = None

    @property
    def images(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [to_pil(picture) for picture in self.pictures]

    @property
    def grid(self) -> Picture:
        """All pictures on one sheet: see `side_by_side`."""
        return side_by_side(self.pictures, self.columns)

    def save(self, folder: str | Path, *, overwrite: bool = False, mark: bool = True) -> list[Path]:
        """Write each picture as a PNG, ``0000.png`` and so on, into a folder that is made if need be.

        Raises
        ------
        InputError
            A file exists, and ``overwrite`` is False; or it is one of the inputs. Nothing is written then.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{i:04d}.png" for i in range(len(self.pictures))]
        for path in paths:
            check_output(path, inputs=self.inputs, overwrite=overwrite)
        made_by = self.made_by if mark else None
        return [
            save_image(picture, path, overwrite=overwrite, made_by=made_by)
            for picture, path in zip(self.pictures, paths, strict=True)
        ]

    def save_grid(self, path: str | Path, *, overwrite: bool = False, mark: bool = True) -> Path:
        """Write all pictures as one file; see `grid` and `save`."""
        check_output(path, inputs=self.inputs, overwrite=overwrite)
        return save_image(self.grid, path, overwrite=overwrite, made_by=self.made_by if mark else None)


def side_by_side(pictures: Sequence[Picture], columns: int | None = None) -> Picture:
    """Lay pictures on one sheet, row by row, as square as can be if no number of columns is given.

    Parameters
    ----------
    pictures : sequence of Picture
        At least one; all of one size, one dtype and as many channels. Alpha and profiles are left out.
    columns : int, optional

    Returns
    -------
    Picture
        Black where there is none.

    Examples
    --------
    >>> cells = [Picture(np.full((2, 3, 1), level, np.uint8)) for level in (9, 8, 7)]
    >>> side_by_side(cells).pixels[..., 0].tolist()
    [[9, 9, 9, 8, 8, 8], [9, 9, 9, 8, 8, 8], [7, 7, 7, 0, 0, 0], [7, 7, 7, 0, 0, 0]]
    >>> side_by_side(cells, 3).pixels.shape
    (2, 9, 1)
    """
    across = columns or math.ceil(math.sqrt(len(pictures)))
    height, width, channels = pictures[0].pixels.shape
    sheet = np.zeros((-(-len(pictures) // across) * height, across * width, channels), pictures[0].pixels.dtype)
    for i, picture in enumerate(pictures):
        top, left = i // across * height, i % across * width
        sheet[top : top + height, left : left + width] = picture.pixels
    return Picture(sheet)
