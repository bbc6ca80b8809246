"""What a probe promises, by the pure functions; that the fleet keeps to it is in ``server/test_probes``."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.pacestate import LONG_STOP_MS, OPENING_RATE, PROBE_LEASE_MS, PROBE_PATIENCE_MS, PaceState, rate
from rate_coordinator.pacing import give_back, limited, succeeded, take
from rate_coordinator.probing import given_back, held, is_out, opening, refused, reopened, verify

STARTED_MS = 10_000_000
HOUR_MS = 3_600_000
FORGET_MS = 900_000


def opened(resume_ms: int = STARTED_MS, *, probed: bool = False) -> PaceState:
    return opening(STARTED_MS, resume_ms, FORGET_MS, 1, probed=probed)


def probing() -> PaceState:
    """Return a state in which the first call after a stop is under way, since ``STARTED_MS``."""
    state, grant = take(opened(), STARTED_MS, 50)
    assert (grant.count, is_out(state)) == (1, True)
    return state


def granted(state: PaceState, now_ms: int) -> int:
    return take(state, now_ms, 50)[1].count


def test_nobody_goes_while_the_first_call_is_under_way() -> None:
    """P18 P20."""
    state = probing()

    assert [granted(state, STARTED_MS + ms) for ms in range(0, PROBE_LEASE_MS, 100)] == [0] * (PROBE_LEASE_MS // 100)
    assert take(state, STARTED_MS, 50, 250)[1].first_ms == PROBE_LEASE_MS


def test_when_it_was_served_the_others_go_one_after_the_other() -> None:
    state = succeeded(probing(), STARTED_MS + 50, 1, 1)
    due: list[float] = []
    for now_ms in range(STARTED_MS + 50, STARTED_MS + 1050, 10):
        state, grant = take(state, now_ms, 50)
        due += [now_ms] * grant.count

    assert due[0] == STARTED_MS + 1000 / OPENING_RATE
    assert OPENING_RATE <= len(due) < 2.5 * OPENING_RATE


def test_a_late_answer_of_another_call_opens_nothing() -> None:
    """P21."""
    state = probing()

    assert succeeded(state, STARTED_MS + 50, 1, 0) == state


def test_when_its_owner_is_not_heard_of_another_one_goes_after_the_lease() -> None:
    """P19."""
    state, grant = take(probing(), STARTED_MS + PROBE_LEASE_MS, 50)

    assert (grant.count, is_out(state)) == (1, True)


def test_while_its_owner_lives_it_is_the_only_one_and_after_some_seconds_not_refused_it_has_passed() -> None:
    """P25."""
    state, now_ms, counts = probing(), STARTED_MS, dict[int, int]()
    for now_ms in range(STARTED_MS, STARTED_MS + PROBE_PATIENCE_MS + 1, 500):
        if is_out(state):
            state = held(state, now_ms)
        state, grant = take(state, now_ms, 50)
        counts[now_ms] = grant.count

    assert counts.pop(now_ms) > 0
    assert set(counts.values()) == {0}
    assert not state.probing


@pytest.mark.parametrize("unused", [False, True], ids=["call came to nothing", "turn was not used"])
def test_one_that_is_given_back_goes_to_the_next_at_once(unused: bool) -> None:
    """P22."""
    state = give_back(probing(), 1, 1) if unused else given_back(probing(), 0)

    state, grant = take(state, STARTED_MS + 10, 50)

    assert (grant.count, is_out(state), state.probe_ms) == (1, True, STARTED_MS + 10)


@given(refusals=st.integers(1, 50), wait_ms=st.integers(1, 5000))
def test_however_often_it_is_refused_only_one_call_goes_at_a_time(refusals: int, wait_ms: int) -> None:
    """P18."""
    state, now_ms, seen = opened(), STARTED_MS, set[float]()
    for _ in range(refusals):
        while not (grant := take(state, now_ms, 50)[1]).count:
            now_ms += math.ceil(grant.first_ms)
        state, grant = take(state, now_ms, 50)
        assert grant.count == 1
        assert is_out(state)
        seen.add(state.probe_ms)
        state = limited(state, now_ms + 10, wait_ms, state.epoch)
        assert granted(state, now_ms + 10) == 0
    assert len(seen) == refusals, "no two of them have the same name"


@pytest.mark.parametrize(("stop_ms", "whole"), [(5000, False), (LONG_STOP_MS, True)], ids=["short", "long"])
def test_after_a_short_stop_a_pace_that_is_known_well_needs_no_answer(stop_ms: int, whole: bool) -> None:
    state, now_ms = opened(probed=True), STARTED_MS
    while now_ms < STARTED_MS + 2000:
        now_ms += 50
        state, _ = take(state, now_ms, 1)
    state = limited(state, now_ms, stop_ms, state.epoch)

    state, grant = take(state, math.ceil(state.resume_ms), 1)

    assert (grant.count, is_out(state)) == (1, whole)


# A limit that taught nothing.


def test_after_a_limit_that_taught_nothing_one_call_goes_first_at_the_old_pace() -> None:
    before = replace(opened(probed=True), grown_ms=20_000.0)
    state = reopened(before, STARTED_MS + 5000)

    assert granted(state, STARTED_MS + 4999) == 0
    state, grant = take(state, STARTED_MS + 5000, 50)
    assert (grant.count, is_out(state)) == (1, True)
    assert rate(state) == rate(before)
    assert reopened(state, STARTED_MS + 5000) == state, "however many tell of it"


# A limit whose time has not come.


@given(verify_ms=st.integers(1, HOUR_MS), ago_ms=st.integers(0, HOUR_MS))
def test_a_limit_is_tried_no_sooner_than_so_long_after_it_was_set(verify_ms: int, ago_ms: int) -> None:
    """P05."""
    before = opened(STARTED_MS + 5 * HOUR_MS)
    state, wait_ms = verify(before, STARTED_MS, verify_ms, STARTED_MS - ago_ms)

    assert wait_ms == max(0, verify_ms - ago_ms)
    assert is_out(state) == (wait_ms == 0)
    assert wait_ms == 0 or state == before
    assert granted(state, STARTED_MS) == 0


def test_it_is_tried_by_one_call_and_after_a_refusal_not_again_for_so_long() -> None:
    """P05 P20."""
    state, wait_ms = verify(opened(STARTED_MS + 5 * HOUR_MS), STARTED_MS, 60_000, 0)
    again, lease_ms = verify(state, STARTED_MS + 1, 60_000, 0)
    later = refused(state, STARTED_MS + 100)

    assert wait_ms == 0
    assert (again, lease_ms) == (state, PROBE_LEASE_MS - 1)
    assert verify(later, STARTED_MS + 60_099, 60_000, 0)[1] == 1
    assert verify(later, STARTED_MS + 60_100, 60_000, 0)[1] == 0
    assert granted(later, STARTED_MS + 60_100) == 0


def test_a_try_lasts_as_long_as_its_owner_lives_and_no_longer() -> None:
    """P19."""
    state, _ = verify(opened(STARTED_MS + 5 * HOUR_MS), STARTED_MS, 1000, 0)
    now_ms = STARTED_MS
    for _ in range(1000):
        now_ms += PROBE_LEASE_MS // 4
        state = held(state, now_ms)
        assert verify(state, now_ms, 1000, 0)[1] > 0

    assert verify(state, now_ms + PROBE_LEASE_MS, 1000, 0)[1] == 0


@given(retry_ms=st.integers(0, 1000))
def test_a_try_that_told_nothing_is_made_again_soon(retry_ms: int) -> None:
    """P22."""
    verify_ms = 60_000
    state, _ = verify(opened(STARTED_MS + 5 * HOUR_MS), STARTED_MS, verify_ms, 0)
    tried_ms = STARTED_MS + 100 - verify_ms + retry_ms

    assert verify(given_back(state, tried_ms), STARTED_MS + 100, verify_ms, 0)[1] == retry_ms


@given(now_ms=st.integers(STARTED_MS, STARTED_MS + HOUR_MS))
def test_answers_and_turns_of_before_say_nothing_about_a_try(now_ms: int) -> None:
    """P21."""
    before = reopened(opened(probed=True), STARTED_MS + 5 * HOUR_MS)
    state, _ = verify(before, now_ms, 1000, 0)

    assert give_back(state, 3, before.epoch) == state
    assert succeeded(state, now_ms, 1, before.epoch) == state


def test_a_limit_whose_time_comes_while_it_is_tried_waits_for_the_answer() -> None:
    """P18 P20."""
    state, _ = verify(opened(STARTED_MS + 1000), STARTED_MS, 100, 0)

    assert granted(state, STARTED_MS + 1500) == 0
    assert granted(succeeded(state, STARTED_MS + 1500, 1, state.epoch), STARTED_MS + 1600) == 1
