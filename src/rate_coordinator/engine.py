"""What runs inside a coordinator: it owns the tasks and connections, and joins the parts together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import Literal
from weakref import WeakSet

from redis.exceptions import NoPermissionError

from rate_coordinator import clock
from rate_coordinator.arguments import read_report
from rate_coordinator.condition import Condition
from rate_coordinator.connection import Endpoint, answered_within
from rate_coordinator.dispenser import Dispenser, describe_paces
from rate_coordinator.errors import (
    CoordinatorClosed,
    CoordinatorUnavailable,
    ForkedCoordinator,
    ServerUnsuitable,
    WrongEventLoop,
)
from rate_coordinator.eventlog import EventLog
from rate_coordinator.gate import Gate
from rate_coordinator.holds import HoldOrder, held_result
from rate_coordinator.keys import Keys
from rate_coordinator.metering import Meters
from rate_coordinator.mirror import Limit, Mirror
from rate_coordinator.models import Health, PaceStatus, Reason, ReportResult
from rate_coordinator.notices import NoticeHub
from rate_coordinator.outbox import Outbox
from rate_coordinator.prober import Prober
from rate_coordinator.reports import Report, compact_json
from rate_coordinator.settings import Settings
from rate_coordinator.spreader import Spreader
from rate_coordinator.store import Store
from rate_coordinator.subscription import Subscription
from rate_coordinator.synchroniser import Synchroniser
from rate_coordinator.targets import Target
from rate_coordinator.turns import LOOKS, Paces, TurnRequest
from rate_coordinator.waiters import Waiters

logger = logging.getLogger(__name__)

State = Literal["new", "starting", "running", "closed"]


class Engine:
    """The running parts of one coordinator.

    Args:
        endpoint: Where Redis is.
        settings: See there.
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.state: State = "new"
        self.endpoint = endpoint
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.condition = Condition(endpoint.address)
        self.mirror = Mirror()
        self.log = EventLog(settings.max_events)
        self.waiters = Waiters(self.mirror, settings.wake_margin_seconds, settings.wake_jitter_seconds)
        self.hub = NoticeHub(settings.notice_buffer)
        self.meters = Meters()
        self.store = Store(endpoint, self.keys, settings.max_events, settings.forget_after, settings.reporter)
        self.paces = Paces()
        self.dispenser = Dispenser(self.store, self.paces, self.mirror, lambda: self.condition.degraded)
        self.prober = Prober(
            self.store,
            self.mirror,
            self.paces,
            settings.verify_every,
            settings.forget_after,
            lambda: self.condition.degraded,
            self._limits_changed,
        )
        self.spreader = Spreader(self.store, self.paces, lambda: self.condition.degraded, self.dispenser.changed)
        self.gate = Gate(
            self.mirror,
            self.paces,
            self.waiters,
            self.dispenser,
            self.prober,
            self.spreader,
            self.ready,
            self._report_refusal,
            self.meters,
        )
        self.synchroniser = Synchroniser(
            self.store,
            self.mirror,
            self.log,
            self.waiters,
            self.hub,
            self.meters,
            self.paces,
            self.dispenser,
            self.prober,
            settings.max_events,
            self._restore,
        )
        self.subscription = Subscription(
            endpoint,
            self.keys.notices,
            settings,
            self.synchroniser.heard,
            self.synchroniser.synchronise,
            # Where the listener's peer was gone, a call on its way waits for an answer that will not come.
            self.store.aclose,
            self._in_step,
            self.condition,
        )
        self.outbox = Outbox(
            self.store,
            self.mirror,
            self.waiters.changed,
            self.log.add,
            self.subscription.resynchronise,
            settings.reporter,
            settings.max_buffered_reports,
            settings.command_timeout,
            self.condition,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forked = False
        self._starting: asyncio.Task[None] | None = None
        self._starters = 0
        self._degraded_ok = False
        self._running: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[object] | None = None
        _engines.add(self)

    async def ready(self) -> None:
        """Start it if that has not been done, and make sure that it can be used from here.

        Raises:
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
            CoordinatorUnavailable: It could not be started.
            ServerUnsuitable: The server cannot be used.
        """
        if self.state != "running" or self._loop is not asyncio.get_running_loop():
            await self.start(degraded_ok=False)

    async def start(self, *, degraded_ok: bool) -> None:
        """Connect, and begin to listen. Concurrent calls share one start; cancelling the last of them undoes it."""
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        self._degraded_ok = self._degraded_ok or degraded_ok
        while True:
            self._check_usable()
            if self.state == "running":
                return
            if self._starting is None:
                self.state = "starting"
                self._loop = asyncio.get_running_loop()
                self._starting = asyncio.create_task(self._start(), name="rate_coordinator start")
            starting = self._starting
            self._starters += 1
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                if task is None or task.cancelling() > cancellations:
                    if self._starters == 1 and not starting.done():
                        starting.cancel()
                        await asyncio.wait([starting])
                    raise
                # Not this caller was cancelled but the start that it shared: closed, or given up by another.
            finally:
                self._starters -= 1

    async def aclose(self) -> None:
        """End everything. A cancelled call lets the rest go on; a second one waits for it."""
        if self.state == "closed" and self._closing is None:
            return
        if self._closing is None:
            if self._loop is not None:
                self._check_usable()
            self._closer = asyncio.current_task()
            self._closing = asyncio.create_task(self._close(), name="rate_coordinator close")
        await asyncio.shield(self._closing)

    async def report(self, report: Report) -> ReportResult:
        """See ``Outbox.report``."""
        self.meters.reported(report.target, report.wait.asked_seconds, report.reason)
        return await self.outbox.report(report)

    async def wait(self, targets: Sequence[Target], began: float, gives_up_at: float | None) -> tuple[Target, float]:
        """See ``Waiters.wait``; return as well for how many seconds it was waited, 0.0 where one was clear at once."""
        cleared = self.waiters.clear_now(targets)
        if cleared is not None:
            self.meters.waited(cleared, 0.0, cleared=True)
            return cleared, 0.0
        try:
            cleared = await self.waiters.wait(targets, gives_up_at)
        finally:
            seconds = clock.now() - began
            self.meters.waited(cleared or targets[0], seconds, cleared=cleared is not None)
        return cleared, seconds

    async def pace(self, target: Target) -> PaceStatus | None:
        """Ask Redis for a target's pace."""
        turns = await self.store.take_turns(target, TurnRequest(LOOKS))
        if turns is None:
            self.paces.forget(target)
            return None
        self.paces.learn(target, turns, clock.now())
        told = describe_paces(self.paces, self.dispenser, clock.now())
        return next((pace for pace in told if pace.target == target), None)

    async def forget_pace(self, target: Target) -> bool:
        """Forget a target's pace, for everyone."""
        details = compact_json({"reporter": self.settings.reporter})[1:-1]
        forgotten = await self.store.forget_pace(target, details)
        self.paces.forget(target)
        self.dispenser.changed({target})
        return forgotten

    async def _report_refusal(
        self,
        target: Target,
        wait_seconds: float,
        job_id: str | None,
        sheet_num: int | None,
        reason: Reason,
        sent_at: float,
        epoch: int,
    ) -> ReportResult:
        cap = self.settings.max_wait_seconds
        report = read_report(target, wait_seconds, cap, job_id, sheet_num, reason, sent_at, epoch)
        await self.ready()
        return await self.report(report)

    def _limits_changed(self, targets: set[Target]) -> None:
        self.waiters.changed(targets)
        self.dispenser.changed(targets)

    async def clear(self, backend: str | None, model: str | None) -> int:
        """See ``Outbox.clear``; the mirror shows it on return."""
        async with self.bounded():
            cleared = await self.outbox.clear(backend, model)
            if self.mirror.targets_of(backend, model, clock.now()):
                # Redis no longer has what the mirror holds, or somebody was faster with a new report.
                await self.synchroniser.refresh()
        return cleared

    async def hold(self, order: HoldOrder) -> ReportResult:
        """Hold a target by hand; the mirror shows it on return."""
        reply, answer = await self.outbox.order(order)
        return held_result(order, answer, reply)

    async def release(self, order: HoldOrder) -> bool:
        """End a hold by hand; the mirror shows it on return. Tell whether there was one."""
        _, answer = await self.outbox.order(order)
        return answer.done

    def bounded(self) -> AbstractAsyncContextManager[None]:
        """Bound what is awaited inside by the command timeout; it raises ``CoordinatorUnavailable``."""
        return answered_within(self.settings.command_timeout, self.endpoint.address)

    async def _restore(self, limits: list[Limit]) -> None:
        """Report limits again that a server lacks which took over from the one that they are known from."""
        now = clock.now()
        held = [
            HoldOrder.restoring(limit, limit.hold, now) for limit in limits if limit.hold and limit.held_until > now
        ]
        reported = [limit for limit in limits if limit.hold is None or limit.hold.until_ms < limit.resume_at_ms]
        await asyncio.gather(
            *(self.outbox.restore(order) for order in held),
            *(self.outbox.report(Report.restoring(limit, now)) for limit in reported),
        )

    def _in_step(self, in_step: bool) -> None:
        """Redis can be heard and read again, or it can no more."""
        if in_step:
            self.outbox.retry_now()
        self.condition.hears(in_step)

    def health(self) -> Health:
        """Return how it is doing."""
        running = "degraded" if self.condition.degraded else "connected"
        return Health(
            state=running if self.state == "running" else self.state,
            address=self.endpoint.address,
            namespace=self.settings.namespace,
            degraded_seconds=self.condition.degraded_seconds if self.state == "running" else 0.0,
            degraded_total_seconds=self.condition.degraded_total_seconds,
            last_error=self.condition.last_error,
            round_trip_seconds=self.store.round_trip_seconds,
            notice_delay_seconds=self.synchroniser.notice_delay_seconds,
            notices_received=self.subscription.received,
            notices_unreadable=self.subscription.unreadable,
            notices_newer=self.subscription.newer,
            notices_dropped=self.hub.dropped,
            notices_missed=self.mirror.gaps,
            callback_errors=self.hub.callback_errors,
            resyncs=self.synchroniser.resyncs,
            reconnects=self.subscription.reconnects,
            script_calls=self.store.calls,
            garbage_removed=self.store.garbage_removed,
            reports_delivered=self.outbox.delivered,
            reports_buffered=self.outbox.buffered,
            reports_dropped=self.outbox.dropped,
            calls_avoided=self.gate.avoided,
            paces=describe_paces(self.paces, self.dispenser, clock.now()),
        )

    def server_now_ms(self) -> int:
        """Return the server's clock as far as it is known, else this host's, in milliseconds since 1970."""
        estimate = self.mirror.clock.estimate_ms(clock.now())
        return int(datetime.now(UTC).timestamp() * 1000) if estimate is None else estimate

    def after_fork(self) -> None:
        """In a forked child: nothing that was inherited may be touched."""
        self._forked = True
        self.mirror.forget_readers()

    async def _start(self) -> None:
        try:
            async with answered_within(self.settings.connect_timeout, self.endpoint.address):
                await self.subscription.connect()
                await self.synchroniser.synchronise()
        except CoordinatorUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                await self._undo_start()
                raise ServerUnsuitable(f"Redis at {self.endpoint.address} refuses: {error.__cause__}") from error
            if not self._degraded_ok:
                await self._undo_start()
                raise
            await self.subscription.aclose()
            self.condition.failed(error)
            self.condition.hears(False)
        except BaseException:
            await self._undo_start()
            raise
        if not self.endpoint.shared:
            logger.warning(
                "limits are kept in this process and shared with no other", extra={"address": self.endpoint.address}
            )
        self.state = "running"
        self._starting = None
        self._running = asyncio.create_task(self._run(), name="rate_coordinator")
        self.hub.start()

    async def _undo_start(self) -> None:
        self._starting = None
        if self.state == "starting":
            self.state = "new"
            self._loop = None
        await self.subscription.aclose()
        await self.store.aclose()
        await self.endpoint.aclose()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.outbox.run(), name="rate_coordinator outbox")
                tasks.create_task(self.subscription.run(), name="rate_coordinator subscription")
                tasks.create_task(self.dispenser.run(), name="rate_coordinator dispenser")
                tasks.create_task(self.prober.run(), name="rate_coordinator prober")
                tasks.create_task(self.spreader.run(), name="rate_coordinator spreader")
        finally:
            # Also when the event loop was shut down around it: nobody must wait for what will not come.
            await self._end()

    async def _close(self) -> None:
        if self._starting is not None:
            self.state = "closed"
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._running is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.command_timeout):
                    await self.outbox.drain()
            self.subscription.ending = self.outbox.ending = self.dispenser.ending = True
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._end()

    async def _end(self) -> None:
        self.state = "closed"
        self.condition.closed()
        self.mirror.forget_readers()
        if self.outbox.buffered:
            logger.warning("reports were never delivered", extra={"reports": self.outbox.buffered})
        self.outbox.abandon(self._closed_error)
        self.waiters.abandon(self._closed_error)
        self.dispenser.abandon(self._closed_error)
        await self.hub.aclose(spare=self._closer)
        await self.subscription.aclose()
        await self.store.aclose()
        await self.endpoint.aclose()

    def _closed_error(self) -> CoordinatorClosed:
        return CoordinatorClosed(f"the coordinator for {self.endpoint.address} is closed")

    def check_open(self) -> None:
        """Make sure that it can still be used.

        Raises:
            CoordinatorMisuse: It is closed, or belongs to another process.
        """
        if self._forked:
            raise ForkedCoordinator("a coordinator does not work in a forked child: make a new one there")
        if self.state == "closed":
            raise self._closed_error()

    def _check_usable(self) -> None:
        self.check_open()
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise WrongEventLoop(
                "a coordinator works only in the event loop in which it was started: make one for each"
            )


_engines: WeakSet[Engine] = WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


os.register_at_fork(after_in_child=_after_fork)
