"""What the errors of client libraries mean. Stand-ins carry what those of the libraries carry."""

from __future__ import annotations

import base64
import email.message
import enum
import io
import urllib.error
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, ResponseError

from rate_coordinator import RateLimited
from rate_coordinator.answers import Answer, read_exception
from rate_coordinator.answers.grpc import retry_delay
from tests.answers.samples import NOW


class Response:
    """As of httpx and requests: what was read stands in ``_content``; ``content`` would read, or raise."""

    def __init__(self, status: int, headers: Any = (), content: bytes | None = None) -> None:
        self.status_code = status
        self.headers = dict(headers)
        if content is not None:
            self._content = content

    def __bool__(self) -> bool:
        return self.status_code < 400

    @property
    def content(self) -> bytes:
        raise RuntimeError("this would read from the network")

    @property
    def text(self) -> str:
        raise RuntimeError("this would read from the network")


class Httplib2Response(dict[str, str]):
    """A dictionary of its headers: https://github.com/httplib2/httplib2."""

    status = 429


class Carrier(Exception):
    """An error that carries anything."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("x")
        vars(self).update(attributes)


class StatusCode(enum.Enum):
    UNAVAILABLE = (14, "unavailable")
    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    PERMISSION_DENIED = (7, "permission denied")


class RpcError(Exception):
    """As of grpc: everything is told by methods."""

    def __init__(self, code: StatusCode, metadata: Any = (), details: str = "") -> None:
        super().__init__(details)
        self._code, self._metadata, self._details = code, metadata, details

    def code(self) -> StatusCode:
        return self._code

    def trailing_metadata(self) -> Any:
        return self._metadata

    def details(self) -> str:
        return self._details


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        encoded = b""
        while value > 0x7F:
            encoded += bytes([value & 0x7F | 0x80])
            value >>= 7
        return bytes([number << 3]) + encoded + bytes([value])
    return bytes([number << 3 | 2, len(value)]) + value


def status_details(seconds: int, nanos: int = 0) -> bytes:
    duration = field(1, seconds) + (field(2, nanos) if nanos else b"")
    info = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, field(1, duration))
    help_ = field(1, b"type.googleapis.com/google.rpc.Help")
    return field(1, 8) + field(2, b"Quota exceeded") + field(3, help_) + field(3, info)


def read(exc: BaseException) -> Answer:
    return read_exception(exc, now=NOW)


TOKENS = b'{"error": {"message": "Please try again in 20s.", "type": "tokens", "code": "rate_limit_exceeded"}}'


def test_an_error_with_a_response_is_read_as_its_answer() -> None:
    answer = read(Carrier(response=Response(429, {"retry-after": "30"}, TOKENS)))

    assert answer == Answer(True, 30.0, "rate_limit", "tokens", source="retry-after")


def test_a_body_that_was_not_read_is_left_where_it_is() -> None:
    assert read(Carrier(response=Response(429, {"retry-after": "30"}))).wait_seconds == 30.0


def test_an_sdk_that_unwraps_the_error_is_understood() -> None:
    """https://github.com/openai/openai-python: ``_make_status_error`` keeps ``body["error"]`` as ``body``."""
    body = {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}

    answer = read(Carrier(response=Response(429), status_code=429, body=body))

    assert (answer.reason, answer.wait_seconds) == ("quota", None)


@pytest.mark.parametrize("attributes", [{"status": 429}, {"status_code": 429}, {"code": 429}, {"http_status": "429"}])
def test_an_error_that_is_its_own_response_is_understood(attributes: dict[str, Any]) -> None:
    """aiohttp: https://docs.aiohttp.org/en/stable/client_reference.html#aiohttp.ClientResponseError."""
    assert read(Carrier(headers={"Retry-After": "30"}, **attributes)).wait_seconds == 30.0


def test_the_error_that_ends_a_stream_is_understood_by_its_body() -> None:
    """https://github.com/openai/openai-python: ``Stream`` raises ``APIError`` without any response."""
    body = {"message": "Rate limit reached. Please try again in 6s.", "type": "tokens", "code": "rate_limit_exceeded"}

    assert read(Carrier(body=body)).wait_seconds == 6.0
    assert read(Carrier(body={"message": "429", "type": "server_error", "code": None})) == Answer()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        # https://github.com/googleapis/google-api-python-client: HttpError
        ({"resp": Httplib2Response({"retry-after": "5"}), "content": b"{}"}, ("rate_limit", 5.0)),
        (
            {
                "status_code": 403,
                "content": b'{"error": {"errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded"}]}}',
            },
            ("rate_limit", None),
        ),
        # https://github.com/PyGithub/PyGithub: GithubException
        (
            {
                "status": 403,
                "headers": {"x-github-request-id": "x", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"},
                "data": {"message": "Must have admin rights to Repository."},
            },
            (None, None),
        ),
        # https://github.com/stripe/stripe-python: StripeError
        (
            {
                "http_status": 429,
                "headers": {"Stripe-Version": "x"},
                "http_body": '{"error": {"code": "lock_timeout"}}',
            },
            (None, None),
        ),
        # https://github.com/python-gitlab/python-gitlab: GitlabError
        ({"response_code": 429, "response_body": b"Retry later"}, ("rate_limit", None)),
    ],
)
def test_a_body_counts_wherever_a_library_keeps_it(attributes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    answer = read(Carrier(**attributes))

    assert (answer.reason, answer.wait_seconds) == expected


def test_slack_is_understood_by_what_its_response_holds() -> None:
    """https://github.com/slackapi/python-slack-sdk: SlackResponse."""
    response = Response(200, {"Retry-After": "30"})
    vars(response)["data"] = {"ok": False, "error": "ratelimited"}

    assert read(Carrier(response=response)).wait_seconds == 30.0


def test_the_code_by_which_an_interpreter_ends_is_no_status() -> None:
    assert read(SystemExit(429)) == Answer()


def test_what_urllib3_gave_up_repeating_was_refused() -> None:
    """Requests raises it within its own error, without naming it as the cause."""
    refused = MaxRetryError(HTTPConnectionPool("x"), "/", ResponseError("too many 429 error responses"))
    failed = MaxRetryError(HTTPConnectionPool("x"), "/", ResponseError("too many 500 error responses"))

    assert read(refused).reason == "rate_limit"
    assert read(requests.exceptions.RetryError(refused)).reason == "rate_limit"
    assert read(failed) == Answer()


def test_urllib_is_understood() -> None:
    headers = email.message.Message()
    headers["Retry-After"] = "30"

    with urllib.error.HTTPError("http://x", 429, "Too Many Requests", headers, io.BytesIO()) as error:
        assert read(error).wait_seconds == 30.0


@pytest.mark.parametrize(
    ("code", "status", "message", "expected"),
    [
        ("ThrottlingException", 400, "Rate exceeded", ("rate_limit", None)),
        ("SlowDown", 503, "Reduce your request rate.", ("rate_limit", None)),
        ("ThrottlingException", 429, "Too many tokens per day, please wait", ("quota", None)),
        ("ServiceUnavailable", 503, "x", ("overloaded", None)),
        ("AccessDeniedException", 400, "x", (None, None)),
        ("NoSuchKey", 404, "x", (None, None)),
    ],
)
def test_botocore_is_understood(code: str, status: int, message: str, expected: tuple[Any, ...]) -> None:
    """https://boto3.amazonaws.com/v1/documentation/api/latest/guide/error-handling.html."""
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"x-amzn-requestid": "x"}, "RetryAttempts": 4},
    }

    answer = read(Carrier(response=response))

    assert (answer.reason, answer.wait_seconds) == expected


@pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["bytes", "base64"])
def test_the_delay_within_the_details_of_grpc_is_read(encode: Any) -> None:
    details = encode(status_details(47, 434_392_449))

    answer = read(RpcError(StatusCode.RESOURCE_EXHAUSTED, [("grpc-status-details-bin", details)], "Quota exceeded"))

    assert answer == Answer(True, 47.434392449, "rate_limit", source="google.rpc.RetryInfo")


def test_bytes_at_the_ends_of_the_details_are_kept() -> None:
    assert retry_delay(status_details(10)) == 10.0
    details = [("grpc-status-details-bin", status_details(10))]
    assert read(RpcError(StatusCode.RESOURCE_EXHAUSTED, details)).wait_seconds == 10.0


def test_grpc_that_tells_no_delay_is_a_refusal_without_one() -> None:
    answer = read(RpcError(StatusCode.RESOURCE_EXHAUSTED, None, "Resource has been exhausted (e.g. check quota)."))

    assert (answer.limited, answer.reason, answer.wait_seconds) == (True, "rate_limit", None)


def test_a_days_quota_is_told_by_grpc_as_well() -> None:
    details = [("grpc-status-details-bin", status_details(26))]
    error = RpcError(StatusCode.RESOURCE_EXHAUSTED, details, "Quota exceeded: Requests per day per user")

    assert (read(error).reason, read(error).wait_seconds) == ("quota", None)


def test_a_server_that_pushes_back_has_too_much_to_do() -> None:
    error = RpcError(StatusCode.UNAVAILABLE, [("grpc-retry-pushback-ms", "1500")])

    assert (read(error).reason, read(error).wait_seconds) == ("overloaded", 1.5)


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.PERMISSION_DENIED])
def test_other_codes_of_grpc_are_no_refusal(code: StatusCode) -> None:
    assert read(RpcError(code, (), "failed to connect to all addresses")) == Answer()


def test_google_api_core_is_understood() -> None:
    """https://googleapis.dev/python/google-api-core/latest/exceptions.html: details hold the decoded messages."""

    class Duration:
        seconds, nanos = 20, 500_000_000

    error = Carrier(
        code=429,
        grpc_status_code=StatusCode.RESOURCE_EXHAUSTED,
        message="Resource exhausted.",
        details=[object(), Carrier(retry_delay=Duration()), Carrier(retry_delay=timedelta(seconds=3))],
    )

    assert read(error).wait_seconds == 20.5


def test_the_status_that_google_api_core_gives_an_error_of_grpc_is_no_answer_of_the_upstream() -> None:
    failed = Carrier(
        code=503, grpc_status_code=StatusCode.UNAVAILABLE, response=RpcError(StatusCode.UNAVAILABLE, (), "no route")
    )
    answered = Carrier(code=503, grpc_status_code=StatusCode.UNAVAILABLE, response=Carrier(status_code=503))

    assert read(failed) == Answer()
    assert read(answered).reason == "overloaded"


def test_google_api_core_is_understood_where_it_does_not_decode_the_details() -> None:
    carried = RpcError(StatusCode.RESOURCE_EXHAUSTED, [("grpc-status-details-bin", status_details(20, 500_000_000))])
    error = Carrier(code=429, grpc_status_code=StatusCode.RESOURCE_EXHAUSTED, details=[], response=carried)

    assert read(error).wait_seconds == 20.5


def test_the_details_that_google_api_core_leaves_as_they_came_are_read() -> None:
    error = Carrier(
        code=429,
        grpc_status_code=StatusCode.RESOURCE_EXHAUSTED,
        message="Quota exceeded",
        details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31s"}],
    )

    assert read(error).wait_seconds == 31.0


class RetryAfter(Exception):
    """As of python-telegram-bot and aiogram."""

    def __init__(self, retry_after: Any) -> None:
        super().__init__("Flood control exceeded")
        self.retry_after = retry_after


class FloodWaitError(Exception):
    """As of Telethon."""

    seconds = 35


class CommandOnCooldown(Exception):
    """A limit of the program itself: nobody upstream refused."""

    retry_after = 35.0


@pytest.mark.parametrize("error", [RetryAfter(35), RetryAfter(timedelta(seconds=35)), FloodWaitError()])
def test_an_error_that_only_tells_a_wait_is_known_by_its_name(error: Exception) -> None:
    assert (read(error).limited, read(error).wait_seconds) == (True, 35.0)


@pytest.mark.parametrize("error", [RetryAfter(None), RetryAfter(-3), RetryAfter("x"), CommandOnCooldown()])
def test_an_error_that_tells_no_wait_of_an_upstream_is_none(error: Exception) -> None:
    assert read(error) == Answer()


def test_the_librarys_own_refusal_is_understood() -> None:
    error = RateLimited(7.5, reason="overloaded")

    assert read(error) == Answer(True, 7.5, "overloaded", source="wait_seconds")


def test_an_error_that_tells_nothing_is_asked_for_its_cause() -> None:
    outer = ValueError("the step failed")
    outer.__cause__ = KeyError("x")
    outer.__cause__.__cause__ = Carrier(response=Response(429, {"retry-after": "30"}))

    assert read(outer).wait_seconds == 30.0


def test_a_group_is_asked_for_what_it_contains() -> None:
    limited = Carrier(response=Response(429, {"retry-after": "30"}))

    assert read(ExceptionGroup("x", [ValueError(), ExceptionGroup("y", [KeyError(), limited])])).wait_seconds == 30.0


def test_errors_that_cause_one_another_end() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert read(first) == Answer()


class Hostile(Exception):
    """Every attribute fails."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "error",
    [
        Hostile(),
        Carrier(response=Hostile()),
        Carrier(response={"Error": 5, "ResponseMetadata": []}),
        Carrier(response={}),
        Carrier(response=5, status_code="x", headers=Hostile(), body=Hostile()),
        Carrier(status_code=10**50, code=lambda: 1 / 0),
        Carrier(code=StatusCode, trailing_metadata=lambda: 5),
        KeyboardInterrupt(),
    ],
    ids=range(8),
)
def test_an_error_that_makes_no_sense_is_none(error: BaseException) -> None:
    assert read(error) == Answer()


def test_the_time_has_to_tell_its_zone() -> None:
    with pytest.raises(ValueError, match=r"^now must tell its time zone"):
        read_exception(ValueError(), now=datetime(2026, 6, 1))
