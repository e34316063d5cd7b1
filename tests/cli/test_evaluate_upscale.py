"""``velatura evaluate upscale``: protocol, baselines, evidence, sheets; on small photographs and networks."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from data_folder import make_data_folder
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from upscalers import save

from velatura import Upscale
from velatura.catalog import cards
from velatura.cli import main
from velatura.cli.evaluate_upscale import local_errors
from velatura.ops.resize import resize


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Four photographs, their sides no multiples of the scale; one grey, one in a subfolder."""
    folder = tmp_path / "originals"
    cuts = {
        "a": data.astronaut()[40:183, 150:293],
        "b": data.coffee()[100:240, 200:350],
        "more/c": data.chelsea()[60:200, 100:243],
        "grey": data.camera()[60:200, 180:330],
    }
    for name, pixels in cuts.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def report(tmp_path: Path, *words: str) -> dict:
    path = tmp_path / "report.json"
    assert main(["evaluate", "upscale", *words, "--json", str(path), "--overwrite"]) == 0
    return json.loads(path.read_text())


def test_a_folder_of_originals(originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    net = save(tmp_path, "srresnet", name="mine")
    read = report(tmp_path, "--data", str(originals), "--model", str(net), "--model", "lanczos")
    assert list(read["rows"]) == ["bicubic", "mine", "lanczos"]
    assert (read["count"], read["data"], read["model"], read["baseline"]) == (4, "originals", "mine", "bicubic")
    names = [column["name"] for column in read["columns"]]
    assert names[:3] == ["PSNR", "SSIM", "gain over bicubic"]
    assert names[-1] == "shift of the mean colour"
    assert ("perceptual distance" in names) == any(card.name == "features" for card in cards())
    assert "y4: Y channel" in read["protocol"]
    assert "low resolution by MATLAB's antialiased bicubic" in read["protocol"]

    # The protocol once more, by hand, from file to figure.
    found = []
    for path in sorted(originals.rglob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"))
        high = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4]
        low = np.rint(resize(high, high.shape[0] // 4, high.shape[1] // 4).clip(0, 255)).astype(np.uint8)
        ours = Upscale(net)(low).image
        luma = [(one @ np.array([65.481, 128.553, 24.966]) / 255 + 16)[4:-4, 4:-4] for one in (high, ours)]
        found.append(peak_signal_noise_ratio(*luma, data_range=255))
    assert read["rows"]["mine"][0]["value"] == pytest.approx(np.mean(found))
    gain = read["rows"]["mine"][0]["value"] - read["rows"]["bicubic"][0]["value"]
    assert read["rows"]["mine"][2]["value"] == pytest.approx(gain)
    assert read["rows"]["bicubic"][2] == {"value": 0, "low": 0, "high": 0}
    assert read["rows"]["lanczos"][2]["value"] > 0
    scores = {score["metric"]: score for score in read["scores"]}
    assert scores["PSNR"]["baseline_value"] == pytest.approx(read["rows"]["bicubic"][0]["value"], rel=1e-5)
    evidence = [note for note in read["notes"] if note.startswith("Evidence of")]
    assert {note.split()[2].rstrip(",") for note in evidence} == {"bicubic", "mine", "lanczos"}
    assert "Upscaling x4" in capsys.readouterr().out


@pytest.mark.parametrize("scale", [2, 3])
def test_other_scales(originals: Path, tmp_path: Path, scale: int):
    read = report(tmp_path, "--data", str(originals), "--model", "bicubic", "--scale", str(scale))
    assert read["protocol"].startswith(f"y{scale}: ")
    assert list(read["rows"]) == ["bicubic"]
    assert (read["model"], read["scores"]) == ("", [])


def test_given_low_resolutions(originals: Path, tmp_path: Path):
    low = tmp_path / "low"
    for path in originals.rglob("*.png"):
        with Image.open(path) as image:
            size = image.width // 4, image.height // 4
            out = (low / path.relative_to(originals)).with_suffix(".bmp")
            out.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").resize(size, Image.Resampling.BOX).save(out)
    read = report(tmp_path, "--data", str(low), "--reference", str(originals), "--model", "lanczos")
    assert "low resolution as given" in read["protocol"]
    usual = report(tmp_path, "--data", str(originals), "--model", "lanczos")
    assert read["rows"]["lanczos"][0]["value"] != usual["rows"]["lanczos"][0]["value"]


def test_the_data_folder_gives_what_is_held_out(tmp_path: Path):
    folder = make_data_folder(tmp_path / "data")
    read = report(tmp_path, "--data", str(folder), "--model", "lanczos")
    assert read["data"].startswith("what is held out of BSDS500")
    assert 0 < read["count"] < 60


def test_the_faces_of_the_data_folder(tmp_path: Path):
    folder = make_data_folder(tmp_path / "data", per_set=90)
    read = report(tmp_path, "--data", str(folder), "--model", "lanczos", "--faces")
    assert read["data"] == "what is held out of faces256"
    assert 0 < read["count"] < 30
    assert read["columns"][-1]["name"] == "embedding distance"
    assert all(row[-1]["value"] > 0 for row in read["rows"].values())
    assert main(["evaluate", "blend", "--data", str(tmp_path), "--faces"]) == 2


def test_worn_low_resolutions(originals: Path, tmp_path: Path):
    words = ("--data", str(originals), "--model", "lanczos")
    worn, again, plain = (report(tmp_path, *words, *more) for more in (["--worn"], ["--worn"], []))
    assert worn["rows"] == again["rows"]
    assert "worn by blur" in worn["protocol"]
    assert worn["rows"]["bicubic"][0]["value"] < plain["rows"]["bicubic"][0]["value"] - 1
    assert main(["evaluate", "upscale", *words, "--worn", "--reference", str(originals)]) == 2


def test_a_sheet_and_its_key(originals: Path, tmp_path: Path):
    sheet = tmp_path / "sheets" / "one"
    report(tmp_path, "--data", str(originals), "--model", "lanczos", "--sheet", str(sheet))
    with (sheet / "key.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["picture", "made by", "photograph"]
    assert len(rows) == 4 * 3  # photographs by bicubic, lanczos and original
    by_row = [[row[1] for row in rows if row[0][:-1] == str(number)] for number in range(1, 5)]
    assert all(sorted(names) == ["bicubic", "lanczos", "original"] for names in by_row)
    assert len({tuple(names) for names in by_row}) > 1  # an order of its own
    with Image.open(sheet / "sheet.png") as image:
        pixels = np.asarray(image)
    # The original is on it, each pixel twice.
    with Image.open(originals / "a.png") as image:
        original = np.asarray(image)[60:62, 60:62].repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, original.shape)[:, :, 0]
    assert (windows == original).all((2, 3, 4)).any()
    assert main(["evaluate", "upscale", "--data", str(originals), "--model", "lanczos", "--sheet", str(sheet)]) == 2


def test_refusals(originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def say(*words: str) -> str:
        assert main(["evaluate", *words]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        return captured.err

    folder = ("upscale", "--data", str(originals))
    assert "unknown model 'absent'" in say(*folder, "--model", "absent")
    net = save(tmp_path, "srvgg", name="a")
    (tmp_path / "other").mkdir()
    again = save(tmp_path / "other", "srvgg", name="a")
    assert "two models are called a" in say(*folder, "--model", str(net), "--model", str(again))
    (tmp_path / "empty").mkdir()
    assert "no images" in say("upscale", "--data", str(tmp_path / "empty"), "--model", "bicubic")
    assert "no original of this name" in say(*folder, "--reference", str(originals / "more"), "--model", "bicubic")
    assert "expected a 4th of each side" in say(*folder, "--reference", str(originals), "--model", "bicubic")
    assert "--sheet belongs to evaluate upscale" in say("blend", "--data", str(originals), "--sheet", "x")
    assert "measures one model" in say("blend", "--data", str(originals), "--model", "a", "--model", "b")


def test_local_errors_are_those_within_a_pixel():
    random = np.random.default_rng(0)
    image, original = random.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    variance, error = local_errors(image, original, 4)
    assert variance.shape == error.shape == (2, 3)
    luma = [one[4:, 8:] @ np.array([0.299, 0.587, 0.114]) / 255 for one in (image, original)]
    assert variance[1, 2] == pytest.approx(luma[0].var())
    assert error[1, 2] == pytest.approx(((luma[0] - luma[1]) ** 2).mean())


def test_without_training_installed_it_says_what_to_install(
    originals: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "velatura.training.recipes.upscale", None)
    assert main(["evaluate", "upscale", "--data", str(originals), "--model", "bicubic"]) == 1
    assert "pip install 'velatura[train]'" in capsys.readouterr().err
