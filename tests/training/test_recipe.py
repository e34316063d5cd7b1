import pytest
from pydantic import ValidationError

from velatura.errors import InputError
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
