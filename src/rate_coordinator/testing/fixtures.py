"""The fixtures of pytest (extra ``testing``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.sync import RateLimitCoordinator as SyncRateLimitCoordinator
from rate_coordinator.testing.limits import RateLimits, manual_rate_limits
from rate_coordinator.testing.sync_limits import SyncRateLimits, sync_manual_rate_limits

try:
    import pytest
    import pytest_asyncio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the fixtures need the extra 'testing': pip install 'rate-coordinator[testing]'", name=error.name
    ) from error


@pytest.fixture
def rate_limit_settings() -> dict[str, Any]:
    """Arguments of ``RateLimitCoordinator.from_url``: override it to have others."""
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


@pytest.fixture
def sync_rate_limits(rate_limit_settings: dict[str, Any]) -> Iterator[SyncRateLimits]:
    """``rate_limits`` for code that does not await."""
    with sync_manual_rate_limits(**rate_limit_settings) as limits:
        yield limits


@pytest.fixture
def sync_rate_limit_coordinator(sync_rate_limits: SyncRateLimits) -> SyncRateLimitCoordinator:
    """The coordinator of ``sync_rate_limits``, started."""
    return sync_rate_limits.coordinator
