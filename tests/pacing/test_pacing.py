"""What the pace promises, one promise a test; what it costs is in ``test_bounds``."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rate_coordinator.pacestate import FORGET_MS, LAG_MAX_MS, PaceState, gate_ms, rate
from rate_coordinator.pacing import fresh, give_back, limited, succeeded, take, tell
from rate_coordinator.probing import is_out
from tests.pacing.scenarios import CONTROLLERS, set_rate
from tests.pacing.simulate import TokenBucket, simulate

STARTED_MS = 1_000_000
HORIZON_MS = 250

waits_ms = st.one_of(st.integers(1, 70_000), st.sampled_from([1, 10, 1000, 1500, 5000, 60_000]))
pauses_ms = st.one_of(st.integers(0, 60), st.integers(0, 3000), st.integers(0, 200_000))
events = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 20), st.sampled_from([0, HORIZON_MS])),
    st.tuples(st.just("take"), st.integers(1, 500), st.sampled_from([0, HORIZON_MS])),
    st.tuples(st.just("limited"), waits_ms, st.integers(0, 2)),
    st.tuples(st.just("give back"), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("succeeded"), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("tell"), st.integers(0, 500), st.integers(0, 100_000)),
)
histories = st.lists(st.tuples(pauses_ms, events), max_size=40)
History = list[tuple[int, tuple[str, int, int]]]
rates = st.floats(0.1, 500)


def happen(state: PaceState, now_ms: int, event: tuple[str, int, int]) -> PaceState:
    what, count, detail = event
    match what:
        case "take":
            return take(state, now_ms, count, detail)[0]
        case "limited":
            return limited(state, now_ms, count, max(0, state.epoch - detail))
        case "give back":
            return give_back(state, count, state.epoch - state.pending)
        case "succeeded":
            return succeeded(state, now_ms, count, state.epoch)
        case _:
            return tell(state, now_ms, count, detail)


def after(history: History, state: PaceState | None = None) -> tuple[PaceState, int]:
    """Return the state that a history leaves, and the time."""
    state, now_ms = state or fresh(), STARTED_MS
    for pause_ms, event in history:
        now_ms += pause_ms
        state = happen(state, now_ms, event)
    return state, now_ms


def refused(admitted: int = 400, served: int = 60, wait_ms: int = 1000) -> PaceState:
    """Return what is known after the first refusals ever; at ``STARTED_MS + 100``."""
    state, _ = take(fresh(), STARTED_MS, admitted)
    now_ms = STARTED_MS + 100
    state = succeeded(state, now_ms, served, 0)
    for _ in range(admitted - served):
        state = limited(state, now_ms, wait_ms, 0)
    return state


# While nothing is known.


@given(bursts=st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 1000)), max_size=30))
def test_nothing_is_held_while_nobody_was_refused(bursts: list[tuple[int, int]]) -> None:
    state, now_ms = fresh(), STARTED_MS
    for pause_ms, wanted in bursts:
        now_ms += pause_ms
        state, grant = take(state, now_ms, wanted)
        state = succeeded(state, now_ms, wanted, state.epoch)

        assert (grant.first_ms, grant.count) == (0, wanted)
        assert state.epoch == 0


@given(pace=rates)
def test_a_pace_given_from_outside_holds_from_the_first_call_on(pace: float) -> None:
    state, granted = fresh(pace), 0
    for now_ms in range(STARTED_MS, STARTED_MS + 4000, 20):
        state, grant = take(state, now_ms, 1000)
        granted += grant.count

    assert granted == pytest.approx(4 * pace, rel=0.1, abs=2)


# The stop.


@given(history=histories)
def test_no_turn_is_due_before_the_resume_time(history: History) -> None:
    """P50."""
    state, now_ms, resume_ms = fresh(), STARTED_MS, 0
    for pause_ms, event in history:
        now_ms += pause_ms
        before, state = state, happen(state, now_ms, event)
        what, count, detail = event
        if what == "limited":
            resume_ms = max(resume_ms, now_ms + count)
        elif what == "take":
            _, grant = take(before, now_ms, count, detail)
            assert grant.count == 0 or now_ms + grant.first_ms >= resume_ms
            assert grant.count or count == 0 or grant.first_ms > 0


@given(waits=st.lists(waits_ms, min_size=2, max_size=8), data=st.data())
def test_whatever_the_order_of_refusals_the_longest_stop_holds(waits: list[int], data: st.DataObject) -> None:
    """P01."""
    ends = set()
    for some in (waits, data.draw(st.permutations(waits))):
        state = fresh(20.0)
        for wait_ms in some:
            state = limited(state, STARTED_MS, wait_ms, 1)
        ends.add(state.resume_ms)

    assert ends == {STARTED_MS + max(waits)}


@given(pace=rates, wait_ms=waits_ms, processes=st.integers(2, 50))
def test_after_a_stop_processes_that_all_ask_at_once_go_one_after_the_other(
    pace: float, wait_ms: int, processes: int
) -> None:
    """P17."""
    state = limited(take(fresh(pace), STARTED_MS, 1)[0], STARTED_MS + 100, wait_ms, 1)
    now_ms = math.ceil(max(state.resume_ms, state.cross_ms + gate_ms(state)))
    due: list[float] = []
    for _ in range(processes):
        state, grant = take(state, now_ms, 10, HORIZON_MS)
        due += [now_ms + grant.first_ms + number * grant.spacing_ms for number in range(grant.count)]

    assert due
    assert due == sorted(due)
    assert len(due) <= 1 + HORIZON_MS * rate(state) / 1000 + 1


def known_well(wait_ms: int = 5000) -> PaceState:
    """Return what is known after a refusal of a pace that was learned before; at ``STARTED_MS + 100``."""
    state, now_ms = fresh(50.0), STARTED_MS
    while now_ms < STARTED_MS + 100:
        now_ms += 20
        state, _ = take(state, now_ms, 1)
    return limited(state, now_ms, wait_ms, state.epoch)


@pytest.mark.parametrize("well", [False, True], ids=["known", "known well"])
def test_after_a_long_stop_one_call_goes_first_and_the_others_wait(well: bool) -> None:
    """P18 P20: though all ask in the same instant; were it refused, the others would never be called."""
    state = known_well() if well else refused(wait_ms=5000)
    now_ms = int(state.resume_ms)
    due: list[float] = []
    for _ in range(50):
        state, grant = take(state, now_ms, 16, HORIZON_MS)
        due += [grant.first_ms + number * grant.spacing_ms for number in range(grant.count)]
    answered_ms = gate_ms(state)
    state = limited(state, now_ms + 80, 5000, state.epoch)

    assert due[0] == 0
    assert (min(due[1:]) >= answered_ms) if well else len(due) == 1
    for later_ms in range(now_ms + 80, now_ms + 5080, 20):
        state, grant = take(state, later_ms, 16)
        assert grant.count == 0


@pytest.mark.parametrize("cancelled", [False, True], ids=["lost", "cancelled"])
def test_the_first_call_after_a_stop_of_a_known_pace_holds_nobody_for_long(cancelled: bool) -> None:
    """P19 P22: who made it died, or gave it back because its call was not made."""
    state = known_well()
    now_ms = int(state.resume_ms)
    state, probe = take(state, now_ms, 1)
    if cancelled:
        state = give_back(state, 1, state.epoch)
    held_ms = gate_ms(state) + 1000 / rate(state)

    state, grant = take(state, math.ceil(now_ms + held_ms), 1)

    assert (probe.count, grant.count) == (1, 1)
    assert held_ms <= 1100


@given(refusals=st.integers(1, 60), wait_ms=st.sampled_from([50, 1000, 5000, 20_000]))
def test_however_often_it_was_refused_it_is_tried_again_within_a_minute_after_the_stop(
    refusals: int, wait_ms: int
) -> None:
    """P25: what lifts is noticed, although all but a probe is held."""
    state, now_ms = refused(wait_ms=wait_ms), STARTED_MS + 100
    for _ in range(refusals):
        stopped_until = state.resume_ms
        granted = 0
        while not granted:
            state, grant = take(state, now_ms, 400)
            now_ms, granted = now_ms + (0 if grant.count else math.ceil(grant.first_ms)), grant.count
        assert granted == 1
        assert now_ms <= stopped_until + 61_000
        state = limited(state, now_ms, wait_ms, state.epoch)


# The pace.


@given(wait_ms=st.integers(1, 1500), refusals=st.integers(2, 100), apart_ms=st.integers(0, 5))
def test_a_hundred_refusals_at_once_are_one_cut(wait_ms: int, refusals: int, apart_ms: int) -> None:
    """P23."""
    state, now_ms = fresh(50.0), STARTED_MS
    for _ in range(50):
        state, _ = take(state, now_ms, 25, HORIZON_MS)
        now_ms += HORIZON_MS
    before, epoch = rate(state), state.epoch
    for number in range(refusals):
        state = limited(state, now_ms + apart_ms * number, wait_ms, epoch)
    state, _ = take(state, now_ms + 10_000, 0)

    assert state.epoch == epoch + 1
    assert 0.4 * before < rate(state) < before


@given(refusals=st.integers(1, 100))
def test_a_hundred_refusals_before_anything_was_known_begin_one_search(refusals: int) -> None:
    """P23."""
    one, many = refused(400, 399), refused(400, 400 - refusals)

    assert one.epoch == many.epoch == 1
    assert one.resume_ms == many.resume_ms


@given(
    history=histories,
    wait_ms=waits_ms,
    late_ms=st.integers(0, 2 * LAG_MAX_MS),
    older=st.integers(1, 5),
)
def test_a_late_answer_of_an_older_epoch_moves_the_resume_time_and_never_the_pace(
    history: History, wait_ms: int, late_ms: int, older: int
) -> None:
    """P21."""
    state, now_ms = after(history, fresh(20.0))
    state = limited(state, now_ms, 1000, state.epoch)
    state, _ = take(state, now_ms + 120_000, 1)
    now_ms += 120_000 + late_ms

    late = limited(state, now_ms, wait_ms, max(0, state.epoch - older))

    assert late.resume_ms == max(state.resume_ms, now_ms + wait_ms)
    assert late.epoch == state.epoch
    assert late.pending == state.pending
    told = {"resume_ms": late.resume_ms, "limited_ms": now_ms, "answer_ms": now_ms, "lag_ms": late.lag_ms}
    assert late == replace(state, **told, sent=late.sent, used=late.used)  # type: ignore[arg-type]
    assert rate(late) == rate(state) or state.budget > 0


@given(pace=rates, used=st.floats(0.1, 0.85))
def test_growth_stands_still_while_turns_go_unused(pace: float, used: float) -> None:
    """The workload is the bottleneck: how much more the upstream would serve, nobody tries."""
    state, at_ms, paces = fresh(pace), float(STARTED_MS), []
    for _ in range(500):
        at_ms += 1000 / (used * pace)
        state, _ = take(state, math.ceil(at_ms), 1)
        paces.append(rate(state))

    assert paces[-1] == paces[len(paces) // 2]
    assert paces[-1] <= 1.02 * pace


@pytest.mark.parametrize("pace", [1, 50])
def test_the_pace_grows_while_every_turn_is_used(pace: float) -> None:
    """P24: the contrary of the test before."""
    state, now_ms = fresh(pace), STARTED_MS
    until_ms = now_ms + 2 * state.plateau_ms + 2 * state.tau_ms
    while now_ms < until_ms:
        state, grant = take(state, now_ms, 10)
        now_ms += max(1, math.ceil(1000 / rate(state))) if grant.count else math.ceil(grant.first_ms)

    assert rate(state) > 1.5 * pace


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_workload_below_the_limit_learns_no_higher_pace_and_a_burst_of_work_after_it_is_hardly_refused(
    share: float,
) -> None:
    state, upstream = refused(), TokenBucket(50, 50)
    sent = late = 0
    peak, calls_due = 0.0, 0.0
    for now_ms in range(STARTED_MS + 1200, STARTED_MS + 300_000, 10):
        since_ms = now_ms - STARTED_MS
        full = since_ms < 60_000 or since_ms > 290_000
        calls_due = 5 if full else calls_due + 0.01 * 50 * share
        while calls_due >= 1:
            state, grant = take(state, now_ms, 1)
            if not grant.count:
                break
            calls_due, sent = calls_due - 1, sent + 1
            wait = upstream.hit(now_ms / 1000)
            if wait is not None:
                late += 1
                state = limited(state, now_ms, round(wait * 1000), state.epoch)
        if since_ms > 60_000:
            peak = max(peak, rate(state))

    assert peak < 90
    assert late <= 0.01 * sent


@given(history=histories, count=st.integers(0, 50))
def test_turns_that_are_given_back_raise_no_pace(history: History, count: int) -> None:
    """P22."""
    state, _ = after(history, fresh(20.0))

    granted_under = state.epoch - state.pending
    given_back = give_back(state, count, granted_under)

    assert give_back(state, count, granted_under - 1) == state, "they belong to a lesson that was drawn without them"
    changed = {"sent": given_back.sent, "used": given_back.used, "next_free_ms": given_back.next_free_ms}
    if is_out(state):
        changed["gate"] = given_back.gate
    assert given_back == replace(state, **changed)  # type: ignore[arg-type]
    assert max(0, state.sent - count) == given_back.sent
    assert (
        min(state.resume_ms, state.next_free_ms) <= given_back.next_free_ms <= max(state.resume_ms, state.next_free_ms)
    )


@given(pace=st.floats(1, 100))
def test_who_gives_every_turn_back_raises_no_pace(pace: float) -> None:
    state, now_ms = fresh(pace), STARTED_MS
    for _ in range(500):
        now_ms += math.ceil(1000 / pace)
        state, grant = take(state, now_ms, 1)
        state = give_back(state, grant.count, state.epoch)

    assert rate(state) <= 1.02 * pace


# Looking.


@given(history=histories, wanted=st.integers(1, 50), horizon_ms=st.sampled_from([0, HORIZON_MS]))
def test_looking_before_taking_changes_nothing_of_what_is_granted_and_known(
    history: History, wanted: int, horizon_ms: int
) -> None:
    """While nothing is known, old counts fade at every call."""
    state, now_ms = after(history, fresh(20.0))
    assume(state.pacing or state.pending)
    seen, look = take(state, now_ms, 0, horizon_ms)

    assert look.count == 0
    assert take(seen, now_ms, wanted, horizon_ms) == take(state, now_ms, wanted, horizon_ms)


@given(history=histories, looks=st.lists(pauses_ms, max_size=5))
def test_looking_moves_neither_the_probe_nor_the_clock_of_growth(history: History, looks: list[int]) -> None:
    """But a lesson is drawn, a window begun and a probe given up by whoever comes first."""
    state, now_ms = after(history, fresh(20.0))
    state, _ = take(state, now_ms, 0)
    for pause_ms in looks:
        now_ms += pause_ms
        seen, _ = take(state, now_ms, 0)
        lapsed = is_out(state) and now_ms >= state.next_free_ms
        if not lapsed and seen.pacing and state.pacing and not state.pending and state.budget == 0:
            assert seen == state
        state = seen


# Forgetting.


@given(wait_ms=waits_ms, forget_ms=st.sampled_from([60_000, FORGET_MS]))
def test_all_is_forgotten_when_no_refusal_came_for_long_and_epochs_go_on(wait_ms: int, forget_ms: int) -> None:
    state = limited(take(fresh(20.0, forget_ms), STARTED_MS, 1)[0], STARTED_MS, wait_ms, 1)
    state, _ = take(state, STARTED_MS + wait_ms + 1000, 1)
    until_ms = STARTED_MS + wait_ms + forget_ms
    epoch = state.epoch

    kept, before = take(state, until_ms - 1, 100_000)
    forgotten, then = take(state, math.ceil(state.resume_ms) + forget_ms, 100_000)

    assert kept.pacing
    assert kept.epoch == epoch
    assert before.count < 100_000
    assert not forgotten.pacing
    assert then.count == 100_000
    assert forgotten.epoch == epoch + 1
    assert forgotten.forget_ms == forget_ms
    assert limited(forgotten, until_ms + 10_000, 1000, forgotten.epoch).epoch == epoch + 2


def test_an_answer_to_a_call_of_before_all_was_forgotten_is_of_an_older_epoch() -> None:
    """P21."""
    state = limited(take(fresh(20.0), STARTED_MS, 1)[0], STARTED_MS, 1000, 1)
    state, _ = take(state, STARTED_MS + 2000, 1)
    epoch = state.epoch
    state, _ = take(state, STARTED_MS + 2 * FORGET_MS, 1)

    assert limited(state, STARTED_MS + 2 * FORGET_MS, 1000, epoch).epoch == state.epoch


@given(history=histories)
def test_epochs_never_go_back(history: History) -> None:
    state, now_ms = fresh(), STARTED_MS
    for pause_ms, event in history:
        now_ms += pause_ms
        before, state = state, happen(state, now_ms, event)
        assert before.epoch <= state.epoch <= before.epoch + 1


@given(history=histories)
def test_a_state_is_finite_plain_and_unchanged_by_what_is_made_of_it(history: History) -> None:
    state, now_ms = fresh(), STARTED_MS
    for pause_ms, event in history:
        now_ms += pause_ms
        kept = dataclasses.asdict(state)
        before, state = state, happen(state, now_ms, event)
        assert dataclasses.asdict(before) == kept
        assert PaceState(**json.loads(json.dumps(dataclasses.asdict(state), allow_nan=False))) == state
        assert not state.pacing or 0 < rate(state) < math.inf


# Recovery.


@pytest.mark.parametrize("way", CONTROLLERS)
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_after_the_limit_fell_and_rose_again_the_pace_is_found_again(way: str, seed: int) -> None:
    """P24: 50/s, then 10/s for a minute, then 50/s again."""
    upstream = Recorded(50, 50)
    changes = ((40.0, set_rate(10)), (100.0, set_rate(50)))
    simulate(upstream, CONTROLLERS[way](), 8000, 400, seed, changes=changes)

    assert upstream.served_between(60, 100) >= 0.8 * 10 * 40
    assert upstream.served_between(160, 190) >= 0.85 * 50 * 30


class Recorded(TokenBucket):
    """Remembers when it served."""

    def __init__(self, rate: float, burst: int) -> None:
        super().__init__(rate, burst)
        self.served_at: list[float] = []

    def hit(self, now: float) -> float | None:
        wait = super().hit(now)
        if wait is None:
            self.served_at.append(now)
        return wait

    def served_between(self, since: float, until: float) -> int:
        return sum(since <= at < until for at in self.served_at)
