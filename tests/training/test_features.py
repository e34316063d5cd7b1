import csv

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.data import astronaut

from velatura.errors import InputError, ModelError
from velatura.metrics.perceptual import distances
from velatura.nets.features import Features
from velatura.nets.vgg19 import VGG19
from velatura.training import recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import features

SMALL = ["widths=[4,4,4,4,4]", "batch_size=1", "threads=1", "log_every=1", "warmup=0", "sets={scenes96=1,faces128=2}"]


def small_teachers(folder):
    """Files of the teachers' names, keys and shapes, with random numbers of a sane size."""
    rng = np.random.default_rng(0)

    def he(*shape, inputs):
        return rng.normal(0, (2 / inputs) ** 0.5, shape).astype(np.float32)

    vgg = VGG19("conv3_4")
    arrays = {}
    for name, part in vgg.convolutions.items():
        out, before, *_ = part.weight.shape
        key = "block{}_conv{}".format(*name[4:].split("_"))
        arrays[f"{key}.kernel"] = he(3, 3, before, out, inputs=9 * before)
        arrays[f"{key}.bias"] = np.zeros(out, np.float32)
    np.savez(folder / features.TEACHERS[0], **arrays)
    google = features.GoogLeNet()
    arrays = {}
    layers = {"conv1/7x7_s2": google.conv1, "conv2/3x3_reduce": google.reduce2, "conv2/3x3": google.conv2}
    layers["loss3/classifier"] = google.classifier
    for name, block in google.blocks.items():
        layers |= {f"{name}/{part}": layer for part, layer in block.parts()}
    for key, layer in layers.items():
        inputs = layer.weight[0].numel()
        arrays[f"{key}.weight"] = he(*layer.weight.shape, inputs=inputs).astype(np.float16)
        arrays[f"{key}.bias"] = np.zeros(layer.weight.shape[0], np.float32)
    np.savez(folder / features.TEACHERS[1], **arrays)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    small_teachers(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_crops():
    """Eight calibration crops and six held-out ones are enough to see that it works."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "CALIBRATION", (8, 64))
        patch.setattr(features, "HELD", (6, 64))
        patch.setattr(features, "SIDES", (48, 64))
        patch.setattr(features, "BASE", 48)
        yield


@pytest.fixture(scope="module")
def settings(data_folder, pretrained):
    return [*SMALL, f"data={data_folder}", f"pretrained={pretrained}"]


@pytest.fixture(scope="module")
def recipe(settings):
    return features.TrainFeatures(make_config(features.FeaturesConfig, settings=settings))


# --- damages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", features.DAMAGES, ids=lambda way: way.__name__)
def test_every_damage_changes_an_image_and_spares_the_original(damage):
    original = np.random.default_rng(0).integers(60, 200, (12, 12, 3), np.uint8).repeat(6, 0).repeat(5, 1)
    kept = original.copy()
    different = set()
    for seed in range(4):
        damaged = damage(original, np.random.default_rng(seed))
        assert damaged.shape == original.shape
        assert damaged.dtype == np.uint8
        different.add(damaged.tobytes())
        np.testing.assert_array_equal(damaged, damage(original, np.random.default_rng(seed)))
    assert len(different) > 1
    np.testing.assert_array_equal(original, kept)


def test_damages_go_from_hardly_to_heavily():
    image = astronaut()[60:124, 180:244]
    rng = np.random.default_rng(1)
    errors = [np.abs(features.distort(image, rng).astype(float) - image).mean() for _ in range(60)]
    assert np.quantile(errors, 0.1) < 4
    assert np.quantile(errors, 0.9) > 12


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_step(recipe, settings):
    other = features.TrainFeatures(make_config(features.FeaturesConfig, settings=settings))
    recipe.batch(6, 0)
    for one, two in zip(recipe.batch(7, 0), other.batch(7, 0), strict=True):
        assert torch.equal(one, two)
        assert one.dtype == torch.float32
        assert 0 <= float(one.min()) < float(one.max()) <= 1
    clean, damaged = recipe.batch(7, 0)
    assert clean.shape == damaged.shape
    assert not torch.equal(clean, damaged)
    assert not torch.equal(clean, recipe.batch(7, 1)[0])


def test_batches_of_all_sides_are_about_as_large(settings):
    config = make_config(features.FeaturesConfig, settings=[*settings, "batch_size=16"])
    recipe = features.TrainFeatures(config)
    shapes = {recipe.batch(step, 0)[0].shape for step in range(12)}
    assert shapes == {(16, 3, 48, 48), (9, 3, 64, 64)}


def test_nothing_is_both_trained_on_and_measured(recipe):
    train_names = {name for images in recipe.images.values() for name in images.names}
    held_names = {name for images in recipe._read("held-out").values() for name in images.names}
    assert held_names
    assert not train_names & held_names


def test_transparent_images_get_a_ground():
    image = np.zeros((40, 40, 4), np.uint8)
    image[:, 20:] = (255, 0, 0, 255)
    crops = [features._crop(image, np.random.default_rng(seed), 32) for seed in range(6)]
    colors = {tuple(crop[r, c]) for crop in crops for r in (2, -3) for c in (2, -3)}
    assert (255, 0, 0) in colors
    assert len(colors) > 4


# --- teachers ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_teachers_have_the_students_names_shapes_and_units(recipe):
    recipe.calibrate()
    image = torch.rand(1, 3, 67, 90)
    ours, theirs = recipe.student(image), recipe.teachers(image)
    assert tuple(ours) == tuple(theirs) == recipe.teachers.LAYERS
    for name in ours:
        assert ours[name].shape == theirs[name].shape
    crops, _ = features._draw(recipe.images, recipe.config.sets, np.random.default_rng(features.CALIBRATION), 8, 64)
    for found in recipe.teachers(crops).values():
        torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(found.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(found.var((0, 2, 3), correction=0), torch.ones(found.shape[1]), atol=1e-2, rtol=0)
    assert tuple(recipe.teachers(image, ["stride8"])) == ("stride8",)
    raw = recipe.teachers.raw(image, ["stride2"])["stride2"]
    torch.testing.assert_close(raw, recipe.teachers.vgg19(image, ["conv2_2"])["conv2_2"])


@torch.no_grad()
def test_googlenet_looks_at_the_same_place(recipe):
    """The part of the image that moves a place of a coarse map lies around the middle of that place."""
    image = torch.rand(1, 3, 128, 128)
    bands = torch.arange(0, 128, 4)
    changed = image.repeat(len(bands), 1, 1, 1)
    for one, top in zip(changed, bands.tolist(), strict=True):
        one[:, top : top + 4] += 0.5
    before = recipe.teachers.raw(image, ["stride8"])["stride8"]
    moved = (recipe.teachers.raw(changed, ["stride8"])["stride8"] - before)[:, :, 8].square().sum((1, 2))
    centre = float((moved * (bands + 1.5)).sum() / moved.sum())
    assert abs(centre - (8 * 8 + 3.5)) < 3


def test_missing_and_damaged_teachers(tmp_path, settings):
    recipe = features.TrainFeatures(
        make_config(features.FeaturesConfig, settings=[*settings, f"pretrained={tmp_path}"])
    )
    with pytest.raises(ModelError, match="no such file; name the teachers' folder with"):
        _ = recipe.teachers
    (tmp_path / features.TEACHERS[0]).write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"not an \.npz file"):
        _ = recipe.teachers
    np.savez(tmp_path / features.TEACHERS[0], other=np.zeros(3))
    np.savez(tmp_path / features.TEACHERS[1], other=np.zeros(3))
    with pytest.raises(ModelError, match=r"got no block1_conv1\.kernel"):
        _ = recipe.teachers
    with pytest.raises(InputError, match="no sets of images"):
        _ = features.TrainFeatures(make_config(features.FeaturesConfig, settings=[*settings, "sets={}"])).images


# --- figures ----------------------------------------------------------------------------------------------------------


class Shifted(torch.nn.Module):
    """The teachers, with an error of known size."""

    def __init__(self, teachers, deviation):
        super().__init__()
        self.teachers, self.deviation = teachers, deviation

    def forward(self, image, layers=None):
        return {
            name: found
            + self.deviation * torch.randn(found.shape, generator=torch.Generator().manual_seed(found.numel()))
            for name, found in self.teachers(image, layers).items()
        }


@torch.no_grad()
def test_the_teachers_themselves_explain_everything(recipe):
    recipe.calibrate()
    rows = recipe.evaluate(recipe.teachers)["rows"]
    pixels = rows.pop("rank_pixels")
    assert set(rows) == {*Features.LAYERS, *(f"change_{name}" for name in Features.LAYERS), "rank"}
    assert all(row[0] == pytest.approx(1) for row in rows.values())
    clean, damaged = recipe.held
    judged = distances(damaged, clean, recipe.teachers).numpy()
    assert pixels[0] == pytest.approx(spearmanr((damaged - clean).square().mean((1, 2, 3)), judged)[0])
    assert pixels[1] <= pixels[0] <= pixels[2]


def test_a_known_error_explains_what_it_leaves(recipe):
    recipe.calibrate()
    network = Shifted(recipe.teachers, 0.5)
    scores = recipe.evaluate(network)
    squares = [torch.cat(recipe.held)]
    power = {name: float(found.square().mean()) for name, found in recipe.teachers(squares[0]).items()}
    for name in Features.LAYERS:
        mean, low, high = scores["rows"][name]
        assert mean == pytest.approx(1 - 0.25 / power[name], abs=0.03)
        assert low <= mean <= high
        # The same error on both images is no error of their change.
        assert scores["rows"][f"change_{name}"][0] == pytest.approx(1)
    assert "stride16" in recipe.table(scores)
    assert recipe.held_out(network) == {name: row[0] for name, row in scores["rows"].items()}


def test_spearman():
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    assert features.spearman(a, a**3) == pytest.approx(1)
    assert features.spearman(a, b) == pytest.approx(spearmanr(a, b)[0])
    tied = a.round()
    assert features.spearman(tied, b) == pytest.approx(spearmanr(tied, b)[0])
    assert features.spearman(np.zeros(5), np.arange(5)) == 0


def test_the_sheet(recipe):
    sheet = recipe.sheet(recipe.student)
    assert sheet.shape == (3 * 64, 2 * 4 * 64, 3)
    np.testing.assert_array_equal(sheet[:64, :64], (255 * recipe.held[0][0]).round().byte().permute(1, 2, 0))


# --- runs -------------------------------------------------------------------------------------------------------------


def log(run):
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_and_keeps_the_units(settings, tmp_path):
    run = tmp_path / "run"
    values = ["steps=12", "learning_rate=0.005", "ema=0.5", "sheet_every=12", "held_out_every=12", "batch_size=2"]
    recipe = features.TrainFeatures(make_config(features.FeaturesConfig, settings=[*settings, *values]))
    train(recipe, run, quiet=True)
    rows = log(run)
    assert float(rows[-1]["held_out/stride1"]) > float(rows[0]["held_out/stride1"]) + 0.05
    loaded, network, step = recipes.load_run(run)
    assert step == 12
    assert float(network.heads["stride4"].spread.std()) > 0
    maps = network(torch.rand(1, 3, 32, 32))
    assert loaded.arguments == {"widths": [4, 4, 4, 4, 4]}
    assert maps["stride16"].shape == (1, 512, 2, 2)


def test_gram_matrices_join_the_loss(settings, tmp_path):
    values = ["steps=1", "gram=2.0", "held_out_every=9", "sheet_every=9"]
    recipe = features.TrainFeatures(make_config(features.FeaturesConfig, settings=[*settings, *values]))
    train(recipe, tmp_path / "run", quiet=True)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    parts = sum(float(row[f"train/{name}"]) + 0.5 * float(row[f"train/change_{name}"]) for name in Features.LAYERS)
    assert float(row["train/loss"]) == pytest.approx(parts + 2 * float(row["train/gram"]), rel=1e-4)
    # A student that knows the teacher's maps knows their Gram matrices.
    maps = torch.rand(1, 4, 5, 6)
    assert float(features._apart(maps, maps)) == 0
    assert float(features._apart(maps, 2 * maps)) > 0.5


def test_half_precision_trains_the_same_way(settings):
    values = ["precision=bf16-mixed", "channels_last=true"]
    recipe = features.TrainFeatures(make_config(features.FeaturesConfig, settings=[*settings, *values]))
    assert recipe.teachers.vgg19.convolutions["conv1_2"].weight.dtype == torch.bfloat16
    assert recipe.student.heads["stride1"].convolution.weight.dtype == torch.float32
    recipe.calibrate()
    found = recipe.teachers(torch.rand(1, 3, 64, 64))
    assert all(maps.dtype == torch.float32 for maps in found.values())


def test_shares_decide_what_is_drawn(recipe):
    images = {name: recipe.images[name] for name in ("scenes96", "faces128")}
    for shares, only in (({"scenes96": 1, "faces128": 0}, "scenes96"), ({"scenes96": 0, "faces128": 3}, "faces128")):
        one, _ = features._draw(images, shares, np.random.default_rng(0), 4, 48)
        two, _ = features._draw({only: images[only]}, {only: 1}, np.random.default_rng(0), 4, 48)
        assert one.shape == two.shape
        assert torch.equal(one, two)
