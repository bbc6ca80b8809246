"""One real call that finds out for the whole fleet whether a target is open, and what follows from its answer.

Where the pace is not known well, the first call after a stop is a probe: nothing else goes until it was answered. Well
known is a pace that was learned from a refusal before this one, whose last stop ended with a call that was served, and
whose present stop was told to last less than a minute (or is that of a window that was met twice). Then it is enough
that the answer to a probe is due, or no probe is needed at all (see ``lessons``).

A limit that lasts for long is tried by such a probe before its time has come (``verify``).

A probe is a lease: it ends when its owner tells what became of it, or does not tell for long that it still lives.
Whatever is told of a probe is told with its `probe_ms`, which no two of them share, and counts only while it is out.

Pure, as all that ``pacing`` does; the functions that take a state and return none change it.
"""

from __future__ import annotations

import copy

from rate_coordinator.pacestate import (
    BEYOND_TAU_MS,
    OPENING_RATE,
    PLATEAU_CALLS,
    PLATEAU_MIN_MS,
    PROBE_LEASE_MS,
    PROBE_PATIENCE_MS,
    PaceState,
    search,
)


def is_out(s: PaceState) -> bool:
    """Whether a probe is under way that all others wait for."""
    return s.probing and not s.gate


def free(s: PaceState) -> None:
    """The probe came to nothing: the next turn is another one."""
    s.gate, s.next_free_ms = True, max(s.resume_ms, min(s.probe_ms, s.next_free_ms))


def open_(s: PaceState, now_ms: float) -> None:
    """The others may go, one turn after the probe."""
    s.probing = False
    s.next_free_ms = s.start_ms = s.last_ms = max(now_ms, s.start_ms)


def lapse(s: PaceState, now_ms: float) -> None:
    """Decide what becomes of a probe that nobody has answered: another one, or the pace opens."""
    if is_out(s) and now_ms >= s.next_free_ms:
        if now_ms - max(s.probe_ms, s.resume_ms) >= PROBE_PATIENCE_MS:
            open_(s, now_ms)
        else:
            free(s)


def opening(now_ms: float, resume_ms: float, forget_ms: float, epoch: int, *, probed: bool) -> PaceState:
    """The state of a pace of which nothing is known but when the limit lifts; it starts gently, and with a probe.

    Args:
        now_ms: The time.
        resume_ms: When the limit lifts, or has lifted.
        forget_ms: See ``fresh``.
        epoch: Its first.
        probed: A call was served already.
    """
    s = PaceState(epoch=epoch, forget_ms=forget_ms, pacing=True, paced=True, gate=not probed, probing=not probed)
    s.resume_ms = s.next_free_ms = s.last_ms = s.mark_ms = s.start_ms = s.win_start_ms = s.cross_ms = resume_ms
    s.limited_ms = s.answer_ms = now_ms
    s.burst = 1
    search(s, OPENING_RATE)
    return s


def begun(now_ms: float, initial_rate: float, forget_ms: float, epoch: int) -> PaceState:
    """The state of a pace that a user told, until a refusal teaches better.

    Args:
        now_ms: The time.
        initial_rate: Calls per second.
        forget_ms: See ``fresh``.
        epoch: Its first.
    """
    s = opening(now_ms, now_ms, forget_ms, epoch, probed=True)
    s.searching, s.base, s.ceiling, s.tau_ms = False, initial_rate, initial_rate, BEYOND_TAU_MS
    s.plateau_ms = max(PLATEAU_MIN_MS, 1000 * PLATEAU_CALLS / initial_rate)
    return s


def reopened(state: PaceState, resume_ms: float) -> PaceState:
    """A limit has lifted that taught nothing, such as a quota's or an outage's: one call goes first, at the old pace.

    Args:
        state: Before.
        resume_ms: When it lifted.
    """
    s = copy.copy(state)
    if resume_ms > s.resume_ms:
        s.resume_ms = resume_ms
        if s.pacing and not s.pending:
            s.epoch += 1
            s.gate = s.probing = True
            s.next_free_ms = s.last_ms = max(s.next_free_ms, resume_ms)
    return s


def verify(state: PaceState, now_ms: int, verify_ms: float, since_ms: float) -> tuple[PaceState, float]:
    """Take a probe of a limit whose time has not come.

    Args:
        state: With a `resume_ms` that is still to come.
        now_ms: The time.
        verify_ms: How long after a limit was set, or was tried without success, it may be tried.
        since_ms: When it was set.

    Returns:
        The new state, and 0 if the probe was given; else the old one, and in how many milliseconds to ask again.
    """
    due = max(since_ms, state.tried_ms) + verify_ms
    if is_out(state):
        due = max(due, state.next_free_ms)
    if now_ms < due:
        return state, due - now_ms
    s = copy.copy(state)
    if not s.pending:  # turns and answers of before say nothing about this probe
        s.epoch += 1
    s.probing, s.gate = True, False
    s.probe_ms = max(now_ms, s.probe_ms + 1)
    s.next_free_ms = now_ms + PROBE_LEASE_MS
    return s, 0


def held(state: PaceState, now_ms: int) -> PaceState:
    """The probe's owner still lives and has no answer yet."""
    s = copy.copy(state)
    s.next_free_ms = now_ms + PROBE_LEASE_MS
    if now_ms >= s.resume_ms:
        s.next_free_ms = min(s.next_free_ms, max(s.probe_ms, s.resume_ms) + PROBE_PATIENCE_MS)
    return s


def refused(state: PaceState, now_ms: int) -> PaceState:
    """The probe was refused, and that is all that is learned from it."""
    s = copy.copy(state)
    s.tried_ms = now_ms
    free(s)
    return s


def given_back(state: PaceState, tried_ms: float) -> PaceState:
    """The probe's call was not made, or ended without an answer that tells anything.

    Args:
        state: Before.
        tried_ms: Counts as the time when it was tried; 0 if the next one may go at once.
    """
    s = copy.copy(state)
    s.tried_ms = max(s.tried_ms, tried_ms)
    free(s)
    return s
