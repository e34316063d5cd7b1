"""LAPGAN's recipe: settings, classes by folder, one step, a run and its file."""

from pathlib import Path

import pytest
import torch
from data_folder import crop

from velatura import catalog
from velatura.errors import InputError
from velatura.nets.features import Features
from velatura.nets.lapgan import LAPGAN, pyramid
from velatura.training import export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import lapgan

FOLDER = Path(lapgan.__file__).parent
SMALL = ["size=32", "latent=4", "width=4", "start_width=4", "critic_width=4", "batch_size=4", "threads=1", "warmup=0"]
SMALL += ["log_every=1", "steps=2", "penalty_every=2", 'classes={a = "red", b = "blue"}']


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """Forty photographs in two folders, and a folder that is no class."""
    folder = tmp_path_factory.mktemp("classes")
    for seed in range(42):
        place = folder / ("c" if seed > 39 else "ab"[seed % 4 == 0])
        place.mkdir(exist_ok=True)
        (place / f"{seed:02d}.png").write_bytes(crop(seed))
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path, widths = tmp_path_factory.mktemp("features") / "random.safetensors", [4] * 5
    header = {"architecture": "Features", "arguments": {"widths": widths}}
    export.export_weights(dict(Features(widths).state_dict()), path, header, torch.float32)
    return path


@pytest.fixture
def make(classes, features, monkeypatch):
    monkeypatch.setattr(lapgan, "MEASURED", 6)

    def make_recipe(*more):
        settings = [*SMALL, f"photographs={classes}", f"features={features}", *more]
        return lapgan.TrainLAPGAN(make_config(lapgan.LAPGANConfig, settings=settings))

    return make_recipe


@pytest.mark.parametrize(("name", "count"), [("lapgan-flowers", 90), ("lapgan-scenes", 4), ("lapgan-faces", 2)])
def test_settings_fit_their_recipe(name: str, count: int):
    config = make_config(lapgan.LAPGANConfig, FOLDER / f"{name}.toml")
    made = lapgan.TrainLAPGAN(config)
    assert made.name == name
    assert len(made.networks["lapgan"].classes) == count
    assert 0.7e6 < sum(p.numel() for p in made.networks["lapgan"].parameters()) < 1.5e6


def test_classes_are_folders_on_both_sides(make):
    recipe = make()
    train_side, held = recipe.pictures, lapgan.Labelled(recipe.config, "held-out")
    names = [train_side.images.names[i] for i in train_side.chosen]
    assert [name[0] for name in names] == ["ab"[label] for label in train_side.labels]
    assert not set(names) & {held.images.names[i] for i in held.chosen}
    assert len(names) + len(held.chosen) == 40  # without the folder that is no class
    recipe.begin()
    shares = recipe.networks["lapgan"].shares
    assert shares[1] == pytest.approx(sum(name[0] == "b" for name in names) / len(names))
    with pytest.raises(InputError, match="the set has a, b, c"):
        lapgan.Labelled(recipe.config.model_copy(update={"classes": {"d": "d"}}), "train")


def test_a_batch_is_a_function_of_its_step(make):
    one, two = make(), make()
    assert all(torch.equal(a, b) for a, b in zip(one.batch(3, 0), two.batch(3, 0), strict=True))
    image, label, z = one.batch(3, 0)
    assert image.shape == (4, 3, 32, 32)
    assert label.shape == (4,)
    assert z.shape == (8, one.networks["lapgan"].latent)


def test_image_and_coarse_image_are_changed_alike(make):
    torch.manual_seed(0)
    images = pyramid(torch.rand(3, 3, 32, 32), 8)
    seen = make()._seen(images, images)
    assert [tuple(each.shape[1:]) for each in seen] == [(3, 8, 8), (6, 16, 16), (6, 32, 32)]
    black = seen[2] == 0
    assert torch.equal(black[:, :3].all(1), black[:, 3:].all(1))  # the same square is cut out of both
    assert black.any()
    unchanged = make("augmented=false")._seen(images, images)
    assert all(torch.equal(pair[:, :3], image) for pair, image in zip(unchanged, images, strict=True))


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_larger_sizes_learn_from_fewer_photographs(make, tmp_path: Path, kind: str):
    recipe = make(f"start_kind={kind}", "share=0.5", "jitter=0.05")
    assert [recipe._many(level, 4) for level in range(4)] == [4, 2, 1, 1]
    before = {name: p.clone() for name, p in recipe.networks["lapgan"].named_parameters()}
    train(recipe, tmp_path / "run", quiet=True)
    moved = {
        name.rpartition(".")[0] for name, p in recipe.networks["lapgan"].named_parameters() if (p != before[name]).any()
    }
    assert {"start.expand", "levels.0.enter", "levels.1.enter"} <= moved


def test_the_largest_sizes_may_stand_still(make, tmp_path: Path):
    recipe = make("still=1")
    before = {name: p.clone() for name, p in recipe.networks["lapgan"].named_parameters()}
    train(recipe, tmp_path / "run", quiet=True)
    moved = {name[:8] for name, p in recipe.networks["lapgan"].named_parameters() if (p != before[name]).any()}
    assert "levels.0" in moved
    assert "levels.1" not in moved
    judges = recipe.networks["discriminator"].judges
    assert [all(p.requires_grad for p in judge.parameters()) for judge in judges] == [True, True, False]
    with pytest.raises(InputError, match="no level is left that learns"):
        make("still=2")


def test_the_mean_of_the_draws_is_learned(make, tmp_path: Path):
    """Draws may vary as they like: only their mean is held to the photograph."""
    real = torch.full((4000,), 0.3)
    one, other = 0.5 + torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    assert float(lapgan.mean_error(one, other, real)) == pytest.approx(0.04, abs=0.05)
    one.requires_grad_()
    lapgan.mean_error(one, other, real).backward()
    assert float(4000 * one.grad.mean()) == pytest.approx(float((other - real).mean()), rel=1e-3)
    train(make("mean=10"), tmp_path / "run", quiet=True)
    assert "train/mean" in (tmp_path / "run" / "log.csv").read_text().split("\n")[0]


def test_a_projected_discriminator_judges_whole_samples(make, tmp_path: Path):
    recipe = make("projected=1", "projected_batch=3")
    before = {name: p.clone() for name, p in recipe.networks["projected"].named_parameters()}
    train(recipe, tmp_path / "run", quiet=True)
    assert any((p != before[name]).any() for name, p in recipe.networks["projected"].named_parameters())
    assert {"train/whole", "train/projected"} < set(
        (tmp_path / "run" / "log.csv").read_text().split("\n")[0].split(",")
    )
    leave, after = "levels.1.leave.weight", recipe.networks["lapgan"].state_dict()
    for weight, same in ((0, True), (5, False)):  # the energy score is followed, not logged alone
        again = make("projected=1", "projected_batch=3", f"energy={weight}")
        train(again, tmp_path / f"again-{weight}", quiet=True)
        assert torch.equal(again.networks["lapgan"].state_dict()[leave], after[leave]) == same
    ends = []
    for weight in (0, 500):  # it needs no discriminator
        again = make(f"spectral={weight}")
        train(again, tmp_path / f"spectral-{weight}", quiet=True)
        ends.append(again.networks["lapgan"].state_dict()[leave])
    assert not torch.equal(*ends)
    with pytest.raises(InputError, match=r"^spectral=1.*its bound"):
        make("spectral=1", "start_kind=vae", "levels=some")
    with pytest.raises(InputError, match=r"^levels=some.*name one"):
        make("start=lapgan-flowers", "levels=some")
    with pytest.raises(InputError, match=r"projected=1\.0.*features"):
        make("projected=1", "features=")
    with pytest.raises(InputError, match="32 pixels at least"):
        make("projected=1", "size=16")
    with pytest.raises(InputError, match=r"^energy=5.*projected=2, or energy=0$"):
        make("energy=5")
    for setting in ("projected=1", "spectral=1"):
        with pytest.raises(InputError, match=r"still=1.*projected=0"):
            make(setting, "still=1")


def test_precision_and_recall_are_told_apart(make):
    """Held-out pictures that are one sample over and over: all of them are recalled, one sample in six is precise."""
    recipe = make()
    network = recipe.networks["lapgan"].eval()
    one = recipe._made(network, seed=6)[-1][:1]
    held = one + 1e-3 * torch.randn(6, *one.shape[1:], generator=torch.Generator().manual_seed(0))
    recipe.held = held, torch.zeros(6, dtype=torch.int64)
    found = recipe.held_out(network)
    assert found["precision"] == pytest.approx(1 / 6)
    assert found["recall"] == 1


def test_jitter_is_of_each_images_own_strength(make):
    torch.manual_seed(0)
    image = torch.full((200, 3, 8, 8), 0.5)
    assert make()._jittered(image) is image
    strength = make("jitter=0.1")._jittered(image).sub(image).flatten(1).std(1)
    assert strength.min() < 0.02
    assert 0.07 < strength.max() < 0.13


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_run_is_one_file_with_the_whole_pyramid(make, tmp_path: Path, kind: str):
    recipe = make(f"start_kind={kind}", "basis=true")
    before = {name: p.clone() for name, p in recipe.networks["lapgan"].named_parameters()}
    train(recipe, tmp_path / "run", quiet=True)
    moved = {
        name.split(".")[0] for name, p in recipe.networks["lapgan"].named_parameters() if (p != before[name]).any()
    }
    assert moved == {"start", "levels"}
    export.export_run(tmp_path / "run", tmp_path / "net.safetensors", metrics={})
    net = catalog.load(tmp_path / "net.safetensors", {"LAPGAN": LAPGAN})
    assert (net.classes, net.start_kind) == (("red", "blue"), kind)
    assert net.start.basis.abs().amax((1, 2, 3)).gt(0).all()  # begun with the photographs
    _, average, step = recipes.load_run(tmp_path / "run")
    assert step == 2
    scores = recipe.evaluate(average)
    assert list(scores["levels"]) == ["8", "16", "32"]
    assert set(scores["levels"]["32"]) == {"made", "enlarged", "train"}
    assert "32 px: made" in recipe.table(scores)
    assert recipe.sheet(average).shape[2] == 3


def test_a_vae_start_is_trained_under_levels_that_are_there(make, tmp_path: Path):
    train(make("basis=true"), tmp_path / "uniform", quiet=True)
    export.export_run(tmp_path / "uniform", tmp_path / "uniform.safetensors", metrics={})
    theirs = catalog.load(tmp_path / "uniform.safetensors", {"LAPGAN": LAPGAN})
    given = f"levels={tmp_path / 'uniform.safetensors'}"
    recipe = make("start_kind=vae", given, "steps=3")
    before = {name: p.clone() for name, p in recipe.networks["lapgan"].named_parameters()}
    assert all(torch.equal(before[f"levels.{name}"], p) for name, p in theirs.levels.named_parameters())
    train(recipe, tmp_path / "mixed", quiet=True)
    _, average, _ = recipes.load_run(tmp_path / "mixed")
    moved = {name.split(".")[0] for name, p in average.named_parameters() if (p != before[name]).any()}
    assert moved == {"start"}
    export.export_run(tmp_path / "mixed", tmp_path / "mixed.safetensors", metrics={})
    mixed = catalog.load(tmp_path / "mixed.safetensors", {"LAPGAN": LAPGAN})
    coarse, z = torch.rand(2, 3, 8, 8), mixed.draw(2, torch.Generator().manual_seed(0))
    label, rest = torch.tensor([0, 1]), [torch.rand(2, 3, side, side) for side in (8, 16)]
    assert mixed(z, label, (coarse,)).posterior is not None
    assert torch.equal(mixed(z, label, rest).images[2], theirs(z, label, rest).images[2])


def test_a_gan_start_begins_anew_and_learns_with_the_levels_that_are_there(make, tmp_path: Path):
    train(make("basis=true"), tmp_path / "first", quiet=True)
    export.export_run(tmp_path / "first", tmp_path / "first.safetensors", metrics={})
    theirs = catalog.load(tmp_path / "first.safetensors", {"LAPGAN": LAPGAN})
    recipe = make("basis=true", f"levels={tmp_path / 'first.safetensors'}")
    net = recipe.networks["lapgan"]
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert all(torch.equal(before[f"levels.{name}"], p) for name, p in theirs.levels.named_parameters())
    recipe.begin()
    assert not net.start.leave.weight.any()  # class means and principal components alone
    train(recipe, tmp_path / "anew", quiet=True)
    moved = {name.split(".")[0] for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"start", "levels"}


def test_levels_are_refused_that_do_not_fit(make, tmp_path: Path):
    other = LAPGAN(latent=4, size=16, width=4, start_width=4, classes=["red", "blue"])
    header = {"architecture": "LAPGAN", "arguments": {"latent": 4, "size": 16, "width": 4, "start_width": 4}}
    header["arguments"]["classes"] = ["red", "blue"]
    export.export_weights(dict(other.state_dict()), tmp_path / "other.safetensors", header, torch.float32)
    with pytest.raises(InputError, match=r"a pyramid of \[8, 16\] pixels"):
        make("start_kind=vae", f"levels={tmp_path / 'other.safetensors'}")
