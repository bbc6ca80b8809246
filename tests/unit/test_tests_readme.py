"""The table of pitfalls in tests/README.md says what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = {
    int(row): [
        (path, f"test_{name}")
        for path, names in re.findall(r"`([\w/]+\.py)`: ([^|<]+)", cell)
        for name in re.findall(r"`(\w+)`", names)
    ]
    for row, cell in re.findall(r"^\| (\d+) \| [^|]+ \| (.*) \|$", (TESTS / "README.md").read_text(), re.MULTILINE)
}
PROMISED = [*range(1, 27), 28, *range(30, 39), *range(40, 44), *range(45, 58)]


def docstrings(path: str) -> dict[str, str]:
    nodes = ast.walk(ast.parse((TESTS / path).read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name: ast.get_docstring(function) or "" for function in functions}


@pytest.mark.parametrize("row", PROMISED)
def test_every_promised_row_has_a_test(row: int) -> None:
    assert ROWS[row]


@pytest.mark.parametrize("row", sorted(ROWS))
def test_every_test_that_a_row_names_is_there_and_carries_its_number(row: int) -> None:
    for path, name in ROWS[row]:
        assert f"P{row:02}" in docstrings(path)[name], f"{path}::{name}"
