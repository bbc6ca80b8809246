"""Coordinates what is sent with botocore and boto3 (extra ``botocore``)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

try:
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.hooks import BaseEventHooks
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.botocore needs the extra 'botocore': pip install 'rate-coordinator[botocore]'",
        name=error.name,
    ) from error

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.answers import Answer, read_answer, read_exception
from rate_coordinator.integrations.common import Names
from rate_coordinator.integrations.transports import Policy
from rate_coordinator.sync import Admission, RateLimitCoordinator

__all__ = ["AdmissionTimeout", "Attempt", "coordinate"]

_TURN = "rate_coordinator.turn"


class AdmissionTimeout(BotoCoreError, LimitWaitTimeout):  # type: ignore[misc]
    """A request was not sent, because its limit outlasts the timeout."""

    fmt = "{reason}"

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that is about to be sent, for a function that tells whom it counts against."""

    service: str
    """As in event names: ``s3``, ``dynamodb``, ``bedrock-runtime``."""
    operation: str
    """``GetObject``, ``PutItem``, ``InvokeModel``."""
    region: str | None
    request: AWSRequest
    """botocore's own: ``url``, ``headers`` and ``data`` are there, the signature is not yet."""

    @property
    def host(self) -> str | None:
        """Where it goes to, without the port."""
        return urlsplit(str(self.request.url)).hostname


def coordinate(
    client: Any,
    coordinator: RateLimitCoordinator,
    *,
    backend: str | Callable[[Attempt], Names] | None = None,
    timeout: float | None = None,
    priority: float = 0,
    guess_seconds: float = 5.0,
) -> None:
    """Have each attempt of a client's calls wait for its turn, and tell the coordinator what was answered.

    The attempts that botocore makes by itself, in any of its retry modes, are admitted and reported one by one, so that
    they wait for the shared resume time and multiply nothing. An attempt waits before it is signed: no signature
    expires meanwhile. A throttle is known by its error code or status; AWS tells no wait with most of them, which is
    what ``guess_seconds`` is for. Any other answer counts as served, that of an operation that streams as soon as its
    headers are there; what is no answer (no connection, no credentials) as neither. botocore tells of no call that is
    interrupted by a ``KeyboardInterrupt`` or ``SystemExit``: of a ``max_in_flight`` such a one keeps its place.

    Args:
        client: A client or resource, or a session, botocore's or boto3's, whose later clients are meant. One that is
            coordinated already stays as it is.
        coordinator: Who shares the limits.
        backend: Whom an attempt counts against: a name for all, or a function of the ``Attempt`` that returns a name,
            or a name and a model. None for the host, and the operation as its model: AWS throttles operations one by
            one, and a host is one region's.
        timeout: Longest wait before each attempt, in seconds; None waits as long as it takes. After a throttle whose
            limit outlasts it, botocore makes no further attempt, and the caller gets the throttle.
        priority: Of the calls that wait in this process, who has a lower one goes first.
        guess_seconds: How long to wait after a throttle that tells no wait, in seconds.

    Raises:
        ValueError: An argument cannot be used.
    """
    policy: Policy[Attempt] = Policy(backend, "aws", 1, timeout, priority, guess_seconds)
    if not hasattr(coordinator.admit("any", timeout=timeout, priority=priority), "__enter__"):
        raise ValueError(f"coordinator must be a rate_coordinator.sync.RateLimitCoordinator, not {coordinator!r:.80}")
    hooks = _Hooks(coordinator, policy)
    events = _events(client)
    # With this many parts a name is more particular than that of the handlers that sign and that repeat.
    for name, handler in (
        ("request-created.*.*", hooks.begin),
        ("response-received.*.*", hooks.end),
        ("needs-retry.*.*", hooks.give_up),
        ("after-call-error.*.*", hooks.fail),
    ):
        events.register_first(name, handler, unique_id=f"rate_coordinator.{name}")


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Turn:
    backend: str
    model: str | None
    admission: Admission | None
    """None for a request that is made for another one, within its turn."""
    refusal: ClientError | None = None


class _Thread(threading.local):
    def __init__(self) -> None:
        # A call that was interrupted is never heard of again; it must not pass for one that is under way.
        self.turns: weakref.WeakSet[_Turn] = weakref.WeakSet()


_thread = _Thread()
"""The requests that this thread is about."""


class _Hooks:
    def __init__(self, coordinator: RateLimitCoordinator, policy: Policy[Attempt]) -> None:
        self._coordinator = coordinator
        self._policy = policy

    def begin(self, request: AWSRequest, operation_name: str, event_name: str, **others: object) -> None:
        """Wait, before a request is signed."""
        context = request.context
        attempt = Attempt(event_name.split(".")[1], operation_name, context.get("client_region"), request)
        backend, model = self._policy.names(attempt, attempt.host)
        if self._policy.backend is None:
            model = operation_name
        if any(turn.backend == backend for turn in _thread.turns):
            # Endpoints and sessions are asked for while a request is made; to wait for a turn within its own would be
            # to wait for oneself.
            context[_TURN] = _Turn(backend, model, None)
            return
        admission = self._coordinator.admit(
            backend, model, timeout=self._policy.timeout, priority=self._policy.priority
        )
        try:
            admission.__enter__()
        except LimitWaitTimeout as error:
            last: _Turn | None = context.get(_TURN)
            if last is not None and last.refusal is not None:
                raise last.refusal from error
            raise AdmissionTimeout(reason=str(error)) from error
        context[_TURN] = turn = _Turn(backend, model, admission)
        _thread.turns.add(turn)

    def end(
        self,
        context: MutableMapping[str, Any],
        response_dict: dict[str, Any] | None,
        parsed_response: dict[str, Any] | None,
        exception: Exception | None,
        event_name: str,
        **others: object,
    ) -> None:
        """Tell what was answered."""
        turn: _Turn | None = context.get(_TURN)
        if turn is None:
            return
        if response_dict is None or parsed_response is None:
            self._leave(turn, exception)
            return
        error = ClientError(parsed_response, event_name.split(".")[2]) if "Error" in parsed_response else None
        answer = _read(response_dict, error)
        turn.refusal = error if answer.limited else None
        guess = self._policy.guess_seconds
        if turn.admission is None:
            self._coordinator.observe(turn.backend, answer, model=turn.model, guess_seconds=guess)
            return
        try:
            turn.admission.observe(answer, guess_seconds=guess)
        finally:
            self._leave(turn, None)

    def give_up(self, request_dict: dict[str, Any], **others: object) -> bool | None:
        """Return False where botocore is not to try again: the wait would outlast the timeout.

        Older versions try again all the same, after which ``begin`` ends it.
        """
        turn: _Turn | None = request_dict["context"].get(_TURN)
        if turn is None or turn.refusal is None or self._policy.timeout is None:
            return None
        _, seconds = self._coordinator.is_rate_limited(turn.backend, turn.model)
        return False if seconds > self._policy.timeout else None

    def fail(self, context: MutableMapping[str, Any], exception: Exception | None, **others: object) -> None:
        """Give the turn back of a request that was not answered, or not even sent."""
        turn: _Turn | None = context.get(_TURN)
        if turn is not None:
            self._leave(turn, exception)

    @staticmethod
    def _leave(turn: _Turn, exception: Exception | None) -> None:
        admission, turn.admission = turn.admission, None
        if admission is not None:
            _thread.turns.discard(turn)
            admission.__exit__(None if exception is None else type(exception), exception, None)


def _read(response: dict[str, Any], error: ClientError | None) -> Answer:
    if error is not None:
        return read_exception(error)
    return read_answer(response["status_code"], list(response["headers"].items()), provider="aws")


def _events(client: Any) -> BaseEventHooks:
    """Return where handlers are registered."""
    meta = getattr(client, "meta", None)
    meta = getattr(getattr(meta, "client", None), "meta", meta)
    events = getattr(meta, "events", None) or getattr(client, "events", None)
    if events is None and callable(component := getattr(client, "get_component", None)):
        events = component("event_emitter")
    if not isinstance(events, BaseEventHooks):
        raise ValueError(f"client must be a client, a resource or a session of boto3 or botocore, not {client!r:.80}")
    return events
