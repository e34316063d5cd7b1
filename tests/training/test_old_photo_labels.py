import io
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk, polygon

from velatura import InputError
from velatura.training import old_photo_labels
from velatura.training.old_photo_labels import SIDE, draw, read_labelled

CROPS = tomllib.loads(Path(old_photo_labels.__file__).with_suffix(".toml").read_text("utf-8"))["crop"]


def write_set(folder, names):
    """Photographs whose red and green say where they are."""
    folder.mkdir()
    place = np.indices((512, 512)) // 2
    picture = Image.fromarray(np.stack([place[1], place[0], place[0] * 0], -1).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    with zipfile.ZipFile(folder / "old_photos.zip", "w") as archive:
        for name in sorted(names):
            archive.writestr(name, file.getvalue())


def test_there_are_thirty_and_some_are_clean():
    marked = [crop for crop in CROPS if {"lines", "areas", "spots"} & set(crop)]
    assert len(CROPS) == 30
    assert 4 <= len(CROPS) - len(marked) <= 8
    assert all(set(crop) <= {"file", "place", "lines", "areas", "spots", "unsure"} for crop in CROPS)


def test_marks_lie_on_their_crops():
    for crop in CROPS:
        for kind, first in (("lines", 1), ("areas", 0), ("unsure", 0)):
            for mark in crop.get(kind, ()):
                assert len(mark[first:]) % 2 == 0
                assert min(mark[first:]) >= 0
                assert max(mark[first:]) <= SIDE, crop["file"]
        assert all(len(spot) == 3 and spot[2] < 5 for spot in crop.get("spots", ()))
        if {"lines", "areas", "spots"} & set(crop):
            mask = draw(crop)
            assert 0 < mask.mean() < 0.2
            assert mask[draw({"areas": crop.get("unsure", [])}) == 0].any(), crop["file"]  # something counts


def test_areas_and_spots_are_where_they_are_said_to_be():
    mask, truth = draw({"areas": [[10, 12, 50, 12, 50, 40, 10, 40]], "spots": [[100, 90, 8]]}), np.zeros((SIDE, SIDE))
    truth[polygon([12, 12, 39.9, 39.9], [10, 49.9, 49.9, 10])] = 1
    truth[disk((89.5, 99.5), 8)] = 1
    assert (mask != truth).sum() < 40  # along the circle


def test_crops_are_cut_where_labels_lie(tmp_path):
    write_set(tmp_path / "data", {crop["file"] for crop in CROPS})
    found = read_labelled(tmp_path / "data")
    assert [one.place for one in found] == [tuple(crop["place"]) for crop in CROPS]
    for one in found:
        assert one.image.shape == (SIDE, SIDE, 3)
        assert np.rint(255 * one.image[0, 0, :2]).tolist() == [one.place[0] // 2, one.place[1] // 2]
        assert one.mask.shape == one.counts.shape == (SIDE, SIDE)
        assert one.counts.mean() > 0.4
        assert (one.mask[one.is_area] == 1).all()
    spot = next(one for one, crop in zip(found, CROPS, strict=True) if crop["file"] == "1890sShoeShopOhio.jpg")
    assert spot.mask[45, 56]
    assert spot.counts[45, 56]
    assert not spot.counts[45, 59]  # beside the mark
    assert spot.counts[45, 60]


def test_another_set_is_refused(tmp_path):
    write_set(tmp_path / "data", {"mine.png"})
    with pytest.raises(InputError, match="old_photos holds no 1930sGeorgia"):
        read_labelled(tmp_path / "data")
