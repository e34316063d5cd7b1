import numpy as np
import pytest
import torch

from velatura.errors import InputError
from velatura.ops.damage import Worn
from velatura.ops.degrade import UNFADED
from velatura.training import data
from velatura.training.recipe import make_config
from velatura.training.recipes import old_scans
from velatura.training.recipes.old_scans import KINDS, Grounds, ScansConfig


@pytest.fixture
def config(photographs):
    return make_config(ScansConfig, settings=["patch=32", f"photographs={photographs}"])


def test_a_patch_is_a_function_of_the_generator(config):
    grounds = Grounds(config, "train")
    one, two = (grounds.scan(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    assert one.image.shape == (32, 32, 3)
    assert one.mask.shape == (32, 32)


def test_held_out_photographs_are_never_trained_on(config):
    train, held = ({image.tobytes() for _, images in Grounds(config, side).sets for image in images} for side in SIDES)
    assert len(train) == 38
    assert len(held) == 2
    assert not train & held


SIDES = ("train", "held-out")


def test_our_sets_keep_to_the_upscalers_split(data_folder, monkeypatch):
    """A chain of both is measured on photographs that neither saw."""
    monkeypatch.setattr(old_scans, "SETS", ((0.5, "sr_t91_bsds400", ""), (0.5, "faces128", "gray/")))
    config = make_config(ScansConfig, settings=["patch=32", f"data={data_folder}"])
    train = {name for _, images in Grounds(config, "train")._read("train") for name in images.names}
    for name in ("sr_t91_bsds400", "sr_hr_patches"):
        assert not train & set(data.read_set(data_folder, name, "held-out", purpose="upscale").names)
    assert any(name.startswith("sr_t91") for name in train)
    assert Grounds(config, "held-out").sets


def test_sets_that_are_too_small_are_left_out(photographs):
    small, large = (data.read_folder(photographs, shortest=side) for side in (40, 80))
    assert old_scans.large_enough([(0.5, small), (0.5, large)], 64) == [(0.5, large)]
    assert len(old_scans.large_enough([(0.5, small), (0.5, large)], 96)) == 2  # drawing says what is wrong


def test_clean_patches_are_left_alone(config):
    clean = config.model_copy(update={"clean": 1.0})
    for seed in range(6):
        scan = Grounds(clean, "train").scan(np.random.default_rng(seed))
        np.testing.assert_allclose(scan.image, scan.faded, atol=0.5 / 255 + 1e-6)
        assert not scan.mask.any()


def test_unseen_families_are_not_drawn(config):
    assert old_scans.seen(config) == tuple(name for name in old_scans.FAMILIES if name != "cracks")
    assert "dust" not in old_scans.seen(config.model_copy(update={"unseen": ("dust",)}))
    with pytest.raises(InputError, match="unknown family 'rust'"):
        make_config(ScansConfig, settings=['unseen=["rust"]'])


def test_some_prints_are_far_more_damaged(config):
    image, share = np.full((96, 96, 3), 128, np.uint8), {}
    for heavy in (0.0, 1.0):
        settings = config.model_copy(update={"clean": 0.0, "heavy": heavy})
        share[heavy] = [old_scans.wear_one(settings, image, np.random.default_rng(i)).mask.mean() for i in range(40)]
    assert np.mean(share[1.0]) > 1.5 * np.mean(share[0.0])
    assert np.quantile(share[1.0], 0.9) > 1.5 * np.quantile(share[0.0], 0.9)


def test_patches_of_reduced_photographs_show_more_of_them(photographs):
    config = make_config(ScansConfig, settings=["patch=32", f"photographs={photographs}"])
    whole, reduced = (Grounds(config.model_copy(update={"smallest": share}), "train") for share in (1.0, 0.5))
    patches = [[grounds.draw(np.random.default_rng(seed)) for seed in range(30)] for grounds in (whole, reduced)]
    assert {patch.shape for drawn in patches for patch in drawn} == {(32, 32, 3)}
    rough = [np.mean([np.abs(np.diff(patch.astype(float), axis=1)).mean() for patch in drawn]) for drawn in patches]
    assert rough[1] > 1.1 * rough[0]


def test_decoys_belong_to_the_picture(config):
    image = np.full((96, 96, 3), 128, np.uint8)
    settings = config.model_copy(update={"clean": 1.0, "decoys": 1.0})
    scans = [old_scans.wear_one(settings, image, np.random.default_rng(seed)) for seed in range(12)]
    assert not any(scan.mask.any() for scan in scans)
    assert sum(np.ptp(scan.original) > 0.1 for scan in scans) > 6
    assert all(np.abs(scan.image - scan.original).max() < 0.01 for scan in scans)


def test_the_papers_way_is_another(config):
    image = np.full((48, 48, 3), 128, np.uint8)
    rng = [np.random.default_rng(1) for _ in range(2)]
    config = config.model_copy(update={"clean": 0.0})
    paper = old_scans.wear_one(config.model_copy(update={"wear": "paper"}), image, rng[0])
    assert (paper.image != old_scans.wear_one(config, image, rng[1]).image).any()
    assert paper.mask.shape == (48, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_scans_stay_the_same(config, kind):
    once, again = (old_scans.held_out_scans(config, kind, 2, 64) for _ in range(2))
    assert len(once) == 2
    for one, two in zip(once, again, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        assert one.image.shape == (64, 64, 3)
        assert (one.image != np.rint(255 * one.faded) / np.float32(255)).any() == (kind != "clean")
        assert bool(one.mask.any()) == (kind in ("lines", "areas", "unseen"))
        assert bool(one.stained.any()) == (kind == "stains")
        assert (np.abs(one.faded - one.original).max() > 0.01) == (kind == "faded")


def test_careless_masks_are_right_half_of_the_time():
    mask, stained, image = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32), np.zeros((64, 64, 3))
    mask[20:40, 30:34], stained[50:60, :4] = 1, 1
    scan = Worn(image, mask, stained, image, image, UNFADED)
    drawn = [old_scans.careless(scan, np.random.default_rng(seed)) for seed in range(200)]
    exact = [[(one == true).all() for one in drawn] for true in (mask, scan.damage)]
    assert 0.4 < np.sum(np.mean(exact, 1)) < 0.7
    assert all(np.mean(exact, 1) > 0.15)
    assert any(one.sum() > mask.sum() for one in drawn)
    assert any(0 < one.sum() < mask.sum() for one in drawn)
    assert any(one.sum() == 0 for one in drawn)


def test_a_sheet_has_a_row_per_image():
    column = [np.full((40, 40, 3), 0.5, np.float32)] * 3
    sheet = old_scans.sheet([column, [torch.ones(3, 40, 40)] * 3], 40)
    assert sheet.shape == (80, 160, 3)
    assert sheet[0, 0, 0] == 128
    assert sheet[0, 40, 0] == 255
