"""The scripts as they ship, run by the Lua that Redis has, on a Redis of dictionaries whose time the test sets.

``Scripted`` is a namespace with one target that is reported, probed, and whose turns are taken; ``Pure`` is the same by
the pure functions. Whatever is done to both must leave the same state in both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from operator import attrgetter

import lupa.lua51

from rate_coordinator import pacing
from rate_coordinator.keys import Keys
from rate_coordinator.pacestate import PaceState, rate
from rate_coordinator.probes import Probe
from rate_coordinator.probing import begun, given_back, held, is_out, opening, refused, reopened, verify
from rate_coordinator.scripts import read_script
from rate_coordinator.spreading import SpreadState, spread, spread_rate, spread_taken, spread_turns
from rate_coordinator.store import APPLIED_TTL_MS, FIRST_LIMIT_KEY, HORIZON_MS
from rate_coordinator.targets import Target

KEYS = Keys("ns")
TARGET = Target("openai", "opus")
NAMES = '"backend":"openai","model":"opus"'
MAX_EVENTS = 1000
INITIAL_RATE = 7.3
FIELDS = tuple(field.name for field in dataclasses.fields(PaceState))
FLAGS = frozenset(field.name for field in dataclasses.fields(PaceState) if field.type == "bool")
SPREAD_FIELDS = tuple(field.name for field in dataclasses.fields(SpreadState))
PACE_FORM = "1"

Value = str | int | float | bool | None
Reply = Value | list[str | bool] | dict[str, str]


def integer(number: float) -> int:
    """Return what ``string.format('%.0f', number)`` makes of a number."""
    return int(f"{number:.0f}")


@dataclass
class Redis:
    """What the scripts need of Redis."""

    time_ms: int = 0
    strings: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    zsets: dict[str, dict[str, float]] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    expiries: dict[str, int] = field(default_factory=dict)

    def call(self, command: str, *arguments: str) -> Reply:
        method: Callable[..., Reply] = getattr(self, f"do_{command.lower()}")
        return method(*(str(argument) for argument in arguments))

    def expire(self) -> None:
        """Drop what has expired: from the millisecond on that comes after the one that was said."""
        for key in [key for key, at_ms in self.expiries.items() if self.time_ms > at_ms]:
            self.do_del(key)

    def do_time(self) -> Reply:
        return [str(self.time_ms // 1000), str(self.time_ms % 1000 * 1000)]

    def do_del(self, key: str) -> Reply:
        for keys in (self.strings, self.hashes, self.zsets, self.streams, self.expiries):
            keys.pop(key, None)
        return 1

    def do_pexpireat(self, key: str, at_ms: str) -> Reply:
        self.expiries[key] = int(at_ms)
        return 1

    def do_pexpire(self, key: str, milliseconds: str) -> Reply:
        return self.do_pexpireat(key, str(self.time_ms + int(milliseconds)))

    def do_get(self, key: str) -> Reply:
        return self.strings.get(key, False)

    def do_set(self, key: str, text: str, option: str, number: str) -> Reply:
        self.strings[key] = text
        return self.do_pexpireat(key, str(int(number) + {"PX": self.time_ms, "PXAT": 0}[option]))

    def do_type(self, key: str) -> Reply:
        kinds: dict[str, Container[str]] = {
            "string": self.strings,
            "hash": self.hashes,
            "zset": self.zsets,
            "stream": self.streams,
        }
        return {"ok": next((kind for kind, keys in kinds.items() if key in keys), "none")}

    def do_exists(self, key: str) -> Reply:
        return int(key in self.streams)

    def do_hget(self, key: str, name: str) -> Reply:
        return self.hashes.get(key, {}).get(name, False)

    def do_hmget(self, key: str, *names: str) -> Reply:
        content = self.hashes.get(key, {})
        return [content.get(name, False) for name in names]

    def do_hgetall(self, key: str) -> Reply:
        return [text for pair in self.hashes.get(key, {}).items() for text in pair]

    def do_hset(self, key: str, *pairs: str) -> Reply:
        self.hashes.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
        return 1

    def do_hdel(self, key: str, *names: str) -> Reply:
        return sum(self.hashes.get(key, {}).pop(name, None) is not None for name in names)

    def do_zadd(self, key: str, score: str, member: str) -> Reply:
        self.zsets.setdefault(key, {})[member] = float(score)
        return 1

    def do_zrem(self, key: str, *members: str) -> Reply:
        return sum(self.zsets.get(key, {}).pop(member, None) is not None for member in members)

    def do_zcard(self, key: str) -> Reply:
        return len(self.zsets.get(key, {}))

    def do_zscore(self, key: str, member: str) -> Reply:
        score = self.zsets.get(key, {}).get(member)
        return False if score is None else f"{score:.17g}"

    def do_zrangebyscore(self, key: str, least: str, most: str, *limit: str) -> Reply:
        assert least == "-inf"
        return [member for member, score in self.zsets.get(key, {}).items() if score <= float(most)]

    def do_zremrangebyscore(self, key: str, least: str, most: str) -> Reply:
        assert least == "-inf"
        before = self.zsets.get(key, {})
        self.zsets[key] = {member: score for member, score in before.items() if score > float(most)}
        return len(before) - len(self.zsets[key])

    def do_zrevrange(self, key: str, start: str, stop: str, with_scores: str) -> Reply:
        assert (start, with_scores) == ("0", "WITHSCORES")
        content = self.zsets.get(key, {})
        last = sorted(content.items(), key=lambda item: (item[1], item[0]), reverse=True)[: int(stop) + 1]
        return [text for member, score in last for text in (member, f"{score:.17g}")]

    def do_xadd(self, key: str, *arguments: str) -> Reply:
        assert arguments[:4] == ("MAXLEN", "~", str(MAX_EVENTS), "*")
        json.loads(arguments[-1])
        self.streams[key] = self.streams.get(key, 0) + 1
        return f"{self.time_ms}-{self.streams[key]}"

    def do_publish(self, channel: str, message: str) -> Reply:
        assert channel == KEYS.notices
        json.loads(message)
        return 0


@dataclass(frozen=True)
class Taken:
    """What the script for turns answered."""

    epoch: int
    granted: int
    first_ms: float
    spacing_ms: float
    rate: float
    ceiling: float
    forgets_ms: int
    processes: int
    probe_ms: int
    fleet_rate: float


class Scripted:
    """One target in one namespace."""

    def __init__(self, redis: Redis, forget_ms: int) -> None:
        self.redis = redis
        self.forget_ms = forget_ms
        self._calls = 0

    def limited(self, wait_ms: int, epoch: int | None, call_age_ms: int | None = None) -> None:
        """Report one refused call."""
        self._calls += 1
        reply = run("report", report_keys(), report_arguments(self._calls, self.forget_ms, wait_ms, epoch, call_age_ms))
        json.loads(reply[1])

    def take(self, client: str, wanted: int, unused: int = 0, served: int = 0, served_ms: int = 0) -> Taken | None:
        """Take turns, or (None) be told that there is no pace."""
        epoch = unused_epoch(unused, int(float((self.stored or {}).get("epoch", 0))), self.pending)
        reply = run("turns", turns_keys(), turns_arguments(client, wanted, unused, epoch, served, served_ms))
        if reply is False:
            return None
        epoch, granted, first_ms, spacing_ms, pace, ceiling, forgets_ms, processes, probe_ms, fleet = list(
            reply.values()
        )
        return Taken(
            int(epoch),
            int(granted),
            float(first_ms),
            float(spacing_ms),
            float(pace),
            float(ceiling),
            int(forgets_ms),
            int(processes),
            int(probe_ms),
            float(fleet),
        )

    def probe(self, what: str, told: Probe, verify_ms: int, since_ms: int, retry_ms: int) -> list[str]:
        """Ask for a probe, or tell what became of one."""
        return list(
            run(
                "probe", probe_keys(), probe_arguments(what, told, verify_ms, since_ms, retry_ms, self.forget_ms)
            ).values()
        )

    def spread(self, spread_rate: float, for_ms: int, next_rate: float) -> int:
        """Tell what is left; return how long a pace has to be kept."""
        return int(run("spread", spread_keys(), spread_arguments(spread_rate, for_ms, next_rate)))

    @property
    def limited_until_ms(self) -> int:
        """The limit's resume time; 0 for none."""
        self.redis.expire()
        return int(self.redis.strings.get(KEYS.limit(TARGET), 0))

    @property
    def stored(self) -> dict[str, str] | None:
        """The state as it is stored."""
        self.redis.expire()
        return self.redis.hashes.get(KEYS.pace(TARGET))

    @property
    def pending(self) -> bool:
        """Whether the lesson of the latest refusal is still to be drawn."""
        return (self.stored or {}).get("pending") == "1"

    @property
    def waiting(self) -> int:
        """How many coordinators wait for turns."""
        return len(self.redis.zsets.get(KEYS.turns(TARGET), {}))

    def awaited(self, client: str) -> bool:
        """Whether another coordinator waits for the time at which it was told to ask again."""
        self.redis.expire()
        asks = self.redis.zsets.get(KEYS.turns(TARGET), {})
        return any(at > self.redis.time_ms for other, at in asks.items() if other != client)


def report_keys() -> list[str]:
    fixed = [KEYS.order, KEYS.active, KEYS.causes, KEYS.events, KEYS.applied("client"), KEYS.clears]
    return [*fixed, KEYS.paces, KEYS.holds, KEYS.limit(TARGET), KEYS.pace(TARGET)]


def report_arguments(
    call_number: int, forget_ms: int, wait_ms: int, epoch: int | None, call_age_ms: int | None
) -> list[str]:
    head = [call_number, "token", "", KEYS.notices, MAX_EVENTS, APPLIED_TTL_MS, "PUBLISH", forget_ms]
    told = ["" if number is None else number for number in (epoch, call_age_ms)]
    return [str(value) for value in (*head, FIRST_LIMIT_KEY, TARGET.encode(), wait_ms, 0, NAMES, *told)]


def probe_keys() -> list[str]:
    own = [KEYS.pace(TARGET), KEYS.limit(TARGET)]
    return [*own, KEYS.active, KEYS.causes, KEYS.events, KEYS.order, KEYS.clears, KEYS.paces, KEYS.holds]


def probe_arguments(what: str, told: Probe, verify_ms: int, since_ms: int, retry_ms: int, forget_ms: int) -> list[str]:
    asked = [what, told.epoch, told.probe_ms, told.resume_at_ms, since_ms, verify_ms, retry_ms, forget_ms]
    rest = [KEYS.notices, "PUBLISH", MAX_EVENTS, "token", "", TARGET.encode(), f'{NAMES},"reporter":"r"', INITIAL_RATE]
    return [str(value) for value in (*asked, *rest)]


def spread_keys() -> list[str]:
    return [KEYS.pace(TARGET), KEYS.paces, KEYS.order]


def spread_arguments(spread_rate: float, for_ms: int, next_rate: float) -> list[str]:
    told = [spread_rate, for_ms, next_rate, KEYS.notices, "PUBLISH", TARGET.encode(), f'{NAMES},"reporter":"r"']
    return [str(value) for value in told]


def turns_keys() -> list[str]:
    return [KEYS.pace(TARGET), KEYS.turns(TARGET), KEYS.paces, KEYS.events, KEYS.order]


def unused_epoch(unused: int, epoch: int, pending: bool) -> int:
    """Return what turns that go unused were granted under: mostly the latest of which turns were granted."""
    return epoch - pending - (unused % 3 == 0)


def turns_arguments(client: str, wanted: int, unused: int, epoch: int, served: int, served_ms: int) -> list[str]:
    asked = [client, wanted, unused, epoch, served, served_ms, HORIZON_MS]
    return [str(value) for value in (*asked, KEYS.notices, "PUBLISH", MAX_EVENTS, TARGET.encode(), NAMES)]


class _Interpreter:
    """The scripts, compiled once, and the Redis that they run on."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
        globals_ = self.lua.globals()
        globals_.redis = self.lua.table_from({"call": self._call, "pcall": self._call, "error_reply": self._refuse})
        self.scripts = {name: self.lua.compile(read_script(name)) for name in ("report", "turns", "probe", "spread")}
        self.globals = globals_

    def _call(self, command: str, *arguments: str) -> object:
        reply = self.redis.call(command, *arguments)
        return self.lua.table_from(reply) if isinstance(reply, list | dict) else reply

    def _refuse(self, message: str) -> object:
        raise AssertionError(message)


_interpreter = _Interpreter()


def use(redis: Redis) -> None:
    """Let the scripts run on another Redis."""
    _interpreter.redis = redis


def run(name: str, keys: list[str], arguments: list[str]):  # type: ignore[no-untyped-def]
    """Run a script on the Redis in use."""
    _interpreter.redis.expire()
    _interpreter.globals.KEYS = _interpreter.lua.table_from(keys)
    _interpreter.globals.ARGV = _interpreter.lua.table_from(arguments)
    return _interpreter.scripts[name]()


class Pure:
    """The same target, by the pure functions."""

    def __init__(self, redis: Redis, forget_ms: int) -> None:
        self.redis = redis
        self.forget_ms = forget_ms
        self.state: PaceState | None = None
        self.spread: SpreadState | None = None

    def expire(self) -> None:
        """Forget what Redis drops of itself."""
        until_ms = self.until_ms()
        if until_ms is not None and self.redis.time_ms > until_ms:
            self.state = self.spread = None
        if self.spread is not None and self.redis.time_ms >= self.spread.until_ms:
            self.spread = None

    def begin(self, state: PaceState) -> None:
        """Begin a pace, in the place of all that was there."""
        self.state, self.spread = state, None

    def spreads(self, spread_rate: float, for_ms: int, next_rate: float) -> None:
        self.expire()
        self.spread = spread(self.spread, self.redis.time_ms, spread_rate, for_ms, next_rate)

    def limited(self, wait_ms: int, epoch: int | None, call_age_ms: int | None = None) -> None:
        self.expire()
        now_ms, state = self.redis.time_ms, self.state
        if wait_ms == 0 or epoch == -1:
            return
        if state is None and epoch is None:
            return
        if state is None:
            self.spread = None
            state = PaceState(epoch=now_ms, forget_ms=self.forget_ms)
            epoch = now_ms
        elif epoch is None:
            before = now_ms < state.resume_ms or now_ms - (call_age_ms or 0) < state.cross_ms
            epoch = state.epoch - before
        elif epoch == 0:
            epoch = state.epoch - 1
        self.state = pacing.limited(state, now_ms, wait_ms, epoch, call_age_ms or 0)

    def take(
        self, others: int, wanted: int, unused: int = 0, served: int = 0, served_ms: int = 0, *, awaited: bool = False
    ) -> tuple[PaceState | None, SpreadState | None, pacing.Grant] | None:
        self.expire()
        now_ms, state, left = self.redis.time_ms, self.state, self.spread
        if state is None and left is None:
            return None
        if state is not None and served > 0:
            state = pacing.tell(state, now_ms, served, served_ms)
        if state is not None and unused > 0:
            state = pacing.give_back(state, unused, unused_epoch(unused, state.epoch, state.pending))
        if left is not None and unused > 0:
            left = spread_taken(left, now_ms, -unused)
        if state is not None and wanted >= 0 and awaited:
            state = pacing.awaited(state, now_ms)
        paced, due = pacing.Grant(0, 0, 0), pacing.Grant(0, 0, max(0, wanted))
        if state is not None:
            state, paced = pacing.take(state, now_ms, 0, HORIZON_MS)
        if left is not None:
            due = spread_turns(left, now_ms, wanted, HORIZON_MS)
        granted = 0
        if wanted > 0 and (paced.spacing_ms > 0 or state is None):
            share = max(1, math.ceil(HORIZON_MS / max(paced.spacing_ms, due.spacing_ms) / (others + 1)))
            granted = min(wanted, share, due.count)
            if state is not None and due.count > 0:
                state, paced = pacing.take(state, now_ms, granted, HORIZON_MS)
                granted = paced.count
            if left is not None:
                left = spread_taken(left, now_ms, granted)
        if wanted >= 0:
            self.state, self.spread = state, left
        first_ms, spacing_ms = max(paced.first_ms, due.first_ms), max(paced.spacing_ms, due.spacing_ms)
        return state, left, pacing.Grant(first_ms, spacing_ms, granted)

    def probe(
        self, what: str, told: Probe, verify_ms: int, since_ms: int, retry_ms: int, limited_until_ms: int
    ) -> tuple[bool, float, bool]:
        """Return whether it was given or counts, when to ask again, and whether it lifted the limit."""
        self.expire()
        now_ms, state = self.redis.time_ms, self.state
        if what == "begins":
            if state is None:
                self.begin(begun(now_ms, INITIAL_RATE, self.forget_ms, now_ms))
            return True, 0, False
        if what == "opens":
            if state is None:
                self.begin(opening(now_ms, told.resume_at_ms, self.forget_ms, now_ms, probed=False))
            else:
                self.state = reopened(state, told.resume_at_ms)
            return True, 0, False
        if what == "verifies":
            if limited_until_ms != told.resume_at_ms or limited_until_ms <= now_ms:
                return False, 1000, False
            before = state or opening(now_ms, told.resume_at_ms, self.forget_ms, now_ms, probed=False)
            tried, wait_ms = verify(reopened(before, told.resume_at_ms), now_ms, verify_ms, since_ms)
            if wait_ms:
                return False, wait_ms, False
            self.state = tried
            self.spread = None if state is None else self.spread
            return True, 0, False
        if state is None or not is_out(state) or (state.epoch, state.probe_ms) != (told.epoch, told.probe_ms):
            return False, 0, False
        lifted = False
        if what == "held":
            state = held(state, now_ms)
        elif what == "refused":
            state = refused(state, now_ms)
        elif what == "back":
            state = given_back(state, now_ms - verify_ms + retry_ms if retry_ms else 0)
        elif limited_until_ms > now_ms and limited_until_ms != told.resume_at_ms:
            state = given_back(state, 0)
        elif limited_until_ms > now_ms or state.pending:
            lifted = limited_until_ms > now_ms
            self.spread = None
            state = opening(now_ms, now_ms, state.forget_ms, max(now_ms, state.epoch + 1), probed=True)
        else:
            state = pacing.succeeded(state, now_ms, 1, state.epoch)
        self.state = state
        return True, 0, lifted

    def until_ms(self) -> int | None:
        """Return when all of it is forgotten; None where there is nothing."""
        until_ms = forgotten_at(self.state, self.spread)
        return None if until_ms is None else integer(until_ms)


def forgotten_at(state: PaceState | None, spread: SpreadState | None) -> float | None:
    """Return when a pace is forgotten, and what is spread with it."""
    if state is not None:
        return max(state.limited_ms, state.resume_ms) + max(state.forget_ms, 2 * state.period_ms)
    return spread.until_ms if spread is not None else None


_values = attrgetter(*FIELDS)
_begun = dict(zip(FIELDS, _values(PaceState()), strict=True))


def unpack(stored: dict[str, str]) -> dict[str, float]:
    """Return the numbers of a stored state; those that no turn was taken after yet are as they begin."""
    assert stored.get("form", PACE_FORM) == PACE_FORM
    return _begun | {name: float(value) for name, value in stored.items() if name in _begun}


def numbers(state: PaceState) -> dict[str, float]:
    return dict(zip(FIELDS, _values(state), strict=True))


class Both:
    """Does everything to both, and compares."""

    def __init__(self, time_ms: int, forget_ms: int) -> None:
        self.redis = Redis(time_ms)
        use(self.redis)
        self.scripted = Scripted(self.redis, forget_ms)
        self.pure = Pure(self.redis, forget_ms)

    @property
    def state(self) -> PaceState | None:
        return self.pure.state

    def pause(self, milliseconds: int) -> None:
        self.redis.time_ms += milliseconds

    def limited(self, wait_ms: int, epoch: int | None, call_age_ms: int | None = None) -> None:
        self.scripted.limited(wait_ms, epoch, call_age_ms)
        self.pure.limited(wait_ms, epoch, call_age_ms)
        self.compare()

    def spread(self, spread_rate: float, for_ms: int, next_rate: float) -> None:
        told_ms = self.scripted.spread(spread_rate, for_ms, next_rate)
        self.pure.spreads(spread_rate, for_ms, next_rate)
        self.compare()
        until_ms = self.pure.until_ms()
        assert until_ms is not None
        assert told_ms == until_ms - self.redis.time_ms

    def take(self, client: str, wanted: int, unused: int = 0, served: int = 0, served_ms: int = 0) -> Taken | None:
        awaited = self.scripted.awaited(client)
        taken = self.scripted.take(client, wanted, unused, served, served_ms)
        others = self.scripted.waiting - (wanted > 0)
        expected = self.pure.take(others, wanted, unused, served, served_ms, awaited=awaited)
        self.compare()
        assert (taken is None) == (expected is None)
        if taken is not None and expected is not None:
            state, left, grant = expected
            now_ms = self.redis.time_ms
            assert (taken.epoch, taken.granted) == (state.epoch if state else 0, grant.count)
            rates = ([rate(state)] if state else []) + ([spread_rate(left, now_ms)] if left else [])
            assert (taken.spacing_ms, taken.rate) == (grant.spacing_ms, min(rates))
            assert taken.ceiling == (state.ceiling if state else 0)
            assert taken.forgets_ms == integer((forgotten_at(state, left) or 0) - now_ms)
            assert taken.probe_ms == (state.probe_ms if state and grant.count and is_out(state) else 0)
            if taken.granted or wanted <= 0:
                assert taken.first_ms == grant.first_ms
        return taken

    def probe(
        self, what: str, told: Probe, verify_ms: int = 1000, since_ms: int = 0, retry_ms: int = 0
    ) -> tuple[bool, Probe]:
        """Return whether it was given or counts, and the probe that is out now."""
        limited_until_ms = self.scripted.limited_until_ms
        answer = self.scripted.probe(what, told, verify_ms, since_ms, retry_ms)
        given, wait_ms, lifted = self.pure.probe(what, told, verify_ms, since_ms, retry_ms, limited_until_ms)
        self.compare()
        epoch, probe_ms = (self.state.epoch, self.state.probe_ms) if self.state and given else (0, 0)
        assert answer[:4] == [str(int(given)), str(math.ceil(wait_ms)), str(epoch), str(int(probe_ms))]
        assert bool(answer[5]) == lifted
        assert (self.scripted.limited_until_ms == 0) == (lifted or limited_until_ms == 0)
        return given, Probe(TARGET, epoch, int(probe_ms), told.resume_at_ms)

    def compare(self) -> None:
        """All numbers are the same to the last bit."""
        stored, spread = self.scripted.stored, self.pure.spread
        assert (stored is None or "form" not in stored) == (self.state is None)
        if stored is not None and self.state is not None:
            assert unpack(stored) == numbers(self.state)
        if spread is not None:
            assert stored is not None
            assert {name: float(stored[name]) for name in SPREAD_FIELDS} == dataclasses.asdict(spread)
