import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from velatura import catalog
from velatura.errors import InputError, ModelError
from velatura.nets.srcnn import Bicubic
from velatura.nets.srresnet import SRResNet
from velatura.ops.resize import resize
from velatura.training import checkpoint, data, export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import upscale

SMALL = ["width=8", "blocks=2", "batch_size=4", "patch=12", "threads=1", "log_every=1", "warmup=0"]
RECIPES = Path(upscale.__file__).parent


@pytest.fixture
def config(data_folder):
    return make_config(upscale.SRResNetConfig, settings=[*SMALL, f"data={data_folder}"])


def changed(config, **values):
    return config.model_copy(update=values)


def images_of(*arrays):
    return data.Images(
        names=tuple(f"{i}.png" for i in range(len(arrays))),
        pixels=np.concatenate([array.ravel() for array in arrays]),
        shapes=np.array([array.shape for array in arrays]),
    )


def log(run, *, without=("minutes", "images_per_second")):
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


# --- the low resolution -----------------------------------------------------------------------------------------------


def imresize(signal, new_size):
    """MATLAB's imresize along the first axis, written from its documentation: one output at a time, counted from 1."""
    size = len(signal)
    scale = new_size / size
    stretch = min(scale, 1.0)  # antialiasing: the kernel widens by 1 / scale

    def keys(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    out = np.zeros((new_size, *signal.shape[1:]))
    for x in range(1, new_size + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - 2 / stretch)
        total = 0.0
        for index in range(left, left + math.ceil(4 / stretch) + 2):
            weight = stretch * keys(stretch * (u - index))
            mirrored = (index - 1) % (2 * size)  # symmetric: the last pixel is doubled
            out[x - 1] += weight * signal[mirrored if mirrored < size else 2 * size - 1 - mirrored]
            total += weight
        out[x - 1] /= total
    return out


@pytest.mark.parametrize(
    ("size", "new"), [((24, 36), (6, 9)), ((24, 36), (12, 18)), ((7, 9), (28, 36)), ((8, 4), (2, 1))]
)
def test_resize_is_matlabs(size, new):
    image = np.random.default_rng(0).random((*size, 3))
    expected = imresize(imresize(image, new[0]).swapaxes(0, 1), new[1]).swapaxes(0, 1)
    np.testing.assert_allclose(resize(image, *new, "bicubic"), expected, atol=1e-12)
    np.testing.assert_allclose(resize(image.astype(np.float32), *new, "bicubic"), expected, atol=1e-6)


def test_shrink_rounds_and_clips():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 14:] = 255  # overshoots on both sides of the edge
    exact = 255 * imresize(imresize(image / 255, 8).swapaxes(0, 1), 8).swapaxes(0, 1)
    assert exact.min() < -1
    assert exact.max() > 256
    assert np.abs(upscale.shrink(image, 4) - exact.clip(0, 255)).max() <= 0.5 + 1e-4


def test_pairs_are_aligned():
    image = np.random.default_rng(0).integers(0, 256, (43, 50, 3), np.uint8)
    pairs = upscale.Pairs(images_of(image), 4)
    assert pairs.high[0].shape == (40, 48, 3)
    assert pairs.low[0].shape == (10, 12, 3)
    np.testing.assert_array_equal(pairs.high[0], image[:40, :48])


# --- patches ----------------------------------------------------------------------------------------------------------


def blocks(height, width, seed=0):
    """Pairs whose high resolution repeats each pixel of the low one."""
    pairs = upscale.Pairs(images_of(np.zeros((4 * height, 4 * width, 3), np.uint8)), 4)
    pairs.low = [np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)]
    pairs.high = [pairs.low[0].repeat(4, 0).repeat(4, 1)]
    return pairs


def test_patches_of_both_sizes_show_the_same():
    low, high = blocks(20, 30).draw(np.random.default_rng(0), 40, 9)
    assert low.shape == (40, 3, 9, 9)
    assert high.shape == (40, 3, 36, 36)
    assert torch.equal(low.repeat_interleave(4, 2).repeat_interleave(4, 3), high)
    assert low.dtype == high.dtype == torch.float32
    assert 0.9 < high.max() <= 1


def test_all_places_and_turns_are_drawn_alike():
    pairs = blocks(9, 10)
    low, _ = pairs.draw(np.random.default_rng(0), 4800, 8)
    _, counts = np.unique(low.flatten(1).numpy(), axis=0, return_counts=True)
    assert len(counts) == 2 * 3 * 8
    assert counts.min() > 60  # of 100


def test_photographs_that_are_too_small_are_passed_over():
    small, large = np.zeros((40, 90, 3), np.uint8), np.full((80, 80, 3), 255, np.uint8)
    pairs = upscale.Pairs(images_of(small, large, small), 4)
    assert pairs.draw(np.random.default_rng(0), 8, 12)[0].min() == 1
    with pytest.raises(InputError, match="none of 3 photographs has 160x160 pixels: set a smaller patch"):
        pairs.draw(np.random.default_rng(0), 8, 40)


def test_a_batch_is_a_function_of_seed_and_step(config):
    first, second = upscale.TrainSRResNet(config), upscale.TrainSRResNet(config)
    first.batch(6, 0)
    for one, two in zip(first.batch(7, 0), second.batch(7, 0), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.batch(7, 0)[0], first.batch(8, 0)[0])
    assert not torch.equal(first.batch(7, 0)[0], first.batch(7, 1)[0])


def test_upscaling_holds_out_more_than_others_and_never_trains_on_it(config, data_folder):
    recipe = upscale.TrainSRResNet(config)
    train, held = set(recipe.pairs.names), set(recipe.held.names)
    assert held
    assert not train & held
    assert not any("val" in name for name in train | held)
    others = set(data.read_set(data_folder, "sr_t91_bsds400", "held-out").names)
    assert others < held
    assert {name.split("/")[0] for name in train} == set(upscale.SETS)


def test_a_users_photographs(config, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(21):
        side = 520 if i == 19 else 64
        Image.fromarray(rng.integers(0, 256, (64, side, 3), np.uint8)).save(tmp_path / f"{i:04d}.png")
    recipe = upscale.TrainSRResNet(changed(config, data=None, photographs=str(tmp_path)))
    assert recipe.held.names == ("0019.png",)
    assert recipe.held.high[0].shape == (64, 480, 3)
    assert len(recipe.pairs) == 20
    assert recipe.batch(0, 0)[1].shape == (4, 3, 48, 48)
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="one photograph is not enough"):
        upscale.TrainSRResNet(recipe.config).batch(0, 0)


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(image, original):
    """PSNR and SSIM by scikit-image's luma, without the module under test."""
    a, b = (rgb2ycbcr(one)[4:-4, 4:-4, 0] for one in (image, original))
    similarity = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1]
    return 10 * math.log10(255**2 / ((a - b) ** 2).mean()), similarity[5:-5, 5:-5].mean()


@torch.no_grad()
def test_figures_by_another_formula(config):
    recipe = upscale.TrainSRResNet(config)
    network = recipe.networks["generator"].eval()
    torch.nn.init.normal_(network.tail.weight, std=0.003)
    ours, bicubic = [], []
    for low, high in zip(recipe.held.low, recipe.held.high, strict=True):
        enlarged = network(torch.from_numpy(low / np.float32(255)).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        ours.append(figures((enlarged * 255).clip(0, 255).round().astype(np.uint8), high))
        enlarged = resize(low, *high.shape[:2], "bicubic").clip(0, 255).round().astype(np.uint8)
        bicubic.append(figures(enlarged, high))
    expected = np.mean(ours, 0), np.mean(bicubic, 0)
    measured = recipe.held_out(network)
    assert measured == pytest.approx({"psnr": expected[0][0], "psnr_bicubic": expected[1][0]}, abs=1e-6)
    scores = recipe.evaluate(network)
    for method, values in zip(("ours", "bicubic"), expected, strict=True):
        row = scores["rows"][method]
        assert (row["psnr"][0], row["ssim"][0]) == pytest.approx(values, abs=1e-4)
        assert row["psnr"][1] <= row["psnr"][0] <= row["psnr"][2]
    gain = scores["rows"]["gain"]["psnr"]
    assert gain[0] == pytest.approx(expected[0][0] - expected[1][0], abs=1e-6)
    assert gain[1] < gain[0] < gain[2]
    assert "bicubic" in recipe.table(scores)
    assert f"x4, {len(recipe.held)} images; y4: Y channel" in recipe.table(scores)


def test_bicubic_gains_nothing(config):
    class Network(Bicubic):
        def __init__(self):
            super().__init__(4)
            self.weight = torch.nn.Parameter(torch.zeros(1))

    scores = upscale.evaluate(Network(), upscale.TrainSRResNet(config).held)
    assert scores["rows"]["gain"]["psnr"] == pytest.approx([0, 0, 0], abs=1e-3)


def test_the_sheet_shows_bicubic_ours_and_original(config):
    recipe = upscale.TrainSRResNet(config)
    sheet = recipe.sheet(recipe.networks["generator"])
    rows = math.ceil(min(len(recipe.held), 8) / 2)
    assert sheet.shape == (rows * 80, 6 * 80, 3)
    np.testing.assert_array_equal(sheet[:80, :80], recipe.baseline[0])
    np.testing.assert_array_equal(sheet[:80, 160:240], recipe.held.high[0])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Sharp edges: what a bicubic enlargement is worst at."""
    folder = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for i in range(40):
        angle, period = rng.uniform(0, np.pi), rng.uniform(12, 24)
        stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) > 0
        colors = rng.integers(0, 256, (2, 3), np.uint8)
        Image.fromarray(np.where(stripes[..., None], *colors)).save(folder / f"{i}.png")
    return folder


def recipe_of(name, drawings, *more):
    recipe, model = (getattr(upscale, part) for part in recipes.RECIPES[name][1:])
    small = {"srresnet": SMALL, "esrgan-psnr": [*SMALL, "growth=4", "tail=8"], "srcnn": SMALL[2:]}[name]
    return recipe(make_config(model, settings=[*small, f"photographs={drawings}", *more]))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("srcnn", ["middle=1"]),
        ("srresnet", []),
        ("srresnet", ["norm=true", "loss=mse"]),
        ("esrgan-psnr", ["matrix_rate=0.03"]),
    ],
)
def test_a_few_steps_on_one_batch_lower_its_loss(drawings, tmp_path, name, more):
    recipe = recipe_of(name, drawings, "steps=60", "learning_rate=3e-3", *more)
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    rows = log(tmp_path)
    assert float(rows[0]["held_out/psnr"]) == pytest.approx(float(rows[0]["held_out/psnr_bicubic"]), abs=1e-3)
    losses = [float(row["train/loss"]) for row in rows[1:]]
    enlarged = recipe.networks["generator"].enlarge(batch[0])  # where every network begins
    difference = enlarged - batch[1]
    if name == "srcnn":
        difference = (difference * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1)
    first = difference.square().mean() if name == "srcnn" or "loss=mse" in more else difference.abs().mean()
    assert losses[0] == pytest.approx(first.item(), rel=1e-4)
    assert losses[-1] < 0.95 * losses[0]


def test_it_learns_what_bicubic_cannot(drawings, tmp_path):
    recipe = recipe_of("srcnn", drawings, "scale=2", "middle=1", "steps=200", "learning_rate=3e-3", "ema=0.8")
    train(recipe, tmp_path, quiet=True)
    figures = recipe.held_out(recipes.load_run(tmp_path)[1])
    assert figures["psnr"] > figures["psnr_bicubic"] + 0.2


def test_a_resumed_run_equals_an_unbroken_one(config, tmp_path):
    config = changed(config, steps=5, precision="bf16-mixed", channels_last=True)
    train(upscale.TrainSRResNet(config), tmp_path / "unbroken", quiet=True)
    train(upscale.TrainSRResNet(config), tmp_path / "broken", max_minutes=1e-9, quiet=True)
    assert checkpoint.latest(tmp_path / "broken").name == "step-00000001"
    train(upscale.TrainSRResNet(config), tmp_path / "broken", resume=True, quiet=True)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / name))[0] for name in ("unbroken", "broken"))
    for part, tensors in one.items():
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in tensors.items()), part
    assert log(tmp_path / "unbroken") == log(tmp_path / "broken")


def test_a_run_goes_on_with_more_steps(config, data_folder, tmp_path):
    settings = [*SMALL, f"data={data_folder}", "precision=32-true"]
    recipes.run("srresnet", tmp_path, settings=[*settings, "steps=2"], quiet=True)
    recipes.run("srresnet", tmp_path, settings=["steps=4"], resume=True, quiet=True)
    recipe, _, step = recipes.load_run(tmp_path)
    assert (step, recipe.config.steps, recipe.config.width) == (4, 4, 8)
    rates = [float(row["learning_rate"]) for row in log(tmp_path) if row["learning_rate"]]
    assert rates[0] > rates[1]
    assert rates[2] > rates[3]
    assert rates[2] == pytest.approx(rates[1], rel=0.2)  # half of the cosine, of the old curve and of the new


def test_a_run_starts_from_weights(config, tmp_path):
    first, file = tmp_path / "first", tmp_path / "small.safetensors"
    train(upscale.TrainSRResNet(changed(config, steps=3, learning_rate=0.01, ema=0.0)), first, quiet=True)
    export.export_run(first, file, metrics={}, dtype=torch.float32)
    weights = recipes.load_run(first)[1].state_dict()

    config = changed(config, steps=1, learning_rate=1e-12, start=str(file))
    train(upscale.TrainSRResNet(config), tmp_path / "second", quiet=True)
    parts, _ = checkpoint.load(checkpoint.latest(tmp_path / "second"))
    for part in ("generator", "average"):
        for name, tensor in parts[part].items():
            torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=0)
    with pytest.raises(ModelError, match="another architecture"):
        train(upscale.TrainSRResNet(changed(config, blocks=1)), tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()

    # What is gone on with needs the file no more, and what is exported tells its name alone.
    file.unlink()
    train(upscale.TrainSRResNet(changed(config, steps=2)), tmp_path / "second", resume=True, quiet=True)
    export.export_run(tmp_path / "second", tmp_path / "again.safetensors", metrics={})
    with safe_open(tmp_path / "again.safetensors", "pt") as opened:
        recipe = opened.metadata()["recipe"]
    assert '"start": "small.safetensors"' in recipe
    assert str(tmp_path) not in recipe


@pytest.mark.parametrize(
    "name", ["srcnn", "srresnet", "srresnet_paper", "srresnet_div2k", "esrgan-psnr", "esrgan-psnr_paper"]
)
def test_settings_fit_their_recipe(name):
    model = getattr(upscale, recipes.RECIPES[name.split("_")[0]][2])
    config = make_config(model, RECIPES / f"{name}.toml")
    assert config.scale == 4
    if name == "srresnet_paper":
        assert (config.norm, config.residual, config.loss, config.batch_size) == (True, False, "mse", 16)
    if name == "esrgan-psnr_paper":
        with torch.device("meta"):
            generator, arguments = upscale.make_generator(config)
        assert sum(p.numel() for p in generator.parameters()) == 16_697_987
        assert not arguments["residual"]


def test_only_the_ends_are_left_to_adam(drawings):
    """Muon's authors leave the first and the last layer out."""
    for name, ends in (("srresnet", ("head.0", "tail")), ("esrgan-psnr", ("conv_first", "conv_last"))):
        recipe = recipe_of(name, drawings, "matrix_rate=0.01")
        network = recipe.networks["generator"]
        matrices = {id(p) for p in recipe.optimizers()["generator"].param_groups[0]["params"]}
        left = {
            key.rpartition(".")[0] for key, p in network.named_parameters() if p.ndim == 4 and id(p) not in matrices
        }
        assert left == set(ends)


@pytest.mark.training
def test_the_real_split(real_data):
    """Fifty of BSDS500, bicubic at the figures that are known of it."""
    recipe = upscale.TrainSRResNet(make_config(upscale.SRResNetConfig, {"data": str(real_data)}))
    assert len(recipe.held) == 50
    assert {name.split("/")[1] for name in recipe.held.names} == {"bsds500_test", "bsds500_train"}
    assert {high.shape for high in recipe.held.high} == {(320, 480, 3), (480, 320, 3)}
    assert not set(recipe.pairs.names) & set(recipe.held.names)
    bicubic = np.mean([figures(*pair) for pair in zip(recipe.baseline, recipe.held.high, strict=True)], 0)
    # BSD100, of the same make: 25.96 dB, .668.
    assert bicubic == pytest.approx([25.96, 0.668], rel=0.04)


def test_another_scale_starts_with_the_layers_that_fit(tmp_path, make_trunk):
    """All but the second doubling."""
    file = make_trunk(tmp_path / "x4.safetensors", scale=4)
    config = make_config(upscale.SRResNetConfig, {"scale": 2, "width": 4, "blocks": 1, "trunk": str(file)})
    two = upscale.TrainSRResNet(config).networks["generator"].state_dict()
    four = catalog.load(file, {"SRResNet": SRResNet}).state_dict()
    assert set(four) - set(two) == {"up.1.0.weight", "up.1.0.bias", "up.1.2.weight"}
    assert all(torch.equal(two[name], four[name]) for name in two)


@pytest.fixture
def make_trunk():
    def make(file, scale):
        torch.manual_seed(3)
        net = SRResNet(scale, width=4, blocks=1)
        torch.nn.init.normal_(net.tail.weight)
        arguments = {"scale": scale, "width": 4, "blocks": 1}
        save_file(net.state_dict(), file, {"architecture": "SRResNet", "arguments": json.dumps(arguments)})
        return file

    return make
