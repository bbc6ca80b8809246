"""What the pace costs: calls that are refused although a limit is known, and time, against the best possible schedule.

The seeds are none of those that the pace was tuned with.
"""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from tests.pacing.scenarios import CONTROLLERS, FURTHER, GIVEN, HARDER, LATE_COUNT, SCENARIOS, run

SEEDS = (100, 101, 102)
MANY_SEEDS = range(100, 106)
MEAN_TIME = 1.12

each_way = pytest.mark.parametrize("way", CONTROLLERS)
AS_SHIPPED = "processes"


def check(name: str, way: str, seed: int) -> None:
    scenario, outcome = SCENARIOS[name], run(name, way, seed)
    print(
        f"\n{name:<40} {way:<10} seed {seed}  time {outcome.time / scenario.ideal_seconds:.3f} of the ideal "
        f"(bound {scenario.time_bound:g})  late {outcome.late} of {outcome.sent}, {outcome.late / outcome.sent:.2%}",
        end="",
    )

    assert outcome.done == scenario.calls
    assert outcome.late <= max(LATE_COUNT, scenario.late_share * outcome.sent)
    assert outcome.time <= scenario.time_bound * scenario.ideal_seconds


@each_way
@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_known_of_an_upstream_costs_few_refusals_and_little_time(name: str, way: str, seed: int) -> None:
    """P17: not everyone goes in the instant in which a limit lifts."""
    check(name, way, seed)


@each_way
def test_the_mean_time_over_all_kinds_of_limits_is_near_the_ideal(way: str) -> None:
    ratios = [run(name, way, seed).time / scenario.ideal_seconds for name, scenario in GIVEN.items() for seed in SEEDS]

    assert math.exp(sum(map(math.log, ratios)) / len(ratios)) <= MEAN_TIME


@pytest.mark.parametrize("name", FURTHER)
def test_other_upstreams_and_workloads_cost_no_more(name: str) -> None:
    check(name, AS_SHIPPED, SEEDS[0])


@pytest.mark.parametrize("name", HARDER)
def test_where_refusals_tell_less_it_costs_more_but_within_bounds(name: str) -> None:
    scenario, outcomes = SCENARIOS[name], [run(name, AS_SHIPPED, seed) for seed in MANY_SEEDS]
    time = fmean(outcome.time for outcome in outcomes) / scenario.ideal_seconds
    late = fmean(outcome.late / outcome.sent for outcome in outcomes)
    print(f"\n{name:<40} time {time:.3f} of the ideal (bound {scenario.time_bound:g})  late {late:.2%}", end="")

    assert all(outcome.done == scenario.calls for outcome in outcomes)
    assert late <= scenario.late_share
    assert time <= scenario.time_bound
