"""What is said where an optional library is missing."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "needed", "extra"),
    [
        ("requests", "requests", "requests"),
        ("urllib3", "urllib3", "urllib3"),
        ("botocore", "botocore.awsrequest", "botocore"),
        ("google_api_core", "google.api_core.exceptions", "google-api-core"),
    ],
)
def test_where_a_library_is_missing_the_extra_is_named(
    module: str, needed: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"rate_coordinator.integrations.{module}"
    monkeypatch.setitem(sys.modules, needed, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"needs the extra '{extra}'"):
        importlib.import_module(name)
