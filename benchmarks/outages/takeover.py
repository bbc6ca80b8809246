"""What experiments do to servers and look up in them, behind the backs of both sides. None of it blocks the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from redis.exceptions import RedisError

from benchmarks.outages.sides import Writer
from tests.servers import RedisServer, eventually
from tests.topologies import SentinelTrio

TAKEOVER_SECONDS = 30.0
"""Longest time that a fail-over takes; it is four seconds at most if nothing is wrong."""


async def heir(trio: SentinelTrio, old: RedisServer) -> RedisServer:
    """Wait until all Sentinels agree on another master and that one thinks so too.

    Raises:
        AssertionError: They did not in time.
    """

    def agreed() -> RedisServer | None:
        try:
            ports = trio.masters()
            node = next((node for node in trio.nodes if ports == {node.port} and node is not old), None)
            is_master = node is not None and node.admin.info("replication")["role"] == "master"
            return node if is_master else None
        except RedisError:
            return None

    found: RedisServer = await eventually(lambda: asyncio.to_thread(agreed), within=TAKEOVER_SECONDS)
    return found


async def lacking(server: RedisServer, writer: Writer, numbers: Collection[int]) -> set[int]:
    """Return those of the writes whose limit is not in a server."""
    if not numbers:
        return set()
    ordered = list(numbers)
    values: Any = await asyncio.to_thread(server.admin.mget, [writer.key(number) for number in ordered])
    return {number for number, value in zip(ordered, values, strict=True) if value is None}
