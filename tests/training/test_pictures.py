import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from velatura.errors import InputError
from velatura.training.pictures import Pictures, PicturesConfig, contact_sheet


def config(**more):
    return PicturesConfig(**({"size": 32} | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures of noise, oblong."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Slices of thirty subjects, whose grey says whose they are."""
    folder = tmp_path_factory.mktemp("brains")
    with zipfile.ZipFile(folder / "brain96.zip", "w") as archive:
        for subject in range(30):
            for z in range(2):
                file = io.BytesIO()
                Image.fromarray(np.full((96, 96), 5 * subject, np.uint8)).save(file, "PNG")
                archive.writestr(f"Group/s{subject:03d}_z{z:02d}.png", file.getvalue())
    return folder


def test_what_is_measured_is_the_middle_reduced_by_area(folder):
    held = Pictures(config(photographs=str(folder)), "held-out")
    assert held.groups[0][1].names == ("19.png", "39.png")
    original = np.asarray(Image.open(folder / "39.png"))[:, 8:72].astype(float) / 255
    expected = original.reshape(32, 2, 32, 2, 3).mean((1, 3))
    found = held.whole()
    assert found.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(found[1].permute(1, 2, 0), expected, atol=0.51 / 255)


def test_the_sides_share_no_picture(folder):
    train, held = (Pictures(config(photographs=str(folder)), side).groups[0][1].names for side in ("train", "held-out"))
    assert len(train) == 38
    assert not set(train) & set(held)


def test_some_are_spread_evenly(folder):
    train = Pictures(config(photographs=str(folder)), "train")
    assert torch.equal(train.whole(3), train.whole()[[0, 18, 37]])
    assert len(train.whole(100)) == 38


def test_brains_are_grey_and_split_by_subject(brains):
    one, two = (Pictures(config(data=str(brains), subject="brain"), side).whole() for side in ("train", "held-out"))
    assert one.shape[1:] == (1, 32, 32)
    subjects = [{round(float(image.mean() * 51)) for image in side} for side in (one, two)]
    assert len(subjects[1]) >= 1
    assert not subjects[0] & subjects[1]
    assert len(one) + len(two) == 60


def test_grey_faces_have_three_equal_channels(data_folder):
    drawn = Pictures(config(data=str(data_folder), gray_share=1), "train").draw(np.random.default_rng(0), 4)
    assert drawn.shape == (4, 3, 32, 32)
    assert len(Pictures(config(data=str(data_folder), gray_share=0), "train").groups) == 1
    both = Pictures(config(data=str(data_folder), gray_share=0.25), "train")
    assert [share for share, _ in both.groups] == [0.75, 0.25]
    assert both.groups[1][1].names[0].startswith("faces128/gray/")


def test_draws_without_changes_are_whole_pictures_or_their_mirror_images(folder):
    train = Pictures(config(photographs=str(folder)), "train")
    whole = train.whole()
    known = {image.numpy().tobytes() for image in torch.cat([whole, whole.flip(-1)])}
    drawn = train.draw(np.random.default_rng(3), 20)
    assert all(image.contiguous().numpy().tobytes() in known for image in drawn)
    assert torch.equal(drawn, train.draw(np.random.default_rng(3), 20))


@pytest.mark.parametrize("change", [{"zoom": 0.2}, {"turn": 10.0}, {"warp": 0.05}, {"light": 0.3}, {"tint": 0.3}])
def test_each_change_changes(folder, change):
    plain = Pictures(config(photographs=str(folder)), "train").draw(np.random.default_rng(3), 4)
    changed = Pictures(config(photographs=str(folder), **change), "train").draw(np.random.default_rng(3), 4)
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


def test_one_picture_is_refused(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="one picture is not enough"):
        Pictures(config(photographs=str(tmp_path)), "train")


def test_contact_sheet():
    rows = torch.rand(2, 3, 1, 4, 5)
    sheet = contact_sheet(rows, 2)
    assert sheet.shape == (16, 30, 3)
    assert sheet[8, 10, 0] == sheet[9, 11, 2] == round(255 * float(rows[1, 1, 0, 0, 0]))
