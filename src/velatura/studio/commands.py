"""The command line that repeats a job."""

from __future__ import annotations

import importlib
import inspect
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["command_line", "step_text"]

#: Flags that are not called like their option.
FLAGS = {"count": "-n", "coarse": "--from", "class_name": "--class"}


def command_line(
    application: str,
    inputs: Mapping[str, Sequence[str]],
    params: Mapping[str, Any],
    model: str | None,
    out: str,
    *,
    text: str | None = None,
    maps: Mapping[str, str] | None = None,
) -> str:
    """Write a command as it would be typed.

    Parameters
    ----------
    application : str
    inputs : mapping of str to sequence of str
        Names of the files of each input.
    params : mapping
        Options that were asked for.
    model : str or None
    out : str
    text : str, optional
        What `imagine` is to show.
    maps : mapping of str to str, optional
        Files for what lies beside the result, by the names of the switches that ask for it.

    Examples
    --------
    >>> command_line("inpaint", {"image": ["a b.jpg"], "mask": ["m.png"]}, {"seed": 3}, "texture", "out.png")
    "velatura inpaint 'a b.jpg' --mask m.png --seed 3 --model texture -o out.png"
    """
    positional, flagged = _places(application)
    words = ["velatura", application]
    if application == "generate":
        words.append(model or "")
        model = None
    if text:
        words.append(text)
    # Two dashes would begin an option: a name that begins with one is a file of this folder.
    named = {name: [f"./{file}" if file.startswith("-") else file for file in files] for name, files in inputs.items()}
    for name in positional:
        words += named.get(name, [])
    for name, files in named.items():
        if name not in positional:
            words += [part for file in files for part in (_flag(name), file)]
    files = {name: (maps or {})[name] for name, value in params.items() if value is True and name in (maps or {})}
    for name, value in {**params, **files}.items():
        if name in (maps or {}) and name not in files:
            continue  # a switch that is off
        words += _option(name, value, repeated=name in flagged and application == "pipeline")
    words += [] if model is None else ["--model", model]
    return shlex.join([*words, "-o", out])


def step_text(application: str, options: Mapping[str, Any]) -> str:
    """Write a step of a pipeline.

    Examples
    --------
    >>> step_text("upscale", {"scale": 2, "consistent": True})
    'upscale:scale=2,consistent=on'
    """
    parts = ",".join(f"{name}={_value(value)}" for name, value in options.items())
    return f"{application}:{parts}" if parts else application


def _places(application: str) -> tuple[list[str], list[str]]:
    """Tell what goes by position from what goes by flag, as the command itself declares it."""
    command = getattr(importlib.import_module(f"velatura.cli.{application}"), application).default_command
    positional, flagged = [], []
    for name, parameter in inspect.signature(command).parameters.items():
        (flagged if parameter.kind is inspect.Parameter.KEYWORD_ONLY else positional).append(name)
    return positional, flagged


def _flag(name: str) -> str:
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _option(name: str, value: Any, *, repeated: bool) -> list[str]:
    if isinstance(value, bool):
        return [_flag(name) if value else f"--no-{name.replace('_', '-')}"]
    if repeated:
        return [word for each in value for word in (_flag(name), str(each))]
    if name == "interpolate" and not isinstance(value, str) and any(isinstance(part, str) for part in value):
        return [_flag(name), *map(str, value)]
    return [_flag(name), _value(value)]


def _value(value: Any) -> str:
    """Write a value as it would be typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={part}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)
