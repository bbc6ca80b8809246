"""The Lua scripts, as they ship beside the package or, in an editable install, as they lie in the repository."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_HOMES = (Path(__file__).parent / "lua", Path(__file__).parents[2] / "lua")


class Script(NamedTuple):
    """A script's text and the SHA-1 by which ``EVALSHA`` knows it."""

    name: str
    text: str
    sha: str


def read_script(name: str) -> str:
    """Return the text of ``lua/<name>.lua``.

    Raises:
        FileNotFoundError: There is no such script; the installation is damaged.
    """
    for home in _HOMES:
        path = home / f"{name}.lua"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"no script {name}.lua in {' or '.join(str(home) for home in _HOMES)}")


@cache
def script(name: str) -> Script:
    """Return a script, read once per process."""
    text = read_script(name)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
