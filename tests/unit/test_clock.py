"""What is known of the server's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator import clock
from rate_coordinator.clock import STEP_TOLERANCE_SECONDS, ServerClock, server_time

START_MS = 1_700_000_000_000
trips = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=10)


def travel(server_clock: ServerClock, trips: list[tuple[float, float, float]], at: float, offset_ms: int) -> float:
    for pause, there, back in trips:
        sent_at = at + pause
        at = sent_at + there + back
        server_clock.observe(int((sent_at + there) * 1000) + offset_ms, sent_at, at)
    return at


@given(trips)
def test_a_steady_clock_is_never_taken_for_a_stepped_one(trips: list[tuple[float, float, float]]) -> None:
    server_clock = ServerClock()

    travel(server_clock, trips, 50.0, START_MS)

    assert server_clock.generation == 0


@given(trips, st.integers(8_000, 10**10), st.sampled_from([-1, 1]))
def test_a_stepped_clock_is_noticed_by_the_next_round_trip(
    trips: list[tuple[float, float, float]], step_ms: int, sign: int
) -> None:
    """P13: a step that is longer than a round trip and the tolerance cannot hide."""
    server_clock = ServerClock()
    at = travel(server_clock, trips, 50.0, START_MS)

    travel(server_clock, trips, at, START_MS + sign * step_ms)

    assert server_clock.generation == 1


@given(trips, st.floats(0, 1_000))
def test_the_estimate_is_never_ahead_of_the_server_and_behind_by_no_more_than_the_way_back(
    trips: list[tuple[float, float, float]], later: float
) -> None:
    server_clock = ServerClock()
    at = travel(server_clock, trips, 50.0, START_MS)

    estimate = server_clock.estimate_ms(at + later)

    truth = (at + later) * 1000 + START_MS
    assert estimate is not None
    assert truth - trips[-1][2] * 1000 - 3 <= estimate <= truth


def test_without_a_round_trip_nothing_is_known() -> None:
    assert ServerClock().estimate_ms(5.0) is None
    server_clock = ServerClock()
    server_clock.hear(START_MS, 5.0)
    assert server_clock.estimate_ms(5.0) is None
    assert server_clock.generation == 0


def test_a_time_told_one_way_shows_a_clock_that_was_put_forward_once() -> None:
    """P13."""
    server_clock = ServerClock()
    server_clock.observe(START_MS, 0.0, 0.1)

    server_clock.hear(START_MS + 1_000, 1.0)
    server_clock.hear(START_MS + 1_000, 60.0)
    assert server_clock.generation == 0, "it was only long on its way"

    server_clock.hear(START_MS + 3_600_000, 2.0)
    server_clock.hear(START_MS + 3_600_000 + 1_000, 3.0)
    server_clock.observe(START_MS + 3_600_000 + 2_000, 4.0, 4.1)
    assert server_clock.generation == 1

    server_clock.observe(START_MS + 5_000, 5.0, 5.1)
    assert server_clock.generation == 2, "put back again"


def test_what_is_within_the_tolerance_is_no_step() -> None:
    server_clock = ServerClock()
    server_clock.observe(START_MS, 0.0, 0.0)
    server_clock.observe(START_MS + 1_000 + int(STEP_TOLERANCE_SECONDS * 1000), 1.0, 1.0)

    assert server_clock.generation == 0


@given(st.integers(0, 253_402_300_799_999))
def test_the_servers_time_is_exact_to_the_millisecond_and_knows_its_zone(ms: int) -> None:
    """P04 P15."""
    told = server_time(ms)

    assert told.tzinfo is UTC
    assert told - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(milliseconds=ms)


def test_this_processs_clock_only_goes_forward_and_counts_seconds() -> None:
    """P14: it is no wall clock."""
    readings = [clock.now() for _ in range(1_000)]
    assert readings == sorted(readings)
    before, wall = clock.now(), time.monotonic()
    time.sleep(0.02)
    assert abs((clock.now() - before) - (time.monotonic() - wall)) < 0.01
    assert abs(clock.now() - time.time()) > 3600


@given(trips, st.floats(0, 100))
def test_how_long_ago_something_was_is_known_within_half_a_round_trip(
    trips: list[tuple[float, float, float]], age: float
) -> None:
    server_clock = ServerClock()
    at = travel(server_clock, trips, 50.0, START_MS)
    _, there, back = trips[-1]

    told = server_clock.age_seconds(START_MS + int((at - age) * 1000), at)

    assert told is not None
    assert told >= 0.0
    assert abs(told - age) <= (there + back) / 2 + 0.003


def test_how_long_ago_something_was_is_not_known_without_a_round_trip() -> None:
    server_clock = ServerClock()
    assert server_clock.age_seconds(START_MS, 50.0) is None
    server_clock.observe(START_MS, 50.0, 50.1)
    server_clock.hear(START_MS + 3_600_000, 50.2)
    assert server_clock.age_seconds(START_MS + 3_600_000, 50.3) is None
