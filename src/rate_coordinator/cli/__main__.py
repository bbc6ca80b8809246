"""``python -m rate_coordinator.cli``."""

from __future__ import annotations

import sys

from rate_coordinator.cli import main

sys.exit(main())
