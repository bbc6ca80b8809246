"""Find, or install, the Chromium that the tests of the web page run in.

It is taken from ``PATH``, else from Debian's packages when running as root.

    python -m tools.find_chromium

The path goes to stdout; what is being done goes to stderr.
"""

from __future__ import annotations

import shutil
import sys

from tools.find_redis import NotAvailable, apt_install, say

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def from_path() -> str | None:
    """Return the path of a browser that is there already; None when there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def provision() -> str:
    """Find or install a browser.

    Returns:
        Its path.

    Raises:
        NotAvailable: There is none, and it cannot be installed.
    """
    if (found := from_path()) is None:
        apt_install("chromium", "for the tests of the web page", "chromium")
        found = from_path()
    if found is None:
        raise NotAvailable("Debian's chromium holds no program of that name")
    return found


def main() -> int:
    """Run as a command."""
    try:
        print(provision())
    except NotAvailable as error:
        say(f"no Chromium: {error}. Install one, or run as root on Debian")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
