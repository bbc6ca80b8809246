"""URLs: how they are read and how they are shown."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rate_coordinator import RateLimitCoordinator
from rate_coordinator.connection import Endpoint
from rate_coordinator.urls import describe

START, END = "s3cr3t<", ">t3rc3s"
passwords = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda text: START + text + END)
users = st.sampled_from(["", "user", "us%40er", "us:er"])
schemes = st.sampled_from(
    [
        "redis://",
        "rediss://",
        "unix://",
        "redis+sentinel://",
        "redis+cluster://",
        "http://",
        "memory://",
        "",
        "redis:",
        "redis:/",
        "//",
    ]
)
hosts = st.sampled_from(["localhost", "localhost:6379", "[::1]:6379", "", "/tmp/redis.sock", "h:port", "host:99999999"])
ends = st.sampled_from(["", "/0", "/x", "/0?protocol=3", "?db=x", "#part"])


@given(schemes, users, passwords, st.booleans(), hosts, ends)
@example("redis://", "", f"{START}?@/:#{END}", False, "localhost", "/0")
@example("", "user", f"{START}{END}", False, "localhost:6379", "")
@example("redis:/", "user", f"{START}://{END}", False, "localhost:6379", "")
def test_a_password_before_the_host_is_never_shown(
    scheme: str, user: str, password: str, quoted: bool, host: str, end: str
) -> None:
    url = f"{scheme}{user}:{quote(password, safe='') if quoted else password}@{host}{end}"

    check_hidden(url)


@given(
    st.sampled_from(["redis://localhost:6379/0", "unix:///tmp/redis.sock", "redis://u:p@h"]), passwords, st.booleans()
)
@example("redis://localhost:6379/0", f"{START}@{END}", False)
def test_a_password_among_the_options_is_never_shown(url: str, password: str, quoted: bool) -> None:
    check_hidden(f"{url}?password={quote(password, safe='') if quoted else password}")


@pytest.mark.parametrize("user", ["", "user"])
@pytest.mark.parametrize("scheme", ["redis://", "rediss://", "unix://", ""])
@pytest.mark.parametrize("end", ["", "/0", "?db=0", "#part"])
def test_a_password_whose_host_was_forgotten_is_never_shown(scheme: str, user: str, end: str) -> None:
    check_hidden(f"{scheme}{user}:{START}{END}{end}")


def check_hidden(url: str) -> None:
    shown = [describe(url)]
    try:
        coordinator = RateLimitCoordinator.from_url(url)
        shown += [coordinator.address, repr(coordinator), coordinator.health.address]
    except ValueError as error:
        shown += [
            str(error),
            repr(error.__cause__),
            repr(error.__context__ if not error.__suppress_context__ else None),
        ]
    for text in shown:
        assert "s3cr3t" not in text
        assert "t3rc3s" not in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:secret@localhost:6379/0?protocol=3", "redis://***@localhost:6379/0"),
        ("redis://:p@ss@[::1]:6379", "redis://***@[::1]:6379"),
        ("rediss://user@redis.example:6380", "rediss://***@redis.example:6380"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("memory://name", "memory://name"),
        ("redis+sentinel://u:p@h1:1,h2/svc/2?sentinel_password=x", "redis+sentinel://***@h1:1,h2/svc/2"),
        ("rediss+sentinel://h1,[::1]:26379/svc", "rediss+sentinel://h1,[::1]:26379/svc"),
        ("redis+cluster://:p@h1:7001,h2:7002", "redis+cluster://***@h1:7001,h2:7002"),
    ],
)
def test_the_place_is_shown(url: str, shown: str) -> None:
    assert describe(url) == shown
    assert RateLimitCoordinator.from_url(url).address == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis:/localhost",
        "redis://localhost:port",
        "redis://localhost:99999",
        "redis://localhost/zero",
        "redis://localhost/0/1",
        "redis://localhost?nonsense=1",
        "redis://localhost?socket_timeout=soon",
        "unix://",
        "REDIS://localhost",
        "redis+sentinel://localhost",
        "redis+sentinel://localhost/",
        "redis+sentinel://localhost/service/zero",
        "redis+sentinel:///service",
        "redis+sentinel://a,,b/service",
        "redis+sentinel://a:0/service",
        "redis+sentinel://a:99999/service",
        "redis+sentinel://a/service?nonsense=1",
        "redis+cluster://",
        "redis+cluster://a/1",
        "redis+cluster://a?db=1",
        "redis+cluster://a:b",
        "redis+cluster://a?sentinel_password=x",
        "unix+cluster://a",
    ],
)
def test_what_is_no_usable_url_is_refused_before_anything_is_connected(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL") as caught:
        Endpoint.from_url(url)
    assert repr(describe(url)) in str(caught.value)


def test_a_url_has_to_be_a_string() -> None:
    with pytest.raises(ValueError, match=re.escape("the URL must be a string, not bytes")):
        Endpoint.from_url(b"redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///tmp/x", "memory://", "memory://a"])
def test_only_memory_is_not_shared(url: str) -> None:
    assert Endpoint.from_url(url).shared == (not url.startswith("memory"))


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("place", ["rediss://host", "rediss+sentinel://host/service", "rediss+cluster://host"])
def test_a_certificate_that_cannot_be_read_is_told_by_name_when_the_url_is_given(option: str, place: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} is '/no/such\.pem'.*read"):
        RateLimitCoordinator.from_url(f"{place}?{option}=/no/such.pem")
