"""The pace at which a fleet may call an upstream whose rate limit nobody knows, learned from its 429s alone.

Everything here is pure: a flat `PaceState` of plain numbers, and functions that take a state and the time (integer
milliseconds of one clock, the server's) and return a new state. Only + - * /, min, max, floor, ceil and comparisons are
used, so that a Lua script computes the very same numbers. Helpers that begin with an underscore change the
copy of the state that the public function made.

How it works:

- *Nothing known* (`pacing` is false): everything may go at once.
- *Pace*: after a refusal with a short wait, turns are spaced (as GCRA does) at a rate that is first searched for from
  below, and then approaches the ceiling that was found on a cubic and grows carefully beyond it (as RFC 9438 does).
- *Window*: a refusal that asks to wait for much longer than one turn means that an allowance per window is used up.
  Allowance and period are measured from one such refusal to the next; a confirmed allowance is spent early in each
  window. Pace and window may both be known (two-tier limits).
- A refusal changes nothing but the epoch and the resume time; it leaves the state `pending`. Its lesson is drawn at the
  first turn after the stop: by then the answers to calls in flight have come in and are counted.

What the callers owe: every admitted call carries the epoch it was admitted under; turns of an older epoch that were not
used yet are given back, not used.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from rate_coordinator.lessons import catch_up, learn
from rate_coordinator.pacestate import (
    APPROACH_FROM,
    BEYOND_TAU_MS,
    CATCH_UP_MS,
    FORGET_MS,
    IDLE_WEIGHT,
    LAG_MAX_MS,
    PLATEAU_CALLS,
    PLATEAU_MIN_MS,
    PROBE_LEASE_MS,
    QUIET_MS,
    RECENT_MS,
    WINDOW_GUARD_MS,
    WINDOW_PROBE_CALLS,
    PaceState,
    gate_ms,
    rate,
    search,
    spacing_ms,
)
from rate_coordinator.probing import free, is_out, lapse, open_


@dataclass(frozen=True, slots=True)
class Grant:
    """`count` turns, the first in `first_ms`, the others `spacing_ms` apart. If none: ask again in `first_ms`."""

    first_ms: float
    spacing_ms: float
    count: int


def fresh(initial_rate: float | None = None, forget_ms: float = FORGET_MS) -> PaceState:
    """The state before anything is known, or (in epoch 1) with a pace given from outside.

    Args:
        initial_rate: the pace to start from, in calls/s.
        forget_ms: what was learned is forgotten so long after the last 429.
    """
    state = PaceState(forget_ms=forget_ms)
    if initial_rate:
        state.epoch, state.pacing, state.paced = 1, True, True
        state.base = state.ceiling = initial_rate
        state.tau_ms = BEYOND_TAU_MS
        state.plateau_ms = max(PLATEAU_MIN_MS, 1000 * PLATEAU_CALLS / initial_rate)
    return state


def take(state: PaceState, now_ms: int, wanted: int, horizon_ms: int = 0) -> tuple[PaceState, Grant]:
    """Grant up to `wanted` turns that are due within `horizon_ms` (ms) from now."""
    s = copy.copy(state)
    _forget(s, now_ms)
    if s.mark_ms < 0:
        s.mark_ms = s.win_start_ms = now_ms
    resume = max(s.resume_ms, s.cross_ms + gate_ms(s)) if s.pending else s.resume_ms  # calls in flight come in first
    if now_ms < resume:
        return s, Grant(resume - now_ms, 0, 0)
    if s.pending and not s.pacing and s.sent > 2 * s.served and now_ms < s.answer_ms + QUIET_MS:
        return s, Grant(s.answer_ms + QUIET_MS - now_ms, 0, 0)
    if is_out(s) and now_ms < s.next_free_ms:
        return s, Grant(s.next_free_ms - now_ms, 0, 0)
    if s.pending:
        s.resume_ms = resume
        learn(s)
    lapse(s, now_ms)
    if not s.pacing:
        _fade(s, now_ms)
        s.sent, s.used = s.sent + wanted, s.used + wanted
        return s, Grant(0, 0, wanted)
    _window(s, now_ms)
    if wanted > 0:
        _tick(s, now_ms)
    first, spacing = max(now_ms, math.ceil(s.next_free_ms)), spacing_ms(s, max(0, s.next_free_ms - now_ms))
    if wanted <= 0 or first > now_ms + horizon_ms:
        return s, Grant(first - now_ms, spacing, 0)
    due = max(s.next_free_ms, now_ms - CATCH_UP_MS)
    count = min(wanted, math.floor((now_ms + horizon_ms - due) / spacing) + 1)
    if s.budget > 0 and not s.over:
        count = max(0, min(count, s.budget - s.used))
    if s.sent < APPROACH_FROM * s.closed_after:
        count = min(count, math.ceil(APPROACH_FROM * s.closed_after - s.sent))
    if s.gate and count > 0:
        count, s.gate = 1, False
        s.next_free_ms = first + max(spacing, 0 if s.probing else gate_ms(s))
        s.start_ms = s.start_ms if s.sent > 0 else s.next_free_ms
        if s.probing:
            s.probe_ms, s.next_free_ms = max(first, s.probe_ms + 1), first + PROBE_LEASE_MS
    else:
        s.next_free_ms = due + count * spacing
    s.sent, s.used = s.sent + count, s.used + count
    return s, Grant(first - now_ms, spacing, count)


def awaited(state: PaceState, now_ms: int) -> PaceState:
    """Calls have waited for turns until now, though nobody took those that were due: that is no time without work."""
    s = copy.copy(state)
    if s.pacing and not s.pending and not is_out(s):
        s.next_free_ms = max(s.next_free_ms, now_ms - CATCH_UP_MS)
    return s


def give_back(state: PaceState, count: int, epoch: int) -> PaceState:
    """`count` turns that were granted under `epoch` were not used and will not be."""
    s = copy.copy(state)
    if epoch != s.epoch - s.pending:  # they belong to a lesson that was drawn without them
        return s
    s.sent, s.used = max(0, s.sent - count), max(0, s.used - count)
    if count > 0 and is_out(s) and not s.pending:
        free(s)
    elif s.pacing and not s.pending:
        s.next_free_ms = max(s.resume_ms, s.next_free_ms - count * 1000 / rate(s))
    return s


def succeeded(state: PaceState, now_ms: int, count: int, epoch: int) -> PaceState:
    """`count` calls admitted under `epoch` were served. Needed while no limit is known, and of probes."""
    s = copy.copy(state)
    if s.mark_ms < 0:
        s.mark_ms = s.win_start_ms = now_ms
    if not s.pacing:
        s.served, s.answer_ms = s.served + count, now_ms
    elif count > 0 and epoch == s.epoch and is_out(s) and not s.pending:
        open_(s, now_ms)
    return s


def tell(state: PaceState, now_ms: int, count: int, since_ms: int) -> PaceState:
    """`count` calls were served, the first of them `since_ms` (ms) ago."""
    s = copy.copy(state)
    if not s.pacing:
        s.served += count
        s.mark_ms = s.win_start_ms = min(s.mark_ms, now_ms - since_ms)
    elif s.searching and s.ceiling == 0:
        s.served += count
        catch_up(s, now_ms)
    return s


def limited(state: PaceState, now_ms: int, wait_ms: int, epoch: int, age_ms: int = 0) -> PaceState:
    """A call admitted under `epoch`, `age_ms` (ms) ago, was answered 429 and told to wait for `wait_ms` (ms)."""
    s = copy.copy(state)
    s.resume_ms = max(s.resume_ms, now_ms + wait_ms)
    s.limited_ms = s.answer_ms = now_ms
    if s.mark_ms < 0:
        s.mark_ms = s.win_start_ms = now_ms
    if epoch >= s.epoch or s.pending:
        s.sent, s.used = s.sent - 1, s.used - 1
    if epoch < s.epoch:  # an answer to a call of older knowledge: no second cut
        if epoch == s.epoch - 1 and s.pending:
            s.refused += 1
        if epoch == s.epoch - 1 and now_ms - s.cross_ms < LAG_MAX_MS:
            s.lag_ms = max(s.lag_ms, now_ms - s.cross_ms)
        return s
    if is_out(s):
        free(s)
    if not s.pacing:  # the first answers are in when those have come that took as long
        s.resume_ms = max(s.resume_ms, now_ms + min(1.25 * age_ms, LAG_MAX_MS))
    s.epoch += 1
    s.pending = True
    s.cross_ms, s.told_ms, s.refused = now_ms, wait_ms, 1
    return s


def _forget(s: PaceState, now_ms: float) -> None:
    """Drop everything but the epoch when no 429 has come for long."""
    until = max(s.limited_ms, s.resume_ms) + max(s.forget_ms, 2 * s.period_ms)
    if s.pacing and s.limited_ms > 0 and now_ms >= until:
        blank = PaceState(epoch=s.epoch + 1, forget_ms=s.forget_ms)
        for name in PaceState.__slots__:
            setattr(s, name, getattr(blank, name))


def _fade(s: PaceState, now_ms: float) -> None:
    """Let old counts fade while nothing is known."""
    if now_ms - s.mark_ms > RECENT_MS:
        s.mark_ms = s.win_start_ms = s.mark_ms + (now_ms - s.mark_ms) / 2
        s.sent, s.served, s.used = s.sent // 2, s.served // 2, s.used // 2


def _tick(s: PaceState, now_ms: float) -> None:
    """Advance the clock of growth by the time in which turns were taken."""
    idle = max(0, now_ms - s.next_free_ms - CATCH_UP_MS)
    s.grown_ms += max(0, now_ms - s.last_ms - IDLE_WEIGHT * idle)
    s.mark_ms, s.start_ms = s.mark_ms + idle, s.start_ms + idle
    s.last_ms = max(s.last_ms, now_ms)


def _window(s: PaceState, now_ms: float) -> None:
    """Begin a new window, or decide what happens when the allowance is spent."""
    if s.budget <= 0:
        return
    if s.confirmed and now_ms >= s.win_start_ms + s.period_ms:
        if s.over:  # more than the allowance was served
            s.budget = max(s.budget, s.used)
        step = s.period_ms + min(max(WINDOW_GUARD_MS, s.lag_ms), 0.05 * s.period_ms)
        s.win_start_ms += max(1, math.floor((now_ms - s.win_start_ms) / step)) * step
        s.used, s.over, s.gate, s.misses, s.skipped = 0, False, True, 0, s.skipped + 1
        s.next_free_ms = s.last_ms = max(s.next_free_ms, s.win_start_ms)
        s.grown_ms = s.grown_ms if s.searching else 0
    if s.used < s.budget or s.over:
        return
    if s.confirmed and s.skipped * s.budget < WINDOW_PROBE_CALLS:
        s.next_free_ms = s.last_ms = max(s.next_free_ms, s.win_start_ms + s.period_ms)
        return
    s.over, s.gate, s.skipped = True, True, 0
    if not s.paced:
        search(s, 1000 * s.budget / s.period_ms)
        s.last_ms = now_ms
