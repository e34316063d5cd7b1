"""``velatura inpaint`` with volumes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra medical")

import nibabel
from inpainters import save_vae
from PIL import Image
from volumes import brain, lesion, save

from velatura import medical
from velatura.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.*never for a diagnosis")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.nii.gz", brain())
    save(tmp_path / "mask.nii.gz", lesion(), dtype=np.uint8)
    save_vae(tmp_path, "net", "brain", 1)


WORDS = ["inpaint", "a.nii.gz", "--mask", "mask.nii.gz", "--model", "net.safetensors", "--steps", "1"]


def test_from_file_to_file(capsys: pytest.CaptureFixture[str]):
    assert main([*WORDS, "-o", "out.nii.gz"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("out.nii.gz: 44 x 52 x 6, 128 voxels of 2 slices filled")
    assert captured.err.strip() == f"velatura: note: {medical.NOTICE}"
    assert "research, not diagnosis" in captured.err
    before, after = (np.asarray(nibabel.load(name).dataobj) for name in ("a.nii.gz", "out.nii.gz"))
    np.testing.assert_array_equal(before[~lesion()], after[~lesion()])
    expected = medical.fill_file("a.nii.gz", "mask.nii.gz", "again.nii.gz", model="net.safetensors", steps=1)
    np.testing.assert_array_equal(after, expected.volume.stored)


def test_as_json_into_a_folder(capsys: pytest.CaptureFixture[str]):
    Path("out").mkdir()
    assert main([*WORDS, "-o", "out", "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["output"], found["shape"], found["slices"]) == ("out/a-inpaint.nii.gz", [44, 52, 6], 2)
    assert found["notice"] == medical.NOTICE
    assert captured.err == ""
    assert Path("out/a-inpaint.nii.gz").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("inpaint a.nii.gz -o out.nii.gz", "give a volume of its shape as --mask"),
        ("inpaint a.nii.gz --mask mask.png -o out.nii.gz", "give a volume of its shape as --mask"),
        ("inpaint a.nii.gz --mask none.nii -o out.nii.gz", "none.nii: no such file"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.png", "expected the name of a volume"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o a.nii.gz --overwrite", "never written onto"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --candidates 2", "--candidates is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --mask-color ff00ff", "--mask-color is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --quality 80", "--quality is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --max-megapixels 0.001", "--max-megapixels"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --engine ray", "--engine is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --address host:1", "--address is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --memory 64", "--memory is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --no-mark", "--no-mark is for images"),
        ("inpaint a.nii.gz --mask mask.nii.gz -o out.nii.gz --model absent", "unknown model 'absent'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words.split(), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out.nii.gz").exists()


def test_without_nibabel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert main([*WORDS, "-o", "out.nii.gz", "--quiet"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'velatura[medical]'\n")


def test_volumes_of_a_folder_go_one_at_a_time(capsys: pytest.CaptureFixture[str]):
    Path("scans/one").mkdir(parents=True)
    save(Path("scans/one/a.nii.gz"), brain())
    words = ["inpaint", "scans", "--mask", "scans", "-o", "out", "--quiet"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "scans: holds no images but volumes, such as one/a.nii.gz; volumes go one at a time" in error
    assert not Path("out").exists()
    # Volumes beside images do not matter.
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save("scans/a.png")
    assert main(["inpaint", "scans", "--box", "5,5,4,4", "--model", "texture", "-o", "out", "--quiet"]) == 0
    assert Path("out/a.png").is_file()
