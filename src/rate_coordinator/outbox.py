"""What this process has to tell Redis: one call at a time, everything that came meanwhile in the next.

A call keeps its number until it is settled, so that Redis applies it once, however often it is sent. While Redis is
away, reports are kept and sent again later, each shortened by the time that has passed.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rate_coordinator import clock
from rate_coordinator.backoff import Backoff
from rate_coordinator.condition import Condition
from rate_coordinator.connection import answered_within
from rate_coordinator.errors import CoordinatorError, CoordinatorUnavailable
from rate_coordinator.eventlog import MakeEvent
from rate_coordinator.holds import HoldOrder
from rate_coordinator.mirror import Mirror
from rate_coordinator.models import EntryId, ReportResult
from rate_coordinator.replies import HoldReply, Reply, ReportReply, WireReport, write_members
from rate_coordinator.reports import Report
from rate_coordinator.snapshots import SnapshotLimit
from rate_coordinator.store import Store
from rate_coordinator.targets import Target

logger = logging.getLogger(__name__)

T = TypeVar("T")

REPORTS_PER_CALL = 128
"""A call blocks the server for as long as it takes; this many reports take it a few milliseconds."""

ATTEMPTS = 2
"""How often a call is sent before its callers are told that Redis is away. A single broken connection is no outage."""


REPLAY_SPREAD_SECONDS = 1.0
"""A fleet spreads its first attempts over this much after it was told that Redis is away, or is back."""

RETRY_SECONDS = 2.5
"""Longest time that one attempt takes while Redis is away: with the longest pause, what is kept is delivered within 5
seconds after it is back, even if a connection died that nobody told of."""

PROMPT_SECONDS = 2.0
"""A report that waited longer for its turn is shortened by that, even if its caller still waits for the answer."""


@dataclass(slots=True, eq=False)
class _Order:
    """What is done by hand: sent while its caller waits, or not at all."""

    refusal: str
    """What its caller is told where it is not sent."""
    send: Callable[[int, bool], Awaitable[Any]]
    """Sends it under a call number, told whether that has been tried before, and learns what became of it."""
    reported_at: float
    settled: asyncio.Future[Any]
    kept: bool = False
    """Whether it is kept while Redis is away, as reports are, instead of failing."""


class Outbox:
    """Sends reports, and what is ordered by hand, in the order in which it was made.

    Args:
        store: Where they go.
        mirror: Learns at once of each report, and of what became of it.
        changed: Called with the targets whose limit changed.
        recorded: Called with the event of each report that was delivered, to be made when needed.
        resynchronise: Called when a reply shows that the mirror has missed something.
        reporter: Name under which this process reports.
        capacity: How many reports are kept while Redis is away.
        patience: Seconds after which a caller is told that Redis does not answer, whatever the sending does.
        condition: Told what goes wrong, and whether what is reported can be delivered.
    """

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        changed: Callable[[set[Target]], None],
        recorded: Callable[[EntryId, MakeEvent], None],
        resynchronise: Callable[[], None],
        reporter: str,
        capacity: int,
        patience: float,
        condition: Condition,
    ) -> None:
        self.ending = False
        """Set before it is cancelled, so that what fails in that moment is not tried again."""
        self.delivered = 0
        self.dropped = 0
        self.last_error: str | None = None
        self._store = store
        self._mirror = mirror
        self._changed = changed
        self._recorded = recorded
        self._resynchronise = resynchronise
        self._reporter = reporter
        self._capacity = capacity
        self._patience = patience
        self._condition = condition
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._queue: dict[int, Report | _Order] = {}
        self._by_deadline: list[tuple[float, int]] = []
        self._sending: list[Report] = []
        self._offline = False
        self._replaying = False
        self._full = False
        self._unsettled: deque[Report | _Order] = deque()
        self._patience_timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._retry_now = asyncio.Event()

    @property
    def buffered(self) -> int:
        """How many reports wait for Redis to come back."""
        return len(self._queue) + len(self._sending) if self._offline or self._replaying else 0

    @property
    def offline(self) -> bool:
        """Whether the last call failed."""
        return self._offline

    async def report(self, report: Report) -> ReportResult:
        """Send a report and wait for what becomes of it. A caller that is cancelled does not take it back."""
        if report.wait.wait_ms:
            self._changed(self._mirror.presume(report.target, report.deadline))
        if self._offline:
            self._put(report)
            return self._undelivered(report)
        report.settled = asyncio.get_running_loop().create_future()
        self._put(report)
        self._bound(report)
        return await report.settled

    async def clear(self, backend: str | None, model: str | None) -> int:
        """Send a clear and return how many limits it lifted.

        Raises:
            CoordinatorUnavailable: Redis is away.
        """
        details = write_members({"reporter": self._reporter})

        async def send(number: int, _: bool) -> int:
            known = self._mirror.targets_of(backend, model, clock.now())
            reply, cleared = await self._store.clear(number, backend, model, known, details)
            for target, event_id, held in cleared:
                if not held:
                    self._changed(self._mirror.learn_clear(reply.epoch, target, event_id))
            return len(cleared)

        return await self._carry_out("nothing was cleared", send)

    async def order(self, order: HoldOrder) -> tuple[Reply, HoldReply]:
        """Send what was ordered by hand: to hold a target, or to release it.

        Raises:
            CoordinatorUnavailable: Redis is away.
        """
        return await self._carry_out(
            f"{order.target} was not {'held' if order.wait_ms else 'released'}", self._of(order)
        )

    async def restore(self, order: HoldOrder) -> None:
        """Put a hold back, as a report puts a limit back: where Redis is away, later."""
        self._changed(self._mirror.presume(order.target, order.deadline))
        restoring = _Order("", self._of(order), clock.now(), asyncio.get_running_loop().create_future(), kept=True)
        restoring.settled.add_done_callback(partial(self._restored, order.target))
        self._put(restoring)
        if not self._offline:
            await asyncio.wait([restoring.settled], timeout=self._patience)

    def _restored(self, target: Target, settled: asyncio.Future[Any]) -> None:
        self._changed(self._mirror.settle(target))
        if not settled.cancelled():
            settled.exception()

    def _of(self, order: HoldOrder) -> Callable[[int, bool], Awaitable[tuple[Reply, HoldReply]]]:
        target = order.target

        async def send(number: int, again: bool) -> tuple[Reply, HoldReply]:
            reply, answer = await self._store.hold(number, order.to_wire(self._reporter, clock.now()))
            if answer.limit is not None:
                told = (reply.epoch, answer.limit, reply.now_ms, reply.received_at)
                self._changed(self._mirror.learn(*told, again=again, run_id=reply.run_id))
            elif answer.done:
                self._changed(self._mirror.learn_clear(reply.epoch, target, answer.event_id))
            if self._mirror.stale:
                self._resynchronise()
            return reply, answer

        return send

    async def _carry_out(self, refusal: str, send: Callable[[int, bool], Awaitable[T]]) -> T:
        if self._offline:
            raise CoordinatorUnavailable(f"{refusal}: {self.last_error}")
        settled: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        order = _Order(refusal, send, clock.now(), settled)
        self._put(order)
        self._bound(order)
        return await settled

    def retry_now(self) -> None:
        """Do not wait any longer before trying again: Redis was heard."""
        self._retry_now.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                key, item = next(iter(self._queue.items()))
                if isinstance(item, _Order):
                    del self._queue[key]
                    if not item.settled.done():
                        await self._send_order(item)
                else:
                    self._sending = self._take_reports()
                    await self._send_reports(self._sending)
                    self._sending = []
            self._replaying = False
            self._idle.set()

    async def drain(self) -> None:
        """Wait until everything is sent, or cannot be."""
        await self._idle.wait()

    def abandon(self, make_error: Callable[[], Exception]) -> None:
        """Tell everyone who waits that nothing will be sent any more."""
        if self._patience_timer is not None:
            self._patience_timer.cancel()
        for item in [*self._sending, *self._queue.values()]:
            if isinstance(item, Report):
                self.dropped += 1
            self._give_up_on(item, make_error())
        self._queue.clear()
        self._sending = []

    def _bound(self, item: Report | _Order) -> None:
        # One timer for all: they come in the order in which their patience ends.
        self._unsettled.append(item)
        if self._patience_timer is None:
            self._patience_timer = asyncio.get_running_loop().call_later(self._patience, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience_timer = None
        now = clock.now()
        error = CoordinatorUnavailable(f"Redis did not answer within {self._patience:g} s")
        while self._unsettled:
            item = self._unsettled[0]
            if item.settled is not None and not item.settled.done():
                left = item.reported_at + self._patience - now
                if left > 0:
                    loop = asyncio.get_running_loop()
                    self._patience_timer = loop.call_later(left, self._lose_patience)
                    return
                self._give_up_on(item, error)
            self._unsettled.popleft()

    def _give_up_on(self, item: Report | _Order, error: Exception) -> None:
        if item.settled is None or item.settled.done():
            return
        if isinstance(item, Report):
            item.settled.set_result(self._undelivered(item))
        else:
            item.settled.set_exception(error)

    def _put(self, item: Report | _Order) -> None:
        key = next(self._order)
        self._queue[key] = item
        if isinstance(item, Report) and self._offline:
            heapq.heappush(self._by_deadline, (item.deadline, key))
            self._drop_above_capacity()
        if not self._offline:
            self._idle.clear()
        self._wake.set()

    def _drop_above_capacity(self) -> None:
        while self.buffered > self._capacity and self._by_deadline:
            _, key = heapq.heappop(self._by_deadline)
            dropped = self._queue.pop(key, None)
            if isinstance(dropped, Report):
                self.dropped += 1
                self._release(dropped)
                level = logging.DEBUG if self._full else logging.WARNING
                self._full = True
                logger.log(
                    level, "the buffer is full; what lifts first is given up", extra={"target": str(dropped.target)}
                )

    def _take_reports(self) -> list[Report]:
        reports: list[Report] = []
        for key, item in list(itertools.islice(self._queue.items(), REPORTS_PER_CALL)):
            if isinstance(item, _Order):
                break
            del self._queue[key]
            reports.append(item)
        return reports

    async def _send_reports(self, reports: list[Report]) -> None:
        number = next(self._numbers)
        backoff = Backoff(REPLAY_SPREAD_SECONDS)
        began = clock.now()
        for attempt in itertools.count(1):
            again = attempt > 1 or self._offline
            wire = [report.to_wire(self._reporter, late=again or _is_late(report)) for report in reports]
            try:
                async with self._bounded():
                    reply, answers = await self._store.report(number, wire)
            except Exception as error:
                if self.ending:
                    raise asyncio.CancelledError from error
                self._note(error)
                if attempt >= ATTEMPTS or clock.now() - began > self._patience / 2:
                    self._go_offline(reports, error)
                    await self._pause(backoff, began)
                continue
            self._come_online()
            for report, sent, answer in zip(reports, wire, answers, strict=True):
                self._deliver(report, sent, answer, reply, again=attempt > 1)
            if self._mirror.stale:
                self._resynchronise()
            return

    async def _send_order(self, order: _Order) -> None:
        try:
            await self._try(order)
        except asyncio.CancelledError:
            order.settled.cancel()
            raise

    async def _try(self, order: _Order) -> None:
        number = next(self._numbers)
        backoff, began = Backoff(REPLAY_SPREAD_SECONDS), clock.now()
        for attempt in itertools.count(1):
            try:
                async with self._bounded():
                    result = await order.send(number, attempt > 1)
            except Exception as error:
                if self.ending:
                    raise asyncio.CancelledError from error
                self._note(error)
                if attempt >= ATTEMPTS and order.kept:
                    self._go_offline([], error)
                    await self._pause(backoff, began)
                elif attempt >= ATTEMPTS:
                    if not order.settled.done():
                        order.settled.set_exception(error)
                    return
            else:
                self._come_online()
                if not order.settled.done():
                    order.settled.set_result(result)
                return

    def _bounded(self) -> AbstractAsyncContextManager[None]:
        return answered_within(RETRY_SECONDS, self._store.endpoint.address) if self._offline else nullcontext()

    def _note(self, error: Exception) -> None:
        self.last_error = str(error)
        self._condition.failed(error)
        if not isinstance(error, CoordinatorError):
            # Whatever it is, it must not end the sending: what is kept would be lost with it.
            logger.error("a call failed in a way that was not foreseen", exc_info=error)

    def _deliver(self, report: Report, sent: WireReport, answer: ReportReply, reply: Reply, *, again: bool) -> None:
        self.delivered += 1
        if answer.resume_at_ms:
            # The state that is answered is the one after the whole call: another report of it may have set it.
            own = answer.cause_id == answer.event_id
            wait_ms, details = None, None
            if own:
                # More than was sent, where it stands for an older limit as well whose clock was put back.
                wait_ms = max(sent.wait_ms, answer.resume_at_ms - reply.now_ms)
                details = report.details(self._reporter, sent)
                if answer.hold is not None:
                    details = details.model_copy(update={"hold": answer.hold})
            if own and again:
                # Which sending was carried out is not known, and the first was shortened by less than this one.
                wait_ms = report.wait.wait_ms
            limit = SnapshotLimit(report.target, answer.resume_at_ms, answer.cause_id, wait_ms, details)
            told = (reply.epoch, limit, reply.now_ms, reply.received_at)
            self._changed(self._mirror.learn(*told, again=again, run_id=reply.run_id))
        self._release(report)
        self._recorded(answer.event_id, partial(report.to_event, self._reporter, sent, answer))
        if report.settled is not None and not report.settled.done():
            report.settled.set_result(report.delivered(answer, reply))

    def _release(self, report: Report) -> None:
        if report.wait.wait_ms:
            self._changed(self._mirror.settle(report.target))

    def _undelivered(self, report: Report) -> ReportResult:
        return report.undelivered(max(0.0, self._mirror.deadline(report.target) - clock.now()))

    def _go_offline(self, reports: list[Report], error: Exception) -> None:
        if not self._offline:
            self._offline = True
            self._idle.set()
            self._condition.delivers(False)
        for report in reports:
            self._give_up_on(report, error)
        for key, item in list(self._queue.items()):
            if isinstance(item, _Order):
                if not item.kept:
                    self._give_up_on(item, CoordinatorUnavailable(f"{item.refusal}: {error}"))
                    del self._queue[key]
            else:
                self._give_up_on(item, error)
        self._by_deadline = [(item.deadline, key) for key, item in self._queue.items() if isinstance(item, Report)]
        heapq.heapify(self._by_deadline)
        self._drop_above_capacity()

    def _come_online(self) -> None:
        if self._offline:
            self._offline = self._full = False
            self._replaying = True
            self._by_deadline = []
            self._condition.delivers(True)

    async def _pause(self, backoff: Backoff, began: float) -> None:
        self._retry_now.clear()
        try:
            async with asyncio.timeout(backoff.next_delay(random.random())):
                await self._retry_now.wait()
        except TimeoutError:
            return
        if clock.now() - began > REPLAY_SPREAD_SECONDS:
            # The whole fleet hears Redis again in the same moment.
            await asyncio.sleep(random.random() * REPLAY_SPREAD_SECONDS)


def _is_late(report: Report) -> bool:
    """Tell whether a report was kept, which its caller has been told, or waited behind a call that hung."""
    told = report.settled is None or report.settled.done()
    return told or clock.now() - report.reported_at > PROMPT_SECONDS
