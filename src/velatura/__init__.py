"""Generative image editing in one install, on a CPU, offline.

Verbs and classes are imported when they are first used: ``import velatura`` loads neither torch nor a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_HOMES = {
    "Blend": "velatura.tasks.blend",
    "blend": "velatura.tasks.blend",
    "inpaint": "velatura.tasks.inpaint",
    "Upscale": "velatura.tasks.upscale",
    "upscale": "velatura.tasks.upscale",
    "Cancelled": "velatura.errors",
    "Generate": "velatura.tasks.generate",
    "generate": "velatura.tasks.generate",
    "Imagine": "velatura.tasks.imagine",
    "imagine": "velatura.tasks.imagine",
    "Inpaint": "velatura.tasks.inpaint",
    "InputError": "velatura.errors",
    "MachineError": "velatura.errors",
    "ModelError": "velatura.errors",
    "Pipeline": "velatura.pipeline",
    "Restore": "velatura.tasks.restore",
    "restore": "velatura.tasks.restore",
    "Result": "velatura.task",
    "Stylize": "velatura.tasks.stylize",
    "stylize": "velatura.tasks.stylize",
    "VelaturaError": "velatura.errors",
}

__all__ = [
    "Blend",
    "Cancelled",
    "Generate",
    "Imagine",
    "Inpaint",
    "InputError",
    "MachineError",
    "ModelError",
    "Pipeline",
    "Restore",
    "Result",
    "Stylize",
    "Upscale",
    "VelaturaError",
    "__version__",
    "blend",
    "generate",
    "imagine",
    "inpaint",
    "restore",
    "stylize",
    "upscale",
]

if TYPE_CHECKING:
    from velatura.errors import Cancelled, InputError, MachineError, ModelError, VelaturaError
    from velatura.pipeline import Pipeline
    from velatura.task import Result
    from velatura.tasks.blend import Blend, blend
    from velatura.tasks.generate import Generate, generate
    from velatura.tasks.imagine import Imagine, imagine
    from velatura.tasks.inpaint import Inpaint, inpaint
    from velatura.tasks.restore import Restore, restore
    from velatura.tasks.stylize import Stylize, stylize
    from velatura.tasks.upscale import Upscale, upscale


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'velatura' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
