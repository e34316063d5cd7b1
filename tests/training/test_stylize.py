import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import crop

from velatura.nets.style_transfer import StyleTransfer
from velatura.training import data, export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import stylize

SMALL = [
    *("width=12", "outer=0", "inner=1", "batch_size=1", "sides=[64]", "threads=1", "log_every=1", "warmup=0", "ema=0"),
    *("contents={sr_t91_bsds400=1}", 'styles={"styles/misc"=1}'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs and styles, some of each held out."""
    made = tmp_path_factory.mktemp("styles")
    for name, paths in {
        "sr_t91_bsds400": [f"t91/{i}.png" for i in range(30)],
        "styles": [f"{'misc' if i % 2 else 'kaokore'}/{i}.png" for i in range(60)],
    }.items():
        with zipfile.ZipFile(made / f"{name}.zip", "w") as archive:
            for seed, path in enumerate(paths):
                archive.writestr(path, crop(seed))
    return made


@pytest.fixture
def recipe(folder, monkeypatch):
    monkeypatch.setattr(stylize, "QUICK", 2)
    monkeypatch.setattr(stylize, "ALL", 2)
    monkeypatch.setattr(stylize, "SIDE", 48)
    more = [f"data={folder}", "steps=30", "learning_rate=5e-3", "held_out_every=30"]
    return stylize.TrainStylize(make_config(stylize.StylizeConfig, settings=[*SMALL, *more]))


def test_batches_are_functions_of_the_step(recipe):
    for one, two in zip(recipe.batch(3, 0), recipe.batch(3, 0), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(recipe.batch(3, 0)[0], recipe.batch(4, 0)[0])


def test_larger_crops_come_fewer_at_a_time(recipe):
    config = recipe.config.model_copy(update={"batch_size": 8, "sides": (64, 128, 256)})
    recipe.config = config
    shapes = {tuple(recipe.batch(step, 0)[0].shape) for step in range(12)}
    assert shapes == {(32, 3, 64, 64), (8, 3, 128, 128), (2, 3, 256, 256)}


def test_some_styles_are_the_photograph_itself(recipe):
    recipe.config = recipe.config.model_copy(update={"batch_size": 8, "same": 0.5})
    content, style, same = recipe.batch(0, 0)
    assert 0 < same.sum() < len(same)
    for one, other, is_same in zip(content, style, same, strict=True):
        assert torch.equal(one.flip(2), other) == bool(is_same)


def test_held_out_images_are_never_trained_on(recipe, folder):
    held = set(data.read_set(folder, "styles", "held-out").names)
    assert held
    assert not held & {name for images in recipe.styles.values() for name in images.names}
    photographs = data.read_set(folder, "sr_t91_bsds400", "held-out", purpose="upscale")
    assert not set(photographs.names) & {name for images in recipe.contents.values() for name in images.names}
    pairs = stylize.held_out_pairs(recipe.config, 4, 32)
    assert all(torch.equal(a, b) for one, two in zip(pairs, stylize.held_out_pairs(recipe.config, 4, 32), strict=True)
               for a, b in zip(one, two, strict=True))  # fmt: skip
    assert len({float(style.sum()) for _, style in pairs}) > 1


def test_the_predictor_sees_through_our_features(recipe):
    ours = recipe.features.features.stages[1].state_dict()
    for name, value in recipe.transfer.predictor.stages[1].state_dict().items():
        assert torch.equal(value, ours[name])
    trained = {name for name, value in recipe.transfer.named_parameters() if value.requires_grad}
    assert not any(name.startswith("predictor.stages") for name in trained)
    assert any(name.startswith("predictor.look") for name in trained)


@pytest.mark.parametrize("matrix_rate", [0, 0.01])
def test_it_learns(recipe, tmp_path, matrix_rate):
    recipe.config = recipe.config.model_copy(update={"matrix_rate": matrix_rate})
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train/loss"]) < 0.5 * float(rows[1]["train/loss"])
    assert {"held_out/total", "held_out/style", "held_out/moved", "train/variation"} <= set(rows[-1])
    export.export_run(tmp_path, tmp_path / "style-fast.safetensors", metrics={})
    measured, network, step = recipes.load_run(tmp_path)
    assert step == 30
    assert measured.sheet(network).shape == (6 * 48, 6 * 48, 3)
    scores = measured.evaluate(network)
    assert scores["pairs"] == 2
    assert set(scores["rows"]) == set(stylize.SHARES)
    assert "total" in measured.table(scores)


@torch.no_grad()
def test_the_photograph_as_it_is_costs_one(recipe):
    """A network that gives the photograph back has lost no content, and no style is there."""

    class Same(StyleTransfer):
        def forward(self, image, style):
            return image

    found = recipe.held_out(Same(12, 0, 1))
    assert found == pytest.approx({"total": 1, "content": 0, "style": 1, "moved": 0}, abs=1e-5)


def test_recoloured():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen = {stylize.recoloured(image, np.random.default_rng(seed)).tobytes() for seed in range(60)}
    assert len(seen) > 20
    assert image.tobytes() in seen


def test_settings_fit():
    config = make_config(stylize.StylizeConfig, Path(stylize.__file__).with_name("style-fast.toml"))
    assert config.sides == (128, 192, 256)
    assert sum(config.contents.values()) == sum(config.styles.values()) == 100
    assert stylize.TrainStylize(config).arguments == {"width": 96, "outer": 2, "inner": 4}
