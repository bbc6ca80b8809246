"""Who waits for what, with one timer per target.

A waiter with a timeout needs no timer of its own: it stays only while the target's lift is known to come before its
timeout runs out, and is told at once when an extension changes that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rate_coordinator import clock, timers
from rate_coordinator.errors import LimitWaitTimeout
from rate_coordinator.mirror import Mirror
from rate_coordinator.targets import Target


@dataclass(slots=True, eq=False)
class _Waiter:
    """One task that waits for the first of some targets."""

    targets: Sequence[Target]
    future: asyncio.Future[Target]
    gives_up_at: float | None


@dataclass(slots=True, eq=False)
class _Group:
    """All waiters of one target."""

    target: Target
    jitter: float
    timer_at: float
    timer: timers.Timer | None = None
    waiters: dict[_Waiter, None] = field(default_factory=dict)


class Waiters:
    """Holds tasks until their targets are clear.

    Args:
        mirror: Says when a target lifts.
        margin: Seconds added to every waking.
        jitter: Up to so many seconds more, drawn anew for each target whenever somebody begins to wait for it.
        draw: Returns a random number from 0 to 1.
    """

    def __init__(
        self, mirror: Mirror, margin: float = 0.0, jitter: float = 0.0, draw: Callable[[], float] = random.random
    ) -> None:
        self._mirror = mirror
        self._margin = margin
        self._jitter = jitter
        self._draw = draw
        self._groups: dict[Target, _Group] = {}
        self._by_backend: dict[str, set[Target]] = {}

    def __len__(self) -> int:
        """Return how many targets are waited for."""
        return len(self._groups)

    def clear_now(self, targets: Sequence[Target]) -> Target | None:
        """Return the first target that may be called, and for which nobody is still held; else None."""
        now = clock.now()
        for target in targets:
            if target not in self._groups and self._mirror.lifts_at(target) <= now:
                return target
        return None

    async def wait(self, targets: Sequence[Target], gives_up_at: float | None) -> Target:
        """Wait until the first of some targets may be called.

        Args:
            targets: At least one; earlier ones are preferred where several are clear.
            gives_up_at: Until when, on this process's clock; None waits as long as it takes.

        Returns:
            The target that became clear.

        Raises:
            LimitWaitTimeout: All of them last longer; raised as soon as that is known.
        """
        while True:
            clear = self.clear_now(targets)
            if clear is not None:
                return clear
            waiter = _Waiter(targets, asyncio.get_running_loop().create_future(), gives_up_at)
            self._join(waiter)
            try:
                released = await waiter.future
            finally:
                self._leave(waiter)
            # A limit may have come back between the release and this task's turn.
            if self._mirror.lifts_at(released) <= clock.now():
                return released

    def wake_due(self) -> None:
        """Release whoever is due by this process's clock: the event loop's stands still while a machine sleeps."""
        now = clock.now()
        for group in [group for group in self._groups.values() if group.timer_at <= now]:
            if group.timer is not None:
                group.timer.cancel()
            self._due(group)

    def changed(self, targets: set[Target]) -> None:
        """Look again at everyone who waits for one of these targets, or for a model of them."""
        if not self._groups:
            return
        for target in targets:
            if target.model is not None:
                self._look_again(target)
            else:
                for affected in list(self._by_backend.get(target.backend, ())):
                    self._look_again(affected)

    def abandon(self, make_error: Callable[[], Exception]) -> None:
        """Release everyone with an error; each gets one of its own, because raising it adds to it."""
        for group in list(self._groups.values()):
            for waiter in list(group.waiters):
                if not waiter.future.done():
                    waiter.future.set_exception(make_error())

    def _join(self, waiter: _Waiter) -> None:
        for target in waiter.targets:
            group = self._groups.get(target)
            if group is None:
                group = self._groups[target] = _Group(target, self._jitter * self._draw(), 0.0)
                self._by_backend.setdefault(target.backend, set()).add(target)
                self._arm(group, self._mirror.lifts_at(target) + self._margin + group.jitter)
            group.waiters[waiter] = None
        self._refuse_if_hopeless(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        for target in waiter.targets:
            group = self._groups.get(target)
            if group is None or waiter not in group.waiters:
                continue
            del group.waiters[waiter]
            if not group.waiters:
                self._disband(group)

    def _disband(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
        if self._groups.pop(group.target, None) is not None:
            siblings = self._by_backend[group.target.backend]
            siblings.discard(group.target)
            if not siblings:
                del self._by_backend[group.target.backend]

    def _arm(self, group: _Group, timer_at: float) -> None:
        if group.timer is not None:
            group.timer.cancel()
        group.timer_at = timer_at
        delay = max(0.0, timer_at - clock.now())
        group.timer = timers.call_later(delay, self._due, group)

    def _due(self, group: _Group) -> None:
        group.timer = None
        lifts_at = self._mirror.lifts_at(group.target)
        if lifts_at > clock.now():
            self._arm(group, lifts_at + self._margin + group.jitter)
        else:
            self._release(group)

    def _release(self, group: _Group) -> None:
        self._disband(group)
        waiters, group.waiters = group.waiters, {}
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_result(group.target)

    def _look_again(self, target: Target) -> None:
        group = self._groups.get(target)
        if group is None:
            return
        now = clock.now()
        lifts_at = self._mirror.lifts_at(target)
        # What was cleared before its time wakes now, with the same margin and jitter as at its time.
        timer_at = max(lifts_at, now) + self._margin + group.jitter
        if lifts_at <= now:
            timer_at = min(timer_at, group.timer_at)
        if timer_at == group.timer_at:
            return
        later = timer_at > group.timer_at
        self._arm(group, timer_at)
        if later:
            for waiter in list(group.waiters):
                self._refuse_if_hopeless(waiter)

    def _refuse_if_hopeless(self, waiter: _Waiter) -> None:
        if waiter.gives_up_at is None or waiter.future.done():
            return
        soonest = min(self._groups[target].timer_at if target in self._groups else 0.0 for target in waiter.targets)
        if soonest > waiter.gives_up_at:
            names = ", ".join(str(target) for target in waiter.targets)
            remaining = soonest - clock.now()
            waiter.future.set_exception(
                LimitWaitTimeout(f"{names}: still limited for {remaining:.3f} s, longer than the timeout allows")
            )
