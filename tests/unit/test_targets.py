"""Names of backends and models, and their form inside a key."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rate_coordinator.keys import Keys
from rate_coordinator.targets import MAX_NAME_LENGTH, Target, check_name

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=MAX_NAME_LENGTH)
targets = st.builds(Target, names, st.none() | names)
alike = st.text("a/%2F:{}*", min_size=1, max_size=4)


@given(targets)
@example(Target("🗝️/%2F{}: ", "\u2028"))
def test_a_target_comes_back_from_its_key_as_it_was(target: Target) -> None:
    assert Target.decode(target.encode()) == target


@given(st.builds(Target, alike, st.none() | alike), st.builds(Target, alike, st.none() | alike))
def test_two_targets_never_share_a_key(one: Target, other: Target) -> None:
    assert (one.encode() == other.encode()) == (one == other)


@given(targets, names)
@example(Target("a/b", "c/d"), "e/f")
def test_no_name_breaks_the_hash_tag_of_its_namespace(target: Target, namespace: str) -> None:
    keys = Keys(namespace)

    assert re.fullmatch(r"\{[A-Za-z0-9_.~%-]+\}:limit:[A-Za-z0-9_.~%-]+(/[A-Za-z0-9_.~%-]+)?", keys.limit(target))
    assert keys.notices.startswith(keys.prefix + ":")


@given(names, names)
def test_two_namespaces_never_share_a_key(one: str, other: str) -> None:
    assert (Keys(one).prefix == Keys(other).prefix) == (one == other)


@given(st.text(max_size=2 * MAX_NAME_LENGTH))
def test_a_name_is_taken_as_it_is_or_refused_by_name(text: str) -> None:
    usable = 0 < len(text) <= MAX_NAME_LENGTH and not {"Cc", "Cs"} & set(map(unicodedata.category, text))

    if usable:
        assert check_name("backend", text) == text
    else:
        with pytest.raises(ValueError, match=r"^backend must"):
            check_name("backend", text)


REFUSED: list[Any] = ["", "x" * 257, "a\x00", "\x7f", "\x85", "\ud800", None, 5, 1.0, True, b"openai", ["openai"]]


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: repr(name)[:20])
def test_what_is_no_name_is_refused_for_a_backend_and_for_a_model(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^backend must"):
        Target.of(name)
    if name is not None:
        with pytest.raises(ValueError, match=r"^model must"):
            Target.of("openai", name)


def test_an_error_about_a_long_name_is_short() -> None:
    with pytest.raises(ValueError, match="not 1000000") as caught:
        check_name("backend", "x" * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("encoded", ["", "/", "a/", "%FF", "a/%80", "%00"])
def test_what_was_not_encoded_by_us_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Target.decode(encoded)


def test_a_target_reads_as_backend_and_model() -> None:
    assert str(Target("openai")) == "openai"
    assert str(Target("openai", "gpt")) == "openai/gpt"
