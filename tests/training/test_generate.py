import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch.distributions import Normal, kl_divergence

from velatura.errors import InputError
from velatura.nets.features import Features
from velatura.nets.masked_encoder import Posterior
from velatura.training import checkpoint, export, recipes
from velatura.training.loop import Training, train
from velatura.training.recipe import make_config
from velatura.training.recipes import generate
from velatura.training.recipes.inpaint import holes

FOLDER = Path(generate.__file__).parent
SMALL = ["size=32", "latent=4", "width=4", "batch_size=4", "threads=1", "log_every=1", "warmup=0", "precision=32-true"]
MORE = {"vae-faces": [], "dcgan-faces": ["critic_width=4", "penalty_every=2"]}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    torch.manual_seed(0)
    path, widths = tmp_path_factory.mktemp("features") / "random.safetensors", [4] * 5
    header = {"architecture": "Features", "arguments": {"widths": widths}}
    export.export_weights(dict(Features(widths).state_dict()), path, header, torch.float32)
    return path


@pytest.fixture
def make(photographs, features, monkeypatch):
    monkeypatch.setattr(generate, "MEASURED", 8)

    def make_recipe(name, *more):
        _, recipe, model = recipes.RECIPES[name]
        settings = [
            *SMALL,
            *MORE[name],
            f"photographs={photographs}",
            f"features={features}",
            "precision=32-true",
            *more,
        ]
        return getattr(generate, recipe)(make_config(getattr(generate, model), settings=settings))

    return make_recipe


def training_of(recipe):
    fabric = Fabric(accelerator="cpu")
    fabric.launch()
    return Training(fabric, recipe.networks, recipe.optimizers(), clip=0.0)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("vae-faces", "vae-faces"), ("vae-brain", "vae-brain"), ("vae_paper", "vae-faces"),
        ("dcgan-faces", "dcgan-faces"), ("dcgan-brain", "dcgan-brain"), ("dcgan_paper", "dcgan-faces"),
    ],
)  # fmt: skip
def test_settings_fit_their_recipe(file, name):
    _, recipe, model = recipes.RECIPES[name]
    config = make_config(getattr(generate, model), FOLDER / f"{file}.toml")
    with torch.device("meta"):
        made = getattr(generate, recipe)(config)
    assert made.name == name
    assert config.size == 64
    if not file.endswith("paper"):
        assert sum(p.numel() for p in made.networks[next(iter(made.networks))].parameters()) < 6e6


# --- one step ---------------------------------------------------------------------------------------------------------


def test_what_a_vaes_step_says_is_what_the_losses_are(make):
    """By formulas written out here."""
    recipe = make("vae-faces", "content={stride2=0.5}")
    image, mask = recipe.batch(0, 0)
    vae = recipe.networks["vae"]
    torch.manual_seed(3)
    noise = torch.randn(4, 4)
    with torch.no_grad():
        again, full = vae(image, torch.zeros_like(mask), noise)
        made, partial = vae(image, mask)
    torch.manual_seed(3)
    said = recipe.step(training_of(recipe), (image, mask), 0)
    one, two = (Normal(p.mean, (p.log_variance / 2).exp()) for p in (full, partial))
    errors = [
        [0.5 * math.log(float((a - b).square().mean()) + 1e-4) for a, b in zip(x, image, strict=True)]
        for x in (again, made)
    ]
    maps = [recipe.features(x, ["stride2"])["stride2"] for x in (again, image)]
    expected = {
        "error": np.mean(errors[0]),
        "nats": kl_divergence(one, Normal(0.0, 1.0)).sum(1).mean(),
        "link": kl_divergence(one, two).sum(1).mean(),
        "seen": np.mean(errors[1]),
        "content": 0.5 * (maps[0] - maps[1]).square().mean(),
    }
    assert {name: float(said[name]) for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-3
    )
    assert {"fill", "fill_content"} < set(said)


def test_so_many_holes_are_centre_squares_and_halves(make):
    recipe = make("vae-faces", "basis=0", "batch_size=10", "centred=.2", "halved=.5")
    masks = recipe.batch(0, 0)[1]
    size = masks.shape[-1]
    assert bool((masks[:2, 0] == torch.from_numpy(holes(size, "centre")[0])).all())
    assert all(
        any(bool((mask == torch.from_numpy(one)).all()) for one in holes(size, "half")) for mask in masks[2:7, 0]
    )


def test_a_plain_vae_sees_no_holes(make):
    recipe = make("vae-faces", "masked=0", "error=squared")
    image, mask = recipe.batch(0, 0)
    said = recipe.step(training_of(recipe), (image, torch.full_like(mask, torch.nan)), 0)
    assert set(said) == {"error", "nats"}
    assert all(math.isfinite(float(value)) for value in said.values())
    assert set(recipe.held_out(recipe.networks["vae"].eval())) == {"psnr", "kernel_distance"}


@pytest.mark.parametrize("rate", [0, 0.01])
def test_a_vae_comes_nearer(make, rate):
    recipe = make("vae-faces", f"matrix_rate={rate}", "learning_rate=5e-3", "width=8")
    training, batch, said = training_of(recipe), recipe.batch(0, 0), []
    for step in range(25):
        torch.manual_seed(step)
        said.append({name: float(value) for name, value in recipe.step(training, batch, step).items()})
    for name in ("error", "fill", "seen"):
        assert said[-1][name] < said[0][name] - 0.1, name


@pytest.mark.parametrize("loss", ["log", "hinge"])
def test_each_network_follows_its_own_loss(make, loss):
    recipe = make("dcgan-faces", f"loss={loss}")
    training, seen = training_of(recipe), {}
    descend = training.descend

    def watch(name, value):
        other = {"generator": "discriminator", "discriminator": "generator"}[name]
        before = [p.grad for p in recipe.networks[other].parameters()]
        descend(name, value)
        seen[name] = all(a is p.grad for a, p in zip(before, recipe.networks[other].parameters(), strict=True))
        assert all(p.grad is not None for p in recipe.networks[name].parameters())

    training.descend = watch
    recipe.step(training, recipe.batch(0, 0), 0)
    assert seen == {"generator": True, "discriminator": True}
    assert all(p.requires_grad for p in recipe.networks["discriminator"].parameters())


def test_the_slope_is_the_gradients_square(make):
    recipe = make("dcgan-faces", "augmented=false")
    image, z = recipe.batch(0, 0)
    critic = recipe.networks["discriminator"]
    squares = []
    for one in image:
        x = one[None].requires_grad_()
        critic(x).sum().backward()
        squares.append(float(x.grad.square().sum()))
    training = training_of(recipe)
    assert float(recipe.step(training, (image, z), 0)["slope"]) == pytest.approx(np.mean(squares), rel=1e-4)
    assert float(recipe.step(training, (image, z), 1)["slope"]) == 0


def test_a_discriminator_learns(make):
    recipe = make(
        "dcgan-faces", "augmented=false", "critic_rate=3e-3", "learning_rate=1e-6", "critic_width=8", "beta1=0.5"
    )
    training, said = training_of(recipe), []
    for step in range(20):
        torch.manual_seed(step)
        said.append(float(recipe.step(training, recipe.batch(step, 0), step)["discriminator"]))
    assert np.mean(said[-4:]) < 0.7 * said[0]


def test_a_second_discriminator_looks_through_features(make):
    recipe = make("dcgan-faces", "projected=2", "projected_rate=3e-3", "learning_rate=1e-6")
    training, said = training_of(recipe), []
    for step in range(16):
        torch.manual_seed(step)
        said.append(recipe.step(training, recipe.batch(step, 0), step))
    assert float(said[-1]["projected"]) < 0.95 * float(said[0]["projected"])
    assert float(said[0]["whole"]) != 0
    assert all(p.requires_grad for p in recipe.networks["projected"].parameters())
    assert "energy" not in said[0]
    with pytest.raises(InputError, match="features= names none"):
        make("dcgan-faces", "projected=2", "features=")


def test_draws_pay_for_being_alike_and_for_frequencies(make):
    """Both are followed, not logged alone: without them the generator ends elsewhere."""
    ends = []
    for setting in ("energy=0", "energy=50", "spectral=50"):
        recipe = make("dcgan-faces", "projected=2", "learning_rate=1e-3", setting)
        training = training_of(recipe)
        for step in range(2):
            torch.manual_seed(step)
            figures = recipe.step(training, recipe.batch(step, 0), step)
        assert setting == "energy=0" or float(figures[setting.partition("=")[0]]) != 0
        ends.append(torch.cat([p.detach().flatten() for p in recipe.networks["generator"].parameters()]))
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_a_discriminator_starts_from_weights(make, tmp_path: Path):
    """The generator learns with the one that taught it, not with a beginner."""
    first = make("dcgan-faces", "seed=1")
    critic = first.networks["discriminator"]
    file = tmp_path / "critic.safetensors"
    architecture, arguments = first.others["discriminator"]
    header = {"architecture": architecture, "arguments": arguments}
    export.export_weights(dict(critic.state_dict()), file, header, torch.float32)
    second = make("dcgan-faces", "steps=1", "critic_rate=1e-12", f"critic_start={file}")
    train(second, tmp_path / "run", quiet=True)
    for name, weight in second.networks["discriminator"].named_parameters():
        torch.testing.assert_close(weight.detach(), critic.get_parameter(name).detach(), msg=name)


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_interpolations_stay_on_the_sphere():
    one, two = torch.nn.functional.normalize(torch.randn(2, 128), dim=1)
    between = generate.interpolations(one, two, 5)
    torch.testing.assert_close(between.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(between[0], one)
    torch.testing.assert_close(between[-1], two)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MORE)
def test_a_resumed_run_equals_an_unbroken_one(make, tmp_path, name):
    settings = ["steps=3", "held_out_every=10", "ema=0.5"]
    train(make(name, *settings), tmp_path / "unbroken", quiet=True)
    train(make(name, *settings), tmp_path / "broken", max_minutes=1e-9, quiet=True)
    train(make(name, *settings), tmp_path / "broken", resume=True, quiet=True)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / run))[0] for run in ("unbroken", "broken"))
    for part, tensors in one.items():
        assert all(torch.equal(tensor, two[part][key]) for key, tensor in tensors.items()), part


def test_the_discriminator_is_exported_too(make, tmp_path):
    from velatura.catalog import load
    from velatura.errors import ModelError
    from velatura.nets.dcgan import Discriminator

    recipe, run, file = (
        make("dcgan-faces", "steps=1", "held_out_every=10"),
        tmp_path / "run",
        tmp_path / "d.safetensors",
    )
    train(recipe, run, quiet=True)
    export.export_run(run, file, metrics={}, network="discriminator", dtype=torch.float32)
    image = torch.rand(2, 3, 32, 32)
    critic = recipe.networks["discriminator"].eval()
    torch.testing.assert_close(load(file, {"Discriminator": Discriminator})(image), critic(image))
    with pytest.raises(ModelError, match="no network 'critic'; known: discriminator"):
        export.export_run(run, file, metrics={}, network="critic")


@pytest.mark.parametrize("name", MORE)
def test_a_run_is_measured_and_exported(make, tmp_path, name):
    recipe = make(name, "steps=2", "held_out_every=1", "sheet_every=1")
    train(recipe, tmp_path / "run", quiet=True)
    assert len(list((tmp_path / "run" / "sheets").glob("*.png"))) == 2
    network = next(iter(recipe.networks.values())).eval()
    scores = recipe.evaluate(network)
    assert "kernel distance" in recipe.table(scores)
    export.export_run(tmp_path / "run", tmp_path / "net.safetensors", metrics={})
    from velatura.catalog import load
    from velatura.nets.dcgan import Generator
    from velatura.nets.vae import VAE

    loaded = load(tmp_path / "net.safetensors", {"Generator": Generator, "VAE": VAE})
    assert loaded.training is False


def test_posteriors_pass_through_the_loops_precision(make):
    """Fabric walks through what a network gives."""
    recipe = make("vae-faces", "precision=bf16-mixed")
    from velatura.training.loop import _precision

    fabric = Fabric(accelerator="cpu", plugins=[_precision(recipe.config)])
    fabric.launch()
    net = fabric.setup_module(recipe.networks["vae"])
    made, posterior = net(torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))
    assert isinstance(posterior, Posterior)
    assert made.dtype == posterior.mean.dtype == torch.float32
