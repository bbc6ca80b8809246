"""What documented answers of each provider mean."""

from __future__ import annotations

import json

import pytest

from rate_coordinator.answers import providers, read_answer
from tests.answers.samples import NOT_LIMITED, NOW, Sample
from tests.answers.services import SERVICES
from tests.answers.vendors import VENDORS

SAMPLES = [*VENDORS, *SERVICES]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_an_answer_means_what_its_provider_says(sample: Sample) -> None:
    """P46 P47: refusals, used-up quotas and overload are kept apart, and none is seen where there is none."""
    answer = sample.read()

    told = (answer.limited, answer.reason, answer.wait_seconds, answer.scope)
    expected = sample.expected
    assert told[: len(expected)] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_it_makes_no_difference_how_an_answer_is_handed_over(sample: Sample) -> None:
    """As pairs of bytes, in capitals, with the body as sent."""
    headers = [(name.upper().encode(), value.encode()) for name, value in sample.headers.items()]
    body = sample.body
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()

    assert read_answer(sample.status, headers, body, provider=sample.provider, now=NOW) == sample.read()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_provider_that_nobody_named_is_recognised(sample: Sample) -> None:
    """The named one is given where another one's answer looks the same."""
    if sample.provider is None:
        assert sample.read() == read_answer(sample.status, sample.headers, sample.body, now=NOW)
    else:
        assert sample.provider in providers()


def test_every_sample_names_its_source() -> None:
    assert all(sample.source.startswith("https://") for sample in SAMPLES)


def test_no_sample_is_there_twice() -> None:
    names = [sample.name for sample in SAMPLES]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", providers())
def test_every_refusal_rule_leaves_a_plain_success_alone(name: str) -> None:
    answer = read_answer(200, {"content-type": "application/json"}, {"id": "x", "choices": []}, provider=name, now=NOW)

    assert (answer.limited, answer.reason, answer.wait_seconds) == NOT_LIMITED
