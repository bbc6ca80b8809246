"""What many upstreams have in common."""

from __future__ import annotations

from rate_coordinator.answers.levels import read_ratelimit_fields
from rate_coordinator.answers.rules import Provider, Verdict, Wait, Window

GENERIC = Provider(
    name="generic",
    source="https://www.rfc-editor.org/rfc/rfc6585#section-4 https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4",
    verdicts=(
        Verdict("rate_limit", statuses=(429,)),
        # 529 is no registered status; several upstreams mean by it what 503 says.
        Verdict("overloaded", statuses=(503, 529)),
    ),
    waits=(
        # RFC 9110, 10.2.3: seconds, or a date. Of numbers, only seconds: none is large enough to be a date's.
        Wait("retry-after", "s"),
        Wait("retry-after-ms", "ms"),
        Wait("x-retry-after", "s"),
        Wait("x-ratelimit-retry-after", "s"),
    ),
    windows=(
        read_ratelimit_fields,
        Window("x-ratelimit-{part}-{scope}"),
        Window("x-ratelimit-{part}", "s", reset="x-ratelimit-reset-after"),
        Window("x-ratelimit-{part}"),
        Window("x-rate-limit-{part}"),
        Window("ratelimit-{part}"),
    ),
)
"""Counts for every answer, after what is known of its provider."""
