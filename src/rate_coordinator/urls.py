"""How the URL of a Redis is read, and how it may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from rate_coordinator.nodes import Dial, Node

SINGLE = ("redis", "rediss", "unix")
SENTINEL = ("redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")
EMBEDDED = "memory"
SCHEMES = (*SINGLE, *SENTINEL, *CLUSTER, EMBEDDED)

SENTINEL_PORT = 26379
REDIS_PORT = 6379

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Options that name a file. Of one that cannot be read, OpenSSL says only that there is no such file, not which."""

_HOST = r"(?:\[[0-9A-Za-z:.%]+\]|[\w.-]+)"
_LISTED = re.compile(rf"({_HOST})(?::(\d{{1,5}}))?", re.ASCII)


class _Refused(ValueError):
    """Why a URL cannot be used, in words that show nothing of it."""


@dataclass(frozen=True)
class Members:
    """What the URL of several servers says.

    Attributes:
        nodes: Those that are named, at least one.
        dial: How to connect to a server that holds data.
        dial_guide: How to connect to one of ``nodes``.
        service: Name under which Sentinels know the master; empty for a cluster.
    """

    nodes: tuple[Node, ...]
    dial: Dial
    dial_guide: Dial
    service: str = ""


def describe(url: str) -> str:
    """Return a URL as it may be shown: without user, password and options.

    A URL that was not written as it should be is shown only as far as no part of it can be a password: one that was
    not percent-encoded may hold any character, and the host may have been forgotten.
    """
    scheme = match[0] if (match := re.match(r"[^:/@]*://", url)) else ""
    credentials, at, place = url.removeprefix(scheme).rpartition("@")
    place = place.partition("?")[0]
    host = re.split(r"[/#]", place, maxsplit=1)[0]
    if scheme.removesuffix("://") in (*SENTINEL, *CLUSTER):
        is_place = all(_LISTED.fullmatch(one) for one in host.split(","))
    else:
        is_place = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", host) is not None
    if "?" in credentials or not is_place:
        return f"{scheme}***"
    return f"{scheme}***@{place}" if at else f"{scheme}{place}"


def scheme_of(url: object) -> str:
    """Return a URL's scheme.

    Raises:
        ValueError: It is none that is known.
    """
    if not isinstance(url, str):
        raise ValueError(f"the URL must be a string, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"the URL must start with one of {known}, but it is {describe(url)!r}")
    return scheme


def read_single(url: str, connect_timeout: float) -> Callable[[], AbstractConnection]:
    """Read the URL of one server; return what makes connections to it.

    Raises:
        ValueError: The URL cannot be used.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
            raise _Refused("the path must be a database number")
        if parts.scheme == "unix" and not parts.path:
            raise _Refused("the path of the socket is missing")
        return _connections(url, connect_timeout)
    except (TypeError, ValueError) as error:
        raise _unusable(url, error) from None


def read_members(url: str, connect_timeout: float) -> Members:
    """Read the URL of several servers: Sentinels, or nodes of a cluster.

    Raises:
        ValueError: The URL cannot be used.
    """
    try:
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        credentials, at, place = rest.rpartition("@")
        hosts, _, path = place.partition("/")
        options = dict(parse_qsl(query))
        guide = {name: options.pop(f"sentinel_{name}", "") for name in ("username", "password")}
        tls = "rediss" if scheme.startswith("rediss") else "redis"
        service, database = "", ""
        if scheme in SENTINEL:
            if not (match := re.fullmatch(r"([^/#]+)(?:/(\d*))?", path)):
                raise _Refused("the path must be the name of the service, and may be followed by a database number")
            service, database = unquote(match[1]), match[2] or ""
        elif path not in ("", "0") or options.get("db", "0") != "0" or any(guide.values()):
            raise _Refused("a cluster has one database, and no Sentinels")
        nodes = _nodes(hosts, SENTINEL_PORT if scheme in SENTINEL else REDIS_PORT)
        dial = _dial(f"{tls}://{credentials}{at}", f"/{database}", options, connect_timeout)
        if scheme in CLUSTER:
            return Members(nodes, dial, dial)
        # Who may read the data need not be known to the Sentinels, nor the other way round.
        options = {name: value for name, value in options.items() if name not in ("username", "password", "db")}
        options |= {name: value for name, value in guide.items() if value}
        return Members(nodes, dial, _dial(f"{tls}://", "", options, connect_timeout), service)
    except (TypeError, ValueError) as error:
        raise _unusable(url, error) from None


def _nodes(hosts: str, default_port: int) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for one in hosts.split(","):
        match = _LISTED.fullmatch(one)
        if match is None or not 0 < int(match[2] or default_port) < 65536:
            raise _Refused("the hosts must be given as host:port,host:port")
        nodes.append(Node(match[1].strip("[]"), int(match[2] or default_port)))
    return tuple(dict.fromkeys(nodes))


def _dial(before: str, after: str, options: dict[str, str], connect_timeout: float) -> Dial:
    """Return what makes connections to any node, all with the same options."""
    url = f"{before}host{after}?{urlencode(options)}"
    _connections(url, connect_timeout)

    def dial(node: Node) -> AbstractConnection:
        return _connections(url, connect_timeout, host=node.host, port=node.port)()

    return dial


def _connections(url: str, connect_timeout: float, **more: Any) -> Callable[[], AbstractConnection]:
    options: dict[str, Any] = dict(parse_url(url))
    options.update(
        more,
        # RESP2 is what every supported server speaks without a HELLO, which an ACL may refuse.
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        driver_info=None,
    )
    for name in TLS_FILES:
        if name in options and not os.access(path := options[name], os.R_OK):
            raise _Refused(f"{name} is {path!r}, which is no file that can be read")
    pool = ConnectionPool(**options)
    # Options that the connection does not know show only when one is made.
    pool.make_connection()  # type: ignore[no-untyped-call]
    return pool.make_connection


def _unusable(url: str, error: Exception) -> ValueError:
    # The cause is left out: its message could show a part of the password.
    hint = f": {error}" if isinstance(error, _Refused) else " (port, database or options)"
    return ValueError(f"the Redis URL {describe(url)!r} cannot be used{hint}")
