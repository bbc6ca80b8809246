"""The command line, ``rate-coordinator`` (extra ``cli``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

FAILED = 1
INTERRUPTED = 130
BROKEN_PIPE = 141
_EXTRA = frozenset({"typer", "rich", "click"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; ``sys.argv`` if left out.

    Returns:
        The exit code: 0 when all is well, 1 for an error, 2 for wrong usage, 75 for a backend that is (still) limited,
        130 after Ctrl-C, 141 when nobody reads the output any more, 143 after SIGTERM; for ``run`` that of its command.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Only now: Ctrl-C while this is loaded must not show a traceback either.
        from rate_coordinator.cli.app import run
        from rate_coordinator.cli.failures import report_failure, silence_output

        try:
            code = run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            silence_output()
            return BROKEN_PIPE
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and _is_of_extra(error):
                raise
            return report_failure(error, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if not _is_of_extra(error):
            raise
        print(
            f"rate-coordinator: the command line needs {_package(error)}: pip install 'rate-coordinator[cli]'",
            file=sys.stderr,
        )
        return FAILED


def _is_of_extra(error: ModuleNotFoundError) -> bool:
    return _package(error) in _EXTRA


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
