"""What goes wrong is told in one line, with an exit code, without a traceback and without a password."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rate_coordinator.cli.failures import without_secrets
from tests.cli.programs import Cli, Outcome, environment
from tests.servers import RedisServer, free_port

SECRET = "s3cr3t"


def check_is_one_line_without_secrets(outcome: Outcome, code: int) -> None:
    assert outcome.code == code
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("rate-coordinator: ")
    assert SECRET not in line


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost:6379/x",
        f"http://user:{SECRET}@localhost",
        f"redis://user:{SECRET}@ss@localhost:99999",
        f"redis://localhost?password={SECRET}&nonsense=1",
        "localhost",
        "unix://",
    ],
)
def test_a_url_that_cannot_be_used_is_wrong_usage(cli: Cli, url: str) -> None:
    check_is_one_line_without_secrets(cli.bare("--url", url, "status"), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        [f"redis://user:{SECRET}@localhost", "status"],
        ["status", f"redis://user:{SECRET}@localhost"],
        ["check", f"redis://user:{SECRET}@localhost\n"],
        ["report", "openai", f"redis://user:{SECRET}@localhost"],
        [f"--url=redis://user:{SECRET}@localhost", "report", "openai", "nan"],
        [f"--uri=redis://user:{SECRET}@localhost", "status"],
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(cli: Cli, arguments: list[str]) -> None:
    check_is_one_line_without_secrets(cli.bare(*arguments), 2)


def test_a_password_with_odd_characters_is_not_repeated() -> None:
    url = "redis://us'er:p@ss'\\wörd@host"
    for text in (f"No such command {url!r}", f"Got {url}"):
        assert "wörd" not in without_secrets(text, [url])
        assert "***@host" in without_secrets(text, [url])


def test_help_does_not_show_the_environments_password(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_COORDINATOR_URL", f"redis://user:{SECRET}@localhost")
    for arguments in (["--help"], ["status", "--help"], []):
        outcome = cli.bare(*arguments)
        assert "--url" in outcome.out
        assert SECRET not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["report", "openai"],
        ["nonsense"],
        ["check", "openai", "--nonsense"],
        ["check", ""],
        ["check", "a\nb"],
        ["check", "x" * 257],
        ["check", "openai", "--model", ""],
        ["--namespace", "", "status"],
        ["report", "openai", "1", "--reason", "none"],
        ["report", "openai", "1", "--job-id", "x" * 1025],
        ["clear", "--model", "gpt"],
        ["clear", "a", "b"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("unicode_escape").decode(),
)
def test_wrong_usage_is_told_in_one_line(cli: Cli, arguments: list[str]) -> None:
    check_is_one_line_without_secrets(cli(*arguments), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["check", "openai"],
        ["wait", "openai"],
        ["report", "openai", "1"],
        ["clear", "openai"],
        ["explain", "openai"],
        ["events", "--follow"],
        ["watch"],
        ["notices"],
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_server_that_is_away_is_told_in_one_line_with_its_address(cli: Cli, arguments: list[str]) -> None:
    port = free_port()
    outcome = cli.bare("--url", f"redis://user:{SECRET}@localhost:{port}", *arguments)
    check_is_one_line_without_secrets(outcome, 1)
    assert f"redis://***@localhost:{port}" in outcome.err


def test_a_refused_password_is_told_without_showing_it(cli: Cli) -> None:
    url = cli.place.url.replace("redis://", f"redis://user:{SECRET}@")
    check_is_one_line_without_secrets(cli.bare("--url", url, "status"), 1)


def test_a_server_without_the_rights_is_told_in_one_line(cli: Cli, own_server: RedisServer) -> None:
    own_server.admin.acl_setuser(
        "limited", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all"], reset_channels=True
    )
    url = own_server.url.replace("redis://", f"redis://limited:{SECRET}@")
    check_is_one_line_without_secrets(cli.bare("--url", url, "status"), 1)


def test_the_embedded_server_warns_that_it_shares_nothing(cli: Cli) -> None:
    outcome = cli.bare("--url", "memory://", "report", "openai", "30")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("rate-coordinator: limits are kept in this process and shared with no other")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_extra_is_named(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from rate_coordinator.cli import main\n"
        "sys.exit(main(['--url', 'memory://', 'watch']))"
    )
    if missing == "rich":
        program = program.replace("from rate", "sys.stdout.isatty = lambda: True\nfrom rate", 1)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        f"rate-coordinator: the command line needs {missing}: pip install 'rate-coordinator[cli]'"
    )
    assert "Traceback" not in done.stderr
