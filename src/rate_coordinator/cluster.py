"""The master of one slot of a cluster.

All keys of a namespace are in one slot, so that a coordinator needs no more than one node of the cluster.
Source: https://redis.io/docs/latest/commands/cluster-slots/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rate_coordinator.errors import CoordinatorUnavailable
from rate_coordinator.link import Link, unavailable
from rate_coordinator.nodes import Dial, Guide, Node, Unlocatable

SHARDED_SINCE = (7, 0)
"""From this version on, channels belong to slots: a notice goes to one shard instead of every node."""

MOST_GUIDES = 32
"""How many nodes are remembered; a cluster may have a thousand."""


class ClusterLocator:
    """Asks the nodes in turn, after a failure another one first: one that was cut off may tell of what was.

    Args:
        address: How the whole is shown, without secrets.
        seeds: The nodes that the URL names. Those that they tell of are asked as well later on.
        slot: Which one is looked for.
        dial: How to connect to a node.
        seconds: Longest time that one of them may take to answer.
    """

    def __init__(self, address: str, seeds: Iterable[Node], slot: int, dial: Dial, seconds: float) -> None:
        self._address = address
        self._seeds = tuple(seeds)
        self._slot = slot
        self._dial = dial
        self._seconds = seconds
        self._guides = {node: Guide(node, dial, seconds) for node in self._seeds}

    async def locate(self, *, anew: bool) -> Node:
        """Return the slot's master as the first node knows it that answers.

        Args:
            anew: Whether what was said last time did not help.

        Raises:
            Unlocatable: None answers.
            CoordinatorUnavailable: The slot has no master at the moment.
        """
        refusals: list[CoordinatorUnavailable] = []
        answered = False
        for number, guide in enumerate(list(self._guides.values())):
            if anew and number == 0:
                # To the end of the line: it is asked again when all others have been.
                self._guides[guide.node] = self._guides.pop(guide.node)
            try:
                reply = await guide.ask("CLUSTER", "SLOTS")
            except CoordinatorUnavailable as error:
                refusals.append(error)
                continue
            answered = True
            masters = read_slots(reply, guide.node)
            await self._remember(node for nodes in masters.values() for node in nodes)
            for (first, last), nodes in masters.items():
                if first <= self._slot <= last:
                    return nodes[0]
            refusals.append(unavailable(str(guide.node), ValueError(f"nobody serves slot {self._slot}")))
        reasons = "; ".join(str(error).removeprefix("Redis at ") for error in refusals)
        what = "no node of the cluster knows where to go" if answered else "no node of the cluster answers"
        kind = CoordinatorUnavailable if answered else Unlocatable
        raise kind(f"Redis at {self._address} is not available: {what} ({reasons})") from refusals[0].__cause__

    async def check(self, link: Link) -> None:
        """Find out whether channels belong to slots there. Whether it is the right node, it says by itself each time.

        A namespace's scripts run on the same one node that is listened to, so that publishers and listeners cannot
        disagree about it, whatever the other nodes are. When a node is upgraded, it breaks every connection.
        """
        await link.greet()
        if not link.version:
            raise Unlocatable(f"Redis at {link.address} cannot be used: it does not tell its version (INFO)")
        link.sharded = link.version_info >= SHARDED_SINCE

    async def aclose(self) -> None:
        """Close the connections for asking."""
        for guide in self._guides.values():
            await guide.aclose()

    async def _remember(self, nodes: Iterable[Node]) -> None:
        known = dict.fromkeys([*self._seeds, *nodes])
        for node in list(known)[: max(MOST_GUIDES, len(self._seeds))]:
            if node not in self._guides:
                self._guides[node] = Guide(node, self._dial, self._seconds)
        for node in list(self._guides):
            if node not in known:
                await self._guides.pop(node).aclose()


def read_slots(reply: Any, asked: Node) -> dict[tuple[int, int], list[Node]]:
    """Return which nodes serve which slots, from first to last: the master and its replicas.

    Args:
        reply: The raw answer to ``CLUSTER SLOTS``.
        asked: Who gave it; a node that does not know its own address leaves it out.
    """
    slots: dict[tuple[int, int], list[Node]] = {}
    for first, last, *served in reply:
        nodes = [Node(bytes(host or b"").decode(), int(port)) for host, port, *_ in served]
        slots[int(first), int(last)] = [
            node._replace(host=asked.host) if node.host in ("", "?") else node for node in nodes if node.port
        ]
    return {numbers: nodes for numbers, nodes in slots.items() if nodes}
