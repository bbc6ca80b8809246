"""How long a report asks to wait, and how much of it counts."""

from __future__ import annotations

import logging
import math
import sys
from typing import Literal, NamedTuple, SupportsFloat, TypeGuard

logger = logging.getLogger(__name__)

MAX_WAIT_SECONDS: float = 3600.0
"""The default cap on how long one report can limit a target, in seconds."""

LONGEST_CAP_SECONDS: float = 366 * 24 * 3600.0
"""The highest cap that may be configured, in seconds; also the most that is believed of a foreign notice."""

Clamp = Literal["above_cap", "negative", "not_finite", "cleared"]
"""Why less (or more) than the asked wait was stored; ``"cleared"``: a clear was made before the report arrived."""


class Wait(NamedTuple):
    """A wait as it was asked for, and as it counts."""

    asked_seconds: float
    wait_ms: int
    clamped: Clamp | str | None


def read_wait(wait_seconds: object, cap_seconds: float) -> Wait:
    """Turn what a worker says into a wait that counts.

    NaN and infinities count as 0 and are logged as a warning, negative waits count as 0, waits above the
    cap count as the cap. What was asked is kept beside it. Fractions of a millisecond are rounded up, because the
    told time is a floor.

    Args:
        wait_seconds: A number of seconds. Anything that ``float()`` takes, except strings and booleans.
        cap_seconds: The longest wait that counts, in seconds.

    Raises:
        ValueError: ``wait_seconds`` is not a number.
    """
    asked = _as_float(wait_seconds)
    if not math.isfinite(asked):
        logger.warning("a wait that is not finite counts as 0", extra={"wait_seconds": str(asked)})
        return Wait(asked, 0, "not_finite")
    if asked < 0:
        return Wait(asked, 0, "negative")
    if asked > cap_seconds:
        return Wait(asked, to_ms(cap_seconds), "above_cap")
    return Wait(asked, to_ms(asked), None)


def is_finite(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number; a boolean is none, nor is an integer that no float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def to_ms(seconds: float) -> int:
    """Return finite seconds as whole milliseconds, rounded up."""
    # 2.007 * 1000 is 2007.0000000000002: the representation's error must not cost a whole millisecond.
    ms = seconds * 1000
    nearest = round(ms)
    return nearest if math.isclose(ms, nearest, rel_tol=4 * sys.float_info.epsilon) else math.ceil(ms)


def _as_float(value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes, bytearray)) or not isinstance(value, SupportsFloat):
        raise ValueError(f"wait_seconds must be a number of seconds, not {type(value).__name__} {value!r:.80}")
    try:
        return float(value)
    except OverflowError:
        # A finite number too large for a float is a very long wait, not an infinite one.
        huge = sys.float_info.max
        return -huge if isinstance(value, int) and value < 0 else huge
    except (TypeError, ValueError) as error:
        raise ValueError(f"wait_seconds must be a number of seconds, not {value!r:.80}") from error
