"""What the child processes tell the demo: one JSON object a line on their standard output; and the upstream's count."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rate_coordinator.demo.plan import Frozen


class Message(Frozen):
    """What all of them have."""

    at: float = Field(default_factory=time.monotonic)
    """When it was told, on the monotonic clock, which all processes of a machine share."""


class Ready(Message):
    """The process is ready to be used, or to begin."""

    kind: Literal["ready"] = "ready"
    address: str = ""
    """Where a server can be reached; empty for a worker."""


class Calling(Message):
    """A worker calls the upstream."""

    kind: Literal["calling"] = "calling"


class Accepted(Message):
    """The call was accepted and is done."""

    kind: Literal["accepted"] = "accepted"


class Refused(Message):
    """The call was answered with 429; the worker is about to report it."""

    kind: Literal["refused"] = "refused"
    retry_after_seconds: int


class Heard(Message):
    """The worker's mirror has just begun to show a limit, or a longer one."""

    kind: Literal["heard"] = "heard"
    reporter: str
    """Whose report it was."""
    seconds_remaining: float


class BackingOff(Message):
    """The worker has work but waits, because it knows that it would be refused."""

    kind: Literal["backing_off"] = "backing_off"
    seconds_remaining: float
    reporter: str
    """Whose report it knows the limit from."""


class Done(Message):
    """The worker has done all its work."""

    kind: Literal["done"] = "done"


class Count(Frozen):
    """How the upstream answered an account's calls, as it tells those who ask."""

    accepted: int
    refused: int


AnyMessage = Annotated[
    Ready | Calling | Accepted | Refused | Heard | BackingOff | Done,
    Field(discriminator="kind"),
]

READER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)
"""Reads one line."""


def tell(message: AnyMessage) -> None:
    """Tell the demo something, from a child process."""
    print(message.model_dump_json(), flush=True)
