import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, deltaE_ciede94, rgb2lab

from velatura.nets.fading import FadingEstimator
from velatura.ops.degrade import fade, random_fading, unfade
from velatura.ops.fading import to_numbers
from velatura.training import export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import fading

SMALL = ["width=16", "batch_size=8", "points=64", "threads=1", "log_every=10", "warmup=0", "ema=0", "clean=0.5"]


@pytest.fixture
def recipe(photographs):
    settings = [*SMALL, f"photographs={photographs}", "steps=60", "learning_rate=5e-3", "held_out_every=60"]
    return fading.TrainFading(make_config(fading.FadingConfig, settings=settings))


def test_colours_against_scikit_image():
    colours = np.random.default_rng(0).random((2, 50, 3))
    a, b = (rgb2lab(one) for one in colours)
    found = fading.lab(torch.from_numpy(colours[0])).numpy()
    assert deltaE_cie76(found, a).max() < 0.05
    made, true = torch.from_numpy(colours)
    # The formula takes one of the two colours as the standard.
    np.testing.assert_allclose(fading.difference(made, true).numpy(), deltaE_ciede94(b, a), rtol=0.01, atol=0.05)


def test_undoing_is_that_of_ops():
    rng = np.random.default_rng(1)
    worn = random_fading(rng)
    image = fade(rng.random((4, 5, 3)).astype(np.float32), worn)
    numbers = torch.from_numpy(to_numbers(worn))[None]
    made = fading.undo(torch.from_numpy(image.reshape(1, -1, 3)), numbers).clamp(0, 1)
    np.testing.assert_allclose(made[0].numpy().reshape(image.shape), unfade(image, worn), atol=1e-3)


def test_batches_are_of_their_step_alone(recipe):
    told, faded, true, clean = recipe.batch(3, 0)
    assert faded.shape == true.shape == (8, 64, 3)
    assert told.shape[0] == clean.shape[0] == 8
    for one, two in zip(recipe.batch(3, 0), (told, faded, true, clean), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(recipe.batch(4, 0)[1], faded)
    apart = (faded - true).abs().mean((1, 2))
    assert apart[clean == 0].mean() > 3 * apart[clean == 1].mean()


def test_it_learns_to_tell(recipe, tmp_path):
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train/faded"]) < 0.7 * float(rows[1]["train/faded"])
    _, network, _ = recipes.load_run(tmp_path)
    assert network.deviation.max() < 1  # of the statistics that it saw
    export.export_run(tmp_path, tmp_path / "fading.safetensors", metrics={})


def test_an_untrained_one_changes_little(recipe, monkeypatch):
    monkeypatch.setattr(recipe, "held", recipe.held[:2])
    network = FadingEstimator(16)
    with torch.no_grad():
        network.layers[-1].bias[10] = -9  # the gate
    scores = recipe.evaluate(network)
    for kind in ("faded", "grey", "tone"):
        assert scores["rows"][kind]["ours"] == scores["rows"][kind]["input"]
        assert set(scores["rows"][kind]) == {"input", "ours", *fading.BASELINES}
    assert scores["ratio"] == 1
    assert scores["clean"] == [0, 0, 0]
    assert scores["changed"] == 0
    assert "grey world" in recipe.table(scores)
    assert recipe.sheet(network).shape[2] == 3


def test_settings_fit():
    config = make_config(fading.FadingConfig, Path(fading.__file__).with_name("fading.toml"))
    assert fading.TrainFading(config).arguments == {"width": 128, "dropout": 0.05}
