"""Errors as JSON: problem details (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


class Problem(HTTPException):
    """What a request is refused with.

    Args:
        status: Of the answer.
        detail: What is wrong with this request, and what was expected.
        headers: More of them.
        more: More members of the JSON object.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(status, detail, headers)
        self.more = more

    @classmethod
    def of_validation(cls, error: ValidationError) -> Problem:
        """Return what is wrong with what was sent: each field, what it was and what was expected."""
        if any(found["type"] == "json_invalid" for found in error.errors()):
            return cls(400, "the body must be a JSON object, and this is no JSON")
        errors = [_wrong(found) for found in error.errors(include_url=False, include_context=False)]
        detail = "; ".join(f"{wrong['field']}: {wrong['expected']}, not {wrong['value']}" for wrong in errors)
        return cls(422, detail, errors=errors)


def respond(problem: HTTPException) -> Response:
    """Return the answer to a request that is refused."""
    told = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": problem.detail,
        **(problem.more if isinstance(problem, Problem) else {}),
    }
    headers = dict(problem.headers or {})
    return Response(json.dumps(told), problem.status_code, headers, media_type="application/problem+json")


async def refuse(_: Request, error: Exception) -> Response:
    """Answer what was raised as a refusal."""
    assert isinstance(error, HTTPException)
    return respond(error)


async def fail(_: Request, __: Exception) -> Response:
    """Answer what nobody expected; the server logs it, and nobody else has to know it."""
    return respond(Problem(500, "unexpected error; the server's log tells more"))


def _wrong(found: Any) -> dict[str, str]:
    field = ".".join(str(part) for part in found["loc"]) or "the body"
    if found["type"] == "missing":
        return {"field": field, "expected": "must be given", "value": "nothing"}
    if found["type"] == "extra_forbidden":
        return {"field": field, "expected": "must not be given", "value": f"{found['input']!r:.80}"}
    expected = found["msg"].removeprefix("Value error, ").removeprefix("Input should ").removeprefix("be ")
    return {"field": field, "expected": f"must be {expected}", "value": f"{found['input']!r:.80}"}
