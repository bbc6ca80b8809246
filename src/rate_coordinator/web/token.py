"""The token that whoever writes must have. It is never shown and never logged."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

ENV_TOKEN = "RATE_COORDINATOR_TOKEN"
LEAST_LENGTH = 16

# The characters of a bearer token: https://www.rfc-editor.org/rfc/rfc6750#section-2.1
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Token:
    """A secret that can be compared and nothing else.

    Args:
        secret: At least 16 of the characters that a bearer token may have: letters, digits and ``-._~+/``, and ``=`` at
            the end.

    Raises:
        ValueError: It has others, or too few; the message does not repeat it.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if len(secret) < LEAST_LENGTH or not _TOKEN.fullmatch(secret):
            raise ValueError(
                f"the token must be at least {LEAST_LENGTH} letters, digits or -._~+/ (= at the end); "
                f"this one has {len(secret)} characters. One can be made by: openssl rand -hex 32"
            )
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "<Token>"

    def is_that_of(self, authorization: str) -> bool:
        """Tell whether a header ``Authorization`` bears this token. Its time does not tell where they differ."""
        scheme, _, given = authorization.partition(" ")
        return secrets.compare_digest(given.strip().encode(), self._secret) and scheme.lower() == "bearer"


def read_token(path: Path | None, environment: Mapping[str, str]) -> Token | None:
    """Return the token of a file, else of the environment; None when there is neither.

    Args:
        path: A file that holds nothing else.
        environment: Where ``RATE_COORDINATOR_TOKEN`` is looked for; an empty one counts as none.

    Raises:
        ValueError: It cannot be used, or the file cannot be read.
    """
    if path is not None:
        try:
            return Token(path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the token file {str(path)!r} cannot be read: {error}") from None
    secret = environment.get(ENV_TOKEN, "").strip()
    return Token(secret) if secret else None
