"""The program: its global options and its commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from rate_coordinator.cli.commands import (
    check,
    clear,
    demo,
    doctor,
    events,
    explain,
    hold,
    notices,
    pace,
    report,
    serve,
    status,
    wait,
    watch,
)
from rate_coordinator.cli.commands import run as run_command
from rate_coordinator.cli.options import (
    DEFAULT_NAMESPACE,
    DEFAULT_URL,
    Chosen,
    GlobalJson,
    GlobalNamespace,
    GlobalUrl,
    choose,
)
from rate_coordinator.cli.output import say, tolerant_output

PROGRAM = "rate-coordinator"

_COMMANDS: tuple[Callable[..., int], ...] = (
    status.status,
    check.check,
    wait.wait,
    run_command.run,
    report.report,
    clear.clear,
    hold.hold,
    hold.release,
    explain.explain,
    pace.pace,
    events.events,
    watch.watch,
    notices.notices,
    serve.serve,
    doctor.doctor,
    demo.demo,
)
_CLASSES = {run_command.run: run_command.BeforeDashes}
"""Of commands whose lines are read in a way of their own."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code; what goes wrong is raised."""
    program = typer.main.get_command(_app())
    with tolerant_output():
        try:
            with program.make_context(PROGRAM, list(arguments)) as context:
                code = program.invoke(context)
        except typer.Exit as done:
            code = done.exit_code
    return int(code or 0)


def _app() -> typer.Typer:
    app = typer.Typer(
        add_completion=False,
        # Help is plain text: it starts faster, and errors are printed by us.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_program)
    for command in _COMMANDS:
        app.command(cls=_CLASSES.get(command))(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"{PROGRAM} {version('rate-coordinator')}")
        raise typer.Exit


def _program(
    context: typer.Context,
    url: GlobalUrl = None,
    namespace: GlobalNamespace = None,
    as_json: GlobalJson = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Share upstream rate limits between processes, through Redis.

    --url, --namespace and --json may stand before or after the command.
    """
    context.obj = choose(Chosen(DEFAULT_URL, DEFAULT_NAMESPACE, as_json=False), url, namespace, as_json)
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(2)
