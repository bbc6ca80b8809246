"""Those who count what a coordinator does, told of everything in the moment that it happens: nothing is dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from rate_coordinator.models import Notice, Reason
from rate_coordinator.targets import Target

logger = logging.getLogger(__name__)


class Meter(Protocol):
    """Counts what a coordinator does.

    Its methods are called in the coordinator's event loop, once for each thing that happens, and have to return at
    once. What they raise is logged and harms nobody.
    """

    def waited(self, backend: str, model: str | None, seconds: float, *, cleared: bool) -> None:
        """A call waited in ``admit``, ``wait_until_clear`` or ``wait_until_any_clear``.

        Args:
            backend: The upstream; of several, the one that became clear, or the first.
            model: The model of it that was waited for.
            seconds: For how long, 0.0 or next to it where nothing held it.
            cleared: Whether the call may go. False where the wait was cut short: by its timeout, by cancellation or by
                an error.
        """
        ...

    def reported(self, backend: str, model: str | None, asked_wait_seconds: float, reason: Reason | str) -> None:
        """This process reported a limit, whether or not Redis can be reached.

        Args:
            backend: The upstream.
            model: The model of it that is limited.
            asked_wait_seconds: The wait as it was asked for, before anything was clamped: it may be anything.
            reason: Why the upstream refused.
        """
        ...

    def changed(self, notice: Notice, delay_seconds: float | None) -> None:
        """This process learned of a change, made by itself or by another.

        Args:
            notice: What changed.
            delay_seconds: How long the notice was on its way, as far as the server's clock is known; None where that
                cannot be told, also because the change was learned from a snapshot.
        """
        ...


class Meters:
    """All meters of one coordinator. Where ``all`` is empty, the path of every call need not tell them anything."""

    def __init__(self) -> None:
        self.all: tuple[Meter, ...] = ()
        self._raised = False

    def add(self, meter: Meter) -> None:
        """Tell a meter of everything from now on; one that is there already is told once."""
        if meter not in self.all:
            self.all = (*self.all, meter)

    def remove(self, meter: Meter) -> None:
        """Tell a meter nothing more."""
        self.all = tuple(other for other in self.all if other is not meter)

    def waited(self, target: Target, seconds: float, *, cleared: bool) -> None:
        """See ``Meter.waited``."""
        self._tell(lambda meter: meter.waited(target.backend, target.model, seconds, cleared=cleared))

    def reported(self, target: Target, asked_wait_seconds: float, reason: Reason | str) -> None:
        """See ``Meter.reported``."""
        self._tell(lambda meter: meter.reported(target.backend, target.model, asked_wait_seconds, reason))

    def changed(self, notice: Notice, delay_seconds: float | None) -> None:
        """See ``Meter.changed``."""
        self._tell(lambda meter: meter.changed(notice, delay_seconds))

    def _tell(self, what: Callable[[Meter], None]) -> None:
        for meter in self.all:
            try:
                what(meter)
            except Exception as error:
                # Once is enough: it may be told thousands of things in a second.
                level = logging.DEBUG if self._raised else logging.ERROR
                self._raised = True
                logger.log(level, "a meter raised", extra={"meter": repr(meter)}, exc_info=error)
