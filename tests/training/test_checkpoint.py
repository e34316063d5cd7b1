import json

import pytest
import torch
from torch import nn

from velatura.errors import ModelError
from velatura.training import checkpoint


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    return {
        "generator": {
            "large": torch.randn(300, 50, generator=generator),
            "small": torch.randn(7, generator=generator).bfloat16(),
            "count": torch.tensor(3),
            "empty": torch.empty(0, 4),
        },
        "critic": {"turned": torch.randn(40, 6, generator=generator).T},
    }


def equal(one, two):
    return all(
        a.dtype == two[part][name].dtype and torch.equal(a, two[part][name])
        for part, tensors in one.items()
        for name, a in tensors.items()
    )


def test_what_is_saved_comes_back(tmp_path, parts):
    folder = checkpoint.save(tmp_path, 12, parts, {"minutes": 0.1 + 0.2})
    assert checkpoint.latest(tmp_path) == folder
    loaded, state = checkpoint.load(folder)
    assert equal(parts, loaded)
    assert state == {"step": 12, "minutes": 0.1 + 0.2}


def test_files_stay_small(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST", 10_000)
    folder = checkpoint.save(tmp_path, 1, parts, {})
    files = sorted(folder.glob("generator-*.safetensors"))
    assert len(files) >= 6
    assert max(file.stat().st_size for file in files) < 10_000 + 1_000
    loaded, _ = checkpoint.load(folder)
    assert equal(parts, loaded)


def test_more_than_ten_pieces_come_back_in_order(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST", 2_000)
    loaded, _ = checkpoint.load(checkpoint.save(tmp_path, 1, parts, {}))
    assert equal(parts, loaded)


def test_no_pickles(tmp_path, parts):
    folder = checkpoint.save(tmp_path, 1, parts, {})
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".json"}


def test_the_last_two_are_kept(tmp_path, parts):
    for step in (5, 10, 100):
        checkpoint.save(tmp_path, step, parts, {})
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000100"]


def test_a_save_that_fails_leaves_the_last_one(tmp_path, parts, monkeypatch):
    good = checkpoint.save(tmp_path, 1, parts, {})
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 2, parts, {"not JSON": object()})
    assert checkpoint.latest(tmp_path) == good
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [good.name]


def test_remains_of_a_killed_save_are_passed_over(tmp_path, parts):
    good = checkpoint.save(tmp_path, 1, parts, {})
    remains = tmp_path / "checkpoints" / ".partial-00000002-1"
    remains.mkdir()
    (remains / "state.json").write_text("{}")
    assert checkpoint.latest(tmp_path) == good


def test_remains_of_killed_saves_are_removed(tmp_path, parts):
    good = checkpoint.save(tmp_path, 1, parts, {})
    (good.parent / ".partial-00000002-1").mkdir()
    (good.parent / "step-00000003").mkdir()  # its removal had begun
    checkpoint.remove_remains(tmp_path)
    assert list(good.parent.iterdir()) == [good]


@pytest.mark.parametrize("lost", ["state.json", "critic.safetensors"])
def test_an_incomplete_checkpoint_is_passed_over(tmp_path, parts, lost):
    good = checkpoint.save(tmp_path, 1, parts, {})
    (checkpoint.save(tmp_path, 2, parts, {}) / lost).unlink()
    assert checkpoint.latest(tmp_path) == good
    again = checkpoint.save(tmp_path, 2, parts, {})
    assert checkpoint.latest(tmp_path) == again
    assert equal(parts, checkpoint.load(again)[0])


def test_the_same_step_saved_again_is_never_absent(tmp_path, parts, monkeypatch):
    def killed(*_, **__):
        raise SystemError("killed")

    first = checkpoint.save(tmp_path, 1, parts, {"minutes": 1})
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.shutil, "rmtree", killed)
        assert checkpoint.save(tmp_path, 1, parts, {"minutes": 2}) == first
    assert equal(parts, checkpoint.load(first)[0])


def test_a_removal_that_is_broken_off_leaves_no_checkpoint(tmp_path, parts, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, parts, {})
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda folder, **_: None)
    newest = checkpoint.save(tmp_path, 3, parts, {}, keep=1)
    assert not list((tmp_path / "checkpoints").glob("step-0000000[12]/state.json"))
    assert checkpoint.latest(tmp_path) == newest


@pytest.mark.parametrize("damage", ["missing", "cut", "renamed"])
def test_damage_is_told(tmp_path, parts, damage):
    folder = checkpoint.save(tmp_path, 1, parts, {})
    file = folder / "critic.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        state = json.loads((folder / "state.json").read_text())
        state["shapes"]["critic"] = {"other": [240]}
        (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match="incomplete or damaged"):
        checkpoint.load(folder)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_optimizers_go_on_exactly(tmp_path, kind):
    torch.manual_seed(0)
    data = torch.randn(20, 4)

    def steps(net, optimizer, chosen):
        for row in chosen:
            optimizer.zero_grad()
            net(row).square().sum().backward()
            optimizer.step()

    net = nn.Linear(4, 2)
    optimizer = kind(net.parameters(), lr=0.01)
    steps(net, optimizer, data[:10])
    tensors, plain = checkpoint.optimizer_state(optimizer)
    folder = checkpoint.save(tmp_path, 10, {"net": net.state_dict(), "optimizer": tensors}, {"optimizer": plain})

    loaded, state = checkpoint.load(folder)
    other = nn.Linear(4, 2)
    other.load_state_dict(loaded["net"])
    resumed = kind(other.parameters(), lr=0.5)
    checkpoint.restore_optimizer(resumed, loaded["optimizer"], state["optimizer"])
    steps(net, optimizer, data[10:])
    steps(other, resumed, data[10:])
    assert torch.equal(net.weight, other.weight)
