"""Several pictures as one sheet and as numbered files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from velatura import InputError
from velatura.image import Picture, Sheet, side_by_side


def cells(count: int, channels: int = 3) -> tuple[Picture, ...]:
    rng = np.random.default_rng(count)
    return tuple(Picture(rng.integers(1, 256, (4, 6, channels), np.uint8)) for _ in range(count))


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, None, (4, 6)), (5, None, (8, 18)), (5, 5, (4, 30)), (4, 3, (8, 18))]
)
def test_every_cell_is_a_picture_or_black(count: int, columns: int | None, shape: tuple[int, int]):
    pictures = cells(count)
    sheet = side_by_side(pictures, columns).pixels
    assert sheet.shape == (*shape, 3)
    found = sheet.reshape(shape[0] // 4, 4, shape[1] // 6, 6, 3).swapaxes(1, 2).reshape(-1, 4, 6, 3)
    assert all(np.array_equal(cell, picture.pixels) for cell, picture in zip(found, pictures, strict=False))
    assert not found[count:].any()


def test_numbered_files(tmp_path: Path):
    sheet = Sheet(pictures=cells(3, 1), made_by="someone")
    paths = sheet.save(tmp_path / "new")
    assert [path.name for path in paths] == ["0000.png", "0001.png", "0002.png"]
    assert all(
        np.array_equal(np.asarray(Image.open(path)), np.asarray(image))
        for path, image in zip(paths, sheet.images, strict=True)
    )
    assert b"someone" in paths[0].read_bytes()
    assert b"someone" not in sheet.save_grid(tmp_path / "grid.png", mark=False).read_bytes()
    with pytest.raises(InputError, match="exists"):
        sheet.save(tmp_path / "new")
    assert sheet.save(tmp_path / "new", overwrite=True) == paths


def test_an_input_is_never_replaced_and_nothing_is_written_then(tmp_path: Path):
    own = tmp_path / "0001.png"
    Image.new("RGB", (6, 4)).save(own)
    before = own.read_bytes()
    sheet = Sheet(pictures=cells(2), made_by="someone", inputs=(own,))
    for write in (lambda: sheet.save(tmp_path, overwrite=True), lambda: sheet.save_grid(own, overwrite=True)):
        with pytest.raises(InputError, match="input"):
            write()
    assert own.read_bytes() == before
    assert not (tmp_path / "0000.png").exists()
