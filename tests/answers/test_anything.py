"""Whatever comes, nothing is raised and no wait is made up."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator.answers import Answer, providers, read_answer, read_exception, read_output
from rate_coordinator.answers.quantities import LONGEST_WAIT_SECONDS
from tests.answers.outputs import OUTPUTS
from tests.answers.services import SERVICES
from tests.answers.vendors import VENDORS

SAMPLES = [*VENDORS, *SERVICES]
NAMES = sorted({name.lower() for sample in SAMPLES for name in sample.headers} | {"retry-after", "date", "age"})
VALUES = sorted({value for sample in SAMPLES for value in sample.headers.values()})

odd_values = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [*VALUES, "-1", "NaN", "1e309", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "9999-12-31T23:59:59Z"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat()),
    st.from_regex(r"\A([0-9]{1,4}(\.[0-9]{1,3})?(ms|us|ns|s|m|h|d)){1,4}\Z"),
)
headers = st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), st.text(max_size=20)), odd_values), max_size=12)
keys = st.sampled_from(
    [
        "error",
        "errors",
        "type",
        "code",
        "message",
        "status",
        "details",
        "retryDelay",
        "retry_after",
        "parameters",
        "extensions",
        "cost",
        "json",
        "metadata",
        "throttleStatus",
        "headers",
        "X-RateLimit-Reset",
        "estimated_time",
        "resets_at",
        "ratelimit",
        "__type",
        "msg",
        "ok",
        "global",
    ]
)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.text(max_size=200),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), odd_values),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)),
        max_leaves=12,
    ),
    st.sampled_from(SAMPLES).map(lambda sample: sample.body),
)
statuses = st.one_of(st.sampled_from([200, 400, 402, 403, 418, 429, 498, 500, 503, 529]), st.integers())
moments = st.datetimes(timezones=st.just(UTC))


def check(answer: Answer) -> None:
    for number in (answer.wait_seconds, answer.remaining, answer.reset_seconds):
        assert number is None or (math.isfinite(number) and number >= 0)
    for wait in (answer.wait_seconds, answer.reset_seconds):
        assert wait is None or wait <= LONGEST_WAIT_SECONDS
    assert answer.limited == (answer.reason is not None)
    assert answer.limited or answer.wait_seconds is None
    assert not answer.limited or answer.source is not None
    assert answer.scope is None or isinstance(answer.scope, str)


@given(statuses, headers, bodies, st.sampled_from([None, *providers()]), moments)
def test_any_answer_can_be_read(
    status: int, headers: list[tuple[str, str]], body: Any, provider: str | None, now: datetime
) -> None:
    check(read_answer(status, headers, body, provider=provider, now=now))


@given(st.sampled_from(SAMPLES), headers, moments)
def test_any_answer_can_be_read_with_other_headers_beside_its_own(
    sample: Any, headers: list[tuple[str, str]], now: datetime
) -> None:
    check(read_answer(sample.status, [*sample.headers.items(), *headers], sample.body, now=now))


@given(st.sampled_from(SAMPLES), st.data())
def test_any_answer_can_be_cut_off(sample: Any, data: st.DataObject) -> None:
    body = sample.body if isinstance(sample.body, (str, bytes)) else json.dumps(sample.body)

    check(read_answer(sample.status, sample.headers, body[: data.draw(st.integers(0, len(body)))]))


@given(st.lists(st.one_of(st.sampled_from([output.text for output in OUTPUTS]), st.text(max_size=80)), max_size=4),
       st.one_of(st.none(), st.integers(-64, 255)), moments)  # fmt: skip
def test_any_output_can_be_read(parts: list[str], exit_code: int | None, now: datetime) -> None:
    check(read_output("\n".join(parts), exit_code, now=now))
    check(read_output("".join(parts).encode("utf-8", "replace"), exit_code, now=now))


@given(st.text(max_size=300))
def test_an_output_of_no_known_program_that_succeeded_is_clear(text: str) -> None:
    assert read_output(f"done: {text}", 0) == Answer()


@given(
    st.dictionaries(
        st.sampled_from(
            ["response", "status", "status_code", "code", "headers", "body", "retry_after", "message", "details"]
        ),
        st.one_of(bodies, statuses, headers),
    ),
    moments,
)
def test_any_error_can_be_read(attributes: dict[str, Any], now: datetime) -> None:
    error = type("RateLimitError", (Exception,), {})()
    vars(error).update(attributes)

    check(read_exception(error, now=now))
