"""Pictures from words: what decides their bytes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import imaginers
import numpy as np
import pytest

from velatura.errors import InputError, ModelError
from velatura.tasks.imagine import Imagine, imagine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    imaginers.save(place)
    return place


@pytest.fixture(scope="module")
def task(folder: Path) -> Imagine:
    return Imagine.from_pretrained(folder / "words.safetensors")


def pixels(made) -> list[bytes]:
    return [picture.pixels.tobytes() for picture in made.pictures]


def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(task: Imagine, folder: Path):
    several = pixels(task("a red flower", count=3, seed=7))
    assert several[:1] == pixels(imagine("a red flower", model=folder / "words.safetensors", seed=7))
    assert len(set(several)) == 3
    assert pixels(task("a red flower", seed=8)) != several[:1]
    assert pixels(task("a blue flower", seed=7)) != several[:1]


def test_interpolation_goes_from_one_text_to_the_other(task: Imagine):
    made = task(interpolate=("red", "blue"), frames=4, seed=3)
    assert pixels(made)[0] == pixels(task("red", seed=3))[0]
    ends = [picture.pixels.astype(int) for picture in (made.pictures[0], made.pictures[-1])]
    other = task("blue", seed=3).pictures[0].pixels.astype(int)
    assert np.abs(ends[1] - other).max() <= 1
    assert made.grid.pixels.shape == (64, 4 * 64, 3)


def test_style_decides_the_noise(task: Imagine):
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(2))
    styled = pixels(task("red", style=first, count=2, seed=1))
    assert styled[0] == pixels(task("red", style=first, seed=2))[0]  # the seed is for the others
    assert styled[0] != styled[1]
    assert styled[0] != pixels(task("red", style=second))[0]
    assert styled[0] != pixels(task("blue", style=first))[0]
    assert task("red", style=first[:20, :20, :1]).pictures[0].pixels.shape == (64, 64, 3)  # small and grey


def test_unknown_words_are_named_in_one_warning(task: Imagine):
    with pytest.warns(UserWarning, match="does not know mauve, basalt;") as caught:
        made = task("a mauve flower with mauve basalt")
    assert len(caught) == 1
    assert made.unknown == ("mauve", "basalt")


def test_saving(task: Imagine, tmp_path: Path):
    made = task("red", count=2)
    assert [path.name for path in made.save(tmp_path / "new")] == ["0000.png", "0001.png"]
    with pytest.raises(InputError):
        made.save(tmp_path / "new")
    styled = task("red", style=tmp_path / "new" / "0000.png")
    with pytest.raises(InputError):  # the style is an input
        styled.save(tmp_path / "new", overwrite=True)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (None, {}, "expected a text"),
        ("red", {"interpolate": ("a", "b")}, "expected a text"),
        ("?!", {}, "0 words"),
        ("red " * 500, {}, "2000 characters"),
        ("red", {"count": 0}, "count"),
        ("red", {"cuont": 1}, "did you mean 'count'"),
    ],
)
def test_what_is_refused(task: Imagine, text: str | None, options: dict, said: str):
    with pytest.raises(InputError, match=said):
        task(text, **options)


def test_models_that_do_not_do(folder: Path):
    with pytest.raises(InputError, match="no style encoder"):
        imagine("red", model=folder / "plain.safetensors", style=np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ModelError, match="TextToImage"):
        imagine("red", model="srcnn")
    with pytest.raises(ModelError):
        imagine("red", model=folder / "none.safetensors")
