"""Several processes: the shares of a batch, and the losses of one process."""

import csv
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared import Shared
from tiny import config

from velatura.errors import InputError
from velatura.training import checkpoint, loop
from velatura.training.loop import train


def test_shares_are_the_batch():
    whole = torch.arange(12).reshape(6, 2)
    shares = [loop._share(whole, rank, 3) for rank in range(3)]
    assert [share[:, 0].tolist() for share in shares] == [[0, 6], [2, 8], [4, 10]]
    assert loop._share(whole, 0, 1) is whole


def test_halves_are_shared_out_each():
    """Latents for two uses stand one after the other: what belongs to an image goes where the image goes."""
    images, latents = torch.arange(4), torch.cat([torch.arange(4), 10 + torch.arange(4)])
    for rank in range(2):
        mine = loop._share(images, rank, 2)
        assert torch.equal(loop._share(latents, rank, 2), torch.cat([mine, 10 + mine]))


def test_what_does_not_come_out_even_is_filled_up():
    assert [loop._share(torch.arange(3), rank, 2).tolist() for rank in range(2)] == [[0, 2], [1, 0]]


def test_batches_that_cannot_be_shared_are_refused(tmp_path):
    with pytest.raises(InputError, match="batch_size 4 cannot be shared by 3 processes; choose a multiple of 3"):
        train(Shared(config(1, devices=3)), tmp_path, quiet=True)
    recipe = Shared(config(1, devices=2))
    recipe.divisible = False  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="one process has to see them all; leave out --devices"):
        train(recipe, tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


def test_torchrun_says_how_many(monkeypatch):
    assert loop._world(config(1, devices=2, num_nodes=3)) == (2, 3)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert loop._world(config(1)) == (4, 2)


def run_apart(*words, launcher=()):
    script = Path(__file__).with_name("shared.py")
    subprocess.run([sys.executable, *launcher, script, *map(str, words)], check=True, timeout=600)


def rows(run: Path):
    with (run / "log.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("minutes", "images_per_second")} for row in csv.DictReader(file)
        ]


def assert_alike(one: Path, other: Path):
    """Losses and weights are the same within the rounding of float32."""
    for row, its in zip(rows(one), rows(other), strict=True):
        assert row.keys() == its.keys()
        for name, value in row.items():
            assert (value == its[name] == "") or float(its[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), (
                name
            )
    (parts, _), (others, _) = (checkpoint.load(checkpoint.latest(run)) for run in (one, other))
    for part in ("generator", "critic", "average"):
        for name, tensor in parts[part].items():
            torch.testing.assert_close(tensor, others[part][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    run_apart(tmp_path / "one", 6)
    run_apart(tmp_path / "two", 6, "--devices", 2)
    assert_alike(tmp_path / "one", tmp_path / "two")
    # Resumed on another number of processes.
    run_apart(tmp_path / "one", 9, "--resume")
    run_apart(tmp_path / "two", 9, "--resume")
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_starts_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}")
    run_apart(tmp_path / "one", 4)
    run_apart(tmp_path / "two", 4, launcher=launcher)
    assert_alike(tmp_path / "one", tmp_path / "two")
