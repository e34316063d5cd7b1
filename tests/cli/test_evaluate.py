"""``velatura evaluate``."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, coffee
from skimage.metrics import peak_signal_noise_ratio

from velatura.cli import main
from velatura.cli.evaluate import report_of_blend


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two originals, one in a subfolder, and noisy results in another format."""
    originals, results = tmp_path / "originals", tmp_path / "results"
    random = np.random.default_rng(0)
    for name, image in [("a", astronaut()[:64, :80]), ("more/b", coffee()[:60, :70])]:
        noisy = np.clip(image + random.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
        for folder, pixels, suffix in [(originals, image, ".png"), (results, noisy, ".tif")]:
            path = (folder / name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return results, originals


def evaluate(results: Path, originals: Path, *more: str) -> int:
    return main(["evaluate", "fidelity", "--data", str(results), "--reference", str(originals), *more])


def test_fidelity(folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmp_path / "report.json"
    assert evaluate(*folders, "--json", str(report)) == 0
    text = capsys.readouterr().out
    assert "PSNR (dB)" in text
    assert "rgb: RGB, 8 bit" in text
    read = json.loads(report.read_text())
    expected = [
        peak_signal_noise_ratio(
            np.asarray(Image.open(folders[1] / f"{name}.png")), np.asarray(Image.open(folders[0] / f"{name}.tif"))
        )
        for name in ("a", "more/b")
    ]
    assert read["rows"]["results"][0]["value"] == pytest.approx(np.mean(expected))
    assert read["count"] == 2
    assert read["environment"]["versions"]["velatura"]


def test_fidelity_takes_every_suffix_that_can_be_read(folders, capsys: pytest.CaptureFixture[str]):
    results, originals = folders
    Image.open(originals / "a.png").save(originals / "c.jpe", "JPEG")
    Image.open(originals / "a.png").save(results / "c.dib", "BMP")
    assert evaluate(results, originals) == 0
    assert "3 images" in capsys.readouterr().out


def test_fidelity_names_its_protocol(folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmp_path / "report.json"
    assert evaluate(*folders, "--protocol", "y4", "--json", str(report)) == 0
    assert "Y channel (BT.601), 8 bit, border 4 cropped" in capsys.readouterr().out
    assert json.loads(report.read_text())["protocol"].startswith("y4: ")


def test_fidelity_says_which_originals_are_left(folders, capsys: pytest.CaptureFixture[str]):
    (folders[0] / "more/b.tif").unlink()
    assert evaluate(*folders) == 0
    assert "1 originals have no result." in capsys.readouterr().out


def test_report_replaces_only_what_it_may(folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = folders[0] / "report.json"
    assert evaluate(*folders, "--json", str(report)) == 0
    report.write_text("earlier")
    assert evaluate(*folders, "--json", str(report)) == 2
    assert "report.json: exists; name another file, or add --overwrite" in capsys.readouterr().err
    assert report.read_text() == "earlier"
    assert evaluate(*folders, "--json", str(report), "--overwrite") == 0
    assert json.loads(report.read_text())["count"] == 2
    link = tmp_path / "link.json"
    link.symlink_to(folders[1] / "a.png")
    for image in (folders[0] / "more" / "b.tif", folders[1] / "a.png", link):
        before = image.read_bytes()
        assert evaluate(*folders, "--json", str(image), "--overwrite") == 2
        assert "is read by this work and never written onto" in capsys.readouterr().err
        assert image.read_bytes() == before


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["evaluate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_fidelity_refuses(folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    results, originals = (str(folder) for folder in folders)
    empty = tmp_path / "empty"
    empty.mkdir()

    def say(*words: str) -> str:
        return refusal(capsys, "fidelity", *words)

    assert "no such folder" in say("--data", str(tmp_path / "absent"), "--reference", originals)
    assert "no such folder" in say("--data", results, "--reference", str(tmp_path / "absent"))
    assert "no images" in say("--data", str(empty), "--reference", originals)
    assert "no original of this name" in say("--data", results, "--reference", str(empty))
    assert "--reference ORIGINALS" in say("--data", results)
    assert "no --model" in say("--data", results, "--reference", originals, "--model", "x")

    Image.new("RGB", (64, 64)).save(folders[0] / "a.png")
    assert "have the same name" in say("--data", results, "--reference", originals)
    (folders[0] / "a.tif").unlink()
    assert "a.png" in (message := say("--data", results, "--reference", originals))
    assert "expected the same" in message
    (folders[0] / "a.png").write_bytes(b"not an image")
    assert "a.png" in say("--data", results, "--reference", originals)


def test_blend_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = ("--data", str(tmp_path))
    assert "unknown model 'absent'" in refusal(capsys, "blend", *data, "--model", "absent")
    assert "--reference belongs to" in refusal(capsys, "blend", *data, "--reference", str(tmp_path))
    assert "blend, generate, imagine, inpaint, restore, stylize, upscale, fidelity" in refusal(
        capsys, "mix", *data
    ).replace("'", "")


def test_report_of_blend():
    figures = {"levels": [4.0, 3.5, 4.5], "ciede2000": [2.0, 1.9, 2.1]}
    rows = {kind: dict.fromkeys(("paste", "poisson", "ours"), figures) for kind in ("all", "irregular")}
    scores = {"pairs": 400, "seed": 64, "rows": rows, "identity": {"mean": 0.1, "max": 2.0}}
    report = report_of_blend(scores, "blending-gan")
    assert list(report.rows)[:3] == ["paste", "poisson", "blending-gan"]
    assert report.scores()[0]["value"] == 4
    assert report.scores()[0]["baseline"] == "poisson"


@pytest.mark.training
def test_blend_on_held_out_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from safetensors.torch import save_file

    from velatura.nets.blending_gan import BlendingGAN

    arguments = {"width": 8, "bottleneck": 8}
    path = tmp_path / "fresh.safetensors"
    notes = {"architecture": "BlendingGAN", "arguments": json.dumps(arguments)}
    save_file(BlendingGAN(**arguments).state_dict(), path, notes)
    report = tmp_path / "report.json"
    data = os.environ["VELATURA_DATA"]
    assert main(["evaluate", "blend", "--model", str(path), "--data", data, "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    # A fresh network corrects nothing: it is the pasted image.
    assert rows["fresh"][0]["value"] == pytest.approx(rows["paste"][0]["value"], abs=0.01)
    assert rows["poisson"][0]["value"] < rows["paste"][0]["value"]
