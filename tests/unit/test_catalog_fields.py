"""What requests about providers and models may say."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.v2 import power_level_pb2
from llmrouter.v2.model_service_pb2 import CreateModelRequest, UpdateModelRequest
from llmrouter.v2.provider_service_pb2 import CreateProviderRequest, UpdateProviderRequest
from llmrouter_server.catalog import model_wire, provider_wire
from llmrouter_server.catalog.etag import etag_of
from llmrouter_server.catalog.model import ModelChanges, with_streaming
from llmrouter_server.catalog.model_wire import read_model
from llmrouter_server.catalog.provider import ProviderChanges
from llmrouter_server.catalog.provider_wire import read_provider
from llmrouter_server.catalog.snapshot import CAPABILITIES, PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.fields import Fields

if TYPE_CHECKING:
    import uuid

UINT32 = st.integers(0, 2**32 - 1)


def problems(request: CreateModelRequest | UpdateModelRequest) -> list[str]:
    """Return the paths of the fields that are wrong."""
    fields = Fields()
    read_model(fields, request, required=model_wire.REQUIRED if isinstance(request, CreateModelRequest) else set())
    try:
        fields.done()
    except DomainError as error:
        return [violation.field for violation in error.violations]
    return []


def new_model(**values: Any) -> CreateModelRequest:
    return CreateModelRequest(**({"model_name": "m", "power_level": power_level_pb2.ECO} | values))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("model_name", ["a", "a" * 200, " é "], ["", "  ", "a" * 201, "a\0b", "a\nb"]),
        ("display_name", ["a", "a" * 200, "Llama 3.1 405B"], ["", "  ", "a" * 201, "a\0b", "a\u202eb"]),
        ("power_level", [1, 2, 3], [0, 4, -1, 2**31 - 1]),
        (
            "input_cost_per_1m",
            [0, -0.0, 0.0001, 0.15, 999_998.9999, 999_999],
            [-0.0001, 0.00001, 999_999.0001, 1e308, math.nan, math.inf, -math.inf, 5e-324],
        ),
        (
            "output_cost_per_1m",
            [0, -0.0, 0.0001, 0.15, 999_998.9999, 999_999],
            [-0.0001, 0.00001, 999_999.0001, 1e308, math.nan, math.inf, -math.inf, 5e-324],
        ),
        ("avg_latency_ms", [0, 1, 3_600_000], [3_600_001, 2**31, 2**32 - 1]),
        ("quality_score", [0, -0.0, 0.01, 9.99, 10], [-0.01, 10.01, 9.999, math.nan, math.inf, -math.inf]),
        ("supports_streaming", [True, False], []),
        ("max_context_tokens", [1, 4096, 1_000_000_000], [0, 1_000_000_001, 2**31, 2**32 - 1]),
        (
            "capabilities",
            [[], ["chat"], list(CAPABILITIES), list(CAPABILITIES)[::-1]],
            [["sing"], ["chat", ""], ["Chat"], ["chat "], ["chat", "chat"], [*CAPABILITIES, "chat"], ["x"] * 100_000],
        ),
        ("is_enabled", [True, False], []),
    ],
)
def test_the_range_of_each_field_of_a_model(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert problems(new_model(**{field: value})) == [], value
        assert problems(UpdateModelRequest(**{field: value})) == [], value
    for value in bad:
        assert problems(new_model(**{field: value})) == [field], value
        if (field, value) != ("power_level", 0):  # it leaves a model's level as it is
            assert problems(UpdateModelRequest(**{field: value})) == [field], value


def test_a_new_model_needs_a_name_and_a_power_level_and_an_update_nothing() -> None:
    assert problems(CreateModelRequest()) == ["model_name", "power_level"]
    assert read_model(Fields(), UpdateModelRequest(model_id="any")) == ModelChanges()


def test_a_model_is_read_exactly() -> None:
    request = new_model(
        model_name=" org/m ",
        display_name="M",
        input_cost_per_1m=0.15,
        output_cost_per_1m=0,
        avg_latency_ms=0,
        quality_score=9.87,
        supports_streaming=False,
        max_context_tokens=1,
        capabilities=["streaming", "json", "chat"],
        is_enabled=False,
    )
    assert read_model(Fields(), request) == ModelChanges(
        model_name="org/m",
        display_name="M",
        power_level=PowerLevel.ECO,
        input_cost_per_1m=Decimal("0.15"),
        output_cost_per_1m=Decimal(0),
        avg_latency_ms=0,
        quality_score=Decimal("9.87"),
        supports_streaming=False,
        max_context_tokens=1,
        capabilities=("chat", "json", "streaming"),
        is_enabled=False,
    )


@given(
    st.builds(
        UpdateModelRequest,
        model_name=st.none() | st.text(max_size=5),
        display_name=st.none() | st.text(max_size=5),
        power_level=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3),
        input_cost_per_1m=st.none() | st.floats(),
        output_cost_per_1m=st.none() | st.floats(),
        avg_latency_ms=st.none() | UINT32,
        quality_score=st.none() | st.floats(),
        max_context_tokens=st.none() | UINT32,
        capabilities=st.lists(st.sampled_from(CAPABILITIES) | st.text(max_size=5), max_size=9),
    )
)
def test_no_request_makes_the_reader_fail_and_what_it_accepts_the_table_can_hold(request: UpdateModelRequest) -> None:
    changes = read_model(Fields(), request)
    if problems(request):
        return
    for price in (changes.input_cost_per_1m, changes.output_cost_per_1m):
        assert price is None or (0 <= price < 10**6 and price == round(price, 4))
    assert changes.quality_score is None or (0 <= changes.quality_score <= 10)
    assert changes.quality_score is None or changes.quality_score == round(changes.quality_score, 2)
    assert changes.avg_latency_ms is None or changes.avg_latency_ms <= 3_600_000
    assert changes.max_context_tokens is None or 1 <= changes.max_context_tokens <= 10**9
    assert all(name is None or 1 <= len(name) <= 200 for name in (changes.model_name, changes.display_name))
    assert changes.capabilities is None or set(changes.capabilities) == set(request.capabilities)


@given(st.lists(st.sampled_from(CAPABILITIES), unique=True).map(tuple), st.booleans())
def test_streaming_is_a_capability_exactly_when_it_is_supported(words: tuple[str, ...], streams: bool) -> None:
    result = with_streaming(words, supports_streaming=streams)
    assert ("streaming" in result) == streams
    assert len(set(result)) == len(result)
    assert [word for word in result if word != "streaming"] == [word for word in words if word != "streaming"]
    assert with_streaming(result, supports_streaming=streams) == result


def test_a_new_provider_needs_three_fields_and_an_update_nothing() -> None:
    fields = Fields()
    read_provider(fields, CreateProviderRequest(), required=provider_wire.REQUIRED, allow_private=False)
    with pytest.raises(DomainError) as refused:
        fields.done()
    assert {violation.field for violation in refused.value.violations} == provider_wire.REQUIRED
    empty = UpdateProviderRequest(provider_id="any", etag="any")
    assert read_provider(Fields(), empty, allow_private=False) == ProviderChanges()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_private_endpoint_is_refused_unless_the_operator_allows_it(allowed: bool) -> None:
    fields = Fields()
    request = UpdateProviderRequest(api_endpoint="http://127.0.0.1:8000/v1")
    assert read_provider(fields, request, allow_private=allowed).api_endpoint == "http://127.0.0.1:8000/v1"
    if allowed:
        fields.done()
    else:
        with pytest.raises(DomainError, match="api_endpoint: must not be a loopback"):
            fields.done()


@given(st.uuids(), st.uuids(), st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_an_etag_is_of_one_revision_of_one_thing(one: uuid.UUID, other: uuid.UUID, this: int, that: int) -> None:
    assert etag_of(one, this) == etag_of(one, this)
    assert (etag_of(one, this) == etag_of(other, that)) == ((one, this) == (other, that))
    assert etag_of(one, this).isalnum()
    assert len(etag_of(one, this)) == 16
