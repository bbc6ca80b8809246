"""Share what many processes learn about upstream rate limits, through Redis."""

from rate_coordinator.coordinator import RateLimitChecker, RateLimitCoordinator
from rate_coordinator.diagnosis import Diagnosis, diagnose
from rate_coordinator.errors import (
    CoordinatorClosed,
    CoordinatorError,
    CoordinatorMisuse,
    CoordinatorUnavailable,
    ForkedCoordinator,
    LimitWaitTimeout,
    ServerUnsuitable,
    WrongEventLoop,
)
from rate_coordinator.findings import Finding
from rate_coordinator.models import (
    ActiveLimit,
    Explanation,
    Health,
    Notice,
    RateLimitEvent,
    Reason,
    ReportResult,
)
from rate_coordinator.notices import NoticeHandle, NoticeStream
from rate_coordinator.waits import MAX_WAIT_SECONDS

__all__ = [
    "MAX_WAIT_SECONDS",
    "ActiveLimit",
    "CoordinatorClosed",
    "CoordinatorError",
    "CoordinatorMisuse",
    "CoordinatorUnavailable",
    "Diagnosis",
    "Explanation",
    "Finding",
    "ForkedCoordinator",
    "Health",
    "LimitWaitTimeout",
    "Notice",
    "NoticeHandle",
    "NoticeStream",
    "RateLimitChecker",
    "RateLimitCoordinator",
    "RateLimitEvent",
    "Reason",
    "ReportResult",
    "ServerUnsuitable",
    "WrongEventLoop",
    "diagnose",
]
