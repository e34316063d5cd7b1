from pathlib import Path

import pytest
from pydantic import ValidationError

from velatura.errors import InputError, ModelError
from velatura.training import checkpoint, recipes
from velatura.training.critics import AdversarialConfig
from velatura.training.recipe import TrainConfig, make_config


def test_later_values_win(tmp_path):
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("seed = 1\nsteps = 10\n")
    second.write_text("steps = 20\n")
    config = make_config(TrainConfig, first, second, settings=["learning_rate=1e-3", "data=/some/where", "clip = 0"])
    assert (config.seed, config.steps, config.learning_rate) == (1, 20, 1e-3)
    assert (config.data, config.clip) == ("/some/where", 0)


def test_values_are_read_as_toml_or_text():
    config = make_config(TrainConfig, settings=["tensorboard=true", "precision=bf16-mixed", "data=none"])
    assert config.tensorboard is True
    assert config.precision == "bf16-mixed"
    assert config.data is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lerning_rate=1", "unknown setting 'lerning_rate'; the nearest one is 'learning_rate'"),
        ("batchsize=1", "unknown setting 'batchsize'; the nearest one is 'batch_size'"),
        ("steps", "--set 'steps': expected key=value"),
        ("steps=0", "setting steps = 0: Input should be greater than or equal to 1"),
        ("precision=half", "setting precision = 'half'"),
    ],
)
def test_refusals_are_one_line(setting, said):
    with pytest.raises(InputError) as caught:
        make_config(TrainConfig, settings=[setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rule_of_several_settings_speaks_for_itself():
    with pytest.raises(InputError, match=r"^energy=5\.0: .*projected=2, or energy=0$"):
        make_config(AdversarialConfig, settings=["energy=5"])


def test_files_are_refused_in_one_line(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(InputError, match="is not TOML"):
        make_config(TrainConfig, bad)
    with pytest.raises(InputError, match="cannot be read"):
        make_config(TrainConfig, tmp_path / "none.toml")


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        make_config(TrainConfig).steps = 3


def test_a_config_is_a_file_or_the_name_of_one_of_ours(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine.toml").write_text("no_such_setting = 1")
    monkeypatch.chdir(here)
    for file in (here / "mine.toml", Path("mine.toml"), Path("../here/mine.toml")):
        with pytest.raises(InputError, match="unknown setting 'no_such_setting'"):
            recipes.run("blend", tmp_path / "run", config=file)
    with pytest.raises(InputError, match="unknown setting 'other'"):  # found: the recipe's file has no fault
        recipes.run("blend", tmp_path / "run", config=Path("blend_paper"), settings=["other=1"])
    for absent in (tmp_path / "blend_paper", Path("blend_papers")):
        with pytest.raises(InputError, match=f"{absent.name}.* cannot be read"):
            recipes.run("blend", tmp_path / "run", config=absent)


@pytest.mark.parametrize("torn", ['{"recipe": "bl', "{}", "[]", "\x00\x00"])
def test_damaged_settings_of_a_run_are_told_in_one_line(tmp_path, torn):
    checkpoint.save(tmp_path, 1, {}, {})
    (tmp_path / "config.json").write_text(torn)
    for use in (lambda: recipes.run("blend", tmp_path, resume=True), lambda: recipes.load_run(tmp_path)):
        with pytest.raises(ModelError, match=r"config\.json is missing or damaged .*; delete it") as caught:
            use()
        assert "\n" not in str(caught.value)
