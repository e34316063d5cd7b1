"""``velatura evaluate imagine``: rows, styles, sheets and refusals, on small models of a few coloured squares."""

from __future__ import annotations

import io
import json
from pathlib import Path

import imaginers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from velatura.cli import main
from velatura.cli.evaluate_imagine import PHOTOGRAPHS, SENTENCES, STYLED, background_pairs, evaluate_imagine
from velatura.errors import InputError, ModelError
from velatura.nets.gan_cls import TextToImage
from velatura.nets.text_encoder import JointEmbedding

KINDS, EACH = 100, 2  # of them, every fifth class is held out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of classes of one colour each, in the layout of CUB."""
    made = tmp_path_factory.mktemp("birds")
    random = np.random.default_rng(0)
    for number in range(KINDS):
        kind = f"{number:03d}.bird"
        for place in (made / "images" / kind, made / "text_c10" / kind):
            place.mkdir(parents=True)
        color = random.integers(256, size=3)
        for index in range(EACH):
            pixels = np.clip(color + random.integers(-20, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            (made / "images" / kind / f"bird_{number}_{index}.png").write_bytes(file.getvalue())
            (made / "text_c10" / kind / f"bird_{number}_{index}.txt").write_text("a red flower\na blue flower\n")
    return made


def save(path: Path, photographs: Path, seed: int = 0, **more: int) -> str:
    torch.manual_seed(seed)
    arguments = {**imaginers.ARGUMENTS, **more}
    recipe = {"name": "imagine", "settings": {"photographs": str(photographs)}}
    header = {"architecture": "TextToImage", "arguments": json.dumps(arguments), "recipe": json.dumps(recipe)}
    state = {key: value.contiguous() for key, value in TextToImage(**arguments).state_dict().items()}
    save_file(state, path, header)
    return str(path)


def save_judge(path: Path, model: str | None = None) -> str:
    arguments = {"text": imaginers.ARGUMENTS["text"], "picture": {"width": 4, "size": 8}}
    torch.manual_seed(7)
    joint = JointEmbedding(**arguments)
    if model is not None:
        torch.manual_seed(0)
        joint.text.load_state_dict(TextToImage(**imaginers.ARGUMENTS).text.state_dict())
    header = {"architecture": "JointEmbedding", "arguments": json.dumps(arguments)}
    save_file({key: value.contiguous() for key, value in joint.state_dict().items()}, path, header)
    return str(path)


def test_rows_columns_and_sheets(folder: Path, tmp_path: Path):
    first = save(tmp_path / "first.safetensors", folder, style_width=4)
    second = save(tmp_path / "second.safetensors", folder, seed=1)
    judge = save_judge(tmp_path / "judge.safetensors")
    report = evaluate_imagine([first, second], folder, judge=judge, draws=2, sheet=tmp_path / "sheets")
    assert list(report.rows) == [f"{name}, unseen" for name in (PHOTOGRAPHS, "first", f"first {STYLED}", "second")]
    assert [column.name for column in report.columns] == ["right sentence of ten", "two draws differ", "KID-velatura"]
    assert (report.model, report.baseline, report.count) == ("first", "second", 20)
    theirs, ours, *_ = (row for row in report.rows.values())
    assert theirs[1].value == pytest.approx(1, abs=0.3)  # two photographs of a class, by two photographs of a class
    assert ours[2].low > theirs[2].high  # networks that never learned make nothing like photographs
    assert report.judged == ["first, unseen"]
    names = {path.stem for path in (tmp_path / "sheets").iterdir()}
    assert names == {"variants", "draws", "between", "unseen", "implausible", "styles"}
    assert np.asarray(Image.open(tmp_path / "sheets" / "unseen.png")).shape == (3 * 128, 8 * 128, 3)
    with pytest.raises(InputError, match="holds an earlier sheet"):
        evaluate_imagine([first], folder, sheet=tmp_path / "sheets")


def test_styles_beside_sentences(folder: Path, tmp_path: Path):
    report = evaluate_imagine([save(tmp_path / "mine.safetensors", folder, style_width=4)], folder, part="style")
    assert list(report.rows) == [
        f"{name}, {kind}" for name in (SENTENCES, "mine") for kind in ("one noise", "backgrounds")
    ]
    assert all(0 <= figure.low <= figure.value <= figure.high <= 1 for [figure] in report.rows.values())
    assert report.baseline == SENTENCES
    assert "a guess of 0 has 1" in report.notes[0]


def test_what_cannot_be_measured(folder: Path, tmp_path: Path):
    plain = save(tmp_path / "plain.safetensors", folder)
    with pytest.raises(InputError, match="plain has no style encoder"):
        evaluate_imagine([plain], folder, part="style")
    with pytest.raises(InputError, match="two models are called plain"):
        evaluate_imagine([plain, plain], folder)
    with pytest.raises(InputError, match="plain was trained with it"):
        evaluate_imagine([plain], folder, judge=save_judge(tmp_path / "own.safetensors", plain))
    imaginers.save(tmp_path)
    with pytest.raises(ModelError, match="does not say which generator's recipe"):
        evaluate_imagine([str(tmp_path / "words.safetensors")], folder)


def test_backgrounds_of_one_colour_are_alike_whatever_stands_before_them():
    random = np.random.default_rng(1)
    colors = torch.tensor([[0.1, 0.8, 0.2], [0.9, 0.1, 0.5]])
    pictures = colors[torch.arange(10) % 2][:, :, None, None].expand(-1, -1, 32, 32).clone()
    pictures[:, :, 4:-4, 4:-4] = torch.from_numpy(random.random((10, 3, 1, 1))).float()
    alike, apart = background_pairs(pictures)
    assert len(alike) == 10
    assert all(first % 2 == second % 2 for first, second in alike)
    assert len(apart) == 25
    assert all(first % 2 != second % 2 for first, second in apart)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["generate", "--judge", "x"], "--judge belongs to evaluate imagine, not to evaluate generate"),
        (["imagine", "--part", "levels"], "--part levels belongs to evaluate generate, not to evaluate imagine"),
    ],
)
def test_options_of_other_tasks(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", *options, "--data", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
