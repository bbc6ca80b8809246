"""What can be configured, and within which bounds."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass, field

from rate_coordinator.keys import DEFAULT_NAMESPACE
from rate_coordinator.targets import check_name
from rate_coordinator.waits import LONGEST_CAP_SECONDS, MAX_WAIT_SECONDS, is_finite


def default_reporter() -> str:
    """Return ``<host>:<process ID>``, the name under which a coordinator reports unless told otherwise."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured about one coordinator; durations are in seconds."""

    namespace: str = DEFAULT_NAMESPACE
    """Coordinators share limits with those of the same namespace on the same Redis."""
    max_wait_seconds: float = MAX_WAIT_SECONDS
    """The cap: longer waits count as this. Above 0, at most 366 days."""
    connect_timeout: float = 5.0
    """Longest time that ``start()`` takes."""
    command_timeout: float = 5.0
    """Longest time that any other call takes that talks to Redis."""
    ping_interval: float = 2.0
    """How often the subscription asks whether its connection is alive."""
    ping_timeout: float = 5.0
    """How long silence may last after a ping before the connection counts as dead."""
    resync_interval: float = 10.0
    """How often the mirror is compared with a snapshot, whatever was heard."""
    wake_margin_seconds: float = 0.0
    """Added to every waking, 0 or more: waiters are released so much after the resume time."""
    wake_jitter_seconds: float = 0.0
    """A random time of up to this is added to every waking, the same for all waiters of one target in a process."""
    max_events: int = 10_000
    """Approximate length of the stream of events, and most events that ``recent_events`` holds."""
    notice_buffer: int = 1024
    """Notices that are kept for each slow consumer before the oldest are dropped."""
    max_buffered_reports: int = 10_000
    """Reports that are kept while Redis is away."""
    forget_after: float = 900.0
    """After so long without a refusal the pace of a target is forgotten."""
    verify_every: float = 900.0
    """A limit that lasts longer, or that was cut to the cap, is tried by one real call so often; 0 tries none."""
    reporter: str = field(default_factory=default_reporter)
    """The name under which this coordinator appears in events and notices."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: A setting is out of its bounds.
        """
        check_name("namespace", self.namespace)
        check_name("reporter", self.reporter)
        _check_seconds("max_wait_seconds", self.max_wait_seconds, above=0.0, most=LONGEST_CAP_SECONDS)
        durations = ("connect_timeout", "command_timeout", "ping_interval", "ping_timeout", "resync_interval")
        for name in (*durations, "forget_after"):
            _check_seconds(name, getattr(self, name), above=0.0)
        for name in ("wake_margin_seconds", "wake_jitter_seconds", "verify_every"):
            _check_seconds(name, getattr(self, name), least=0.0)
        for name in ("max_events", "notice_buffer", "max_buffered_reports"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_timeout(timeout: object) -> float | None:
    """Return a timeout in seconds, or None for no timeout.

    Raises:
        ValueError: ``timeout`` is neither None nor a finite number of at least 0.
    """
    if timeout is None or timeout == math.inf:
        return None
    return _check_seconds("timeout", timeout, least=0.0)


def _check_seconds(
    name: str, value: object, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> float:
    bounds = "above 0" if above is not None else f"of at least {least:g}"
    if most is not None:
        bounds += f" and at most {most:g}"
    if (
        not is_finite(value)
        or (above is not None and value <= above)
        or (least is not None and value < least)
        or (most is not None and value > most)
    ):
        raise ValueError(f"{name} must be a number of seconds {bounds}, not {value!r:.80}")
    return float(value)
