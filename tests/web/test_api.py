"""The JSON interface within this process: what it says, what it refuses, and who may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.web import Token, create_app, read_token
from rate_coordinator.web.guard import trusted_hosts
from tests.cli.programs import Cli
from tests.conftest import Make
from tests.servers import RedisServer, eventually
from tests.web.serving import BEARER, TOKEN

HERE = "http://localhost:8765"


@pytest.fixture
async def coordinator(make: Make) -> RateLimitCoordinator:
    return await make()


@pytest.fixture
async def client(coordinator: RateLimitCoordinator) -> AsyncIterator[httpx.AsyncClient]:
    """A client that bears the token."""
    app = create_app(coordinator, token=Token(TOKEN))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=HERE, headers=BEARER) as client,
    ):
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check that an answer is a problem as RFC 9457 has it, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert (told["type"], told["status"]) == ("about:blank", status)
    assert told["title"]
    assert TOKEN not in answer.text
    return told


# What it says.


async def test_a_report_is_told_to_everyone_and_answered_as_the_command_line_answers_it(
    client: httpx.AsyncClient, make: Make
) -> None:
    other = await make()
    body = {
        "backend": "claude",
        "model": "opus",
        "wait_seconds": 7200,
        "job_id": "nightly",
        "sheet_num": 7,
        "reason": "overloaded",
        "call_age_seconds": 1.5,
    }
    answer = await client.post("/api/v1/report", json=body)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["target"], told["wait_seconds"], told["clamped"]) == ("claude/opus", 3600.0, True)
    assert (told["asked_wait_seconds"], told["extended"], told["delivered"]) == (7200.0, True, True)
    assert 3590 < told["seconds_remaining"] <= 3600
    await eventually(lambda: other.active_limits)
    (event,) = await other.events()
    assert (event.id, event.job_id, event.sheet_num, event.reason) == (told["event_id"], "nightly", 7, "overloaded")
    assert event.call_age_ms is not None
    assert 1500 <= event.call_age_ms < 20_000


async def test_the_status_says_what_the_command_line_says(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator, cli: Cli
) -> None:
    await coordinator.report_rate_limit("claude", 7200, "nightly", 7, model="opus", reason="quota")

    async def asked() -> Any:
        told = (await client.get("/api/v1/status")).json()
        return told["limits"][0]["asked_wait_seconds"] and told

    # What was asked for is told by the notice, which comes a little later.
    told = await eventually(asked)
    assert told["health"] == {"state": "connected", "degraded_seconds": 0.0, "last_error": None}
    (limit,) = told["limits"]
    assert (limit.pop("asked_wait_seconds"), limit.pop("clamped"), limit.pop("delivered")) == (
        7200.0,
        "above_cap",
        True,
    )
    assert limit["target"] == "claude/opus"
    del told["health"]
    command = (await asyncio.to_thread(cli, "status", "--json")).json
    assert told.keys() == command.keys()
    assert limit.keys() == command["limits"][0].keys()
    assert limit["resume_at"] == command["limits"][0]["resume_at"]
    assert (told["address"], told["namespace"]) == (command["address"], command["namespace"])


async def test_a_check_tells_whether_and_for_how_long(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator
) -> None:
    await coordinator.report_rate_limit("openai", 60)

    limited = (await client.get("/api/v1/check", params={"backend": "openai", "model": "gpt"})).json()
    clear = (await client.get("/api/v1/check?backend=github")).json()

    assert (limited["target"], limited["limited"]) == ("openai/gpt", True)
    assert 59 < limited["seconds_remaining"] <= 60
    assert clear == {
        "target": "github",
        "backend": "github",
        "model": None,
        "limited": False,
        "seconds_remaining": 0.0,
    }


async def test_a_clear_lifts_a_model_a_backend_or_everything(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator
) -> None:
    for model in (None, "one", "two"):
        await coordinator.report_rate_limit("openai", 60, model=model)
    await coordinator.report_rate_limit("github", 60)

    async def clear(**body: Any) -> int:
        cleared: int = (await client.post("/api/v1/clear", json=body)).json()["cleared"]
        return cleared

    assert await clear(backend="openai", model="one") == 1
    assert await clear(backend="openai") == 2
    assert coordinator.active_limits.keys() == {"github"}
    assert await clear(all=True) == 1
    assert coordinator.active_limits == {}


async def test_a_hold_is_told_to_everyone_and_survives_clears_until_it_is_released(
    client: httpx.AsyncClient, make: Make
) -> None:
    other = await make()
    body = {"backend": "claude", "model": "opus", "seconds": 7200, "reason": "maintenance <b>"}
    answer = await client.post("/api/v1/hold", json=body)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["target"], told["wait_seconds"], told["note"]) == ("claude/opus", 7200.0, "maintenance <b>")
    assert 7190 < told["seconds_remaining"] <= 7200
    await eventually(lambda: other.active_limits)
    assert (other.limits[0].note, other.limits[0].reason) == ("maintenance <b>", "hold")
    (limit,) = (await client.get("/api/v1/status")).json()["limits"]
    assert (limit["held_until"], limit["held_by"]) == (told["resume_at"], limit["reporter"])

    cleared = (await client.post("/api/v1/clear", json={"all": True})).json()
    assert (cleared["cleared"], cleared["held"]) == (0, ["claude/opus"])

    async def release(**body: Any) -> tuple[bool, bool]:
        told = (await client.post("/api/v1/release", json=body)).json()
        assert (told["seconds_remaining"] > 0) == told["limited"]
        return told["released"], told["limited"]

    assert await release(backend="claude") == (False, False)
    await client.post("/api/v1/report", json={"backend": "claude", "model": "opus", "wait_seconds": 600})
    assert await release(backend="claude", model="opus") == (True, True)
    assert await release(backend="claude", model="opus") == (False, True)


async def test_the_answer_to_a_hold_and_a_release_is_that_of_the_command_line(
    client: httpx.AsyncClient, cli: Cli
) -> None:
    held = (await client.post("/api/v1/hold", json={"backend": "openai", "seconds": 60})).json()
    released = (await client.post("/api/v1/release", json={"backend": "openai"})).json()
    cleared = (await client.post("/api/v1/clear", json={"backend": "openai"})).json()

    assert held.keys() == (await asyncio.to_thread(cli, "hold", "openai", "--for", "60", "--json")).json.keys()
    assert released.keys() == (await asyncio.to_thread(cli, "release", "openai", "--json")).json.keys()
    assert cleared.keys() == (await asyncio.to_thread(cli, "clear", "openai", "--json")).json.keys()


async def test_the_metrics_are_those_of_the_coordinator(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator
) -> None:
    await coordinator.report_rate_limit("openai", 60)

    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert any(sample.value == 1 for name in families for sample in families[name].samples if "limits" in name)


async def test_while_redis_is_away_it_goes_on_and_says_so(own_server: RedisServer, make: Make) -> None:
    coordinator = await make(command_timeout=0.5)
    app = create_app(coordinator, token=Token(TOKEN))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE, headers=BEARER) as client,
    ):
        await coordinator.report_rate_limit("openai", 600)
        assert (await client.get("/healthz")).status_code == 200
        own_server.stop()
        await eventually(lambda: coordinator.health.state == "degraded")

        ill = await client.get("/healthz")
        assert ill.status_code == 503
        assert (ill.json()["state"], ill.json()["degraded_seconds"] >= 0) == ("degraded", True)
        assert ill.json()["last_error"]
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/api/v1/check?backend=openai")).json()["limited"]
        kept = await client.post("/api/v1/report", json={"backend": "github", "wait_seconds": 60})
        assert (kept.status_code, kept.json()["delivered"], kept.json()["event_id"]) == (202, False, None)
        refused = await client.post("/api/v1/clear", json={"all": True})
        assert "not available" in problem(refused, 503)["detail"]
        assert refused.headers["retry-after"] == "1"
        problem(await client.post("/api/v1/hold", json={"backend": "github", "seconds": 60}), 503)
        problem(await client.post("/api/v1/release", json={"backend": "github"}), 503)


# What it refuses.


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ({"backend": "openai"}, "wait_seconds", "must be given"),
        ({"backend": "openai", "wait_seconds": "30"}, "wait_seconds", "must be a valid number"),
        ({"backend": "openai", "wait_seconds": True}, "wait_seconds", "must be a valid number"),
        ({"backend": "openai", "wait_seconds": -1}, "wait_seconds", "must be greater than or equal to 0"),
        ({"backend": 7, "wait_seconds": 1}, "backend", "must be a valid string"),
        ({"backend": "openai", "wait_seconds": 1, "modle": "x"}, "modle", "must not be given"),
        ({"backend": "openai", "wait_seconds": 1, "reason": "mood"}, "reason", "'overloaded' or 'quota'"),
        ({"backend": "openai", "wait_seconds": 1, "sheet_num": 1.5}, "sheet_num", "must be a valid integer"),
        ([], "the body", "must be an object"),
    ],
)
async def test_a_body_of_the_wrong_kind_is_refused_by_name(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator, body: Any, field: str, expected: str
) -> None:
    told = problem(await client.post("/api/v1/report", json=body), 422)

    (wrong,) = told["errors"]
    assert wrong["field"] == field
    assert expected in wrong["expected"]
    assert wrong["value"] in told["detail"]
    assert await coordinator.events() == []


@pytest.mark.parametrize(
    ("more", "named"),
    [
        *(({"seconds": seconds}, "seconds") for seconds in (0, -1, 86_400 * 366 + 1, "60", True, None, 10**400)),
        *(({"reason": reason}, "reason") for reason in ("x" * 257, 7, None)),
        ({"model": "a\nb"}, "'a\\nb'"),
        ({"reason": "\ud800"}, ""),
        ({"until": "tomorrow"}, "until"),
    ],
)
async def test_a_hold_that_cannot_be_used_is_refused_by_name(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator, more: dict[str, Any], named: str
) -> None:
    body = json.dumps({"backend": "openai", "seconds": 60, **more})
    answer = await client.post("/api/v1/hold", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in {400, 422}
    assert named in problem(answer, answer.status_code)["detail"]
    assert await coordinator.events() == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_a_wait_that_is_not_finite_is_refused(client: httpx.AsyncClient, number: str) -> None:
    """P07"""
    headers = {"content-type": "application/json"}
    for path, field in (("report", "wait_seconds"), ("hold", "seconds")):
        body = f'{{"backend": "openai", "{field}": {number}}}'
        assert "finite" in problem(await client.post(f"/api/v1/{path}", content=body, headers=headers), 422)["detail"]


@pytest.mark.parametrize("body", [{}, {"backend": "x", "all": True}, {"model": "x", "all": True}])
async def test_a_clear_says_what_it_clears(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert "must be" in problem(await client.post("/api/v1/clear", json=body), 422)["detail"]


async def test_names_that_cannot_be_used_are_refused_by_name(client: httpx.AsyncClient) -> None:
    report = await client.post("/api/v1/report", json={"backend": "a\nb", "wait_seconds": 1})
    assert "'a\\nb'" in problem(report, 422)["detail"]
    assert "256" in problem(await client.get("/api/v1/check", params={"backend": "x" * 257}), 422)["detail"]
    assert "must be given" in problem(await client.get("/api/v1/check"), 422)["detail"]
    assert "once" in problem(await client.get("/api/v1/check?backend=a&backend=b"), 422)["detail"]
    assert "must not" in problem(await client.get("/api/v1/check?backend=a&url=b"), 422)["detail"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"sheet_num": 2**70}, "sheet_num"),
        ({"job_id": "x" * 1025}, "job_id"),
        ({"call_age_seconds": 1e300}, "call_age_seconds"),
        ({"call_age_seconds": -1}, "call_age_seconds"),
        ({"job_id": "\ud800"}, ""),
        ({"wait_seconds": 10**400}, ""),
    ],
)
async def test_what_is_out_of_range_is_refused_and_recorded_nowhere(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator, more: dict[str, Any], named: str
) -> None:
    body = json.dumps({"backend": "openai", "wait_seconds": 1, **more})
    answer = await client.post("/api/v1/report", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in {400, 422}
    assert named in problem(answer, answer.status_code)["detail"]
    assert await coordinator.events() == []


async def test_a_sender_who_leaves_before_the_end_of_the_body_is_no_failure(coordinator: RateLimitCoordinator) -> None:
    sent: list[Any] = []
    arriving = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    headers = {**BEARER, "Host": "localhost", "Content-Type": "application/json"}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/report", "query_string": b"", "headers": raw}

    async def receive() -> Any:
        return next(arriving)

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(coordinator, token=Token(TOKEN))(scope, receive, send)

    assert sent[0]["status"] == 400


async def test_what_is_no_json_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    problem(await client.post("/api/v1/report", content=b"{", headers=headers), 400)
    problem(await client.post("/api/v1/report", content=b"\xff", headers=headers), 400)
    told = problem(await client.post("/api/v1/report", content=b"{}", headers={"content-type": "text/plain"}), 415)
    assert "'text/plain'" in told["detail"]
    problem(await client.post("/api/v1/report", content=b"{}"), 415)


async def test_a_body_that_is_too_long_is_refused_before_it_has_arrived(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10**9:
            sent += 1000
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    problem(await client.post("/api/v1/report", content=endless(), headers=headers), 413)
    assert sent < 100_000


async def test_other_paths_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/nonsense"), 404)
    problem(await client.get("/../app.py"), 404)
    problem(await client.get("/%2e%2e/app.py"), 404)
    problem(await client.get("/api/v1/report"), 405)
    problem(await client.post("/api/v1/check", json={}), 405)


# Who may ask.


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ä",
    ],
)
async def test_nobody_writes_without_the_token(
    client: httpx.AsyncClient, coordinator: RateLimitCoordinator, header: str
) -> None:
    headers = {b"Authorization": header.encode()}
    for path in ("report", "clear", "hold", "release"):
        answer = await client.post(f"/api/v1/{path}", json={"backend": "x", "wait_seconds": 1}, headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await coordinator.events() == []


async def test_without_a_token_nobody_writes(coordinator: RateLimitCoordinator) -> None:
    transport = httpx.ASGITransport(create_app(coordinator))
    async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=BEARER) as client:
        told = problem(await client.post("/api/v1/clear", json={"all": True}), 403)
        assert "read-only" in told["detail"]
        assert (await client.get("/api/v1/status")).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("LOCALHOST:8765", 200), ("127.0.0.1:1", 200), ("[::1]:8765", 200), ("[::1]", 200)),
        *(("evil.example", 421), ("localhost.evil.example", 421), ("evil.example:8765", 421), ("", 421)),
        *(("localhost:8765@evil", 421), ("127.0.0.1.evil.example", 421), ("::1", 421)),
    ],
)
async def test_on_loopback_it_answers_to_no_foreign_name(client: httpx.AsyncClient, host: str, status: int) -> None:
    """A foreign page can let its own name point to this machine (DNS rebinding)."""
    assert (await client.get("/api/v1/status", headers={"host": host})).status_code == status


def test_elsewhere_it_answers_to_any_name_or_to_those_that_are_allowed() -> None:
    own = {"localhost", "127.0.0.1", "[::1]"}

    assert trusted_hosts("0.0.0.0", []) is None
    assert trusted_hosts("127.0.0.2", []) == frozenset(own | {"127.0.0.2"})
    assert trusted_hosts("::1", []) == frozenset(own)
    assert trusted_hosts("0.0.0.0", ["Limits.Example"]) == frozenset(own | {"0.0.0.0", "limits.example"})


async def test_pages_of_other_sites_may_not_use_it(client: httpx.AsyncClient) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        answer = await client.get("/api/v1/status", headers={"sec-fetch-site": site, "origin": "https://evil.example"})
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert (await client.get("/", headers={"sec-fetch-site": "cross-site"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/api/v1/status", "/nonsense"])
async def test_browsers_are_told_to_be_strict_with_every_answer(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers

    policy = {rule.split()[0]: rule.split()[1:] for rule in headers["content-security-policy"].split("; ")}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] in {"no-cache", "no-store"}
    assert "server" not in headers


# The token.


def test_a_token_comes_from_the_file_else_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    found = read_token(file, {"RATE_COORDINATOR_TOKEN": "another-long-enough-token"})
    assert found is not None
    assert found.is_that_of(f"Bearer {TOKEN}")
    assert read_token(None, {"RATE_COORDINATOR_TOKEN": TOKEN}) is not None
    assert read_token(None, {"RATE_COORDINATOR_TOKEN": ""}) is None
    assert read_token(None, {}) is None
    assert TOKEN not in repr(found)


@pytest.mark.parametrize("content", ["", "short", "with a space in between", "with-ä-umlaut-in-it"])
def test_a_token_that_cannot_be_used_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)

    with pytest.raises(ValueError, match="at least 16") as raised:
        read_token(file, {})
    assert not content or content not in str(raised.value)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*cannot be read"):
        read_token(tmp_path / "nowhere", {})
