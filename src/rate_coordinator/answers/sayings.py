"""What programs print when they were refused, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rate_coordinator import Reason
from rate_coordinator.answers.quantities import DURATION


@dataclass(frozen=True, slots=True)
class Saying:
    """A sentence that says nothing but that a limit was hit.

    Args:
        program: Which program says so.
        pattern: Matches from the beginning of a line. Its groups, all of them optional: ``epoch``, ``wait`` (a
            duration) and ``when`` (the text from a time on) tell the wait, ``scope`` which limit it is.
        reason: As in ``Answer``.
        today_only: Whether a time without a date is always one of today.
    """

    program: str
    pattern: re.Pattern[str]
    reason: Reason = "quota"
    today_only: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that tells the HTTP status by which a call failed.

    Args:
        pattern: Is searched for in a line. Its groups: ``status``, ``code`` (an error code of AWS), and ``body``, where
            the body begins that came with it.
    """

    pattern: re.Pattern[str]


def _line(pattern: str) -> re.Pattern[str]:
    # Before it stand bullets, frames and such, and what kind of error it is.
    return re.compile(rf"^[^\w\n]{{0,12}}(?:\w{{0,40}}Error: )?{pattern}", re.IGNORECASE | re.MULTILINE)


_RESET = (
    r"(?:[^\w\n(]{0,8}(?:(?:it |limits? |your limit |access )?(?:will )?resets?:?|(?:please )?try again) "
    rf"(?:in {DURATION}|(?:at )?(?P<when>.{{1,80}})))"
)
_RESETS = f"{_RESET}?"

_CODEX_STREAM = (
    r"(?:ERROR: )?(?:stream error: )?stream disconnected before completion: Rate limit (?:reached|is exceeded)\b"
)
_GEMINI_ERROR = r"API Error: (?:(?:(?!API Error)[^\n]){0,400}\n){0,8}?(?:(?!API Error)[^\n]){0,400}?"

SAYINGS = (
    # https://github.com/anthropics/claude-code/issues/2087, read by programs
    Saying("claude", _line(r"Claude (?:AI )?usage limit reached\|(?P<epoch>\d{10,13})\b")),
    # https://github.com/anthropics/claude-code/issues/9236
    Saying("claude", _line(rf"Claude (?:AI )?usage limit reached\b\.?{_RESETS}")),
    # https://support.claude.com/en/articles/11145838
    Saying("claude", _line(rf"(?:\w+ )?(?P<scope>5-hour|session|weekly) limit reached\b{_RESETS}")),
    # https://github.com/google-gemini/gemini-cli/issues/22643
    Saying("gemini", _line(rf"Usage limit reached for (?P<scope>[\w.-]+|all \w+ models)\.\s*{_RESETS}")),
    Saying("claude", _line(rf"Usage limit reached\b(?! for){_RESETS}")),
    Saying("claude", _line(rf"Limit reached\b{_RESET}")),
    # https://github.com/anthropics/claude-code/issues/77082 /64462 /45257
    Saying(
        "claude",
        _line(
            r"You(?:['\u2019]ve| have) (?:(?:hit|reached) your (?:(?P<scope>session|weekly|\w+ weekly) )?|"
            rf"reached your usage )limit\b{_RESETS}"
        ),
    ),
    # https://github.com/anthropics/claude-code/issues/42654
    Saying("claude", _line(rf"You['\u2019]re out of (?P<scope>extra usage)\b{_RESETS}")),
    Saying("claude", _line(rf"(?P<scope>Spending cap) reached\b{_RESETS}")),
    Saying("claude", _line("Credit balance is too low$")),
    Saying("claude", _line(r"(?:API Error: )?Server is temporarily limiting requests"), "overloaded"),
    # https://github.com/anthropics/claude-code/issues/13990
    Saying("claude", _line(r"API Error: Repeated 529 Overloaded errors\b"), "overloaded"),
    # https://code.claude.com/docs/en/errors, https://github.com/anthropics/claude-code/issues/29882
    Saying("claude", _line(r"API Error: (?:Request rejected \(429\)|Rate limit reached\b)"), "rate_limit"),
    # https://github.com/openai/codex/issues/3899 /21047; codex-rs/protocol/src/error.rs
    Saying(
        "codex",
        _line(
            r"(?:ERROR: )?You['\u2019]ve hit your (?P<scope>usage) limit\b[^\n]{0,240}?"
            rf"(?:try\s+again\s+(?:in\s+{DURATION}|at\s+(?P<when>.{{1,80}})))"
        ),
        today_only=True,
    ),
    Saying("codex", _line(r"(?:ERROR: )?You['\u2019]ve hit your (?P<scope>usage) limit\b")),
    # https://github.com/openai/codex/issues/10052 /3764
    Saying(
        "codex",
        _line(
            r"(?:ERROR: )?(?:stream error: )?(?:stream disconnected before completion: )?Rate limit (?:reached for|is "
            rf"exceeded\.)(?:[^\n]|\n(?!\n)){{0,300}}?try\s+again\s+in\s+{DURATION}[^\n]*"
        ),
        "rate_limit",
    ),
    # https://github.com/openai/codex/issues/2255 /10062
    Saying("codex", _line(rf"{_CODEX_STREAM}[^\n]{{0,300}}"), "rate_limit"),
    # https://github.com/google-gemini/gemini-cli/issues/2047
    Saying("gemini", _line(r"(?:API Error: )?Quota exceeded for quota metric [^\n]{0,200}\bper (?P<scope>day)\b")),
    # https://github.com/google-gemini/gemini-cli: packages/core/src/utils/googleQuotaErrors.ts
    Saying(
        "gemini",
        _line(
            r"(?:API Error: )?You have exhausted your (?:daily )?(?:capacity|quota) on this (?P<scope>model)\b"
            rf"(?:\.\s+Your quota will reset after {DURATION})?"
        ),
    ),
    # https://github.com/google-gemini/gemini-cli: packages/core/src/utils/errorParsing.ts
    Saying(
        "gemini",
        _line(rf"{_GEMINI_ERROR}\bPlease retry in {DURATION}[^\n]{{0,20}}\(Status: RESOURCE_EXHAUSTED\)"),
        "rate_limit",
    ),
    Saying("gemini", _line(rf"{_GEMINI_ERROR}\(Status: RESOURCE_EXHAUSTED\)"), "rate_limit"),
    Saying("gemini", _line(r"(?:API Error: )?No capacity available for (?P<scope>model)\b"), "overloaded"),
)
"""In this order; the first that matches counts."""

_STATUS = r"(?P<status>[1-5]\d\d)"

FAILURES = tuple(
    Failure(re.compile(pattern, re.IGNORECASE))
    for pattern in (
        # https://curl.se/docs/manpage.html#-f, and git, which is built on curl
        rf"^curl: \(\d+\) .*\breturned error: {_STATUS}\b",
        rf"^(?:fatal|error): .*\breturned error: {_STATUS}\b",
        rf"^(?:< )?HTTP/[1-3](?:\.\d)? {_STATUS}\b",
        # https://github.com/anthropics/claude-code/issues/5769, https://code.claude.com/docs/en/errors
        rf"\bAPI Error:? (?:Repeated |Request rejected )?\(?{_STATUS}\b[):]?\s*(?P<body>.*)",
        r"\bAPI ?Error: (?P<body>[\[{].*)",
        rf"\bexceeded retry limit, last status: {_STATUS}\b",
        rf"\bunexpected status {_STATUS}\b[^:]{{0,40}}:?\s*(?P<body>.*)",
        # What Python prints last: openai, anthropic, requests, urllib, httpx, botocore
        rf"^[\w.]*Error: Error code: {_STATUS} - (?P<body>\{{.*)",
        rf"^[\w.]*HTTPError: {_STATUS} (?:Client|Server) Error\b",
        rf"^[\w.]*HTTPError: HTTP Error {_STATUS}:",
        # What the SDKs for JavaScript print, and axios
        rf"^\W{{0,8}}(?:RateLimit|API|InternalServer)Error: {_STATUS}\b\s*(?P<body>.*)",
        rf"^[\w.]*Error: Request failed with status code {_STATUS}\b",
        # https://github.com/cli/cli: api.HTTPError
        rf"(?:^HTTP |^gh: .*\(HTTP ){_STATUS}(?:: |\))",
        rf"^[\w.]*HTTPStatusError: (?:Client|Server) error '{_STATUS}\b",
        r"\bAn error occurred \((?P<code>\w{3,60})\) when calling the \w+ operation\b[^:]*:?\s*(?P<body>.*)",
        # What programs for Node print last: https://github.com/anthropics/claude-code/issues/2087,
        # https://github.com/openai/openai-node/blob/master/src/core/error.ts
        rf"^[\w.]*Error: {_STATUS} (?P<body>\{{.*)",
        rf"^RateLimitError: {_STATUS}\b",
        # The reason phrase: https://www.rfc-editor.org/rfc/rfc6585#section-4
        rf"^(?:[\w.]*Error|wget: server returned error): (?:HTTP\S* )?{_STATUS}:? Too Many Requests\b",
        # https://www.gnu.org/software/wget/manual/
        rf"\bERROR {_STATUS}: ",
    )
)

ANOTHER_ERROR = re.compile(
    r"^\W{0,8}(?:[\w.]{0,60}(?:error|exception|fatal|panic|assertion)[\w.]{0,60}(?:\[\w+\])?(?::|$)"
    r"|curl: \(\d+\)|npm err!|FAILED\b|\d+ (?:failed|errors?)\b)",
    re.IGNORECASE,
)
"""A line that tells of some other failure."""

CONSEQUENCE = re.compile(r"\b(?:exit(?:ed|s)?|ELIFECYCLE|errno)\b|\bnon-?zero\b", re.IGNORECASE)
"""A line that tells only that something else failed before."""

TRIES_AGAIN = re.compile(r"\bretrying\b|\battempt \d+ ?(?:/|of) ?\d+|\bwill retry\b", re.IGNORECASE)
"""A line that tells of a refusal after which the program went on."""
