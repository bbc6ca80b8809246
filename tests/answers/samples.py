"""What a sample is. Its data stands in ``vendors.py``, ``services.py`` and ``outputs.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rate_coordinator.answers import Answer, read_answer

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
"""What time it is in every sample that does not tell another."""
NOW_S = int(NOW.timestamp())


@dataclass(frozen=True)
class Sample:
    """An answer as its provider documents it, or as somebody met it."""

    name: str
    source: str
    status: int
    expected: tuple[Any, ...]
    """``limited``, ``reason``, ``wait_seconds`` and ``scope``."""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    provider: str | None = None

    def read(self) -> Answer:
        return read_answer(self.status, self.headers, self.body, provider=self.provider, now=NOW)


NOT_LIMITED = (False, None, None)
"""What is expected of an answer that is no refusal, whatever its scope."""
