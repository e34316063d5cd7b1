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
from velatura.cli.evaluate_generate import ENLARGED, FLOOR, evaluate_generate
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
    assert [column.name for column in report.columns] == [
        "FD-velatura",
        "KID-velatura",
        "precision-velatura",
        "recall-velatura",
        "nearness",
    ]
    ours, floor = ([figure.value for figure in report.rows[name]] for name in ("mine", FLOOR))
    # A network that never learned makes nothing like photographs.
    assert ours[0] > floor[0]
    assert ours[1] > floor[1]
    assert ours[2] < floor[2]
    assert floor[4] == 0  # they are what they are compared with
    assert ours[4] > 0
    assert 4 < report.count < 30
    assert [score["metric"] for score in report.scores()][:2] == ["FD-velatura", "KID-velatura"]


def test_levels_beside_the_enlarged_image_before(folder: Path, tmp_path: Path):
    mine = save(tmp_path / "mine.safetensors")
    report = evaluate_generate([mine], folder, part="levels", draws=2)
    sizes = ("16 px", "32 px")
    assert set(report.rows) == {f"{name}, {size}" for name in ("mine", f"mine {ENLARGED}", FLOOR) for size in sizes}
    for size in sizes:
        assert report.rows[f"{FLOOR}, {size}"][1].value < report.rows[f"mine, {size}"][1].value
    assert report.judged == ["mine, 16 px", "mine, 32 px"]
    assert {score["baseline"] for score in report.scores()} == {f"mine {ENLARGED}"}


def test_models_that_cannot_be_compared(folder: Path, tmp_path: Path):
    generators.save(tmp_path)
    with pytest.raises(ModelError, match="does not say which generator's recipe"):
        evaluate_generate([str(tmp_path / "dcgan.safetensors")], folder)
    with pytest.raises(InputError, match="flowers80"):
        evaluate_generate([save(tmp_path / "other.safetensors", "flowers")], folder)
