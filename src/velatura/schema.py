"""What is made from a task's options besides its command: the JSON schema, and the table in the docs."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from velatura.task import Params, Task

__all__ = ["choices", "default", "expected", "json_schema", "limits", "options_table", "params_table", "without_none"]


def without_none(annotation: Any) -> Any:
    """Give ``X`` of ``X | None``; other types as they are.

    Examples
    --------
    >>> without_none(float | None)
    <class 'float'>
    """
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return annotation


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Give the words of a `Literal` option; empty for any other."""
    kind = without_none(field.annotation)
    return tuple(str(choice) for choice in get_args(kind)) if get_origin(kind) is Literal else ()


def limits(field: FieldInfo) -> str:
    """Write the range and the unit of an option: ``"0 < x <= 64 px"``, ``"at least 1"``, or nothing.

    Examples
    --------
    >>> from pydantic import Field
    >>> limits(Field(1.0, gt=0, le=64)), limits(Field(1, ge=1)), limits(Field(0.5, ge=0, le=1))
    ('over 0 up to 64', 'at least 1', '0 to 1')
    """
    bounds = {}
    for constraint in field.metadata:
        for name in ("gt", "ge", "lt", "le"):
            bound = getattr(constraint, name, None)
            if bound is not None:
                bounds[name] = f"{bound:g}"
    low = bounds.get("ge") or bounds.get("gt")
    high = bounds.get("le") or bounds.get("lt")
    if low and high:
        text = f"{low} to {high}" if "ge" in bounds else f"over {low} up to {high}"
        text += " (excluded)" if "lt" in bounds else ""
    elif low:
        text = f"at least {low}" if "ge" in bounds else f"over {low}"
    elif high:
        text = f"at most {high}" if "le" in bounds else f"below {high}"
    else:
        text = ""
    extra = field.json_schema_extra
    unit = extra.get("unit", "") if isinstance(extra, dict) else ""
    return " ".join(part for part in (text, str(unit)) if part)


def default(field: FieldInfo) -> str:
    """Write the default of an option as it would be typed; nothing where it has none."""
    value = field.get_default(call_default_factory=not field.default_factory_takes_validated_data)
    if value is None or field.is_required():
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def expected(field: FieldInfo) -> str:
    """Say what values an option takes: its choices, or its range and unit."""
    return " | ".join(choices(field)) or limits(field)


def json_schema(task: type[Task]) -> dict[str, Any]:
    """Describe a task for machines: its inputs, and its options as a JSON schema.

    Returns
    -------
    dict
        ``name``, ``help``, ``inputs`` (name, help, required, leading) and ``params`` (JSON schema, draft 2020-12).
    """
    return {
        "name": task.name,
        "help": (task.__doc__ or "").strip().split("\n")[0],
        "inputs": [
            {"name": one.name, "help": one.help, "required": one.required, "leading": one.leading}
            for one in task.inputs
        ],
        "params": task.Params.model_json_schema(),
    }


def options_table(task: type[Task]) -> str:
    """Write the options of a task as a table in Markdown: `params_table` of its ``Params``, and its maps.

    On the command line a map takes the file to write.
    """
    beside = {output.name for output in task.outputs}
    lines = params_table(task.Params).splitlines()
    names = [None, None, *task.Params.model_fields]
    rows = [line for name, line in zip(names, lines, strict=True) if name not in beside]
    rows += [f"| `--{one.name.replace('_', '-')}` |  | a file | {_cell(one.help)} |" for one in task.outputs]
    return "\n".join(rows)


def params_table(params: type[Params]) -> str:
    """Write options as a table in Markdown: flag, default, values, meaning.

    Examples
    --------
    >>> from pydantic import Field
    >>> class Shift(Params):
    ...     by: int = Field(0, ge=0, description="how far", json_schema_extra={"unit": "px"})
    >>> print(params_table(Shift))
    | Option | Default | Values | Meaning |
    |---|---|---|---|
    | `--by` | `0` | at least 0 px | how far |
    """
    rows = ["| Option | Default | Values | Meaning |", "|---|---|---|---|"]
    for name, field in params.model_fields.items():
        flag = f"`--{name.replace('_', '-')}`"
        usual = default(field)
        cells = (flag, f"`{usual}`" if usual else "", expected(field), field.description or "")
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    # A bar would end the cell.
    return text.replace("|", "\\|")
