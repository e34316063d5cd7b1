"""``velatura studio``: the same work in a local web page."""

from __future__ import annotations

import importlib.util
from typing import Annotated

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from velatura.errors import MachineError

__all__ = ["studio"]

_ADDRESS = Group("Address", sort_key=1)
_LIMITS = Group("Limits", sort_key=2)
_MACHINE = Group("Machine", sort_key=3)

_OVER_ZERO = Number(gt=0)

_EPILOGUE = """\
Examples:
  velatura studio
  velatura studio --port 8000 --open
  velatura studio --host 0.0.0.0      (others on the network; they need the token that it prints)"""

studio = App(
    name="studio",
    help="Open a local web page that does what the commands do, with a brush and a mouse.",
    usage="Usage: velatura studio [options]",
    help_epilogue=_EPILOGUE,
)


@studio.default
def _studio(
    *,
    host: Annotated[str, Parameter(group=_ADDRESS, help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, Parameter(group=_ADDRESS, validator=Number(gte=1, lte=65535))] = 7860,
    open: Annotated[
        bool, Parameter(group=_ADDRESS, negative=(), show_default=False, help="Open the page in a browser.")
    ] = False,
    upload: Annotated[
        float, Parameter(group=_LIMITS, validator=_OVER_ZERO, metavar="MIB", help="Largest file that is taken.")
    ] = 256,
    max_megapixels: Annotated[
        float, Parameter(group=_LIMITS, validator=_OVER_ZERO, metavar="N", help="Largest image, in or out.")
    ] = 100,
    quota: Annotated[
        float, Parameter(group=_LIMITS, validator=_OVER_ZERO, metavar="MIB", help="Of all temporary files.")
    ] = 4096,
    device: Annotated[
        str, Parameter(group=_MACHINE, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps or xpu.")
    ] = "auto",
) -> None:
    """Serve the page until Ctrl-C."""
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(f"the studio needs {' and '.join(missing)}; pip install 'velatura[studio]'")
    from velatura.studio.server import address, serve
    from velatura.studio.settings import Settings

    settings = Settings(
        host=host,
        port=port,
        device=device,
        upload_megabytes=upload,
        max_megapixels=max_megapixels,
        quota_megabytes=quota,
    )
    if open:
        import threading
        import webbrowser

        # A moment later: the server has to listen first.
        threading.Timer(1.0, webbrowser.open, [address(settings)]).start()
    serve(settings)
