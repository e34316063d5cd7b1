"""``velatura models``."""

import json

import pytest

from velatura import catalog
from velatura.catalog import Card
from velatura.cli import main

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


def test_show_unknown_name(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "show", "tiny-nt"]) == 2
    assert "unknown model 'tiny-nt'; did you mean 'tiny-net'?" in capsys.readouterr().err


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
