"""Sentences and pictures of the two sets, and of a user's folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_folder import crop

from velatura.errors import InputError
from velatura.training import captions, data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of each of a class that is trained on (c002) and of one that is not (c065)."""
    place = tmp_path_factory.mktemp("data")
    told = {}
    with zipfile.ZipFile(place / "flowers80.zip", "w") as archive:
        for seed in range(24):
            name = f"c0{'02' if seed < 12 else '65'}/image_{seed:05d}.png"
            archive.writestr(name, crop(seed))
            told[name] = {"class": "?", "colors": ["red"] if seed % 2 else ["white", "pink"], "captions": []}
        archive.writestr("captions_auto.json", json.dumps(told))
    return place


def test_classes_are_disjoint_and_photographs_of_seen_ones_too(folder: Path):
    train, unseen = captions.read_flowers(folder, "train"), captions.read_flowers(folder, "unseen")
    assert {name[:4] for name in train.names} == {"c002"}
    assert {name[:4] for name in unseen.names} == {"c065"}
    assert len(unseen) == 12
    assert not any(data.held_out("flowers80", name.removesuffix(".png")) for name in train.names)
    assert len(set(train.descriptions)) == 2
    assert train.kinds.tolist() == [train.kinds[0]] * len(train)


def test_twenty_of_ninety_classes_are_never_trained_on():
    held = [kind for kind in captions._classes() if data.held_out("flower_classes", kind)]
    assert (len(captions._classes()), len(held)) == (90, 20)


def test_sentences_name_the_first_color_mostly_and_depend_on_the_name_alone(folder: Path):
    first, again = captions.read_flowers(folder, "unseen"), captions.read_flowers(folder, "unseen")
    assert first.captions == again.captions
    for said, colors in zip(first.captions, first.colors, strict=True):
        assert len(said) == captions.SENTENCES
        assert all(colors[0] in line.split() for line in said)


def test_pictures_are_cut_at_random_or_whole(folder: Path):
    train = captions.read_flowers(folder, "train")
    whole = train.pictures([0, 1], 64)
    assert whole.shape == (2, 3, 64, 64)
    assert 0 <= whole.min() < whole.max() <= 1
    cut = [train.pictures([0], 64, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert cut[0].equal(cut[1])
    assert not cut[0].equal(cut[2])


@pytest.mark.parametrize("seed", range(8))
def test_another_color(seed: int):
    said = captions.recolored("a red and white flower", np.random.default_rng(seed))
    assert said is not None
    assert "red" not in said
    assert said.endswith(" and white flower")
    assert said.startswith("an orange" if "orange" in said else "a ")
    assert captions.recolored("a flower with many petals", np.random.default_rng(seed)) is None


def test_a_folder_as_cub(tmp_path: Path):
    for number, kind in enumerate(("001.a", "002.b")):
        for place in (tmp_path / "images" / kind, tmp_path / "text_c10" / kind):
            place.mkdir(parents=True)
        (tmp_path / "images" / kind / f"bird_{number}.png").write_bytes(crop(number))
        (tmp_path / "text_c10" / kind / f"bird_{number}.txt").write_text("a bird.\n\nthis bird is red\n")
    (tmp_path / "testclasses.txt").write_text("001.a\n")
    train, held = captions.read_captioned(tmp_path, "train"), captions.read_captioned(tmp_path, "unseen")
    assert (train.names, held.names) == (("bird_1",), ("bird_0",))
    assert train.captions == (("a bird.", "this bird is red"),)
    assert train.images.shape == (1, 80, 80, 3)


def test_a_folder_as_coco(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    images = [{"id": 10 * i, "file_name": f"p{i:02d}.png"} for i in range(20)]
    notes = [{"image_id": 10 * i, "caption": f"picture {i} {k}"} for i in range(20) for k in range(2)]
    (tmp_path / "annotations" / "captions_x.json").write_text(json.dumps({"images": images, "annotations": notes}))
    for i in (0, 19):
        (tmp_path / f"p{i:02d}.png").write_bytes(crop(i))
    assert captions.read_captioned(tmp_path, "train").captions == (("picture 0 0", "picture 0 1"),)
    assert captions.read_captioned(tmp_path, "unseen").names == ("p19",)


def test_a_folder_without_captions(tmp_path: Path):
    with pytest.raises(InputError, match="text_c10"):
        captions.read_captioned(tmp_path, "train")
