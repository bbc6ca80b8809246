"""Short chaos runs; the long ones are ``make chaos``."""

from __future__ import annotations

import pytest

from tests.chaos.driver import SCENES, Chaos

SEED = 20


@pytest.mark.timeout(180)
@pytest.mark.parametrize("place", SCENES)
async def test_processes_that_live_through_random_faults_lose_nothing_and_agree_whenever_it_is_quiet(
    place: str,
) -> None:
    outcome = await Chaos(seconds=10.0, seed=SEED, processes=4, place=place).run()

    assert outcome.quiet_points >= 2
    assert sum(outcome.faults.values()) >= 2
    assert outcome.acknowledged > 50
    assert outcome.reads > 1000
    assert outcome.waits > 10
