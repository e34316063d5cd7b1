import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from velatura.cli import main
from velatura.errors import InputError, ModelError
from velatura.nets.blending_gan import Critic
from velatura.ops import masks
from velatura.training import recipes
from velatura.training.__main__ import main as module_main
from velatura.training.recipe import make_config
from velatura.training.recipes import blend

SMALL = ["width=8", "bottleneck=16", "critic_width=4", "batch_size=4", "held_out_pairs=30", "threads=1"]


@pytest.fixture
def config(data_folder):
    return make_config(blend.BlendConfig, settings=[*SMALL, f"data={data_folder}"])


def options(settings):
    return [word for setting in settings for word in ("--set", setting)]


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_pairs_are_what_they_say(config):
    composite, mask, target, source = blend.Pairs(config, "train").draw(np.random.default_rng(0), 60)
    assert composite.shape == target.shape == source.shape == (60, 3, 64, 64)
    assert mask.shape == (60, 1, 64, 64)
    assert composite.min() >= 0
    assert composite.max() <= 1
    outside, inside = (mask == 0).expand_as(composite), (mask == 1).expand_as(composite)
    torch.testing.assert_close(composite[outside], target[outside])
    torch.testing.assert_close(composite[inside], source[inside])
    change = ((composite - target).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    assert 0.02 < (change < 1e-6).float().mean() < 0.25  # pairs in which nothing changes
    assert change.median() > 0.03


def test_pairs_to_measure_are_aligned_and_hard(config):
    _, mask, target, source = blend.Pairs(config, "held-out").draw(np.random.default_rng(0), 40, plain=True)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    square = torch.from_numpy(masks.centre_square(64, 64))
    assert 10 <= (mask[:, 0] == square).all(2).all(1).sum() <= 30
    # In another light, but the same picture: brightness still goes together.
    grey = [x.mean(1).flatten(1) - x.mean((1, 2, 3))[:, None] for x in (target, source)]
    likeness = torch.nn.functional.cosine_similarity(*grey)
    assert likeness.median() > 0.8


def test_foreign_sources_are_other_photographs(config):
    """Their brightness does not go together with the destination's, beyond what any two photographs share."""
    pairs = blend.Pairs(config, "train")
    likeness = []
    for foreign in (False, True):
        _, _, target, source = pairs.draw(np.random.default_rng(0), 40, plain=True, foreign=foreign)
        outside = [x.mean(1)[:, :12].flatten(1) for x in (target, source)]
        outside = [x - x.mean(1, keepdim=True) for x in outside]
        likeness.append(torch.nn.functional.cosine_similarity(*outside).median())
    assert likeness[0] > 0.8
    assert likeness[1] < 0.4


def test_a_batch_is_a_function_of_seed_and_step(config):
    first, second = blend.Blend(config), blend.Blend(config)
    first.batch(6, 0)
    for one, two in zip(first.batch(7, 0), second.batch(7, 0), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.batch(7, 0)[0], first.batch(8, 0)[0])
    assert not torch.equal(first.batch(7, 0)[0], first.batch(7, 1)[0])


def test_a_users_scenes(data_folder, tmp_path):
    with zipfile.ZipFile(data_folder / "scenes96.zip") as archive:
        for i, name in enumerate(archive.namelist()):
            scene = tmp_path / f"webcam{i % 10:02d}"
            scene.mkdir(exist_ok=True)
            (scene / f"{i}.png").write_bytes(archive.read(name))
    config = make_config(blend.BlendConfig, settings=[*SMALL, f"scenes={tmp_path}", "centre_share=1", "soft_share=0"])
    train, held = blend.Pairs(config, "train"), blend.Pairs(config, "held-out")
    assert (len(train.scenes), len(held.scenes)) == (9, 1)
    composite, mask, target, source = train.draw(np.random.default_rng(0), 8)
    assert mask.mean() == 0.25
    torch.testing.assert_close(composite, source * mask + target * (1 - mask))
    assert not torch.equal(source, target)


def test_a_users_scenes_are_refused(tmp_path):
    for folder, said in ((tmp_path / "none", "not a folder"), (tmp_path, "no folder with two images")):
        with pytest.raises(InputError, match=said):
            blend.Pairs(make_config(blend.BlendConfig, {"scenes": str(folder)}), "train")


# --- mathematics ------------------------------------------------------------------------------------------------------


def test_poisson_undoes_what_is_harmonic():
    """Source = destination + a harmonic function: the destination comes back exactly."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="ij")
    harmonic = torch.stack([x * x - y * y, x * y, 1 + x - 2 * y])
    destination = torch.rand(3, 24, 24)
    mask = torch.from_numpy(masks.ellipse(24, 24, (11, 13), (7, 9)))[None]
    result = blend.poisson(destination + harmonic, destination, mask)
    torch.testing.assert_close(result, destination, atol=1e-5, rtol=0)


def test_poisson_satisfies_its_equation_and_keeps_the_rest():
    source, destination = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    mask = torch.from_numpy(masks.rectangle(20, 20, 4, 5, 15, 16))[None]
    result = blend.poisson(source, destination, mask)
    outside = (mask == 0).expand_as(result)
    assert torch.equal(result[outside], destination[outside])
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    defect = torch.nn.functional.conv2d((result - source)[:, None], laplacian, padding=1)[:, 0]
    assert (defect * mask).abs().max() < 1e-5


def test_poisson_reaches_over_the_border():
    source, destination = torch.rand(2, 3, 16, 16)
    mask = torch.from_numpy(masks.rectangle(16, 16, -1, 4, 9, 17))[None]
    assert blend.poisson(source, destination, mask).isfinite().all()


def test_gradient_penalty_of_a_known_critic():
    """A linear critic of slope 3 everywhere: (3 - 1)^2."""
    direction = torch.randn(3, 8, 8)
    direction *= 3 / direction.norm()
    penalty = blend.gradient_penalty(
        lambda x: (x * direction).sum((1, 2, 3)), torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8)
    )
    assert penalty.item() == pytest.approx(4, rel=1e-5)


class Oracle(torch.nn.Module):
    """Gives a fixed answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, composite, mask):
        return self.answer(composite, mask)


def test_evaluate_knows_a_perfect_and_an_idle_network(config):
    target = blend.Pairs(config, "held-out").draw(np.random.default_rng(64), 40, plain=True)[2]
    idle = blend.evaluate(Oracle(lambda c, m: c), config, pairs=40)
    perfect = blend.evaluate(Oracle(lambda c, m: target), config, pairs=40)
    for unit in ("levels", "ciede2000"):
        assert idle["rows"]["all"]["ours"][unit][0] == idle["rows"]["all"]["paste"][unit][0]
        assert perfect["rows"]["all"]["ours"][unit][0] == pytest.approx(0, abs=1e-6)
        assert idle["rows"]["all"]["poisson"][unit][0] < idle["rows"]["all"]["paste"][unit][0]
    assert idle["identity"] == {"mean": 0, "max": 0}
    assert list(idle["rows"]) == ["all", "centre square", "irregular", "other photo"]
    assert "centre square  poisson" in blend.table(idle)
    json.dumps(idle)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wasserstein", ["clipping", "penalty"])
def test_a_few_steps_move_both_networks(config, tmp_path, wasserstein):
    from velatura.training.loop import train

    recipe = blend.Blend(
        config.model_copy(update={"steps": 3, "wasserstein": wasserstein, "log_every": 1, "warmup": 0})
    )
    before = {name: [p.clone() for p in net.parameters()] for name, net in recipe.networks.items()}
    train(recipe, tmp_path, quiet=True)
    for name, net in recipe.networks.items():
        assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), before[name], strict=True))
    if wasserstein == "clipping":
        assert max(p.abs().max().item() for p in recipe.networks["critic"].parameters()) <= 0.01 + 1e-7


def test_the_critic_waits(config):
    recipe = blend.Blend(config.model_copy(update={"critic_from": 5}))

    class Training:
        networks = recipe.networks
        descended: list = []  # noqa: RUF012

        def descend(self, name, loss):
            self.descended.append(name)

    recipe.step(Training(), recipe.batch(4, 0), 4)
    assert Training.descended == ["generator"]
    recipe.step(Training(), recipe.batch(5, 0), 5)
    assert Training.descended == ["generator", "critic", "generator"]


def test_training_lowers_the_loss(config, tmp_path):
    """Without the prior there is something to learn in a minute."""
    recipe = blend.Blend(
        config.model_copy(
            update={
                "steps": 160,
                "prior": False,
                "foreign_share": 0.0,
                "adversarial": 0.0,
                "learning_rate": 2e-3,
                "warmup": 5,
                "ema": 0.9,
            }
        )
    )
    before = recipe.held_out(recipe.networks["generator"])
    from velatura.training.loop import train

    train(recipe, tmp_path, quiet=True)
    after = recipe.held_out(recipe.networks["generator"])
    assert before["levels"] == pytest.approx(before["levels_paste"])
    assert after["levels"] < 0.95 * before["levels"]


def test_command_line(data_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VELATURA_DATA", str(data_folder))
    monkeypatch.setenv("COLUMNS", "200")
    run = tmp_path / "run"
    few = [*options(SMALL), "--set", "log_every=1"]
    assert main(["train", "blend", "-o", str(run), *few, "--set", "steps=2"]) == 0
    assert main(["train", "blend", "-o", str(run), "--resume", "--set", "steps=3", "--quiet"]) == 0
    assert (run / "sheets" / "step-00000003.png").is_file()
    recipe, network, step = recipes.load_run(run)
    assert (step, recipe.config.width, recipe.config.steps) == (3, 8, 3)  # settings are the run's
    assert network(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)).shape == (1, 3, 64, 64)

    capsys.readouterr()
    file = tmp_path / "small.safetensors"
    assert module_main(["export", str(run), "-o", str(file)]) == 0
    assert "centre square" in capsys.readouterr().out
    assert file.stat().st_size < 2**20
    assert str(tmp_path) not in file.read_bytes()[:20_000].decode("latin-1")  # no paths of this machine


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["blend", "--set", "widht=3"], "the nearest one is 'width'"),
        (["blnd"], "unknown recipe 'blnd'; there are blend"),
        (["blend", "--config", "nothing.toml"], "cannot be read"),
        (["blend"], "no data folder"),
    ],
)
def test_command_line_refuses_in_one_line(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VELATURA_DATA", raising=False)
    assert main(["train", *words, "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_papers_setting_is_found_by_name(data_folder, tmp_path):
    """Its network is large, so only its first refusal is waited for."""
    with pytest.raises(InputError, match="scenes folder"):
        recipes.run("blend", tmp_path, config=blend.Path("blend_paper"), settings=["scenes=/nowhere", "width=4"])


def test_a_run_without_checkpoint_is_told(tmp_path):
    with pytest.raises(ModelError, match="no complete checkpoint"):
        recipes.load_run(tmp_path)


def test_without_lightning_it_says_what_to_install(data_folder, tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.modules["lightning"] = None
from velatura.errors import MachineError
from velatura.training import recipes
try:
    recipes.run("blend", Path({str(tmp_path)!r}), settings=["data={data_folder}"])
except MachineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'velatura[train]'" in done.stdout, done.stderr


def test_critic_fits_the_loss():
    assert Critic(4)(torch.rand(2, 3, 64, 64)).requires_grad


@pytest.mark.training
def test_the_prior_alone_beats_poisson_on_real_images(real_data):
    config = make_config(blend.BlendConfig, {"data": str(real_data)}, settings=["width=8", "bottleneck=16"])
    network = blend.Blend(config).networks["generator"].eval()
    rows = blend.evaluate(network, config, pairs=200)["rows"]["all"]
    assert rows["ours"]["levels"][2] < rows["poisson"]["levels"][1] < rows["paste"]["levels"][1]
