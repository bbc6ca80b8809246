"""What is remembered of a pace, and the pace that follows from it. Pure; see ``pacing``."""

from __future__ import annotations

from dataclasses import dataclass

FORGET_MS = 900_000
"""Without a 429 for so long, everything learned is forgotten."""
RECENT_MS = 60_000
"""While no limit is known, counts older than this fade: they are halved, and their time with them."""
CATCH_UP_MS = 50
"""Turns missed by at most this are made up for (GCRA's tolerance): timers and round trips are never exact."""
IDLE_WEIGHT = 10
"""One idle millisecond cancels so many of growth: with less than ~91 % of the turns taken the pace stands still."""
QUIET_MS = 1_000
"""The first lesson is not drawn while most calls are unanswered, unless no answer has come for so long."""
LAG_MAX_MS = 30_000
"""The longest time that a 429 is believed to be under way; a later report is a straggler that says nothing."""

LONG_STOP_MS = 60_000
"""After a stop that was to last so long, what was learned before it is not trusted until a call was served."""
PROBE_LEASE_MS = 4_000
"""A probe whose owner does not say that it still lives is believed dead after so long."""
PROBE_PATIENCE_MS = 5_000
"""Once the limit's time has come, a probe that was not refused for so long opens the pace unanswered."""
OPENING_RATE = 10.0
"""The pace starts at so many calls/s after a limit of which nothing was learned."""

SEARCH_FROM = 150.0
"""The search starts below so many calls/s: a large first burst is a burst rather than a rate."""
START_MORE = 1.2
"""It starts faster than what was served at first by so much of it at most, ..."""
START_LAG_MS = 300
"""... and by less where refusals are heard of later: by this part of a lag; ..."""
START_FROM = 100.0
"""... but not at more than this, if it would not start there anyway."""
SEARCH_TAU_MS = 4_000
"""The search grows as (1 + t / tau)^4: twice in 0.76 s, 16 times in 4 s, and relatively slower the longer it runs."""
SEARCH_CALLS = 18
"""Or tau is so many calls at the starting rate, if longer: slow upstreams would be overrun else, ..."""
SEARCH_TAU_MOST_MS = 12_000
"""... but not longer than this: nothing may have been answered yet, so that nothing is known."""
SEARCH_LAGS = 30
"""Or tau is so many lags, if longer: then the pace grows by less than 15 % before a refusal is heard of ..."""
SHORT_LAG_MS = 50
"""... but for so much of a lag, which is the time that any answer takes."""

UNEVEN = 0.9
"""The part of a bucket that is used up at the first refusal, calls arriving not as evenly as they were sent."""
POOR_CALLS = 5
"""Fewer calls since the refusal before tell no rate: it is searched for from their rate on."""
FIRST_CUT = 0.1
"""After the first search the pace restarts so much below the ceiling, which may be wrong by as much, ..."""
FIRST_PLATEAU_MS = 2_500
"""... approaches it over at least so long a time ..."""
FIRST_STOPS = 3
"""... and so many times the stop (in seconds, squared), and goes on beyond it: the next refusal tells far better."""
CUT_CALLS = 4
"""Later it restarts so many calls below the ceiling, of those counted since the refusal before, ..."""
CUT_LEAST, CUT_MOST = 0.005, 0.03
"""... but by these parts of it. (CUBIC's 0.3 has to drain a queue; a rate limit has none.)"""
PLATEAU_MIN_MS = 4_000
"""The ceiling is approached over at least so long a time ..."""
PLATEAU_CALLS = 400
"""... and so many calls (each approach ends in 2 to 5 refusals, far below 1 %), fewer if it is in doubt ..."""
PLATEAU_CALLS_MIN = 40
"""... but at least these ..."""
PLATEAU_STOPS = 35
"""... and so many times the turns that the stop after a refusal costs ..."""
PLATEAU_LAGS = 20
"""... and so many lags ..."""
LAGS_MAX_MS = 40_000
"""... as long as those are no longer than this: whoever waits for minutes for each answer would hardly grow at all."""
BEYOND_STEP = 0.02
"""Beyond the ceiling the pace is ceiling * (1 + step * ((1 + t / tau)^4 - 1)): +8 % after tau / 2, 2.6-fold after 2."""
BEYOND_TAU_MS = 6_000
"""The tau of this growth; longer for slow upstreams: so many calls, and for slow answers: so many lags (likewise)."""
BEYOND_CALLS = 50
BEYOND_LAGS = 12

WINDOW_WAIT_MS = 1_500
"""Waits up to here tell nothing: most servers round up a fraction of a second."""
WINDOW_TURNS = 3
"""A wait of so many turns (at the rate served lately) is a window's; a bucket asks to wait for about one."""
WINDOW_SPREAD = 4
"""An allowance is spent at this multiple of its mean rate, the rest at the mean rate: wrong guesses cost little."""
WINDOW_FAST_PART = 0.92
"""The part that is spent fast."""
WINDOW_GUARD_MS = 250
"""A window is begun so much later than the one before plus the period: a sliding window must not be met early."""
WINDOW_PROBE_CALLS = 300
"""One call beyond a confirmed allowance is tried each time after so many calls."""
CLOSED_MISSES = 2
"""An upstream that is still closed when this many stops in a row are over has an allowance that is used up."""
APPROACH_FROM = 0.98
"""Where an allowance is met that is known by nothing else, from this part of it on, ..."""
APPROACH_TO = 1.02
"""... to this one, ..."""
APPROACH_RATE = 0.08
"""... turns go at this part of the pace: few calls are under way when it is used up."""
WINDOW_PERIODS_S = (5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
"""Usual periods: a measured one, blurred by whole-second waits and late answers, is taken for the nearest of them."""


@dataclass(slots=True)
class PaceState:
    """All that is remembered; `_ms` are times of the server's clock or durations, rates are calls/s."""

    epoch: int = 0  # grows with every refusal that teaches, and when all is forgotten
    forget_ms: float = FORGET_MS
    resume_ms: float = 0  # nothing is admitted before
    limited_ms: float = 0  # the latest 429; 0: none yet
    pacing: bool = False  # a limit is known
    pending: bool = False  # the latest refusal's lesson has not been drawn
    gate: bool = False  # the next turn is a probe: the others wait until its answer is due ...
    probing: bool = False  # ... or, where the pace is not known well, until it has come
    probe_ms: float = 0  # when that probe went
    tried_ms: float = 0  # when one was refused before the limit's time had come
    # the pace
    paced: bool = False  # the pace comes from refusals; else from the window's allowance
    searching: bool = False
    base: float = 0  # the pace at which this epoch began
    ceiling: float = 0
    tau_ms: float = SEARCH_TAU_MS
    plateau_ms: float = PLATEAU_MIN_MS
    grown_ms: float = 0  # the clock of growth; it stands still while turns go unused
    next_free_ms: float = 0  # when the next turn is due
    last_ms: float = 0  # the latest take
    # since the latest refusal
    mark_ms: float = -1  # when it came; shifted by the idle time since; -1: nothing has happened yet
    start_ms: float = 0  # when turns began after it; shifted alike
    sent: int = 0  # calls admitted, without those refused
    served: int = 0  # calls that succeeded, while no limit is known and during the first search
    answer_ms: float = 0  # the latest answer, while no limit is known
    # that refusal
    cross_ms: float = 0  # when it came
    cross_rate: float = 0  # the pace then
    told_ms: float = 0  # the wait it asked for
    refused: int = 0  # so many calls were refused with it
    lag_ms: float = 0  # refusals of one epoch come in over so long a time
    misses: int = 0  # stops in a row after which nothing got through
    last_sent: int = 0  # calls that were served before it, since the one before
    closed_after: int = 0  # after so many the upstream closed for longer than it told; 0: it did not
    # about the upstream
    begun_ms: float = 0  # when the first of the calls was made that the first lesson is drawn from
    lower: float = 0  # it served at least this rate, by the last refusal
    unwasted: float = 0  # what it served on average since the refusal before, the stop included
    burst: float = 0  # calls it serves beyond its rate; at first, the calls served before the first refusal ...
    burst_ms: float = 0  # ... came in over so long a time
    # the window
    budget: int = 0  # allowance; 0: no window is known
    used: int = 0
    win_start_ms: float = 0
    period_ms: float = 0
    confirmed: bool = False  # two periods in a row agreed
    over: bool = False  # calls beyond the allowance are being tried
    skipped: int = 0  # windows since that was tried last
    prev_told_ms: float = 0  # the window's last refusal: the wait it asked for ...
    prev_into_ms: float = 0  # ... and how far into the window it came
    guess_ms: float = 0  # a wait that is the same wherever it comes: not the upstream's; 0: none


def rate(s: PaceState, ahead_ms: float = 0) -> float:
    """The pace so long from now, in calls/s (meaningless while nothing is known)."""
    grown_ms = max(0, s.grown_ms + ahead_ms)
    if s.budget > 0 and not s.paced and not s.over:
        mean = 1000 * s.budget / s.period_ms
        return WINDOW_SPREAD * mean if s.used <= WINDOW_FAST_PART * s.budget else mean
    if s.searching:
        y = 1 + grown_ms / s.tau_ms
        return s.base * y * y * y * y
    if grown_ms < s.plateau_ms:
        x = 1 - grown_ms / s.plateau_ms
        return s.ceiling - (s.ceiling - s.base) * x * x * x
    z = 1 + (grown_ms - s.plateau_ms) / s.tau_ms
    return s.ceiling * (1 + BEYOND_STEP * (z * z * z * z - 1))


def spacing_ms(s: PaceState, ahead_ms: float = 0) -> float:
    """The time from one turn to the next, so long from now."""
    if APPROACH_FROM * s.closed_after <= s.sent < APPROACH_TO * s.closed_after:
        return 1000 / (APPROACH_RATE * rate(s, ahead_ms))
    return 1000 / rate(s, ahead_ms)


def gate_ms(s: PaceState) -> float:
    """How long after a probe, or after a refusal, its like must have been answered."""
    return min(max(100, 1.25 * s.lag_ms), s.period_ms / 2 if s.over else 1000)


def search(s: PaceState, base: float) -> None:
    """Search for the upstream's rate from `base` (calls/s) upwards."""
    s.base, s.searching, s.grown_ms = base, True, 0
    s.tau_ms = max(
        SEARCH_TAU_MS, SEARCH_LAGS * (s.lag_ms - SHORT_LAG_MS), min(1000 * SEARCH_CALLS / base, SEARCH_TAU_MOST_MS)
    )
