"""What is built and installed: the scripts ship inside the wheel, and are live in an editable install.

Everything is built from a copy, without a network; the repository is only read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rate_coordinator.scripts import read_script

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.stem: read_script(path.stem) for path in (ROOT / "lua").glob("*.lua")}
MARK = "\n-- changed by a test\n"
TELL = """
import asyncio, json
from rate_coordinator import RateLimitCoordinator, scripts

async def main():
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        result = await coordinator.report_rate_limit("openai", 30.0)
        limited, _ = await coordinator.is_rate_limited("openai")
    used = scripts.script("report").text
    print(json.dumps({"package": scripts.__file__, "script": used, "works": result.delivered and limited}))

asyncio.run(main())
"""


def copy_of_the_tree(to: Path) -> Path:
    """Copy what a fresh clone has: no environment, no caches, nothing that was built."""

    def is_made_here(_: str, names: list[str]) -> set[str]:
        hidden = {name for name in names if name.startswith(".") and name != ".gitignore"}
        return hidden | ({"__pycache__", "dist", "build"} & set(names))

    return shutil.copytree(ROOT, to, ignore=is_made_here)


def run(*arguments: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(tree: Path, target: str, to: Path) -> Path:
    run("-m", "hatchling", "build", "-t", target, "-d", str(to), cwd=tree)
    (built,) = to.iterdir()
    return built


def install(wheel: Path, to: Path) -> Path:
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(to), str(wheel), cwd=to.parent)
    return to


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_tree(tmp_path_factory.mktemp("packaging") / "tree")


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build(tree, "wheel", tree.parent / "wheel")


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    return build(tree, "sdist", tree.parent / "sdist")


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    return install(wheel, tmp_path / "installed")


@pytest.fixture
def distribution(installed: Path) -> Distribution:
    (information,) = installed.glob("*.dist-info")
    return Distribution.at(information)


def test_the_wheel_holds_every_script_as_it_lies_in_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        prefix = "rate_coordinator/lua/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        shipped = {name: archive.read(name) for name in names}

    assert SCRIPTS
    assert shipped == {
        f"{prefix}{path.relative_to(ROOT / 'lua').as_posix()}": path.read_bytes()
        for path in (ROOT / "lua").rglob("*.lua")
    }


def test_the_wheel_holds_the_page_as_it_lies_in_the_repository(wheel: Path) -> None:
    page = {path.name: path.read_bytes() for path in (ROOT / "src" / "rate_coordinator" / "web" / "page").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        prefix = "rate_coordinator/web/page/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        shipped = {name.removeprefix(prefix): archive.read(name) for name in names}

    assert {"index.html", "page.css", "page.js", "acts.js", "icon.svg"} == page.keys()
    assert shipped == page


def test_the_wheel_holds_the_package_its_types_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert "rate_coordinator/py.typed" in names
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {"rate_coordinator"}
    others = [name for name in names if not name.startswith("rate_coordinator/testing/")]
    assert not [name for name in others if "test" in name or name.endswith(".pyc")]


def test_the_licence_is_mit_and_comes_with_the_wheel(distribution: Distribution) -> None:
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.metadata["License-File"] == "LICENSE"
    assert distribution.read_text("licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_the_command_is_the_packages_command_line(distribution: Distribution) -> None:
    (command,) = distribution.entry_points

    assert (command.group, command.name, command.value) == (
        "console_scripts",
        "rate-coordinator",
        "rate_coordinator.cli:main",
    )


def test_the_core_needs_redis_and_pydantic_and_all_else_is_an_extra(distribution: Distribution) -> None:
    requirements = [Requirement(text) for text in distribution.requires or []]
    core = {requirement.name for requirement in requirements if requirement.marker is None}

    def of_extra(extra: str) -> set[str]:
        marked = [requirement for requirement in requirements if requirement.marker]
        return {
            requirement.name
            for requirement in marked
            if requirement.marker and requirement.marker.evaluate({"extra": extra, "sys_platform": "linux"})
        }

    assert core == {"redis", "pydantic"}
    assert of_extra("embedded") == {"fakeredis"}
    assert of_extra("cli") == {"rich", "typer"}
    assert of_extra("speed") == {"hiredis", "uvloop"}
    assert distribution.metadata["Requires-Python"] == ">=3.11"


def test_an_installed_wheel_runs_the_scripts_that_it_carries(installed: Path, tmp_path: Path) -> None:
    script = installed / "rate_coordinator" / "lua" / "report.lua"
    script.write_text(script.read_text() + MARK)
    (tmp_path / "elsewhere").mkdir()

    told = json.loads(run("-P", "-c", TELL, cwd=tmp_path / "elsewhere", PYTHONPATH=str(installed)))

    assert told["package"] == str(installed / "rate_coordinator" / "scripts.py")
    assert told["script"] == SCRIPTS["report"] + MARK
    assert told["works"]


def test_in_an_editable_install_a_changed_script_is_used_at_once(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    (tmp_path / "out").mkdir()
    run("-c", f"from hatchling.build import build_editable as build; build({str(tmp_path / 'out')!r})", cwd=tree)
    (wheel,) = (tmp_path / "out").iterdir()
    site = install(wheel, tmp_path / "site")
    # Without this environment's own site directory, whose editable install would come first.
    others = sysconfig.get_path("purelib")
    ready = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.append({others!r})\n"

    def tell() -> dict[str, object]:
        told: dict[str, object] = json.loads(run("-S", "-P", "-c", ready + TELL, cwd=tmp_path, PYTHONPATH=""))
        return told

    assert tell() == {
        "package": str(tree / "src" / "rate_coordinator" / "scripts.py"),
        "script": SCRIPTS["report"],
        "works": True,
    }
    script = tree / "lua" / "report.lua"
    script.write_text(script.read_text() + MARK)
    assert tell()["script"] == SCRIPTS["report"] + MARK
    assert not list(site.rglob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_this_environment_runs_the_scripts_of_the_repository(name: str) -> None:
    assert not (ROOT / "src" / "rate_coordinator" / "lua").exists(), "a copy would hide the scripts of the repository"
    source = (ROOT / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    assert read_script(name).startswith(source.partition("-- part:")[0])


def test_a_script_that_is_missing_says_where_it_was_looked_for() -> None:
    with pytest.raises(FileNotFoundError, match=r"nonsense\.lua in .*lua or .*lua"):
        read_script("nonsense")


def test_the_source_distribution_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()

    rebuilt = build(tree, "wheel", tmp_path / "out")

    assert rebuilt.name == wheel.name
    assert hashlib.sha256(rebuilt.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_source_distribution_carries_what_its_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}

    needed = ["pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "README.md", "docker-compose.yml"]
    needed += [
        str(path.relative_to(ROOT)) for folder in ("lua", "deploy", "tools") for path in (ROOT / folder).glob("*.*")
    ]
    needed += [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")]
    assert set(needed) <= inside
