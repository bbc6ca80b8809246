"""The providers that are known, by name."""

from __future__ import annotations

from rate_coordinator.answers.rules import Provider
from rate_coordinator.answers.services import SERVICES
from rate_coordinator.answers.vendors import VENDORS

_providers: dict[str, Provider] = {}


def register_provider(provider: Provider) -> None:
    """Make the answers of one more provider understood, in this process.

    One that is registered under the name of another replaces it. Its rules count before the general ones, and, where
    it has signs, for every answer that carries one of them.

    Example:
        >>> register_provider(
        ...     Provider(
        ...         name="acme",
        ...         signs=(Clue("x-acme-request"),),
        ...         verdicts=(Verdict("quota", (Clue("$.code", "^out_of_credit$"),), statuses=(402,)),),
        ...         waits=(Wait("$.retry_in_ms", "ms"),),
        ...     )
        ... )

    Raises:
        ValueError: It has no name.
    """
    if not provider.name:
        raise ValueError("a provider needs a name")
    for name in (provider.name, *provider.aliases):
        _providers[name.lower()] = provider


def providers() -> tuple[str, ...]:
    """Return every name that ``provider=`` takes, sorted."""
    return tuple(sorted(_providers))


def candidates(name: str | None) -> list[Provider]:
    """Return the provider of a name, or all of them for None, each once.

    Raises:
        ValueError: No provider has that name.
    """
    if name is None:
        return list({id(provider): provider for provider in _providers.values()}.values())
    try:
        return [_providers[name.lower()]]
    except (KeyError, AttributeError):
        raise ValueError(f"provider must be one of {', '.join(providers())}, not {name!r:.80}") from None


for _provider in (*VENDORS, *SERVICES):
    register_provider(_provider)
