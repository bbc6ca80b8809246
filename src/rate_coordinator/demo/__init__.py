"""``rate-coordinator demo``: four processes share an upstream's limit, first without coordination and then with it.

To read it as an example, begin with ``worker.py``: that is what a daemon does with the library. ``upstream.py`` is the
server that limits it, ``redis_keeper.py`` runs Redis for as long as the demo lasts, ``run.py`` brings them together.
"""

from __future__ import annotations

from rate_coordinator.demo.run import run_demo

__all__ = ["run_demo"]
