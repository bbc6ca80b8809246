"""``run``: a command that waits its turn, and whose end tells of a limit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.core import TyperCommand

from rate_coordinator import MAX_WAIT_SECONDS
from rate_coordinator.cli.options import Backend, Model, Namespace, Url, chosen
from rate_coordinator.cli.session import coordinator
from rate_coordinator.cli.values import read_seconds

LONGEST_ID = 1024


class BeforeDashes(TyperCommand):
    """A command line that ends at ``--``; what follows is somebody else's, and is left in the context's ``args``."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return what follows the command's name in its usage."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARGS]..."]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read what stands before the dashes.

        Raises:
            ValueError: There is nothing behind them, or they are missing.
        """
        dashes = args.index("--") if "--" in args else len(args)
        command = args[dashes + 1 :]
        super().parse_args(ctx, args[:dashes])
        if not command:
            raise ValueError("the command must stand behind --, as in: rate-coordinator run claude -- claude -p hello")
        ctx.args = command
        return command


def run(
    context: typer.Context,
    backend: Backend,
    model: Model = None,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, metavar="NUMBER", help="Run it again after a limit, so often in all.")
    ] = 1,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="SECONDS", help="Longest wait before each attempt: 30, 10m, 2h."),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", "--job", metavar="ID", help="Whose work it is, for reports.")
    ] = None,
    guess: Annotated[
        str | None,
        typer.Option("--guess-seconds", metavar="SECONDS", help="How long a limit lasts that does not say so."),
    ] = None,
    max_wait: Annotated[
        str, typer.Option("--max-wait", metavar="SECONDS", help="Longer waits count as this.")
    ] = f"{MAX_WAIT_SECONDS:g}",
    require_redis: Annotated[
        bool, typer.Option("--require-redis", help="Without Redis, fail instead of running it all the same.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing of limits and of Redis.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> int:
    """Run COMMAND when BACKEND may be called.

    Waits for the back-off and the turn, passes the streams through untouched, forwards signals, reports a limit that a
    failed run tells of at its end (claude, codex, gemini, curl, and what Python programs print last), and exits with
    the command's own code; with 75 when the wait before it outlasts the timeout.

    \b
    rate-coordinator run claude --attempts 5 -- claude -p "say hello" < /dev/null
    rate-coordinator run codex -- codex exec "fix the tests"
    rate-coordinator run gemini --model pro --timeout 2h -- gemini -m gemini-2.5-pro -p "say hello"
    rate-coordinator run github -- curl -sS -f -i https://api.github.com/rate_limit
    """  # noqa: D301
    choice = chosen(context, url, namespace, False)
    if choice.as_json:
        raise ValueError("run has no --json: standard output is the command's own")
    if sys.platform == "win32":
        raise ValueError("run needs a POSIX system")
    if job_id is not None:
        _check_id(job_id)
    # Only here: other commands start faster without what runs programs and reads their output.
    from rate_coordinator.cli.errand import Errand, carry_out

    errand = Errand(
        backend,
        model,
        tuple(context.args),
        attempts,
        timeout=None if timeout is None else read_seconds("--timeout", timeout),
        job_id=job_id,
        guess_seconds=None if guess is None else read_seconds("--guess-seconds", guess),
        require_redis=require_redis,
        quiet=quiet,
    )
    return carry_out(errand, coordinator(choice, max_wait_seconds=read_seconds("--max-wait", max_wait)))


def _check_id(job_id: str) -> None:
    """Refuse, before anything is run, what no report could carry."""
    try:
        job_id.encode()
    except UnicodeEncodeError:
        raise ValueError(f"--job-id must be Unicode, not {job_id!r:.80}") from None
    if len(job_id) > LONGEST_ID:
        raise ValueError(f"--job-id must have at most {LONGEST_ID} characters, not {len(job_id)}")
