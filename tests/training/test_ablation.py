import pytest
from safetensors import safe_open

from velatura.errors import InputError
from velatura.training.ablation import ablation

SMALL = [
    *("steps=1", "log_every=1", "threads=1", "batch_size=2", "patch=16", "warmup=0", "precision=32-true"),
    *("width=4", "blocks=1", "critic_width=4", "critic_dense=8"),
]


def losses(run):
    first, _, last = (run / "log.csv").read_text().strip().partition("\n")
    return dict(zip(first.split(","), last.splitlines()[-1].split(","), strict=True))


def test_three_runs_that_differ_in_what_they_follow(data_folder, tmp_path):
    files = ablation("srgan", tmp_path, settings=[*SMALL, f"data={data_folder}"], quiet=True)
    assert [file.stem for file in files] == ["srgan-pixel", "srgan-shallow", "srgan-deep"]
    headers = []
    for file in files:
        with safe_open(file, "pt") as opened:
            headers.append(opened.metadata())
    assert len({header["arguments"] for header in headers}) == 1
    assert [bool(losses(tmp_path / file.stem).get("train/content")) for file in files] == [False, True, True]
    # Again: what is done stays; longer: it goes on.
    before = [file.stat().st_mtime_ns for file in files]
    ablation("srgan", tmp_path, settings=[*SMALL, f"data={data_folder}"], quiet=True)
    assert [file.stat().st_mtime_ns for file in files] == before
    ablation("srgan", tmp_path, settings=[*SMALL, f"data={data_folder}", "steps=2"], quiet=True)
    with safe_open(files[2], "pt") as opened:
        assert opened.metadata()["step"] == "2"


def test_a_recipe_without_an_ablation(tmp_path):
    with pytest.raises(InputError, match="recipe 'blend' has no ablation; those that have one: srgan"):
        ablation("blend", tmp_path)
