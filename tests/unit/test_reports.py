"""A report on its way, before any server is concerned."""

from __future__ import annotations

import pytest

from rate_coordinator.mirror import Limit
from rate_coordinator.models import FIRST_ID, EntryId
from rate_coordinator.reports import UNKNOWN_AGE_MS, Report
from rate_coordinator.targets import Target

SET_AT_MS = 1_700_000_000_000
NOW = 50.0


@pytest.mark.parametrize(
    ("event_id", "wait_ms", "age_ms"),
    [
        (EntryId(SET_AT_MS, 3), 30_000, 12_000),
        (EntryId(SET_AT_MS, 3), None, 12_000),
        (FIRST_ID, 30_000, 12_000),
        (FIRST_ID, None, UNKNOWN_AGE_MS),
    ],
    ids=["all is known", "told by a reply", "its event is lost", "only the resume time is known"],
)
def test_a_limit_that_is_put_back_is_as_old_as_can_be_told_so_that_only_later_clears_win(
    event_id: EntryId, wait_ms: int | None, age_ms: int
) -> None:
    limit = Limit(Target("openai"), event_id, SET_AT_MS + 30_000, NOW + 18.0, 0, wait_ms)

    report = Report.restoring(limit, NOW)

    assert report.wait.wait_ms == 18_000
    assert report.age_ms == age_ms
