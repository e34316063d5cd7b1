from pathlib import Path

import pytest
import torch
from data_folder import crop
from safetensors import safe_open

from velatura.errors import InputError
from velatura.training import export, recipes
from velatura.training.loop import train
from velatura.training.recipe import make_config
from velatura.training.recipes import restore, restore_triplet

LOOP = ["batch_size=4", "patch=32", "threads=1", "log_every=1", "warmup=0", "held_out_every=100", "ema=0"]
VAE = ["latent=4", "width=4", "blocks=1"]
MAPPING = ["latent=4", "vae_width=4", "vae_blocks=1", "width=6", "blocks=2", "window=4", "halo=2"]
RECIPES = Path(restore_triplet.__file__).parent


@pytest.fixture(scope="module")
def old_folder(tmp_path_factory):
    """Real old photographs, as far as the tests have any."""
    folder = tmp_path_factory.mktemp("old")
    for name in ("old_photos", "faces128/gray"):
        (folder / name).mkdir(parents=True)
        for seed in range(40):
            (folder / name / f"p{seed}.png").write_bytes(crop(seed))
    (folder / "faces128" / "index.csv").write_text("file,name\n" + "".join(f"gray/p{i}.png,\n" for i in range(40)))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(restore_triplet, "COUNT", 4)
    monkeypatch.setattr(restore_triplet, "SIDE", 32)
    monkeypatch.setattr(restore, "QUICK", (2, 48))
    monkeypatch.setattr(restore, "ALL", (2, 48))


def make(name, photographs, old_folder, *more):
    recipe, model = (getattr(restore_triplet, part) for part in recipes.RECIPES[name][1:])
    sizes = MAPPING if name == "triplet-mapping" else VAE
    settings = [*LOOP, *sizes, f"photographs={photographs}", f"data={old_folder}", *more]
    return recipe(make_config(model, settings=settings))


def losses(run, name):
    lines = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
    column = lines[0].index(f"train/{name}")
    return [float(line[column]) for line in lines[2:]]


@pytest.fixture(scope="module")
def files(photographs, old_folder, tmp_path_factory):
    """Both autoencoders, after a step."""
    folder, found = tmp_path_factory.mktemp("vaes"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_triplet, "COUNT", 4)
        patch.setattr(restore_triplet, "SIDE", 32)
        for name, key in (("triplet-vae-old", "vae_old"), ("triplet-vae-clean", "vae_clean")):
            train(make(name, photographs, old_folder, "steps=1"), folder / name, quiet=True)
            found[key] = folder / f"{name}.safetensors"
            export.export_run(folder / name, found[key], metrics={})
    return [f"{key}={file}" for key, file in found.items()]


@pytest.mark.parametrize("name", ["triplet-vae-old", "triplet-vae-clean"])
def test_an_autoencoder_learns_its_photographs(name, photographs, old_folder, tmp_path):
    recipe = make(name, photographs, old_folder, "steps=50", "learning_rate=3e-3")
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    train(recipe, tmp_path, quiet=True)
    found = losses(tmp_path, "pixel")
    assert found[-1] < 0.7 * found[0]
    measured, network, _ = recipes.load_run(tmp_path)
    scores = measured.evaluate(network)
    assert "psnr" in measured.table(scores)
    assert measured.sheet(network).shape[2] == 3


def test_half_of_a_batch_is_real(photographs, old_folder):
    real, synthetic = make("triplet-vae-old", photographs, old_folder).batch(0, 0)
    assert real.shape == synthetic.shape == (2, 3, 32, 32)


def test_the_encoder_follows_the_critic_from_its_step_on(photographs, old_folder, tmp_path):
    weights = {}
    for name, more in (("never", "critic=0"), ("later", "critic_from=2"), ("now", "critic_from=0")):
        recipe = make("triplet-vae-old", photographs, old_folder, "steps=1", more)
        train(recipe, tmp_path / name, quiet=True)
        weights[name] = torch.cat([p.detach().flatten() for p in recipe.networks["vae"].encoder.parameters()])
    torch.testing.assert_close(weights["never"], weights["later"])
    assert not torch.allclose(weights["later"], weights["now"])


def test_distance_tells_kinds_apart():
    torch.manual_seed(0)
    one, two = torch.randn(2, 40, 4, 6, 6)
    assert abs(restore_triplet.latent_distance(one, two)) < 0.2
    near, far = (restore_triplet.latent_distance(one, shift + two) for shift in (0.2, 0.5))
    assert 0.2 < near < far
    assert restore_triplet.latent_distance(one, 2 * two) > 0.1  # by their spread, too
    scaled = restore_triplet.latent_distance(3 * one, 3 * two + 1.5)
    assert scaled == pytest.approx(far, rel=1e-3)  # whatever the unit


def test_the_mapping_leaves_the_autoencoders_alone(photographs, old_folder, files, tmp_path):
    recipe = make("triplet-mapping", photographs, old_folder, *files, "steps=30", "learning_rate=3e-3")
    batch = recipe.batch(0, 0)
    recipe.batch = lambda step, rank: batch
    triplet = recipe.networks["triplet"]
    frozen = {name: p.clone() for name, p in triplet.named_parameters() if not name.startswith("mapping")}
    decoder = recipe.ceiling.decoder.state_dict()
    for name, tensor in triplet.clean.decoder.state_dict().items():
        assert torch.equal(tensor, decoder[name])
    train(recipe, tmp_path / "run", quiet=True)
    for name, tensor in frozen.items():
        assert torch.equal(triplet.get_parameter(name), tensor), name
    found = losses(tmp_path / "run", "latents")
    assert found[-1] < 0.8 * found[0]

    # The run holds the whole triplet: the files are needed no more.
    measured, network, _ = recipes.load_run(tmp_path / "run", ["vae_old=none", "vae_clean=none"])
    scores = measured.evaluate(network)
    assert "ceiling" not in scores
    export.export_run(tmp_path / "run", tmp_path / "triplet.safetensors", metrics=scores)
    with safe_open(tmp_path / "triplet.safetensors", "pt") as opened:
        header = opened.metadata()
    assert header["architecture"] == "Triplet"
    assert '"vae_old": "triplet-vae-old.safetensors"' in header["recipe"]


def test_the_ceiling_is_measured(photographs, old_folder, files):
    recipe = make("triplet-mapping", photographs, old_folder, *files)
    network = recipe.networks["triplet"]
    figures = recipe.held_out(network)
    assert figures["ceiling"] > 5
    assert {"lines", "lines_input", "faded", "clean"} <= set(figures)
    assert recipe.sheet(network).shape == (3 * 48, 6 * 48, 3)


def test_faded_colour_is_to_come_back_unless_left_to_others(photographs, old_folder):
    recipe = make("triplet-mapping", photographs, old_folder)
    (scan,) = recipe.held["faded"][:1]
    assert recipe._target(scan) is scan.original
    recipe.config = recipe.config.model_copy(update={"color": False})
    assert recipe._target(scan) is scan.faded


def test_it_wants_autoencoders(photographs, old_folder):
    recipe = make("triplet-mapping", photographs, old_folder)
    with pytest.raises(InputError, match="no autoencoders to map between: --set vae_old=FILE"):
        recipe.optimizers()
    with pytest.raises(InputError, match="no autoencoder of clean photographs: --set vae_clean=FILE"):
        _ = recipe.ceiling


def test_muon_changes_the_mapping_alone(photographs, old_folder, files):
    recipe = make("triplet-mapping", photographs, old_folder, *files, "matrix_rate=0.01")
    groups = recipe.optimizers()["triplet"].param_groups
    chosen = {id(p) for group in groups for p in group["params"]}
    mapping = {id(p) for p in recipe.networks["triplet"].mapping.parameters()}
    assert chosen == mapping


@pytest.mark.parametrize("end", ["", "_paper"])
@pytest.mark.parametrize("name", ["triplet-vae-old", "triplet-vae-clean", "triplet-mapping"])
def test_settings_fit_their_recipe(name, end):
    model = getattr(restore_triplet, recipes.RECIPES[name][2])
    config = make_config(model, RECIPES / f"{name}{end}.toml")
    assert (config.patch, config.wear) == ((256, "paper") if end else (128, "scan"))
    assert (config.matrix_rate == 0) == bool(end)
