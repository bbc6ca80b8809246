"""Reads what comes in on the channel, whoever sent it."""

from __future__ import annotations

import json
from typing import Literal, get_args

from pydantic import ValidationError

from rate_coordinator.models import WIRE_VERSION, Notice

LARGEST_MESSAGE = 64 * 1024
"""A notice is a few hundred bytes; names are bounded. What is larger is not one of ours."""

_KINDS = frozenset(get_args(Notice.model_fields["kind"].annotation))


Trouble = Literal["too_large", "not_json", "not_a_notice", "newer_version"]
"""What can be wrong with a message. A newer version's is no garbage, but what it tells is missed."""


class Unreadable(Exception):
    """A message is not a notice, or not one that this version understands.

    Args:
        trouble: What kind of trouble it is.
        message: What is wrong with it.
    """

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


def read_notice(message: bytes) -> Notice | None:
    """Read a message from the channel.

    Returns:
        The notice; None for a message of a kind that this version does not know, which is to be ignored.

    Raises:
        Unreadable: It is not a notice, or that of a newer version. What it tells is missed, as any lost notice is, and
            healed likewise.
    """
    if len(message) > LARGEST_MESSAGE:
        raise Unreadable("too_large", f"{len(message)} bytes are more than a notice can have")
    try:
        return Notice.model_validate_json(message)
    except ValidationError as error:
        content = _as_object(message)
        if content is None:
            raise Unreadable("not_json", str(error.errors(include_url=False, include_input=False)[0]["msg"])) from None
        version, kind = content.get("version"), content.get("kind")
        if isinstance(version, int) and version > WIRE_VERSION:
            raise Unreadable("newer_version", f"version {version}, but this one knows {WIRE_VERSION}") from None
        if isinstance(kind, str) and kind not in _KINDS:
            return None
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable("not_a_notice", f"{where}: {first['msg']}") from None


def _as_object(message: bytes) -> dict[str, object] | None:
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
