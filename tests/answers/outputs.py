"""Samples of what programs print."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

NOW = datetime(2026, 4, 9, 12, 0, 0, tzinfo=ZoneInfo("Europe/Berlin"))


@dataclass(frozen=True)
class Output:
    """What a program printed, and how it ended."""

    name: str
    source: str
    text: str
    exit_code: int | None
    expected: tuple[Any, ...]
    """``limited``, ``reason``, ``wait_seconds`` and ``scope``."""


CLEAR = (False, None, None, None)
CLAUDE = "https://github.com/anthropics/claude-code/issues"
CODEX = "https://github.com/openai/codex/issues"
CLAUDE_EPOCH = f"Claude AI usage limit reached|{int(NOW.timestamp()) + 11200}"
CODEX_DAYS = (
    "■ You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing) or try again in 5 days 22 "
    "hours 11\nminutes."
)
GEMINI_ISSUES = "https://github.com/google-gemini/gemini-cli/issues"
GEMINI = "[API Error: You have exhausted your capacity on this model. Your quota will reset after 2h52m39s.]"
HEAD = "HTTP/2 429 \r\ndate: Thu, 09 Apr 2026 10:00:00 GMT\r\nretry-after: 30\r\n\r\n"

OUTPUTS = [
    Output("claude-epoch", f"{CLAUDE}/2087", CLAUDE_EPOCH, 1, (True, "quota", 11200.0, None)),
    Output("claude-epoch-and-exit-0", f"{CLAUDE}/2087", CLAUDE_EPOCH + "\n", 0, (True, "quota", 11200.0, None)),
    Output(
        "claude-zone",
        f"{CLAUDE}/9236",
        " ⎿  Claude usage limit reached. Your limit will reset at 3pm (Europe/Berlin).\n",
        1,
        (True, "quota", 10800.0, None),
    ),
    Output(
        "claude-5-hours",
        "https://support.claude.com/en/articles/11145838",
        "5-hour limit reached ∙ resets 18:00",
        1,
        (True, "quota", 21600.0, "5-hour"),
    ),
    Output(
        "claude-session",
        f"{CLAUDE}/77082",
        "You've hit your session limit · resets 8:30pm (Asia/Tokyo)",
        0,
        (True, "quota", 5400.0, "session"),
    ),
    Output(
        "claude-date",
        f"{CLAUDE}/45257",
        "You\u2019ve hit your limit · resets Apr 10 at 7am (America/Chicago)",
        1,
        (True, "quota", 93600.0, None),
    ),
    Output(
        "claude-weekday",
        "https://code.claude.com/docs/en/errors",
        "You've hit your weekly limit · resets Sunday 12:00am",
        1,
        (True, "quota", 216000.0, "weekly"),
    ),
    Output(
        "claude-event",
        "https://code.claude.com/docs/en/headless",
        '{"type":"system"}\n{"type":"result","subtype":"success","is_error":true,"result":"' + CLAUDE_EPOCH + '"}',
        0,
        (True, "quota", 11200.0, None),
    ),
    Output("claude-credit", f"{CLAUDE}/4248", "Credit balance is too low\n", 1, (True, "quota", None, None)),
    Output(
        "claude-overloaded",
        f"{CLAUDE}/5769",
        'API Error (529 {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}})',
        1,
        (True, "overloaded", None, None),
    ),
    Output(
        "claude-rate-limit",
        f"{CLAUDE}/2087",
        'API Error: 429 {"type":"error","error":{"type":"rate_limit_error","message":"Please try again later."}}',
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "claude-went-on",
        f"{CLAUDE}/5769",
        'API Error (529 {"type":"error","error":{"type":"overloaded_error"}}) · Retrying in 1 seconds… (attempt 1/10)\n'
        "Error: invalid API key",
        1,
        CLEAR,
    ),
    Output("claude-answers-about-limits", f"{CLAUDE}/2087", f"It prints this:\n{CLAUDE_EPOCH}\nthen ends.", 0, CLEAR),
    Output(
        "claude-repeated-529",
        "https://code.claude.com/docs/en/errors",
        "API Error: Repeated 529 Overloaded errors. The API is at capacity, this is usually temporary.",
        1,
        (True, "overloaded", None, None),
    ),
    Output(
        "claude-rejected",
        "https://code.claude.com/docs/en/errors",
        "API Error: Request rejected (429) · this may be a temporary capacity issue. If it persists, check status.",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "claude-rate-limit-without-a-status",
        f"{CLAUDE}/29882",
        "API Error: Rate limit reached",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "codex-stream",
        f"{CODEX}/10062",
        "■ stream disconnected before completion: Rate limit reached for organization org-B on tokens per min (TPM): "
        "Limit 250000, Used 250000, Requested\n143071. Please try again in 34.337s. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
        1,
        (True, "rate_limit", 34.337, None),
    ),
    Output(
        "codex-stream-azure",
        f"{CODEX}/3764",
        "⚠️ stream error: stream disconnected before completion: Rate limit is exceeded. Try again in 17 seconds.; "
        "retrying 5/5 in 3.32s…\n■ stream disconnected before completion: Rate limit is exceeded. Try again in 11 "
        "seconds.",
        1,
        (True, "rate_limit", 11.0, None),
    ),
    Output(
        "codex-stream-went-on",
        f"{CODEX}/3764",
        "⚠️ stream error: stream disconnected before completion: Rate limit is exceeded. Try again in 4 seconds.; "
        "retrying 1/5 in 209ms…\nthe tests fail",
        1,
        CLEAR,
    ),
    Output("codex-days", f"{CODEX}/3899", CODEX_DAYS, 1, (True, "quota", 511860.0, "usage")),
    Output(
        "codex-date",
        f"{CODEX}/21047",
        "You've hit your usage limit. Upgrade to Plus to continue using Codex (https://chatgpt.com/explore/plus), or "
        "try again at May 11th, 2026 1:36 PM.",
        1,
        (True, "quota", 2770560.0, "usage"),
    ),
    Output(
        "codex-time",
        "https://github.com/openai/codex/blob/main/codex-rs/protocol/src/error.rs",
        "ERROR: You've hit your usage limit. Try again at 11:30 PM.",
        1,
        (True, "quota", 41400.0, "usage"),
    ),
    Output(
        "codex-event",
        "https://github.com/openai/codex/blob/main/docs/exec.md",
        '{"type":"turn.started"}\n{"type":"turn.failed","error":{"message":"You\'ve hit your usage limit. Try again '
        'later."}}',
        1,
        (True, "quota", None, "usage"),
    ),
    Output(
        "codex-gave-up",
        "https://github.com/openai/codex/blob/main/codex-rs/protocol/src/error.rs",
        "ERROR: exceeded retry limit, last status: 429 Too Many Requests, request id: abc123",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "codex-other-language",
        f"{CODEX}/28089",
        "You've hit your usage limit. try again at 10 de jul.",
        1,
        (True, "quota", None, "usage"),
    ),
    Output(
        "gemini-quota",
        "https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/utils/googleQuotaErrors.ts",
        f"Loaded cached credentials.\n    {GEMINI}\n    An unexpected critical error occurred:[object Object]",
        1,
        (True, "quota", 10359.0, "model"),
    ),
    Output(
        "gemini-status",
        "https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/utils/errorParsing.ts",
        "✕ [API Error: You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded "
        "for metric: requests, limit: 250\nPlease retry in 34.07s. (Status: RESOURCE_EXHAUSTED)]\nPlease wait and try "
        "again later.",
        1,
        (True, "rate_limit", 34.07, None),
    ),
    Output(
        "gemini-status-without-a-time",
        "https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/utils/errorParsing.ts",
        "[API Error: Resource has been exhausted (e.g. check quota). (Status: RESOURCE_EXHAUSTED)]",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "gemini-other-status",
        "https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/utils/errorParsing.ts",
        "[API Error: API key not valid. Please pass a valid API key. (Status: INVALID_ARGUMENT)]",
        1,
        CLEAR,
    ),
    Output(
        "gemini-json",
        "https://github.com/google-gemini/gemini-cli/issues/1848",
        '✕ [API Error: [{\n    "error": {\n      "code": 429,\n      "message": "Resource has been exhausted (e.g. '
        'check\n  quota).",\n      "status": "RESOURCE_EXHAUSTED"\n    }\n  }\n  ]]\n  Please wait and try again.',
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "curl",
        "https://curl.se/docs/manpage.html#-f",
        "curl: (22) The requested URL returned error: 429\nmake: *** [fetch] Error 22",
        2,
        (True, "rate_limit", None, None),
    ),
    Output(
        "curl-with-headers",
        "https://curl.se/docs/manpage.html#--fail-with-body",
        f"{HEAD}{{}}\ncurl: (22) The requested URL returned error: 429",
        22,
        (True, "rate_limit", 30.0, None),
    ),
    Output(
        "curl-503",
        "https://curl.se/docs/manpage.html#-f",
        "curl: (22) The requested URL returned error: 503",
        22,
        (True, "overloaded", None, None),
    ),
    Output(
        "curl-404",
        "https://curl.se/docs/manpage.html#-f",
        "curl: (22) The requested URL returned error: 404",
        22,
        CLEAR,
    ),
    Output("curl-that-did-not-fail", "https://curl.se/docs/manpage.html#-i", f"{HEAD}{{}}", 0, CLEAR),
    Output(
        "git",
        "https://git-scm.com/docs/git-clone",
        "fatal: unable to access 'https://github.com/a/b.git/': The requested URL returned error: 429",
        128,
        (True, "rate_limit", None, None),
    ),
    Output(
        "python-openai",
        "https://github.com/IIC2440/Syllabus-2025-1/issues/14",
        "openai.RateLimitError: Error code: 429 - {'error': {'message': 'You exceeded your current quota', 'type': "
        "'insufficient_quota', 'param': None, 'code': 'insufficient_quota'}}",
        1,
        (True, "quota", None, "account"),
    ),
    Output(
        "node-anthropic",
        f"{CLAUDE}/2087",
        'Error: 429 {"type":"error","error":{"type":"rate_limit_error","message":"Please try again later."}}\n'
        "    at h6.generate (file:///cli.js:1329:12782)",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "node-openai",
        "https://github.com/openai/openai-node/blob/master/src/core/error.ts",
        "RateLimitError: 429 Rate limit reached for gpt-4o\n    at APIError.generate (core/error.ts:76:14)",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "reason-phrase",
        "https://www.rfc-editor.org/rfc/rfc6585#section-4",
        "Error: HTTP 429 Too Many Requests",
        1,
        (True, "rate_limit", None, None),
    ),
    Output("a-number-in-an-error", "https://www.rfc-editor.org/rfc/rfc6585", "Error: 429 rows are bad", 1, CLEAR),
    Output(
        "aws-cli",
        "https://docs.aws.amazon.com/cli/latest/topic/return-codes.html",
        "\nAn error occurred (ThrottlingException) when calling the InvokeModel operation (reached max retries: 4): "
        "Too many requests, please wait before trying again.",
        254,
        (True, "rate_limit", None, None),
    ),
    Output(
        "aws-cli-denied",
        "https://docs.aws.amazon.com/cli/latest/topic/return-codes.html",
        "\nAn error occurred (AccessDeniedException) when calling the InvokeModel operation: not authorized",
        254,
        CLEAR,
    ),
    Output(
        "tests-that-fail-beside-a-429",
        "https://docs.pytest.org/en/stable/how-to/output.html",
        "WARNING upstream: HTTP/1.1 429 Too Many Requests\nE   AssertionError: assert 1 == 2\n1 failed, 2 passed",
        1,
        CLEAR,
    ),
    Output(
        "the-real-error-is-another",
        "https://docs.python.org/3/tutorial/errors.html",
        f"{CLAUDE_EPOCH}\nTraceback (most recent call last):\nSyntaxError: invalid syntax",
        1,
        CLEAR,
    ),
    Output("a-number", "https://www.rfc-editor.org/rfc/rfc6585", "processed 429 items", 1, CLEAR),
    Output("nothing", "https://www.rfc-editor.org/rfc/rfc6585", " \n\n", 1, CLEAR),
    Output(
        "claude-usage-limit-that-tells-a-duration",
        "https://support.claude.com/en/articles/11145838",
        "You have reached your usage limit. Please try again in 2h 13m.",
        1,
        (True, "quota", 7980.0, None),
    ),
    Output(
        "claude-limit",
        f"{CLAUDE}/9236",
        "Limit reached · resets 3pm (Europe/Berlin) · /upgrade to Max or turn on /extra-usage",
        1,
        (True, "quota", 10800.0, None),
    ),
    Output("a-limit-of-something-else", f"{CLAUDE}/9236", "Limit reached: 500 rows", 1, CLEAR),
    Output(
        "claude-extra-usage",
        f"{CLAUDE}/42654",
        "You're out of extra usage · resets 3pm (Europe/Berlin)",
        1,
        (True, "quota", 10800.0, "extra usage"),
    ),
    Output(
        "claude-529",
        f"{CLAUDE}/13990",
        "  ⎿  API Error: Repeated 529 Overloaded errors",
        1,
        (True, "overloaded", None, None),
    ),
    Output(
        "claude-429",
        "https://code.claude.com/docs/en/errors",
        "API Error: Request rejected (429) · this may be a temporary capacity issue",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "claude-event-over-several-lines",
        "https://code.claude.com/docs/en/headless",
        '{\n  "type": "result",\n  "is_error": true,\n  "result": "' + CLAUDE_EPOCH + '"\n}',
        1,
        (True, "quota", 11200.0, None),
    ),
    Output(
        "claude-list-of-events",
        "https://code.claude.com/docs/en/headless",
        '[{"type":"system"},{"type":"result","is_error":true,"result":"' + CLAUDE_EPOCH + '"}]',
        0,
        (True, "quota", 11200.0, None),
    ),
    Output(
        "codex-tokens",
        f"{CODEX}/10052",
        "■ stream disconnected before completion: Rate limit reached for organization org-\nBO on tokens per min "
        "(TPM): Limit 250000, Used 250000, Requested 13472. Please\ntry again in 3.233s. Visit https://platform.openai.com",
        1,
        (True, "rate_limit", 3.233, None),
    ),
    Output(
        "codex-that-tried-again",
        f"{CODEX}/3764",
        "stream disconnected before completion: Rate limit is exceeded. Try again in 4 seconds.; retrying 1/5",
        1,
        CLEAR,
    ),
    Output(
        "gemini-model",
        f"{GEMINI_ISSUES}/22643",
        "Usage limit reached for gemini-3-flash-preview. Access resets at 10:57 PM GMT-3.",
        1,
        (True, "quota", 39420.0, "gemini-3-flash-preview"),
    ),
    Output(
        "gemini-metric",
        f"{GEMINI_ISSUES}/2047",
        "[API Error: Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Gemini 2.5 Pro Requests per "
        "day per user per tier' of service 'cloudcode-pa.googleapis.com' for consumer 'project_number:1'.]",
        1,
        (True, "quota", None, "day"),
    ),
    Output(
        "gemini-kind-of-error",
        "https://github.com/google-gemini/gemini-cli: packages/core/src/utils/googleQuotaErrors.ts",
        "TerminalQuotaError: You have exhausted your daily quota on this model.\n    at classify (file:///x.js:1:2)",
        1,
        (True, "quota", None, "model"),
    ),
    Output(
        "gemini-error-within-an-error",
        f"{GEMINI_ISSUES}/8883",
        r'✕ [API Error: {"error":{"message":"{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"Please '
        r'retry in 15.5s.\",\n    \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n",'
        r'"code":429,"status":"Too Many Requests"}}]',
        1,
        (True, "rate_limit", 15.5, None),
    ),
    Output(
        "javascript-sdk",
        f"{CLAUDE}/42654",
        'RateLimitError: 429 {"type":"error","error":{"type":"rate_limit_error","message":"x"}}\n    at x (a.js:1:1)',
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "axios",
        "https://github.com/axios/axios/blob/v1.x/lib/core/settle.js",
        "AxiosError: Request failed with status code 429",
        1,
        (True, "rate_limit", None, None),
    ),
    Output("unittest", "https://docs.python.org/3/library/unittest.html", "AssertionError: 429 != 200", 1, CLEAR),
    Output(
        "gh",
        "https://github.com/cli/cli/blob/trunk/api/client.go",
        "HTTP 429: You have exceeded a secondary rate limit (https://api.github.com/x)",
        1,
        (True, "rate_limit", None, None),
    ),
    Output(
        "curl-that-timed-out-after-a-refusal",
        "https://curl.se/docs/manpage.html#--retry",
        "curl: (22) The requested URL returned error: 429\ncurl: (28) Operation timed out after 1000 milliseconds",
        28,
        CLEAR,
    ),
]
