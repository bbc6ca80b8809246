"""Reads what a command printed: was it refused because of a limit?"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import NamedTuple

from rate_coordinator.answers.answer import CLEAR, Answer
from rate_coordinator.answers.generic import GENERIC
from rate_coordinator.answers.look import Look, parse_json
from rate_coordinator.answers.moments import read_when
from rate_coordinator.answers.quantities import Clock, read_seconds
from rate_coordinator.answers.reading import judge, read_now
from rate_coordinator.answers.registry import candidates
from rate_coordinator.answers.sayings import ANOTHER_ERROR, CONSEQUENCE, FAILURES, SAYINGS, TRIES_AGAIN, Saying

LONGEST_TAIL = 32 * 1024
"""Characters at the end of an output that are looked at."""
MOST_LINES = 60
LONGEST_LINE = 4096
LONGEST_NOTICE = 400
"""Characters of an output that is nothing but the notice of a limit."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]{0,20}[A-Za-z]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\))|\r")
_HEADER = re.compile(r"^(?:< )?([A-Za-z0-9-]{1,64}): *(.{0,512})$")


class _Moment(NamedTuple):
    now: datetime
    local: tzinfo | None


def read_output(text: str | bytes, exit_code: int | None, *, now: datetime | None = None) -> Answer:
    """Tell what the output of a command says about the upstream's limits.

    A run that succeeded was not refused, whatever it printed: a 429 in a log or in an answer about HTTP is none. It
    counts only where the whole output is the notice of a limit that tells when it ends, or where the last line is an
    event that says itself that the run failed (``"is_error": true``, ``turn.failed``). Of a run that failed, its last
    lines count: the usage limits of claude, gemini and codex, and the HTTP status of the error that came last, of
    curl and others. A refusal after which the program tried again is not its last error.

    Args:
        text: What it printed, standard error last. No more than the last 32 KiB are looked at.
        exit_code: Its exit code; negative for a signal. None, if it is not known, is no failure.
        now: What time it is, timezone-aware; the real time if left out. Its time zone is that of the times which the
            program tells without one; if left out, this machine's.

    Raises:
        ValueError: ``now`` tells no time zone.
    """
    moment = _Moment(read_now(now), now.tzinfo if now is not None else None)
    plain = _ESCAPES.sub("", _tail(text)).strip()
    lines = [line.strip()[:LONGEST_LINE] for line in plain.split("\n") if line.strip()][-MOST_LINES:]
    if not lines:
        return CLEAR
    event = _event(lines[-1]) or _event(plain)
    if event is not None:
        return _notice(event, moment) or _failure(event, [event], moment) or CLEAR
    if exit_code is None or exit_code == 0:
        answer = (
            _notice(plain, moment, alone=True) if len(plain) <= LONGEST_NOTICE and len(text) <= LONGEST_TAIL else None
        )
        return answer if answer is not None and answer.wait_seconds is not None else CLEAR
    events = [message for line in lines if (message := _event(line)) is not None]
    return _notice("\n".join([*lines, *events]), moment) or _failure(plain, lines, moment) or CLEAR


def _tail(text: object) -> str:
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text[-LONGEST_TAIL:]).decode("utf-8", "replace")
    return text[-LONGEST_TAIL:] if isinstance(text, str) else ""


def _event(line: str) -> str | None:
    """Return the message of a line of JSON, or of JSON over several lines, that says that the run failed.

    https://code.claude.com/docs/en/headless, https://github.com/openai/codex/blob/main/docs/exec.md
    """
    event = parse_json(line) if line[:1] in {"{", "["} else None
    if isinstance(event, list):
        event = event[-1] if event else None
    if not isinstance(event, Mapping):
        return None
    message: object = None
    if event.get("type") == "result" and event.get("is_error") is True:
        message = event.get("result")
    elif event.get("type") == "turn.failed":
        error = event.get("error")
        message = error.get("message") if isinstance(error, Mapping) else None
    return message[:LONGEST_LINE] if isinstance(message, str) else None


def _notice(text: str, moment: _Moment, *, alone: bool = False) -> Answer | None:
    """Return what the last notice of a limit says; None where there is none, or another error came after it."""
    last: tuple[Saying, re.Match[str]] | None = None
    for saying in SAYINGS:
        for found in [saying.pattern.match(text)] if alone else saying.pattern.finditer(text):
            if found is not None and (last is None or found.start() > last[1].start()):
                last = saying, found
    if last is None:
        return None
    saying, found = last
    if TRIES_AGAIN.search(found[0]) or any(_is_another_error(line) for line in text[found.end() :].split("\n")[1:]):
        return None
    groups = found.groupdict()
    scope = groups.get("scope")
    wait = _wait(saying, groups, moment)
    return Answer(True, wait, saying.reason, scope.lower() if scope else None, None, None, saying.program)


def _wait(saying: Saying, groups: Mapping[str, str | None], moment: _Moment) -> float | None:
    clock = Clock(moment.now, moment.now)
    if epoch := groups.get("epoch"):
        return read_seconds(epoch, "moment", clock)
    if wait := groups.get("wait"):
        return read_seconds(" ".join(wait.split()).rstrip(" ,"), "auto", clock)
    if when := groups.get("when"):
        return read_when(when, moment.now, moment.local, today_only=saying.today_only)
    return None


def _failure(text: str, lines: list[str], moment: _Moment) -> Answer | None:
    """Return what the last error says; None where it is not about HTTP."""
    for line in reversed(lines):
        found = next((found for failure in FAILURES if (found := failure.pattern.search(line))), None)
        if found is not None and not TRIES_AGAIN.search(line):
            return _read_failure(text, found.groupdict(), moment)
        if found is None and _is_another_error(line):
            return None
    return None


def _is_another_error(line: str) -> bool:
    return ANOTHER_ERROR.search(line) is not None and CONSEQUENCE.search(line) is None


def _read_failure(text: str, groups: Mapping[str, str | None], moment: _Moment) -> Answer:
    rest = groups.get("body") or ""
    if code := groups.get("code"):
        body: object = {"__type": code, "message": rest}
        return judge(Look(400, None, body, moment.now), [*candidates("aws"), GENERIC])
    if rest[:1] in {"[", "{"}:
        # It may go on over the lines that follow.
        start = text.rfind(rest)
        body = _innermost(parse_json(text[start:] if start >= 0 else rest) or _literal(rest))
    else:
        body = rest
    headers: list[tuple[str | bytes, str | bytes]] = []
    status = int(groups.get("status") or 0)
    if status and not rest:
        headers, body = _exchange(text, status)
    look = Look(status or _told_status(body), headers, body, moment.now)
    known = [provider for provider in candidates(None) if any(sign.holds(look) for sign in provider.signs)]
    return judge(look, [*known, GENERIC])


def _innermost(body: object) -> object:
    """Return the error that stands as JSON in the message of another: https://github.com/google-gemini/gemini-cli."""
    message = next(iter(Look(0, None, body, datetime.min).texts("$.error.message")), "")
    inner = parse_json(message) if message.startswith("{") else None
    return inner if isinstance(inner, Mapping) and "error" in inner else body


def _exchange(text: str, status: int) -> tuple[list[tuple[str | bytes, str | bytes]], str]:
    """Return the headers and the body of the last answer with a status, as ``curl -i`` and ``curl -v`` print them."""
    heads = list(re.finditer(rf"^(?:< )?HTTP/[1-3](?:\.\d)? {status}\b.*$", text, re.MULTILINE))
    if not heads:
        return [], ""
    headers: list[tuple[str | bytes, str | bytes]] = []
    lines = text[heads[-1].end() :].split("\n")[1:]
    for count, line in enumerate(lines):
        found = _HEADER.match(line.rstrip())
        if found is None:
            return headers, "\n".join(line for line in lines[count:] if not line.startswith("curl: ")).strip()
        headers.append((found[1], found[2]))
    return headers, ""


def _told_status(body: object) -> int:
    look = Look(0, None, body, datetime.min)
    code = look.number("$.error.code")
    return int(code) if code is not None and 100 <= code <= 599 else 0


def _literal(text: str) -> object:
    """Return the dictionary that Python printed; None where it is none."""
    try:
        value: object = ast.literal_eval(text[:LONGEST_LINE].strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
