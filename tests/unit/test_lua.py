"""The contracts of the scripts, read from their text: keys only through KEYS, and no command newer than Redis 6.2."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from rate_coordinator.scripts import read_script
from tests.unit.lua_source import Script

HOME = Path(__file__).parents[2] / "lua"
SOURCES = {path.stem: path for path in HOME.glob("*.lua")}
TEXTS = {name: read_script(name) for name in SOURCES}
SINCE = {
    "DEL": (1, 0),
    "EXISTS": (1, 0),
    "GET": (1, 0),
    "HDEL": (2, 0),
    "HGET": (2, 0),
    "HGETALL": (2, 0),
    "HMGET": (2, 0),
    "HSET": (4, 0),
    "HVALS": (2, 0),
    "PEXPIRE": (2, 6),
    "PEXPIREAT": (2, 6),
    "PUBLISH": (2, 0),
    "SET": (6, 2),
    "TIME": (2, 6),
    "TYPE": (1, 0),
    "XADD": (5, 0),
    "XTRIM": (6, 2),
    "ZCARD": (1, 2),
    "ZADD": (1, 2),
    "ZRANGEBYSCORE": (1, 0, 5),
    "ZREM": (1, 2),
    "ZREMRANGEBYSCORE": (1, 2),
    "ZREVRANGE": (1, 2),
    "ZSCORE": (1, 2),
}
"""Commands that scripts may use, with the version that brought what is used of them: SET … PXAT, XTRIM … MINID."""
ONLY_WHERE_TOLD = {"SPUBLISH"}
"""Newer commands, used only where the caller knows that the server has them."""
OPTIONS_SINCE = {
    "LIMIT": (1, 0, 5),
    "MAXLEN": (5, 0),
    "MINID": (6, 2),
    "PX": (2, 6, 12),
    "PXAT": (6, 2),
    "WITHSCORES": (1, 2),
}
OLDEST_SERVER = (6, 2)
WITHOUT_KEY = {"TIME", "PUBLISH", "SPUBLISH"}
FUNCTIONS = {"call", "pcall", "error_reply", "acl_check_cmd"}

each_script = pytest.mark.parametrize("name", sorted(TEXTS))


def keys_that_do_not_come_from_keys(text: str) -> list[str]:
    script = Script(text)
    return [
        f"{call.command} {' '.join(call.arguments[0])}"
        for call in script.calls()
        if call.command not in WITHOUT_KEY and not script.comes_from_keys(call.arguments[0])
    ]


@each_script
def test_every_key_that_a_script_touches_is_one_of_its_keys(name: str) -> None:
    """P38."""
    assert keys_that_do_not_come_from_keys(TEXTS[name]) == []


@each_script
def test_no_key_is_written_in_a_script(name: str) -> None:
    """P38: a part of a key's name would be needed to build one."""
    strings = [token for token in Script(TEXTS[name]).tokens if token[0] in "'\""]

    assert not [text for text in strings if re.search(r":?(limit|active|causes|events|order|applied|scratch):", text)]


@pytest.mark.parametrize(
    "text",
    [
        "redis.call('GET', 'limit:' .. ARGV[1])",
        "redis.call('GET', ARGV[1])",
        "redis.call('GET', KEYS[1] .. ':x')",
        "local key = KEYS[1] .. ':x'\nredis.call('GET', key)",
        "local key, other = ARGV[1], KEYS[1]\nredis.call('GET', key)",
        "local key = KEYS[1]\nkey = ARGV[1]\nredis.call('GET', key)",
        "local key = KEYS[1]\nlocal state = {key = ARGV[1]}\nredis.call('GET', state.key)",
        "redis.pcall('DEL', unknown)",
        "try('DEL', ARGV[2])",
        "for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, 1)) do\n  redis.call('DEL', key)\nend",
        "local key = KEYS[1] or ARGV[1]\nredis.call('GET', key)",
        "redis.call('GET', build(KEYS[1]))",
        "local key = KEYS[1]\nlocal function get(key)\n  return redis.call('GET', key)\nend",
        "local key = KEYS[1]\nfor _, key in ipairs(ARGV) do\n  redis.call('GET', key)\nend",
    ],
)
def test_a_script_that_builds_a_key_would_be_found(text: str) -> None:
    """P38."""
    assert keys_that_do_not_come_from_keys(text)


@pytest.mark.parametrize(
    "text",
    [
        "redis.call('GET', KEYS[tonumber(ARGV[1])])",
        "local a, b = KEYS[1], KEYS[2]\nlocal c = ARGV[1]\nredis.call('GET', b)\nredis.call('GET', a)",
        "local key, t = KEYS[tonumber(ARGV[1])], ARGV[2]\nlocal s = {n = 1, key = key}\nredis.call('GET', s.key)",
        "redis.call('PUBLISH', ARGV[1], '')\nredis.call('TIME')",
    ],
)
def test_a_script_that_is_given_its_keys_passes(text: str) -> None:
    assert keys_that_do_not_come_from_keys(text) == []


@pytest.mark.parametrize("text", ["redis.call(ARGV[1], KEYS[1])", "local call = redis.call\ncall('GET', 'x')"])
def test_a_call_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        keys_that_do_not_come_from_keys(text)


@each_script
def test_only_commands_and_options_of_the_oldest_supported_server_are_used(name: str) -> None:
    calls = list(Script(TEXTS[name]).calls())
    literals = {
        argument[0][1:-1]
        for call in calls
        for argument in call.arguments
        if len(argument) == 1 and argument[0][0] == "'"
    }
    options = {literal for literal in literals if re.fullmatch(r"[A-Z]+", literal)}

    assert calls
    assert {call.command for call in calls} - ONLY_WHERE_TOLD <= SINCE.keys()
    assert options - ONLY_WHERE_TOLD <= OPTIONS_SINCE.keys()
    assert max([*SINCE.values(), *OPTIONS_SINCE.values()]) <= OLDEST_SERVER


@each_script
def test_only_functions_that_every_server_has_are_used_or_they_are_asked_for_first(name: str) -> None:
    text = TEXTS[name]

    assert Script(text).functions_of("redis") <= FUNCTIONS
    for line in text.splitlines():
        if "redis.acl_check_cmd(" in line and "if redis.acl_check_cmd and" not in line:
            before = text[: text.index(line)].rstrip().splitlines()[-1]
            assert before.strip() == "if redis.acl_check_cmd then"


@each_script
def test_a_notice_is_published_only_with_the_command_that_the_caller_says(name: str) -> None:
    """P29: who publishes with another one than listeners use is heard by nobody."""
    lines = [line.strip() for line in TEXTS[name].splitlines()]
    publishing = [call.command for call in Script(TEXTS[name]).calls() if call.command in ("PUBLISH", "SPUBLISH")]

    assert publishing in ([], ["SPUBLISH", "PUBLISH"])
    for before, line in pairwise(lines):
        if re.search(r"\('SPUBLISH',", line):
            assert before.removeprefix("else") == "if publish_with == 'SPUBLISH' then"
        elif re.search(r"\('PUBLISH',", line):
            assert before == "else"


def test_the_check_at_start_tries_every_command_that_the_other_scripts_use() -> None:
    """P16: what a server refuses is said at the start."""

    def commands(name: str) -> set[str]:
        return {call.command for call in Script(TEXTS[name]).calls()}

    used = set().union(*(commands(name) for name in TEXTS if name != "check"))
    assert used <= commands("check")


@each_script
def test_the_servers_time_is_read_at_most_once(name: str) -> None:
    """P12: one call has one time."""
    assert [call.command for call in Script(TEXTS[name]).calls()].count("TIME") <= 1


@each_script
def test_a_script_opens_with_a_sentence_and_its_contract(name: str) -> None:
    head = TEXTS[name].partition("\n\nlocal ")[0].splitlines()

    assert all(line.startswith("--") for line in head)
    assert re.match(r"-- [A-Z].*[.:]$|-- [A-Z].*,$|-- [A-Z]", head[0])
    assert any(line.startswith("-- KEYS  1 ") for line in head)
    assert any(line.startswith("-- returns ") for line in head)


@each_script
def test_every_key_that_is_used_by_its_position_is_in_the_contract(name: str) -> None:
    head, _, body = TEXTS[name].partition("\n\nlocal ")
    contract = head.partition("-- KEYS")[2].partition("-- ARGV")[0].partition("-- returns")[0]
    described = {int(number) for number in re.findall(r"^(?:--)?\s+(\d+)[. ]", contract, re.MULTILINE)}
    used = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", body)}

    assert used <= described


def test_a_part_stands_where_it_is_named_and_every_part_is_used() -> None:
    parts = {path.stem: path.read_text() for path in (HOME / "parts").glob("*.lua")}
    named = {name: re.findall(r"^-- part: (\w+)$", path.read_text(), re.MULTILINE) for name, path in SOURCES.items()}

    assert set(parts) == {part for names in named.values() for part in names}
    for name, names in named.items():
        assert "-- part:" not in TEXTS[name]
        assert all(parts[part] in TEXTS[name] for part in names)
