"""Reads what comes in on the channel, whoever sent it."""

from __future__ import annotations

import json

from pydantic import ValidationError

from rate_coordinator.models import Notice

LARGEST_MESSAGE = 64 * 1024
"""A notice is a few hundred bytes; names are bounded. What is larger is not one of ours."""


class Unreadable(Exception):
    """A message is not a notice."""


def read_notice(message: bytes) -> Notice | None:
    """Read a message from the channel.

    Returns:
        The notice; None for a message of a kind that this version does not know, which is to be ignored.

    Raises:
        Unreadable: It is not a notice at all.
    """
    if len(message) > LARGEST_MESSAGE:
        raise Unreadable(f"{len(message)} bytes are more than a notice can have")
    try:
        return Notice.model_validate_json(message)
    except ValidationError as error:
        if _is_of_unknown_kind(message):
            return None
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{where}: {first['msg']}" if where else str(first["msg"])) from None


def _is_of_unknown_kind(message: bytes) -> bool:
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(content, dict) and isinstance(content.get("kind"), str) and content["kind"] not in {"limit", "clear"}
    )
