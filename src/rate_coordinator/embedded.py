"""``memory://``: the embedded default for one process, fakeredis running the very same Lua (extra ``embedded``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from redis.asyncio.connection import AbstractConnection

_named_servers: WeakValueDictionary[str, Any] = WeakValueDictionary()
# A forked child is another process; and a thread that it does not have may hold a server's lock.
os.register_at_fork(after_in_child=_named_servers.clear)


def connect(name: str) -> Callable[[], AbstractConnection]:
    """Return a factory of connections to an embedded server.

    Args:
        name: Coordinators of one process that use the same name share a server for as long as one of them exists;
            the empty name is a server of its own each time.

    Raises:
        ModuleNotFoundError: The extra ``embedded`` is not installed.
    """
    try:
        import lupa  # noqa: F401
        from fakeredis import FakeAsyncRedis, FakeServer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "memory:// needs the extra 'embedded': pip install 'rate-coordinator[embedded]'", name=error.name
        ) from error
    server = _named_servers.get(name) if name else None
    if server is None:
        server = FakeServer(version=(7,))
        if name:
            _named_servers[name] = server
    pool = FakeAsyncRedis(server=server, protocol=2).connection_pool
    return lambda: pool.make_connection()  # type: ignore[no-untyped-call]
