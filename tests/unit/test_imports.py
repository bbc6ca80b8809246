"""What an import loads, and what it says when an extra is missing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import rate_coordinator

PACKAGE = Path(rate_coordinator.__file__).parent
FOLDERS = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
INTEGRATIONS = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in (PACKAGE / "integrations").rglob("*.py")
    if path.name != "__init__.py"
)
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DEPENDENCIES = "import redis.asyncio, redis.asyncio.sentinel; from pydantic import BaseModel, ConfigDict, Field"
"""What the core depends on. redis-py itself loads some of what it finds, such as hiredis and OpenTelemetry's API."""

TELL_MODULES = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"

IMPORT_EACH = """
import importlib, json, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in away:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

away, modules = json.loads(sys.argv[1])
sys.meta_path.insert(0, Nothing())
told = {}
for module in modules:
    try:
        importlib.import_module(module)
        told[module] = None
    except ModuleNotFoundError as error:
        told[module] = [error.name, str(error), error.__cause__ is not None]
print(json.dumps(told))
"""
"""A machine on which only the core was installed."""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def loaded_by(code: str) -> frozenset[str]:
    """Return what is there after an import in a fresh process, beside the standard library."""
    modules = {name.partition(".")[0] for name in json.loads(run(code + TELL_MODULES))}
    return frozenset(modules - sys.stdlib_module_names)


@cache
def core_install() -> frozenset[str]:
    """Return the names that can be imported where only the core was installed."""
    installed = {module: {*map(name_of, of)} for module, of in packages_distributions().items()}
    needed: set[str] = set()
    left = [name_of(requirement) for requirement in PROJECT["dependencies"]]
    while left:
        name = left.pop()
        # What is required of another version of Python is not there.
        if name not in needed and any(name in of for of in installed.values()):
            needed.add(name)
            left += [name_of(requirement) for requirement in requires(name) or () if "extra ==" not in requirement]
    modules = {module for module, of in installed.items() if of & needed}
    return frozenset(modules | sys.stdlib_module_names | {"rate_coordinator"})


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0].lower().replace("_", "-")


@cache
def on_a_core_install() -> dict[str, tuple[str | None, str, bool] | None]:
    """Return for each integration what its import raises: the missing module, the text, whether it has a cause."""
    told = json.loads(
        run(IMPORT_EACH, json.dumps([sorted(packages_distributions().keys() - core_install()), INTEGRATIONS]))
    )
    return {module: tuple(error) if error else None for module, error in told.items()}


def imported_at_once(body: list[ast.stmt]) -> set[str]:
    """Return the top names of what statements import when they are run, those inside functions left out."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Try):
            found |= imported_at_once(node.body)
    return found


def test_the_core_depends_on_two_packages() -> None:
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} == {"pydantic", "redis"}


def test_the_import_loads_nothing_of_others_but_these_two_and_what_they_bring() -> None:
    assert loaded_by("import rate_coordinator") - loaded_by(DEPENDENCIES) == {"rate_coordinator"}


def test_the_import_loads_no_folder_of_the_package() -> None:
    modules = json.loads(run("import rate_coordinator" + TELL_MODULES))
    own = {name.split(".")[1] for name in modules if name.startswith("rate_coordinator.")}
    assert {"coordinator", "mirror"} <= own
    assert {"answers", "cli", "integrations"} <= FOLDERS
    assert not own & FOLDERS


@pytest.mark.parametrize("module", INTEGRATIONS)
def test_an_integration_without_its_library_names_the_extra_to_install(module: str) -> None:
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    libraries = imported_at_once(ast.parse(path.read_text()).body) - core_install()
    error = on_a_core_install()[module]

    if error is None:
        assert not libraries
        return
    missing, text, chained = error
    named = re.search(r"pip install 'rate-coordinator\[([\w-]+)\]'", text)
    assert named, text
    assert named[1] in PROJECT["optional-dependencies"]
    assert missing
    assert chained
    # One that only stands on another one tells of the other's.
    assert not libraries or missing.partition(".")[0] in libraries


def test_there_are_integrations_that_need_a_library() -> None:
    assert {"rate_coordinator.integrations.prometheus", "rate_coordinator.integrations.opentelemetry"} <= {
        module for module, error in on_a_core_install().items() if error
    }
