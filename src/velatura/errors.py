"""What can go wrong, as a small tree.

Every message is one line that says what was got, what was expected and the next step::

    VelaturaError
    ├── InputError       an image, a mask, an option or an output path cannot be used    exit code 2
    │   └── TooManyPixels    more than the limit; another limit may be given
    ├── ModelError       a model's name or file is refused                               exit code 2
    ├── MachineError     disk full, out of memory, a library that is not installed       exit code 1
    └── Cancelled        stopped by the caller (Ctrl-C, the progress hook)               exit code 130

``exit_code`` is what the command line returns. ``InputError`` and ``ModelError`` are ``ValueError`` too, so
that library code which catches those keeps working.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["Cancelled", "InputError", "MachineError", "ModelError", "TooManyPixels", "VelaturaError"]


class VelaturaError(Exception):
    """Root of everything that Velatura raises on purpose."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        # One line, whatever a decoder's own message holds: scripts and the command line rely on it.
        super().__init__(" ".join(message.split()))


class InputError(VelaturaError, ValueError):
    """An image, a mask, an option or an output path cannot be used."""


class TooManyPixels(InputError):
    """An image declares more pixels than it may have: the limit, or whose file it is, must change."""


class ModelError(VelaturaError, ValueError):
    """A model is unknown, or its file is damaged, unsafe or of another architecture."""


class MachineError(VelaturaError):
    """The machine, not the input, is at fault: disk full, memory, a missing library."""

    exit_code: ClassVar[int] = 1


class Cancelled(VelaturaError):
    """Raised by a progress hook to stop the work; nothing is written."""

    exit_code: ClassVar[int] = 130
