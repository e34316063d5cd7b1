"""Who is let in, and how much they may send: one layer around the whole application."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velatura.studio.settings import Settings, is_loopback

__all__ = ["HEADERS", "Guard"]

COOKIE = "velatura-studio"

#: Sent with every answer. Scripts, styles and connections of this server only; nothing frames the page.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class TooLarge(Exception):
    """A body is larger than allowed."""


class Guard:
    """ASGI middleware: checks Host, Origin and token, counts the bytes of bodies, adds headers.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._limit = int(settings.upload_megabytes * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        # What may change with the next version is asked for again; what a client made is never kept.
        send = _with_headers(send, "no-cache" if scope["path"].startswith("/static/") else "no-store")
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        answer = self._refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, send)
            return
        counted, started = _Counted(receive, self._limit), False

        async def noting(message: Message) -> None:
            nonlocal started
            # Whatever the application makes of a body that was cut off, the answer is ours.
            if not counted.exceeded or started:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, noting)
        except TooLarge:
            if started:
                raise
        if counted.exceeded and not started:
            await self._too_large()(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Any:
        """Give the answer to a request that is not let in; None to one that is."""
        host = headers.get("host", "")
        if not self._knows(host):
            return _refused(403, f"Host {host[:80]!r} is not this studio; open the address that it printed")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return _refused(403, "another site's page may not use this studio")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return _refused(403, "another site's page may not use this studio")
        if self._settings.token and (answer := self._unknown(scope, headers)) is not None:
            return answer
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit:
            return self._too_large()
        return None

    def _knows(self, host: str) -> bool:
        """Tell our own addresses from names that others made to point here."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "80")
        if not name:
            name, port = host, "80"
        if port != str(self._settings.port):
            return False
        name = name.strip("[]").lower()
        if is_loopback(self._settings.host):
            return is_loopback(name)
        if name in (self._settings.host.lower(), "localhost", socket.gethostname().lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _unknown(self, scope: Scope, headers: Mapping[str, str]) -> Any:
        """Ask for the token; a link that carries it becomes a cookie, so that it does not stay in the address."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and asked and self._is_token(asked):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, asked, httponly=True, samesite="strict")
            return answer
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return None
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return None
        return _refused(401, "this studio wants its token; open the whole address that it printed")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._settings.token.encode())

    def _too_large(self) -> JSONResponse:
        return _refused(
            413, f"larger than {self._settings.upload_megabytes:g} MiB; start the studio with a larger --upload"
        )


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


def _with_headers(send: Send, caching: str) -> Send:
    """Add our headers to every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {key for key, _ in message["headers"]}
            added = [(key.encode(), value.encode()) for key, value in HEADERS.items() if key.encode() not in present]
            if b"cache-control" not in present:
                added.append((b"cache-control", caching.encode()))
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


class _Counted:
    """Stops a body that is longer than it said, or did not say."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    @property
    def exceeded(self) -> bool:
        """Whether more came than is allowed."""
        return self._left < 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self.exceeded:
                raise TooLarge
        return message
