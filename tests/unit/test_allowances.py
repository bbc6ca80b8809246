"""When what upstreams say is left makes a fleet slow down, and how fast it may go then."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.allowances import FEW, LONGEST_RESET_SECONDS, MOST_LIMITS, Allowances, Spread
from rate_coordinator.answers import Answer
from rate_coordinator.spreading import SPREAD_GRACE_MS, SpreadState, spread, spread_taken, spread_turns
from rate_coordinator.targets import Target

TARGET = Target("openai")
HORIZON_MS = 250


def left(remaining: float, reset: float, scope: str | None = None) -> Answer:
    return Answer(remaining=remaining, reset_seconds=reset, scope=scope)


def tell(allowances: Allowances, *told: tuple[float, float, float], is_spread: bool = False) -> Spread | None:
    """Tell (when, what is left, seconds until the reset); return what the last of them led to."""
    spread = None
    for at, remaining, reset in told:
        spread = allowances.observe(TARGET, left(remaining, reset), at, is_spread=is_spread)
    return spread


def test_few_calls_are_spread_over_the_time_until_the_reset_as_soon_as_they_are_seen() -> None:
    spread = tell(Allowances(), (0, 10, 60))

    assert spread is not None
    assert spread.rate == pytest.approx(10 / 60, rel=0.01)
    assert spread.seconds == 60


def test_where_plenty_is_left_nobody_is_slowed_down_however_fast_it_goes() -> None:
    told = [(at / 10, 5000 - 10 * at, 3600 - at / 10) for at in range(240)]
    assert all(tell(allowances, one) is None for allowances in [Allowances()] for one in told)


def test_when_half_is_gone_and_the_rest_will_not_last_it_is_spread() -> None:
    allowances = Allowances()
    assert tell(allowances, (0, 1000, 60), (2, 900, 58), (9, 510, 51)) is None

    spread = tell(allowances, (10, 490, 50))

    assert spread is not None
    assert spread.rate == pytest.approx(490 / 50, rel=0.01)
    assert spread.next_rate == 1000 / 60


def test_when_half_is_gone_and_the_rest_will_last_nobody_is_slowed_down() -> None:
    assert tell(Allowances(), (0, 1000, 60), (30, 500, 30), (55, 480, 5)) is None


def test_only_the_last_seconds_tell_how_fast_it_goes() -> None:
    allowances = Allowances()
    tell(allowances, (0, 10_000, 1000), (1, 4000, 999))

    assert tell(allowances, *((at, 3999 - at, 1000 - at) for at in range(2, 30))) is None


def test_few_calls_are_left_alone_when_they_are_seen_to_last() -> None:
    allowances = Allowances()
    assert tell(allowances, (0, 20, 60)) is not None
    assert tell(allowances, (6, 19, 54), (12, 18, 48), (18, 17, 42)) is None


def test_nothing_left_of_a_window_holds_until_its_reset() -> None:
    allowances = Allowances()
    tell(allowances, (0, 2, 40), (1, 1, 39))

    spread = tell(allowances, (2, 0, 38))

    assert spread is not None
    assert 1 / spread.rate > 38


def test_nothing_left_where_it_comes_back_little_by_little_is_not_waited_for_until_all_is_back() -> None:
    """A bucket's reset moves away with each call."""
    assert tell(Allowances(), (0, 2, 20), (1, 1, 40), (2, 0, 60)) is None
    assert tell(Allowances(), (0, 0, 5)) is not None


def test_nothing_left_of_what_was_never_seen_before_holds_until_a_call_may_try() -> None:
    """Some always tell 0, and serve all the same: they are held no longer than once."""
    spread = tell(Allowances(), (0, 0, 60))

    assert spread is not None
    assert (spread.seconds, spread.rate) == (10.0, 0.05)
    assert tell(Allowances(), (0, 0, 60), (11, 0, 60), (12, 0, 60)) is None


def test_a_new_window_begins_with_what_was_seen_of_the_one_before() -> None:
    allowances = Allowances()
    tell(allowances, (0, 100, 60), (30, 20, 30))

    spread = tell(allowances, (61, 30, 59))

    assert spread is not None
    assert spread.rate == pytest.approx(30 / 59, rel=0.01)
    assert spread.next_rate == 100 / 60


def test_while_it_is_spread_it_is_told_again_only_as_long_as_calls_want_it() -> None:
    busy, idle = Allowances(), Allowances()
    assert tell(busy, *((at, 100 - 2 * at, 60 - at) for at in range(20)), is_spread=True) is not None
    assert tell(idle, *((at, 100 - at / 10, 60 - at) for at in range(20)), is_spread=True) is None


def test_a_pace_that_is_much_slower_than_what_is_left_allows_is_told_anew() -> None:
    def spread_at(rate: float) -> Spread | None:
        return Allowances().observe(TARGET, left(5000, 100), 0, is_spread=True, spread_rate=rate)

    assert spread_at(40) is None
    faster = spread_at(1)
    assert faster is not None
    assert faster.rate == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize("scope", ["tokens", "input_tokens", "TokensPerMinute", "query_cost", "points", "bytes"])
def test_what_does_not_count_calls_slows_nobody_down(scope: str) -> None:
    assert Allowances().observe(TARGET, left(5, 60, scope), 0, is_spread=False) is None


def test_limits_of_one_target_are_kept_apart_by_their_scope() -> None:
    allowances = Allowances()
    allowances.observe(TARGET, left(5000, 3600, "core"), 0, is_spread=False)

    assert allowances.observe(TARGET, left(4999, 3599, "core"), 1, is_spread=False) is None
    assert allowances.observe(TARGET, left(5, 60, "search"), 1, is_spread=False) is not None
    assert allowances.observe(TARGET, left(4998, 3598, "core"), 2, is_spread=False) is None
    assert allowances.observe(Target("github"), left(4998, 3598), 2, is_spread=False) is None


@pytest.mark.parametrize(
    "answer", [Answer(), left(5, LONGEST_RESET_SECONDS + 1), left(5, 0), Answer(remaining=5), Answer(reset_seconds=5)]
)
def test_what_says_too_little_or_lasts_too_long_slows_nobody_down(answer: Answer) -> None:
    assert Allowances().observe(TARGET, answer, 0, is_spread=False) is None


def test_what_is_remembered_is_bounded() -> None:
    allowances = Allowances()
    for number in range(MOST_LIMITS + 10):
        allowances.observe(Target(f"host {number}"), left(FEW, 60), 0, is_spread=False)
    assert len(allowances._limits) <= MOST_LIMITS


@given(
    told=st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0, 1e9), st.floats(0, 1e9), st.booleans()), min_size=1, max_size=30
    )
)
def test_whatever_is_told_the_pace_is_a_number_above_zero(told: list[tuple[float, float, float, bool]]) -> None:
    allowances = Allowances()
    for at, remaining, reset, is_spread in sorted(told):
        spread = allowances.observe(TARGET, left(remaining, reset), at, is_spread=is_spread)
        if spread is not None:
            assert 0 < spread.rate <= max(1.0, remaining) / spread.seconds
            assert 0 < spread.next_rate < math.inf
            assert spread.seconds == (reset if remaining >= 1 else min(reset, spread.seconds))


# The turns.


def taken_until(state: SpreadState, now_ms: int, until_ms: int, wanted: int = 1000) -> tuple[SpreadState, list[float]]:
    """Take every turn as soon as it is due; return when they are."""
    turns: list[float] = []
    while now_ms < until_ms:
        grant = spread_turns(state, now_ms, wanted, HORIZON_MS)
        turns += [now_ms + grant.first_ms + number * grant.spacing_ms for number in range(grant.count)]
        state = spread_taken(state, now_ms, grant.count)
        now_ms += max(1, math.ceil(grant.first_ms + max(0, grant.count - 1) * grant.spacing_ms))
    return state, turns


@given(remaining=st.integers(1, 100), for_ms=st.integers(1000, 100_000))
def test_no_more_turns_than_are_left_are_given_before_the_reset_and_they_are_evenly_spaced(
    remaining: int, for_ms: int
) -> None:
    state = spread(None, 1000, 1000 * remaining / for_ms, for_ms, 1.0)
    _, turns = taken_until(state, 1000, 1000 + for_ms)

    before = [turn for turn in turns if turn < 1000 + for_ms]
    assert remaining - 2 <= len(before) <= remaining
    gaps = [later - turn for turn, later in itertools.pairwise(before)]
    assert all(gap == pytest.approx(for_ms / remaining, abs=1.001) for gap in gaps)


def test_nobody_waits_beyond_the_reset_and_then_the_next_pace_counts() -> None:
    state = spread(None, 0, 0.001, 2000, 50.0)
    assert spread_turns(state, 0, 5, HORIZON_MS).first_ms == 2000
    assert spread_turns(state, 1900, 5, HORIZON_MS).count == 0

    grant = spread_turns(state, 2000, 1000, HORIZON_MS)

    assert (grant.first_ms, grant.spacing_ms, grant.count) == (0, 20, 13)
    assert state.until_ms == 2000 + SPREAD_GRACE_MS


def test_a_faster_pace_shortens_the_wait_and_a_slower_one_does_not_give_a_turn_at_once() -> None:
    slow = spread(None, 0, 0.1, 60_000, 1.0)
    assert spread_turns(spread(slow, 100, 2.0, 60_000, 1.0), 100, 1, HORIZON_MS).first_ms == 500
    assert spread_turns(spread(slow, 100, 0.01, 60_000, 1.0), 100, 1, HORIZON_MS).first_ms == 9900


def test_turns_that_are_given_back_are_given_again() -> None:
    state = spread(None, 0, 10.0, 60_000, 1.0)
    used = spread_taken(state, 1000, 5)

    assert spread_turns(spread_taken(used, 1000, -5), 1000, 5, HORIZON_MS).first_ms == 0
