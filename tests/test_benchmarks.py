"""The benchmarks run to their end. What they measure is no business of a test: it depends on the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.servers import running
from tests.topologies import within

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ["reads", "notices", "reports", "waiters", "listeners"]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    with running(start(*arguments)) as process:
        try:
            stdout, stderr = process.communicate(timeout=50)
        except subprocess.TimeoutExpired:
            # Killed at once, it would leave its servers behind.
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=5)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def test_a_quick_run_of_all_figures_comes_to_its_end() -> None:
    said = run("--quick")
    assert (said.returncode, said.stderr) == (0, ""), said
    for figure in FIGURES:
        assert f"\n{figure}: " in said.stdout
    assert "\noutages: " not in said.stdout


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
    assert all(figure in said.stderr for figure in [*FIGURES, "outages"])


def our_cells(tables: str) -> dict[str, str]:
    """Return our cell of each line of Markdown tables, by the line's name."""
    lines = [line.strip("| ").split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    return {line[0]: line[-1] for line in lines}


def test_in_a_quick_run_of_all_outages_nothing_of_ours_is_lost_in_the_end() -> None:
    said = run("outages", "--quick", "--markdown")
    assert (said.returncode, said.stderr) == (0, ""), said
    ours = our_cells(said.stdout)
    assert int(ours["of them while no replica was told"]) > 0, "the outage was none"
    for figure in (
        "limits that it lacked in the end",
        "limits that another process did not know of in the end",
        "limits that the listener did not know of in the end",
        "limits that one did not know of in the end",
    ):
        assert ours[figure] == "0", said.stdout


def test_an_interrupt_leaves_no_server_behind_not_even_one_that_stands_still() -> None:
    with running(start("outages", "--quick")) as process:
        measuring = psutil.Process(process.pid)
        within(lambda: any(one.status() == psutil.STATUS_STOPPED for one in measuring.children()))
        servers = measuring.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
        assert "KeyboardInterrupt" in process.communicate()[1]
        assert not [server for server in servers if server.is_running()]
