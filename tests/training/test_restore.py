import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from velatura.nets.restoration import Restorer
from velatura.restoration import Detector
from velatura.training import export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import old_scans, restore

SMALL = ["widths=[4, 6]", "blocks=[1, 1]", "batch_size=4", "patch=32", "threads=1", "log_every=1", "warmup=0"]


@pytest.fixture
def recipe(photographs, monkeypatch):
    monkeypatch.setattr(restore, "QUICK", (2, 64))
    monkeypatch.setattr(restore, "ALL", (2, 64))
    more = ["steps=40", "learning_rate=5e-3", "held_out_every=40", "ema=0", "clean=0"]
    settings = [*SMALL, f"photographs={photographs}", *more]
    return restore.TrainRestore(make_config(restore.RestoreConfig, settings=settings))


def test_the_target_is_the_photograph_with_its_fading(recipe):
    image, mask, target, found = recipe.batch(3, 0)
    assert image.shape == target.shape == (4, 3, 32, 32)
    assert mask.shape == (4, 1, 32, 32)
    assert not found.any()  # nobody is there to draw them
    rng = np.random.default_rng((recipe.config.seed, 3, 0))
    scans = [recipe.grounds.scan(rng) for _ in range(4)]
    torch.testing.assert_close(target, old_scans.stacked([scan.faded for scan in scans]))
    for one, two in zip(recipe.batch(3, 0), (image, mask, target, found), strict=True):
        assert torch.equal(one, two)


def test_it_learns_to_restore(recipe, tmp_path):
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("unstructured", "lines", "areas"):
        assert rows[0][f"held_out/{kind}"] == rows[0][f"held_out/{kind}_input"]  # it begins with the scan
    assert float(rows[0]["held_out/clean_ssim"]) == 1
    assert float(rows[-1]["train/pixel"]) < 0.95 * float(rows[1]["train/pixel"])
    export.export_run(tmp_path, tmp_path / "restore.safetensors", metrics={})
    measured, network, _ = recipes.load_run(tmp_path)
    assert measured.sheet(network).shape == (3 * 64, 6 * 64, 3)


def test_content_joins_the_loss(recipe, tmp_path):
    recipe.config = recipe.config.model_copy(update={"steps": 1, "content": {"stride2": 0.1}})
    train(recipe, tmp_path, quiet=True)
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert "train/content" in header


class Everything(nn.Module):
    """Marks every pixel that is not black."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1e4))

    def forward(self, image):
        return self.scale * (image.amax(1, keepdim=True) - 1e-3)


def test_a_detector_draws_some_masks(recipe, tmp_path):
    recipe.config = recipe.config.model_copy(
        update={"steps": 1, "batch_size": 12, "detector": "scratch-detector", "found": 0.5}
    )
    recipe.detector = Detector(Everything(), 0.5)
    given = []
    recipe.networks["restorer"].register_forward_pre_hook(lambda net, values: given.append(values))
    train(recipe, tmp_path, quiet=True)
    image, careless, _, found = recipe.batch(0, 0)
    assert found.any()
    assert not found.all()
    (mask,) = [made[1] for made in given if torch.equal(made[0], image)]
    torch.testing.assert_close(mask[~found], careless[~found])
    assert mask[found].mean() > 0.9 > careless[found].mean()
    header, first, *_ = (tmp_path / "log.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["held_out/lines_found"] == row["held_out/lines_input"]


def test_scans_gain_nothing_by_themselves(recipe):
    """The untrained network gives the scan: gains are zero, and nothing happens to clean photographs."""
    scores = recipe.evaluate(Restorer((4, 6), (1, 1)))
    rows = scores["rows"]
    assert set(rows) == set(old_scans.KINDS)
    assert rows["lines"]["gain"]["psnr"] == [0, 0, 0]
    assert rows["lines"]["scan"]["psnr"][0] < 35
    assert rows["clean"]["ours"]["ssim"][0] == pytest.approx(1)
    assert rows["clean"]["ours"]["shift"][0] < 0.5
    assert "faded" in recipe.table(scores)


def test_settings_fit():
    config = make_config(restore.RestoreConfig, Path(restore.__file__).with_name("restore.toml"))
    recipe = restore.TrainRestore(config)
    assert recipe.arguments == {"widths": [32, 48, 96, 128], "blocks": [1, 1, 2, 3]}
