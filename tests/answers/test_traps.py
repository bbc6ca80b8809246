"""What goes wrong where headers are believed as they come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from rate_coordinator.answers import Answer, read_answer
from tests.answers.samples import NOW, NOW_S

REFUSED = Answer(limited=True, reason="rate_limit", source="status")


def read(status: int, headers: Any = (), body: Any = None, provider: str | None = None) -> Answer:
    return read_answer(status, headers, body, provider=provider, now=NOW)


def wait(headers: Any, status: int = 429) -> float | None:
    return read(status, headers).wait_seconds


GARBAGE = [
    "", " ", "-1", "-0.5", "NaN", "nan", "inf", "Infinity", "1e309", "1e3", "0x10", "+5", "5 5", "soon", "5;", "None",
    "9" * 400, "9" * 5000, "1" + "0" * 18, "٣٠", "5\x00", "\ud800", "<html>", "5d5", "5 fortnights", "3pm",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 99999 23:59:59 GMT", "Fri, 99 Foo 2026 00:00:00 GMT",
    "Mon, 01 Jun 2026 11:00:00 GMT", "9999-12-31T23:59:59Z", "2026-13-45T99:99:99Z", "2026-06-01T12:00:30",
    "0001-01-01T00:00:00+14:00", "253402300799", "31622401",
]  # fmt: skip


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value)[:24])
@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms", "x-ratelimit-reset", "ratelimit-reset"])
def test_garbage_is_no_wait(header: str, value: str) -> None:
    if header != "retry-after-ms" or value != "31622401":
        assert read(429, {header: value}) == REFUSED


@pytest.mark.parametrize("header", [{"retry-after": "0"}, {"retry-after-ms": "0"}, {"retry-after": "0.0"}])
def test_a_wait_of_0_stays_one(header: dict[str, str]) -> None:
    assert wait(header) == 0.0


@pytest.mark.parametrize("skew", [timedelta(hours=-2), timedelta(seconds=-1), timedelta(), timedelta(days=30)])
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("retry-after", "Mon, 01 Jun 2026 12:00:30 GMT"),
        ("x-ratelimit-reset", str(NOW_S + 30)),
        ("x-ratelimit-reset", str((NOW_S + 30) * 1000)),
        ("x-ratelimit-reset", "2026-06-01T14:00:30+02:00"),
    ],
)
def test_moments_are_held_against_the_clock_of_the_answer(header: str, value: str, skew: timedelta) -> None:
    headers = {"date": "Mon, 01 Jun 2026 12:00:00 GMT", header: value}

    assert read_answer(429, headers, now=NOW + skew).wait_seconds == 30.0


def test_an_answer_from_a_cache_is_as_old_as_it_says() -> None:
    headers = {"date": "Mon, 01 Jun 2026 12:00:00 GMT", "age": "20", "x-ratelimit-reset": str(NOW_S + 30)}

    assert wait(headers) == 10.0


def test_lengths_of_time_do_not_depend_on_any_clock() -> None:
    assert wait({"date": "Mon, 01 Jun 1998 12:00:00 GMT", "retry-after": "30"}) == 30.0


@pytest.mark.parametrize("date", ["yesterday", "", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_date_that_is_nonsense_makes_no_wait(date: str) -> None:
    assert wait({"date": date, "x-ratelimit-reset": str(NOW_S + 30)}) in {30.0, None}


def test_of_several_waits_the_longest_of_the_limit_that_was_hit_counts() -> None:
    headers = {
        "retry-after": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12s",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "6m0s",
    }

    assert read(429, headers) == Answer(True, 12.0, "rate_limit", "requests", 0.0, 12.0, "x-ratelimit-reset-requests")


def test_a_reset_of_a_limit_that_was_not_hit_is_no_wait() -> None:
    assert read(429, {"x-ratelimit-remaining": "7", "x-ratelimit-reset": "3600"}) == REFUSED


def test_a_reset_counts_where_nothing_tells_what_is_left() -> None:
    assert wait({"x-ratelimit-reset": "40"}) == 40.0


def test_a_wait_in_whole_seconds_gives_way_to_the_same_one_told_exactly() -> None:
    assert wait({"retry-after": "2", "retry-after-ms": "1300"}) == 1.3
    assert wait({"retry-after": "20", "retry-after-ms": "1300"}) == 20.0


def test_resets_on_answers_that_are_no_refusals_are_told_but_are_no_wait() -> None:
    answer = read(200, {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"})

    assert answer == Answer(False, None, None, None, 0.0, 30.0, "x-ratelimit-reset")


def test_of_several_limits_the_tightest_is_told() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "30",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "5s",
    }

    assert read(200, headers).scope == "tokens"
    headers["x-ratelimit-remaining-tokens"] = "10"
    assert read(200, headers).scope == "requests"


@pytest.mark.parametrize("status", [503, 529])
@pytest.mark.parametrize("told", [{}, {"Retry-After": "7"}])
def test_overload_is_no_rate_limit(status: int, told: dict[str, str]) -> None:
    """P47."""
    answer = read(status, told)

    assert (answer.limited, answer.reason, answer.wait_seconds) == (True, "overloaded", 7.0 if told else None)


@pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 402, 403, 404, 408, 409, 418, 425, 500, 502, 504, 0, -1])
def test_other_statuses_are_no_refusal_whatever_their_headers(status: int) -> None:
    """P46."""
    headers = {"retry-after": "9", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}

    assert (read(status, headers).limited, read(status, headers).wait_seconds) == (False, None)


@pytest.mark.parametrize("status", [None, "429", 429.0, True, [], 10**30])
def test_what_is_no_status_is_no_refusal(status: Any) -> None:
    assert read(status, {"retry-after": "9"}).limited is False


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", "5"), ("retry-after", "20"), ("RETRY-AFTER", "x")], 20.0),
        ({"retry-after": "5, 20"}, 20.0),
        ({"retry-after": "Mon, 01 Jun 2026 12:00:05 GMT, Mon, 01 Jun 2026 12:00:20 GMT"}, 20.0),
        ({b"Retry-After": b"20"}, 20.0),
        ({"retry-after": ["5", "20"]}, 20.0),
        ([["retry-after", "20"]], 20.0),
        ([("x-ratelimit-remaining", "3, 0"), ("x-ratelimit-reset", "9, 20")], 20.0),
        ({"retry-after": 20}, 20.0),
        ({"retry-after": 20.0, "retry-after-ms": True}, 20.0),
    ],
    ids=["pairs", "joined", "joined-dates", "bytes", "lists", "list-pairs", "joined-windows", "number", "fraction"],
)
def test_headers_that_came_several_times_count_all(headers: Any, seconds: float) -> None:
    assert wait(headers) == seconds


@pytest.mark.parametrize(
    "headers", [None, 5, "retry-after: 5", b"x", [1, 2], [("a",)], [("a", "b", "c")], {1: 2}, {"retry-after": None}]
)
def test_what_is_no_header_is_left_out(headers: Any) -> None:
    assert read(429, headers) == REFUSED


@pytest.mark.parametrize(
    "body",
    [
        b"<html><head><title>429 Too Many Requests</title></head><body>retry after 3600</body></html>",
        "upstream connect error",
        b"\xff\xfe\x00{",
        "{" * 50_000,
        "[" * 50_000,
        '{"error":' * 5_000,
        '{"retry_after": 1e309}',
        '{"retry_after": NaN, "parameters": {"retry_after": -5}}',
        '{"error": {"message": "try again in 1e309s", "resets_at": 9' + "9" * 4300 + "}}",
        {"error": {"code": 10**400, "details": [None, 5, {"retryDelay": {}}]}},
        {"error": []},
        [],
        [[]],
        5,
        object(),
    ],
    ids=lambda body: repr(body)[:20],
)
@pytest.mark.parametrize("provider", [None, "openai", "google", "discord", "telegram", "shopify", "aws"])
def test_a_body_that_makes_no_sense_is_no_wait(body: Any, provider: str | None) -> None:
    answer = read(429, {}, body, provider)

    assert (answer.limited, answer.wait_seconds) == (True, None)
    assert read(200, {}, body, provider).limited is False


def test_no_more_of_a_body_is_looked_at_than_a_refusal_is_long() -> None:
    class Counted(bytes):
        longest = 0

        def __getitem__(self, key: Any) -> Any:
            part = super().__getitem__(key)
            Counted.longest = max(Counted.longest, len(part) if isinstance(part, bytes) else 1)
            return part

    read(429, {}, Counted(b'{"parameters": {"retry_after": 5}, "x": "' + b"x" * 5_000_000 + b'"}'), "telegram")

    assert Counted.longest <= 64 * 1024


def test_a_text_that_only_speaks_of_limits_is_no_refusal() -> None:
    """P45."""
    body = {
        "choices": [{"message": {"content": "HTTP 429 means rate_limit_exceeded; retry after 60 seconds."}}],
        "usage": {"error": "insufficient_quota"},
    }

    assert all(read(200, {}, body, provider).limited is False for provider in (None, "openai", "anthropic", "google"))


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ('"default";r=50;t=30', (50.0, 30.0, "default")),
        ('"burst";r=9;t=1, "daily";r=2;t=4000', (2.0, 4000.0, "daily")),
        ("default;r=50;t=30", (50.0, 30.0, "default")),
        ("limit=100, remaining=80, reset=54", (80.0, 54.0, None)),
        ('"a";r=999;pk=:dHJpYWwxMjEzMjM=:', (999.0, None, "a")),
        ('"a";r=-1;t=5', (None, None, None)),
        ('"a', (None, None, None)),
    ],
)
def test_the_draft_of_the_ietf_is_read_in_its_versions(field: str, answer: tuple[object, ...]) -> None:
    policy = '"burst";q=10;w=1, "daily";q=100;w=86400'
    told = read(200, {"RateLimit": field, "RateLimit-Policy": policy})

    assert (told.remaining, told.reset_seconds, told.scope) == answer


def test_a_policy_whose_kind_is_written_before_its_name_tells_its_size() -> None:
    """https://huggingface.co/docs/hub/rate-limits; of two limits the one with the smallest part left is told."""
    policies = '"fixed window";"api";q=500;w=300, "fixed window";"pages";q=100;w=300'

    assert read(200, {"RateLimit": '"pages";r=99;t=9, "api";r=100;t=9', "RateLimit-Policy": policies}).scope == "api"


def test_the_time_has_to_tell_its_zone() -> None:
    with pytest.raises(ValueError, match=r"^now must tell its time zone"):
        read_answer(200, {}, now=datetime(2026, 6, 1))


def test_the_real_time_counts_where_none_is_given() -> None:
    assert read_answer(429, {"x-ratelimit-reset": str(NOW_S - 10**8)}).wait_seconds is None
