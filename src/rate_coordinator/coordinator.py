"""What users hold: one object that reports, reads, waits and listens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

from rate_coordinator import clock
from rate_coordinator.arguments import Item, read_count, read_items, read_report, read_since
from rate_coordinator.calls import Calls
from rate_coordinator.connection import Endpoint
from rate_coordinator.engine import Engine
from rate_coordinator.eventlog import RECENT_SECONDS
from rate_coordinator.explain import describe_limits, explain
from rate_coordinator.holding import Holding
from rate_coordinator.keys import DEFAULT_NAMESPACE, Keys
from rate_coordinator.metering import Meter
from rate_coordinator.models import (
    ActiveLimit,
    Explanation,
    Health,
    RateLimitEvent,
    Reason,
    ReportResult,
)
from rate_coordinator.notices import NoticeCallback, NoticeHandle, NoticeStream
from rate_coordinator.observing import GUESS_SECONDS, UpstreamAnswer, check_guess, wait_of
from rate_coordinator.settings import Settings, check_timeout, default_reporter
from rate_coordinator.targets import Target
from rate_coordinator.waits import MAX_WAIT_SECONDS

AnyItem = TypeVar("AnyItem", bound=Item)

_CLEAR = (False, 0.0)


@runtime_checkable
class RateLimitChecker(Protocol):
    """What a scheduler needs to know: may this backend be called now?"""

    async def is_rate_limited(self, backend_type: str, model: str | None = None) -> tuple[bool, float]:
        """Return whether a backend is limited, and for how many seconds; ``(False, 0.0)`` when clear."""
        ...


class RateLimitCoordinator(Calls, Holding):
    """Shares with other processes what each learns about upstream rate limits.

    Made by ``from_url``. Use it as an async context manager, or call ``start`` and ``aclose``; the first use starts it
    if that has not been done. It belongs to one event loop and one process.

    Example:
        ```python
        async with RateLimitCoordinator.from_url("redis://localhost:6379") as coordinator:
            await coordinator.wait_until_clear("openai")
            ...
            await coordinator.report_rate_limit("openai", wait_seconds=30)
        ```
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self._engine = Engine(endpoint, settings)
        self._settings = settings
        self._until = self._engine.mirror.until
        self._model_until = self._engine.mirror.model_until

    @classmethod
    def from_url(
        cls,
        url: str,
        namespace: str = DEFAULT_NAMESPACE,
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
        """Make a coordinator. Nothing is connected yet.

        Args:
            url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://…`` (TLS), ``unix:///path[?db=0]``, each
                with redis-py's options in the query; ``redis+sentinel://[user:password@]host:port,host:port/service[/db]``
                (with ``sentinel_username`` and ``sentinel_password`` in the query if need be) and
                ``redis+cluster://[user:password@]host:port,host:port``, or ``rediss+…`` for TLS; ``memory://`` for this
                process alone, ``memory://name`` shared by the coordinators of this process that use the same name.
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
            reporter: The name under which this coordinator appears in events; ``<host>:<process ID>`` if left out.

        Raises:
            ValueError: An argument cannot be used.
            ModuleNotFoundError: ``memory://`` without the extra ``embedded``.
        """
        settings = Settings(
            namespace=namespace,
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
            reporter=default_reporter() if reporter is None else reporter,
        )
        endpoint = Endpoint.from_url(
            url, Keys(namespace), connect_timeout=connect_timeout, command_timeout=command_timeout
        )
        return cls(endpoint, settings)

    def __repr__(self) -> str:
        return f"<RateLimitCoordinator {self.address} namespace={self._settings.namespace!r} {self.health.state}>"

    async def __aenter__(self) -> Self:
        """Start it."""
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def start(self, *, degraded_ok: bool = False) -> None:
        """Connect, subscribe and read the limits that are active. Does nothing if that has been done.

        Args:
            degraded_ok: Start even if Redis cannot be reached, and connect as soon as it can.

        Raises:
            CoordinatorUnavailable: Redis could not be reached within the connect timeout.
            ServerUnsuitable: The server is too old, or refuses a command that is needed.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        await self._engine.start(degraded_ok=degraded_ok)

    async def aclose(self) -> None:
        """Send what is queued, then end everything; those who wait get ``CoordinatorClosed``. Safe to call twice.

        Raises:
            CoordinatorMisuse: It belongs to another event loop or process.
        """
        await self._engine.aclose()

    async def report_rate_limit(
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
        delivered later, shortened by the time that has passed; a caller who is cancelled does not take it back.

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
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        cap = self._settings.max_wait_seconds
        target = Target.of(backend_type, model)
        report = read_report(target, wait_seconds, cap, job_id, sheet_num, reason, sent_at)
        await self._engine.ready()
        return await self._engine.report(report)

    async def observe(
        self,
        backend: str,
        answer: UpstreamAnswer,
        job_id: str | None = None,
        sheet_num: int | None = None,
        *,
        model: str | None = None,
        guess_seconds: float = GUESS_SECONDS,
        sent_at: float | None = None,
    ) -> ReportResult | None:
        """Heed what an upstream answered to a call that was not admitted here.

        A refusal is reported. Where the answer says that too few calls are left until a limit is whole again, all calls
        that the fleet admits are slowed down before they are refused: what is left is spread over that time. That is
        when 32 or fewer are left; or when half of what was seen is gone, and the rest would not last at the rate at
        which it goes. It holds for at most an hour, and for limits that count calls, not tokens.

        A call that was admitted has the same by ``call.observe``, which knows more.

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
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        target = Target.of(backend, model)
        guess = check_guess(guess_seconds)
        if not answer.limited:
            await self._engine.ready()
            await self._engine.spreader.observe(target, answer)
            return None
        wait, reason = wait_of(answer, guess), answer.reason or "rate_limit"
        return await self.report_rate_limit(
            backend, wait, job_id, sheet_num, model=model, reason=reason, sent_at=sent_at
        )

    async def is_rate_limited(self, backend_type: str, model: str | None = None) -> tuple[bool, float]:
        """Return whether a backend is limited, and for how many seconds; ``(False, 0.0)`` when clear.

        Answered from memory, without touching the network: a dictionary look-up and a clock reading.

        Args:
            backend_type: The upstream.
            model: One model of it; the backend's own limit counts as well.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: This was the first use, and it could not be started.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        try:
            until = self._until[backend_type]
            if model is not None:
                until = max(until, self._model_until[backend_type, model])
        except (KeyError, TypeError):
            until = await self._first_read(backend_type, model)
        if until:
            remaining = until - clock.now()
            if remaining > 0.0:
                return True, remaining
        return _CLEAR

    @property
    def active_limits(self) -> dict[str, float]:
        """Seconds remaining of every active limit, by ``"backend"`` or ``"backend/model"``. From memory."""
        now = clock.now()
        return {str(target): deadline - now for target, deadline, _ in self._engine.mirror.active(now)}

    @property
    def limits(self) -> tuple[ActiveLimit, ...]:
        """Every active limit with who set it, the longest first. From memory."""
        return describe_limits(self._engine.mirror, self._engine.server_now_ms(), clock.now())

    @property
    def recent_events(self) -> list[RateLimitEvent]:
        """The reports of the last hour, newest first. From memory.

        A report of another process that extended nothing is told by no notice; it appears with the next
        re-synchronisation.
        """
        return self._engine.log.recent(self._engine.server_now_ms())

    async def clear_limits(self, instrument: str | None = None, *, model: str | None = None) -> int:
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
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        if instrument is not None:
            Target.of(instrument, model)
        elif model is not None:
            raise ValueError(f"model {model!r:.80} needs the backend that it belongs to")
        await self._engine.ready()
        return await self._engine.clear(instrument, model)

    async def prune_stale(self) -> int:
        """Remove events that are older than an hour, except those that explain an active limit.

        Returns:
            How many events were removed.

        Raises:
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        await self._engine.ready()
        return await self._engine.store.prune(RECENT_SECONDS)

    async def wait_until_clear(self, backend: str, model: str | None = None, timeout: float | None = None) -> float:
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
            CoordinatorMisuse: It is closed, also while waiting, or belongs to another event loop or process.
        """
        began = clock.now()
        targets = [Target.of(backend, model)]
        gives_up_at = _gives_up_at(began, timeout)
        await self._engine.ready()
        _, waited = await self._engine.wait(targets, began, gives_up_at)
        return waited

    async def wait_until_any_clear(self, backends: Sequence[AnyItem], timeout: float | None = None) -> AnyItem:
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
            CoordinatorMisuse: It is closed, also while waiting, or belongs to another event loop or process.
        """
        began = clock.now()
        gives_up_at = _gives_up_at(began, timeout)
        items = {target: item for target, item in reversed([*zip(read_items(backends), backends, strict=True)])}
        await self._engine.ready()
        cleared, _ = await self._engine.wait(list(reversed(items)), began, gives_up_at)
        return items[cleared]

    def notices(self) -> NoticeStream:
        """Listen to every change that any process makes, from this call on: ``async for notice in c.notices()``.

        The stream keeps a bounded number of notices for a slow reader and then drops the oldest; it counts those in
        its ``dropped``. It ends when the coordinator is closed.

        Raises:
            CoordinatorMisuse: It is closed, or belongs to another process.
        """
        self._engine.check_open()
        return self._engine.hub.stream(self._engine.ready)

    def on_notice(self, callback: NoticeCallback) -> NoticeHandle:
        """Call a function with every change that any process makes, from this call on.

        Each callback gets its notices in order, one after the other. One that raises is logged and goes on with the
        next; a slow one loses the oldest of what it has not taken. The coordinator has to be started for it.

        Args:
            callback: A plain or an async function of one notice.

        Returns:
            A handle whose ``cancel()`` ends it.

        Raises:
            ValueError: ``callback`` is not callable.
            CoordinatorMisuse: It is closed, or belongs to another process.
        """
        self._engine.check_open()
        return self._engine.hub.add(callback)

    def add_meter(self, meter: Meter) -> None:
        """Tell a meter of every wait, report and change from now on, at once and without losing any.

        ``rate_coordinator.integrations`` has those for Prometheus and OpenTelemetry. Without any, nothing is told and
        nothing paid.

        Args:
            meter: Counts; see there. One that was added before is told once.
        """
        self._engine.meters.add(meter)

    def remove_meter(self, meter: Meter) -> None:
        """Tell a meter nothing more; does nothing if it was not added."""
        self._engine.meters.remove(meter)

    async def events(
        self, since: datetime | timedelta | float | str | None = None, count: int | None = None
    ) -> list[RateLimitEvent]:
        """Read reports and clears from the stream, newest first.

        All that is asked for has to arrive within the command timeout: ask for less of a very long stream.

        Args:
            since: Only those from this timezone-aware time on, from so many seconds back on, or after the event of
                this ID; None reads from the beginning of the stream.
            count: At most so many of the newest; None reads all.

        Raises:
            ValueError: An argument cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        count = read_count(count)
        await self._engine.ready()
        oldest = read_since(since, self._engine.server_now_ms())
        async with self._engine.bounded():
            return await self._engine.synchroniser.read_events(oldest, count)

    async def explain(self, backend: str, model: str | None = None) -> Explanation:
        """Tell where a backend's present limit comes from: which report set its resume time, and what came before.

        Args:
            backend: The upstream.
            model: One model of it; the backend's own limit counts as well.

        Raises:
            ValueError: A name cannot be used.
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        target = Target.of(backend, model)
        await self._engine.ready()
        async with self._engine.bounded():
            await self._engine.synchroniser.refresh()
            events = await self._engine.synchroniser.read_events("-", None)
        return explain(self._engine.mirror, target, events, clock.now())

    async def refresh(self) -> None:
        """Compare the mirror with Redis now; on return it shows what Redis held at some moment of this call.

        Raises:
            CoordinatorUnavailable: Redis is away.
            CoordinatorMisuse: It is closed, or belongs to another event loop or process.
        """
        await self._engine.ready()
        async with self._engine.bounded():
            await self._engine.synchroniser.refresh()

    @property
    def health(self) -> Health:
        """How it is doing. From memory, and never raises."""
        return self._engine.health()

    @property
    def address(self) -> str:
        """Where Redis is, without user and password."""
        return self._engine.endpoint.address

    async def _first_read(self, backend: str, model: str | None) -> float:
        """Check what the read path leaves out, and let it answer for this name from now on."""
        target = Target.of(backend, model)
        await self._engine.ready()
        self._engine.mirror.track(target)
        return self._engine.mirror.lifts_at(target)


def _gives_up_at(began: float, timeout: object) -> float | None:
    seconds = check_timeout(timeout)
    return None if seconds is None else began + seconds
