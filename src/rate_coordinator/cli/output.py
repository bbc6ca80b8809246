"""Prints: answers to stdout, everything else to stderr, both line by line as they come."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rate_coordinator.cli.texts import printable

ERASE_LINE = "\r\x1b[K"
_PLAIN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def say(text: str) -> None:
    """Print a line of an answer."""
    print(text, flush=True)


def say_json(fields: Mapping[str, object]) -> None:
    """Print an answer as one line of JSON, in ASCII, so that it is readable whatever the locale is."""
    print(json.dumps(fields, allow_nan=False), flush=True)


def complain(text: str) -> None:
    """Print a line about what goes wrong."""
    erase = ERASE_LINE if is_terminal(sys.stderr) else ""
    print(f"{erase}rate-coordinator: {printable(text)}", file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person looks at a stream."""
    return stream is not None and not stream.closed and stream.isatty()


def can_encode(text: str, stream: TextIO | None) -> bool:
    """Return whether a stream has the characters of a text."""
    if stream is None:
        return False
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Let no character be a reason to fail, and let the library's warnings be lines like all others."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger, handler = logging.getLogger("rate_coordinator"), _Complaints(logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields = [f"{name}: {value}" for name, value in vars(record).items() if name not in _PLAIN_FIELDS]
        if record.exc_info and record.exc_info[1] is not None:
            fields.append(repr(record.exc_info[1]))
        complain(record.getMessage() + (f" ({', '.join(fields)})" if fields else ""))
