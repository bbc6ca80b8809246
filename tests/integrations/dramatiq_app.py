"""The actors that ``test_dramatiq.py`` has run."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from rate_coordinator.integrations import deferrals
from rate_coordinator.integrations.dramatiq import CoordinatedMiddleware
from rate_coordinator.sync import RateLimitCoordinator
from tests.integrations.workers import URL, Upstream

coordinator = RateLimitCoordinator.from_url(URL)
upstream = Upstream(URL)

# The tests would wait for it.
deferrals.JITTER_SECONDS = 0.05

results = RedisBackend(url=URL)
broker = RedisBroker(url=URL)  # type: ignore[no-untyped-call]
broker.add_middleware(AsyncIO())
broker.add_middleware(CurrentMessage())
broker.add_middleware(Results(backend=results))  # type: ignore[no-untyped-call]
broker.add_middleware(CoordinatedMiddleware(coordinator, give_up_after=20))
dramatiq.set_broker(broker)


def retries() -> int:
    message = CurrentMessage.get_current_message()
    return int(message.options.get("retries", 0)) if message is not None else -1


@dramatiq.actor(backend=lambda name, *_: (name, "large"), max_retries=0, store_results=True)
def ask(name: str, value: int = 1) -> int:
    upstream.call(name, retries())
    return value


@dramatiq.actor(backend=lambda name, *_: (name, "large"), max_retries=0, store_results=True)
async def ask_async(name: str, value: int = 1) -> int:
    upstream.call(name, retries())
    return value


@dramatiq.actor(backend="everything", max_retries=1, min_backoff=10, max_backoff=10, store_results=True)
def ask_retrying(name: str) -> None:
    upstream.call(name, retries())


@dramatiq.actor(store_results=True)
def beside(name: str) -> None:
    upstream.call(name, retries())


@dramatiq.actor(store_results=True)
def add(number: int, more: int = 0) -> int:
    return number + more
