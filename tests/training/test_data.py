import shutil
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from velatura.errors import InputError
from velatura.training import data


def stems(images):
    return {PurePosixPath(name).stem for name in images.names}


def test_images_are_decoded_into_one_array(data_folder):
    images = data.read_set(data_folder, "scenes96", "both")
    assert len(images) == 30
    assert images.pixels.dtype == np.uint8
    with zipfile.ZipFile(data_folder / "scenes96.zip") as archive:
        for i in (0, 17, 29):
            path = images.names[i].removeprefix("scenes96/")
            np.testing.assert_array_equal(images[i], np.asarray(Image.open(archive.open(path))))


def test_a_folder_does_as_well_as_a_zip(data_folder, tmp_path):
    with zipfile.ZipFile(data_folder / "scenes96.zip") as archive:
        archive.extractall(tmp_path / "scenes96")
    for side in ("train", "held-out"):
        zipped, plain = data.read_set(data_folder, "scenes96", side), data.read_set(tmp_path, "scenes96", side)
        assert zipped.names == plain.names
        np.testing.assert_array_equal(zipped.pixels, plain.pixels)


def test_shortest_shrinks_and_mode_converts(data_folder):
    images = data.read_set(data_folder, "scenes96", "both", mode="L", shortest=40)
    assert images.shapes.tolist() == [[40, 40, 1]] * 30


def test_sides_share_nothing(data_folder):
    for name in ("scenes96", "faces128", "sr_hr_patches"):
        train, held = (data.read_set(data_folder, name, side) for side in ("train", "held-out"))
        assert not set(train.names) & set(held.names)
        assert len(train) + len(held) == len(data.read_set(data_folder, name, "both"))


def test_a_face_is_on_one_side_in_both_sets(data_folder):
    small = {side: stems(data.read_set(data_folder, "faces128", side)) for side in ("train", "held-out")}
    large = stems(data.read_set(data_folder, "faces256", "both"))
    assert large & small["held-out"]  # else this would test nothing
    assert stems(data.read_set(data_folder, "faces256", "held-out")) == large & small["held-out"]
    assert stems(data.read_set(data_folder, "faces256", "train")) == large & small["train"]


def test_a_person_and_a_photograph_are_on_one_side(data_folder):
    for name in ("faces128", "sr_hr_patches"):
        held = {int(stem.strip("bio_p")) // 2 for stem in stems(data.read_set(data_folder, name, "held-out"))}
        train = {int(stem.strip("bio_p")) // 2 for stem in stems(data.read_set(data_folder, name, "train"))}
        assert held
        assert not held & train


def test_the_test_part_of_bsds_is_never_read(data_folder):
    names = data.read_set(data_folder, "sr_t91_bsds400", "both").names
    assert names
    assert not any("val" in name for name in names)


def test_read_folder(data_folder, tmp_path):
    with zipfile.ZipFile(data_folder / "scenes96.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    images = data.read_folder(tmp_path, shortest=20)
    assert len(images) == 30
    both = data.concatenate(images, data.read_folder(tmp_path))
    assert len(both) == 60
    assert both[59].shape == (80, 80, 3)
    np.testing.assert_array_equal(both[3], images[3])


def test_refusals_say_what_to_do(data_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("VELATURA_DATA", raising=False)
    with pytest.raises(InputError, match="--set data=DIR"):
        data.data_folder(None)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        data.data_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"neither flowers80\.zip nor flowers80/"):
        data.read_set(data_folder, "flowers80")
    with pytest.raises(InputError, match="no split; known: faces128"):
        data.read_set(data_folder, "imagenet")
    with pytest.raises(InputError, match="no images"):
        data.read_set(data_folder, "scenes96", under="desert/")
    shutil.copy(__file__, tmp_path / "broken.png")
    with pytest.raises(InputError, match=r"broken\.png cannot be decoded"):
        data.read_folder(tmp_path)


def test_the_environment_names_the_folder(data_folder, monkeypatch):
    monkeypatch.setenv("VELATURA_DATA", str(data_folder))
    assert data.data_folder(None) == data_folder


@pytest.mark.training
def test_the_real_splits(real_data):
    """As many held out as `splits.toml` says, and nobody on both sides."""
    small = {side: data.read_set(real_data, "faces128", side, shortest=8) for side in ("train", "held-out")}
    large = {side: data.read_set(real_data, "faces256", side, shortest=8) for side in ("train", "held-out")}
    assert not (stems(small["train"]) | stems(large["train"])) & (stems(small["held-out"]) | stems(large["held-out"]))
    assert stems(large["held-out"]) <= stems(small["held-out"])
    assert 0.06 < len(small["held-out"]) / 6478 < 0.1
    scenes = data.read_set(real_data, "scenes96", "held-out", shortest=8)
    assert 0.06 < len(scenes) / 3200 < 0.1
    # The split is part of what a model's figures mean: it must not drift.
    assert (len(small["held-out"]), len(scenes)) == (564, 243)
