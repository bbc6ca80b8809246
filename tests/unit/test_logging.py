"""How the package logs: constant messages that can be grouped, with what differs beside them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rate_coordinator

PACKAGE = Path(rate_coordinator.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGING = sorted(path for path in PACKAGE.rglob("*.py") if "getLogger" in path.read_text())
README = (Path(__file__).parents[2] / "README.md").read_text()


def log_calls(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS and "logg" in ast.unparse(call.func.value)
    ]


def fields_of(path: Path) -> set[str]:
    """Return the names of the fields that a file's log records carry."""
    given = [keyword.value for call in log_calls(path) for keyword in call.keywords if keyword.arg == "extra"]
    named = {value.id for value in given if isinstance(value, ast.Name)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and {ast.unparse(target) for target in node.targets} & named:
            given.append(node.value)
    return {str(ast.literal_eval(key)) for value in given if isinstance(value, ast.Dict) for key in value.keys if key}


@pytest.mark.parametrize("path", LOGGING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_are_constant_and_what_differs_is_in_fields(path: Path) -> None:
    for call in log_calls(path):
        assert isinstance(call.func, ast.Attribute)
        message, *arguments = call.args[call.func.attr == "log" :]
        assert isinstance(message, ast.Constant), ast.unparse(call)
        assert isinstance(message.value, str)
        assert "%" not in message.value
        assert not arguments
        assert {keyword.arg for keyword in call.keywords} <= {"extra", "exc_info"}


@pytest.mark.parametrize(
    "path", [path for path in LOGGING if log_calls(path)], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_each_module_has_a_logger_of_its_own(path: Path) -> None:
    assert "\nlogger = logging.getLogger(__name__)\n" in path.read_text()


def test_the_fields_of_the_core_are_in_the_readme() -> None:
    fields = set().union(*(fields_of(path) for path in PACKAGE.glob("*.py")))
    assert len(fields) >= 10
    (line,) = [paragraph for paragraph in README.split("\n\n") if paragraph.startswith("**Logs.**")]
    assert set(re.findall(r"`(\w+)`", line)) == fields
