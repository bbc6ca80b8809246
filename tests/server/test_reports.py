"""What a report does, for the process that makes it and for all others."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rate_coordinator import MAX_WAIT_SECONDS, RateLimitEvent, ReportResult
from tests.conftest import Make, Place
from tests.servers import eventually

NAMES = ["openai", "a:b", "{ns}", "100%", "a b", "a/b", "ключ🗝️", "%2F", "a\\b\"c'", "x" * 256, "🗝" * 256]


async def test_a_report_limits_every_coordinator_of_the_namespace(place: Place, make: Make) -> None:
    reporter, other = await make(), await make()
    result = await reporter.report_rate_limit("openai", 30.0, "job", 7)
    assert result.delivered
    assert result.extended
    assert not result.clamped
    assert 29.9 < result.seconds_remaining <= 30.0
    await eventually(lambda: other.active_limits)
    limited, seconds = await other.is_rate_limited("openai")
    assert limited
    assert 29.0 < seconds <= 30.0


async def test_the_reporter_reads_its_own_report_at_once(place: Place, make: Make) -> None:
    coordinator = await make()
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)
    await coordinator.report_rate_limit("openai", 30.0)
    limited, seconds = await coordinator.is_rate_limited("openai")
    assert limited
    assert 29.0 < seconds <= 30.0
    assert list(coordinator.active_limits) == ["openai"]
    assert [event.backend_type for event in coordinator.recent_events] == ["openai"]


async def test_a_longer_report_extends_the_limit(place: Place, make: Make) -> None:
    coordinator = await make()
    first = await coordinator.report_rate_limit("openai", 10.0)
    second = await coordinator.report_rate_limit("openai", 20.0)
    assert second.extended
    assert first.resume_at is not None
    assert second.resume_at is not None
    assert second.resume_at - first.resume_at >= timedelta(seconds=10)
    assert (await coordinator.is_rate_limited("openai"))[1] > 19.0


async def test_a_shorter_report_never_cuts_a_longer_limit(place: Place, make: Make) -> None:
    """P01."""
    coordinator = await make()
    first = await coordinator.report_rate_limit("openai", 20.0)
    second = await coordinator.report_rate_limit("openai", 10.0)
    assert not second.extended
    assert second.resume_at == first.resume_at
    assert 19.0 < second.seconds_remaining <= 20.0
    assert (await coordinator.is_rate_limited("openai"))[1] > 19.0
    assert len(coordinator.recent_events) == 2


@pytest.mark.parametrize("name", NAMES)
async def test_any_printable_name_is_a_backend_and_a_model(place: Place, make: Make, name: str) -> None:
    reporter, other = await make(), await make()
    await reporter.report_rate_limit(name, 30.0)
    await reporter.report_rate_limit("backend", 30.0, model=name)
    await eventually(lambda: set(other.active_limits) == {name, f"backend/{name}"})
    assert (await other.is_rate_limited(name))[0]
    assert (await other.is_rate_limited("backend", name))[0]
    assert not (await other.is_rate_limited("backend"))[0]
    assert await other.clear_limits(name) == 1
    assert await other.clear_limits("backend", model=name) == 1


async def test_names_that_look_alike_inside_a_key_do_not_collide(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("a/b", 30.0)
    assert await coordinator.is_rate_limited("a", "b") == (False, 0.0)
    assert await coordinator.is_rate_limited("a%2Fb") == (False, 0.0)
    assert (await coordinator.is_rate_limited("a/b"))[0]


BAD_NAMES: list[Any] = ["", "x" * 257, "a\nb", "\x00", "a\x7f", "\x85", "\ud800", None, 5, b"openai", ["openai"], True]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_anything_else_is_refused_by_name(place: Place, make: Make, name: Any) -> None:
    coordinator = await make()
    for use in (
        lambda: coordinator.report_rate_limit(name, 5.0),
        lambda: coordinator.is_rate_limited(name),
        lambda: coordinator.wait_until_clear(name),
        lambda: coordinator.wait_until_any_clear([name]),
        lambda: coordinator.explain(name),
    ):
        with pytest.raises(ValueError, match="backend") as caught:
            await use()
        assert repr(name)[:40] in str(caught.value) or "characters" in str(caught.value)
    if name is not None:
        with pytest.raises(ValueError, match="model"):
            await coordinator.report_rate_limit("openai", 5.0, model=name)
        with pytest.raises(ValueError, match="model"):
            await coordinator.is_rate_limited("openai", name)
        with pytest.raises(ValueError, match="backend"):
            await coordinator.clear_limits(name)
    assert coordinator.active_limits == {}
    assert await coordinator.events() == []


@pytest.mark.parametrize(
    ("asked", "stored", "clamped"),
    [
        (math.nan, 0.0, "not_finite"),
        (math.inf, 0.0, "not_finite"),
        (-math.inf, 0.0, "not_finite"),
        (float("1e999"), 0.0, "not_finite"),
        (-5.0, 0.0, "negative"),
        (-0.0, 0.0, None),
        (0, 0.0, None),
        (0.0, 0.0, None),
        (3600.0, 3600.0, None),
        (3600.001, 3600.0, "above_cap"),
        (10**400, 3600.0, "above_cap"),
        (-(10**400), 0.0, "negative"),
        (253402300799.0, 3600.0, "above_cap"),
        (1795500877944, 3600.0, "above_cap"),
        (0.0004, 0.001, None),
        (0.29, 0.29, None),
        (1, 1.0, None),
    ],
    ids=str,
)
async def test_bad_waits_count_as_said(
    place: Place, make: Make, asked: float, stored: float, clamped: str | None
) -> None:
    """P06 P07 P10: what is stored is bounded, what was asked stays on record, and 0 stays 0."""
    coordinator = await make()
    result = await coordinator.report_rate_limit("openai", asked)
    assert result.clamped == (clamped is not None)
    assert result.wait_seconds == stored
    (event,) = coordinator.recent_events
    (recorded,) = await coordinator.events()
    for told in (event, recorded):
        assert told.suggested_wait_seconds == stored
        assert told.clamped == clamped
        if not isinstance(asked, int) or abs(asked) < 10**300:
            assert told.asked_wait_seconds == asked or math.isnan(asked)
    assert result.extended == (stored > 0)
    assert bool(result.resume_at) == (stored > 0)
    if stored == 0.0:
        assert await coordinator.is_rate_limited("openai") == (False, 0.0)
        assert coordinator.active_limits == {}
        assert await coordinator.clear_limits() == 0


async def test_a_wait_that_is_not_finite_is_warned_about(
    place: Place, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """P07."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", math.nan)
    assert [record for record in caplog.records if "not finite" in record.getMessage()]


@pytest.mark.parametrize("wait", ["5", "1e999", True, False, None, [5], b"5", 1 + 2j, object], ids=repr)
async def test_a_wait_that_is_no_number_is_refused_and_loses_nothing(place: Place, make: Make, wait: Any) -> None:
    """P07."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 30.0)
    with pytest.raises(ValueError, match="wait_seconds must be a number of seconds"):
        await coordinator.report_rate_limit("openai", wait)
    assert len(await coordinator.events()) == 1
    assert (await coordinator.is_rate_limited("openai"))[1] > 29.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"job_id": 5},
        {"job_id": "x" * 1025},
        {"job_id": "\ud800"},
        {"sheet_num": "1"},
        {"sheet_num": True},
        {"sheet_num": 2**63},
        {"sheet_num": 1.5},
        {"reason": "because"},
        {"reason": ["quota"]},
        {"sent_at": "now"},
        {"sent_at": math.nan},
        {"sent_at": 1e18},
    ],
    ids=str,
)
async def test_bad_details_are_refused_by_name(place: Place, make: Make, arguments: dict[str, Any]) -> None:
    coordinator = await make()
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        await coordinator.report_rate_limit("openai", 5.0, **arguments)
    assert await coordinator.events() == []


async def test_a_models_limit_does_not_limit_its_siblings(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("claude", 30.0, model="opus")
    assert (await coordinator.is_rate_limited("claude", "opus"))[0]
    assert await coordinator.is_rate_limited("claude", "sonnet") == (False, 0.0)
    assert await coordinator.is_rate_limited("claude") == (False, 0.0)


async def test_a_backends_limit_limits_all_its_models(place: Place, make: Make) -> None:
    coordinator = await make()
    assert await coordinator.is_rate_limited("claude", "opus") == (False, 0.0)
    await coordinator.report_rate_limit("claude", 10.0, model="opus")
    await coordinator.report_rate_limit("claude", 30.0)
    assert (await coordinator.is_rate_limited("claude", "opus"))[1] > 29.0
    assert (await coordinator.is_rate_limited("claude", "haiku"))[1] > 29.0
    assert await coordinator.is_rate_limited("gemini", "opus") == (False, 0.0)


async def test_events_carry_what_was_reported_in_server_time(place: Place, make: Make) -> None:
    reporter, other = await make(reporter="left"), await make()
    await reporter.report_rate_limit(
        "claude", 30.5, "jöb", -3, model="opus", reason="overloaded", sent_at=asyncio.get_running_loop().time() - 2
    )
    await eventually(lambda: other.recent_events)
    for event in (*other.recent_events, *reporter.recent_events, *await other.events()):
        assert isinstance(event, RateLimitEvent)
        assert (event.backend_type, event.model, event.job_id, event.sheet_num) == ("claude", "opus", "jöb", -3)
        assert (event.suggested_wait_seconds, event.asked_wait_seconds, event.clamped) == (30.5, 30.5, None)
        assert (event.reason, event.reporter, event.kind, event.extended) == ("overloaded", "left", "report", True)
        assert event.call_age_ms is not None
        assert 2000 <= event.call_age_ms < 4000
        assert event.detected_at.tzinfo is UTC
        assert abs(event.detected_at - datetime.now(UTC)) < timedelta(seconds=60)
        assert event.resume_at is not None
        # The event's ID is made within the script's step, not at its very beginning.
        assert timedelta(seconds=30.49) < event.resume_at - event.detected_at <= timedelta(seconds=30.5)
        with pytest.raises(ValueError, match="frozen"):
            event.job_id = "other"  # type: ignore[misc]


async def test_recent_events_are_newest_first_and_each_once(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    for number in range(5):
        await one.report_rate_limit("openai", 1.0 + number, "job", number)
    await two.refresh()
    assert [event.sheet_num for event in one.recent_events] == [4, 3, 2, 1, 0]
    assert [event.sheet_num for event in two.recent_events] == [4, 3, 2, 1, 0]
    await two.refresh()
    assert len(two.recent_events) == 5


async def test_a_report_that_extends_nothing_is_known_to_others_after_a_refresh(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.report_rate_limit("openai", 30.0)
    await one.report_rate_limit("openai", 1.0)
    await two.refresh()
    assert [event.suggested_wait_seconds for event in two.recent_events] == [1.0, 30.0]


async def test_a_coordinator_that_starts_later_knows_limits_and_events(place: Place, make: Make) -> None:
    """P11: what remains is told, not what was configured."""
    one = await make()
    first = await one.report_rate_limit("openai", 30.0, "job", 1)
    await asyncio.sleep(0.05)
    late = await make()
    limited, seconds = await late.is_rate_limited("openai")
    assert limited
    assert seconds < 29.97
    assert first.resume_at == late.limits[0].resume_at
    assert [event.job_id for event in late.recent_events] == ["job"]


async def test_what_remains_decreases(place: Place, make: Make) -> None:
    """P11."""
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 30.0)
    seen = [(await coordinator.is_rate_limited("openai"))[1]]
    for _ in range(20):
        await asyncio.sleep(0.002)
        seen.append((await coordinator.is_rate_limited("openai"))[1])
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen)


async def test_the_cap_can_be_configured(place: Place, make: Make) -> None:
    """P06."""
    coordinator = await make(max_wait_seconds=5 * 3600.0)
    result = await coordinator.report_rate_limit("openai", 4 * 3600.0)
    assert not result.clamped
    assert MAX_WAIT_SECONDS == 3600.0
    result = await coordinator.report_rate_limit("openai", 6 * 3600.0)
    assert result.clamped
    assert result.seconds_remaining == 5 * 3600.0


async def test_sub_second_limits_are_kept_to_the_millisecond(place: Place, make: Make) -> None:
    """P15."""
    coordinator = await make()
    result = await coordinator.report_rate_limit("openai", 0.25)
    assert 0.24 < result.seconds_remaining <= 0.25
    assert 0.2 < (await coordinator.is_rate_limited("openai"))[1] <= 0.25
    waited = await coordinator.wait_until_clear("openai", timeout=5)
    assert 0.15 < waited < 2
    assert await coordinator.is_rate_limited("openai") == (False, 0.0)
    assert coordinator.active_limits == {}


async def test_clear_lifts_a_backend_and_its_models_and_counts_each(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    for model in (None, "opus", "sonnet"):
        await one.report_rate_limit("claude", 30.0, model=model)
    await one.report_rate_limit("claude2", 30.0)
    assert await two.clear_limits("claude") == 3
    assert set(two.active_limits) == {"claude2"}
    await eventually(lambda: set(one.active_limits) == {"claude2"})
    assert await two.clear_limits("claude") == 0


async def test_clear_of_a_model_leaves_the_rest(place: Place, make: Make) -> None:
    coordinator = await make()
    for model in (None, "opus", "sonnet"):
        await coordinator.report_rate_limit("claude", 30.0, model=model)
    assert await coordinator.clear_limits("claude", model="opus") == 1
    assert set(coordinator.active_limits) == {"claude", "claude/sonnet"}


async def test_clear_of_everything_keeps_the_events(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    for number in range(30):
        await one.report_rate_limit(f"backend {number}", 30.0)
    assert await two.clear_limits() == 30
    assert await two.clear_limits() == 0
    await eventually(lambda: not one.active_limits)
    assert len(one.recent_events) == 30
    kinds = [event.kind for event in await one.events()]
    assert kinds.count("report") == 30
    assert kinds.count("clear") == 31


async def test_a_limit_can_be_set_again_after_a_clear(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await one.report_rate_limit("openai", 100.0)
    await one.clear_limits("openai")
    result = await one.report_rate_limit("openai", 10.0)
    assert result.extended
    assert result.seconds_remaining <= 10.0
    await eventually(lambda: 0 < two.active_limits.get("openai", 99) <= 10)


async def test_clear_of_a_model_without_its_backend_is_refused(place: Place, make: Make) -> None:
    coordinator = await make()
    with pytest.raises(ValueError, match="opus"):
        await coordinator.clear_limits(model="opus")


async def test_ten_thousand_concurrent_reports_are_events_of_their_own_in_a_few_calls(place: Place, make: Make) -> None:
    coordinator = await make(max_events=20_000)
    before = coordinator.health.script_calls
    results: list[ReportResult] = await asyncio.gather(
        *(coordinator.report_rate_limit("openai", 10 + number / 1000, "job", number) for number in range(10_000))
    )
    assert coordinator.health.script_calls - before <= 200
    assert len({result.event_id for result in results}) == 10_000
    assert all(result.delivered for result in results)
    assert 19.0 < (await coordinator.is_rate_limited("openai"))[1] <= 20.0
    events = await coordinator.events()
    assert sorted(event.sheet_num or 0 for event in events) == list(range(10_000))


async def test_prune_stale_removes_nothing_that_is_younger_than_an_hour(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 1.0)
    assert await coordinator.prune_stale() == 0
    assert len(await coordinator.events()) == 1


async def test_events_can_be_narrowed(place: Place, make: Make) -> None:
    coordinator = await make()
    ids = [(await coordinator.report_rate_limit("openai", 1.0, sheet_num=number)).event_id for number in range(6)]
    assert [event.sheet_num for event in await coordinator.events(count=2)] == [5, 4]
    assert [event.sheet_num for event in await coordinator.events(since=ids[3])] == [5, 4]
    assert await coordinator.events(count=0) == []
    assert len(await coordinator.events(since=60.0)) == 6
    assert len(await coordinator.events(since=timedelta(minutes=1))) == 6
    assert await coordinator.events(since=datetime.now(UTC) + timedelta(hours=1)) == []
    oldest = (await coordinator.events())[-1]
    assert len(await coordinator.events(since=oldest.detected_at)) == 6


@pytest.mark.parametrize(
    "arguments",
    [
        {"since": datetime(2026, 1, 1)},
        {"since": "yesterday"},
        {"since": -1.0},
        {"since": math.nan},
        {"since": True},
        {"count": -1},
        {"count": 1.5},
        {"count": True},
    ],
    ids=str,
)
async def test_a_bad_selection_of_events_is_refused(place: Place, make: Make, arguments: dict[str, Any]) -> None:
    coordinator = await make()
    with pytest.raises(ValueError, match=r"since|count|entry ID"):
        await coordinator.events(**arguments)


async def test_explain_tells_which_report_set_the_resume_time(place: Place, make: Make) -> None:
    """P54: no limit without a visible cause."""
    one, two = await make(reporter="one"), await make(reporter="two")
    await one.report_rate_limit("claude", 10.0, "first", 1)
    await two.report_rate_limit("claude", 99_999.0, "second", 2, reason="quota")
    await one.report_rate_limit("claude", 20.0, "third", 3)
    await one.report_rate_limit("other", 20.0, "elsewhere", 3)
    told = await one.explain("claude")
    assert told.limited
    assert told.cause is not None
    assert (told.cause.job_id, told.cause.reporter, told.cause.reason) == ("second", "two", "quota")
    assert (told.cause.asked_wait_seconds, told.cause.suggested_wait_seconds) == (99_999.0, 3600.0)
    assert told.cause.clamped == "above_cap"
    assert told.resume_at == told.cause.resume_at
    assert 3590 < told.seconds_remaining <= 3600
    assert [event.job_id for event in told.before] == ["first"]
    assert [event.job_id for event in told.since] == ["third"]
    of_model = await one.explain("claude", "opus")
    assert of_model.limited
    assert of_model.cause == told.cause
    clear = await one.explain("openai")
    assert (clear.limited, clear.cause, clear.resume_at, clear.seconds_remaining) == (False, None, None, 0.0)


async def test_the_cause_is_known_after_its_event_was_cut_from_the_stream(place: Place, make: Make) -> None:
    """P54."""
    coordinator = await make(max_events=1)
    await coordinator.report_rate_limit("claude", 500.0, "cause", 1, model="opus")
    # Streams are cut by whole nodes of a hundred entries.
    await asyncio.gather(*(coordinator.report_rate_limit("noise", 1.0) for _ in range(1000)))
    late = await make()
    told = await late.explain("claude", "opus")
    assert told.cause is not None
    assert (told.cause.job_id, told.cause.suggested_wait_seconds) == ("cause", 500.0)


async def test_two_namespaces_do_not_see_each_other(place: Place, make: Make) -> None:
    one, two = await make(namespace="one"), await make(namespace="two")
    await one.report_rate_limit("openai", 30.0)
    await two.refresh()
    assert two.active_limits == {}
    assert await two.clear_limits() == 0
    assert (await one.is_rate_limited("openai"))[0]


async def test_a_limit_tells_who_set_it_in_every_process_from_the_moment_it_is_known(place: Place, make: Make) -> None:
    """P54: in the reporter's own too."""
    one, two = await make(reporter="one"), await make(reporter="two")
    await one.report_rate_limit("claude", 10.0, "job", 3, model="opus", reason="quota")
    await eventually(lambda: two.limits)
    for coordinator in (one, two):
        (limit,) = coordinator.limits
        assert (limit.reporter, limit.job_id, limit.sheet_num, limit.reason) == ("one", "job", 3, "quota")
        assert limit.delivered
