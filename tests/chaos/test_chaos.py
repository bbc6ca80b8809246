"""A short chaos run; the long one is ``make chaos``."""

from __future__ import annotations

from tests.chaos.driver import Chaos

SEED = 20


async def test_processes_that_live_through_random_faults_lose_nothing_and_agree_at_every_quiet_point() -> None:
    outcome = await Chaos(seconds=10.0, seed=SEED, processes=4).run()

    assert outcome.quiet_points >= 2
    assert sum(outcome.faults.values()) >= 3
    assert outcome.acknowledged > 50
    assert outcome.reads > 1000
    assert outcome.waits > 10
