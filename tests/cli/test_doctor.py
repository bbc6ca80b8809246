"""The doctor finds what is wrong, says what to do about it, and takes nothing for wrong that it cannot know."""

from __future__ import annotations

from typing import Any

import pytest

from rate_coordinator import Diagnosis, Finding, diagnose
from rate_coordinator.findings import (
    judge_clock,
    judge_delay,
    judge_eviction,
    judge_persistence,
    judge_rights,
    judge_role,
    judge_version,
)
from rate_coordinator.keys import Keys
from tests.cli.programs import Cli
from tests.conftest import SERVERS, Make, Place
from tests.servers import RedisServer, eventually, free_port

PASSWORD = "s3cr3t"
EVERYTHING = {"reachable", "version", "role", "rights", "eviction", "persistence", "round_trip", "clock", "notices"}


def by_name(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnosis.findings}


def user(server: RedisServer, *rules: str) -> str:
    """Make a user with these rights on the namespace "test" and return its URL."""
    rights = ["+@all", "~{test}:*", "resetchannels", "&{test}:*"]
    server.admin.execute_command("ACL", "SETUSER", "someone", "reset", "on", f">{PASSWORD}", *rights, *rules)  # type: ignore[no-untyped-call]
    return server.url.replace("redis://", f"redis://someone:{PASSWORD}@")


async def test_a_server_as_we_recommend_it_is_well() -> None:
    with RedisServer(SERVERS[0].path, appendonly="yes") as server:
        diagnosis = await diagnose(server.url)
    assert diagnosis.healthy
    assert set(by_name(diagnosis)) == EVERYTHING
    assert (diagnosis.product, diagnosis.version) == (SERVERS[0].product, SERVERS[0].version)
    assert diagnosis.round_trip_seconds is not None
    assert 0 < diagnosis.round_trip_seconds < 0.2
    assert diagnosis.notice_delay_seconds is not None
    assert 0 < diagnosis.notice_delay_seconds < 0.2
    assert diagnosis.clock_difference_seconds is not None
    assert abs(diagnosis.clock_difference_seconds) < 0.5
    assert all(finding.advice is None for finding in diagnosis.findings)


async def test_it_changes_no_limit_and_no_event_and_no_listener_takes_note(real: Place, make: Make) -> None:
    coordinator = await make()
    heard: list[object] = []
    coordinator.on_notice(heard.append)
    await coordinator.report_rate_limit("openai", 30)
    await eventually(lambda: heard)
    events = await coordinator.events()
    await diagnose(real.url, real.namespace)
    await coordinator.refresh()
    assert await coordinator.events() == events
    assert list(coordinator.active_limits) == ["openai"]
    assert len(heard) == 1
    assert coordinator.health.notices_unreadable == 0


async def test_a_server_without_persistence_is_told_to_have_it(real: Place) -> None:
    found = by_name(await diagnose(real.url))["persistence"]
    assert found.status == "wrong"
    assert found.advice == "Turn the append-only file on (appendonly yes)."


async def test_a_server_that_throws_limits_away_is_told_not_to(own_server: RedisServer) -> None:
    own_server.admin.config_set("maxmemory", "100mb")
    own_server.admin.config_set("maxmemory-policy", "volatile-lru")
    found = by_name(await diagnose(own_server.url))["eviction"]
    assert found.status == "wrong"
    assert "noeviction" in str(found.advice)


async def test_what_may_not_be_asked_is_unknown_and_no_fault(own_server: RedisServer) -> None:
    diagnosis = await diagnose(user(own_server, "-config", "-info"), "test")
    assert diagnosis.healthy
    assert diagnosis.version is None
    unknown = {finding.name for finding in diagnosis.findings if finding.status == "unknown"}
    assert unknown == {"version", "role", "eviction", "persistence"}
    only_config = by_name(await diagnose(user(own_server, "-config"), "test"))
    assert only_config["persistence"].status == "unknown"
    assert only_config["version"].status == "ok"


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        *((f"-{command}", command.upper()) for command in ("xadd", "zadd", "hset", "get", "evalsha", "xrevrange")),
        *(("-subscribe", "SUBSCRIBE"), ("resetchannels", "SUBSCRIBE")),
    ],
)
async def test_every_command_that_is_refused_is_named(own_server: RedisServer, rule: str, command: str) -> None:
    found = by_name(await diagnose(user(own_server, rule), "test"))["rights"]
    assert found.status == "wrong"
    assert command in found.summary
    assert found.advice is not None
    assert "~{test}:*" in found.advice
    assert "&{test}:notices" in found.advice


async def test_a_replica_is_told_to_be_one(own_server: RedisServer) -> None:
    own_server.admin.replicaof("127.0.0.1", str(free_port()))
    diagnosis = by_name(await diagnose(own_server.url))
    assert (
        diagnosis["role"].advice
        == diagnosis["rights"].advice
        == ("Point the URL at the primary, which takes the writes.")
    )


async def test_a_server_that_is_away_is_a_finding() -> None:
    diagnosis = await diagnose(f"redis://someone:{PASSWORD}@localhost:{free_port()}")
    assert not diagnosis.healthy
    (found,) = diagnosis.findings
    assert found.name == "reachable"
    assert "Check that a server runs" in str(found.advice)
    assert PASSWORD not in diagnosis.model_dump_json()


async def test_a_wrong_password_is_told_from_a_server_that_is_away(own_server: RedisServer) -> None:
    own_server.admin.config_set("requirepass", PASSWORD)
    for credentials in ("", ":wrong@"):
        diagnosis = await diagnose(own_server.url.replace("redis://", f"redis://{credentials}"))
        assert by_name(diagnosis)["reachable"].advice == "Check the user and the password in the URL."
        assert PASSWORD not in diagnosis.model_dump_json()


async def test_a_server_that_hangs_is_told_within_the_timeouts(own_server: RedisServer) -> None:
    own_server.pause()
    diagnosis = await diagnose(own_server.url, connect_timeout=0.2, command_timeout=0.2)
    (found,) = diagnosis.findings
    assert found.status == "wrong"
    assert "no answer within 0.2 s" in found.summary


async def test_the_embedded_server_is_told_to_share_nothing() -> None:
    diagnosis = await diagnose("memory://")
    assert {finding.name for finding in diagnosis.findings if finding.status == "wrong"} == {"shared"}


def test_the_command_prints_every_finding_and_exits_with_1_when_something_is_wrong(cli: Cli) -> None:
    outcome = cli("doctor")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0] == f"{cli.place.url}, namespace {cli.place.namespace}"
    assert sum("  ok  " in line for line in lines) == len(EVERYTHING) - 1
    assert "  WRONG  persistence" in outcome.out
    assert "-> Turn the append-only file on" in outcome.out
    assert lines[-1] == "1 thing is wrong"


def test_the_command_exits_with_0_when_all_is_well(cli: Cli, own_server: RedisServer) -> None:
    outcome = cli.bare("--url", user(own_server, "-config"), "--namespace", "test", "doctor")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "all is well"
    assert PASSWORD not in outcome.out


def test_the_command_as_json_has_its_documented_fields(cli: Cli) -> None:
    told: dict[str, Any] = cli("doctor", "--json").json
    assert set(told) == {
        *("healthy", "address", "namespace", "product", "version", "findings"),
        *("round_trip_seconds", "notice_delay_seconds", "clock_difference_seconds"),
    }
    assert told["healthy"] is False
    assert {finding["name"] for finding in told["findings"]} == EVERYTHING
    assert all(set(finding) == {"name", "status", "summary", "advice"} for finding in told["findings"])


def test_versions_are_compared_as_numbers_and_valkeys_by_what_they_are_compatible_with() -> None:
    assert judge_version({"redis_version": "6.0.16"}).status == "wrong"
    assert judge_version({"redis_version": "6.2.14"}).status == "ok"
    assert judge_version({"redis_version": "10.0.0"}).status == "ok"
    assert judge_version({"redis_version": "7.2.4", "valkey_version": "8.1.0"}).summary == "valkey 8.1.0"
    assert judge_version({}).status == "unknown"


def test_what_makes_writes_fail_decides_the_advice() -> None:
    keys = Keys("test")
    for words, advice in [
        ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
        ("MISCONF Redis is configured to save RDB snapshots", "disk"),
        ("READONLY You can't write against a read only replica.", "primary"),
        ("NOPERM this user has no permissions", "ACL SETUSER"),
    ]:
        assert advice in str(judge_rights({}, {"SET": words}, keys).advice)
    assert judge_rights({}, {}, keys).status == "ok"


def test_an_eviction_policy_matters_only_with_a_bound_on_memory() -> None:
    assert judge_eviction({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}).status == "ok"
    assert judge_eviction({"maxmemory_policy": "allkeys-lru", "maxmemory": "1000"}).status == "wrong"
    assert judge_eviction({"maxmemory_policy": "noeviction", "maxmemory": "1000"}).status == "ok"
    assert judge_eviction({}).status == "unknown"


def test_any_kind_of_persistence_will_do_as_long_as_it_works() -> None:
    assert judge_persistence({"aof_enabled": "1"}, None).status == "ok"
    assert judge_persistence({"aof_enabled": "0"}, "3600 1").status == "ok"
    assert judge_persistence({"aof_enabled": "0"}, None).status == "unknown"
    assert judge_persistence({"aof_enabled": "0"}, "").status == "wrong"
    assert judge_persistence({"aof_enabled": "0", "rdb_last_bgsave_status": "err"}, "3600 1").status == "wrong"
    assert judge_persistence({"aof_enabled": "1", "aof_last_write_status": "err"}, "").status == "wrong"
    assert judge_persistence({}, None).status == "unknown"


def test_delays_clocks_and_roles_are_judged() -> None:
    assert judge_delay("notices", "heard after", 0.05).summary == "heard after 50.0 ms"
    assert judge_delay("notices", "heard after", 0.5).status == "wrong"
    assert judge_clock(0.1).status == judge_clock(-0.1).status == "ok"
    assert judge_clock(3600).status == judge_clock(-3600).status == "wrong"
    assert judge_role({"role": "slave"}).status == "wrong"
    assert judge_role({}).status == "unknown"
