"""Applications as forms, made from their ``Params``; and what comes back from a form, checked.

A new number, choice or switch of an application appears by itself. Options that would name a file never do: what may
hold any text is offered only if `WORDS` lists it, and images are given by their ids in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePath
from typing import Any, Protocol

from velatura import catalog
from velatura.errors import InputError
from velatura.pipeline import Pipeline, PipelineParams, Step, applications
from velatura.studio.commands import command_line, step_text
from velatura.studio.settings import Settings
from velatura.studio.store import Item, Store
from velatura.studio.work import Work, map_name
from velatura.task import Input, Params, parse_params

__all__ = ["Asked", "StepAsked", "check", "described", "form", "forms"]

#: Options that take words, none of which is a file.
WORDS = frozenset({"class_name", "interpolate", "mask_color"})
#: Inputs that are painted.
MASKS = frozenset({"mask", "scratches"})
#: What the page says of an application, where the command's own words tell of files and masks.
LEADS = {
    "inpaint": "Paint over what is to go; it is filled anew.",
    "restore": "Take away scratches, noise, blur and fading. Damage that is not found can be painted over.",
    "stylize": "Paint a photograph anew in the style of a picture.",
    "blend": "Cut a piece out of one photograph and lay it into another: the seam closes.",
    "generate": "Draw new pictures from chance.",
}
#: What it says of an option, likewise.
HINTS = {
    "candidates": "so many different fills: the best is the result, the others lie beside it",
    "scratches": "the damage: auto, found by a network; off, none; or what you paint",
}
#: Applications that make pictures from nothing, and what they can begin with.
DRAWING = {
    "generate": (
        Input("coarse", "a picture to draw on (LAPGAN)", required=False),
        Input("latents", "the draw to vary", required=False),
    ),
    "imagine": (Input("style", "a picture whose background and pose to take", required=False),),
}


class _Resizing(Protocol):
    def target(self, height: int, width: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Form:
    """One application as the page sees it.

    Attributes
    ----------
    name, help : str
    kind : type
        The task's class.
    inputs : tuple of Input
    fields : tuple of str
        Names of the options that are offered.
    models : tuple of str
        Names that may be asked for, the default first.
    missing : str
        One line, where the default model is not there; else empty.
    """

    name: str
    help: str
    kind: Any
    inputs: tuple[Input, ...]
    fields: tuple[str, ...]
    models: tuple[str, ...]
    missing: str

    @property
    def draws(self) -> bool:
        """Whether it makes pictures from nothing."""
        return self.name in DRAWING


@dataclass(frozen=True, slots=True)
class StepAsked:
    """One step of a pipeline, as it was asked for; see `Asked`."""

    application: str
    inputs: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for.

    Attributes
    ----------
    application : str
    inputs : mapping
        Ids of stored images, by the names of the inputs; several for a further style.
    params : mapping
        Options, as JSON values or as they would be typed.
    model : str or None
    text : str or None
        What `imagine` is to show.
    steps : sequence of StepAsked
        Of a pipeline.
    vary : tuple of (int, float), optional
        Number of a draw among its latents, and how much to change it, 0..1.
    by : str or None
        What the client calls itself.
    keep : bool
        Whether the results stay for as long as the client listens.
    """

    application: str
    inputs: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    text: str | None = None
    steps: Sequence[StepAsked] = ()
    vary: tuple[int, float] | None = None
    by: str | None = None
    keep: bool = False


# --- forms ------------------------------------------------------------------------------------------------------------


def forms() -> dict[str, Form]:
    """Give all applications by name: those that change an image, then those that make some."""
    names = ("inpaint", "restore", "upscale", "stylize", "blend")
    changing = sorted(applications(), key=lambda name: (names.index(name) if name in names else len(names), name))
    return {name: found for name in (*changing, *DRAWING) if (found := form(name)) is not None}


def form(name: str) -> Form:
    """Give one application.

    Raises
    ------
    InputError
        There is none of this name.
    """
    kind = _kinds().get(name)
    if kind is None:
        raise InputError(f"there is no application {name[:80]!r} here; there are {', '.join(_kinds())}, pipeline")
    models = _models(kind)
    return Form(
        name=name,
        help=LEADS.get(name) or _in_words(kind),
        kind=kind,
        inputs=DRAWING.get(name, getattr(kind, "inputs", ())),
        fields=tuple(name for name in kind.Params.model_fields if _is_offered(kind.Params, name)),
        models=models,
        missing=_missing(name, kind, models),
    )


@cache
def _kinds() -> dict[str, Any]:
    from velatura.tasks.generate import Generate
    from velatura.tasks.imagine import Imagine

    return {**applications(), "generate": Generate, "imagine": Imagine}


def _models(kind: Any) -> tuple[str, ...]:
    """Name the models that a client may ask for: never a file."""
    listed: tuple[str, ...] = kind.models()
    if not listed:
        usual: list[str] = [kind.default_model] if kind.default_model else []
        listed = tuple(dict.fromkeys([*usual, *(card.name for card in catalog.cards() if card.task == kind.name)]))
    return listed


def _in_words(kind: Any) -> str:
    """Say what an application does; the command line writes its arguments in capitals."""
    line = (kind.__doc__ or "").strip().split("\n")[0]
    return " ".join(word.lower() if word.rstrip(".:,").isupper() else word for word in line.split())


def _missing(name: str, kind: Any, models: Sequence[str]) -> str:
    """Say that the default model is not there."""
    shipped = {card.name for card in catalog.cards()}
    if kind.default_model is None or kind.default_model in shipped or (models and models[0] in ("auto", "texture")):
        return ""
    there = [model for model in models if model in shipped]
    other = f"; {', '.join(there)} can be chosen" if there else ""
    return f"{name} has no model {kind.default_model!r} in this version{other}"


def _is_offered(params: type[Params], name: str) -> bool:
    """Keep options that could name a file to ourselves."""
    if name in WORDS:
        return True
    return not _takes_text(_schemas(params)[name])


@cache
def _schemas(params: type[Params]) -> dict[str, Any]:
    """Give the JSON schema of every option."""
    return params.model_json_schema()["properties"]


def _takes_text(schema: Any) -> bool:
    """Tell whether a value may be any text."""
    if isinstance(schema, list):
        return any(map(_takes_text, schema))
    if not isinstance(schema, dict) or "enum" in schema or "const" in schema:
        return False
    if schema.get("type") == "string" or not {"type", "anyOf", "allOf", "oneOf", "$ref"} & set(schema):
        return True
    inner = ("anyOf", "allOf", "oneOf", "items", "prefixItems", "additionalProperties")
    return "$ref" in schema or any(_takes_text(schema.get(key)) for key in inner)


def described(one: Form) -> dict[str, Any]:
    """Describe an application for the page."""
    schema = _schemas(one.kind.Params)
    several = _several(one)
    return {
        "name": one.name,
        "help": one.help,
        "draws": one.draws,
        "inputs": [
            {
                "name": each.name,
                "help": each.help,
                "required": each.required,
                "leading": each.leading,
                "mask": each.name in MASKS,
            }
            for each in one.inputs
        ],
        "several": several,
        "outputs": [{"name": each.name, "help": each.help} for each in one.kind.outputs],
        "params": {name: _hinted(name, schema[name]) for name in one.fields},
        "models": list(one.models),
        "missing": one.missing,
    }


def _hinted(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema, "description": HINTS[name]} if name in HINTS else schema


def _several(one: Form) -> list[str]:
    """Name the options that take further images."""
    fields = one.kind.Params.model_fields.items()
    return [name for name, field in fields if (field.json_schema_extra or {}).get("repeated") and not one.draws]


# --- what comes back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """A job that may be queued.

    Attributes
    ----------
    work : Work
        Without its folder.
    title : str
        Name of the leading image, or the text.
    items : tuple of str
        Ids of the stored files that it reads.
    command : str
        The command line that repeats it.
    """

    work: Work
    title: str
    items: tuple[str, ...]
    command: str


def check(asked: Asked, store: Store, settings: Settings) -> Checked:
    """Check what a client asks for, without loading a model.

    Raises
    ------
    InputError
        Unknown applications, images, options, models; values out of range; a result that would be too large.
    """
    if asked.application == Pipeline.name:
        return _pipeline(asked, store, settings)
    one = form(asked.application)
    _check_model(one, asked.model)
    items = _items(one, asked.inputs, store)
    params = _params(one, asked.params, items)
    checked = parse_params(one.kind.Params, params)
    if one.draws:
        return _drawing(one, asked, items, params, checked, settings)
    leading = next(each.name for each in one.inputs if each.leading)
    picture = items[leading][0]
    _check_size(checked, picture, settings)
    further = {name: tuple(str(item.path) for item in items[name]) for name in _several(one) if name in items}
    work = Work(
        application=one.name,
        inputs={each.name: str(items[each.name][0].path) for each in one.inputs if each.name in items},
        params={**params, **further},
        model=asked.model,
        stem=PurePath(picture.name).stem or one.name,
        names=_names(items),
        device=settings.device,
        max_megapixels=settings.max_megapixels,
        missing=one.missing if asked.model in (None, one.kind.default_model) else "",
    )
    names = {name: tuple(item.name for item in found) for name, found in items.items()}
    maps = {each.name: map_name(work.stem, each.name) for each in one.kind.outputs}
    words = command_line(one.name, names, params, asked.model, f"{work.stem}-{one.name}.png", maps=maps)
    return Checked(work, picture.name, _ids(items), words)


def _drawing(
    one: Form,
    asked: Asked,
    items: Mapping[str, list[Item]],
    params: Mapping[str, Any],
    checked: Any,
    settings: Settings,
) -> Checked:
    """Check a sheet of draws."""
    between = checked.interpolate is not None
    count = checked.frames if between else checked.count
    if count > settings.draws:
        raise InputError(f"got {count} pictures; expected at most {settings.draws} on one sheet")
    if one.missing and (asked.model is None or asked.model == one.kind.default_model):
        raise InputError(one.missing)
    if one.name == "imagine" and bool(asked.text) == between:
        raise InputError("expected a text, or two texts to interpolate; not both")
    if asked.vary is not None and "latents" not in items:
        raise InputError("to vary a draw, give the latents of its sheet")
    title = asked.text or asked.model or one.kind.default_model
    work = Work(
        application=one.name,
        inputs={name: str(found[0].path) for name, found in items.items()},
        params=dict(params),
        model=asked.model,
        stem=one.name,
        names=_names(items),
        device=settings.device,
        max_megapixels=settings.max_megapixels,
        text=asked.text,
        vary=asked.vary,
    )
    names = {name: tuple(item.name for item in found) for name, found in items.items()}
    model = asked.model or (one.kind.default_model if one.name == "generate" else None)
    if asked.vary is not None:
        # The draws have latents of their own, which can be saved; what they were drawn near is no longer needed.
        names, params = {"latents": (f"{one.name}.safetensors",)}, {}
    words = command_line(one.name, names, params, model, f"{one.name}/", text=asked.text)
    return Checked(work, title[:80], _ids(items), words)


def _pipeline(asked: Asked, store: Store, settings: Settings) -> Checked:
    """Check a pipeline, step by step."""
    if set(asked.inputs) != {"image"} or not isinstance(asked.inputs["image"], str):
        raise InputError("a pipeline reads one image; give its id as image")
    picture = store.image(asked.inputs["image"])
    used: dict[str, list[Item]] = {"image": [picture]}
    steps, texts = [], []
    height, width = picture.height, picture.width
    for number, each in enumerate(asked.steps, 1):
        try:
            one = form(each.application)
            if one.draws:
                raise InputError("it makes images and changes none, so that it can be no step")
            _check_model(one, each.model)
            items = _items(one, each.inputs, store, step=True)
            params = _params(one, each.params, items)
            for output in one.kind.outputs:
                if params.pop(output.name, None):
                    raise InputError(f"{output.name} is a picture beside the result; a pipeline keeps only the result")
            checked = parse_params(one.kind.Params, params)
            height, width = _check_size(checked, picture, settings, (height, width))
        except InputError as error:
            raise InputError(f"step {number} ({each.application[:40]}): {error}") from None
        used |= {f"{number} {name}": found for name, found in items.items()}
        options: dict[str, Any] = {name: str(found[0].path) for name, found in items.items() if name not in params}
        options |= {name: tuple(str(item.path) for item in items[name]) for name in _several(one) if name in items}
        model = {} if each.model is None else {"model": each.model}
        steps.append(Step(each.application, {**params, **options, **model}))
        names = {name: ",".join(item.name for item in found) for name, found in items.items()}
        texts.append(step_text(each.application, {**params, **names, **model}))
    Pipeline.check(parse_params(PipelineParams, {"step": tuple(steps)}))
    stem = PurePath(picture.name).stem or "image"
    work = Work(
        application=Pipeline.name,
        inputs={"image": str(picture.path)},
        params={"step": tuple(steps)},
        model=None,
        stem=stem,
        names=_names(used),
        device=settings.device,
        max_megapixels=settings.max_megapixels,
    )
    words = command_line(
        Pipeline.name, {"image": (picture.name,)}, {"step": texts}, None, f"{work.stem}-{Pipeline.name}.png"
    )
    return Checked(work, picture.name, _ids(used), words)


def _check_model(one: Form, model: str | None) -> None:
    if model is not None and model not in one.models:
        raise InputError(f"unknown model {model[:80]!r} of {one.name}; expected {', '.join(one.models) or 'none'}")


def _items(
    one: Form, given: Mapping[str, str | Sequence[str]], store: Store, *, step: bool = False
) -> dict[str, list[Item]]:
    """Find the stored files of the inputs."""
    known = {each.name: each for each in one.inputs if not (step and each.leading)}
    several = _several(one)
    found: dict[str, list[Item]] = {}
    for name, value in given.items():
        if name not in known and name not in several:
            raise InputError(f"{one.name} reads no {name[:40]!r}; expected {', '.join((*known, *several)) or 'none'}")
        ids = [value] if isinstance(value, str) else list(value)
        if name not in several and len(ids) != 1:
            raise InputError(f"{name}: got {len(ids)} images; expected one")
        found[name] = [store.get(key) if name == "latents" else store.image(key) for key in ids]
        for item in found[name]:
            if name == "latents" and item.kind != "latents":
                raise InputError(f"{item.name} holds no latents; expected those of a sheet")
    for name, each in known.items():
        if each.required and name not in found:
            raise InputError(f"needs {name} ({each.help}); open an image for it")
    return found


def _params(one: Form, given: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the options that were given a value, and refuse those that are not offered."""
    for name in given:
        if name in one.kind.Params.model_fields and name not in one.fields:
            raise InputError(f"option {name!r} names a file; it is for the command line alone")
    # An image in the place of a word: the mask of scratches instead of auto.
    return {name: value for name, value in given.items() if value is not None and value != "" and name not in items}


def _check_size(params: Any, picture: Item, settings: Settings, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Refuse results that the page could not show; give the size of the result."""
    size = size or (picture.height, picture.width)
    if not hasattr(params, "target"):
        return size
    resizing: _Resizing = params
    height, width = resizing.target(*size)
    if height * width > settings.max_megapixels * 1e6:
        raise InputError(
            f"the result would be {width} x {height}, {height * width / 1e6:.0f} megapixels; the studio makes at most "
            f"{settings.max_megapixels:g}: take a smaller scale, or the command line"
        )
    return height, width


def _names(items: Mapping[str, Sequence[Item]]) -> dict[str, str]:
    return {str(item.path): item.name for found in items.values() for item in found}


def _ids(items: Mapping[str, Sequence[Item]]) -> tuple[str, ...]:
    return tuple(item.id for found in items.values() for item in found)
