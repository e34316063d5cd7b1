"""What the studio allows."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field

__all__ = ["Settings", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Tell an address that only this machine reaches.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "studio.example")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses and limits.

    Attributes
    ----------
    host, port
        Where the studio listens.
    device : str
        Where networks run, as on the command line.
    token : str
        What a client has to show; empty on a loopback address, where none is needed.
    upload_megabytes : float
        Of one request's body.
    max_megapixels : float
        Of one image, that goes in or comes out.
    quota_megabytes : float
        Of all temporary files together.
    queue : int
        Jobs that may wait.
    draws : int
        Pictures of one sheet.
    listeners : int
        Clients that may listen to events at a time.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    token: str = field(default="")
    upload_megabytes: float = 256
    max_megapixels: float = 100
    quota_megabytes: float = 4096
    queue: int = 32
    draws: int = 64
    listeners: int = 64

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            object.__setattr__(self, "token", secrets.token_urlsafe(24))
