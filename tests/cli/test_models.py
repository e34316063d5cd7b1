"""``velatura models``."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from velatura import catalog
from velatura.catalog import Card
from velatura.cli import main
from velatura.nets.srvgg import SRVGG

SCORE = {
    "metric": "colour error",
    "unit": "levels",
    "better": "lower",
    "value": 4.1234,
    "low": 4.0,
    "high": 4.5,
    "baseline": "paste",
    "baseline_value": 9.0,
    "baseline_low": 8.0,
    "baseline_high": 10.0,
    "count": 200,
}
CARD = Card(
    name="tiny-net",
    task="blend",
    architecture="Tiny",
    arguments={"width": 4},
    parameters=1_234_567,
    file="tiny-net.safetensors",
    bytes=3 << 20,
    sha256="0123456789abcdef" * 4,
    images=[{"set": "noise", "terms": "free [for all]", "count": 1200}],
    commercial_use=False,
    commercial_use_reason="nobody knows",
    weights_licence="CC-BY-4.0",
    recipe="tiny",
    commit="abcdef0123456789",
    protocol="Held-out noise.",
    scores=[SCORE],
    paper="Nobody 1999",
    limits=["It does nothing.", "It does so slowly."],
)


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "_read_catalog", lambda path: {"tiny-net": CARD})


def test_list(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "tiny-net" in line)
    for expected in ("blend", "1,234,567", "3.0", "no", "colour error 4.12 levels (paste 9)"):
        assert expected in line


def test_list_json(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "list", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert Card(**json.loads(line)["models"][0]) == CARD


def test_show(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "show", "tiny-net"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "Tiny(width=4)",
        CARD.sha256,
        "1,200 images of noise: free [for all]",
        "no: nobody knows",
        "CC-BY-4.0",
        "4.1234 [4, 4.5] levels against paste 9 [8, 10]; lower is better",
        "It does so slowly.",
    ):
        assert expected in text
    assert main(["models", "show", "tiny-net", "--json"]) == 0
    assert Card(**json.loads(capsys.readouterr().out)) == CARD


def test_a_pipe_gets_lines_without_filling(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "show", "tiny-net"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert all(line == line.rstrip() for line in lines)


def test_show_unknown_name(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "show", "tiny-nt"]) == 2
    assert "unknown model 'tiny-nt'; did you mean 'tiny-net'?" in capsys.readouterr().err


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model that can be exported."""
    notes = {"architecture": "SRVGG", "arguments": '{"scale": 2, "width": 4, "depth": 1}'}
    save_file(SRVGG(2, width=4, depth=1).state_dict(), tmp_path / "small.safetensors", notes)
    data = (tmp_path / "small.safetensors").read_bytes()
    card = CARD.model_copy(
        update={
            "name": "small",
            "architecture": "SRVGG",
            "file": "small.safetensors",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    )
    monkeypatch.setattr(catalog, "_read_catalog", lambda path: {"small": card})
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    return tmp_path


def test_export(small_model: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxscript")
    path = small_model / "small.onnx"
    assert main(["models", "export", "small", "-o", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}: 0.0 MiB, ONNX opset 18; licence of the weights: CC-BY-4.0")
    assert (captured.err, len(captured.out.splitlines())) == ("", 1)
    written = path.read_bytes()

    assert main(["models", "export", "small", "-o", str(path)]) == 2
    assert "small.onnx: exists; name another file, or add --overwrite" in capsys.readouterr().err
    assert main(["models", "export", "small", "-o", str(path), "--overwrite", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["bytes"] == len(written)


def test_export_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["models", "export", "tiny-net", "-o", str(tmp_path / "a.onnx")]) == 2
    assert "a Tiny does not give an image" in capsys.readouterr().err
    assert main(["models", "export", "tiny-nt", "-o", str(tmp_path / "a.onnx")]) == 2
    assert "did you mean 'tiny-net'?" in capsys.readouterr().err
    assert main(["models", "export", "tiny-net"]) == 2
    assert "missing -o" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_verify_names_the_problem(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    assert main(["models", "verify"]) == 1
    assert "the weights of 'tiny-net' are not there" in capsys.readouterr().out
    assert main(["models", "verify", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


def test_verify_shipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.undo()
    assert main(["models", "verify"]) == 0
    assert ", 0 problems" in capsys.readouterr().out
