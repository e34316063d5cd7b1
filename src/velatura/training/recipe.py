"""Settings of a training run: one frozen model per recipe, values from TOML, then from ``--set key=value``."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from velatura.errors import InputError

__all__ = ["TrainConfig", "make_config"]


class TrainConfig(BaseModel):
    """What every run needs; a recipe's own config adds to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = Field(None, description="data folder; else the environment's VELATURA_DATA")
    start: str | None = Field(None, description="weights the first network starts from: a model's name or a file")
    seed: int = Field(0, ge=0, description="batch k is drawn from (seed, k)")
    steps: int = Field(10_000, ge=1, description="number of optimizer steps of the first network")
    batch_size: int = Field(32, ge=1, description="images per step, shared out among the devices")
    learning_rate: float = Field(3e-4, gt=0)
    warmup: int = Field(200, ge=0, description="steps over which the learning rate rises")
    final_rate: float = Field(0.02, ge=0, le=1, description="share of the learning rate left at the end (cosine)")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the running average of the first network")
    clip: float = Field(1.0, ge=0, description="largest norm of a network's gradient; 0 = any")

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = Field(False, description="memory order of the networks")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1, description="of each machine; more than one: distributed data parallel")
    num_nodes: int = Field(1, ge=1, description="machines")
    threads: int = Field(0, ge=0, description="threads of torch; 0 = its own choice")

    log_every: int = Field(50, ge=1, description="steps per row of log.csv")
    held_out_every: int = Field(1000, ge=1, description="steps between held-out measurements")
    sheet_every: int = Field(2000, ge=1, description="steps between sample sheets")
    checkpoint_minutes: float = Field(3.0, gt=0)
    tensorboard: bool = Field(False, description="write TensorBoard events too")


Config = TypeVar("Config", bound=BaseModel)


def make_config(model: type[Config], *tables: Path | Mapping[str, Any], settings: Iterable[str] = ()) -> Config:
    """Read settings, later ones over earlier ones.

    Parameters
    ----------
    model : type of pydantic model
        The recipe's config.
    *tables : Path or mapping
        TOML files, or values.
    settings : iterable of str
        ``key=value`` texts; a value is read as TOML where that is possible, else taken as text.

    Returns
    -------
    Config
        Frozen.

    Raises
    ------
    InputError
        A file is no TOML, a key is unknown (the nearest one is named) or a value is refused.

    Examples
    --------
    >>> make_config(TrainConfig, settings=["seed=7", "precision=bf16-mixed"]).seed
    7
    """
    values: dict[str, Any] = {}
    for table in tables:
        values.update(_read(table) if isinstance(table, Path) else table)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r}: expected key=value")
        values[key.strip()] = _value(value.strip())
    for key in values:
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.0)
            raise InputError(f"unknown setting {key!r}; the nearest one is {near[0]!r}")
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # a rule of several settings, which says them
            raise InputError(first["msg"].removeprefix("Value error, ")) from None
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"setting {name} = {first.get('input')!r}: {first['msg']}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"settings file {path} is not TOML: {error}") from None


def _value(text: str) -> Any:
    if text.lower() in {"true", "false", "none", "null"}:
        return json.loads({"none": "null"}.get(text.lower(), text.lower()))
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
