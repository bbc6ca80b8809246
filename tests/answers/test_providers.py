"""Providers are data, and users register theirs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from rate_coordinator.answers import (
    Answer,
    Clue,
    Level,
    Provider,
    Verdict,
    Wait,
    Window,
    providers,
    read_answer,
    register_provider,
    registry,
)
from tests.answers.samples import NOW

ACME = Provider(
    name="acme",
    source="https://acme.example/docs",
    signs=(Clue("x-acme-*"),),
    verdicts=(
        Verdict(None, (Clue("$.code", "^dry_run$"),)),
        Verdict("quota", (Clue("$.code", "^out_of_credit$"),), statuses=(402,), heed_waits=False),
        Verdict("rate_limit", (Clue("$.code", "^slow_down$"), Clue("$.retry", missing=True)), scope_from="$.limit"),
    ),
    waits=(Wait("$.retry_in_ms", "ms"), lambda look: (2.0, "x-acme-lane") if "x-acme-lane" in look.headers else None),
    windows=(
        Window("x-acme-{scope}-{part}", "ms"),
        lambda look: [Level("lanes", 1.0, None, None, "x-acme-lanes")] if "x-acme-lanes" in look.headers else [],
    ),
    aliases=("Acme Corp",),
)


@pytest.fixture(autouse=True)
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_providers", dict(registry._providers))
    register_provider(ACME)


def read(status: int, headers: dict[str, str], body: object = None, provider: str | None = None) -> Answer:
    return read_answer(status, headers, body, provider=provider, now=NOW)  # type: ignore[arg-type]


def test_a_registered_provider_is_recognised_by_its_signs() -> None:
    headers = {"x-acme-request": "1"}

    assert read(400, headers, {"code": "slow_down", "retry_in_ms": 1500, "limit": "writes"}) == Answer(
        True, 1.5, "rate_limit", "writes", source="$.retry_in_ms"
    )
    assert read(402, headers | {"retry-after": "5"}, {"code": "out_of_credit"}).wait_seconds is None
    assert read(429, headers, {"code": "dry_run"}).limited is False
    assert read(400, headers, {"code": "slow_down", "retry": "now"}).limited is False


def test_without_its_signs_it_has_to_be_named() -> None:
    body = {"code": "slow_down"}

    assert read(400, {}, body).limited is False
    assert read(400, {}, body, "acme").limited is True
    assert read(400, {}, body, "ACME corp").limited is True


def test_what_is_named_keeps_the_general_rules_and_no_other_providers() -> None:
    assert read(429, {"x-acme-request": "1", "retry-after": "5"}).wait_seconds == 5.0
    assert read(200, {}, {"ok": False, "error": "ratelimited"}, "acme").limited is False


def test_its_limits_and_its_arithmetic_count() -> None:
    headers = {"x-acme-writes-remaining": "0", "x-acme-writes-reset": "2500", "x-acme-lane": "1", "x-acme-lanes": "1"}

    assert read(429, headers) == Answer(True, 2.5, "rate_limit", "writes", 0.0, 2.5, "x-acme-writes-reset")
    assert read(429, {"x-acme-lane": "1"}) == Answer(True, 2.0, "rate_limit", source="x-acme-lane")
    assert read(200, {"x-acme-lanes": "1"}).scope == "lanes"


def test_one_that_is_registered_again_replaces_the_first() -> None:
    register_provider(Provider(name="acme"))

    assert read(400, {}, {"code": "slow_down"}, "acme").limited is False


def test_a_provider_needs_a_name() -> None:
    with pytest.raises(ValueError, match=r"^a provider needs a name$"):
        register_provider(Provider(name=""))


def test_a_pattern_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(re.error):
        Clue("$.code", "(")


def test_an_unknown_provider_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"^provider must be one of acme, .*, not 'akme'$"):
        read(200, {}, provider="akme")


@pytest.mark.parametrize(
    "name",
    [
        "openai",
        "azure",
        "anthropic",
        "google",
        "gemini",
        "vertex",
        "aws",
        "github",
        "gitlab",
        "slack",
        "discord",
        "telegram",
        "stripe",
        "shopify",
        "reddit",
        "twitter",
        "x",
        "notion",
        "cloudflare",
        "mistral",
        "cohere",
        "groq",
        "openrouter",
        "huggingface",
        "binance",
    ],
)
def test_a_provider_is_known_and_says_where_it_is_documented(name: str) -> None:
    assert name in providers()
    assert registry._providers[name].source.startswith("https://")


def test_the_core_does_not_load_it() -> None:
    code = "import sys, rate_coordinator; sys.exit(any('rate_coordinator.answers' in name for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
