"""Messages of dramatiq wait for a limit in the queue, without holding a worker or a retry (extra ``dramatiq``)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from threading import local
from typing import Any

try:
    from dramatiq import Actor, Broker, Middleware
    from dramatiq.broker import MessageProxy
    from dramatiq.middleware import SkipMessage
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "rate_coordinator.integrations.dramatiq needs the extra 'dramatiq': pip install 'rate-coordinator[dramatiq]'",
        name=error.name,
    ) from error

from rate_coordinator.integrations.deferrals import (
    GIVE_UP_AFTER,
    HOLD_SECONDS,
    KEY,
    Deferral,
    TaskLimited,
    admitted_sync,
    check_coordinator,
    check_give_up_after,
    names_of_call,
)
from rate_coordinator.sync import RateLimitCoordinator


class CoordinatedMiddleware(Middleware):
    """Admits each message of the actors that have a ``backend``, and puts them off while it is limited.

    ``@dramatiq.actor(backend="openai", model="gpt-4o")``: the names are options of the actor, or of one message;
    ``backend`` may also be a function of the message's arguments that returns a backend, or a pair of backend and
    model. A message that is refused (its actor raises ``RateLimited``, or an error that ``read_exception`` knows for a
    limit) is reported, and sent again for the resume time: with the same ID and ``retries``. One whose backend is
    limited is put off before its actor is called. dramatiq logs either as a message that was skipped. Other errors pass
    through. The option ``max_age`` goes on counting meanwhile.

    Args:
        coordinator: Opened with the first message, in each process anew.
        give_up_after: For how long a message is put off in all, in seconds; then it fails with what it raised last.
            None puts it off for ever.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(self, coordinator: RateLimitCoordinator, *, give_up_after: float | None = GIVE_UP_AFTER) -> None:
        check_coordinator(coordinator, RateLimitCoordinator)
        self._coordinator = coordinator
        self._give_up_after = check_give_up_after(give_up_after)
        self._thread = local()

    @property
    def actor_options(self) -> set[str]:
        """The options that actors may have because of this."""
        return {"backend", "model"}

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """See to it that the actor's function is called only when its backend lets it."""
        # Only what its function raises can skip a message without telling the middlewares that it failed, or was done.
        actor.fn = self._wrap(broker, actor, actor.fn)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Remember which message this thread processes."""
        self._thread.message = message

    def _wrap(self, broker: Broker, actor: Actor[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def coordinated(*args: Any, **kwargs: Any) -> Any:
            message: MessageProxy | None = getattr(self._thread, "message", None)
            # An actor that is called within this one is just a function.
            self._thread.message = None
            if message is None or message.actor_name != actor.actor_name:
                return function(*args, **kwargs)
            options = actor.options | message.options
            backend = options.get("backend")
            if not backend:
                return function(*args, **kwargs)
            names = names_of_call(backend, options.get("model"), *args, **kwargs)
            try:
                with admitted_sync(self._coordinator, *names, HOLD_SECONDS):
                    return function(*args, **kwargs)
            except TaskLimited as limited:
                _, remaining = self._coordinator.is_rate_limited(*names)
                delay, deferral = Deferral.read(options.get(KEY)).next(remaining)
                if deferral.seconds > self._give_up_after:
                    raise limited.cause from None
                broker.enqueue(message.copy(options={KEY: str(deferral)}), delay=math.ceil(delay * 1000))
                # What is skipped would get a result otherwise.
                message.options["store_results"] = False
                raise SkipMessage(f"{names[0]} is limited") from limited.cause

        return coordinated
