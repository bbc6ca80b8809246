"""botocore and boto3, with a fake of AWS on the loopback interface."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

from rate_coordinator import LimitWaitTimeout
from rate_coordinator.integrations.botocore import AdmissionTimeout, Attempt, coordinate
from rate_coordinator.sync import RateLimitCoordinator
from tests.conftest import Place
from tests.integrations.upstream import Reply, Upstream, told

HOST = "127.0.0.1"
KEYS = {"aws_access_key_id": "dummy", "aws_secret_access_key": "dummy"}
REGION = "eu-west-1"
# It has read what there is to know of a service once.
SESSION = boto3.Session(region_name=REGION, **KEYS)


def throttled(code: str = "ThrottlingException", status: int = 400) -> Reply:
    return told({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "Rate exceeded"}, status)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def coordinator() -> Iterator[RateLimitCoordinator]:
    with RateLimitCoordinator.from_url("memory://") as made:
        yield made


def client_of(
    upstream: Upstream, coordinator: RateLimitCoordinator | None = None, service: str = "dynamodb", **settings: Any
) -> Any:
    retries = settings.pop("retries", {"max_attempts": 0})
    config = Config(retries=retries, s3={"addressing_style": "path"})
    client = SESSION.client(service, endpoint_url=upstream.url, config=config)
    if coordinator is not None:
        coordinate(client, coordinator, **settings)
    return client


def test_a_throttle_stops_everybody_who_shares_the_limit_until_it_lifts(real: Place, upstream: Upstream) -> None:
    upstream.replies.append(throttled())
    with (
        RateLimitCoordinator.from_url(real.url, real.namespace) as one,
        RateLimitCoordinator.from_url(real.url, real.namespace) as other,
    ):
        with pytest.raises(ClientError, match="ThrottlingException"):
            client_of(upstream, one, guess_seconds=0.4).list_tables()
        other.refresh()
        assert client_of(upstream, other).list_tables()["ResponseMetadata"]["HTTPStatusCode"] == 200

    refusal, served = upstream.asked
    assert served.at - refusal.at >= 0.4


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_each_of_its_own_attempts_waits_for_the_shared_resume_time(
    coordinator: RateLimitCoordinator, upstream: Upstream, mode: str
) -> None:
    """P49."""
    upstream.replies.append(throttled("ProvisionedThroughputExceededException"))
    client = client_of(upstream, coordinator, retries={"mode": mode, "total_max_attempts": 2}, guess_seconds=1.2)
    assert client.list_tables()["ResponseMetadata"]["RetryAttempts"] == 1
    first, second = (asked.at for asked in upstream.asked)
    assert second - first >= 1.2
    assert [event.reason for event in coordinator.recent_events if event.kind == "report"] == ["rate_limit"]


def test_a_limit_of_one_operation_holds_no_other(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    """P48."""
    upstream.replies.append(throttled())
    client = client_of(upstream, coordinator, timeout=0, guess_seconds=60)
    with pytest.raises(ClientError):
        client.list_tables()
    with pytest.raises(LimitWaitTimeout):
        client.list_tables()
    assert client.describe_limits()["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert list(coordinator.active_limits) == [f"{HOST}/ListTables"]


def test_a_function_tells_whom_an_attempt_counts_against(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    attempts: list[Attempt] = []

    def names(attempt: Attempt) -> tuple[str, str]:
        attempts.append(attempt)
        return f"aws/{attempt.region}/{attempt.service}", attempt.request.url.split("/")[-2]

    upstream.replies.append(throttled(status=429))
    client = client_of(upstream, coordinator, "bedrock-runtime", backend=names)
    with pytest.raises(ClientError):
        client.invoke_model(modelId="large", body=b"{}")
    (limit,) = coordinator.limits
    assert (limit.backend, limit.model) == (f"aws/{REGION}/bedrock-runtime", "large")
    assert (attempts[0].operation, attempts[0].host) == ("InvokeModel", HOST)


def test_a_wait_that_is_too_long_is_not_begun_and_told_in_its_own_words(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.otherwise = throttled()
    client = client_of(upstream, coordinator, retries={"total_max_attempts": 4}, timeout=20, guess_seconds=600)
    began = time.monotonic()
    with pytest.raises(ClientError, match="Rate exceeded"):
        client.list_tables()
    with pytest.raises(BotoCoreError) as raised:
        client.list_tables()
    assert time.monotonic() - began < 15
    assert isinstance(raised.value, AdmissionTimeout)
    assert isinstance(raised.value, LimitWaitTimeout)
    assert "127.0.0.1/ListTables" in str(raised.value)
    assert len(upstream.asked) == 1


def test_an_attempt_is_signed_after_it_has_waited(
    coordinator: RateLimitCoordinator, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[float] = []
    client = client_of(upstream, coordinator)
    client.meta.events.register("before-sign", lambda **_: signed.append(time.monotonic()))
    began = time.monotonic()
    coordinator.report_rate_limit(HOST, 0.3)
    client.list_tables()
    assert signed[0] - began >= 0.3


@pytest.mark.parametrize("kind", ["boto3", "botocore", "resource"])
def test_sessions_and_resources_are_coordinated_as_well(
    coordinator: RateLimitCoordinator, upstream: Upstream, kind: str
) -> None:
    settings = {"region_name": REGION, "endpoint_url": upstream.url, "config": Config(retries={"max_attempts": 0})}
    signed: list[float] = []
    if kind == "botocore":
        session = botocore.session.Session()
        coordinate(session, coordinator)
        client = session.create_client("dynamodb", **settings, **KEYS)
    elif kind == "boto3":
        boto_session = boto3.Session(region_name=REGION, **KEYS)
        coordinate(boto_session, coordinator)
        client = boto_session.client("dynamodb", **settings)
    else:
        resource = boto3.resource("dynamodb", **settings, **KEYS)
        coordinate(resource, coordinator)
        client = resource.meta.client
    client.meta.events.register("before-sign", lambda **_: signed.append(time.monotonic()))
    began = time.monotonic()
    coordinator.report_rate_limit(HOST, 0.3)
    client.list_tables()
    assert signed[0] - began >= 0.3


def test_who_is_coordinated_twice_waits_once(coordinator: RateLimitCoordinator, upstream: Upstream) -> None:
    coordinator.hint(HOST, max_in_flight=1)
    client = client_of(upstream, coordinator)
    coordinate(client, coordinator)
    client.list_tables()
    client.list_tables()
    assert len(upstream.asked) == 2


def test_what_is_asked_for_on_the_way_goes_in_the_turn_of_what_it_is_for(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    upstream.replies.append(throttled())
    coordinator.hint(HOST, max_in_flight=1)
    client = client_of(upstream, coordinator, timeout=20)
    refused: list[ClientError] = []

    def ask(**_: object) -> None:
        # As the discovery of endpoints does: https://github.com/boto/botocore/blob/develop/botocore/discovery.py
        try:
            client.describe_limits()
        except ClientError as error:
            refused.append(error)

    client.meta.events.register("request-created.dynamodb.ListTables", ask)
    client.list_tables()
    client.list_tables()
    assert len(upstream.asked) == 4
    assert len(refused) == 1
    assert list(coordinator.active_limits) == [f"{HOST}/DescribeLimits"]


def test_what_is_asked_of_others_on_the_way_waits_for_its_own_limit(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    coordinator.hint("tables", max_in_flight=1)
    other = client_of(upstream, coordinator, backend="limits", timeout=0)
    coordinator.report_rate_limit("limits", 60)
    client = client_of(upstream, coordinator, backend="tables", timeout=20)
    client.meta.events.register("request-created.dynamodb.ListTables", lambda **_: other.describe_limits())
    for _ in range(2):
        with pytest.raises(AdmissionTimeout, match="limits"):
            client.list_tables()
    assert upstream.asked == []


def test_what_is_not_answered_or_not_even_sent_gives_its_turn_back(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    coordinator.hint(HOST, max_in_flight=1)
    with Upstream() as gone:
        pass
    with pytest.raises(EndpointConnectionError):
        client_of(gone, coordinator, timeout=20).list_tables()
    config = Config(retries={"max_attempts": 0})
    unsigned = botocore.session.Session().create_client(
        "dynamodb", region_name=REGION, endpoint_url=upstream.url, config=config
    )
    coordinate(unsigned, coordinator, timeout=20)
    with pytest.raises(NoCredentialsError):
        unsigned.list_tables()
    client_of(upstream, coordinator, timeout=20).list_tables()
    assert coordinator.recent_events == []


def test_an_interrupted_call_does_not_pass_for_one_that_is_under_way(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    client = client_of(upstream, coordinator, timeout=0)

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    client.meta.events.register("before-send.dynamodb", interrupt, unique_id="interrupt")
    with pytest.raises(KeyboardInterrupt):
        client.list_tables()
    client.meta.events.unregister("before-send.dynamodb", unique_id="interrupt")
    gc.collect()
    coordinator.report_rate_limit(HOST, 60)
    with pytest.raises(AdmissionTimeout):
        client.list_tables()


def test_a_stream_that_is_served_is_handed_on_at_once_and_holds_up_nobody(
    coordinator: RateLimitCoordinator, upstream: Upstream
) -> None:
    rest = threading.Event()
    upstream.replies.append(Reply(200, {}, [b"first", b"second"], hold=rest))
    coordinator.hint(HOST, max_in_flight=1)
    client = client_of(upstream, coordinator, "s3", timeout=20)
    body = client.get_object(Bucket="bucket", Key="key")["Body"]
    assert body.read(5) == b"first"
    client.head_object(Bucket="bucket", Key="key")
    rest.set()
    assert body.read() == b"second"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            Reply(503, {}, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"),
            "rate_limit",
        ),
        (Reply(503, {"retry-after": "7"}, b""), "overloaded"),
        (Reply(404, {}, b"<Error><Code>NoSuchKey</Code></Error>"), None),
        (Reply(403, {}, b"<Error><Code>AccessDenied</Code></Error>"), None),
    ],
)
def test_throttles_are_told_from_other_errors(
    coordinator: RateLimitCoordinator, upstream: Upstream, reply: Reply, reason: str | None
) -> None:
    upstream.replies.append(reply)
    with pytest.raises(ClientError):
        client_of(upstream, coordinator, "s3").get_object(Bucket="bucket", Key="key")
    assert [event.reason for event in coordinator.recent_events] == ([reason] if reason else [])


@pytest.mark.parametrize("settings", [{"backend": 7}, {"guess_seconds": -1}, {"timeout": -1}])
def test_what_cannot_be_used_is_refused(
    coordinator: RateLimitCoordinator, upstream: Upstream, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        client_of(upstream, coordinator, **settings)


def test_what_is_no_client_is_refused(coordinator: RateLimitCoordinator) -> None:
    with pytest.raises(ValueError, match="client must be"):
        coordinate(object(), coordinator)
