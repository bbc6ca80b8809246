"""Who may ask at all, and what a browser may do with the answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rate_coordinator.web.problems import Problem, respond

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def trusted_hosts(bound_to: str, allowed: Collection[str]) -> frozenset[str] | None:
    """Return the names by which this server may be called; None for any.

    On a loopback address only names that mean it are trusted, because a foreign page can let its own name point there
    (DNS rebinding). Elsewhere nobody knows the names, unless they are told.

    Args:
        bound_to: The address or name that is listened on.
        allowed: Names, without a port, that are trusted as well.
    """
    if not allowed and not is_loopback(bound_to):
        return None
    own = f"[{bound_to}]" if ":" in bound_to else bound_to
    return LOOPBACK_NAMES | {name.lower() for name in (own, *allowed)}


def is_loopback(host: str) -> bool:
    """Tell whether an address or a name means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """ASGI middleware: refuses what foreign pages send, and tells browsers to be strict with what is answered.

    Args:
        app: What is guarded.
        hosts: The names that a request may call this server by, in lower case; None for any.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-cache")
                headers.update(_HEADERS)
            await send(message)

        problem = self._problem(Headers(scope=scope), scope["path"])
        await (self._app if problem is None else respond(problem))(scope, receive, guarded)

    def _problem(self, headers: Headers, path: str) -> Problem | None:
        host = headers.get("host", "")
        if self._hosts is not None and _without_port(host) not in self._hosts:
            return Problem(421, f"this server is not called {host!r:.80}; --allow-host lets it be")
        # https://www.w3.org/TR/fetch-metadata/: browsers tell, and no page can change it.
        if "/api/" in path and headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return Problem(403, "pages of other sites may not use this interface")
        return None


def _without_port(host: str) -> str:
    name, separator, port = host.lower().rpartition(":")
    return name if separator and (port.isdecimal() or not port) else host.lower()
