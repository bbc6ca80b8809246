"""Every code block of the README is run as it stands, but for the address of its Redis."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rate_coordinator import Notice, RateLimitCoordinator
from rate_coordinator.settings import Settings
from tests.servers import RedisServer, eventually

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
URL = "redis://localhost:6379"
LONGEST_SECONDS = 60


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}"


BLOCKS = [
    Block(match[1], match[2], README[: match.start()].count("\n") + 1)
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PROGRAMS = [block for block in PYTHON if "asyncio.run(" in block.code]
SHELL = [block for block in BLOCKS if block.language == "sh"]
SESSIONS = [block for block in SHELL if block.code.startswith("rate-coordinator ")]


def environment(server: RedisServer) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "RATE_COORDINATOR_URL": server.url, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {block.language for block in BLOCKS} == {"python", "sh", "text", "json"}
    run = {*PYTHON, *SESSIONS, *(block for block in SHELL if block.code.split()[0] in {"make", "pip", "redis-cli"})}
    assert [block for block in BLOCKS if block.language in {"python", "sh"} and block not in run] == []
    assert len(PROGRAMS) == 1
    assert len(SESSIONS) == 1


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_program_runs(block: Block, own_server: RedisServer) -> None:
    code = block.code.replace(URL, own_server.url)
    assert code != block.code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nobody calls it for 3.0 s\n(True, 2.9")


async def test_the_blocks_in_between_run_one_after_the_other(own_server: RedisServer) -> None:
    async with RateLimitCoordinator.from_url(own_server.url) as coordinator:
        names: dict[str, Any] = {"coordinator": coordinator, "__name__": __name__}
        for block in PYTHON:
            if block in PROGRAMS:
                continue
            code = compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            async with asyncio.timeout(LONGEST_SECONDS):
                outcome = eval(code, names)
                if inspect.isawaitable(outcome):
                    await outcome
        assert coordinator.health.callback_errors == 0


@pytest.mark.parametrize("block", SESSIONS, ids=str)
def test_each_command_of_a_session_runs(block: Block, own_server: RedisServer) -> None:
    done = subprocess.run(
        ["sh", "-e", "-c", block.code],
        env=environment(own_server),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for said in (
        "openai/gpt-4o is limited for 42",
        "go\n",
        "in turn\n",
        "job nightly, sheet 7",
        "cleared 1 limit",
        "round_trip",
    ):
        assert said in done.stdout


@pytest.mark.parametrize("block", [block for block in SHELL if block.code.startswith("make ")], ids=str)
def test_the_commands_for_make_are_there(block: Block) -> None:
    for line in block.code.splitlines():
        command = shlex.split(line, comments=True)
        done = subprocess.run(
            [*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("block", [block for block in SHELL if block.code.startswith("pip ")], ids=str)
def test_what_pip_is_told_to_install_can_be_installed(block: Block) -> None:
    (line,) = block.code.splitlines()
    offline = ["--dry-run", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    command = [sys.executable, "-m", *shlex.split(line, comments=True), *offline]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stdout + done.stderr


async def test_the_rights_that_are_listed_are_enough_and_none_is_too_many(own_server: RedisServer) -> None:
    (block,) = (block for block in SHELL if block.code.startswith("redis-cli ACL"))
    rules = shlex.split(block.code)[1:]
    own_server.admin.execute_command(*rules)  # type: ignore[no-untyped-call]
    url = f"redis://coordinator:password@127.0.0.1:{own_server.port}/0"
    async with RateLimitCoordinator.from_url(url) as one, RateLimitCoordinator.from_url(url) as two:
        for _ in range(2):
            assert (await one.report_rate_limit("openai", 60.0, "job", 1, model="m")).delivered
            await eventually(lambda: "openai/m" in two.active_limits)
            await two.refresh()
            assert (await two.explain("openai", "m")).cause
            assert await two.clear_limits() == 1
            await two.prune_stale()
            own_server.admin.script_flush()
        assert two.health.last_error is None
    log: Any = own_server.admin.acl_log()
    assert log == []
    used = {name.partition("_")[2] for name in own_server.admin.info("commandstats")}
    listed = {rule[1:] for rule in rules if rule.startswith("+")}
    assert listed <= used | {"select"}


def test_the_notice_that_is_shown_is_one() -> None:
    (block,) = (block for block in BLOCKS if block.language == "json")
    notice = Notice.model_validate_json(block.code)
    assert notice.wait_seconds == 42.0
    described = set(re.findall(r"`(\w+)`", README[README.index("| field | meaning |") :]))
    assert set(Notice.model_fields) - {"recovered"} <= described


def test_every_argument_is_in_the_table_with_its_default() -> None:
    signature = inspect.signature(RateLimitCoordinator.from_url)
    table = dict(
        re.findall(r"^\| `(\w+)` \| `?([^`|]*)`? \|", README[README.index("## Configuration") :], re.MULTILINE)
    )
    assert list(table) == list(signature.parameters)
    for name, parameter in signature.parameters.items():
        if name not in {"url", "reporter"}:
            assert ast.literal_eval(table[name]) == parameter.default == getattr(Settings(), name)


def test_what_is_plugged_in_is_told_in_at_most_ten_lines_each() -> None:
    plugging_in = README[README.index("## Plugging in") : README.index("## How it works")]
    sections = re.split(r"^(?=\*\*)", plugging_in, flags=re.MULTILINE)[1:]
    assert [section for section in sections if len(section.split("\n\n`import")[0].strip().splitlines()) > 10] == []


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_what_is_linked_is_there(link: str) -> None:
    assert (ROOT / link).exists()
