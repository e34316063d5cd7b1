import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from velatura.metrics.fidelity import RGB, psnr
from velatura.nets.face_refiner import FaceRefiner
from velatura.nets.restoration import Restorer
from velatura.training import export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import face_refiner, old_scans
from velatura.training.recipes.old_scans import CLEAN

SMALL = [
    "widths=[8, 12, 16]",
    "blocks=[1, 1, 1]",
    "batch_size=3",
    "patch=32",
    "smallest=24",
    "threads=1",
    "log_every=1",
]


@pytest.fixture
def recipe(data_folder, monkeypatch):
    monkeypatch.setattr(face_refiner, "QUICK", 3)
    monkeypatch.setattr(face_refiner, "ALL", 3)
    more = ["steps=60", "learning_rate=5e-3", "matrix_rate=0.02", "held_out_every=60", "ema=0", "clean=0", "warmup=0"]
    settings = [*SMALL, f"data={data_folder}", *more]
    return face_refiner.TrainFaceRefiner(make_config(face_refiner.FaceRefinerConfig, settings=settings))


@pytest.fixture
def restorer(tmp_path):
    """A restorer that makes everything lighter."""
    net = Restorer((4, 6), (1, 1))
    torch.nn.init.constant_(net.unet.leave.bias, 0.25)
    save_file(
        net.state_dict(),
        tmp_path / "direct.safetensors",
        {"architecture": "Restorer", "arguments": '{"widths": [4, 6], "blocks": [1, 1]}'},
    )
    return tmp_path / "direct.safetensors"


def test_batches_are_their_steps(recipe):
    face, target = recipe.batch(3, 0)
    assert face.shape == target.shape == (3, 3, 32, 32)
    for one, two in zip(recipe.batch(3, 0), (face, target), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(recipe.batch(4, 0)[0], face)


def test_clean_faces_are_their_targets_but_for_their_size(recipe):
    recipe.config = recipe.config.model_copy(update={"clean": 1.0})
    pairs = [recipe._draw(np.random.default_rng(seed)) for seed in range(8)]
    fidelity = [psnr(*(np.rint(255 * one.clip(0, 1)).astype(np.uint8) for one in pair), RGB) for pair in pairs]
    assert min(fidelity) > 22
    assert max(fidelity) > 50  # of those that were not resized


def test_some_faces_are_far_out_of_focus(recipe, monkeypatch):
    monkeypatch.setattr(face_refiner, "OLD", CLEAN)
    monkeypatch.setattr(face_refiner, "NOISY", CLEAN)
    fidelity = {}
    for share in (0.0, 1.0):
        recipe.config = recipe.config.model_copy(update={"soft": share})
        pairs = [recipe._draw(np.random.default_rng(seed)) for seed in range(20)]
        fidelity[share] = np.median([psnr(*map(old_scans.eight_bit, pair), RGB) for pair in pairs])
    assert fidelity[1.0] < fidelity[0.0] - 3
    assert face_refiner.soft(128).sigma == tuple(2 * sigma for sigma in face_refiner.soft(64).sigma)


def test_the_restorer_comes_first(recipe, restorer):
    plain = recipe.batch(0, 0)
    del recipe.restorer
    recipe.config = recipe.config.model_copy(update={"restorer": str(restorer)})
    face, target = recipe.batch(0, 0)
    torch.testing.assert_close(target, plain[1])
    assert (face - plain[0]).mean() > 0.1
    assert (recipe.held["lines"][0].face.mean() - recipe.held["lines"][0].target.mean()) > 0.1


def test_held_out_faces_are_those_that_no_training_saw(recipe):
    held = {name for _, images in face_refiner._read(recipe.config, "held-out") for name in images.names}
    seen = {name for _, images in recipe.faces for name in images.names}
    assert held
    assert seen
    assert not {Path(name).stem for name in held} & {Path(name).stem for name in seen}


def test_it_learns_to_refine(recipe, tmp_path):
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("unstructured", "lines"):
        assert rows[0][f"held_out/{kind}"] == rows[0][f"held_out/{kind}_input"]  # it begins with the face
    assert float(rows[-1]["train/pixel"]) < 0.9 * float(rows[1]["train/pixel"])
    export.export_run(tmp_path, tmp_path / "refiner.safetensors", metrics={})
    measured, network, _ = recipes.load_run(tmp_path)
    assert measured.sheet(network).shape == (5 * 32, 6 * 32, 3)


def test_faces_gain_nothing_by_themselves(recipe):
    scores = recipe.evaluate(FaceRefiner(32, (4, 6, 8), (1, 1, 1)))
    assert set(scores["rows"]) == set(face_refiner.KINDS)
    assert scores["rows"]["lines"]["gain"]["psnr"] == [0, 0, 0]
    assert scores["rows"]["lines"]["given"]["psnr"][0] < 35
    assert "lines" in recipe.table(scores)


def test_the_box_is_the_face():
    assert face_refiner.box_of(np.zeros((100, 100, 3))).shape == (90, 66, 3)


def test_settings_fit():
    config = make_config(face_refiner.FaceRefinerConfig, Path(face_refiner.__file__).with_name("face-refiner.toml"))
    recipe = face_refiner.TrainFaceRefiner(config)
    assert recipe.arguments["side"] == 128
    assert len(recipe.optimizers()["refiner"].param_groups) == 2
