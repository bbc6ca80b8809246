"""Share what many processes learn about upstream rate limits, through Redis."""

from rate_coordinator.admission import Admission
from rate_coordinator.coordinator import RateLimitChecker, RateLimitCoordinator
from rate_coordinator.diagnosis import Diagnosis, diagnose
from rate_coordinator.errors import (
    CoordinatorClosed,
    CoordinatorError,
    CoordinatorMisuse,
    CoordinatorUnavailable,
    ForkedCoordinator,
    LimitWaitTimeout,
    RateLimited,
    ServerUnsuitable,
    WrongEventLoop,
)
from rate_coordinator.findings import Finding
from rate_coordinator.metering import Meter
from rate_coordinator.models import (
    ActiveLimit,
    Explanation,
    Health,
    Hold,
    Notice,
    PaceStatus,
    RateLimitEvent,
    Reason,
    ReportResult,
)
from rate_coordinator.notices import NoticeHandle, NoticeStream
from rate_coordinator.observing import UpstreamAnswer
from rate_coordinator.waits import MAX_WAIT_SECONDS

__all__ = [
    "MAX_WAIT_SECONDS",
    "ActiveLimit",
    "Admission",
    "CoordinatorClosed",
    "CoordinatorError",
    "CoordinatorMisuse",
    "CoordinatorUnavailable",
    "Diagnosis",
    "Explanation",
    "Finding",
    "ForkedCoordinator",
    "Health",
    "Hold",
    "LimitWaitTimeout",
    "Meter",
    "Notice",
    "NoticeHandle",
    "NoticeStream",
    "PaceStatus",
    "RateLimitChecker",
    "RateLimitCoordinator",
    "RateLimitEvent",
    "RateLimited",
    "Reason",
    "ReportResult",
    "ServerUnsuitable",
    "UpstreamAnswer",
    "WrongEventLoop",
    "diagnose",
]
