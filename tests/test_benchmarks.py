"""The benchmarks run to their end. What they measure is no business of a test: it depends on the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.harness import Options
from benchmarks.herd.plan import QUICK, Plan
from benchmarks.herd.runs import measure
from benchmarks.herd.tables import table
from tests.servers import running
from tests.topologies import within

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ["reads", "notices", "reports", "waiters", "listeners", "imports"]


def start(*arguments: str, module: str = "benchmarks") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
    with running(start(*arguments, module=module)) as process:
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


def test_in_a_quick_run_of_the_herd_every_call_is_made_and_every_request_is_accounted_for(tmp_path: Path) -> None:
    strategies = ["retry-after", "released-at-once", "paced", "oracle"]
    options = ["--quick", "--markdown", "--svg", str(tmp_path), "--upstream", "burst-50", "--strategy", *strategies]
    said = run(*options, module="benchmarks.herd")
    assert (said.returncode, said.stderr) == (0, ""), said
    lines = [line.strip("| ").split(" | ") for line in said.stdout.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines[2:]] == strategies
    for _, made, requests, first_wave, late, *_ in lines[2:]:
        assert made == "120 of 120"
        assert int(requests) == 120 + int(first_wave) + int(late), said.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"herd-released-at-once.svg", "herd-paced.svg"}


@pytest.mark.parametrize(
    ("bound", "plan"),
    [("requests", replace(QUICK, most_requests=80)), ("time", replace(QUICK, most_ideals=0, spare_seconds=1))],
)
def test_a_run_of_the_herd_that_hits_a_bound_ends_there_and_says_so(bound: str, plan: Plan) -> None:
    # None of these needs a Redis.
    stopped = measure(Options(url=""), plan, "burst-5", "retry-after")
    assert stopped.stopped_by == bound
    assert stopped.made < plan.calls
    assert len(stopped.requests) <= plan.most_requests
    assert stopped.wall_seconds < 2
    assert f"stopped at 1 s ({bound})" in table([stopped], markdown=False)


def test_an_interrupt_leaves_no_server_behind_not_even_one_that_stands_still() -> None:
    with running(start("outages", "--quick")) as process:
        measuring = psutil.Process(process.pid)
        within(lambda: any(one.status() == psutil.STATUS_STOPPED for one in measuring.children()))
        servers = measuring.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
        assert "KeyboardInterrupt" in process.communicate()[1]
        assert not [server for server in servers if server.is_running()]
