"""What the tests of httpx and httpx2 share."""

from __future__ import annotations

import gzip
import importlib
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pytest

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

LIBRARIES = ["httpx", "httpx2"]
QUOTA = {"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "You exceeded your quota"}}
ENCODED: dict[str | None, Callable[[bytes], bytes]] = {None: bytes, "gzip": gzip.compress, "deflate": zlib.compress}


@dataclass(frozen=True)
class Kit:
    """A library, and what plugs into it."""

    client_library: Any
    module: Any

    @classmethod
    def of(cls, name: str) -> Self:
        return cls(importlib.import_module(name), importlib.import_module(f"rate_coordinator.integrations.{name}"))

    def client(self, coordinator: RateLimitCoordinator, transport: Any = None, **settings: Any) -> Any:
        # To load certificates that nobody needs takes longer than a test.
        transport = transport or self.client_library.AsyncHTTPTransport(verify=False)
        made = self.module.AsyncCoordinatedTransport(coordinator, transport, **settings)
        return self.client_library.AsyncClient(transport=made, timeout=30)

    def sync_client(self, coordinator: SyncCoordinator, transport: Any = None, **settings: Any) -> Any:
        transport = transport or self.client_library.HTTPTransport(verify=False)
        made = self.module.CoordinatedTransport(coordinator, transport, **settings)
        return self.client_library.Client(transport=made, timeout=30)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the integrations warned of."""
    return [record for record in caplog.records if record.name.startswith("rate_coordinator.integrations")]
