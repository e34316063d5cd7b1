"""Weights come in whole and as described, or not at all."""

import hashlib
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from velatura import catalog
from velatura.errors import ModelError


class Tiny(nn.Module):
    """A network with everything that a state can hold: convolution, norm with a counter, a constant buffer."""

    def __init__(self, width: int = 4, depth: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.more = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.register_buffer("window", torch.tensor([0.25, 0.5, 0.25]), persistent=False)


TINY = {"Tiny": Tiny}


def write(path: Path, state: dict, architecture: str = "Tiny", arguments: object = None) -> Path:
    notes = {"architecture": architecture, "arguments": json.dumps(arguments or {}), "commit": "abc1234"}
    notes["recipe"] = json.dumps({"name": "tiny", "settings": {"steps": 3}})
    save_file(state, path, notes)
    return path


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> Path:
    """A catalog of one model, complete and true."""
    weights = tmp_path / "weights"
    weights.mkdir()
    state = {key: value.half() if value.is_floating_point() else value for key, value in tiny.state_dict().items()}
    write(weights / "tiny-net.safetensors", state, arguments={"width": 4})
    toml = tmp_path / "catalog.toml"
    toml.write_text(
        '# A comment that stays.\n\n[tiny-net]\ntask = "blend"\nfile = "tiny-net.safetensors"\nsha256 = ""\n'
        'commercial_use = true\ncommercial_use_reason = "made of random numbers"\nweights_licence = "Apache-2.0"\n'
        'recipe = "none"\nprotocol = "none"\npaper = "none"\nlimits = ["It does nothing."]\n\n'
        '[[tiny-net.images]]\nset = "noise"\nterms = "free"\ncount = 1\n\n'
        '# The last comment.\n[other]\ntask = "none"\n'
    )
    monkeypatch.setattr(catalog, "WEIGHTS", weights)
    monkeypatch.setattr(catalog, "CATALOG", toml)
    catalog.fill_card("tiny-net")
    toml.write_text(toml.read_text().replace('[other]\ntask = "none"\n', ""))
    catalog._read_catalog.cache_clear()
    yield tmp_path
    catalog._read_catalog.cache_clear()


# --- cards


def test_shipped_catalog_is_true():
    assert catalog.verify() == []


def test_card_knows_its_file(house: Path):
    card = catalog.card("tiny-net")
    data = (house / "weights/tiny-net.safetensors").read_bytes()
    assert card.sha256 == hashlib.sha256(data).hexdigest()
    assert card.bytes == len(data)
    assert card.arguments == {"width": 4}
    assert (card.recipe, card.commit) == ("tiny", "abc1234")
    assert card.parameters == 3 * 4 * 9 + 4 + 4 * 4 + 4 * 4 + 4  # the counter of the norm is no parameter
    assert catalog.cards() == (card,)
    assert card.path == house / "weights/tiny-net.safetensors"


def test_unknown_name_gives_the_nearest(house: Path):
    with pytest.raises(ModelError, match="unknown model 'tiny-ent'; did you mean 'tiny-net'"):
        catalog.card("tiny-ent")
    with pytest.raises(ModelError, match="unknown model 'zzz'; known: tiny-net"):
        catalog.load("zzz", TINY)
    # A model that the caller has no use for is no hint.
    with pytest.raises(ModelError, match="unknown model 'tiny-ent'; known: none yet"):
        catalog.load("tiny-ent", {"Another": TINY["Tiny"]})


def test_wrong_card_is_named(house: Path):
    catalog.CATALOG.write_text('[bad]\ntask = "blend"\nfile = "../bad.safetensors"\n')
    catalog._read_catalog.cache_clear()
    with pytest.raises(ModelError, match=r"catalog.toml: card 'bad'"):
        catalog.cards()


def test_fill_card_keeps_comments_and_replaces_scores(house: Path, tmp_path: Path):
    score = {"metric": "colour error", "unit": "levels", "better": "lower", "value": 4.0, "low": 3.5, "high": 4.5}
    score |= {"baseline": "paste", "baseline_value": 9.0, "baseline_low": 8.0, "baseline_high": 10.0, "count": 200}
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"protocol": 'a \\ "protocol"', "scores": [score]}))
    catalog.fill_card("tiny-net", report)
    report = tmp_path / "evaluate-tiny-net.json"
    report.write_text(json.dumps({"protocol": 'a \\ "protocol"', "scores": [score, score | {"value": 4.25}]}))
    assert catalog.fill_cards(tmp_path) == ["tiny-net"]
    card = catalog.card("tiny-net")
    assert [found.value for found in card.scores] == [4.0, 4.25]
    assert card.protocol == 'a \\ "protocol"'
    text = catalog.CATALOG.read_text()
    assert "# A comment that stays." in text
    assert "# The last comment." in text
    with pytest.raises(ModelError, match=r"no section \[absent\]"):
        catalog.fill_card("absent")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "are not there"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "its card says"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"), "sha256"),
    ],
)
def test_damaged_shipped_file(house: Path, damage, reason: str):
    damage(house / "weights/tiny-net.safetensors")
    with pytest.raises(ModelError, match=reason):
        catalog.load("tiny-net", TINY)
    assert len(catalog.verify()) == 1
    assert reason in catalog.verify()[0]


def test_verify_finds_a_file_without_card_and_a_lying_card(house: Path):
    assert catalog.verify() == []
    (house / "weights/stray.safetensors").write_bytes(b"")
    assert catalog.verify() == ["stray.safetensors: has no card in catalog.toml"]
    (house / "weights/stray.safetensors").unlink()
    text = catalog.CATALOG.read_text().replace('architecture = "Tiny"', 'architecture = "Huge"')
    catalog.CATALOG.write_text(text)
    catalog._read_catalog.cache_clear()
    assert catalog.verify() == ["tiny-net.safetensors: its architecture are Tiny, its card says Huge"]


def test_verify_limits_sizes(house: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "MAX_FILE_MIB", 0)
    monkeypatch.setattr(catalog, "MAX_TOTAL_MIB", 0)
    assert len(catalog.verify()) == 2


def test_offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VELATURA_OFFLINE", raising=False)
    assert not catalog.offline()
    monkeypatch.setenv("VELATURA_OFFLINE", "0")
    assert not catalog.offline()
    monkeypatch.setenv("VELATURA_OFFLINE", "1")
    assert catalog.offline()


# --- loading


def test_load_by_name_in_float32_and_quiet(house: Path, tiny: Tiny):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    net = catalog.load("tiny-net", TINY)
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers are untouched
    assert not net.training
    assert all(value.dtype == torch.float32 for value in net.parameters())
    assert not any(value.requires_grad for value in net.parameters())
    assert torch.equal(net.convolution.weight, tiny.convolution.weight.half().float())
    assert torch.equal(net.window, tiny.window)  # what is not in the file is there all the same


def test_load_file_with_header(tmp_path: Path):
    net = Tiny(width=6, depth=2)
    path = write(tmp_path / "a.safetensors", net.state_dict(), arguments={"width": 6, "depth": 2})
    for given in (path, str(path)):
        assert torch.equal(catalog.load(given, TINY).more[1].weight, net.more[1].weight)


def test_load_file_without_header_needs_one_architecture(tmp_path: Path, tiny: Tiny):
    path = tmp_path / "plain.safetensors"
    save_file(Tiny(width=6).state_dict(), path)
    assert catalog.load(path, TINY, arguments={"width": 6}).convolution.out_channels == 6
    with pytest.raises(ModelError, match=r"plain.safetensors: names no architecture; expected one of Tiny, Other"):
        catalog.load(path, {**TINY, "Other": nn.Linear})


@pytest.mark.parametrize("wrapper", [None, "params_ema", "params", "state_dict"])
@pytest.mark.parametrize("legacy", [False, True])
def test_load_checkpoint_of_torch(tmp_path: Path, tiny: Tiny, wrapper: str | None, legacy: bool):
    state = tiny.state_dict()
    path = tmp_path / "other.pth"
    torch.save({wrapper: state} if wrapper else state, path, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(catalog.load(path, TINY).convolution.weight, tiny.convolution.weight)


def test_int8_with_scales(tmp_path: Path, tiny: Tiny):
    state = tiny.state_dict()
    weight = state["convolution.weight"]
    scale = weight.abs().amax(dim=(1, 2, 3)) / 127
    state["convolution.weight"] = (weight / scale[:, None, None, None]).round().to(torch.int8)
    path = write(tmp_path / "small.safetensors", state | {"convolution.weight.scale": scale.half()})
    net = catalog.load(path, TINY)
    assert net.convolution.weight.dtype == torch.float32
    assert (net.convolution.weight - weight).abs().max() <= scale.max() * 0.6
    assert catalog.read_header(path).parameters == sum(v.numel() for v in state.values() if v.ndim)

    write(path, state)
    with pytest.raises(ModelError, match=r"'convolution.weight' is int8; expected float32"):
        catalog.load(path, TINY)
    write(path, state | {"convolution.weight.scale": scale[:2]})
    with pytest.raises(ModelError, match="expected one per channel"):
        catalog.load(path, TINY)


def test_load_state(tmp_path: Path, tiny: Tiny):
    path = write(tmp_path / "a.safetensors", {"line": torch.ones(2, 3, dtype=torch.bfloat16)})
    state = catalog.load_state(path, {"line": (2, 3)})
    assert state["line"].dtype == torch.float32
    with pytest.raises(ModelError, match=r"'line' has shape \(2, 3\); expected \(3, 2\)"):
        catalog.load_state(path, {"line": (3, 2)})
    write(path, tiny.state_dict())
    assert set(catalog.load_state(path, tiny)) == set(tiny.state_dict())


# --- refusals


def refused(path: str | Path, architectures=TINY, **options) -> str:
    with pytest.raises(ModelError) as caught:
        catalog.load(path, architectures, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    assert len(message) < 300
    return message


def test_refuses_missing_and_odd_files(tmp_path: Path):
    assert "no such file" in refused(tmp_path / "absent.safetensors")
    assert "no such file" in refused(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "expected .safetensors, .pth or .pt" in refused(tmp_path / "model.onnx")


def test_refuses_wrong_architecture_and_arguments(tmp_path: Path, tiny: Tiny):
    state = tiny.state_dict()
    path = write(tmp_path / "a.safetensors", state, architecture="os.system")
    assert "holds a os.system; expected Tiny" in refused(path)
    assert "refuses its arguments" in refused(write(path, state, arguments={"colour": 3}))
    assert "refuses its arguments" in refused(write(path, state, arguments={"width": -3}))
    assert "refuses its arguments" in refused(write(path, state, arguments={"width": "x"}))
    assert "a number over" in refused(write(path, state, arguments={"depth": 10**9}))
    assert "a number over" in refused(write(path, state, arguments={"width": [[10**9]]}))
    assert "has shape (4, 3, 3, 3); expected (60000, 3, 3, 3)" in refused(
        write(path, state, arguments={"width": 60000})
    )
    assert "its header is damaged" in refused(write(path, state, arguments=[1]))


def test_asks_for_no_memory_before_the_file_is_known_to_fit(tmp_path: Path, tiny: Tiny):
    built_on = []

    def build(width: int) -> nn.Module:
        net = Tiny(width)
        built_on.append(net.convolution.weight.device.type)
        return net

    path = write(tmp_path / "a.safetensors", tiny.state_dict(), arguments={"width": 5})
    refused(path, {"Tiny": build})
    assert built_on == ["meta"]


def test_refuses_wrong_keys(tmp_path: Path, tiny: Tiny):
    state = tiny.state_dict()
    path = tmp_path / "a.safetensors"
    fewer = {key: value for key, value in state.items() if not key.startswith("norm")}
    assert "misses tensor 'norm.bias' and 4 more" in refused(write(path, fewer))
    assert "has the unknown tensor 'extra'" in refused(write(path, state | {"extra": torch.ones(1)}))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_finite(tmp_path: Path, tiny: Tiny, number: float):
    state = tiny.state_dict()
    state["norm.running_var"] = state["norm.running_var"].clone()
    state["norm.running_var"][1] = number
    assert "'norm.running_var' holds numbers that are not finite" in refused(write(tmp_path / "a.safetensors", state))
    torch.save(state, tmp_path / "a.pth")
    assert "not finite" in refused(tmp_path / "a.pth")


def test_refuses_float64_that_overflows(tmp_path: Path, tiny: Tiny):
    state = tiny.state_dict() | {"norm.bias": torch.full((4,), 1e300, dtype=torch.float64)}
    assert "not finite" in refused(write(tmp_path / "a.safetensors", state))


def test_refuses_wrong_types(tmp_path: Path, tiny: Tiny):
    state = tiny.state_dict()
    path = tmp_path / "a.safetensors"
    wrong = state | {"norm.bias": torch.zeros(4, dtype=torch.int64)}
    assert "'norm.bias' is int64; expected float32" in refused(write(path, wrong))
    wrong = state | {"norm.num_batches_tracked": torch.tensor(1.0)}
    assert "'norm.num_batches_tracked' is float32; expected int64" in refused(write(path, wrong))


def test_refuses_every_truncation(tmp_path: Path, tiny: Tiny):
    path = write(tmp_path / "a.safetensors", tiny.state_dict())
    data = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(path)
    path.write_bytes(data + b"more")
    refused(path)


def test_refuses_headers_that_lie(tmp_path: Path, tiny: Tiny):
    path = write(tmp_path / "a.safetensors", tiny.state_dict())
    data = path.read_bytes()
    for length in (2**63, 2**40, len(data), catalog.MAX_HEADER_BYTES + 1):
        path.write_bytes(struct.pack("<Q", length) + data[8:])
        assert "its header claims" in refused(path)
    with path.open("wb") as file:  # as long as it claims, and yet no header of weights
        file.write(struct.pack("<Q", catalog.MAX_HEADER_BYTES + 1))
        file.truncate(catalog.MAX_HEADER_BYTES * 2)
    assert f"more than {catalog.MAX_HEADER_BYTES}" in refused(path)
    for text in (b"[]", b"{", b"[" * 100_000, b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": 3}}', b"\xff\xfe"):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        assert "its header is damaged" in refused(path)
    # A tensor that lies outside the file, or twice at one place.
    table = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    for offsets in ([0, 8], [4, 12], [8, 0]):
        table["b"] = {"dtype": "F32", "shape": [2], "data_offsets": offsets}
        text = json.dumps(table).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        assert "not a whole safetensors file" in refused(path)


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_refuses_a_pickle_with_code(tmp_path: Path, tiny: Tiny):
    witness = tmp_path / "it-ran"
    path = tmp_path / "bomb.pth"
    torch.save(tiny.state_dict() | {"bomb": Bomb(witness)}, path)
    assert "holds more than weights" in refused(path)
    path.write_bytes(pickle.dumps(Bomb(witness)))
    refused(path)
    torch.save(tiny, path)  # a whole module is code, too
    assert "holds more than weights" in refused(path)
    assert not witness.exists()


def test_refuses_a_pickle_in_disguise(tmp_path: Path, tiny: Tiny):
    path = tmp_path / "a.safetensors"
    torch.save(tiny.state_dict(), path)
    refused(path)


def test_refuses_damaged_checkpoints(tmp_path: Path, tiny: Tiny):
    path = tmp_path / "a.pt"
    torch.save(tiny.state_dict(), path)
    data = path.read_bytes()
    for length in (0, 1, 30, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        refused(path)
    path.write_bytes(data)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert "a packed archive" in refused(packed)


def test_refuses_checkpoints_of_something_else(tmp_path: Path, tiny: Tiny):
    path = tmp_path / "a.pth"
    for content, reason in [
        ([1, 2], "holds a list; expected a state_dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        (tiny.state_dict() | {"norm.bias": torch.ones(4, device="meta")}, "no plain numbers"),
        (tiny.state_dict() | {"norm.bias": torch.ones(4).to_sparse()}, "no plain numbers"),
        (tiny.state_dict() | {"norm.bias": torch.ones(1).expand(10**9)}, "has shape (1000000000,)"),
    ]:
        torch.save(content, path)
        assert reason in refused(path)
