"""The fixtures of pytest (extra ``testing``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.testing.limits import RateLimits, manual_rate_limits

try:
    import pytest
    import pytest_asyncio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the fixtures need the extra 'testing': pip install 'rate-coordinator[testing]'", name=error.name
    ) from error


@pytest.fixture
def rate_limit_settings() -> dict[str, Any]:
    """Arguments of ``RateLimitCoordinator.from_url`` for ``rate_limits``: override it to have others."""
    return {}


@pytest_asyncio.fixture
async def rate_limits(rate_limit_settings: dict[str, Any]) -> AsyncIterator[RateLimits]:
    """Limits that this test alone makes and lifts, by a clock that it moves."""
    async with manual_rate_limits(**rate_limit_settings) as limits:
        yield limits


@pytest_asyncio.fixture
async def rate_limit_coordinator(rate_limits: RateLimits) -> RateLimitCoordinator:
    """The coordinator of ``rate_limits``, started."""
    return rate_limits.coordinator
