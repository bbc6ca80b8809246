"""How long to wait before trying again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff

chances = st.floats(0, 1)


@given(st.lists(chances, min_size=1, max_size=2_000))
def test_a_delay_is_never_longer_than_the_longest_however_often_it_failed(chances: list[float]) -> None:
    """P08: nothing overflows."""
    backoff = Backoff()
    ceiling = FIRST_SECONDS
    for chance in chances:
        assert backoff.next_delay(chance) == ceiling * chance
        ceiling = min(2 * ceiling, LONGEST_SECONDS)


def test_a_million_failures_leave_the_longest_delay() -> None:
    """P08."""
    backoff = Backoff()
    for _ in range(1_000_000):
        backoff.next_delay(1.0)
    assert backoff.next_delay(1.0) == LONGEST_SECONDS


def test_success_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay(1.0)
    backoff.reset()
    assert backoff.next_delay(1.0) == FIRST_SECONDS
