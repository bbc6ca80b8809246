"""Reads the errors that client libraries raise, by what they carry: no library is imported, none is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from rate_coordinator import RateLimited
from rate_coordinator.answers.answer import CLEAR, Answer
from rate_coordinator.answers.generic import GENERIC
from rate_coordinator.answers.grpc import PUSHBACK, STATUS_DETAILS, http_status, retry_delay
from rate_coordinator.answers.look import Look, read_headers
from rate_coordinator.answers.quantities import Clock, read_seconds
from rate_coordinator.answers.reading import judge, read_now
from rate_coordinator.answers.registry import candidates

MOST_CAUSES = 8
"""How many errors are looked at in a group, or a chain of ``raise … from …``."""

# Some libraries tell a refusal by the name of the error and the wait alone.
_SAYS_LIMITED = re.compile(r"rate_?limit|retry_?after|flood_?wait|too_?many_?requests|slow_?mode", re.IGNORECASE)
_TELL_WAITS = ("retry_after", "retry_delay", "seconds", "value")
_TELL_STATUS = ("status_code", "status", "http_status", "response_code", "code")
_TELL_BODY = ("body", "details", "data", "http_body", "response_body", "content", "text", "message")

# https://github.com/urllib3/urllib3/blob/main/src/urllib3/exceptions.py: ResponseError, after the last of its retries
_GAVE_UP = re.compile("too many ([1-5][0-9]{2}) error responses")


def read_exception(exc: BaseException, *, now: datetime | None = None) -> Answer:
    """Tell what an error of a client library says about the upstream's limits.

    Understands what most libraries have in common: a ``response`` with a status, headers and perhaps a body (httpx,
    requests, the SDKs of OpenAI, Anthropic and others), the same on the error itself (aiohttp, urllib), a body alone
    (what the SDKs raise within a stream), botocore's ``response`` dictionaries, gRPC's ``code()`` and
    ``trailing_metadata()``, a ``retry_after`` where the name of the error tells what it is, urllib3's ``too many 429
    error responses``, and ``RateLimited``. A group, and an error that tells nothing, is asked for what it contains and
    for its cause. Nothing is read that would have to be fetched first, and nothing is raised, whatever the error does.

    Args:
        exc: The error.
        now: What time it is, timezone-aware; the real time if left out.

    Raises:
        ValueError: ``now`` tells no time zone.
    """
    moment = read_now(now)
    for error in _chain(exc):
        for read in (_own, _botocore, _grpc, _http, _named, _gave_up):
            answer = read(error, moment)
            if answer is not None and answer != CLEAR:
                return answer
    return CLEAR


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    left: list[object] = [exc]
    while left and len(seen) < MOST_CAUSES:
        error = left.pop(0)
        if isinstance(error, BaseException) and all(error is not one for one in seen):
            seen.append(error)
            yield error
            left += error.exceptions[:MOST_CAUSES] if isinstance(error, BaseExceptionGroup) else ()
            # Some keep what they were raised for without a cause.
            left += [error.__cause__, _get(error, "reason"), _get(error, "cause"), _argument(error)]


def _own(exc: BaseException, now: datetime) -> Answer | None:
    if not isinstance(exc, RateLimited):
        return None
    wait = read_seconds(exc.wait_seconds, "s", Clock(now, now))
    return Answer(limited=True, wait_seconds=wait, reason=exc.reason, source="wait_seconds")


def _botocore(exc: BaseException, now: datetime) -> Answer | None:
    """https://boto3.amazonaws.com/v1/documentation/api/latest/guide/error-handling.html."""
    response = _get(exc, "response")
    if not isinstance(response, Mapping):
        return None
    error, metadata = _item(response, "Error"), _item(response, "ResponseMetadata")
    body = {"__type": _item(error, "Code"), "message": _item(error, "Message")}
    look = Look(_item(metadata, "HTTPStatusCode"), _item(metadata, "HTTPHeaders"), body, now)
    return judge(look, [*candidates("aws"), GENERIC])


def _http(exc: BaseException, now: datetime) -> Answer | None:
    response = _get(exc, "response")
    # That of googleapiclient is a dictionary of its headers.
    response = _get(exc, "resp") if response is None else response
    # The HTTP status that google.api_core gives an error of gRPC is made up; what is real of it was looked at. That of
    # an interpreter that ends is an exit code.
    has_none = isinstance(_get(_get(exc, "grpc_status_code"), "name"), str) or isinstance(exc, SystemExit)
    own = () if has_none else (exc,)
    for carrier in (response, *own) if response is not None else own:
        status = next((code for name in _TELL_STATUS if (code := _status(carrier, name))), None)
        if status is not None:
            headers = _get(carrier, "headers")
            return _judge_http(status, carrier if headers is None else headers, _body(exc, response), now)
    # What a stream ends with has no status.
    return _judge_http(0, None, _unwrapped(_get(exc, "body")), now) if isinstance(_get(exc, "body"), Mapping) else None


def _judge_http(status: int, headers: object, body: object, now: datetime) -> Answer:
    look = Look(status, headers, body, now)
    known = [provider for provider in candidates(None) if any(sign.holds(look) for sign in provider.signs)]
    return judge(look, [*known, GENERIC])


def _body(exc: BaseException, response: object) -> object:
    # httpx and requests keep what they have read in `_content`. Their `content` would read from the network, or raise.
    told = [_held(response, name) for name in ("_content", "content", "text", "data")]
    told += [_get(exc, name) for name in _TELL_BODY]
    return next((_unwrapped(value) for value in told if isinstance(value, (bytes, str, Mapping)) and value), None)


def _unwrapped(body: object) -> object:
    if isinstance(body, Mapping) and "error" not in body and ("type" in body or "code" in body):
        # The SDKs unwrap the error.
        return {**body, "error": body}
    return body


def _grpc(exc: BaseException, now: datetime) -> Answer | None:
    """https://grpc.github.io/grpc/python/grpc.html#grpc.RpcError, and google.api_core's errors around it."""
    code = _call(exc, "code")
    name = _get(code if code is not None else _get(exc, "grpc_status_code"), "name")
    if not isinstance(name, str):
        return None
    status = http_status(name)
    # google.api_core knows how to read it only with grpcio-status.
    trailers = _call(exc, "trailing_metadata") or _call(_get(exc, "response"), "trailing_metadata")
    metadata = read_headers(trailers)
    waits = [read_seconds(value, "ms", Clock(now, now)) for value in metadata.get(PUSHBACK, ())]
    for value in metadata.get(STATUS_DETAILS, ()):
        waits.append(retry_delay(value.encode("latin-1", "replace")))
    waits += [_duration(_get(detail, "retry_delay")) for detail in _some(_get(exc, "details"))]
    told = [wait for wait in waits if wait is not None and read_seconds(wait, "s", Clock(now, now)) is not None]
    # Whoever cannot connect says "unavailable" as well: only one who tells when to come back has too much to do.
    if name != "RESOURCE_EXHAUSTED" and not (name == "UNAVAILABLE" and told):
        return None
    text = _call(exc, "details")
    message = text if isinstance(text, str) else str(_get(exc, "message") or "")
    # Of an answer that came as JSON, google.api_core leaves them as they are.
    details = [detail for detail in _some(_get(exc, "details")) if isinstance(detail, Mapping)]
    body = {"error": {"status": name, "message": message, "details": details}}
    answer = judge(Look(status, metadata.items(), body, now), [*candidates("google"), GENERIC])
    longest = max(told, default=0.0)
    if not told or answer.scope == "day" or (answer.wait_seconds or 0.0) >= longest:
        return answer
    return Answer(
        limited=True, wait_seconds=longest, reason=answer.reason, scope=answer.scope, source="google.rpc.RetryInfo"
    )


def _named(exc: BaseException, now: datetime) -> Answer | None:
    if not _SAYS_LIMITED.search(type(exc).__name__):
        return None
    for name in _TELL_WAITS:
        wait = read_seconds(_duration(_get(exc, name)), "s", Clock(now, now))
        if wait is not None:
            return Answer(limited=True, wait_seconds=wait, reason="rate_limit", source=name)
    return None


def _gave_up(exc: BaseException, now: datetime) -> Answer | None:
    told = _argument(exc)
    found = _GAVE_UP.fullmatch(told) if isinstance(told, str) else None
    return _judge_http(int(found[1]), None, None, now) if found else None


def _duration(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if not isinstance(value, int) or value.bit_length() < 64 else None
    seconds, nanos = _get(value, "seconds"), _get(value, "nanos")
    if isinstance(seconds, int) and isinstance(nanos, int) and max(seconds.bit_length(), nanos.bit_length()) < 64:
        return seconds + nanos / 1e9
    return None


def _status(holder: object, name: str) -> int | None:
    value = _get(holder, name)
    # Some tell it as an IntEnum, some as text.
    if isinstance(value, str) and re.fullmatch("[1-5][0-9]{2}", value):
        return int(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599 else None


def _get(holder: object, name: str) -> object:
    try:
        return getattr(holder, name, None)
    except Exception:
        # Attributes of foreign errors can be computed, and fail.
        return None


def _argument(exc: BaseException) -> object:
    arguments = _get(exc, "args")
    return arguments[0] if isinstance(arguments, tuple) and arguments else None


def _held(holder: object, name: str) -> object:
    """Return an attribute that is simply there: a computed one might fetch what it returns."""
    try:
        return vars(holder).get(name)
    except TypeError:
        return None


def _call(holder: object, name: str) -> object:
    method = _get(holder, name)
    if not callable(method):
        return None
    try:
        return method()
    except Exception:
        return None


def _item(holder: object, key: str) -> object:
    return holder.get(key) if isinstance(holder, Mapping) else None


def _some(value: object) -> list[object]:
    return list(value)[:32] if isinstance(value, (list, tuple)) else []
