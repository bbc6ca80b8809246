"""What every command takes: where Redis is, the namespace, and how to print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

ENV_URL = "RATE_COORDINATOR_URL"
ENV_NAMESPACE = "RATE_COORDINATOR_NAMESPACE"
DEFAULT_URL = "redis://localhost:6379"
DEFAULT_NAMESPACE = "rate_coordinator"

_URL_HELP = "Where Redis is."
_NAMESPACE_HELP = "Limits are shared within it."
_JSON_HELP = "Print JSON."

# The environment counts only here, before the command: there it would beat what was typed before the command.
GlobalUrl = Annotated[
    str | None,
    typer.Option("--url", envvar=ENV_URL, metavar="URL", help=f"{_URL_HELP} Without it: {DEFAULT_URL}."),
]
GlobalNamespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", envvar=ENV_NAMESPACE, metavar="NAME", help=f"{_NAMESPACE_HELP} Without it: {DEFAULT_NAMESPACE}."
    ),
]
GlobalJson = Annotated[bool, typer.Option("--json", help=_JSON_HELP)]

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help=_URL_HELP)]
Namespace = Annotated[str | None, typer.Option("--namespace", metavar="NAME", help=_NAMESPACE_HELP)]
Json = Annotated[bool, typer.Option("--json", help=_JSON_HELP)]
Backend = Annotated[str, typer.Argument(metavar="BACKEND", help="The upstream that limits us.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only this model of it.")]


@dataclass(frozen=True)
class Chosen:
    """What the user chose, before or after the command, or by the environment."""

    url: str
    namespace: str
    as_json: bool


def choose(
    before: Chosen | None, url: str | None = None, namespace: str | None = None, as_json: bool = False
) -> Chosen:
    """Join what stands after the command with what stood before it; the former wins."""
    return Chosen(
        url=url or (before.url if before else DEFAULT_URL),
        namespace=namespace if namespace is not None else (before.namespace if before else DEFAULT_NAMESPACE),
        as_json=as_json or (before.as_json if before else False),
    )


def chosen(context: typer.Context, url: str | None, namespace: str | None, as_json: bool) -> Chosen:
    """Return what counts for a command."""
    return choose(context.obj, url, namespace, as_json)
