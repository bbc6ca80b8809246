"""Listen to notices with plain redis-py, as a program in any language can with its own client.

    python examples/notice_listener.py --url redis://localhost:6379 [--count 3]

Notices are JSON on a channel. A listener like this hears only what is said while it is connected: whoever has to know
*all* limits at all times reads the mirror of a ``RateLimitCoordinator``, which heals every gap by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any
from urllib.parse import quote

import redis


def describe(notice: dict[str, Any]) -> str | None:
    """Return one line for a notice; None for a kind that we do not know, which listeners ignore."""
    if notice["kind"] not in {"limit", "clear"}:
        return None
    target = notice["backend"] if notice["model"] is None else f"{notice['backend']}/{notice['model']}"
    if notice["kind"] == "limit":
        # Both times are of the server's clock: their difference is right even if this machine's clock is not.
        seconds = (notice["resume_at_ms"] - notice["now_ms"]) / 1000
        return f"{target}: limited for {seconds:.3f} s, says {notice['reporter']} (job {notice['job_id']})"
    return f"{target}: cleared, says {notice['reporter']}"


def listen(url: str, namespace: str, count: int | None) -> None:
    """Print each notice of a namespace as a line, until there were ``count`` of them."""
    client = redis.Redis.from_url(url, decode_responses=True, health_check_interval=10)
    with client, client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(f"{{{quote(namespace, safe='')}}}:notices")
        for message in pubsub.listen():
            if message["type"] == "subscribe":
                print(f"listening to {message['channel']}", flush=True)
                continue
            line = describe(json.loads(message["data"]))
            if line is None:
                continue
            print(line, flush=True)
            if count is not None:
                count -= 1
                if count <= 0:
                    return


def main() -> int:
    """Listen until enough was heard or Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(description="Print notices as they come, with plain redis-py.")
    parser.add_argument("--url", default=os.environ.get("RATE_COORDINATOR_URL", "redis://localhost:6379"))
    parser.add_argument("--namespace", default=os.environ.get("RATE_COORDINATOR_NAMESPACE", "rate_coordinator"))
    parser.add_argument("--count", type=int, help="end after so many notices")
    arguments = parser.parse_args()
    try:
        listen(arguments.url, arguments.namespace, arguments.count)
    except redis.RedisError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
