"""What a refusal teaches: whether it came from a window's allowance or from the pace, and what the rate is. Pure."""

from __future__ import annotations

from rate_coordinator.pacestate import (
    BEYOND_CALLS,
    BEYOND_LAGS,
    BEYOND_STEP,
    BEYOND_TAU_MS,
    CLOSED_MISSES,
    CUT_CALLS,
    CUT_LEAST,
    CUT_MOST,
    FIRST_CUT,
    FIRST_PLATEAU_MS,
    FIRST_STOPS,
    LAGS_MAX_MS,
    LONG_STOP_MS,
    PLATEAU_CALLS,
    PLATEAU_CALLS_MIN,
    PLATEAU_LAGS,
    PLATEAU_MIN_MS,
    PLATEAU_STOPS,
    POOR_CALLS,
    SEARCH_FROM,
    START_FROM,
    START_LAG_MS,
    START_MORE,
    UNEVEN,
    WINDOW_PERIODS_S,
    WINDOW_TURNS,
    WINDOW_WAIT_MS,
    PaceState,
    gate_ms,
    rate,
    search,
)


def learn(s: PaceState) -> None:
    """Draw the lesson of the latest refusal, at the first turn after its stop."""
    first_ever = not s.pacing
    s.cross_rate = 0 if first_ever else rate(s, -s.lag_ms)  # about when the refused call was sent
    s.gate = first_ever or s.misses > 0 or s.told_ms > WINDOW_WAIT_MS
    s.probing = first_ever or s.misses > 0 or (s.told_ms >= LONG_STOP_MS and not s.confirmed)
    s.pending, s.pacing = False, True
    s.next_free_ms = s.last_ms = s.resume_ms
    into = s.cross_ms - s.win_start_ms
    if first_ever:
        # Of those that nothing was heard of, nobody can tell which were served, if any were answered.
        s.sent = s.used = s.served if s.served > 0 else max(0, s.sent)
        s.burst, s.burst_ms = s.sent, max(s.lag_ms / 2, s.cross_ms - s.mark_ms - s.lag_ms)
        s.begun_ms = s.mark_ms
    elif s.sent <= 0 or (s.budget > 0 and s.used <= 0):  # still closed: nothing to learn but patience
        s.next_free_ms = s.last_ms = s.resume_ms + min(s.told_ms * s.misses, 60_000)
        s.misses, s.gate, s.probing, s.sent = s.misses + 1, True, True, max(0, s.sent)
        if s.misses >= CLOSED_MISSES:
            s.closed_after = s.last_sent
        if s.budget > 0 and s.used <= 0:
            s.win_start_ms = s.resume_ms
        return
    elif s.confirmed and not s.paced and s.told_ms <= WINDOW_WAIT_MS and s.misses < 3:  # a hair too early
        s.misses, s.win_start_ms = s.misses + 1, s.win_start_ms + s.resume_ms - s.cross_ms + gate_ms(s)
        if s.over:
            s.win_start_ms, s.used, s.over = s.resume_ms, 0, False
        return
    s.closed_after = s.closed_after if s.misses >= CLOSED_MISSES else 0
    s.misses, s.last_sent = 0, s.sent
    if _is_window(s, into):
        period = _usual_period(s.resume_ms - s.win_start_ms, s.lag_ms)
        s.confirmed = s.budget > 0 and abs(period - s.period_ms) <= _blur(s, period)
        s.period_ms = max(period, s.period_ms) if s.confirmed else period
        s.budget, s.used, s.win_start_ms, s.over, s.skipped = max(1, s.used), 0, s.resume_ms, False, 0
        s.prev_told_ms, s.prev_into_ms = s.told_ms, into
        s.grown_ms = max(0, s.grown_ms - s.lag_ms) if s.searching else 0
    else:
        _first_pace(s) if first_ever else _cut(s)
        if s.told_ms > WINDOW_WAIT_MS:
            s.budget, s.confirmed, s.win_start_ms, s.used = 0, False, s.resume_ms, 0
    s.mark_ms, s.start_ms, s.sent, s.served = s.cross_ms, s.next_free_ms, 0, 0


def _is_window(s: PaceState, into: float) -> bool:
    """Whether the refusal, `into` ms after the window's beginning, came from an allowance and not from the pace."""
    if s.told_ms <= WINDOW_WAIT_MS:  # unless the allowance was used up just before the window's end
        ends = abs(s.resume_ms - s.win_start_ms - s.period_ms) <= _blur(s, s.period_ms)
        return not s.confirmed and 0 < s.budget <= s.used and ends
    same = abs(s.told_ms - s.prev_told_ms) <= 0.02 * s.told_ms
    if same and abs(into - s.prev_into_ms) > max(1000, 0.25 * s.told_ms) + s.lag_ms:
        s.guess_ms = s.told_ms  # a window's end comes nearer; a guess stays the same
    if abs(s.told_ms - s.guess_ms) <= 0.02 * s.told_ms:
        return False
    return s.told_ms * s.used >= WINDOW_TURNS * (into + s.told_ms)


def _blur(s: PaceState, period_ms: float) -> float:
    """How far a measured period may be from the true one."""
    return max(WINDOW_WAIT_MS, 0.02 * period_ms) + s.lag_ms


def _usual_period(period_ms: float, lag_ms: float) -> float:
    """The usual period nearest to a measured one, if that explains it; else the measured one."""
    best = 0.0
    for seconds in WINDOW_PERIODS_S:
        if abs(period_ms - 1000 * seconds) < abs(period_ms - best):
            best = 1000.0 * seconds
    return best if abs(period_ms - best) <= max(WINDOW_WAIT_MS, 0.02 * period_ms) + lag_ms else period_ms


def catch_up(s: PaceState, now_ms: float) -> None:
    """Let answers to calls of before the first lesson, which came too late for it, tell of a higher rate."""
    late = s.served - s.sent
    if late > 0:
        base = _careful(1000 * (s.burst + late) / max(1000, now_ms - s.begun_ms))
        if base > rate(s):
            search(s, base)


def _careful(served: float, below: float = SEARCH_FROM) -> float:
    """Where to search from, in calls/s, where so many were served per second; always `below` so many."""
    return served / (1 + served / below)


def _first_pace(s: PaceState) -> None:
    """Where to search from, after the first refusal ever: what got through, the stop included, or somewhat more.

    Who is refused at once, because answers come quickly, loses little by starting too fast.
    """
    served = 1000 * s.sent / max(s.told_ms, s.resume_ms - s.mark_ms - s.lag_ms / 2, 1000)
    slowest = 1000 / max(s.resume_ms - s.cross_ms, 1000)
    more = min(START_MORE, START_LAG_MS / max(1, s.lag_ms)) * max(0, served - 2 * slowest)
    s.paced = True
    search(s, max(_careful(served), _careful(served + more, START_FROM), slowest))


def _cut(s: PaceState) -> None:
    """Set the pace anew after a refusal that came from going too fast."""
    stop, searched, counted = s.resume_ms - s.cross_ms, s.searching, max(1, s.sent)
    estimate, exact = _estimate(s, stop)
    if not s.paced and s.sent < POOR_CALLS:  # too few to tell a rate by
        s.paced = True
        search(s, estimate)
        return
    if s.paced and not searched:
        s.burst, s.burst_ms = _burst(s, estimate), 0
    below = FIRST_CUT if searched else min(CUT_MOST, max(CUT_LEAST, CUT_CALLS / counted))
    s.paced, s.searching, s.grown_ms, s.ceiling, s.base = True, False, 0, estimate, (1 - below) * estimate
    tau = max(BEYOND_TAU_MS, min(BEYOND_LAGS * s.lag_ms, LAGS_MAX_MS), 1000 * BEYOND_CALLS / estimate)
    s.tau_ms = min(tau, s.forget_ms * 2 / 9)  # a refusal must come before all is forgotten
    lost = max(0, stop - 1000 * s.burst / estimate)  # of the stop, what the upstream's bucket does not keep
    if searched:
        plateau = max(FIRST_PLATEAU_MS, 1000 * PLATEAU_CALLS_MIN / estimate, FIRST_STOPS * lost * lost / 1000)
    else:
        sure = 1 if exact else max(0.3, 1 - 2 * (s.cross_rate - estimate) / s.cross_rate)
        calls = max(PLATEAU_CALLS_MIN, sure * min(PLATEAU_CALLS, 10 + 4 * s.sent))
        stops = PLATEAU_STOPS * lost * (sure if lost < 2000 else 1)
        plateau = max(PLATEAU_MIN_MS, 1000 * calls / estimate, stops)
    s.plateau_ms = min(max(plateau, min(PLATEAU_LAGS * s.lag_ms, LAGS_MAX_MS)), s.forget_ms * 4 / 9)


def _estimate(s: PaceState, stop: float) -> tuple[float, bool]:
    """The upstream's rate (calls/s), after a refusal that stops everything for `stop` ms, and whether that is exact."""
    beyond = s.cross_rate / s.ceiling if s.paced and not s.searching else 1
    if 1.15 < beyond < 2.5 and stop < 2000:  # the ceiling was too low, because too large a burst was believed in
        s.burst *= max(0.25, 1 / (beyond * beyond))
    counted = max(1, s.sent)
    # Both are exact in one case and too low in all others: if none of the upstream's tokens went to waste ...
    unwasted = 1000 * (s.sent + 0.5) / max(1, s.cross_ms - s.mark_ms)
    # ... and if its bucket was full at the start.
    lower = max(unwasted, 1000 * (s.sent - _burst(s, s.cross_rate)) / max(1, s.cross_ms - s.start_ms))
    agree = abs(lower - s.lower) <= (0.05 + 1 / counted) * lower
    # Where answers take long, nothing is known of the bucket at first; a stop's tokens may all be kept in it.
    kept = abs(unwasted - s.unwasted) <= (0.05 + 1 / counted) * unwasted
    kept = kept and not agree and not s.searching and s.burst <= 1
    s.lower, s.unwasted = lower, unwasted
    if kept:
        s.burst, s.burst_ms = max(s.burst, unwasted * stop / 1000), 0
        return min(unwasted, s.cross_rate), True
    exact = agree and beyond <= 1.15 and lower * stop / 1000 <= 1.1 * _burst(s, lower)
    estimate = max(lower, _model(s))
    if s.paced and not exact:  # no fall deeper than this at once
        floor = 0.4 if s.searching else 0.8
        if beyond > 1:
            floor = 0.65 if stop < 2000 else 0.5
        estimate = max(estimate, floor * s.cross_rate)
    return min(estimate, s.cross_rate), exact


def _burst(s: PaceState, served_rate: float) -> float:
    """How many calls the upstream serves at once: of the first burst, those that `served_rate` does not explain."""
    return max(1, s.burst / 4, s.burst - served_rate * s.burst_ms / 1000) if s.burst_ms > 0 else s.burst


def _model(s: PaceState) -> float:
    """The upstream's rate, if its bucket was full when the growing pace overtook it, and empty at the refusal; else 0.

    The pace is a * z^4 + c with z = 1 + t / tau; the calls above the pace at z0, until z1 where it stopped, are
    a * tau * ((z1^5 - z0^5) / 5 - z0^4 * (z1 - z0)). By bisection, the z0 is found at which these are what the bucket
    held and all that were refused.
    """
    grown = s.grown_ms if s.searching else s.grown_ms - s.plateau_ms
    if grown <= 0:
        return 0
    a = s.base if s.searching else s.ceiling * BEYOND_STEP
    c = 0.0 if s.searching else s.ceiling - a
    z1 = 1 + grown / s.tau_ms
    low, high = 1.0, z1
    for _ in range(24):
        z0 = (low + high) / 2
        z4 = z0 * z0 * z0 * z0
        calls = a * s.tau_ms / 1000 * ((z1 * z1 * z1 * z1 * z1 - z4 * z0) / 5 - z4 * (z1 - z0))
        if calls > UNEVEN * _burst(s, a * z4 + c) + s.refused:
            low = z0
        else:
            high = z0
    return a * low * low * low * low + c if low > 1 else 0
