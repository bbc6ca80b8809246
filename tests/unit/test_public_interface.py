"""What users hold on to: names, arguments, results, errors; and which room may look into which."""

from __future__ import annotations

import ast
import inspect
from datetime import datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel, ValidationError

import rate_coordinator
from rate_coordinator import (
    ActiveLimit,
    CoordinatorClosed,
    CoordinatorError,
    CoordinatorMisuse,
    CoordinatorUnavailable,
    ForkedCoordinator,
    Health,
    LimitWaitTimeout,
    Notice,
    RateLimitChecker,
    RateLimitCoordinator,
    RateLimitEvent,
    ReportResult,
    ServerUnsuitable,
    WrongEventLoop,
)

PACKAGE = Path(rate_coordinator.__file__).parent
PROMISED = {
    "MAX_WAIT_SECONDS",
    "CoordinatorError",
    "CoordinatorUnavailable",
    "LimitWaitTimeout",
    "Notice",
    "RateLimitChecker",
    "RateLimitCoordinator",
    "RateLimitEvent",
}
COMPATIBLE = {
    "report_rate_limit": ["backend_type", "wait_seconds", "job_id", "sheet_num"],
    "is_rate_limited": ["backend_type", "model"],
    "clear_limits": ["instrument"],
    "prune_stale": [],
}
"""Methods that the first users call: their arguments, in order."""
BESIDE = {
    "wait_until_clear": ["backend", "model", "timeout"],
    "wait_until_any_clear": ["backends", "timeout"],
    "events": ["since", "count"],
    "explain": ["backend", "model"],
    "refresh": [],
    "aclose": [],
    "start": [],
}


# Names.


def test_all_that_is_promised_is_exported_and_all_that_is_exported_is_there() -> None:
    assert set(rate_coordinator.__all__) >= PROMISED
    assert len(set(rate_coordinator.__all__)) == len(rate_coordinator.__all__)
    for name in rate_coordinator.__all__:
        assert hasattr(rate_coordinator, name)
        assert not name.startswith("_")


def test_everything_that_is_exported_says_what_it_is() -> None:
    for name in rate_coordinator.__all__:
        exported = getattr(rate_coordinator, name)
        if inspect.isclass(exported) or inspect.isfunction(exported):
            assert exported.__doc__
            assert not exported.__doc__.startswith(f"{name}(")


def test_every_public_method_of_the_coordinator_is_documented() -> None:
    for name, member in inspect.getmembers(RateLimitCoordinator):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name


@pytest.mark.parametrize(("name", "arguments"), [*COMPATIBLE.items(), *BESIDE.items()])
def test_methods_take_their_arguments_by_these_names_in_this_order(name: str, arguments: list[str]) -> None:
    method = getattr(RateLimitCoordinator, name)
    _, *parameters = inspect.signature(method).parameters.values()
    positional = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    assert inspect.iscoroutinefunction(method)
    assert [parameter.name for parameter in positional] == arguments
    assert all(parameter.default is not parameter.empty for parameter in set(parameters) - set(positional))


def test_only_the_backend_and_the_wait_of_a_report_have_to_be_told() -> None:
    parameters = inspect.signature(RateLimitCoordinator.report_rate_limit).parameters
    further = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}

    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert needed == ["self", "backend_type", "wait_seconds"]
    assert further == {"model", "reason", "sent_at"}


@pytest.mark.parametrize("name", ["active_limits", "recent_events", "health"])
def test_what_is_read_from_memory_is_a_property_and_not_awaited(name: str) -> None:
    assert isinstance(inspect.getattr_static(RateLimitCoordinator, name), property)


def test_results_are_of_the_promised_types() -> None:
    def result(name: str) -> Any:
        member = inspect.getattr_static(RateLimitCoordinator, name)
        return get_type_hints(member.fget if isinstance(member, property) else member)["return"]

    assert result("is_rate_limited") == tuple[bool, float]
    assert result("active_limits") == dict[str, float]
    assert result("recent_events") == list[RateLimitEvent]
    assert result("clear_limits") is int
    assert result("prune_stale") is int
    assert result("report_rate_limit") is ReportResult
    assert result("wait_until_clear") is float


async def test_nothing_known_reads_as_clear_in_the_promised_form() -> None:
    async with RateLimitCoordinator.from_url("memory://") as coordinator:
        assert await coordinator.is_rate_limited("openai", model=None) == (False, 0.0)
        assert coordinator.active_limits == {}
        assert coordinator.recent_events == []
        assert await coordinator.clear_limits() == 0
        assert await coordinator.prune_stale() == 0


def test_the_default_cap_is_an_hour() -> None:
    assert rate_coordinator.MAX_WAIT_SECONDS == 3600.0


def test_from_url_takes_the_url_and_the_namespace() -> None:
    first, second, *others = inspect.signature(RateLimitCoordinator.from_url).parameters.values()

    assert (first.name, second.name) == ("url", "namespace")
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)


def test_the_coordinator_is_a_checker_and_so_is_anyone_with_that_method() -> None:
    class Mine:
        async def is_rate_limited(self, backend_type: str, model: str | None = None) -> tuple[bool, float]:
            return (False, 0.0)

    mine: RateLimitChecker = Mine()
    assert isinstance(mine, RateLimitChecker)
    assert isinstance(RateLimitCoordinator.from_url("memory://"), RateLimitChecker)
    assert not isinstance(object(), RateLimitChecker)
    members = {name for name in vars(RateLimitChecker) if not name.startswith("_")}
    assert members == {"is_rate_limited"}


# Errors.


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (CoordinatorUnavailable, ConnectionError),
        (CoordinatorUnavailable, OSError),
        (LimitWaitTimeout, TimeoutError),
        (CoordinatorMisuse, RuntimeError),
        (CoordinatorClosed, CoordinatorMisuse),
        (WrongEventLoop, CoordinatorMisuse),
        (ForkedCoordinator, CoordinatorMisuse),
        (ServerUnsuitable, CoordinatorError),
    ],
)
def test_an_error_is_ours_and_what_callers_already_catch(error: type[Exception], also: type[Exception]) -> None:
    assert issubclass(error, CoordinatorError)
    assert issubclass(error, also)


def test_a_wait_that_timed_out_is_not_taken_for_a_lost_connection() -> None:
    assert not issubclass(LimitWaitTimeout, ConnectionError)
    assert not issubclass(CoordinatorUnavailable, TimeoutError)


def test_every_error_that_is_exported_descends_from_one_root() -> None:
    exported = [getattr(rate_coordinator, name) for name in rate_coordinator.__all__]
    errors = [error for error in exported if inspect.isclass(error) and issubclass(error, Exception)]

    assert len(errors) >= 8
    assert all(issubclass(error, CoordinatorError) for error in errors)


# Models.


MODELS = [
    model
    for model in (getattr(rate_coordinator, name) for name in rate_coordinator.__all__)
    if inspect.isclass(model) and issubclass(model, BaseModel)
]


def test_what_is_handed_out_are_models() -> None:
    assert {ActiveLimit, Health, Notice, RateLimitEvent, ReportResult} <= set(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_do_not_change(model: type[BaseModel]) -> None:
    field = next(iter(model.model_fields))
    made = model.model_construct()

    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, field, None)


def test_an_event_has_the_promised_fields_and_knows_its_time_zone() -> None:
    first = ["backend_type", "detected_at", "suggested_wait_seconds", "job_id", "sheet_num"]
    assert list(RateLimitEvent.model_fields)[:5] == first
    event = RateLimitEvent.model_validate_json(
        '{"backend_type": "openai", "detected_at": "2024-01-01T00:00:00Z", "suggested_wait_seconds": 5}'
    )
    assert isinstance(event.detected_at, datetime)
    assert event.detected_at.utcoffset() is not None
    assert (event.job_id, event.sheet_num) == (None, None)


# Which room may look into which.


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it; from a package, the name that is taken as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where they lead"
            found.add(str(node.module))
            if node.module == "rate_coordinator":
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


CORE = {path.stem: imports(path) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
FOLDERS = {folder.name: folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}


def own(imported: set[str]) -> set[str]:
    return {name.removeprefix("rate_coordinator.") for name in imported if name.startswith("rate_coordinator.")}


def reach(module: str) -> set[str]:
    """Return all core modules that one imports, directly or through others."""
    found: set[str] = set()
    left = [module]
    while left:
        new = (own(CORE[left.pop()]) & CORE.keys()) - found
        found |= new
        left += new
    return found


def test_the_rooms_of_the_core_form_no_circle() -> None:
    order = list(
        TopologicalSorter({name: own(imported) & CORE.keys() for name, imported in CORE.items()}).static_order()
    )
    assert set(order) == CORE.keys()


def test_dependencies_point_one_way() -> None:
    floors = ["models", "mirror", "coordinator"]
    for number, below in enumerate(floors):
        for above in floors[number + 1 :]:
            assert below in reach(above)
            assert above not in reach(below)
    assert "mirror" in reach("waiters")
    assert {"models", "keys"} <= reach("store")
    assert {"models", "connection"} <= reach("subscription")
    assert "coordinator" not in reach("engine")


def test_the_models_and_the_names_of_keys_need_nothing_that_talks() -> None:
    pure = {
        "models",
        "keys",
        "mirror",
        "snapshots",
        "targets",
        "waits",
        "clock",
        "eventlog",
        "wire",
        "explain",
        "backoff",
        "errors",
    }
    for name in pure:
        assert reach(name) <= pure, name
        outside = {imported.partition(".")[0] for imported in CORE[name]}
        assert not outside & {"redis", "asyncio", "socket", "threading", "subprocess"}, name


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_knows_no_command_line_and_no_integration(name: str) -> None:
    assert not {imported.partition(".")[0] for imported in own(CORE[name])} & FOLDERS.keys()
    assert not {imported.partition(".")[0] for imported in CORE[name]} & {"typer", "click", "rich"}


def test_only_one_module_knows_the_embedded_server() -> None:
    files = list(PACKAGE.rglob("*.py"))
    those = {path.name for path in files if {name.partition(".")[0] for name in imports(path)} & {"fakeredis", "lupa"}}

    assert len(files) > 20
    assert those == {"embedded.py"}


def test_the_embedded_server_is_imported_only_when_it_is_wanted() -> None:
    """A core install has no fakeredis."""
    tree = ast.parse((PACKAGE / "embedded.py").read_text())
    at_the_top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    at_the_top |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}

    assert not [name for name in at_the_top if name.startswith(("fakeredis", "lupa"))]


SETS_THE_TIME = {"testing": {"clock", "embedded", "timers"}}


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_what_stands_on_the_core_uses_its_public_interface_only(folder: str) -> None:
    public = set(rate_coordinator.__all__) | FOLDERS.keys() | SETS_THE_TIME.get(folder, set())
    for path in FOLDERS[folder].rglob("*.py"):
        for name in own(imports(path)):
            assert name.partition(".")[0] in public, f"{path.relative_to(PACKAGE)} imports rate_coordinator.{name}"
