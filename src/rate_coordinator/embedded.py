"""``memory://``: the embedded default for one process, fakeredis running the very same Lua (extra ``embedded``)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
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
    fakeredis = _fakeredis()
    server = _named_servers.get(name) if name else None
    if server is None:
        server = fakeredis.FakeServer(version=(7,))
        if name:
            _named_servers[name] = server
    pool = fakeredis.FakeAsyncRedis(server=server, protocol=2).connection_pool
    return lambda: pool.make_connection()


@contextmanager
def clocked_by(now: Callable[[], float]) -> Iterator[None]:
    """Let all embedded servers of this process take the time from elsewhere, while the context lasts.

    Args:
        now: Returns the seconds since 1970.

    Raises:
        ModuleNotFoundError: The extra ``embedded`` is not installed.
    """
    _fakeredis()
    # fakeredis reads the wall clock itself, in several of its modules; nobody else's is changed.
    ours = SimpleNamespace(**{**vars(time), "time": now})
    theirs = [module for name, module in sys.modules.items() if name.partition(".")[0] == "fakeredis"]
    patched = [module for module in theirs if vars(module).get("time") is time]
    for module in patched:
        vars(module)["time"] = ours
    try:
        yield
    finally:
        for module in patched:
            vars(module)["time"] = time


def _fakeredis() -> Any:
    try:
        import fakeredis
        import lupa  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "memory:// needs the extra 'embedded': pip install 'rate-coordinator[embedded]'", name=error.name
        ) from error
    return fakeredis
