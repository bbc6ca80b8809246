"""Reads what comes in on the channel, whoever sent it."""

from __future__ import annotations

import json

from pydantic import ValidationError

from rate_coordinator.models import WIRE_VERSION, Notice

LARGEST_MESSAGE = 64 * 1024
"""A notice is a few hundred bytes; names are bounded. What is larger is not one of ours."""


class Unreadable(Exception):
    """A message is not a notice."""


def read_notice(message: bytes) -> Notice | None:
    """Read a message from the channel.

    Returns:
        The notice; None for a message that is to be ignored: of a kind that this version does not know, or of a newer
        version that it does not understand. What it tells is missed, as any lost notice is, and healed likewise.

    Raises:
        Unreadable: It is not a notice at all.
    """
    if len(message) > LARGEST_MESSAGE:
        raise Unreadable(f"{len(message)} bytes are more than a notice can have")
    try:
        return Notice.model_validate_json(message)
    except ValidationError as error:
        if _is_to_be_ignored(message):
            return None
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{where}: {first['msg']}" if where else str(first["msg"])) from None


def _is_to_be_ignored(message: bytes) -> bool:
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    version, kind = content.get("version"), content.get("kind")
    return (isinstance(kind, str) and kind not in {"limit", "clear"}) or (
        isinstance(version, int) and version > WIRE_VERSION
    )
