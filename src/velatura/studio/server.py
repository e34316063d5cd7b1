"""uvicorn around the studio."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from types import FrameType

import uvicorn

from velatura.errors import InputError
from velatura.studio.app import Studio, create_app
from velatura.studio.settings import Settings

__all__ = ["address", "serve"]

GRACE = 3  # seconds that open requests get at the end


class _Server(uvicorn.Server):
    """A server that lets listeners go first: their streams would never end."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self._studio = studio

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._studio.jobs.hush()
        super().handle_exit(sig, frame)


def address(settings: Settings) -> str:
    """Give the address to open.

    Examples
    --------
    >>> address(Settings(port=7861)), address(Settings(host="::1"))
    ('http://127.0.0.1:7861/', 'http://[::1]:7860/')
    """
    host = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}/" + (f"?token={settings.token}" if settings.token else "")


def debugs() -> bool:
    """Whether tracebacks are asked for, as on the command line."""
    return os.environ.get("VELATURA_DEBUG", "0") not in ("", "0")


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C.

    Raises
    ------
    InputError
        The address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
            # Whoever opens the address as soon as it is printed waits for the server; nobody is refused.
            listening.listen()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"cannot listen on {settings.host}:{settings.port} ({reason}); take another --port or --host"
            ) from None
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_level="error" if debugs() else "critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            ws="none",
        )
        print(f"Velatura studio: {address(settings)}", flush=True)
        print("Ctrl-C ends it; results that were not saved are gone then.", flush=True)
        studio: Studio = app.studio  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
        # uvicorn gives the signal on when everything is closed; here it is how the work ends, and no error.
        with suppress(KeyboardInterrupt):
            _Server(config, studio).run([listening])
