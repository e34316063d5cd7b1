"""``velatura evaluate stylize``: protocol, optimisation beside one pass, sheets; on small pictures and networks."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_folder import crop
from PIL import Image
from stylers import save

from velatura import InputError, losses
from velatura.cli import evaluate_stylize as module
from velatura.cli import main
from velatura.cli.evaluate_stylize import evaluate_stylize, in_colours_of
from velatura.metrics.report import bootstrap
from velatura.training.recipe import make_config
from velatura.training.recipes.stylize import StylizeConfig, held_out_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs and styles, some of each held out; no teachers beside them."""
    made = tmp_path_factory.mktemp("sets") / "data"
    made.mkdir()
    for name, paths in {
        "sr_t91_bsds400": [f"t91/{i}.png" for i in range(30)],
        "styles": [f"{'misc' if i % 2 else 'kaokore'}/{i}.png" for i in range(60)],
    }.items():
        with zipfile.ZipFile(made / f"{name}.zip", "w") as archive:
            for seed, path in enumerate(paths):
                archive.writestr(path, crop(seed))
    return made


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SIDE", 48)
    monkeypatch.setattr(module, "SHEET", 2)
    monkeypatch.setattr(module, "PATIENT", 1)


def test_rows_and_what_they_say(folder: Path, tmp_path: Path):
    net = save(tmp_path, "mine")
    report = evaluate_stylize(str(net), folder, pairs=3, steps=(1, 4), sheet=tmp_path / "sheets")
    slow, quick = ([f"optimize at {rate}, {step} steps" for step in (1, 4)] for rate in (0.01, 0.02))
    assert list(report.rows) == ["photograph", "colours", "mine", *slow, *quick]
    assert (report.count, report.model, report.baseline) == (3, "mine", "colours")
    values = {name: [figure.value for figure in row] for name, row in report.rows.items()}
    # Total, content, style: the photograph has lost nothing, and all of the style is lacking.
    assert values["photograph"] == pytest.approx([1, 0, 1], abs=1e-4)
    assert values[quick[1]][0] < values[slow[1]][0] < values[slow[0]][0] < 1
    for total, content, style in values.values():
        assert total == pytest.approx(content + style, rel=1e-5)
    notes = " ".join(report.notes)
    assert "Content = style: the perceptual distance to the photograph is 0.000 of" in notes
    assert "most alike in colour" in notes
    assert "No judges" in notes
    assert Image.open(tmp_path / "sheets/sheet.png").size == (3 * 48, 3 * 48)
    assert Image.open(tmp_path / "sheets/beside.png").size == (4 * 48, 2 * 48)
    with pytest.raises(InputError, match="earlier sheets"):
        evaluate_stylize(str(net), folder, sheet=tmp_path / "sheets")


def test_the_optimisation_descends_what_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch):
    # Where the style is nearly the photograph's own, a floor would make it descend something else.
    content = np.asarray(Image.open(io.BytesIO(crop(0))).convert("RGB").resize((48, 48)))
    style = np.rint(content * 0.97).astype(np.uint8)
    floors = []
    given = losses.StyleLoss.__init__

    def noting(self, *args, **kwargs):
        floors.append(args[5] if len(args) > 5 else kwargs.get("floor", losses.FLOOR))
        given(self, *args, **kwargs)

    monkeypatch.setattr(losses.StyleLoss, "__init__", noting)
    features = module._ours()
    module._loss("our features", features, content, style)
    made = module._optimized(features, content, style, (2,), 0.02)
    assert list(made) == ["optimize at 0.02, 2 steps"]
    assert floors == [0, 0]


def test_styles_that_pairs_have_in_common_are_drawn_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr(module, "bootstrap", lambda values, groups: seen.append(groups) or bootstrap(values))
    report = evaluate_stylize(str(save(tmp_path, "mine")), folder, pairs=5, steps=(1,))
    pairs = held_out_pairs(make_config(StylizeConfig, {"data": str(folder)}), 5, module.SIDE)
    styles = [style.numpy().tobytes() for _, style in pairs]
    assert len(set(styles)) < 5
    same = [[a == b for b in styles] for a in styles]
    assert all([[a == b for b in groups] for a in groups] == same for groups in seen)
    assert "over the styles" in report.protocol


def test_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(module.evaluate_stylize, "__kwdefaults__", {"pairs": 1, "steps": (1,), "sheet": None})
    monkeypatch.setitem(module.evaluate_stylize.__kwdefaults__, "progress", lambda *_: None)
    net = save(tmp_path, "mine")
    words = f"evaluate stylize --data {folder} --model {net} --json {tmp_path / 'report.json'}"
    assert main(words.split()) == 0
    assert json.loads((tmp_path / "report.json").read_text())["title"] == "Style transfer at 256x256"
    assert "style loss" in capsys.readouterr().out
    assert main([*words.replace("report", "two").split(), "--model", "another"]) == 2
    assert "measures one model" in capsys.readouterr().err


def test_colours_of_a_style():
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (40, 40, 3), np.uint8)
    style = (random.random((30, 30, 3)) * (60, 30, 20) + (90, 100, 150)).astype(np.uint8)
    made = in_colours_of(photo, style)
    assert np.abs(made.mean((0, 1)) - style.mean((0, 1))).max() < 1
