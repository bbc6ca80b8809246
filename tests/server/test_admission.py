"""Calls that are admitted: free while nothing is known, then at a pace that the whole fleet shares."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from rate_coordinator import (
    CoordinatorMisuse,
    LimitWaitTimeout,
    Notice,
    RateLimitCoordinator,
    RateLimited,
)
from rate_coordinator.pacestate import PROBE_LEASE_MS
from rate_coordinator.targets import Target
from tests.conftest import Make, Place
from tests.faults.harness import QUICK
from tests.servers import RedisServer, eventually
from tests.worker import Worker

SERVED = 20


async def learn_a_pace(coordinator: RateLimitCoordinator, backend: str = "openai", wait_seconds: float = 0.2) -> None:
    """Let some calls be served and one be refused, and wait until that is over."""
    for _ in range(SERVED):
        async with coordinator.admit(backend):
            pass
    async with coordinator.admit(backend) as call:
        await call.limited(wait_seconds)
    await coordinator.wait_until_clear(backend)


async def admitted(coordinator: RateLimitCoordinator, count: int, backend: str = "openai") -> list[float]:
    """Let so many calls be admitted at once and return when each was, in order."""

    async def one() -> float:
        async with coordinator.admit(backend):
            return time.monotonic()

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


async def test_while_nothing_is_known_a_call_is_admitted_without_asking_anybody(place: Place, make: Make) -> None:
    coordinator = await make(resync_interval=1000)
    calls = coordinator.health.script_calls
    for _ in range(1000):
        async with coordinator.admit("openai", model="gpt", timeout=0) as call:
            assert call.waited_seconds < 0.1
    assert coordinator.health.script_calls == calls
    assert coordinator.health.paces == ()
    assert await coordinator.pace("openai") is None


async def test_after_a_refusal_calls_go_one_after_the_other_and_never_before_the_resume_time(
    place: Place, make: Make
) -> None:
    """P09 P17."""
    coordinator = await make()
    for _ in range(SERVED):
        async with coordinator.admit("openai"):
            pass
    async with coordinator.admit("openai") as call:
        result = await call.limited(0.3)
    assert result.delivered
    assert result.extended
    resumes_at = time.monotonic() + result.seconds_remaining
    times = await admitted(coordinator, 12)
    assert times[0] >= resumes_at - 0.002
    # The others follow at a pace: not all in the same instant.
    assert times[-1] - times[1] > 0.1
    (pace,) = coordinator.health.paces
    assert (pace.backend, pace.model, pace.alone, pace.processes) == ("openai", None, False, 1)
    assert 1.0 < pace.rate < 200.0
    assert 850.0 < pace.forgets_seconds <= 901.0
    assert pace.admitted_per_second >= 1.2


async def turns_taken(coordinator: RateLimitCoordinator) -> int:
    """Return how many turns the whole fleet has taken since the last refusal."""
    key = coordinator._engine.keys.pace(Target("openai"))
    told: bytes = await coordinator._engine.store._exchange(lambda link: link.call("HGET", key, "sent"))
    return int(float(told))


async def test_all_processes_share_one_pace(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await learn_a_pace(one)
    await eventually(lambda: two.health.paces)
    await admitted(one, 1)
    before = await turns_taken(one)
    both = await asyncio.gather(admitted(one, 10), admitted(two, 10))
    assert await turns_taken(two) - before == 20
    times = sorted([*both[0], *both[1]])
    (pace,) = two.health.paces
    # At its present pace or slower, but for what is made up for: 50 ms.
    assert times[-1] - times[0] > 18 / pace.rate - 0.1
    assert max(seen.processes for seen in (*one.health.paces, *two.health.paces)) == 2


async def test_a_pace_is_known_to_who_comes_later(place: Place, make: Make) -> None:
    await learn_a_pace(await make())
    late = await make()
    (pace,) = late.health.paces
    assert (pace.backend, pace.rate) == ("openai", 0.0), "asked for only where it is needed"
    times = await admitted(late, 6)
    assert times[-1] - times[0] > 0.1
    (pace,) = late.health.paces
    assert pace.rate > 1.0


async def test_a_models_pace_holds_nobody_else(place: Place, make: Make) -> None:
    coordinator = await make()
    async with coordinator.admit("openai", "gpt") as call:
        await call.limited(0.05)
    await coordinator.wait_until_clear("openai", "gpt")
    calls = coordinator.health.script_calls
    await admitted(coordinator, 100)
    async with coordinator.admit("openai", "o1"):
        pass
    assert coordinator.health.script_calls <= calls + 1
    assert [(pace.backend, pace.model) for pace in coordinator.health.paces] == [("openai", "gpt")]


async def test_a_backends_pace_is_kept_by_all_its_models(place: Place, make: Make) -> None:
    coordinator = await make()
    await learn_a_pace(coordinator)

    async def one(model: str) -> float:
        async with coordinator.admit("openai", model):
            return time.monotonic()

    times = sorted(await asyncio.gather(*(one(f"m{number}") for number in range(6))))
    assert times[-1] - times[0] > 0.1


@pytest.mark.parametrize("reason", ["overloaded", "quota"])
async def test_what_is_no_rate_limit_teaches_no_pace(place: Place, make: Make, reason: Any) -> None:
    coordinator = await make()
    async with coordinator.admit("openai") as call:
        assert (await call.limited(0.05, reason=reason)).extended
    await coordinator.wait_until_clear("openai")
    assert await coordinator.pace("openai") is None
    assert coordinator.health.paces == ()


async def test_a_hundred_refusals_at_once_are_one_lesson(place: Place, make: Make) -> None:
    """P23."""
    coordinator = await make()
    await learn_a_pace(coordinator)
    await admitted(coordinator, 1)
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(coordinator.admit("openai")) for _ in range(8)]
        before = coordinator._engine.paces.get(Target("openai"))
        await asyncio.gather(*(call.limited(0.05) for call in calls))
    await coordinator.wait_until_clear("openai")
    await admitted(coordinator, 1)
    after = coordinator._engine.paces.get(Target("openai"))
    assert before
    assert after
    assert after.epoch == before.epoch + 1


async def test_the_late_refusal_of_an_old_call_moves_the_resume_time_and_teaches_nothing(
    place: Place, make: Make
) -> None:
    """P21: also where the call was not admitted, and only tells when it was sent."""
    coordinator = await make()
    sent_at = time.monotonic()
    old = coordinator.admit("openai")
    await old.__aenter__()
    await learn_a_pace(coordinator)
    await admitted(coordinator, 2)
    before = coordinator._engine.paces.get(Target("openai"))
    assert (await old.limited(0.2)).extended
    assert (await coordinator.is_rate_limited("openai"))[0]
    await coordinator.report_rate_limit("openai", 0.3, sent_at=sent_at)
    await coordinator.wait_until_clear("openai")
    await admitted(coordinator, 1)
    after = coordinator._engine.paces.get(Target("openai"))
    assert before
    assert after
    assert after.epoch == before.epoch


async def test_a_clear_forgets_the_pace_for_everyone(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await learn_a_pace(one)
    await eventually(lambda: two.health.paces)
    assert await two.clear_limits("openai") == 0, "the limit is over; the pace is not counted"
    await eventually(lambda: not one.health.paces and not two.health.paces)
    times = await admitted(one, 50)
    assert times[-1] - times[0] < 0.5
    assert next(event.kind for event in await one.events()) in ("clear", "pace")


async def test_a_pace_can_be_forgotten_alone(place: Place, make: Make) -> None:
    one, two = await make(), await make()
    await learn_a_pace(one)
    await eventually(lambda: two.health.paces)
    await one.report_rate_limit("openai", 30.0, reason="quota")
    assert await two.forget_pace("openai")
    assert not await two.forget_pace("openai")
    await eventually(lambda: not one.health.paces)
    assert (await one.is_rate_limited("openai"))[0], "limits stay"
    assert (await one.events())[0].kind == "pace"


async def test_a_pace_is_forgotten_by_itself(place: Place, make: Make) -> None:
    coordinator = await make(forget_after=0.3)
    await learn_a_pace(coordinator, wait_seconds=0.05)
    assert coordinator.health.paces

    async def forgotten() -> bool:
        return await coordinator.pace("openai") is None

    await eventually(forgotten)
    assert not coordinator.health.paces
    late = await make()
    assert late.health.paces == ()


async def test_changes_of_pace_are_notices_and_events_of_their_own(place: Place, make: Make) -> None:
    coordinator, other = await make(), await make()
    heard: list[Notice] = []
    other.on_notice(heard.append)
    await learn_a_pace(coordinator)
    await admitted(coordinator, 1)
    await eventually(lambda: [notice.kind for notice in heard] == ["limit", "pace", "pace"])
    limit, pace, opened = heard
    assert limit.pace_until_ms
    assert pace.pace_until_ms
    assert (pace.target, pace.previous_id) == (Target("openai"), limit.id)
    assert pace.pace_rate
    assert pace.pace_rate > 1.0
    assert (opened.target, opened.probe, opened.pace_rate) == (Target("openai"), "served", None)
    newest, learned, *_ = await other.events()
    assert (newest.kind, newest.backend_type, newest.probe) == ("pace", "openai", "served")
    assert (learned.kind, learned.backend_type, learned.pace_rate) == ("pace", "openai", pace.pace_rate)
    assert [event.kind for event in other.recent_events] == ["report"]
    assert other.health.notices_missed == 0


async def test_a_known_limit_that_outlasts_the_timeout_is_told_at_once(place: Place, make: Make) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 60.0)
    began = time.monotonic()
    with pytest.raises(LimitWaitTimeout):
        async with coordinator.admit("openai", timeout=5.0):
            raise AssertionError("it must not be admitted")
    assert time.monotonic() - began < 1.0
    assert coordinator.health.calls_avoided == 1


async def test_a_call_that_gives_up_or_is_cancelled_leaves_its_turn_to_others(place: Place, make: Make) -> None:
    coordinator = await make()
    await learn_a_pace(coordinator)
    await admitted(coordinator, 1)
    cancelled = [asyncio.create_task(admitted(coordinator, 1)) for _ in range(30)]
    await asyncio.sleep(0)
    with pytest.raises(LimitWaitTimeout):
        async with coordinator.admit("openai", timeout=0.01):
            await asyncio.sleep(0.1)
    for task in cancelled:
        task.cancel()
    await asyncio.wait(cancelled)
    times = await admitted(coordinator, 3)
    assert coordinator._engine.dispenser.waiting(Target("openai")) == 0
    assert times[-1] - times[0] < 2.0


async def test_call_tries_again_what_is_refused_and_nothing_else(place: Place, make: Make) -> None:
    coordinator = await make()
    tries = 0

    async def fetch(served_at: int, *, error: Exception | None = None) -> str:
        nonlocal tries
        tries += 1
        if error:
            raise error
        if tries < served_at:
            raise RateLimited(0.05, "slow down")
        return "served"

    assert await coordinator.call("openai", fetch, 3) == "served"
    assert tries == 3
    tries = 0
    with pytest.raises(RateLimited, match="slow down"):
        await coordinator.call("openai", fetch, 100, attempts=2)
    assert tries == 2
    with pytest.raises(KeyError):
        await coordinator.call("openai", fetch, 1, error=KeyError("other"))
    assert [event.kind for event in await coordinator.events()].count("report") == 4


async def test_paced_makes_each_call_of_a_function_so(place: Place, make: Make) -> None:
    coordinator = await make()
    refused = iter([True, False, False])

    @coordinator.paced("openai", "gpt")
    async def fetch(value: int) -> int:
        """Fetch it."""
        if next(refused):
            raise RateLimited(0.05)
        return value

    assert [await fetch(7), await fetch(value=8)] == [7, 8]
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")
    (event,) = [event for event in await coordinator.events() if event.kind == "report"]
    assert (event.backend_type, event.model) == ("openai", "gpt")


async def test_leaving_by_rate_limited_reports_it_once_and_anything_else_reports_nothing(
    place: Place, make: Make
) -> None:
    coordinator = await make()
    with pytest.raises(RateLimited):
        async with coordinator.admit("openai"):
            raise RateLimited(0.05, reason="overloaded")
    call = coordinator.admit("openai")
    await call.__aenter__()
    await call.limited(0.1, "job", 7)
    refused = RateLimited(0.05)
    await call.__aexit__(RateLimited, refused, None)
    with pytest.raises(ZeroDivisionError):
        async with coordinator.admit("openai"):
            raise ZeroDivisionError
    events = [event for event in await coordinator.events() if event.kind == "report"]
    assert [(event.reason, event.job_id, event.sheet_num) for event in events] == [
        ("rate_limit", "job", 7),
        ("overloaded", None, None),
    ]


async def test_misuse_is_told_clearly(place: Place, make: Make) -> None:
    coordinator = await make()
    call = coordinator.admit("openai")
    with pytest.raises(CoordinatorMisuse, match="after it was admitted"):
        await call.limited(1.0)
    async with call:
        with pytest.raises(CoordinatorMisuse, match="one call"):
            await call.__aenter__()
    for wrong in (0, True, 1.5, "2"):
        with pytest.raises(ValueError, match="attempts"):
            coordinator.paced("openai", attempts=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="attempts"):
            await coordinator.call("openai", asyncio.sleep, 0, attempts=wrong)  # type: ignore[arg-type]
    for priority in (float("nan"), float("inf"), 10**400, "1", True):
        with pytest.raises(ValueError, match="priority"):
            coordinator.admit("openai", priority=priority)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        coordinator.admit("openai", timeout=-1)
    with pytest.raises(ValueError, match="backend"):
        coordinator.admit("")


async def test_garbage_in_the_place_of_a_pace_is_learned_anew(real: Place, make: Make, admin: redis.Redis) -> None:
    coordinator = await make()
    for garbage in ("", "garbage", "1 2 3", "99 " + "0 " * 37, "x" * 100_000):
        await learn_a_pace(coordinator, wait_seconds=0.02)
        admin.set(real.keys.pace(Target("openai")), garbage)
        assert len(await admitted(coordinator, 3)) == 3
        await coordinator.report_rate_limit("openai", 0.02)
        await coordinator.wait_until_clear("openai")
        assert len(await admitted(coordinator, 3)) == 3
        assert coordinator.health.last_error is None
    for key in (real.keys.pace(Target("openai")), real.keys.turns(Target("openai")), real.keys.paces):
        admin.delete(key)
        admin.rpush(key, "garbage")
        assert (await coordinator.report_rate_limit("openai", 0.02)).delivered
        await coordinator.wait_until_clear("openai")
        assert len(await admitted(coordinator, 3)) == 3
        admin.delete(key)


async def test_when_redis_is_away_each_process_goes_on_at_its_share_and_says_so(own_server: RedisServer) -> None:
    async with RateLimitCoordinator.from_url(own_server.url, "test", **QUICK) as coordinator:
        await learn_a_pace(coordinator)
        await admitted(coordinator, 3)
        (before,) = coordinator.health.paces
        await asyncio.to_thread(own_server.stop)
        await eventually(lambda: coordinator.health.state == "degraded")
        times = await admitted(coordinator, 6)
        (alone,) = coordinator.health.paces
        assert alone.alone
        assert times[-1] - times[0] >= 5 / (1.2 * before.rate)
        await asyncio.to_thread(own_server.start)
        await eventually(lambda: coordinator.health.state == "connected")
        assert len(await admitted(coordinator, 3)) == 3


async def test_no_process_starves(own_server: RedisServer) -> None:
    """P18 P50: under constant demand each of eight gets its share; during the limit nobody is let through."""
    seconds, wait_seconds = 8.0, 1.0
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(Worker(own_server.url, "test")) for _ in range(8)]
        for worker in workers:
            await worker.do("demand", "openai", 1, 0.0)
        reporter = await stack.enter_async_context(RateLimitCoordinator.from_url(own_server.url, "test"))
        for _ in range(40):
            async with reporter.admit("openai"):
                pass
        async with reporter.admit("openai") as call:
            await call.limited(wait_seconds)
        limited_at = time.monotonic()
        for worker in workers:
            await worker.do("limited", "openai")
        counts = await asyncio.gather(*(worker.do("demand", "openai", 20, seconds) for worker in workers))
    everyone = sorted(at for times in counts for at in times)
    assert everyone[0] >= limited_at + wait_seconds - 0.05
    fair = len(everyone) / len(workers)
    assert fair >= 10
    assert all(fair / 2 <= len(times) <= fair * 2 for times in counts), [len(times) for times in counts]


async def test_a_process_that_is_killed_takes_no_more_turns_with_it_than_it_was_given(own_server: RedisServer) -> None:
    async with (
        Worker(own_server.url, "test") as doomed,
        RateLimitCoordinator.from_url(own_server.url, "test") as coordinator,
    ):
        await learn_a_pace(coordinator, wait_seconds=0.5)
        demanding = asyncio.create_task(doomed.do("demand", "openai", 50, 30.0))
        turns: Any = own_server.admin
        await eventually(lambda: turns.zcard(coordinator._engine.keys.turns(Target("openai"))) > 0)
        doomed.signal(signal.SIGKILL)
        demanding.cancel()
        await asyncio.wait([demanding])
        began = time.monotonic()
        times = await admitted(coordinator, 10)
        # The lease of a probe, or the horizon's worth of turns, and what its own ten take at the slowest pace.
        assert times[-1] - began < PROBE_LEASE_MS / 1000 + 3.0


async def test_the_pace_is_remembered_for_as_long_as_a_straggler_is_told_to_wait(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    coordinator = await make()
    old = coordinator.admit("openai")
    await old.__aenter__()
    await learn_a_pace(coordinator, wait_seconds=0.05)
    await admitted(coordinator, 1)
    await old.limited(1000.0)
    index: Any = admin.zscore(real.keys.paces, "openai")
    left_ms: Any = admin.pttl(real.keys.pace(Target("openai")))
    now_ms = time.time() * 1000
    assert index - now_ms > 1_899_000
    assert left_ms > 1_899_000
    (pace,) = (await make()).health.paces
    assert pace.forgets_seconds > 1899


async def test_who_only_reports_begins_no_pace_but_one_that_is_kept_learns_from_the_report(
    place: Place, make: Make
) -> None:
    coordinator = await make()
    await coordinator.report_rate_limit("openai", 0.05)
    await coordinator.wait_until_clear("openai")
    assert await coordinator.pace("openai") is None
    await learn_a_pace(coordinator, wait_seconds=0.05)
    await admitted(coordinator, 1)
    before = coordinator._engine.paces.get(Target("openai"))
    await coordinator.report_rate_limit("openai", 0.05)
    await admitted(coordinator, 1)
    after = coordinator._engine.paces.get(Target("openai"))
    assert before
    assert after
    assert after.epoch == before.epoch + 1


async def test_of_very_many_paces_a_snapshot_tells_those_that_are_remembered_for_longest(
    real: Place, make: Make, admin: redis.Redis
) -> None:
    """P43."""
    coordinator = await make(resync_interval=1000)
    await learn_a_pace(coordinator)
    later_ms = time.time() * 1000 + 10_000_000
    admin.zadd(real.keys.paces, {f"b{number}": later_ms + number for number in range(3000)})
    await coordinator.refresh()
    told = {pace.backend for pace in coordinator.health.paces}
    assert told == {"openai", *(f"b{number}" for number in range(2000, 3000))}
