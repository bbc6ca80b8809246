"""Sends a request of any HTTP library when its turn has come, heeds the answer, and sends it again where that helps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from rate_coordinator import LimitWaitTimeout, RateLimitCoordinator
from rate_coordinator.integrations.transports import Policy, RetriesAbove, Seen

if TYPE_CHECKING:
    from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

Request = TypeVar("Request")
RequestT_co = TypeVar("RequestT_co", covariant=True)
Response = TypeVar("Response")


class Outgoing(Protocol[RequestT_co]):
    """A request that is about to be sent."""

    @property
    def request(self) -> RequestT_co:
        """The library's own."""
        ...

    @property
    def host(self) -> str | None:
        """Where it goes to, without the port."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, found by names in any case."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether its body can be sent once more."""
        ...

    def timed_out(self, error: LimitWaitTimeout) -> Exception:
        """Return the error that tells the library's users that it was not sent within the timeout."""
        ...


class AsyncExchange(Outgoing[RequestT_co], Protocol[RequestT_co, Response]):
    """How a library sends a request."""

    async def send(self) -> Response:
        """Send it, and return as soon as the headers of the answer are there."""
        ...

    async def look(self, response: Response) -> Seen:
        """Look at an answer, and leave it as it was for whoever gets it."""
        ...

    async def close(self, response: Response) -> None:
        """Let go of an answer that nobody gets."""
        ...


class Exchange(Outgoing[RequestT_co], Protocol[RequestT_co, Response]):
    """Likewise, without ``await``."""

    def send(self) -> Response:
        """See ``AsyncExchange``."""
        ...

    def look(self, response: Response) -> Seen:
        """See ``AsyncExchange``."""
        ...

    def close(self, response: Response) -> None:
        """See ``AsyncExchange``."""
        ...


class AsyncSender(Generic[Request]):
    """Sends requests in turn.

    Raises:
        ValueError: ``coordinator`` is another kind of object, or the policy's timeout or priority cannot be used.
    """

    def __init__(self, coordinator: RateLimitCoordinator, policy: Policy[Request]) -> None:
        self._coordinator = coordinator
        self._policy = policy
        self._retries = RetriesAbove()
        admission = coordinator.admit("any", timeout=policy.timeout, priority=policy.priority)
        if not hasattr(admission, "__aenter__"):
            raise ValueError(f"coordinator must be a rate_coordinator.RateLimitCoordinator, not {coordinator!r:.80}")

    async def send(self, exchange: AsyncExchange[Request, Response]) -> Response:
        """Send a request, perhaps again, and return the last answer.

        The call is over for the coordinator when the headers of the answer are there, and what was looked at of its
        body. After a refusal, a wait that would take longer than the policy's timeout is not begun: the refusal is
        returned.

        Raises:
            LimitWaitTimeout: It was not sent at all, as ``exchange.timed_out`` tells it.
            ValueError: The request has no backend.
        """
        policy = self._policy
        backend, model = policy.names(exchange.request, exchange.host)
        self._retries.heed(exchange.headers, backend)
        attempt, held = 0, None
        try:
            while True:
                attempt += 1
                async with AsyncExitStack() as stack:
                    admission = self._coordinator.admit(
                        backend, model, timeout=policy.timeout, priority=policy.priority
                    )
                    try:
                        call = await stack.enter_async_context(admission)
                    except LimitWaitTimeout as error:
                        if held is None:
                            raise exchange.timed_out(error) from error
                        return held
                    refused, held = held, None
                    if refused is not None:
                        await exchange.close(refused)
                    held = await exchange.send()
                    answer = policy.read(await exchange.look(held))
                    await call.observe(answer, guess_seconds=policy.guess_seconds)
                if not policy.sends_again(answer, attempt, exchange.repeatable):
                    return held
        except BaseException:
            if held is not None:
                # What ended it counts, a cancellation above all.
                with suppress(Exception):
                    await exchange.close(held)
            raise


class Sender(Generic[Request]):
    """Sends requests in turn, without ``await``.

    Raises:
        ValueError: ``coordinator`` is another kind of object, or the policy's timeout or priority cannot be used.
    """

    def __init__(self, coordinator: SyncCoordinator, policy: Policy[Request]) -> None:
        self._coordinator = coordinator
        self._policy = policy
        self._retries = RetriesAbove()
        admission = coordinator.admit("any", timeout=policy.timeout, priority=policy.priority)
        if not hasattr(admission, "__enter__"):
            raise ValueError(
                f"coordinator must be a rate_coordinator.sync.RateLimitCoordinator, not {coordinator!r:.80}"
            )

    def send(self, exchange: Exchange[Request, Response]) -> Response:
        """Send a request, perhaps again, and return the last answer; see ``AsyncSender.send``."""
        policy = self._policy
        backend, model = policy.names(exchange.request, exchange.host)
        self._retries.heed(exchange.headers, backend)
        attempt, held = 0, None
        try:
            while True:
                attempt += 1
                with ExitStack() as stack:
                    admission = self._coordinator.admit(
                        backend, model, timeout=policy.timeout, priority=policy.priority
                    )
                    try:
                        call = stack.enter_context(admission)
                    except LimitWaitTimeout as error:
                        if held is None:
                            raise exchange.timed_out(error) from error
                        return held
                    refused, held = held, None
                    if refused is not None:
                        exchange.close(refused)
                    held = exchange.send()
                    answer = policy.read(exchange.look(held))
                    call.observe(answer, guess_seconds=policy.guess_seconds)
                if not policy.sends_again(answer, attempt, exchange.repeatable):
                    return held
        except BaseException:
            if held is not None:
                with suppress(Exception):
                    exchange.close(held)
            raise
