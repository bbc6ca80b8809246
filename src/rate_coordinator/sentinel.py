"""The master that Sentinels agree on.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.link import Link, unavailable
from rate_coordinator.nodes import Dial, Guide, Node, Unlocatable


class SentinelLocator:
    """Asks all Sentinels at once and believes most of them: one that was cut off may still tell of the old master.

    Args:
        address: How the whole is shown, without secrets.
        sentinels: Their addresses.
        service: Name under which they know the master.
        dial: How to connect to a Sentinel.
        seconds: Longest time that one of them may take to answer.
    """

    def __init__(self, address: str, sentinels: Iterable[Node], service: str, dial: Dial, seconds: float) -> None:
        self._address = address
        self._guides = [Guide(node, dial, seconds) for node in sentinels]
        self._service = service

    async def locate(self, *, anew: bool) -> Node:
        """Return the master as most Sentinels know it; do not wait for more of them than that takes.

        Args:
            anew: Makes no difference: all are asked each time.

        Raises:
            Unlocatable: None answers, or none knows the service.
        """
        votes: Counter[Node | None] = Counter()
        refusals: list[CoordinatorUnavailable] = []
        asking = [asyncio.create_task(self._ask(guide)) for guide in self._guides]
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    node = await answer
                except CoordinatorUnavailable as error:
                    refusals.append(error)
                    continue
                votes[node] += 1
                if node is not None and votes[node] > len(self._guides) / 2:
                    return node
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not votes:
            reasons = "; ".join(str(error).removeprefix("Redis at ") for error in refusals)
            raise Unlocatable(f"Redis at {self._address} is not available: no Sentinel answers ({reasons})") from (
                refusals[0].__cause__
            )
        known = [node for node, _ in votes.most_common() if node is not None]
        if not known:
            raise Unlocatable(
                f"Redis at {self._address} is not available: no Sentinel knows the service {self._service!r}"
            )
        return known[0]

    async def check(self, link: Link) -> None:
        """Ask the server itself: Sentinels tell of a new master before it is one, and of the old one after it was."""
        role = (await link.call("ROLE"))[0]
        if role != b"master":
            raise unavailable(link.address, ValueError("it is no master yet, or no more"))

    async def aclose(self) -> None:
        """Close the connections to the Sentinels."""
        for guide in self._guides:
            await guide.aclose()

    async def _ask(self, guide: Guide) -> Node | None:
        reply = await guide.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return Node(bytes(reply[0]).decode(), int(reply[1])) if reply else None
