"""``velatura inpaint`` with files: what it makes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from inpainters import save_vae
from PIL import Image

from velatura import storage
from velatura.cli import main
from velatura.tasks.inpaint import Inpaint


@pytest.fixture(autouse=True)
def _images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stripes = np.tile(np.uint8([40, 40, 40, 200, 200, 200]), (48, 8))
    for name in ("a", "b"):
        for folder, image in (("photos", stripes), ("masks", np.zeros_like(stripes))):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = image.copy()
            if folder == "masks":
                image[20:30, 20:26] = 255
            Image.fromarray(image).save(f"{folder}/{name}.png")


def pixels(path):
    return np.asarray(Image.open(path))


def test_with_a_mask(capsys):
    assert main(["inpaint", "photos/a.png", "--mask", "masks/a.png", "-o", "out.png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["output"], result["made_by"]) == ("out.png", None)
    assert np.abs(pixels("out.png").astype(int) - pixels("photos/a.png")).max() < 60


def test_a_folder_with_a_folder_of_masks():
    assert main(["inpaint", "photos", "--mask", "masks", "-o", "out", "--quiet"]) == 0
    assert pixels("out/a.png").shape == pixels("out/b.png").shape == (48, 48)


def test_candidates_lie_beside_the_output(capsys, tmp_path):
    """A model by file, of nothing that has to be found."""
    path = save_vae(tmp_path, "mine", subject="", channels=1)
    words = f"--mask masks/a.png --model {path} --steps 1 --candidates 3 --disagreement map.png --json"
    assert main(["inpaint", "photos/a.png", "-o", "out.png", *words.split()]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["made_by"] == "mine"
    assert result["maps"] == {
        "candidate-2": "out-candidate-2.png",
        "candidate-3": "out-candidate-3.png",
        "disagreement": "map.png",
    }
    hole = pixels("masks/a.png") > 0
    for name in ("out", "out-candidate-2", "out-candidate-3"):
        assert np.array_equal(pixels(f"{name}.png")[~hole], pixels("photos/a.png")[~hole])
    assert not np.array_equal(pixels("out.png"), pixels("out-candidate-2.png"))
    assert pixels("map.png")[hole].any()


def test_candidates_of_a_batch(capsys, tmp_path):
    words = "--mask masks --model texture --candidates 2 --disagreement maps --json"
    assert main(["inpaint", "photos", *words.split(), "-o", "out [1]"]) == 0
    told = json.loads(capsys.readouterr().out)["maps"]
    assert told == {"candidate-2": "out [[]1]/**/*-candidate-2.*", "disagreement": "maps"}
    assert len(list(tmp_path.glob(told["candidate-2"]))) == 2
    assert sorted(path.name for path in (tmp_path / "out [1]").glob("*.png")) == [
        "a-candidate-2.png",
        "a.png",
        "b-candidate-2.png",
        "b.png",
    ]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.png")) == ["a.png.png", "b.png.png"]


TWO = ["--mask", "masks/a.png", "--model", "texture", "--candidates", "2"]


def test_candidates_have_the_outputs_format(capsys):
    assert main(["inpaint", "photos/a.png", *TWO, "-o", "x.dat", "--format", "png"]) == 0
    assert capsys.readouterr().out.strip().endswith("; candidate-2: x-candidate-2.dat")
    assert Image.open("x-candidate-2.dat").format == Image.open("x.dat").format == "PNG"


def test_candidates_reach_a_store(capsys):
    pytest.importorskip("fsspec", reason="needs the extra cloud")
    out = "memory://candidates/out.png"
    assert main(["inpaint", "photos/a.png", *TWO, "-o", out, "--json"]) == 0
    other = "memory://candidates/out-candidate-2.png"
    assert json.loads(capsys.readouterr().out)["maps"] == {"candidate-2": other}
    assert (storage.read(other) or b"").startswith(b"\x89PNG")
    storage.remove(out)
    assert main(["inpaint", "photos/a.png", *TWO, "-o", out]) == 2
    assert f"{other} exists" in capsys.readouterr().err
    assert storage.read(out) is None


def test_help_names_the_models(capsys):
    assert main(["inpaint", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"{', '.join(Inpaint.models())}, or a file [default: auto]" in said


def test_no_file_is_to_hold_two_pictures(capsys, tmp_path):
    words = ["inpaint", "photos/a.png", *TWO, "-o", "filled.png", "--disagreement", "./filled-candidate-2.png"]
    assert main(words) == 2
    assert "is to hold candidate-2 and disagreement; name two files" in capsys.readouterr().err
    assert not list(tmp_path.glob("filled*"))


def test_candidates_of_a_batch_replace_nothing(capsys, tmp_path):
    words = ["inpaint", "photos", "--mask", "masks", "--model", "texture", "--candidates", "2", "-o", "out", "--quiet"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b-candidate-2.png").write_bytes(b"mine")
    assert main(words) == 2
    assert "b-candidate-2.png: exists already (1 of 4 outputs do)" in capsys.readouterr().err
    assert (tmp_path / "out/b-candidate-2.png").read_bytes() == b"mine"
    assert not (tmp_path / "out/a.png").exists()
    assert main([*words, "--overwrite"]) == 0
    # One that is gone is made again.
    (tmp_path / "out/b-candidate-2.png").unlink()
    assert main([*words, "--resume"]) == 0
    assert pixels("out/b-candidate-2.png").shape == (48, 48)


def test_candidates_of_a_batch_are_no_results(capsys, tmp_path):
    for folder in ("photos", "masks"):
        (tmp_path / folder / "b.png").rename(tmp_path / folder / "a-candidate-2.png")
    words = "inpaint photos --mask masks --model texture --candidates 2 -o out --quiet"
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert "a-candidate-2.png: is to hold candidate-2 of a.png and the result of a-candidate-2.png" in error


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--mask photos/none.png",
        "--box 1,2,3",
        "--mask-color red",
        "--model vae",
        "--box 1,2,3,4 --disagreement map.png",
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, capsys, tmp_path):
    assert main(f"inpaint photos/a.png -o out.png {words}".split()) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
