import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from velatura.errors import InputError
from velatura.restoration import Detector
from velatura.training import recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import scratches

SMALL = ["widths=[4, 6]", "blocks=[1, 1]", "batch_size=4", "patch=32", "threads=1", "log_every=1", "warmup=0"]


@pytest.fixture
def recipe(photographs, monkeypatch):
    monkeypatch.setattr(scratches, "QUICK", (2, 64))
    monkeypatch.setattr(scratches, "ALL", (2, 64))
    settings = [*SMALL, f"photographs={photographs}", "steps=40", "learning_rate=1e-2", "held_out_every=40", "ema=0"]
    return scratches.TrainScratches(make_config(scratches.ScratchesConfig, settings=settings))


def test_f1_and_precision_against_counting():
    rng = np.random.default_rng(0)
    truth, made = (rng.random(500) < 0.2).astype(float), rng.random(500).round(2)
    made += 0.3 * truth
    for threshold in (0.3, 0.7):
        hit = sum(1 for t, m in zip(truth, made, strict=True) if t and m > threshold)
        precision = hit / sum(m > threshold for m in made)
        recall = hit / truth.sum()
        expected = 2 * precision * recall / (precision + recall)
        assert scratches.f1(truth, made, threshold) == pytest.approx(expected)
    best = scratches.best_threshold(truth, made)
    assert scratches.f1(truth, made, best) >= max(scratches.f1(truth, made, t) for t in (0.2, 0.5, 0.9))
    assert scratches.average_precision(truth, truth) == 1
    assert scratches.average_precision(truth, rng.random(500)) == pytest.approx(truth.mean(), abs=0.1)


def test_dice_is_zero_for_the_truth_and_pools_the_batch():
    mask = (torch.rand(3, 1, 8, 8) < 0.3).float()
    assert float(scratches.dice(60 * mask - 30, mask)) == pytest.approx(0, abs=1e-5)
    p = torch.from_numpy(expit(np.ones(mask.shape)))
    expected = 1 - 2 * (p * mask).sum() / ((p**2).sum() + mask.sum())
    assert float(scratches.dice(torch.ones_like(mask), mask)) == pytest.approx(float(expected), rel=1e-4)


def test_a_top_hat_finds_lines_of_both_kinds():
    image = np.full((40, 40, 3), 0.5, np.float32)
    image[:, 10], image[:, 30], image[20:, 15:26] = 1, 0, 0.9
    found = scratches.top_hat(image)
    assert found[5, 10] == pytest.approx(0.5)
    assert found[5, 30] == pytest.approx(0.5)
    assert found[32, 20] == 0  # too wide for a line


def test_it_learns_what_is_damaged(recipe, tmp_path):
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    assert set(np.unique(batch[1])) == {0, 1}
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train/entropy"]) < 0.8 * float(rows[1]["train/entropy"])
    assert {"held_out/f1", "held_out/f1_unseen", "held_out/false_marks"} <= set(rows[0])
    measured, network, _ = recipes.load_run(tmp_path)
    scores = measured.evaluate(network)
    assert "at" in measured.table(scores)
    assert set(scores["rows"]) == {"ours", "top-hat"}
    assert measured.sheet(network).shape == (3 * 64, 6 * 64, 3)


def test_only_the_ends_are_left_to_adam(recipe):
    recipe.config = recipe.config.model_copy(update={"matrix_rate": 0.01})
    net = recipe.networks["detector"]
    matrices = {id(p) for p in recipe.optimizers()["detector"].param_groups[0]["params"]}
    left = {name for name, p in net.named_parameters() if p.ndim > 1 and id(p) not in matrices}
    assert left == {"unet.enter.weight", "unet.leave.weight"}


class Bright(nn.Module):
    """A detector that takes light for damage."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image):
        return self.scale * (image.mean(1, keepdim=True) - 0.7)


def test_hard_patches_are_those_that_a_detector_mistakes(recipe, monkeypatch):
    update = {"hard": 1.0, "start": "bright", "tried": 200}
    hard = scratches.TrainScratches(recipe.config.model_copy(update=update))
    monkeypatch.setattr(scratches, "load_detector", lambda name, device: Detector(Bright(), 0.5))
    rng = np.random.default_rng(0)
    usual = np.mean([hard.grounds.draw(rng).mean() for _ in range(200)])
    assert len(hard.mistaken) == 20
    assert np.mean(hard.mistaken) > usual + 15
    undamaged = [hard._scan(np.random.default_rng(i)).mask.max() == 0 for i in range(60)]
    assert 0.2 < np.mean(undamaged) < 0.8
    once, again = (hard.batch(3, 0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_hard_patches_need_a_detector():
    with pytest.raises(InputError, match="set start"):
        make_config(scratches.ScratchesConfig, settings=["hard=0.2"])


def test_settings_fit():
    config = make_config(scratches.ScratchesConfig, Path(scratches.__file__).with_name("scratches.toml"))
    assert config.unseen == ("cracks",)
    assert sum(p.numel() for p in scratches.TrainScratches(config).networks["detector"].parameters()) < 1e6
