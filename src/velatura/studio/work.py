"""One job as the worker does it: tasks stay warm from one to the next."""

from __future__ import annotations

import math
import time
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from velatura.errors import Cancelled, InputError, ModelError, VelaturaError
from velatura.task import Params, Progress, Task, parse_params

__all__ = ["Made", "Tasks", "Work", "do", "map_name"]

WARM = 4  # tasks whose models stay loaded
RESULT = "result"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done; it travels to the worker.

    Attributes
    ----------
    application : str
    inputs : mapping of str to str
        Files by the names of the inputs.
    params : mapping
    model : str or None
    stem : str
        What results are called after.
    names : mapping of str to str
        What files are called by their owner: messages name them so.
    device : str
    max_megapixels : float
    text : str or None
    vary : (int, float), optional
        See `velatura.studio.forms.Asked`.
    missing : str
        What to say where a model is not there.
    folder : str
        Where results go.
    """

    application: str
    inputs: Mapping[str, str]
    params: Mapping[str, Any]
    model: str | None
    stem: str
    names: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    max_megapixels: float = 100
    text: str | None = None
    vary: tuple[int, float] | None = None
    missing: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a job.

    Attributes
    ----------
    files : tuple of (str, str, str)
        What it is (``result``, a map's name, ``draw``, ``latents``), the file, and what to call it.
    error : str
        One line; empty where the work is done.
    warnings : tuple of str
    made_by : str
    seconds : float
    unknown : tuple of str
        Words of a text that the model does not know.
    cancelled : bool
    """

    files: tuple[tuple[str, str, str], ...] = ()
    error: str = ""
    warnings: tuple[str, ...] = ()
    made_by: str = ""
    seconds: float = 0.0
    unknown: tuple[str, ...] = ()
    cancelled: bool = False


def map_name(stem: str, name: str) -> str:
    """Call a picture that lies beside a result.

    Examples
    --------
    >>> map_name("scan", "mask_out")
    'scan-mask-out.png'
    """
    return f"{stem}-{name.replace('_', '-')}.png"


class Tasks:
    """The tasks that were used last, with their models."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str | None, str], Any] = OrderedDict()

    def get(self, application: str, model: str | None, device: str) -> Any:
        """Give a task, loading it if it is not warm."""
        key = application, model, device
        if key not in self._kept:
            self._kept[key] = _kind(application).from_pretrained(model, device=device)
        self._kept.move_to_end(key)
        while len(self._kept) > WARM:
            self._kept.popitem(last=False)
        return self._kept[key]


def _kind(application: str) -> Any:
    from velatura.pipeline import Pipeline, applications

    if application == "generate":
        from velatura.tasks.generate import Generate

        return Generate
    if application == "imagine":
        from velatura.tasks.imagine import Imagine

        return Imagine
    return Pipeline if application == Pipeline.name else applications()[application]


def do(work: Work, tasks: Tasks, progress: Progress) -> Made:
    """Do one job; whatever goes wrong is in what it gives back."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            progress(0, 0, "loading")
            task = tasks.get(work.application, work.model, work.device)
            made = _changed(work, task, progress) if isinstance(task, Task) else _drawn(work, task, progress)
        except Cancelled:
            made = Made(cancelled=True)
        except ModelError as error:
            made = Made(error=work.missing or str(error))
        # A bug, too, ends one job and not the studio.
        except Exception as error:
            made = Made(error=_reason(error))
    ours = (str(item.message) for item in caught if item.category.__module__.startswith("velatura"))
    said = (*made.warnings, *(_named(line, work) for line in dict.fromkeys(ours)))
    return replace(made, error=_named(made.error, work), warnings=said, seconds=time.perf_counter() - start)


def _reason(error: Exception) -> str:
    if isinstance(error, VelaturaError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller image"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(f"unexpected {type(error).__name__}: {error}".split())


def _named(line: str, work: Work) -> str:
    """Call files as their owner does."""
    for path, name in work.names.items():
        line = line.replace(path, name)
    return line.replace(f"{work.folder}/", "")


def _changed(work: Work, task: Task, progress: Progress) -> Made:
    """Change an image."""
    task.max_megapixels = work.max_megapixels
    params: Params = parse_params(type(task).Params, work.params)
    folder = Path(work.folder)
    out = folder / f"{RESULT}.png"
    asked = [one.name for one in task.outputs if getattr(params, one.name, False)]
    maps = {name: folder / f"{RESULT}-{name}.png" for name in asked}
    values = tuple(work.inputs.get(one.name) for one in task.inputs)
    bands = task.write(values, out, params, maps=maps, progress=progress)
    # Beside what was asked for by name lies what the task adds by itself, such as further candidates.
    found = sorted(folder.glob(f"{RESULT}-*.png"))
    beside = [(path.stem.removeprefix(f"{RESULT}-"), path) for path in found]
    files = [(RESULT, str(out), f"{work.stem}-{work.application}.png")]
    names = {name: map_name(work.stem, name) for name in asked}  # as on the command line, others after the result
    files += [(name, str(path), names.get(name, f"{work.stem}-{work.application}-{name}.png")) for name, path in beside]
    return Made(tuple(files), made_by=bands.made_by or "")


def _drawn(work: Work, task: Any, progress: Progress) -> Made:
    """Make images from nothing."""
    folder, images = Path(work.folder), {name: file for name, file in work.inputs.items() if name != "latents"}
    if work.application == "imagine":
        made = task(work.text, progress=progress, **images, **work.params)
        files = made.save(folder)
        unknown = tuple(made.unknown)
    else:
        given = _varied(work) if "latents" in work.inputs else None
        made = task(latents=given, progress=progress, **images, **work.params)
        files, unknown = made.save(folder), ()
    names = [("draw", str(path), f"{work.stem}-{path.stem}.png") for path in files]
    if work.application == "generate":
        latents = made.latents.save(folder / "latents.safetensors")
        names.append(("latents", str(latents), f"{work.stem}.safetensors"))
    return Made(tuple(names), made_by=made.made_by, unknown=unknown)


def _varied(work: Work) -> Any:
    """Draw near one draw: its latents and fresh ones, mixed so that their spread stays."""
    from velatura.tasks.generate import GenerateParams, Latents

    found = Latents.load(work.inputs["latents"])
    if work.vary is None:
        return found
    params, (number, amount) = parse_params(GenerateParams, work.params), work.vary
    if not 0 <= number < len(found.values):
        raise InputError(f"the sheet has {len(found.values)} draws; there is no number {number}")
    fresh = np.random.default_rng(params.seed).standard_normal((params.count, found.values.shape[1]), np.float32)
    values = math.sqrt(1 - amount**2) * found.values[number] + amount * fresh
    classes = None if found.classes is None else np.repeat(found.classes[number], params.count)
    return Latents(found.model, values.astype(np.float32), classes)
