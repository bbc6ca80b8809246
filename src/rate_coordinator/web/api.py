"""The JSON interface. It says what the command line says with ``--json``."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from rate_coordinator import CoordinatorError, RateLimitCoordinator
from rate_coordinator.cli import fields
from rate_coordinator.integrations.prometheus import exposition
from rate_coordinator.web.board import Board
from rate_coordinator.web.bodies import Clear, Hold, Named, Release, Report
from rate_coordinator.web.looks import of_health
from rate_coordinator.web.problems import Problem
from rate_coordinator.web.stream import Stream
from rate_coordinator.web.token import Token

MOST_VIEWERS = 100
BODY_BYTES = 16 * 1024
BODY_SECONDS = 10.0
"""Longest time that a body may take to arrive."""

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """The endpoints.

    Args:
        coordinator: What they ask and tell.
        board: What the page shows.
        token: What whoever writes must have; None lets nobody write.
    """

    def __init__(self, coordinator: RateLimitCoordinator, board: Board, token: Token | None) -> None:
        self._coordinator = coordinator
        self._board = board
        self._token = token

    def routes(self) -> list[BaseRoute]:
        """Return where they are."""
        return [
            Route("/healthz", self.healthz),
            Route("/livez", self.livez),
            Route("/metrics", self.metrics),
            Mount(
                "/api/v1",
                routes=[
                    Route("/status", self.status),
                    Route("/check", self.check),
                    Route("/stream", self.stream),
                    Route("/report", self.report, methods=["POST"]),
                    Route("/clear", self.clear, methods=["POST"]),
                    Route("/hold", self.hold, methods=["POST"]),
                    Route("/release", self.release, methods=["POST"]),
                ],
            ),
        ]

    async def healthz(self, _: Request) -> Response:
        """Tell whether Redis can be heard: 200, else 503. From memory."""
        health = self._coordinator.health
        return _answer(of_health(health), 200 if health.state == "connected" else 503)

    async def livez(self, _: Request) -> Response:
        """Tell that this process lives: 200, also while Redis is away, which no restart would mend."""
        return _answer({"state": "alive"})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus. From memory."""
        body, content_type = exposition(self._coordinator, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def status(self, _: Request) -> Response:
        """Return the active limits and the paces that are kept. From memory."""
        return _answer(self._board.status())

    async def check(self, request: Request) -> Response:
        """Tell whether a backend may be called. From memory."""
        asked = _valid_query(request)
        try:
            limited, remaining = await self._coordinator.is_rate_limited(asked.backend, asked.model)
        except (ValueError, CoordinatorError) as error:
            raise _problem(error) from error
        return _answer(
            {**fields.of_target(asked.backend, asked.model), "limited": limited, "seconds_remaining": remaining}
        )

    async def stream(self, _: Request) -> Stream:
        """Tell of every change, without an end (server-sent events)."""
        if self._board.feed.closed or self._board.viewers >= MOST_VIEWERS:
            busy = f"{MOST_VIEWERS} look already" if not self._board.feed.closed else "this server is about to end"
            raise Problem(503, busy, {"retry-after": "10"})
        return Stream(self._board)

    async def report(self, request: Request) -> Response:
        """Report that an upstream refused. 202 where Redis could not be told yet."""
        asked = await self._written(request, Report)
        sent_at = None if asked.call_age_seconds is None else time.monotonic() - asked.call_age_seconds
        try:
            result = await self._coordinator.report_rate_limit(
                asked.backend,
                asked.wait_seconds,
                asked.job_id,
                asked.sheet_num,
                model=asked.model,
                reason=asked.reason,
                sent_at=sent_at,
            )
        except (ValueError, CoordinatorError) as error:
            raise _problem(error) from error
        told = {
            **fields.of_target(asked.backend, asked.model),
            **fields.of_result(asked.wait_seconds, result),
            "delivered": result.delivered,
        }
        return _answer(told, 200 if result.delivered else 202)

    async def clear(self, request: Request) -> Response:
        """Lift limits. What is held by hand stays held."""
        asked = await self._written(request, Clear)
        try:
            cleared = await self._coordinator.clear_limits(asked.backend, model=asked.model)
        except (ValueError, CoordinatorError) as error:
            raise _problem(error) from error
        held = fields.still_held(self._coordinator.limits, asked.backend, asked.model)
        return _answer(fields.of_clear(asked.backend, asked.model, cleared, held))

    async def hold(self, request: Request) -> Response:
        """Hold a backend or a model by hand."""
        asked = await self._written(request, Hold)
        try:
            result = await self._coordinator.hold(asked.backend, asked.seconds, asked.reason, model=asked.model)
        except (ValueError, CoordinatorError) as error:
            raise _problem(error) from error
        return _answer(fields.of_hold(asked.backend, asked.model, asked.reason, result))

    async def release(self, request: Request) -> Response:
        """End a hold."""
        asked = await self._written(request, Release)
        try:
            released = await self._coordinator.release(asked.backend, asked.model)
            _, remaining = await self._coordinator.is_rate_limited(asked.backend, asked.model)
        except (ValueError, CoordinatorError) as error:
            raise _problem(error) from error
        return _answer(fields.of_release(asked.backend, asked.model, released, remaining))

    async def _written(self, request: Request, kind: type[Body]) -> Body:
        """Return the body of a request that may write."""
        if self._token is None:
            raise Problem(403, "this server is read-only: it was started without a token")
        if not self._token.is_that_of(request.headers.get("authorization", "")):
            raise Problem(
                401, "writing needs the header 'Authorization: Bearer <token>'", {"www-authenticate": "Bearer"}
            )
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise Problem(415, f"the content type must be application/json, not {content_type!r:.80}")
        try:
            return kind.model_validate_json(await _body(request))
        except ValidationError as error:
            raise Problem.of_validation(error) from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise Problem(413, f"the body must have at most {BODY_BYTES} bytes", {"connection": "close"})
    except TimeoutError:
        raise Problem(408, f"the body took longer than {BODY_SECONDS:g} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "the body was not sent to its end") from None
    return bytes(body)


def _valid_query(request: Request) -> Named:
    given = request.query_params.multi_items()
    if len(dict(given)) < len(given):
        raise Problem(422, f"each parameter may be given once, not as in {request.url.query!r:.80}")
    try:
        return Named.model_validate(dict(given))
    except ValidationError as error:
        raise Problem.of_validation(error) from None


def _problem(error: Exception) -> Problem:
    if isinstance(error, ValueError):
        return Problem(422, str(error))
    return Problem(503, str(error), {"retry-after": "1"})


def _answer(told: fields.Fields, status: int = 200) -> Response:
    return JSONResponse(told, status, {"cache-control": "no-store"})
