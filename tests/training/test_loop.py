import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import Tiny, config

from velatura.errors import Cancelled, InputError, MachineError, ModelError
from velatura.training import checkpoint
from velatura.training.loop import learning_rate, train


def run_apart(*arguments):
    """Train in a new process, so that nothing but the checkpoint is carried over."""
    return subprocess.run([sys.executable, Path(__file__).with_name("tiny.py"), *map(str, arguments)], check=False)


def assert_equal(one: Path, two: Path):
    """The same tensors and numbers, bit for bit."""
    (parts, state), (others, other_state) = (checkpoint.load(checkpoint.latest(run)) for run in (one, two))
    assert parts.keys() == others.keys() == {
        "generator", "critic", "average", "generator-optimizer", "critic-optimizer"
    }  # fmt: skip
    for part, tensors in parts.items():
        assert tensors.keys() == others[part].keys()
        assert all(torch.equal(tensor, others[part][name]) for name, tensor in tensors.items()), part
    for key in ("step", "sums", "counted", "optimizers"):
        assert state[key] == other_state[key]


def log(run: Path, *, without=("minutes", "images_per_second")):
    with (run / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    train(Tiny(config(11)), run, quiet=True)
    return run


@pytest.mark.parametrize("stopped", [1, 4, 7])
def test_a_resumed_run_equals_an_unbroken_one(unbroken, tmp_path, stopped):
    with pytest.raises(Cancelled, match=f"stopped at step {stopped}"):
        train(Tiny(config(11), stop_at=stopped - 1), tmp_path, quiet=True)
    torch.rand(5)  # whatever else used the generator in between
    train(Tiny(config(11)), tmp_path, resume=True, quiet=True)
    assert_equal(unbroken, tmp_path)
    assert log(unbroken) == log(tmp_path)


def test_a_killed_run_goes_on_exactly_in_a_new_process(unbroken, tmp_path):
    """Checkpoint after every step; killed in the middle of one; resumed elsewhere."""
    killed = run_apart(tmp_path, 11, "--die-at", 6, "--every", 1e-9)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.load(checkpoint.latest(tmp_path))[1]["step"] == 6
    assert run_apart(tmp_path, 11, "--resume").returncode == 0
    assert_equal(unbroken, tmp_path)
    assert log(unbroken) == log(tmp_path)


def test_killed_between_checkpoints_the_steps_since_are_done_again(unbroken, tmp_path):
    with pytest.raises(Cancelled):
        train(Tiny(config(11), stop_at=2), tmp_path, quiet=True)
    assert run_apart(tmp_path, 11, "--resume", "--die-at", 9).returncode == -signal.SIGKILL
    assert [row["step"] for row in log(tmp_path)][-1] == "8"  # logged, but after the checkpoint
    train(Tiny(config(11)), tmp_path, resume=True, quiet=True)
    assert_equal(unbroken, tmp_path)
    assert log(unbroken) == log(tmp_path)


def test_the_test_can_fail(unbroken, tmp_path):
    train(Tiny(config(11, seed=6)), tmp_path, quiet=True)
    with pytest.raises(AssertionError):
        assert_equal(unbroken, tmp_path)


def test_a_finished_run_resumes_to_itself(unbroken, tmp_path):
    train(Tiny(config(11)), tmp_path, quiet=True)
    train(Tiny(config(11)), tmp_path, resume=True, quiet=True)
    assert_equal(unbroken, tmp_path)


def test_log_holds_training_and_held_out_side_by_side(unbroken):
    rows = log(unbroken, without=())
    assert [int(row["step"]) for row in rows] == [0, 2, 4, 6, 8, 10]
    assert [bool(row["held_out/loss"]) for row in rows] == [True, False, True, False, True, False]
    assert all(float(row["train/loss"]) > 0 for row in rows[1:])
    assert (unbroken / "sheets" / "step-00000008.png").is_file()
    assert json.loads((unbroken / "config.json").read_text())["settings"]["seed"] == 5


def test_the_average_follows_the_generator(unbroken):
    parts, _ = checkpoint.load(checkpoint.latest(unbroken))
    name = "0.weight"
    assert not torch.equal(parts["average"][name], parts["generator"][name])
    torch.testing.assert_close(parts["average"][name], parts["generator"][name], atol=0.05, rtol=0)


def test_a_recipe_begins_once(tmp_path):
    recipe, begun = Tiny(config(2)), []
    recipe.begin = lambda: (
        begun.append("before") or torch.nn.init.ones_(next(recipe.networks["generator"].parameters()))
    )  # type: ignore[attr-defined]
    train(recipe, tmp_path, quiet=True)
    again = Tiny(config(3))
    again.begin = lambda: begun.append("again")  # type: ignore[attr-defined]
    train(again, tmp_path, resume=True, quiet=True)
    assert begun == ["before"]


def test_nan_names_step_and_checkpoint(tmp_path):
    with pytest.raises(MachineError, match=r"loss is nan at step 5; last good checkpoint: .*step-0000000[45]"):
        train(Tiny(config(11, checkpoint_minutes=1e-9), nan_at=5), tmp_path, quiet=True)


def test_max_minutes_saves_and_stops(tmp_path):
    final = train(Tiny(config(100_000)), tmp_path, max_minutes=1e-9, quiet=True)
    assert checkpoint.load(final)[1]["step"] == 1


def test_an_existing_run_is_not_overwritten(unbroken):
    with pytest.raises(InputError, match="--resume"):
        train(Tiny(config(11)), unbroken, quiet=True)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "run").write_text("a note")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        train(Tiny(config(11)), tmp_path / "run", quiet=True)


def test_other_networks_are_refused(unbroken):
    other = Tiny(config(11))
    other.networks["critic"] = torch.nn.Linear(3, 1)
    with pytest.raises(ModelError, match="other networks"):
        train(other, unbroken, resume=True, quiet=True)


def test_mixed_precision_and_clipping(tmp_path):
    """Mixed precision leaves the inputs as they are, so that pictures keep their bits."""
    recipe = Tiny(config(3, precision="bf16-mixed", channels_last=True, clip=0.1))
    seen = []
    recipe.networks["generator"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    train(recipe, tmp_path, quiet=True)
    assert torch.float32 in seen
    assert torch.bfloat16 not in seen


def test_learning_rate_ends_where_it_should():
    settings = config(100, warmup=10, final_rate=0.1)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert max(rates) == settings.learning_rate == rates[10]
    assert rates[100] == pytest.approx(0.1 * settings.learning_rate)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    assert run_apart(tmp_path, 4, "--devices", 2).returncode == 0
    assert checkpoint.load(checkpoint.latest(tmp_path))[1]["step"] == 4


def test_settings_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    train(Tiny(config(1)), tmp_path, quiet=True)
    before = (tmp_path / "config.json").read_bytes()

    def killed(path, target):
        raise SystemError("killed")

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemError, match="killed"):
        train(Tiny(config(1, batch_size=3)), tmp_path, resume=True, quiet=True)
    assert (tmp_path / "config.json").read_bytes() == before


def test_remains_of_a_killed_run_are_removed(tmp_path):
    remains = tmp_path / "checkpoints" / ".partial-00000001-1"
    remains.mkdir(parents=True)
    train(Tiny(config(1)), tmp_path, quiet=True)
    assert not remains.exists()


def test_a_batch_that_fails_is_told(tmp_path):
    recipe = Tiny(config(11))
    recipe.batch = lambda step, rank: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path, quiet=True)
