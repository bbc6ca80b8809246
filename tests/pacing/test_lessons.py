"""What one refusal teaches, case by case."""

from __future__ import annotations

import pytest

from rate_coordinator.pacestate import PaceState, rate
from rate_coordinator.pacing import fresh, limited, succeeded, take
from tests.pacing.simulate import Controller, TokenBucket, simulate

NOW_MS = 1_000_000


def in_a_window(used: int, sent: int) -> PaceState:
    """450 calls were served 10 s ago, in a window of 10 s; so many more since, until now."""
    return PaceState(
        epoch=1,
        pacing=True,
        budget=450,
        period_ms=10_000,
        used=used,
        sent=sent,
        win_start_ms=NOW_MS - 9000,
        mark_ms=NOW_MS - 10_000,
        start_ms=NOW_MS - 9000,
        last_ms=NOW_MS,
        next_free_ms=NOW_MS,
        burst=450,
    )


def refused_now(state: PaceState, wait_ms: int) -> PaceState:
    """Return what is known when the stop is over."""
    state, _ = take(limited(state, NOW_MS, wait_ms, state.epoch), NOW_MS + wait_ms + 1000, 1)
    return state


class Noting(Controller):
    """Notes the first ceiling that is found."""

    first_ceiling = 0.0

    def next_slot(self, now: float) -> float:
        slot = super().next_slot(now)
        if not self.first_ceiling and self.state.pacing and not self.state.searching:
            self.first_ceiling = self.state.ceiling
        return slot


def test_turns_for_later_go_at_the_pace_of_their_time() -> None:
    state = PaceState(epoch=1, pacing=True, paced=True, searching=True, base=10, last_ms=NOW_MS)
    state.next_free_ms = NOW_MS + 200

    state, grant = take(state, NOW_MS, 10, 250)

    assert grant.first_ms == 200
    assert grant.spacing_ms == pytest.approx(1000 / rate(state, 200))
    assert grant.spacing_ms < 0.9 * 1000 / rate(state)


@pytest.mark.parametrize("latency", [0.02, 0.1, 0.3])
def test_the_rate_that_is_learned_does_not_depend_on_how_late_refusals_are_heard_of(latency: float) -> None:
    controller = Noting()

    simulate(TokenBucket(50, 5), controller, 1000, 400, 100, latency=(latency, latency), up=0)

    assert controller.first_ceiling == pytest.approx(50, rel=0.15)


def test_of_those_that_nothing_was_heard_of_nobody_believes_that_they_were_served() -> None:
    state, _ = take(fresh(), NOW_MS, 400)
    state = succeeded(state, NOW_MS + 100, 9, 0)
    for _ in range(350):
        state = limited(state, NOW_MS + 100, 1000, 0)

    state, _ = take(state, NOW_MS + 5000, 1)

    assert state.burst == 9


def test_where_no_answer_has_come_yet_all_that_were_not_refused_count_as_served() -> None:
    state, _ = take(fresh(), NOW_MS, 400)
    for _ in range(350):
        state = limited(state, NOW_MS + 100, 1000, 0)

    state, _ = take(state, NOW_MS + 5000, 1)

    assert state.burst == 50


def test_a_short_wait_that_leads_to_the_windows_end_is_the_windows() -> None:
    learned = refused_now(in_a_window(used=501, sent=501), wait_ms=1000)

    assert (learned.budget, learned.period_ms, learned.confirmed) == (500, 10_000, True)
    assert not learned.paced


def test_a_short_wait_before_the_allowance_is_used_up_is_the_paces() -> None:
    learned = refused_now(in_a_window(used=300, sent=300), wait_ms=1000)

    assert learned.paced
    assert learned.ceiling > 0


def test_so_few_calls_tell_no_rate_and_it_is_searched_for() -> None:
    learned = refused_now(in_a_window(used=3, sent=3), wait_ms=1000)

    assert learned.paced
    assert learned.searching


@pytest.mark.parametrize(("calls", "below"), [(50, 0.03), (400, 0.01), (5000, 0.005)])
def test_the_pace_restarts_nearer_to_the_ceiling_the_more_calls_it_was_learned_from(calls: int, below: float) -> None:
    seconds = calls / 50
    state = PaceState(epoch=1, pacing=True, paced=True, base=49, ceiling=50, sent=calls + 1, burst=1)
    state.mark_ms = state.start_ms = NOW_MS - 1000 * seconds
    state.last_ms = state.next_free_ms = NOW_MS

    learned = refused_now(state, wait_ms=1000)

    assert 1 - learned.base / learned.ceiling == pytest.approx(below, rel=0.05)
