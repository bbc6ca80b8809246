"""The scripts compute the very same numbers as the pure functions, whatever happens and in whatever order."""

from __future__ import annotations

import ast
import asyncio
import math
import random
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rate_coordinator import pacestate
from rate_coordinator.allowances import Spread
from rate_coordinator.connection import Endpoint
from rate_coordinator.pacestate import PaceState
from rate_coordinator.probes import Probe
from rate_coordinator.replies import WireReport
from rate_coordinator.scripts import Script, read_script
from rate_coordinator.spreading import SPREAD_GRACE_MS
from rate_coordinator.store import Store
from rate_coordinator.turns import LOOKS, TurnRequest
from tests.pacing import scripted
from tests.pacing.scripted import FIELDS, FLAGS, PACE_FORM, SPREAD_FIELDS, TARGET, Both
from tests.pacing.simulate import FixedWindow, Guessed, SlidingWindow, Tiers, TokenBucket, Upstream

STARTED_MS = 1_750_000_000_123
CLIENTS = ("a", "b", "c")

each_script = pytest.mark.parametrize("name", ["report", "turns", "probe", "spread"])


# Names and numbers.


def constants(name: str) -> dict[str, object]:
    """Return the numbers and lists of numbers that a script gives a name in capitals."""
    found = re.findall(r"^local ([A-Z_0-9]+) = (\{[\d., ]+\}|[\d.]+)$", read_script(name), re.MULTILINE)
    return {constant: ast.literal_eval(text.translate(str.maketrans("{}", "()"))) for constant, text in found}


def functions(name: str) -> dict[str, str]:
    return dict(re.findall(r"^local function (\w+)(.*?)^end$", read_script(name), re.MULTILINE | re.DOTALL))


def listed(name: str, table: str) -> list[str]:
    """Return the words of a table in a script."""
    text = re.search(rf"^local {table} = {{(.*?)}}", read_script(name), re.MULTILINE | re.DOTALL)
    assert text is not None
    return re.findall(r"[a-z]\w+", text[1].replace("= true", ""))


def test_all_that_is_remembered_is_stored() -> None:
    assert tuple(listed("turns", "PACE_FIELDS")) == FIELDS
    assert tuple(listed("turns", "SPREAD_FIELDS")) == SPREAD_FIELDS


def test_what_is_stored_of_a_flag_is_read_as_one() -> None:
    assert frozenset(listed("turns", "IS_FLAG")) == FLAGS
    assert frozenset(field for field in FIELDS if isinstance(getattr(PaceState(), field), bool)) == FLAGS


def test_what_a_refusal_reads_and_writes_is_what_turns_remember() -> None:
    parts = functions("report")
    names = set(re.findall(r"'([a-z_]{2,})'", parts["read_pace"] + parts["write_pace"]))

    assert {"epoch", "pending", "lag_ms"} < names <= {"form", *FIELDS}


@each_script
def test_a_scripts_constants_are_the_librarys(name: str) -> None:
    known = {**vars(pacestate), "SPREAD_GRACE_MS": SPREAD_GRACE_MS}
    shared = {constant: value for constant, value in constants(name).items() if constant in known}

    assert shared == {constant: known[constant] for constant in shared}
    assert shared


def test_every_number_that_the_pace_depends_on_is_in_the_scripts() -> None:
    """But two: the server drops what is old, and nothing is remembered while nothing is known."""
    numbers = {name for name in vars(pacestate) if name.isupper()}

    told = constants("turns").keys() | constants("report").keys() | constants("probe").keys()
    assert numbers - told == {"FORGET_MS", "RECENT_MS"}


@each_script
def test_both_scripts_write_the_same_form(name: str) -> None:
    assert f"local PACE_FORM = '{PACE_FORM}'" in read_script(name)


# The scripts are called here as the library calls them.


class Link:
    """A connection that remembers what it was asked to run."""

    run_id = ""
    publish_with = "PUBLISH"

    def __init__(self) -> None:
        self.ran: list[tuple[str, list[str], list[str]]] = []

    async def greet(self) -> None:
        pass

    async def run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        self.ran.append((script.name, keys, [str(argument) for argument in arguments]))
        answers: dict[str, Any] = {"turns": None, "spread": b"100", "report": [b'{"epoch":"e","results":[]}', b"1"]}
        return answers.get(script.name, [b"0", b"0", b"0", b"0", b"", b""])


class Place:
    """An endpoint with that connection."""

    command_timeout = 5.0
    moves = False
    address = "nowhere"

    def __init__(self, link: Link) -> None:
        self.link = link

    async def open(self) -> Link:
        return self.link

    def is_current(self, link: object) -> bool:
        return link is self.link


def test_the_scripts_are_given_here_what_the_library_gives_them() -> None:
    link = Link()
    store = Store(cast(Endpoint, Place(link)), scripted.KEYS, scripted.MAX_EVENTS, forget_after=100, reporter="r")
    report = WireReport(scripted.TARGET, 1500, 0, 0, scripted.NAMES, call_age_ms=30, pace_epoch=7)

    probe = Probe(scripted.TARGET, 7, 8, 9)

    async def call() -> None:
        await store.take_turns(scripted.TARGET, TurnRequest(4, 3, 7, 2, 1))
        await store.report(1, [report])
        await store.probe("back", probe, 5, 0.25, 1.5, scripted.INITIAL_RATE)
        await store.spread(scripted.TARGET, Spread(2.5, 30, 0.5))

    asyncio.run(call())

    (turns, turn_keys, turn_arguments), (reports, report_keys, report_arguments), probed, spread = link.ran
    assert (turns, turn_keys) == ("turns", scripted.turns_keys())
    assert turn_arguments[1:] == scripted.turns_arguments("any", 4, 3, 7, 2, 1)[1:]
    expected = scripted.report_arguments(1, 100_000, 1500, 7, 30)
    assert reports == "report"
    assert report_keys[:4] + report_keys[5:] == scripted.report_keys()[:4] + scripted.report_keys()[5:]
    assert report_arguments[:1] + report_arguments[2:] == expected[:1] + expected[2:]
    expected = scripted.probe_arguments("back", probe, 250, 5, 1500, 100_000)
    assert probed[:2] == ("probe", scripted.probe_keys())
    assert [told for told, own in zip(probed[2], expected, strict=True) if own not in ("token", expected[-1])] == [
        told for told in expected if told not in ("token", expected[-1])
    ]
    assert spread == ("spread", scripted.spread_keys(), scripted.spread_arguments(2.5, 30_000, 0.5))


# Histories.

waits_ms = st.one_of(
    st.sampled_from([0, 1, 250, 1000, 1500, 1501, 5000, 10_000, 60_000]), st.integers(0, 100_000), st.just(3_600_000)
)
pauses_ms = st.one_of(st.integers(0, 60), st.integers(0, 3000), st.integers(0, 300_000), st.just(0))
epochs = st.one_of(st.integers(0, 3), st.sampled_from(["unknown", "none", "nothing"]))
refusals = st.tuples(st.just("limited"), waits_ms, epochs, st.integers(0, 60_000))
takes = st.tuples(
    st.just("take"),
    st.sampled_from(CLIENTS),
    st.one_of(st.integers(0, 64), st.just(LOOKS)),
    st.one_of(st.just(0), st.integers(0, 20)),
    st.one_of(st.just(0), st.integers(0, 500)),
    st.integers(0, 100_000),
)
probes = st.tuples(
    st.just("probe"),
    st.sampled_from(["begins", "opens", "verifies", "verifies", "held", "served", "served", "refused", "back"]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([100, 1000, 60_000]),
    st.sampled_from([0, 0, 500]),
    st.sampled_from([0, 1000]),
)
rates = st.one_of(st.sampled_from([0.01, 0.5, 2.0, 100.0]), st.floats(1e-4, 1e4))
spreads = st.tuples(st.just("spread"), rates, st.one_of(st.integers(50, 5000), st.integers(50, 3_600_000)), rates)
steps = st.tuples(pauses_ms, st.one_of(refusals, takes, takes, probes, spreads))


def told_epoch(both: Both, which: int | str) -> int | None:
    """Return what a report tells of the epoch that its call was admitted under."""
    if which == "unknown":
        return None
    if which == "nothing":
        return -1
    if which == "none" or both.state is None:
        return 0
    assert isinstance(which, int)
    return max(1, both.state.epoch - which)


@settings(max_examples=300)
@given(history=st.lists(steps, min_size=20, max_size=60), forget_ms=st.sampled_from([900_000, 60_000, 7_200_000]))
def test_the_scripts_and_the_pure_functions_agree_after_every_step(
    history: list[tuple[int, tuple[Any, ...]]], forget_ms: int
) -> None:
    both = Both(STARTED_MS, forget_ms)
    for pause_ms, (what, *values) in history:
        both.pause(pause_ms)
        if what == "limited":
            wait_ms, which, age_ms = values
            both.limited(wait_ms, told_epoch(both, which), age_ms)
        elif what == "probe":
            news, off, verify_ms, ago_ms, retry_ms = values
            state = both.state or PaceState()
            told = Probe(TARGET, state.epoch - off, int(state.probe_ms), both.scripted.limited_until_ms - off)
            if news == "opens":
                told = told._replace(resume_at_ms=both.redis.time_ms - ago_ms)
            both.probe(news, told, verify_ms, both.redis.time_ms - ago_ms, retry_ms)
        elif what == "spread":
            both.spread(*values)
        else:
            both.take(*values)


class Rising(TokenBucket):
    """Serves more and more, so that the pace grows far before it is refused, and then no more than at first."""

    PERIOD = 40.0

    def __init__(self, rate: float, burst: int, times: float) -> None:
        super().__init__(rate, burst)
        self.begun, self.times = rate, times

    def hit(self, now: float) -> float | None:
        self.rate = self.begun * self.times ** (now % self.PERIOD / 10)
        return super().hit(now)


class Growing(FixedWindow):
    """Serves more in each minute than in the one before."""

    def hit(self, now: float) -> float | None:
        self.limit = 10 + int(now / 60) * 5
        return super().hit(now)


class Moody:
    """An upstream that now and then refuses calls for reasons of its own, one of them or all for a while."""

    def __init__(self, upstream: Upstream, rng: random.Random, share: float) -> None:
        self.upstream, self.rng, self.share = upstream, rng, share
        self.closed_until, self.wait = 0.0, 1.0

    def hit(self, now: float) -> float | None:
        if now >= self.closed_until and self.rng.random() < self.share:
            self.closed_until = now + self.rng.choice([0.0, 0.0, 3.0, 30.0])
            self.wait = self.rng.choice([0.4, 1.0, 1.5, 1.6, 5.0, 20.0])
            return self.wait
        return self.wait if now < self.closed_until else self.upstream.hit(now)

    def ideal(self, calls: int) -> float:
        return self.upstream.ideal(calls)


def fleet(both: Both, upstream: Upstream, rng: random.Random, turns: int, steady: bool = False) -> None:
    """Let processes call an upstream by their turns; some answers come in late, and some turns are unused.

    Most fleets have more work than they may do and ask when they were told to, so that the pace grows and is refused.
    """
    clients = CLIENTS[: rng.choice([1, 1, 3])]
    busy, late_share, unused_share = rng.random() < 0.7, rng.choice([0, 0.02, 0.3]), rng.choice([0, 0, 0.1])
    if steady:
        busy, late_share, unused_share = True, 0, 0
    owed: list[tuple[int, int, int]] = []
    served, unused = dict.fromkeys(CLIENTS, 0), dict.fromkeys(CLIENTS, 0)
    pause_ms = 1.0
    for _ in range(turns):
        if not busy or (not steady and rng.random() < 0.02):
            pause_ms = rng.choice([0, 1, 7, 40, 250, rng.randrange(1000), rng.randrange(90_000)])
        both.pause(math.ceil(pause_ms))
        while owed and owed[0][0] <= both.redis.time_ms:
            _, wait_ms, epoch = owed.pop(0)
            both.limited(wait_ms, epoch)
        client = rng.choice(clients)
        wanted = 64 if busy else rng.choice([0, 1, 3, 16, 64])
        taken = both.take(client, wanted, unused[client], served[client], rng.randrange(2000) if served[client] else 0)
        unused[client] = served[client] = 0
        if taken is None:
            calls, epoch, first_ms, spacing_ms, pause_ms = wanted, 0, 0.0, 0.0, 100.0
        else:
            calls, epoch, first_ms, spacing_ms = taken.granted, taken.epoch, taken.first_ms, taken.spacing_ms
            pause_ms = min(90_000, (first_ms + max(0, calls - 1) * spacing_ms or 1) / len(clients))
            if calls and rng.random() < unused_share:
                unused[client] = rng.randrange(calls + 1)
        for number in range(calls - unused[client]):
            at_ms = both.redis.time_ms + first_ms + number * spacing_ms
            wait = upstream.hit((at_ms - STARTED_MS) / 1000)
            if wait is None:
                served[client] += 1
                if taken is not None and taken.probe_ms:
                    both.probe("held", Probe(TARGET, epoch, taken.probe_ms))
                    both.probe("served", Probe(TARGET, epoch, taken.probe_ms))
            else:
                delay_ms = rng.randrange(5000) if rng.random() < late_share else rng.randrange(100)
                owed.append((round(at_ms) + delay_ms, max(1, round(wait * 1000)), epoch))
        owed.sort()


Kind = Callable[[random.Random], Upstream]

UPSTREAMS: dict[str, Kind] = {
    "bucket": lambda rng: TokenBucket(rng.choice([0.5, 5, 20, 50]), rng.choice([1, 5, 50]), rng.random() < 0.7),
    "window": lambda rng: FixedWindow(rng.choice([5, 20, 60]), rng.choice([1, 3, 5, 7, 10]), begun=rng.random() * 5),
    "sliding": lambda rng: SlidingWindow(rng.choice([10, 20]), rng.choice([2, 5, 10])),
    "tiers": lambda rng: Tiers(TokenBucket(20, 20), FixedWindow(100, 20)),
    "guess": lambda rng: Guessed(FixedWindow(rng.choice([5, 20, 50]), rng.choice([3, 5, 30])), rng.choice([1, 2, 5])),
    "growing": lambda rng: Growing(10, rng.choice([3, 5])),
    "rising": lambda rng: Rising(rng.choice([5, 20, 50]), rng.choice([1, 10]), rng.choice([2.0, 5.0])),
}


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("kind", UPSTREAMS)
def test_they_agree_for_a_fleet_that_calls_a_limited_upstream(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    for turns in (*[30] * 42, *[300] * 2):
        both = Both(STARTED_MS, 900_000)
        fleet(both, Moody(UPSTREAMS[kind](rng), rng, rng.choice([0, 0, 0.002, 0.02])), rng, turns)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", UPSTREAMS)
def test_they_agree_for_a_fleet_that_has_learned_the_limit_and_uses_every_turn(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    fleet(Both(STARTED_MS, 900_000), Moody(UPSTREAMS[kind](rng), rng, 0.001), rng, 1200, steady=True)
