"""What a limit is attached to: a backend, or one model of a backend."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

MAX_NAME_LENGTH = 256
"""Longest backend, model or namespace name, in characters."""

_UNUSABLE_CATEGORIES = frozenset({"Cc", "Cs"})


def check_name(what: str, name: object) -> str:
    """Return ``name`` if it can name a backend, a model or a namespace.

    Args:
        what: The argument's name, for the error message.
        name: Any non-empty string of at most 256 characters without control characters
            and lone surrogates (Unicode categories Cc and Cs).

    Returns:
        The name, unchanged.

    Raises:
        ValueError: ``name`` is anything else.
    """
    if not isinstance(name, str):
        raise ValueError(f"{what} must be a string, not {type(name).__name__} {name!r:.80}")
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"{what} must have 1 to {MAX_NAME_LENGTH} characters, not {len(name)}: {name!r:.80}")
    if name.isascii() and name.isprintable():
        return name
    for character in name:
        if unicodedata.category(character) in _UNUSABLE_CATEGORIES:
            raise ValueError(f"{what} must not contain control characters, but {name!r:.300} has {character!r}")
    return name


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written as UTF-8; with a lone surrogate, no reader of the JSON could take it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Target(NamedTuple):
    """A backend, or a backend and a model: what a limit is attached to."""

    backend: str
    model: str | None = None

    @classmethod
    def of(cls, backend: object, model: object = None) -> Self:
        """Make a target of checked names.

        Raises:
            ValueError: One of the names is not usable; see ``check_name``.
        """
        return cls(check_name("backend", backend), None if model is None else check_name("model", model))

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """Read a target back from the form it has inside a key.

        Raises:
            ValueError: ``encoded`` was not made by ``encode``.
        """
        backend, separator, model = encoded.partition("/")
        return cls.of(unquote(backend, errors="strict"), unquote(model, errors="strict") if separator else None)

    def encode(self) -> str:
        """Return the form used inside keys: percent-encoded names (RFC 3986), joined by a slash."""
        backend = quote(self.backend, safe="")
        return backend if self.model is None else f"{backend}/{quote(self.model, safe='')}"

    def __str__(self) -> str:
        return self.backend if self.model is None else f"{self.backend}/{self.model}"
