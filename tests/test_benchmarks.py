"""The benchmarks run to their end. What they measure is no business of a test: it depends on the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ["reads", "notices", "reports", "waiters", "listeners"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_a_quick_run_of_all_figures_comes_to_its_end() -> None:
    said = run("--quick")
    assert (said.returncode, said.stderr) == (0, ""), said
    for figure in FIGURES:
        assert f"\n{figure}: " in said.stdout


@pytest.mark.parametrize("option", ["--uvloop", "--no-hiredis", "--markdown"])
def test_one_figure_can_be_measured_in_another_way(option: str) -> None:
    said = run("notices", "--quick", option)
    assert (said.returncode, said.stderr) == (0, ""), said
    assert "\nnotices: " in said.stdout
    assert "\nreads: " not in said.stdout
    expected = {"--uvloop": "uvloop", "--no-hiredis": "without hiredis", "--markdown": "| figure | ours |"}[option]
    assert expected in said.stdout


def test_an_unknown_figure_is_refused_with_the_names_of_all() -> None:
    said = run("nonsense")
    assert said.returncode == 2
    assert "no figure is called nonsense" in said.stderr
    assert all(figure in said.stderr for figure in FIGURES)
