"""Hands out turns in this process: first come first served, asked of Redis in small batches.

Where a pace is remembered, calls wait here after their back-off. One task for each such target asks for as many turns
as there are calls that wait (a batch costs one round trip), and hands each on when it is due. A turn that nobody takes
any more goes to the next who waits, or back to Redis. When Redis is away, each process goes on alone at its share.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rate_coordinator import clock, timers
from rate_coordinator.errors import CoordinatorError, LimitWaitTimeout
from rate_coordinator.mirror import Mirror
from rate_coordinator.models import PaceStatus
from rate_coordinator.store import Store
from rate_coordinator.targets import Target
from rate_coordinator.turns import Paces, Tally, Turn, TurnRequest, Turns

logger = logging.getLogger(__name__)

MOST_TURNS = 1000
"""More are never asked for at once."""
PATIENCE_SECONDS = 1.0
"""So long may an answer take; then this process goes on alone."""
MOST_LANES = 10_000
"""Of more targets, those are forgotten that nobody calls at a pace."""
ALONE_RATE = 1.0
"""Calls per second of a process that is alone and has never been told a pace."""
RECENT_SECONDS = 10.0
"""Over how long the calls that were admitted per second are counted."""
TALLY_SECONDS = 60.0
"""What was served longer ago counts less and less: it is halved each time."""


@dataclass(slots=True, order=True)
class _Waiter:
    priority: float
    order: int
    future: asyncio.Future[Turn] = field(compare=False)


def describe_paces(paces: Paces, dispenser: Dispenser, at: float) -> tuple[PaceStatus, ...]:
    """Return every pace that is remembered at a moment, by name."""
    return tuple(
        PaceStatus(
            backend=target.backend,
            model=target.model,
            rate=pace.rate,
            ceiling=pace.ceiling,
            forgets_seconds=pace.forgotten_at - at,
            waiting=dispenser.waiting(target),
            admitted_per_second=dispenser.admitted_per_second(target),
            fleet_per_second=pace.fleet_rate,
            processes=pace.processes,
            alone=dispenser.alone(target),
        )
        for target, pace in sorted(paces.active(at), key=lambda item: str(item[0]))
    )


class _Lane:
    """All calls of one target in this process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.waiters: list[_Waiter] = []
        self.unused = 0
        self.unused_epoch = 0
        self.tally: Tally | None = None
        self.tell = False
        """Whether what was served has to be told although nobody waits."""
        self.serving: asyncio.Task[None] | None = None
        self.news = asyncio.Event()
        self.alone = False
        self.next_alone = 0.0
        self.admitted: deque[float] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait for a turn."""
        return sum(not waiter.future.done() for waiter in self.waiters)

    def leave(self, turns: int, epoch: int) -> None:
        """Keep turns that nobody took, to be given back; those of an earlier epoch are worth nothing any more."""
        self.unused = turns + (self.unused if epoch == self.unused_epoch else 0)
        self.unused_epoch = epoch

    def hand_out(self, turn: Turn) -> bool:
        """Give a turn to whoever is first; return whether there is anybody."""
        while self.waiters:
            waiter = heapq.heappop(self.waiters)
            if not waiter.future.done():
                waiter.future.set_result(turn)
                return True
        return False

    def count_admitted(self, now: float) -> None:
        """Remember a call for ``admitted_per_second``."""
        self.admitted.append(now)
        while self.admitted[0] < now - RECENT_SECONDS:
            self.admitted.popleft()

    def admitted_per_second(self, now: float) -> float:
        """Return how many calls were admitted per second lately."""
        # Copied whole: another thread may be reading.
        return sum(at >= now - RECENT_SECONDS for at in self.admitted.copy()) / RECENT_SECONDS


class Dispenser:
    """Turns for all targets with a pace.

    Args:
        store: Where they come from.
        paces: What is known of each pace; learns from every answer.
        mirror: Nothing is handed out while its target is limited.
        is_away: Tells whether Redis is known to be away.
    """

    def __init__(self, store: Store, paces: Paces, mirror: Mirror, is_away: Callable[[], bool]) -> None:
        self.ending = False
        """Set before it is cancelled, so that what fails in that moment is not tried again."""
        self._store = store
        self._paces = paces
        self._mirror = mirror
        self._is_away = is_away
        self._lanes: dict[Target, _Lane] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the tasks that ask for turns, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await asyncio.get_running_loop().create_future()

    async def turn(self, target: Target, priority: float, order: int, gives_up_at: float | None) -> Turn:
        """Wait for a turn.

        Args:
            target: With a pace.
            priority: Who has a lower one goes first.
            order: Among the same, the lower one goes first.
            gives_up_at: Until when, on this process's clock.

        Returns:
            The turn.

        Raises:
            LimitWaitTimeout: No turn came in time.
        """
        lane = self._lane(target)
        waiter = _Waiter(priority, order, asyncio.get_running_loop().create_future())
        heapq.heappush(lane.waiters, waiter)
        self._serve(lane)
        timeout = None if gives_up_at is None else max(0.0, gives_up_at - clock.now())
        try:
            async with timers.timeout(timeout):
                turn = await waiter.future
        except BaseException as error:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.give_back(target, waiter.future.result())
            waiter.future.cancel()
            if isinstance(error, TimeoutError) and timeout is not None:
                raise LimitWaitTimeout(f"{target}: no turn came within the timeout") from None
            raise
        lane.count_admitted(clock.now())
        return turn

    def give_back(self, target: Target, turn: Turn) -> None:
        """A turn that was handed out will not be used: the next one who waits has it."""
        lane = self._lane(target)
        if not lane.hand_out(turn):
            lane.leave(1, turn.epoch)
            self._serve(lane)

    def served(self, target: Target) -> None:
        """A call was served."""
        lane = self._lanes.get(target) or self._lane(target)
        now = clock.now()
        if lane.tally is None:
            lane.tally = Tally(now)
        elif now - lane.tally.since > TALLY_SECONDS:
            lane.tally.since += (now - lane.tally.since) / 2
            lane.tally.served //= 2
        lane.tally.served += 1

    def limited(self, target: Target) -> None:
        """A target was limited: what it served before is needed for learning its pace."""
        lane = self._lanes.get(target)
        if lane is not None:
            lane.tell = lane.tally is not None
            self._serve(lane)
            lane.news.set()

    def changed(self, targets: set[Target]) -> None:
        """Something about these targets is different: whoever waits for turns asks again."""
        for target in targets:
            lane = self._lanes.get(target)
            if lane is not None:
                lane.news.set()

    def abandon(self, make_error: Callable[[], Exception]) -> None:
        """Tell everyone who waits that no turn will come any more."""
        for lane in self._lanes.values():
            for waiter in lane.waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(make_error())

    def waiting(self, target: Target) -> int:
        """Return how many calls of a target wait for their turn."""
        lane = self._lanes.get(target)
        return lane.waiting if lane else 0

    def admitted_per_second(self, target: Target) -> float:
        """Return how many calls of a target were admitted per second lately, by this process."""
        lane = self._lanes.get(target)
        return lane.admitted_per_second(clock.now()) if lane else 0.0

    def alone(self, target: Target) -> bool:
        """Tell whether this process takes its turns by itself, because Redis is away."""
        lane = self._lanes.get(target)
        return lane.alone if lane else False

    def _lane(self, target: Target) -> _Lane:
        lane = self._lanes.get(target)
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                self._drop_idle()
            lane = self._lanes[target] = _Lane(target)
        return lane

    def _drop_idle(self) -> None:
        now = clock.now()
        for target, lane in list(self._lanes.items()):
            if lane.serving is None and not lane.waiters and not self._paces.remembered(target, now):
                del self._lanes[target]

    def _serve(self, lane: _Lane) -> None:
        if lane.serving is None and self._tasks is not None:
            lane.serving = self._tasks.create_task(self._keep_serving(lane), name=f"rate_coordinator {lane.target}")

    async def _keep_serving(self, lane: _Lane) -> None:
        try:
            while lane.waiting or ((lane.unused or lane.tell) and not self._is_away()):
                lane.news.clear()
                turns, received_at = await self._ask(lane)
                if turns is None:
                    while lane.hand_out(Turn(self._epoch(lane.target))):
                        pass
                elif turns.granted:
                    await self._hand_out(lane, turns, received_at)
                elif lane.waiting:
                    await self._pause(lane, received_at + turns.first_seconds)
        finally:
            lane.serving = None

    async def _ask(self, lane: _Lane) -> tuple[Turns | None, float]:
        """Ask Redis; None where there is no pace (any more)."""
        if self._is_away():
            return self._go_alone(lane)
        now = clock.now()
        tally, lane.tally, lane.tell = lane.tally, None, False
        unused, lane.unused = lane.unused, 0
        served_ms = int((now - tally.since) * 1000) if tally else 0
        served = tally.served if tally else 0
        request = TurnRequest(min(lane.waiting, MOST_TURNS), unused, lane.unused_epoch, served, served_ms)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                turns = await self._store.take_turns(lane.target, request)
        except Exception as error:
            if self.ending:
                raise asyncio.CancelledError from error
            # Whatever it is, it must not hold up those who wait.
            foreseen = isinstance(error, (CoordinatorError, TimeoutError))
            level = logging.DEBUG if foreseen or lane.alone else logging.ERROR
            logger.log(level, "no turns from Redis; going on alone", extra={"target": str(lane.target)}, exc_info=error)
            return self._go_alone(lane)
        lane.alone = False
        received_at = clock.now()
        if turns is not None and not turns.epoch and tally is not None:
            # Nobody was refused yet: what was served before the first refusal is told with it.
            tally.served += lane.tally.served if lane.tally else 0  # type: ignore[redundant-expr]
            lane.tally = tally
        if turns is None:
            self._paces.forget(lane.target)
        else:
            self._paces.learn(lane.target, turns, received_at)
        return turns, received_at

    def _go_alone(self, lane: _Lane) -> tuple[Turns | None, float]:
        """Take a turn at this process's share of the last known pace."""
        lane.alone = True
        lane.unused, lane.tell = 0, False
        now = clock.now()
        pace = self._paces.get(lane.target)
        if pace is None or pace.forgotten_at <= now:
            return None, now
        rate = pace.rate / pace.processes if pace.rate else ALONE_RATE
        due = max(lane.next_alone, now, self._mirror.lifts_at(lane.target))
        lane.next_alone = due + 1 / rate
        left = pace.forgotten_at - now
        return Turns(pace.epoch, 1, due - now, 1 / rate, pace.rate, pace.ceiling, left, pace.processes), now

    async def _hand_out(self, lane: _Lane, turns: Turns, received_at: float) -> None:
        for number in range(turns.granted):
            due = received_at + turns.first_seconds + number * turns.spacing_seconds
            await self._pause(lane, due)
            if clock.now() < due or not lane.hand_out(Turn(turns.epoch, turns.probe_ms)):
                # What comes next is not wanted by anybody, or belongs to the time before a refusal.
                lane.leave(turns.granted - number, turns.epoch)
                return

    async def _pause(self, lane: _Lane, until: float) -> None:
        """Wait until a moment, or until something is different."""
        seconds = until - clock.now()
        if seconds > 0:
            try:
                async with timers.timeout(seconds):
                    await lane.news.wait()
            except TimeoutError:
                return

    def _epoch(self, target: Target) -> int:
        pace = self._paces.get(target)
        return pace.epoch if pace else 0
