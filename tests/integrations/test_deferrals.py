"""When a task of a queue comes back, and what all the queues' modules have in common."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.integrations import arq, celery, dramatiq, taskiq
from rate_coordinator.integrations.deferrals import (
    JITTER_SECONDS,
    LONGEST_MISS_SECONDS,
    LONGEST_SECONDS,
    Deferral,
    names_of_call,
)
from rate_coordinator.sync import RateLimitCoordinator as SyncCoordinator

NOWHERE: Any = None
LIBRARIES = ["arq", "celery", "dramatiq", "taskiq"]
IMPORT_ALL = """
import sys
for library in sys.argv[1:]:
    sys.modules[library] = None
    try:
        __import__(f"rate_coordinator.integrations.{library}")
    except ModuleNotFoundError as error:
        print(error)
"""
DEFERRALS = st.builds(Deferral, st.floats(0, 1e7).map(lambda seconds: round(seconds, 3)), st.integers(0, 10**9))


@given(DEFERRALS, st.floats(0.001, 400_000))
def test_a_task_comes_back_soon_after_the_resume_time_and_never_before(deferral: Deferral, remaining: float) -> None:
    delay, after = deferral.next(remaining)

    assert min(remaining, LONGEST_SECONDS) <= delay <= min(remaining + JITTER_SECONDS, LONGEST_SECONDS)
    assert after == Deferral(deferral.seconds + delay, 0)


@given(DEFERRALS, st.floats(1, 900))
def test_a_task_that_waits_for_its_turn_comes_back_at_growing_intervals(deferral: Deferral, longest: float) -> None:
    delay, after = deferral.next(0.0, longest)

    most = min(2.0 ** min(deferral.missed, 20), LONGEST_MISS_SECONDS)
    assert min(most / 2, longest) <= delay <= min(most, longest)
    assert after == Deferral(deferral.seconds + delay, deferral.missed + 1)


@given(DEFERRALS)
def test_what_travels_with_a_task_is_read_as_it_was(deferral: Deferral) -> None:
    assert Deferral.read(str(deferral)) == deferral


@pytest.mark.parametrize("text", [None, "", "1", "1 2 3", "x 1", "1 x", "nan 1", "inf 1", "-1 1", "1 -1", b"1 1", {}])
def test_garbage_is_a_task_that_was_never_put_off(text: object) -> None:
    assert Deferral.read(text) == Deferral()


def test_a_function_names_the_backend_of_a_call_or_the_backend_and_the_model() -> None:
    assert names_of_call("openai", "large", 1, key=2) == ("openai", "large")
    assert names_of_call(lambda one, *, key: f"{one} {key}", "large", 1, key=2) == ("1 2", None)
    assert names_of_call(lambda *_: ("openai", "small"), "large") == ("openai", "small")
    with pytest.raises(ValueError, match="must have a name"):
        names_of_call(lambda *_: "", None)


def test_a_missing_package_is_told_with_the_extra_that_has_it() -> None:
    command = [sys.executable, "-c", IMPORT_ALL, *LIBRARIES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    said = done.stdout.splitlines()
    assert len(said) == len(LIBRARIES), done.stderr
    for library, line in zip(LIBRARIES, said, strict=True):
        assert f"needs the extra '{library}': pip install 'rate-coordinator[{library}]'" in line


@pytest.mark.parametrize(
    ("plug_in", "other", "wanted"),
    [
        (partial(arq.coordinated, backend="openai"), SyncCoordinator, "rate_coordinator.RateLimitCoordinator"),
        (partial(taskiq.CoordinatedMiddleware, schedule_source=NOWHERE), SyncCoordinator, "rate_coordinator.RateLimit"),
        (partial(celery.coordinated, backend="openai"), RateLimitCoordinator, "rate_coordinator.sync.RateLimit"),
        (dramatiq.CoordinatedMiddleware, RateLimitCoordinator, "rate_coordinator.sync.RateLimitCoordinator"),
    ],
)
def test_the_coordinator_of_the_other_kind_is_refused_at_once(
    plug_in: Callable[..., Any], other: type[Any], wanted: str
) -> None:
    with pytest.raises(ValueError, match=f"coordinator must be a {re.escape(wanted)}.*, not <.*memory://"):
        plug_in(other.from_url("memory://"))
