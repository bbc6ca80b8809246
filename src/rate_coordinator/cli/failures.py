"""Tells what went wrong: one line on stderr and an exit code, without secrets."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import typer

from rate_coordinator import CoordinatorError
from rate_coordinator.cli import FAILED
from rate_coordinator.cli.options import ENV_URL
from rate_coordinator.cli.output import complain

USAGE = 2

# Its place differs between versions of typer, its relation to this class does not.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_SECRET = re.compile(r"(?<=://).*(?=@)", re.DOTALL)


def report_failure(error: Exception, arguments: Sequence[str]) -> int:
    """Print what went wrong.

    Args:
        error: What was raised.
        arguments: The command line; a password in it is not repeated.

    Returns:
        The exit code.
    """
    if isinstance(error, UsageError):
        text, code = _words(error), USAGE
    elif isinstance(error, CoordinatorError | ModuleNotFoundError):
        text, code = str(error), FAILED
    elif isinstance(error, ValueError):
        # The library's word for an argument that cannot be used.
        text, code = str(error), USAGE
    elif isinstance(error, OSError):
        silence_output()
        text, code = error.strerror or str(error), FAILED
    else:
        text, code = f"unexpected {type(error).__name__}: {error}", FAILED
    complain(without_secrets(text, [*arguments, os.environ.get(ENV_URL, "")]))
    return code


def without_secrets(text: str, sources: Sequence[str]) -> str:
    """Return a text without the user and password of any URL that stands in one of the sources."""
    for source in sources:
        for secret in _SECRET.findall(source):
            if secret:
                text = text.replace(secret, "***").replace(repr(secret)[1:-1], "***")
    return text


def silence_output() -> None:
    """Let what is still to be written go nowhere: its reader is gone, and the interpreter would complain at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        # Not a file at all, or closed: then nothing will be written either.
        return


def _words(error: Exception) -> str:
    words: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command: str = context.command_path if context is not None else "rate-coordinator"
    return f"{' '.join(words.split()).rstrip('.')} (see '{command} --help')"
