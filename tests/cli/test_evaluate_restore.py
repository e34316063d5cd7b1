"""``velatura evaluate restore``: every part, with small networks of random numbers on a few photographs."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_folder import make_data_folder
from PIL import Image
from restorers import THRESHOLD, ship
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means

from velatura import Restore, catalog
from velatura.cli import main
from velatura.cli.evaluate_restore import detection, grey_world, noise_of, stretched
from velatura.training.old_photo_labels import _crops
from velatura.training.recipe import make_config
from velatura.training.recipes.old_scans import ScansConfig, eight_bit, held_out_scans
from velatura.training.recipes.scratches import average_precision, f1, probabilities, top_hat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sets, and photographs that labels were made for."""
    folder = make_data_folder(tmp_path_factory.mktemp("data"), per_set=60)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "old_photos.zip", "w") as archive:
        for name in sorted({crop["file"] for crop in _crops()}):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).resize((512, 512)).save(file, "PNG")
            archive.writestr(name, file.getvalue())
    return folder


@pytest.fixture(scope="module", autouse=True)
def _shipped(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        ship(tmp_path_factory.mktemp("models"), patch)
        yield
    catalog._read_catalog.cache_clear()


def report(folder: Path, tmp_path: Path, *words: str) -> dict:
    path = tmp_path / "report.json"
    assert main(["evaluate", "restore", "--data", str(folder), *words, "--limit", "2", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_fidelity_by_hand(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    read = report(folder, tmp_path, "--sheet", str(tmp_path / "sheets"))
    assert "Restoration of worn photographs" in capsys.readouterr().out
    assert (read["model"], read["baseline"], read["count"]) == ("direct", "Telea and non-local means (true mask)", 2)
    assert len(read["rows"]) == 4 * 6
    scans = held_out_scans(make_config(ScansConfig, {"data": str(folder)}), "lines", 2, 256)
    targets = [eight_bit(scan.faded) for scan in scans]
    images = [eight_bit(scan.image) for scan in scans]
    made = [Restore()(image, faces=False, fading=False).image for image in images]
    for name, ours in (("scan", images), ("direct", made)):
        expected = np.mean([peak_signal_noise_ratio(b, a) for a, b in zip(ours, targets, strict=True)])
        assert read["rows"][f"{name}, lines"][0]["value"] == pytest.approx(expected, abs=1e-6)
    assert read["rows"]["scan, areas"][2]["value"] == 0
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == {
        "unstructured.png",
        "lines.png",
        "areas.png",
        "stains.png",
    }


def test_without_opencv_it_says_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("velatura.cli.evaluate_restore.find_spec", lambda name: None)
    read = report(folder, tmp_path)
    assert read["baseline"] == "non-local means"
    assert "OpenCV is not installed" in read["notes"][0]


def test_harm_done_to_clean_photographs(folder: Path, tmp_path: Path):
    read = report(folder, tmp_path, "--part", "clean")
    assert set(read["rows"]) == {"non-local means", "direct", "direct (colours alone)"}
    flagged = [row[0]["value"] for row in read["rows"].values()]
    assert flagged[0] == 0
    assert flagged[1] == flagged[2] > 0
    assert read["rows"]["direct"][2]["value"] > read["rows"]["direct (colours alone)"][2]["value"]


def test_damage_found(folder: Path, tmp_path: Path):
    read = report(folder, tmp_path, "--part", "scratches")
    assert set(read["rows"]) == {
        f"{name}, {kind}" for name in ("scratch-detector", "top-hat") for kind in ("lines", "areas", "unseen")
    }
    scans = held_out_scans(make_config(ScansConfig, {"data": str(folder)}), "unseen", 2, 256)
    truth = np.concatenate([scan.mask.ravel() for scan in scans])
    scores = np.concatenate([probabilities(Restore().detector.network, scan.image).ravel() for scan in scans])
    row = [figure["value"] for figure in read["rows"]["scratch-detector, unseen"]]
    assert row[0] == pytest.approx(f1(truth, scores, THRESHOLD), abs=1e-6)
    assert row[1] == pytest.approx(average_precision(truth, scores), abs=0.01)
    assert f"threshold of {THRESHOLD}" in read["protocol"]


def test_labels(folder: Path, tmp_path: Path):
    read = report(folder, tmp_path, "--part", "labels", "--sheet", str(tmp_path / "sheets"))
    kinds = {f"{name}, {kind}" for name in ("scratch-detector", "top-hat") for kind in ("lines and spots", "all marks")}
    assert (set(read["rows"]), read["count"], read["things"]) == (kinds, 2, "crops")
    assert Image.open(tmp_path / "sheets" / "labels.png").width > 4 * 256


def test_fading(folder: Path, tmp_path: Path):
    read = report(folder, tmp_path, "--part", "fading")
    assert set(read["rows"]) == {"scan", "grey-world", "min/max", "direct"}
    assert read["rows"]["scan"][0]["value"] > read["rows"]["scan"][1]["value"] > 1


def test_chain(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("velatura.tasks.upscale.MODEL", "lanczos")  # the real one is not in this catalog
    read = report(folder, tmp_path, "--part", "chain")
    assert set(read["rows"]) == {"bicubic", "lanczos", "direct then bicubic", "direct then lanczos"}
    assert read["model"] == "direct then lanczos"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--part faces", "the catalog has no face-finder and no face-refiner"),
        ("--part fading --sheet sheets", "--sheet belongs to --part fidelity and labels; fading has none"),
        ("--model direct --model ./direct.safetensors", "two models are called direct"),
        ("--model nope", "unknown model 'nope'"),
        ("--masks half", "--masks belongs to evaluate inpaint, not to evaluate restore"),
        ("--reference .", "--reference belongs to evaluate upscale and fidelity"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", "restore", "--data", str(folder), *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_parts_belong_to_restoration(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "blend", "--data", str(folder), "--part", "clean"]) == 2
    assert "--part clean belongs to evaluate restore, not to evaluate blend" in capsys.readouterr().err


# --- the sums ---------------------------------------------------------------------------------------------------------


def test_detection_is_that_of_pooled_pixels():
    rng = np.random.default_rng(0)
    truth = [rng.random(size) < share for size, share in ((4000, 0.1), (900, 0.4), (3000, 0.0))]
    scores = [np.where(one, rng.beta(3, 2, len(one)), rng.beta(2, 5, len(one))) for one in truth]
    pooled, values = np.concatenate(truth), np.concatenate(scores)
    found = detection(scores, truth, 0.5)
    assert found[0].value == pytest.approx(f1(pooled, values, 0.5))
    assert found[1].value == pytest.approx(average_precision(pooled, values), abs=2e-3)
    assert found[2].value == pytest.approx((pooled & (values > 0.5)).sum() / (values > 0.5).sum())
    assert found[3].value == pytest.approx((pooled & (values > 0.5)).sum() / pooled.sum())
    assert all(one.low <= one.value <= one.high for one in found)
    assert found[0].low < found[0].high
    assert detection(scores, truth, 0.5) == found


def test_detection_where_nothing_is_damaged():
    assert [one.value for one in detection([np.ones(4)], [np.zeros(4)], 0.5)] == [0, 0, 0, 0]


def test_colours_of_the_usual_ways():
    image = np.random.default_rng(1).integers(20, 120, (30, 40, 3)).astype(np.uint8) * np.array([1, 2, 1], np.uint8)
    assert np.ptp(grey_world(image).mean((0, 1))) < 1
    even = stretched(image)
    assert (even.min((0, 1)) == 0).all()
    assert (even.max((0, 1)) == 255).all()


def test_noise_is_told():
    rng = np.random.default_rng(2)
    image = (np.full((120, 90, 3), 128) + rng.normal(0, 12, (120, 90, 3))).round().astype(np.uint8)
    assert 255 * noise_of(image) == pytest.approx(12, rel=0.05)
    assert noise_of(np.full((9, 7, 3), 50, np.uint8)) == 0
    assert (
        denoise_nl_means(image / 255, sigma=noise_of(image), channel_axis=-1, fast_mode=True).std() < image.std() / 255
    )


def test_top_hat_sees_lines():
    image = np.full((40, 40, 3), 0.4, np.float32)
    image[20, 5:35] = 0.9
    assert top_hat(image)[20, 10] > 0.4
