"""Finds out whether a Redis is fit for coordinating, by using it as a coordinator would."""

from __future__ import annotations

import secrets
import statistics
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import BaseModel, ConfigDict
from redis.exceptions import AuthenticationError, ResponseError

from rate_coordinator import clock, findings
from rate_coordinator.connection import Endpoint, Link, answered_within
from rate_coordinator.errors import CoordinatorUnavailable, ServerUnsuitable
from rate_coordinator.findings import Finding
from rate_coordinator.keys import DEFAULT_NAMESPACE, Keys
from rate_coordinator.settings import Settings
from rate_coordinator.store import Store

SAMPLES = 10
"""How often each delay is measured; the median counts."""


class Diagnosis(BaseModel):
    """What ``diagnose`` found out."""

    model_config = ConfigDict(frozen=True)

    address: str
    """Where Redis is, without user and password."""
    namespace: str
    product: str | None = None
    """``"redis"`` or ``"valkey"``; None where the server did not tell."""
    version: str | None = None
    round_trip_seconds: float | None = None
    """Median round trip of a script call; None where it could not be measured, as below."""
    notice_delay_seconds: float | None = None
    """Median time from publishing to hearing, both on this host."""
    clock_difference_seconds: float | None = None
    """How far the server's wall clock is ahead of this host's, to within half a round trip."""
    findings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong. What could not be found out does not count."""
        return all(finding.status != "wrong" for finding in self.findings)


async def diagnose(
    url: str, namespace: str = DEFAULT_NAMESPACE, *, connect_timeout: float = 5.0, command_timeout: float = 5.0
) -> Diagnosis:
    """Look at a Redis as a coordinator would use it. One that cannot be reached is a finding, not an error.

    Changes no limit and no event; publishes messages of a kind that coordinators ignore.

    Args:
        url: See ``RateLimitCoordinator.from_url``.
        namespace: The rights are tried on its keys and its channel.
        connect_timeout: Longest time that a connection may take, in seconds.
        command_timeout: Longest time that an answer may take, in seconds.

    Raises:
        ValueError: An argument cannot be used.
        ModuleNotFoundError: ``memory://`` without the extra ``embedded``.
    """
    settings = Settings(namespace=namespace, connect_timeout=connect_timeout, command_timeout=command_timeout)
    keys = Keys(settings.namespace)
    endpoint = Endpoint.from_url(url, keys, connect_timeout=connect_timeout, command_timeout=command_timeout)
    return await _Examination(endpoint, keys).run()


class _Examination:
    """One pass over everything there is to look at; each step adds its findings."""

    def __init__(self, endpoint: Endpoint, keys: Keys) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._store = Store(endpoint, keys, max_events=1)
        self._links: list[Link] = []
        self._findings: list[Finding] = []
        self._told: dict[str, Any] = {}

    async def run(self) -> Diagnosis:
        try:
            await self._examine()
        except CoordinatorUnavailable as error:
            if isinstance(error.__cause__, AuthenticationError):
                advice = "Check the user and the password in the URL."
            else:
                advice = "Check that a server runs at that address and that this host may connect to it."
            self._findings = [finding for finding in self._findings if finding.name != "reachable"]
            self._findings.insert(0, findings.wrong("reachable", str(error), advice))
        finally:
            for link in self._links:
                await link.aclose()
            await self._store.aclose()
            await self._endpoint.aclose()
        return Diagnosis(
            address=self._endpoint.address,
            namespace=self._keys.namespace,
            findings=tuple(self._findings),
            **self._told,
        )

    async def _examine(self) -> None:
        add = self._findings.append
        started = clock.now()
        link = await self._open()
        async with self._bounded():
            await link.greet()
        info = link.info
        add(findings.judge_delay("reachable", "connected in", clock.now() - started))
        if not self._endpoint.shared:
            add(
                findings.wrong("shared", "memory:// is shared with no other process", "Give the URL of a Redis server.")
            )
        self._told["product"], self._told["version"] = findings.product_and_version(info)
        add(findings.judge_version(info))
        add(findings.judge_role(info))
        listener = await self._open()
        refused = {**await self._refused_scripts(), **await self._refused_listening(listener)}
        add(findings.judge_rights(info, refused, self._keys))
        add(findings.judge_eviction(info))
        add(findings.judge_persistence(info, await self._snapshots(link)))
        if refused:
            add(findings.unknown("delays", "not measured, because something that is needed is refused"))
        else:
            await self._measure_round_trips()
            await self._measure_notices(link, listener)

    async def _refused_scripts(self) -> dict[str, str]:
        refused: dict[str, str] = {}
        try:
            refused.update(await self._store.check())
        except ServerUnsuitable as error:
            refused["EVALSHA"] = str(error)
        except CoordinatorUnavailable as error:
            refused["EVALSHA"] = _words_of_server(error)
        try:
            await self._store.events("+", "-", 1)
        except CoordinatorUnavailable as error:
            refused["XREVRANGE"] = _words_of_server(error)
        return refused

    async def _refused_listening(self, listener: Link) -> dict[str, str]:
        try:
            async with self._bounded():
                await listener.subscribe(self._keys.notices)
                await listener.send("PING")
                await listener.read()
        except ResponseError as error:
            return {"SSUBSCRIBE" if listener.sharded else "SUBSCRIBE": str(error)}
        return {}

    async def _measure_round_trips(self) -> None:
        samples: list[tuple[float, float]] = []
        for _ in range(SAMPLES):
            ours_minus_monotonic = time.time() - clock.now()
            snapshot, sent_at, received_at = await self._store.snapshot()
            # The server tells whole milliseconds, cut off.
            server_seconds = (snapshot.now_ms + 0.5) / 1000
            ahead = server_seconds - ours_minus_monotonic - (sent_at + received_at) / 2
            samples.append((received_at - sent_at, ahead))
        round_trip = statistics.median(seconds for seconds, _ in samples)
        # The shortest round trip bounds the difference best.
        _, ahead = min(samples)
        self._told.update(round_trip_seconds=round_trip, clock_difference_seconds=ahead)
        self._findings.append(findings.judge_delay("round_trip", "a script call takes", round_trip))
        self._findings.append(findings.judge_clock(ahead))

    async def _measure_notices(self, sender: Link, listener: Link) -> None:
        delays: list[float] = []
        for _ in range(SAMPLES):
            token = secrets.token_hex(8)
            async with self._bounded():
                sent_at = clock.now()
                greeting = f'{{"version":1,"kind":"ping","token":"{token}"}}'
                await sender.send(sender.publish_with, self._keys.notices, greeting)
                while token.encode() not in (await listener.read())[-1]:
                    pass
                delays.append(clock.now() - sent_at)
                await sender.read()
        delay = statistics.median(delays)
        self._told["notice_delay_seconds"] = delay
        self._findings.append(findings.judge_delay("notices", "from sending a notice to hearing it:", delay))

    async def _open(self) -> Link:
        link = await self._endpoint.open()
        self._links.append(link)
        return link

    async def _snapshots(self, link: Link) -> str | None:
        try:
            async with self._bounded():
                reply = await link.call("CONFIG", "GET", "save")
        except ResponseError:
            return None
        return bytes(reply[1]).decode() if len(reply) == 2 else None

    def _bounded(self) -> AbstractAsyncContextManager[None]:
        return answered_within(self._endpoint.command_timeout, self._endpoint.address)


def _words_of_server(error: CoordinatorUnavailable) -> str:
    """Return what the server answered; a server that did not answer is another matter and raised."""
    if isinstance(error.__cause__, ResponseError):
        return str(error.__cause__)
    raise error
