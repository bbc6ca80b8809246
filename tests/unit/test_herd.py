"""What the benchmark of the herd rests on: upstreams that limit as they say, an oracle that is right, fair counts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fakeredis import FakeRedis
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.herd.histogram import BIN_SECONDS, Axis, Histogram
from benchmarks.herd.oracle import script_of
from benchmarks.herd.policies import MEAN_LATENCY_SECONDS, SECOND_NS, FixedWindow, Policy, TokenBucket
from benchmarks.herd.runs import Run
from benchmarks.herd.svg import draw
from benchmarks.herd.tables import table
from benchmarks.herd.upstream import Request

START_NS = 1_000 * SECOND_NS
MICROSECOND_NS = 1_000
BUCKET = TokenBucket(rate=50, burst=5)
WINDOW = FixedWindow(limit=20, window_seconds=1, first_seconds=0.7)
policies = st.sampled_from([BUCKET, TokenBucket(rate=50, burst=50), WINDOW])
moments = st.lists(st.integers(0, 5_000_000), min_size=1, max_size=150).map(
    lambda microseconds: [START_NS + each * MICROSECOND_NS for each in sorted(microseconds)]
)


def served(policy: Policy, arrivals_ns: list[int]) -> list[int]:
    gate = policy.gate(START_NS)
    return [now_ns for now_ns in arrivals_ns if gate.refuse(now_ns) is None]


@given(moments)
def test_a_bucket_never_serves_more_than_its_burst_and_what_has_fallen_since(arrivals_ns: list[int]) -> None:
    times = served(BUCKET, arrivals_ns)
    for first, since_ns in enumerate(times):
        for number, now_ns in enumerate(times[first:], start=1):
            assert number <= BUCKET.burst + BUCKET.rate * (now_ns - since_ns) / SECOND_NS + 1e-6


@given(moments)
def test_a_window_serves_its_limit_and_no_more(arrivals_ns: list[int]) -> None:
    def by_window(times_ns: list[int]) -> list[int]:
        numbers = [(at - WINDOW.origin_ns(START_NS)) // SECOND_NS for at in times_ns]
        return [numbers.count(number) for number in range(7)]

    asked, got = by_window(arrivals_ns), by_window(served(WINDOW, arrivals_ns))
    assert got == [min(number, WINDOW.limit) for number in asked]


@given(policies, moments)
def test_who_obeys_retry_after_alone_is_served(policy: Policy, arrivals_ns: list[int]) -> None:
    gate = policy.gate(START_NS)
    refusals = [gate.refuse(now_ns) for now_ns in arrivals_ns]
    if refusals[-1] is not None:
        assert gate.refuse(arrivals_ns[-1] + refusals[-1] * SECOND_NS) is None


def turns_ns(policy: Policy, asked_ns: list[int]) -> list[int]:
    """Return when the oracle lets each call go."""
    text, arguments = script_of(policy, START_NS)
    script = FakeRedis().register_script(text)
    return [at + int(script(["oracle"], [at // MICROSECOND_NS, *arguments])) * MICROSECOND_NS for at in asked_ns]


@given(policies, moments)
def test_whom_the_oracle_lets_go_is_never_refused(policy: Policy, asked_ns: list[int]) -> None:
    # Who waited takes a little longer, as the oracle sees to: an upstream counts from the first call's arrival.
    turns = zip(asked_ns, turns_ns(policy, asked_ns), strict=True)
    arrivals_ns = [turn + MICROSECOND_NS * (1 + (turn > asked)) for asked, turn in turns]
    assert served(policy, sorted(arrivals_ns)) == sorted(arrivals_ns)


@pytest.mark.parametrize("policy", [BUCKET, WINDOW])
def test_the_oracle_takes_no_longer_than_the_ideal(policy: Policy) -> None:
    turns = turns_ns(policy, [START_NS] * 100)
    assert turns == sorted(turns)
    assert (turns[-1] - START_NS) / SECOND_NS + MEAN_LATENCY_SECONDS == pytest.approx(policy.ideal_seconds(100))


def run_of(strategy: str, *requests: tuple[float, bool, float | None], seconds: float = 2.0) -> Run:
    """Return a run of requests: when each was sent, whether it was served, when it was answered, in seconds."""

    def at(moment: float) -> int:
        return START_NS + round(moment * SECOND_NS)

    record = [Request(at(sent), ok, None if answered is None else at(answered)) for sent, ok, answered in requests]
    calls = tuple(0.1 for _, ok, _ in requests if ok)
    return Run(strategy, BUCKET, len(calls), START_NS, 1.0, tuple(record), seconds, calls, None)


WAVE = (
    (0.0, True, 0.1),
    (0.0, False, 0.15),
    (0.05, False, 0.1),  # the first 429 that anyone hears of
    (0.09, False, None),
    (0.2, False, 0.3),
    (0.6, True, 0.7),
)


def test_429s_are_late_when_their_requests_were_sent_after_the_first_one_was_answered() -> None:
    run = run_of("paced", *WAVE)
    assert (run.refused, run.first_wave, run.late) == (4, 3, 1)
    assert run.late_share == pytest.approx(1 / 6)


def test_the_table_says_how_ours_compares_to_the_oracle() -> None:
    ours, oracle = run_of("paced", *WAVE, seconds=2.2), run_of("oracle", WAVE[0], seconds=2.0)
    assert "paced: 1.10 of the oracle's time (≤ 1.15 met), 16.7% late 429s (≤ 2% MISSED)" in table(
        [ours, oracle], markdown=False
    )


def test_requests_are_counted_in_the_bin_that_they_were_sent_in() -> None:
    histogram = Histogram.of(run_of("paced", *WAVE))
    assert (histogram.served, histogram.refused) == ((1, 1), (4, 0))
    assert histogram.seconds == 2 * BIN_SECONDS


@given(st.floats(0.1, 1e6))
def test_an_axis_has_a_handful_of_ticks_and_room_for_all(value: float) -> None:
    axis = Axis.up_to([value / 2, value])
    assert axis.end >= value
    assert 2 <= len(axis.ticks) <= 9
    assert all(one < other for one, other in pairwise(axis.ticks))


def test_both_pictures_are_small_say_what_they_show_and_have_the_same_axes(tmp_path: Path) -> None:
    once = run_of("released-at-once", *WAVE, *[(1.5, False, 1.6)] * 30)
    paths = draw([once, run_of("retry", *WAVE), run_of("paced", *WAVE)], tmp_path)
    assert [path.name for path in paths] == ["herd-released-at-once.svg", "herd-paced.svg"]
    seen = []
    for path in paths:
        picture = ElementTree.parse(path).getroot()
        words = ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert picture.find("{http://www.w3.org/2000/svg}title") is not None
        assert picture.find("{http://www.w3.org/2000/svg}desc") is not None
        assert "seconds since the start" in words
        assert "href" not in path.read_text()
        seen.append([word for word in words if word.replace(".", "").isdigit()])
    assert seen[0] == seen[1]
