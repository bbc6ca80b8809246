"""Many namespaces on one Redis: none sees another, and nothing outside of one's own is read or written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from rate_coordinator import RateLimitCoordinator
from tests.conftest import Make, Place
from tests.servers import RedisServer, eventually

BLOCKING = {"BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BLMPOP", "BZMPOP", "WAIT", "WAITAOF"}
ENUMERATING = {"KEYS", "SCAN", "SSCAN", "HSCAN", "ZSCAN", "RANDOMKEY", "DBSIZE", "FLUSHDB", "FLUSHALL"}
KEYLESS = {"PING", "INFO", "TIME", "SELECT", "AUTH", "CLIENT", "HELLO", "COMMAND"}


@contextmanager
def watched(port: int) -> Iterator[list[list[str]]]:
    """Collect every command that the server runs meanwhile, those of scripts included."""
    commands: list[list[str]] = []
    client = redis.Redis(port=port, decode_responses=True, protocol=2, socket_timeout=None)
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def collect() -> None:
            for command in monitor.listen():
                words = _words(command["command"])
                if words == ["ECHO", "end-of-watch"]:
                    return
                commands.append(words)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        yield commands
        with redis.Redis(port=port, protocol=2) as other:
            other.echo("end-of-watch")
        thread.join(10)
        assert not thread.is_alive()
    client.close()


def _words(command: str) -> list[str]:
    name, _, rest = command.partition(" ")
    return [name.upper(), *rest.split(" ")] if rest else [name.upper()]


async def use_everything(coordinator: RateLimitCoordinator, other: RateLimitCoordinator) -> None:
    """Do whatever a coordinator can do."""
    stream = other.notices()
    await coordinator.report_rate_limit("openai", 0.05)
    await asyncio.gather(*(coordinator.report_rate_limit(f"b{number % 9}", 60.0) for number in range(300)))
    await coordinator.report_rate_limit("openai", 60.0, "job", 1, model="gpt")
    await anext(stream)
    await coordinator.wait_until_clear("openai")
    await coordinator.explain("openai", "gpt")
    await coordinator.events(count=5)
    await coordinator.prune_stale()
    await coordinator.clear_limits("openai", model="gpt")
    await coordinator.clear_limits("b1")
    await coordinator.hold("openai", 60.0, "maintenance")
    await other.release("openai")
    await other.clear_limits()
    await other.refresh()


async def test_nothing_outside_the_namespace_is_touched_and_nothing_enumerates_or_blocks(
    own_server: RedisServer,
) -> None:
    own_server.admin.set("somebody else's", "1")
    with watched(own_server.port) as commands:
        async with (
            RateLimitCoordinator.from_url(own_server.url, "tenant {1}") as one,
            RateLimitCoordinator.from_url(own_server.url, "tenant {1}") as two,
        ):
            await use_everything(one, two)
    prefix = one._engine.keys.prefix
    assert len(commands) > 500
    names = {words[0] for words in commands}
    assert names & {"EVALSHA", "EVAL"}
    assert not names & (BLOCKING | ENUMERATING)
    assert not [words for words in commands if words[0] in {"XREAD", "XREADGROUP"} and "BLOCK" in words]
    for name, *arguments in commands:
        if name in {"EVALSHA", "EVAL"}:
            # The script's text may hold spaces; its keys follow their number.
            continue
        if name not in KEYLESS:
            assert arguments[0].strip('"').startswith(f"{prefix}:"), (name, arguments[:2])
    assert own_server.admin.get("somebody else's") == "1"
    keys: Any = own_server.admin.keys("*")
    assert {key for key in keys if not key.startswith(f"{prefix}:")} == {"somebody else's"}


async def test_many_tenants_do_not_see_each_other(place: Place, make: Make) -> None:
    names = [place.namespace + suffix for suffix in ("", "x", "{", "}", ":", "*", "/*", " ", "%", "%25", "\\", "é")]
    tenants = {name: (await make(namespace=name), await make(namespace=name)) for name in names}
    for name, (one, _) in tenants.items():
        await one.report_rate_limit(f"of {name}", 60.0)
    for name, (one, two) in tenants.items():
        await eventually(lambda two=two: two.active_limits)  # type: ignore[misc]
        await two.refresh()
        assert set(two.active_limits) == {f"of {name}"}
        assert [event.backend_type for event in await one.events()] == [f"of {name}"]
    first, _ = tenants[names[0]]
    assert await first.clear_limits() == 1
    for name in names[1:]:
        _, two = tenants[name]
        await two.refresh()
        assert set(two.active_limits) == {f"of {name}"}
