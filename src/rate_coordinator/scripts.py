"""The Lua scripts, as they ship beside the package or, in an editable install, as they lie in the repository.

A script may consist of parts: a line ``-- part: <name>`` in it stands for the text of ``lua/parts/<name>.lua``.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PART = re.compile(r"^-- part: (\w+)\n", re.MULTILINE)
_HOMES = (Path(__file__).parent / "lua", Path(__file__).parents[2] / "lua")


class Script(NamedTuple):
    """A script's text and the SHA-1 by which ``EVALSHA`` knows it."""

    name: str
    text: str
    sha: str


def read_script(name: str) -> str:
    """Return the text of ``lua/<name>.lua``, with its parts put in.

    Raises:
        FileNotFoundError: There is no such script, or a part of it is missing; the installation is damaged.
    """
    return _PART.sub(lambda part: _read(f"parts/{part[1]}") + "\n", _read(name))


def _read(name: str) -> str:
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
