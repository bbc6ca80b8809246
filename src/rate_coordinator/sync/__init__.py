"""The coordinator for code that does not await: the same names, in any number of threads, over one async engine."""

from rate_coordinator.sync.admission import Admission
from rate_coordinator.sync.coordinator import RateLimitCoordinator
from rate_coordinator.sync.notices import NoticeHandle, NoticeStream

__all__ = ["Admission", "NoticeHandle", "NoticeStream", "RateLimitCoordinator"]
