"""What users hold who do not await."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import rate_coordinator
from rate_coordinator import (
    MAX_WAIT_SECONDS,
    ActiveLimit,
    Explanation,
    Health,
    Meter,
    RateLimitEvent,
    Reason,
    ReportResult,
    UpstreamAnswer,
)
from rate_coordinator.sync.calls import Calls
from rate_coordinator.sync.holding import Holding
from rate_coordinator.sync.home import Home
from rate_coordinator.sync.notices import NoticeCallback, NoticeHandle, NoticeStream

AnyItem = TypeVar("AnyItem", bound=str | tuple[str, str | None])


class RateLimitCoordinator(Calls, Holding):
    """``rate_coordinator.RateLimitCoordinator`` for code that does not await: the same names, for any thread.

    Made by ``from_url``. Use it as a context manager, or call ``start`` and ``close``; the first use starts it if that
    has not been done, and what is still open when the interpreter ends is closed then. The async coordinator lives in a
    thread of its own; reads are answered from memory in the caller's.

    A child that is forked opens it afresh with its first use, with the same settings, hints and callbacks; the parent
    goes on undisturbed. A thread that is interrupted while it waits takes back what it waits for. In a thread that runs
    an event loop use the async one: what waits here blocks that loop, which is logged once.

    Example:
        ```python
        with RateLimitCoordinator.from_url("redis://localhost:6379") as coordinator:
            coordinator.wait_until_clear("openai")
            ...
            coordinator.report_rate_limit("openai", wait_seconds=30)
        ```
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    @classmethod
    def from_url(
        cls,
        url: str,
        namespace: str = "rate_coordinator",
        *,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        connect_timeout: float = 5.0,
        command_timeout: float = 5.0,
        ping_interval: float = 2.0,
        ping_timeout: float = 5.0,
        resync_interval: float = 10.0,
        wake_margin_seconds: float = 0.0,
        wake_jitter_seconds: float = 0.0,
        max_events: int = 10_000,
        notice_buffer: int = 1024,
        max_buffered_reports: int = 10_000,
        forget_after: float = 900.0,
        verify_every: float = 900.0,
        reporter: str | None = None,
    ) -> Self:
        """Make a coordinator. Nothing is connected yet, and no thread is started.

        Args:
            url: As for the async one: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``,
                ``redis+cluster://``, ``memory://``.
            namespace: Coordinators share limits with those of the same namespace on the same Redis.
            max_wait_seconds: The cap: longer waits count as this. Seconds, above 0, at most 366 days.
            connect_timeout: Longest time that ``start`` takes, in seconds.
            command_timeout: Longest time that any other call takes that talks to Redis, in seconds.
            ping_interval: How often the subscription asks whether its connection is alive, in seconds.
            ping_timeout: How long silence may last after that before the connection counts as dead, in seconds.
            resync_interval: How often the mirror is compared with Redis, whatever was heard, in seconds (±25 %).
            wake_margin_seconds: Added to every waking: waiters are released so much after the resume time.
            wake_jitter_seconds: A random time of up to this is added as well.
            max_events: Approximate length of the stream of events, and most that ``recent_events`` holds.
            notice_buffer: Notices that are kept for each slow consumer before the oldest are dropped.
            max_buffered_reports: Reports that are kept while Redis is away.
            forget_after: After so long without a refusal, in seconds, the pace of a target is forgotten.
            verify_every: A limit that lasts longer than this, in seconds, or that was cut to the cap, is tried so often
                by one call of the whole fleet that waits in ``admit``; 0 tries none.
            reporter: The name under which this coordinator appears in events; ``<host>:<process ID>`` if left out,
                that of the child in a forked one.

        Raises:
            ValueError: An argument cannot be used.
            ModuleNotFoundError: ``memory://`` without the extra ``embedded``.
        """
        make = partial(
            rate_coordinator.RateLimitCoordinator.from_url,
            url,
            namespace,
            max_wait_seconds=max_wait_seconds,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            resync_interval=resync_interval,
            wake_margin_seconds=wake_margin_seconds,
            wake_jitter_seconds=wake_jitter_seconds,
            max_events=max_events,
            notice_buffer=notice_buffer,
            max_buffered_reports=max_buffered_reports,
            forget_after=forget_after,
            verify_every=verify_every,
            reporter=reporter,
        )
        return cls(Home(make, command_timeout))

    def __repr__(self) -> str:
        health = self.health
        return f"<sync.RateLimitCoordinator {health.address} namespace={health.namespace!r} {health.state}>"

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def start(self, *, degraded_ok: bool = False) -> None:
        """Connect, subscribe and read the limits that are active. Does nothing if that has been done.

        Args:
            degraded_ok: Start even if Redis cannot be reached, and connect as soon as it can.

        Raises:
            CoordinatorUnavailable: Redis could not be reached within the connect timeout.
            ServerUnsuitable: The server is too old, or refuses a command that is needed.
            CoordinatorMisuse: It is closed.
        """
        self._home.run(lambda inner: inner.start(degraded_ok=degraded_ok))

    def close(self) -> None:
        """Send what is queued, then end everything; those who wait get ``CoordinatorClosed``. Safe to call twice.

        It takes at most ``command_timeout`` and 6 seconds. In a forked child it closes the child's own.

        Raises:
            CoordinatorMisuse: It was called in the coordinator's own thread.
        """
        self._home.close()

    def report_rate_limit(
        self,
        backend_type: str,
        wait_seconds: float,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        model: str | None = None,
        reason: Reason = "rate_limit",
        sent_at: float | None = None,
    ) -> ReportResult:
        """Tell everyone that an upstream refused, and how long to leave it alone.

        The limit of a target only ever grows by this: the later of the known and the reported resume time counts.
        On return, this process's reads show it. While Redis is away, the report counts in this process alone and is
        delivered later; a caller who is interrupted does not take it back.

        Args:
            backend_type: The upstream.
            wait_seconds: How long to wait, in seconds. NaN and infinities count as 0 with a warning, negative
                numbers as 0, more than the cap as the cap. A wait of 0 is recorded but limits nothing.
            job_id: Whose work was refused, if there is such a thing; at most 1024 characters.
            sheet_num: Which part of it, a 64-bit integer.
            model: Only this model of the upstream is limited.
            reason: ``"rate_limit"``, ``"overloaded"`` or ``"quota"``.
            sent_at: When the refused call was sent, as told by ``time.monotonic()``.

        Returns:
            What became of it; ``delivered`` is False when Redis could not be reached.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(
            lambda inner: inner.report_rate_limit(
                backend_type, wait_seconds, job_id, sheet_num, model=model, reason=reason, sent_at=sent_at
            )
        )

    def observe(
        self,
        backend: str,
        answer: UpstreamAnswer,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        model: str | None = None,
        guess_seconds: float = 5.0,
        sent_at: float | None = None,
    ) -> ReportResult | None:
        """Heed what an upstream answered to a call that was not admitted here.

        A refusal is reported. Where the answer says that too few calls are left until a limit is whole again, all calls
        that the fleet admits are slowed down before they are refused: what is left is spread over that time. That is
        when 32 or fewer are left; or when half of what was seen is gone, and the rest would not last at the rate at
        which it goes. It holds for at most an hour, and for limits that count calls, not tokens.

        Args:
            backend: The upstream.
            answer: What it said; ``rate_coordinator.answers`` reads it.
            job_id: See ``report_rate_limit``.
            sheet_num: See ``report_rate_limit``.
            model: See ``report_rate_limit``.
            guess_seconds: How long to wait after a refusal that tells no wait, in seconds. Where an allowance is used
                up and nothing tells when it comes back, it is at least 15 minutes.
            sent_at: See ``report_rate_limit``.

        Returns:
            What became of the report; None where the call was not refused.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(
            lambda inner: inner.observe(
                backend, answer, job_id, sheet_num, model=model, guess_seconds=guess_seconds, sent_at=sent_at
            )
        )

    def is_rate_limited(self, backend_type: str, model: str | None = None) -> tuple[bool, float]:
        """Return whether a backend is limited, and for how many seconds; ``(False, 0.0)`` when clear.

        Answered from memory in the caller's thread; only the first read of a name asks the coordinator's.

        Args:
            backend_type: The upstream.
            model: One model of it; the backend's own limit counts as well.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed.
        """
        try:
            # What is known is answered without waiting for anything, so that no event loop is needed for it.
            self._home.known(backend_type, model).send(None)
        except StopIteration as answered:
            known: tuple[bool, float] = answered.value
            return known
        except RuntimeError:
            # Anything else looks for the coordinator's event loop, and this is not its thread.
            pass
        return self._home.run(lambda inner: inner.is_rate_limited(backend_type, model), blocks=not self._home.started)

    @property
    def active_limits(self) -> dict[str, float]:
        """Seconds remaining of every active limit, by ``"backend"`` or ``"backend/model"``. From memory."""
        return self._home.room.coordinator.active_limits

    @property
    def limits(self) -> tuple[ActiveLimit, ...]:
        """Every active limit with who set it, the longest first. From memory."""
        return self._home.room.coordinator.limits

    @property
    def recent_events(self) -> list[RateLimitEvent]:
        """The reports of the last hour, newest first. From memory.

        A report of another process that extended nothing is told by no notice; it appears with the next
        re-synchronisation.
        """
        return self._home.room.coordinator.recent_events

    def clear_limits(self, instrument: str | None = None, *, model: str | None = None) -> int:
        """Lift limits now, for everyone, and forget the pace that was learned. Events are kept.

        What is held by hand stays held, until its end or ``release``; of that, what reports asked for is lifted.

        Args:
            instrument: The backend, with all its models; None lifts every limit.
            model: Lift only this model's limit.

        Returns:
            How many limits were lifted; a hold is none of them.

        Raises:
            ValueError: A name cannot be used, or a model is given without a backend.
            CoordinatorUnavailable: Redis is away; nothing can be said about what was lifted.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.clear_limits(instrument, model=model))

    def prune_stale(self) -> int:
        """Remove events that are older than an hour, except those that explain an active limit.

        Returns:
            How many events were removed.

        Raises:
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.prune_stale())

    def wait_until_clear(self, backend: str, model: str | None = None, timeout: float | None = None) -> float:
        """Wait until a backend may be called again.

        Returns at once when no limit is active. It is never woken before the resume time, unless the limit is
        cleared, and waits on when the limit is extended meanwhile.

        Args:
            backend: Name of the upstream, as used in reports.
            model: Narrow the wait to one model of it; the backend's own limit counts as well.
            timeout: Longest wait in seconds; ``None`` waits as long as the limit lasts.

        Returns:
            Seconds spent waiting; 0.0 when it was clear.

        Raises:
            LimitWaitTimeout: The limit outlasts ``timeout``. Raised at once when that is already known.
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed, also while waiting.
        """
        return self._home.run(lambda inner: inner.wait_until_clear(backend, model, timeout))

    def wait_until_any_clear(self, backends: Sequence[AnyItem], timeout: float | None = None) -> AnyItem:
        """Wait until the first of several backends may be called: for falling back from one provider to another.

        Args:
            backends: Names, or pairs of backend and model. Where several are clear, the earliest in the list wins.
            timeout: Longest wait in seconds; ``None`` waits as long as it takes.

        Returns:
            The item of ``backends`` that may be called.

        Raises:
            LimitWaitTimeout: All of them outlast ``timeout``. Raised at once when that is already known.
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed, also while waiting.
        """
        return self._home.run(lambda inner: inner.wait_until_any_clear(backends, timeout))

    def notices(self) -> NoticeStream:
        """Listen to every change that any process makes, from this call on: ``for notice in c.notices()``.

        The stream keeps a bounded number of notices for a slow reader and then drops the oldest; it counts those in
        its ``dropped``. It ends when it or the coordinator is closed. In a forked child, make a new one.

        Raises:
            CoordinatorMisuse: It is closed.
        """
        coordinator, portal = self._home.open()
        return NoticeStream(portal, portal.apply(coordinator.notices))

    def on_notice(self, callback: NoticeCallback) -> NoticeHandle:
        """Call a function with every change that any process makes, from this call on.

        Each callback gets its notices in order, one after the other, in a thread that is nobody else's: it may block
        and use the coordinator. One that raises is logged and goes on with the next; a slow one loses the oldest of
        what it has not taken. The coordinator has to be started for it. A forked child calls it as well, once it has
        opened its own.

        Args:
            callback: A plain function of one notice.

        Returns:
            A handle whose ``cancel()`` ends it.

        Raises:
            ValueError: ``callback`` is no plain function.
            CoordinatorMisuse: It is closed.
        """
        handle = NoticeHandle(callback)
        self._home.listen(handle)
        return handle

    def add_meter(self, meter: Meter) -> None:
        """Tell a meter of every wait, report and change from now on, at once and without losing any.

        ``rate_coordinator.integrations`` has those for Prometheus and OpenTelemetry. A forked child tells its copy of
        the meter, once it has opened its own.

        Args:
            meter: Counts; see there. It is called in a thread that is not the caller's.
        """
        self._home.add_meter(meter)

    def remove_meter(self, meter: Meter) -> None:
        """Tell a meter nothing more; does nothing if it was not added."""
        self._home.remove_meter(meter)

    def events(
        self, since: datetime | timedelta | float | str | None = None, count: int | None = None
    ) -> list[RateLimitEvent]:
        """Read reports and clears from the stream, newest first.

        Args:
            since: Only those from this timezone-aware time on, from so many seconds back on, or after the event of
                this ID; None reads from the beginning of the stream.
            count: At most so many of the newest; None reads all.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.events(since, count))

    def explain(self, backend: str, model: str | None = None) -> Explanation:
        """Tell where a backend's present limit comes from: which report set its resume time, and what came before.

        Args:
            backend: The upstream.
            model: One model of it; the backend's own limit counts as well.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        return self._home.run(lambda inner: inner.explain(backend, model))

    def refresh(self) -> None:
        """Compare the mirror with Redis now; on return it shows what Redis held at some moment of this call.

        Raises:
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed.
        """
        self._home.run(lambda inner: inner.refresh())

    @property
    def health(self) -> Health:
        """How it is doing. From memory, and never raises."""
        told = self._home.room.coordinator.health
        return told.model_copy(update={"state": "closed"}) if self._home.closed else told

    @property
    def address(self) -> str:
        """Where Redis is, without user and password."""
        return self._home.room.coordinator.address
