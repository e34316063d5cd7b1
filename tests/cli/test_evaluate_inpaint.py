"""``velatura evaluate inpaint``: protocol, baselines, settings side by side, sheets; with small random networks."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import make_data_folder
from inpainters import save_gan, save_vae
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from velatura.catalog import cards
from velatura.cli import main
from velatura.cli.evaluate_inpaint import MASKS, planes_of, sharpness
from velatura.ops import masks
from velatura.semantic import DEFAULTS, fill, load_model
from velatura.training.pictures import Pictures, PicturesConfig


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """The sets, a few faces of them held out."""
    return make_data_folder(tmp_path_factory.mktemp("data"), per_set=60)


@pytest.fixture(scope="module")
def brains(tmp_path_factory) -> Path:
    """Twenty subjects of blurred noise, two slices each."""
    folder = tmp_path_factory.mktemp("brains")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "brain96.zip", "w") as archive:
        for subject in range(20):
            for z in range(2):
                file = io.BytesIO()
                noise = gaussian_filter(rng.standard_normal((96, 96)), 4)
                Image.fromarray(np.uint8((128 + 500 * noise).clip(0, 255))).save(file, "PNG")
                archive.writestr(f"Group/s{subject:03d}_z{z:02d}.png", file.getvalue())
    return folder


def report(tmp_path: Path, *words: str) -> dict:
    path = tmp_path / "report.json"
    assert main(["evaluate", "inpaint", *words, "--steps", "1", "--json", str(path), "--overwrite"]) == 0
    return json.loads(path.read_text())


def test_faces_by_hand(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    net = save_vae(tmp_path)
    read = report(tmp_path, "--data", str(faces), "--model", str(net), "--masks", "half,centre", "--plain")
    assert "Inpainting at 64x64: faces128 (color)" in capsys.readouterr().out
    images = Pictures(PicturesConfig(data=str(faces), gray_share=0), "held-out").whole()
    assert read["count"] == len(images) > 1
    names = [column["name"] for column in read["columns"]]
    assert names[:3] == ["PSNR", "SSIM", "sharpness"]
    assert ("perceptual distance" in names) == any(card.name == "features" for card in cards())

    found: dict[str, list] = {"joined": [], "plain": []}
    for side in masks.SIDES:
        planes = torch.from_numpy(masks.half(64, 64, side)).expand(len(images), 1, 64, 64)
        made = fill(load_model(net), images, planes, options=replace(DEFAULTS["encoder"], steps=1), mirror=True)
        plain = torch.where(planes > 0, made.made[:, 0], images)
        for name, some in (("joined", made.images[:, 0]), ("plain", plain)):
            both = ([np.rint(255 * one.numpy().clip(0, 1)).astype(np.uint8) for one in of] for of in (some, images))
            found[name] += [
                (peak_signal_noise_ratio(true, one), _ssim(one, true)) for one, true in zip(*both, strict=True)
            ]
    for label, values in (("vae-faces", found["joined"]), ("vae-faces (not joined)", found["plain"])):
        psnr, ssim = (figure["value"] for figure in read["rows"][f"{label}, half"][:2])
        assert psnr == pytest.approx(np.mean(values, 0)[0], abs=1e-3)
        assert ssim == pytest.approx(np.mean(values, 0)[1], abs=1e-4)

    methods = ["nearest training image", "membrane", "biharmonic", "Telea", "vae-faces", "vae-faces (not joined)"]
    assert list(read["rows"]) == [f"{method}, {kind}" for kind in ("half", "centre") for method in methods]
    assert (read["model"], read["baseline"]) == ("vae-faces", "nearest training image")
    assert [score["metric"] for score in read["scores"]][0 :: len(names)] == ["PSNR, half", "PSNR, centre"]
    (note,) = read["notes"]
    assert "another seed moves fills by up to 0 levels" in note
    assert f"instead of one of {len(images)} by 0;" in note


def _ssim(one: np.ndarray, true: np.ndarray) -> float:
    """As Wang et al.; scikit-image leaves out a border of (window - 1) / 2 as we do."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return structural_similarity(one, true, channel_axis=0, **settings)


def test_brains_by_two_models_and_settings(brains: Path, tmp_path: Path):
    small = save_vae(tmp_path, "vae-brain", "brain", 1)
    other = save_vae(tmp_path, "other", "brain", 1)
    words = ["--data", str(brains), "--model", str(small), "--model", str(other), "--masks", "most", "--limit", "2"]
    read = report(tmp_path, *words, "--method", "encoder", "--method", "latent", "--window", "3", "--window", "9")
    settings = ["window 3", "window 9", "search; window 3", "search; window 9"]
    labels = [f"{name} ({setting})" for name in ("vae-brain", "other") for setting in settings]
    assert [row.removesuffix(", most") for row in read["rows"]][4:] == labels
    assert (read["count"], read["model"]) == (2, labels[0])
    assert len(read["notes"]) == len(labels)
    values = [read["rows"][f"{label}, most"][0]["value"] for label in labels]
    assert len({round(value, 2) for value in values}) >= 4  # two models, two methods
    assert "all but a patch" in read["protocol"]


def test_a_folder_of_pictures_and_a_sheet(tmp_path: Path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(folder / f"{i:02d}.png")
    words = ["--data", str(folder), "--model", str(save_gan(tmp_path)), "--masks", "random,pattern"]
    read = report(tmp_path, *words, "--sheet", str(tmp_path / "sheets" / "new"))
    assert (read["count"], read["data"]) == (2, "what is held out of pictures")
    assert sorted(path.name for path in (tmp_path / "sheets" / "new").iterdir()) == ["pattern.png", "random.png"]
    with Image.open(tmp_path / "sheets" / "new" / "random.png") as image:
        pixels = np.asarray(image)
    # Two rows of seven pictures, the originals last, each pixel twice.
    assert pixels.shape[1] == 7 * (128 + 8) + 8
    original = (255 * Pictures(PicturesConfig(photographs=str(folder)), "held-out").whole()[0]).round().byte().numpy()
    last = pixels[8 : 8 + 128 : 2, -136:-8:2]
    assert np.array_equal(last, original.transpose(1, 2, 0))
    assert main(["evaluate", "inpaint", *words, "--sheet", str(tmp_path / "sheets" / "new")]) == 2


def test_without_opencv_it_says_so(brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    net = save_vae(tmp_path, "vae-brain", "brain", 1)
    read = report(tmp_path, "--data", str(brains), "--model", str(net), "--masks", "small", "--limit", "1")
    assert "Telea, small" not in read["rows"]
    assert any("OpenCV is not installed" in note for note in read["notes"])


def test_without_training_installed_it_says_what_to_install(
    brains: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "velatura.training.pictures", None)
    assert main(["evaluate", "inpaint", "--data", str(brains)]) == 1
    assert "pip install 'velatura[train]'" in capsys.readouterr().err


def test_refusals(faces: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    net, grey = str(save_vae(tmp_path)), str(save_vae(tmp_path, "vae-brain", "brain", 1))

    def say(*words: str, task: str = "inpaint") -> str:
        assert main(["evaluate", task, "--data", str(faces), *words]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        return captured.err

    assert "unknown model" in say("--model", "absent")
    assert "two models are called vae-faces" in say("--model", net, "--model", net)
    assert "vae-brain is for 64x64 pixels in grey" in say("--model", net, "--model", grey)
    assert "choose another --subject or model" in say("--model", grey, "--subject", "faces", "--masks", "centre")
    assert "unknown kind 'left'; known: centre, half" in say("--model", net, "--masks", "centre,left")
    assert "--window 4: expected an odd number" in say("--model", net, "--window", "4")
    assert "--prior -1: expected a number from 0" in say("--model", net, "--prior", "-1")
    assert "no encoder" in say("--model", str(save_gan(tmp_path, "bare", encoder=False)))
    assert "--masks belongs to evaluate inpaint, not to evaluate blend" in say("--masks", "centre", task="blend")
    assert "--faces belongs to evaluate upscale" in say("--model", net, "--faces")


@pytest.mark.parametrize("kind", MASKS)
def test_holes(kind: str):
    planes = planes_of(kind, 30, 64)
    assert len(planes) == (4 if kind == "half" else 1)
    for many in planes:
        assert many.shape == (30, 1, 64, 64)
        assert set(many.unique().tolist()) == {0, 1}
    expected = {"centre": 0.25, "half": 0.5, "random": 0.8, "pattern": 0.25, "small": 0.02, "large": 0.15, "most": 0.92}
    assert float(planes[0].mean()) == pytest.approx(expected[kind], rel=0.35)
    assert torch.equal(planes[0], planes_of(kind, 30, 64)[0])
    assert torch.equal(planes[0][:3], planes_of(kind, 3, 64)[0])
    is_drawn = kind not in ("centre", "half")
    assert bool((planes[0][0] != planes[0][1]).any()) == is_drawn


def test_sharpness_is_measured_in_the_hole_alone():
    images, planes = torch.rand(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    planes[..., 4:8, 4:8] = 1
    made = images.clone()
    made[..., 10:, :] = 0
    assert sharpness(made, images, planes).mean() == pytest.approx(1)
    blurred = torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, 2, 2)))
    assert sharpness(blurred, images, planes).mean() < 0.5
    assert np.isfinite(sharpness(images, torch.zeros_like(images), planes)).all()
