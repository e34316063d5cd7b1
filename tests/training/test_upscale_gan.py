import csv
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image
from safetensors import safe_open
from scipy.signal import periodogram
from skimage.data import astronaut
from torch.nn import functional

from velatura.metrics.perceptual import perceptual_distance
from velatura.nets.features import Features
from velatura.nets.srcnn import luma
from velatura.training import checkpoint, export, recipes
from velatura.training.loop import Training, train
from velatura.training.recipe import make_config
from velatura.training.recipes import upscale, upscale_gan

SMALL = ["width=8", "blocks=1", "batch_size=2", "patch=12", "threads=1", "log_every=1", "warmup=0", "critic_width=4"]
MORE = {"srgan": ["critic_dense=8"], "esrgan": ["growth=4", "tail=8"], "esrgan-photo": ["growth=4", "tail=8"]}
START = {"srgan": "srresnet", "esrgan": "esrgan-psnr", "esrgan-photo": "esrgan-psnr"}
FOLDER = Path(upscale.__file__).parent


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A file of features that nobody trained."""
    torch.manual_seed(0)
    path, widths = tmp_path_factory.mktemp("features") / "random.safetensors", [4] * 5
    header = {"architecture": "Features", "arguments": {"widths": widths}}
    export.export_weights(dict(Features(widths).state_dict()), path, header, torch.float32)
    return path


@pytest.fixture(scope="module")
def all_sets(data_folder, tmp_path_factory):
    """The data folder, with drawings."""
    folder = tmp_path_factory.mktemp("all_sets")
    for archive in data_folder.glob("*.zip"):
        shutil.copy(archive, folder)
    for name, mode, paths in (
        ("emoji64", "RGBA", [f"{i:04x}.png" for i in range(40)]),
        ("styles", "RGB", [f"{under}/{i}.png" for under in ("misc", "kaokore") for i in range(5)]),
    ):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for seed, path in enumerate(paths):
                file = io.BytesIO()
                Image.fromarray(noise(64, 64, len(mode), seed=seed)).save(file, "PNG")
                archive.writestr(path, file.getvalue())
    return folder


@pytest.fixture
def make(all_sets, features):
    def make_recipe(name, *more):
        _, recipe, model = recipes.RECIPES[name]
        settings = [*SMALL, *MORE[name], f"data={all_sets}", f"features={features}", *more]
        toml = FOLDER / f"{name}.toml"
        return getattr(upscale_gan, recipe)(make_config(getattr(upscale_gan, model), toml, settings=settings))

    return make_recipe


@pytest.fixture
def start(make, data_folder, tmp_path):
    """A file of weights to start from, by the name of the GAN."""

    def make_start(name):
        psnr = START[name]
        _, recipe, model = recipes.RECIPES[psnr]
        more = MORE[name] if name != "srgan" else []
        settings = [*SMALL[:-1], *more, f"data={data_folder}", "steps=2", "learning_rate=0.01", "ema=0", "seed=5"]
        train(
            getattr(upscale, recipe)(make_config(getattr(upscale, model), settings=settings)),
            tmp_path / psnr,
            quiet=True,
        )
        export.export_run(tmp_path / psnr, tmp_path / f"{psnr}.safetensors", metrics={}, dtype=torch.float32)
        return tmp_path / f"{psnr}.safetensors"

    return make_start


def peaks(images):
    """Power of luma at a quarter and a half of the sampling rate over that around, in dB, by scipy's periodogram."""
    luma = np.tensordot([0.299, 0.587, 0.114], images.astype(float), (0, 1))
    found = []
    for axis in (1, 2):
        _, power = periodogram(luma, axis=axis, window="hann", detrend=False, scaling="spectrum")
        power = power.mean((0, 3 - axis))
        power[-1] *= 2  # one-sided: all frequencies but the last are counted twice
        size = luma.shape[axis]
        for at in (size // 4, size // 2):
            around = [*power[at - 10 : at - 3], *power[at + 4 : at + 11]]
            found.append(10 * np.log10(power[at - 1 : at + 2].mean() / np.mean(around)))
    return found


def agreement(error):
    """What 3x3 pixels of the low resolution agree on, at each place within them less the pixel's mean."""
    planes = error.astype(float).reshape(-1, *error.shape[2:])
    cells = planes.reshape(len(planes), planes.shape[1] // 4, 4, planes.shape[2] // 4, 4).transpose(0, 2, 4, 1, 3)
    cells = cells - cells.mean((1, 2), keepdims=True)
    return np.abs(np.lib.stride_tricks.sliding_window_view(cells, (3, 3), (3, 4)).mean((5, 6))).mean()


def training_of(recipe):
    fabric = Fabric(accelerator="cpu")
    fabric.launch()
    return Training(fabric, recipe.networks, recipe.optimizers(), clip=0.0)


def log(run):
    with (run / "log.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("minutes", "images_per_second")} for row in csv.DictReader(file)
        ]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["srgan", "srgan_paper", "esrgan", "esrgan_paper", "esrgan-photo", "esrgan-photo_paper"]
)
def test_settings_fit_their_recipe(name):
    plain = name.removesuffix("_paper")
    config = make_config(getattr(upscale_gan, recipes.RECIPES[plain][2]), FOLDER / f"{name}.toml")
    assert config.scale == 4
    assert config.adversarial > 0
    assert set(config.content) <= set(Features.LAYERS) or name.endswith("_paper")
    with torch.device("meta"):
        critic = upscale_gan.make_critic(config)
        generator, _ = upscale.make_generator(config)
    if name == "srgan_paper":
        assert critic(torch.rand(2, 3, 96, 96, device="meta")).shape == (2, 1, 1, 1)
    if name.startswith("esrgan") and plain != name:
        assert sum(p.numel() for p in generator.parameters()) == 16_697_987


@pytest.mark.parametrize("name", START)
def test_a_gan_and_what_it_starts_from_are_one_network(name):
    """Or their weights could not be interpolated."""
    configs = [
        make_config(getattr(module, recipes.RECIPES[one][2]), FOLDER / f"{one}.toml")
        for module, one in ((upscale_gan, name), (upscale, START[name]))
    ]
    arguments = [upscale.make_generator(config)[1] for config in configs]
    assert arguments[0] == arguments[1]


# --- one step ---------------------------------------------------------------------------------------------------------


def test_what_a_step_says_is_what_the_losses_are(make):
    """By formulas written out here; equation 1 and 2 of ESRGAN."""
    settings = ["content={stride2=0.5,stride8=2}", "pixel=0.3", "variation=0.2", "color=0.1", "luma=false"]
    recipe = make("esrgan", *settings, "precision=32-true")
    torch.nn.init.normal_(recipe.networks["generator"].conv_last.weight, std=0.02)
    critic = recipe.networks["critic"].eval()  # the spectral norm stays
    low, high = recipe.batch(0, 0)
    made = recipe.networks["generator"](low).detach()

    def maps(image):
        return recipe.features(image, ["stride2", "stride8"])

    ours, theirs = maps(made), maps(high)
    real, fake = critic(high).detach(), critic(made).detach()
    to_real, to_fake = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    shrunk = [functional.interpolate(image, scale_factor=0.25, mode="area") for image in (made, high)]
    steps = [(made[..., 1:, :] - made[..., :-1, :]).abs().mean(), (made[..., 1:] - made[..., :-1]).abs().mean()]
    expected = {
        "pixel": (made - high).abs().mean(),
        "color": (shrunk[0] - shrunk[1]).abs().mean(),
        "variation": sum(steps),
        "chroma": ((made - luma(made)) - (high - luma(high))).abs().mean(),
        "lattice": agreement((made - high).numpy()),
        "content": 0.5 * (ours["stride2"] - theirs["stride2"]).square().mean()
        + 2 * (ours["stride8"] - theirs["stride8"]).square().mean(),
        "adversarial": -(1 - to_real).log().mean() - to_fake.log().mean(),
        "critic": -to_real.log().mean() - (1 - to_fake).log().mean(),
    }
    said = recipe.step(training_of(recipe), (low, high), 0)
    assert {name: float(value) for name, value in said.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-3
    )


def test_by_luma_no_color_is_asked_for(make):
    """What is as light is as good, but for the terms that compare colour."""
    recipe = make("esrgan", "luma=true", "precision=32-true")
    low, high = recipe.batch(0, 0)
    grey = luma(high).expand(-1, 3, -1, -1)
    training = training_of(make("esrgan"))
    training.networks["generator"] = lambda _: grey.clone().requires_grad_()
    training.descend = lambda name, loss: None
    said = recipe.step(training, (low, high), 0)
    assert float(said["content"]) < 1e-10
    assert float(said["chroma"]) == pytest.approx(float((high - grey).abs().mean()), rel=1e-5)


@pytest.mark.parametrize("form", ["log", "hinge", "relativistic"])
def test_each_network_follows_its_own_loss(make, form):
    """The generator's step leaves no trace in the critic, and the critic's none in the generator."""
    recipe = make("srgan", f"form={form}", "precision=32-true")
    torch.nn.init.normal_(recipe.networks["generator"].tail.weight, std=0.02)
    training, seen = training_of(recipe), {}
    descend = training.descend

    def watch(name, loss):
        other = {"generator": "critic", "critic": "generator"}[name]
        before = [p.grad for p in recipe.networks[other].parameters()]
        descend(name, loss)
        after = [p.grad for p in recipe.networks[other].parameters()]
        seen[name] = all(a is b for a, b in zip(before, after, strict=True))
        assert all(p.grad is not None for p in recipe.networks[name].parameters())

    training.descend = watch
    recipe.step(training, recipe.batch(0, 0), 0)
    assert seen == {"generator": True, "critic": True}
    assert all(p.requires_grad for p in recipe.networks["critic"].parameters())


def test_the_ablation_is_settings_alone(make):
    """SRGAN with pixel loss: no features are read."""
    pixels = make("srgan", "content={}", "pixel=1", "loss=mse", "features=vgg19:nowhere.npz", "precision=32-true")
    low, high = pixels.batch(0, 0)
    said = pixels.step(training_of(pixels), (low, high), 0)
    enlarged = pixels.networks["generator"].enlarge(low)
    assert "content" not in said
    assert float(said["pixel"]) == pytest.approx(float((enlarged - high).square().mean()), rel=1e-5)
    alone = make("srgan", "adversarial=0", "activated=true", "luma=false", "precision=32-true")
    said = alone.step(training_of(alone), (low, high), 0)
    assert not {"adversarial", "critic"} & set(said)
    ours, theirs = (alone.features.activated(alone.features(image)) for image in (enlarged, high))
    expected = sum(weight * (ours[k] - theirs[k]).square().mean() for k, weight in alone.config.content.items())
    assert float(said["content"]) == pytest.approx(float(expected), rel=1e-4)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", START)
def test_a_resumed_run_equals_an_unbroken_one(make, tmp_path, name):
    settings = ["steps=3", "held_out_every=10"]
    train(make(name, *settings), tmp_path / "unbroken", quiet=True)
    train(make(name, *settings), tmp_path / "broken", max_minutes=1e-9, quiet=True)
    assert checkpoint.latest(tmp_path / "broken").name == "step-00000001"
    train(make(name, *settings), tmp_path / "broken", resume=True, quiet=True)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / name))[0] for name in ("unbroken", "broken"))
    assert {"generator", "critic", "average"} < set(one)
    for part, tensors in one.items():
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in tensors.items()), part
    assert log(tmp_path / "unbroken") == log(tmp_path / "broken")


def test_content_comes_nearer(make, tmp_path):
    alone = ["content={stride2=1,stride4=1}", "pixel=0", "chroma=0", "lattice=0", "color=0", "adversarial=0"]
    recipe = make("esrgan", "steps=20", "learning_rate=1e-2", "held_out_every=100", "precision=32-true", *alone)
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    content = [float(row["train/content"]) for row in log(tmp_path)[1:]]
    assert content[-1] < 0.9 * content[0]


@pytest.mark.parametrize("name", ["srgan", "esrgan"])
def test_it_starts_from_the_psnr_network(make, start, tmp_path, name):
    file = start(name)
    recipe = make(name, f"start={file}", "steps=1", "learning_rate=1e-12", "critic_rate=1e-12")
    train(recipe, tmp_path / "run", quiet=True)
    weights = recipes.load_run(tmp_path / START[name])[1].state_dict()
    average = checkpoint.load(checkpoint.latest(tmp_path / "run"))[0]["average"]
    assert all(torch.allclose(tensor, average[key], atol=1e-6) for key, tensor in weights.items())

    rows = recipe.evaluate(recipes.load_run(tmp_path / "run")[1])["rows"]
    assert list(rows) == ["bicubic", "start", "ours", "original"]
    assert rows["start"]["psnr"] == pytest.approx(rows["ours"]["psnr"], abs=1e-2)

    # Bicubic, start, ours, original; two photographs abreast.
    network = recipes.load_run(tmp_path / "run")[1]
    torch.nn.init.constant_(network.tail.bias if name == "srgan" else network.conv_last.bias, 0.5)
    sheet = recipe.sheet(network)
    assert sheet.shape[1] == 2 * 4 * 80
    low, high = recipe.held.low[0], recipe.held.high[0]
    for column, image in enumerate(
        [recipe.baseline[0], upscale.enlarge(recipe.before, low), upscale.enlarge(network, low), high]
    ):
        np.testing.assert_array_equal(sheet[:80, 80 * column : 80 * (column + 1)], image)
    file.unlink()
    assert make(name, f"start={file}").sheet(network).shape[1] == 2 * 3 * 80


def test_what_is_exported_names_files_without_their_folders(make, features, tmp_path):
    train(make("srgan", "steps=1"), tmp_path / "run", quiet=True)
    export.export_run(tmp_path / "run", tmp_path / "srgan.safetensors", metrics={})
    with safe_open(tmp_path / "srgan.safetensors", "pt") as opened:
        header, names = opened.metadata(), set(opened.keys())
    assert '"features": "random.safetensors"' in header["recipe"]
    assert str(features.parent) not in header["recipe"]
    assert header["architecture"] == "SRResNet"
    assert names == set(upscale.make_generator(make("srgan").config)[0].state_dict())


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_by_other_formulas(make):
    recipe = make("esrgan")
    network = recipe.networks["generator"].eval()
    torch.nn.init.constant_(network.conv_last.bias, 0.02)  # five grey levels
    found = recipe.held_out(network)
    ours = [upscale.enlarge(network, low) for low in recipe.held.low]
    looks = [perceptual_distance(a, b, recipe.features) for a, b in zip(ours, recipe.held.high, strict=True)]
    shifts = [
        max(abs(float(a[..., c].mean()) - float(low[..., c].mean())) for c in range(3))
        for a, low in zip(ours, recipe.held.low, strict=True)
    ]
    assert found["perceptual"] == pytest.approx(np.mean(looks), rel=1e-6)
    assert found["color"] == pytest.approx(np.mean(shifts), rel=1e-6)
    assert 4 < found["color"] < 6
    assert found["psnr"] < found["psnr_bicubic"]
    assert set(found) == {"psnr", "perceptual", "color", "checkerboard", "psnr_bicubic", "perceptual_bicubic"}
    scores = recipe.evaluate(network)
    assert scores["rows"]["ours"]["perceptual"][0] == pytest.approx(np.mean(looks), rel=1e-6)
    assert scores["rows"]["bicubic"]["color"][0] < 0.5
    assert "not LPIPS" in recipe.table(scores)
    assert set(scores["rows"]["original"]) == {"checkerboard"}
    assert len({len(line) for line in recipe.table(scores).splitlines()[1:]}) == 1


def test_a_weave_is_pressed_out():
    """Down the slope of the lattice, a weave fades and other detail that was invented stays."""
    weave = 0.03 * torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(32).expand(1, 3, 128, 128)
    detail = 0.03 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0)).expand(1, 3, -1, -1)
    invented = (weave + detail).requires_grad_()
    optimizer = torch.optim.Adam([invented], lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        upscale_gan.lattice(invented, 4).backward()
        optimizer.step()
    left = invented.detach()
    assert float((left * weave).mean() / weave.square().mean()) < 0.15
    assert float((left * detail).mean() / detail.square().mean()) > 0.6


def test_only_what_repeats_is_a_lattice():
    """A weave of the grid's period counts whole, noise a third (of nine places' mean), what a pixel shares nothing."""
    rng = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, 3, 400, 400, generator=rng)
    weave = 0.1 * torch.randn(1, 3, 4, 4, generator=rng).repeat(1, 1, 100, 100)
    plain = 0.1 * torch.randn(1, 3, 100, 100, generator=rng).repeat_interleave(4, 2).repeat_interleave(4, 3)
    whole = (weave - weave.mean((2, 3), keepdim=True)).abs().mean()
    assert upscale_gan.lattice(weave, 4) == pytest.approx(float(whole), rel=1e-4)
    assert upscale_gan.lattice(noise, 4) == pytest.approx(float(noise.abs().mean()) / 3, rel=0.05)
    assert float(upscale_gan.lattice(plain, 4)) < 1e-7


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("period", [2, 4])
def test_a_checkerboard_is_seen(axis, period):
    photograph = astronaut()[:200, :240]
    weak = photograph.astype(int)
    weak[(slice(None),) * axis + (slice(None, None, period),)] += 3
    assert upscale_gan.checkerboard(photograph, 4) < 1
    assert upscale_gan.checkerboard(weak.clip(0, 255).astype(np.uint8), 4) > 6


# --- photographs from the wild ----------------------------------------------------------------------------------------


def test_worn_patches_lie_under_their_originals():
    smooth = upscale.bicubic(noise(12, 15, 3), 8)
    pairs = upscale_gan.WornPairs([(1.0, [smooth])], 4, clean=0.0)
    low, high = pairs.draw(np.random.default_rng(0), 12, 12)
    assert low.shape == (12, 3, 12, 12)
    assert high.shape == (12, 3, 48, 48)
    shrunk = functional.avg_pool2d(high, 4)
    right = (low - shrunk).abs().mean((1, 2, 3))
    assert (right < (low - shrunk.roll(1, 0)).abs().mean((1, 2, 3))).all()
    assert (right > 1e-3).all()


def test_a_share_is_merely_shrunk():
    pairs = upscale_gan.WornPairs([(1.0, [noise(96, 96, 3)])], 4, clean=0.4)
    low, high = pairs.draw(np.random.default_rng(0), 60, 8)
    high = (255 * high).round().byte().permute(0, 2, 3, 1).numpy()
    clean = [
        np.array_equal(upscale.shrink(b, 4), (255 * a).round().byte().permute(1, 2, 0))
        for a, b in zip(low, high, strict=True)
    ]
    assert 15 <= sum(clean) <= 33


def test_sets_have_their_shares():
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    pairs = upscale_gan.WornPairs([(0.25, [black]), (0.75, [white] * 9)], 4, clean=1.0)
    _, high = pairs.draw(np.random.default_rng(0), 400, 8)
    assert 0.68 < float(high.mean()) < 0.82


def test_emoji_stand_on_white():
    emoji = [np.full((8, 8, 4), (10 * i, 0, 255, 255), np.uint8) for i in range(20)]
    emoji[1][..., 3] = 0
    emoji[2][..., 3] = 51
    (sheet,) = upscale_gan.drawings(emoji)
    assert sheet.shape == (32, 32, 3)
    assert sheet[0, 0].tolist() == [0, 0, 255]
    assert sheet[0, 8].tolist() == [255, 255, 255]
    assert sheet[0, 16].tolist() == [208, 204, 255]
    assert sheet[8, 0].tolist() == [40, 0, 255]


def test_the_held_out_are_worn_alike_and_never_trained_on(make):
    first, second = make("esrgan-photo"), make("esrgan-photo", "seed=99", "clean=0.9")
    for one, two in zip(first.held.low, second.held.low, strict=True):
        np.testing.assert_array_equal(one, two)
    clean = make("esrgan").held
    assert first.held.names == clean.names
    assert all((a != b).any() for a, b in zip(first.held.low, clean.low, strict=True))
    for a, b in zip(first.held.high, clean.high, strict=True):
        np.testing.assert_array_equal(a, b)


def test_photographs_faces_and_drawings_are_trained_on(make):
    recipe = make("esrgan-photo")
    shares = {name: share for share, name, _ in upscale_gan.PHOTO_SETS}
    assert [share for share, _ in recipe.pairs.sets] == list(shares.values())
    assert sum(shares.values()) == pytest.approx(1)
    drawn = recipe.pairs.sets[list(shares).index("emoji64")][1]
    assert {image.shape for image in drawn} == {(256, 256, 3)}
    assert len(recipe.pairs.sets[list(shares).index("styles")][1]) <= 5
    held = {image.tobytes() for image in recipe.held.high}
    photographs = recipe.pairs.sets[list(shares).index("sr_t91_bsds400")][1]  # the other sets here repeat them
    assert not any(image.tobytes() in held for image in photographs)
    assert torch.equal(recipe.batch(3, 0)[0], make("esrgan-photo").batch(3, 0)[0])


def test_a_users_photographs_are_worn_too(make, tmp_path):
    for i in range(3):
        Image.fromarray(noise(64, 64, 3, seed=i)).save(tmp_path / f"{i}.png")
    recipe = make("esrgan-photo", f"photographs={tmp_path}")
    assert [(share, len(images)) for share, images in recipe.pairs.sets] == [(1.0, 2)]
    assert recipe.batch(0, 0)[0].shape == (2, 3, 12, 12)
