"""A web page, a JSON interface and metrics for programs that are not Python (extra ``serve``)."""

from __future__ import annotations

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the web page and the JSON interface need the extra 'serve': pip install 'rate-coordinator[serve]'",
        name=error.name,
    ) from error

from rate_coordinator.web.app import create_app
from rate_coordinator.web.guard import is_loopback
from rate_coordinator.web.server import serve
from rate_coordinator.web.token import Token, read_token

__all__ = ["Token", "create_app", "is_loopback", "read_token", "serve"]
