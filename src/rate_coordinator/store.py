"""The scripts as typed methods: the only place that talks to Redis with commands.

Every call is bounded by the command timeout and leaves no half-read reply behind. Nothing is retried here; a call
that failed may or may not have been applied, and the caller decides with which call number to try again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from rate_coordinator import clock
from rate_coordinator.allowances import Spread
from rate_coordinator.connection import Endpoint, Link, unavailable
from rate_coordinator.errors import ServerUnsuitable
from rate_coordinator.keys import Keys
from rate_coordinator.models import FIRST_ID, WIRE_VERSION, EntryId, Hold, RateLimitEvent
from rate_coordinator.probes import Probe, ProbeAnswer, ProbeNews
from rate_coordinator.replies import (
    HoldReply,
    Reply,
    ReportReply,
    WireHold,
    WireReport,
    read_event,
    read_hold_reply,
    read_limit,
    read_paces,
    read_probe,
    read_turns,
    write_names,
)
from rate_coordinator.scripts import script
from rate_coordinator.snapshots import Snapshot, SnapshotLimit
from rate_coordinator.targets import Target
from rate_coordinator.turns import TurnRequest, Turns
from rate_coordinator.waits import to_ms

OLDEST_VERSION = (6, 2)
APPLIED_TTL_MS = 6 * 3600 * 1000
"""For how long a call is recognised when it is sent again."""
HORIZON_MS = 250
"""Turns that are due later than this from now are not given yet: a process that dies strands no more than these."""
NEWER_FORMAT = "NEWERFORMAT"
"""The error with which a script refuses to touch what a newer version has changed."""
FIRST_LIMIT_KEY = 9
"""Position of the first target's keys among a script's keys: that of its limit, and that of its pace."""
KEYS_PER_TARGET = 2
TARGETS_PER_REINDEX = 1000
"""A call blocks the server for as long as it takes."""
GREETING = '{"version":1,"kind":"ping"}'
"""A message on the channel that listeners ignore."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """One namespace on one Redis.

    Args:
        endpoint: Where it is.
        keys: The namespace's keys.
        max_events: Approximate length of the stream.
        forget_after: Seconds without a refusal after which a pace is forgotten.
        reporter: Name under which this process lifts a limit by a probe.
    """

    def __init__(
        self, endpoint: Endpoint, keys: Keys, max_events: int, forget_after: float = 900.0, reporter: str = ""
    ) -> None:
        self.endpoint = endpoint
        self.keys = keys
        self.calls = 0
        self.round_trip_seconds: float | None = None
        self.garbage_removed = 0
        self._max_events = max_events
        self._forget_after_ms = to_ms(forget_after)
        self._details = json.dumps({"reporter": reporter}, separators=(",", ":"))[1:-1]
        self._client_id = secrets.token_hex(8)
        self._link: Link | None = None
        self._lock = asyncio.Lock()

    async def report(self, call_number: int, reports: list[WireReport]) -> tuple[Reply, list[ReportReply]]:
        """Record a batch of reports in one call."""
        positions: dict[Target, int] = {}
        arguments: list[Any] = []
        for report in reports:
            position = positions.setdefault(report.target, KEYS_PER_TARGET * len(positions) + FIRST_LIMIT_KEY)
            arguments += (position, report.target.encode(), report.wait_ms, report.age_ms, report.details)
            arguments += ("" if told is None else told for told in (report.pace_epoch, report.call_age_ms))

        async def exchange(link: Link) -> Any:
            head = [*self._head(link, call_number), self._forget_after_ms]
            return link.run_id, await link.run(script("report"), self._keys(positions), head + arguments)

        reply, body = self._read_reply(*await self._exchange(exchange))
        return reply, [
            ReportReply(
                EntryId.parse(event),
                bool(extended),
                resume_at_ms,
                EntryId.parse(cause) if cause else FIRST_ID,
                event_resume_at_ms,
                bool(cleared),
                Hold.model_validate(hold[0]) if hold else None,
            )
            for event, extended, resume_at_ms, cause, event_resume_at_ms, cleared, *hold in body["results"]
        ]

    async def hold(self, call_number: int, order: WireHold) -> tuple[Reply, HoldReply]:
        """Hold a target by hand, or release it, in one call."""
        target, keys = order.target, self.keys
        own = [*self._keys(()), keys.limit(target)]

        async def exchange(link: Link) -> Any:
            told: list[Any] = [target.encode(), write_names(target), order.wait_ms, order.age_ms, order.details]
            return link.run_id, await link.run(script("hold"), own, self._head(link, call_number) + told)

        reply, body = self._read_reply(*await self._exchange(exchange))
        return reply, read_hold_reply(target, body)

    async def clear(
        self, call_number: int, backend: str | None, model: str | None, known: Iterable[Target], details: str
    ) -> tuple[Reply, list[tuple[Target, EntryId, bool]]]:
        """Clear a backend with its models, one model, or (None) everything, in one call if ``known`` is complete.

        Args:
            call_number: See ``report``.
            backend: The scope; None clears everything.
            model: Narrows the scope to one model.
            known: The targets in the scope that are known to be limited.
            details: Members of a JSON object that say who clears.

        Returns:
            The reply, and each target that was cleared with the ID of its event, and whether it stays held by hand.
        """
        targets = dict.fromkeys(known)
        if backend is not None:
            targets.setdefault(Target(backend, model))
        scope = "all" if backend is None else "backend" if model is None else "target"
        scope_target = "" if backend is None else Target(backend, model).encode()
        while True:
            arguments: list[Any] = [scope, scope_target, write_names(Target(backend or "", model)), details]
            for target in targets:
                arguments += (target.encode(), write_names(target))

            async def exchange(link: Link, arguments: list[Any] = arguments) -> Any:
                head = self._head(link, call_number)
                return link.run_id, await link.run(script("clear"), self._keys(targets), head + arguments)

            run_id, answer = await self._exchange(exchange)
            if answer[0]:
                reply, body = self._read_reply(run_id, answer)
                return reply, [
                    (Target.decode(target), EntryId.parse(event), held == [1])
                    for event, target, *held in body["cleared"]
                ]
            garbage: list[bytes] = []
            for encoded in answer[2:]:
                try:
                    target = Target.decode(encoded.decode())
                    if target.encode().encode() != encoded:
                        raise ValueError(f"{encoded!r} is not how {target} is written")
                    targets.setdefault(target)
                except ValueError:
                    garbage.append(encoded)
            await self._discard(garbage)

    async def snapshot(self) -> tuple[Snapshot, float, float]:
        """Read all active limits.

        Returns:
            The snapshot, when it was asked for and when it arrived, in seconds on this process's clock.
        """
        keys = [self.keys.order, self.keys.active, self.keys.causes, self.keys.events, self.keys.paces]
        sent_at, run_id = 0.0, ""

        async def exchange(link: Link) -> Any:
            nonlocal sent_at, run_id
            sent_at, run_id = clock.now(), link.run_id
            return await link.run(script("snapshot"), keys, [secrets.token_hex(8), link.run_id])

        epoch, notice_id, now_ms, flat, told_paces = await self._exchange(exchange)
        received_at = clock.now()
        limits: list[SnapshotLimit] = []
        garbage: list[bytes] = []
        for target, resume_at_ms, cause in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            try:
                limits.append(read_limit(target, resume_at_ms, cause.decode("utf-8", "replace")))
            except (ValueError, OverflowError):
                garbage.append(target)
        await self._discard(garbage)
        paces = tuple(read_paces(told_paces))
        return (
            Snapshot(epoch.decode(), EntryId.parse(notice_id.decode()), int(now_ms), tuple(limits), paces, run_id),
            sent_at,
            received_at,
        )

    async def take_turns(self, target: Target, request: TurnRequest) -> Turns | None:
        """Take turns of a target's pace, and tell what was served; None where there is no pace (any more)."""
        keys = [self.keys.pace(target), self.keys.turns(target), self.keys.paces, self.keys.events, self.keys.order]

        async def exchange(link: Link) -> Any:
            told: list[Any] = [self._client_id, *request, HORIZON_MS]
            told += [self.keys.notices, link.publish_with, self._max_events, target.encode(), write_names(target)]
            return await link.run(script("turns"), keys, told)

        return read_turns(await self._exchange(exchange))

    async def probe(
        self,
        what: ProbeNews,
        probe: Probe,
        since_ms: int,
        verify_every: float,
        retry_seconds: float,
        initial_rate: float = 0.0,
    ) -> ProbeAnswer:
        """Ask for a probe, or tell what became of one.

        Args:
            what: See ``ProbeNews``.
            probe: Which; with epoch and ``probe_ms`` 0 where one is asked for.
            since_ms: When the limit that is tried was set, on the server's clock.
            verify_every: So long after that, in seconds, it may be tried.
            retry_seconds: How long after one that came ``"back"`` the next may go.
            initial_rate: The pace that a user told, in calls per second.
        """
        target, keys = probe.target, self.keys
        own = [keys.pace(target), keys.limit(target)]
        shared = [keys.active, keys.causes, keys.events, keys.order, keys.clears, keys.paces, keys.holds]

        async def exchange(link: Link) -> Any:
            told: list[Any] = [what, probe.epoch, probe.probe_ms, probe.resume_at_ms, since_ms]
            told += [to_ms(verify_every), to_ms(retry_seconds), self._forget_after_ms]
            told += [self.keys.notices, link.publish_with, self._max_events, secrets.token_hex(8), link.run_id]
            told += [target.encode(), f"{write_names(target)},{self._details}", initial_rate]
            return await link.run(script("probe"), own + shared, told)

        return read_probe(await self._exchange(exchange))

    async def spread(self, target: Target, spread: Spread) -> float:
        """Let the fleet spread what is left; return how long a pace has to be kept, in seconds."""
        keys = [self.keys.pace(target), self.keys.paces, self.keys.order]
        told: list[Any] = [spread.rate, to_ms(spread.seconds), spread.next_rate, self.keys.notices]

        async def exchange(link: Link) -> Any:
            details = f"{write_names(target)},{self._details}"
            return await link.run(script("spread"), keys, [*told, link.publish_with, target.encode(), details])

        return int(await self._exchange(exchange)) / 1000

    async def forget_pace(self, target: Target, details: str) -> bool:
        """Forget a target's pace; return whether there was one."""
        keys = [self.keys.pace(target), self.keys.paces, self.keys.events, self.keys.order]

        async def exchange(link: Link) -> Any:
            arguments: list[Any] = [self.keys.notices, link.publish_with, self._max_events, target.encode()]
            return await link.run(script("forget"), keys, [*arguments, f"{write_names(target)},{details}"])

        return bool(await self._exchange(exchange))

    async def reindex(self, targets: Sequence[Target]) -> int:
        """Put those of the targets back into the index that still have their limit's key; return how many."""
        restored = 0
        for first in range(0, len(targets), TARGETS_PER_REINDEX):
            some = targets[first : first + TARGETS_PER_REINDEX]
            keys = [self.keys.active, self.keys.causes, *(self.keys.limit(target) for target in some)]
            arguments = [target.encode() for target in some]

            async def exchange(link: Link, keys: list[str] = keys, arguments: list[str] = arguments) -> Any:
                return await link.run(script("reindex"), keys, arguments)

            restored += int(await self._exchange(exchange))
        return restored

    async def prune(self, age_seconds: float) -> int:
        """Remove older events, except those that explain an active limit; return how many."""
        keys = [self.keys.events, self.keys.active, self.keys.causes]
        return int(await self._exchange(lambda link: link.run(script("prune"), keys, [int(age_seconds * 1000)])))

    async def events(self, newest: str, oldest: str, count: int) -> tuple[list[RateLimitEvent], str | None]:
        """Read a page of the stream, newest first.

        Args:
            newest: Entry ID to begin with, exclusive if it starts with ``"("``; ``"+"`` for the end of the stream.
            oldest: Entry ID to end with, likewise; ``"-"`` for the beginning of the stream.
            count: How many entries to read at most.

        Returns:
            The events that can be read, and where the next page begins; None if this was the last.
        """
        entries = await self._exchange(
            lambda link: link.call("XREVRANGE", self.keys.events, newest, oldest, "COUNT", count)
        )
        events = [event for entry_id, fields in entries if (event := read_event(entry_id, fields)) is not None]
        return events, f"({entries[-1][0].decode()}" if len(entries) == count else None

    async def check(self) -> list[tuple[str, str]]:
        """Return what the server refuses of all that is needed: pairs of a command and the server's words.

        Raises:
            ServerUnsuitable: The server is too old, or does not run scripts.
        """

        async def exchange(link: Link) -> Any:
            if link.version and link.version_info < OLDEST_VERSION:
                raise ServerUnsuitable(f"Redis at {self.endpoint.address} is {link.version}; 6.2 or newer is needed")
            arguments = [self.keys.notices, GREETING, link.publish_with]
            return await link.run(script("check"), [self.keys.scratch], arguments)

        flat = await self._exchange(exchange)
        return [(name.decode(), text.decode()) for name, text in zip(flat[::2], flat[1::2], strict=True)]

    @property
    def server_info(self) -> Mapping[str, str]:
        """What the server told of itself when it was connected to; empty where it may not be asked."""
        return self._link.info if self._link else {}

    async def aclose(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _exchange(self, exchange: Callable[[Link], Awaitable[T]]) -> T:
        """Do one thing with the connection, opened if need be, within the command timeout.

        Raises:
            CoordinatorUnavailable: Redis could not be reached, refused, or did not answer in time.
        """
        try:
            async with asyncio.timeout(self.endpoint.command_timeout), self._lock:
                if self._link is not None and not self.endpoint.is_current(self._link):
                    await self.aclose()
                link = self._link
                if link is None:
                    link = self._link = await self.endpoint.open()
                    await self._guarded(link.greet())
                started = clock.now()
                # Not self._link: another task may have closed it meanwhile, and then this says so.
                try:
                    result = await self._guarded(exchange(link))
                except ResponseError:
                    if not await self._repair(link):
                        raise
                    result = await self._guarded(exchange(link))
                self.round_trip_seconds = clock.now() - started
                self.calls += 1
                return result
        except TimeoutError as error:
            raise unavailable(
                self.endpoint.address, error, f"no answer within {self.endpoint.command_timeout:g} s"
            ) from error
        except RedisError as error:
            code, _, rest = str(error).partition(" ")
            if code == NEWER_FORMAT:
                raise ServerUnsuitable(
                    f"namespace {self.keys.namespace!r} on Redis at {self.endpoint.address} is in the format "
                    f"{rest.split()[0]} of a newer version; this one knows {WIRE_VERSION}: upgrade it"
                ) from error
            raise unavailable(self.endpoint.address, error) from error

    async def _discard(self, members: list[bytes]) -> None:
        """Remove members of the index that name no target, or claim a time that cannot be."""
        for first in range(0, len(members), TARGETS_PER_REINDEX):
            some = members[first : first + TARGETS_PER_REINDEX]
            await self._exchange(lambda link, some=some: link.call("ZREM", self.keys.active, *some))  # type: ignore[misc]
        if members:
            level = logging.WARNING if not self.garbage_removed else logging.DEBUG
            self.garbage_removed += len(members)
            logger.log(
                level, "members of the index made no sense and have been removed", extra={"members": len(members)}
            )

    async def _repair(self, link: Link) -> bool:
        """Remove keys of another type than ours, on which calls fail for ever; return whether there were any.

        Which error it was is not asked: its words differ between servers. A call that met such a key has done nothing
        yet, so that it may be made again.
        """
        if link is not self._link:
            return False
        keys = self.keys
        types = {
            **{keys.order: "hash", keys.active: "zset", keys.causes: "hash", keys.events: "stream"},
            **{keys.clears: "zset", keys.paces: "zset", keys.holds: "hash", keys.applied(self._client_id): "string"},
        }
        try:
            removed = await self._guarded(link.run(script("repair"), list(types), list(types.values())))
        except RedisError:
            return False
        if removed:
            self.garbage_removed += len(removed)
            names = [name.decode("utf-8", "replace") for name in removed]
            logger.warning("keys of the namespace were of a wrong type and have been removed", extra={"keys": names})
        return bool(removed)

    async def _guarded(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except RedisError:
            # An error reply leaves the connection in order. But Redis 6.2 hides in the text of some that this server is
            # not the right one any more, and a server that is in charge hardly ever sends any.
            if self.endpoint.moves:
                await self.aclose()
            raise
        except BaseException:
            with suppress(OSError):
                await self.aclose()
            raise

    def _keys(self, targets: Iterable[Target]) -> list[str]:
        keys = self.keys
        fixed = [keys.order, keys.active, keys.causes, keys.events, keys.applied(self._client_id)]
        own = [key for target in targets for key in (keys.limit(target), keys.pace(target))]
        return [*fixed, keys.clears, keys.paces, keys.holds, *own]

    def _head(self, link: Link, call_number: int) -> list[Any]:
        new_epoch, channel = secrets.token_hex(8), self.keys.notices
        order: list[Any] = [call_number, new_epoch, link.run_id]
        return [*order, channel, self._max_events, APPLIED_TTL_MS, link.publish_with]

    def _read_reply(self, run_id: str, answer: Any) -> tuple[Reply, dict[str, Any]]:
        body = json.loads(answer[0])
        return Reply(body["epoch"], int(answer[1]), clock.now(), run_id), body
