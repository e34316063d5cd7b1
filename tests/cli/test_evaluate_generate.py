"""``velatura evaluate generate``: rows, floor and memorisation, on a small model of small pictures."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import generators
import pytest
import torch
from data_folder import crop
from safetensors.torch import save_file

from velatura import InputError, ModelError
from velatura.cli.evaluate_generate import FLOOR, evaluate_generate
from velatura.nets.lapgan import LAPGAN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of two classes, some held out."""
    made = tmp_path_factory.mktemp("sets") / "data"
    made.mkdir()
    with zipfile.ZipFile(made / "scenes96.zip", "w") as archive:
        for seed in range(120):
            archive.writestr(f"{'sea' if seed % 2 else 'forest'}/{seed}.png", crop(seed, 40))
    return made


def save(path: Path, subject: str = "scenes") -> str:
    torch.manual_seed(0)
    classes = {"forest": "forest", "sea": "sea"}
    header = {
        "architecture": "LAPGAN",
        "arguments": json.dumps(generators.LAPGAN_ARGUMENTS),
        "recipe": json.dumps(
            {"name": f"lapgan-{subject}", "settings": {"subject": subject, "size": 32, "classes": classes}}
        ),
    }
    net = LAPGAN(**generators.LAPGAN_ARGUMENTS)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path, header)
    return str(path)


def test_rows_and_what_they_say(folder: Path, tmp_path: Path):
    mine = save(tmp_path / "mine.safetensors")
    report = evaluate_generate([mine], folder, draws=2)
    assert list(report.rows) == ["mine", FLOOR]
    assert [column.name for column in report.columns] == ["FD-velatura", "KID-velatura", "precision", "recall"]
    ours, floor = ([figure.value for figure in report.rows[name]] for name in ("mine", FLOOR))
    # A network that never learned makes nothing like photographs.
    assert ours[0] > floor[0]
    assert ours[1] > floor[1]
    assert ours[2] < floor[2]
    assert 4 < report.count < 30
    assert "first percentile" in report.notes[0]


def test_models_that_cannot_be_compared(folder: Path, tmp_path: Path):
    generators.save(tmp_path)
    with pytest.raises(ModelError, match="does not say which generator's recipe"):
        evaluate_generate([str(tmp_path / "dcgan.safetensors")], folder)
    with pytest.raises(InputError, match="flowers80"):
        evaluate_generate([save(tmp_path / "other.safetensors", "flowers")], folder)
