"""Traces of calls: through a real server and the layer around its RPCs to what stands in for a collector."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server import errors
from llmrouter_server.runtime import tracing
from traced import (
    AS_USER,
    CONTENT,
    PARENT_ID,
    PATIENCE_S,
    ROUTE,
    TOKEN,
    TRACE_ID,
    TRACED,
    USER_ID,
    Collector,
    call,
    collecting,
    failing,
    good,
    told,
    traced_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


# --- what a span tells ---


async def test_a_call_is_one_span_below_the_one_that_its_caller_named(collector: Collector) -> None:
    async with traced_server(tracing.configure(collector.endpoint), good) as channel:
        assert await call(channel, (*AS_USER, *TRACED, ("x-request-id", "told-1"))) is grpc.StatusCode.OK
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert span.trace_state == "vendor=opaque"
    assert span.name == "llmrouter.v2.RoutingService/Route"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert 0 < span.start_time_unix_nano < span.end_time_unix_nano
    assert told(span) == {
        "rpc.system": "grpc",
        "rpc.service": "llmrouter.v2.RoutingService",
        "rpc.method": "Route",
        "rpc.grpc.status_code": 0,
        "llmrouter.request_id": "told-1",
    }
    assert span.status == Status()
    assert collector.paths == {"/v1/traces"}
    (resource,) = collector.exports[0].resource_spans
    assert ("service.name", "llmrouter") in {
        (each.key, each.value.string_value) for each in resource.resource.attributes
    }


@pytest.mark.parametrize(
    ("error", "code", "is_fault"),
    [
        (errors.unavailable(), grpc.StatusCode.UNAVAILABLE, True),
        (RuntimeError(CONTENT), grpc.StatusCode.INTERNAL, True),
        (errors.deadline_exceeded(), grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (errors.not_found("decision"), grpc.StatusCode.NOT_FOUND, False),
        (errors.invalid(("days", CONTENT)), grpc.StatusCode.INVALID_ARGUMENT, False),
    ],
)
async def test_an_error_has_its_code_its_reason_and_whose_fault_it_is(
    error: Exception, code: grpc.StatusCode, is_fault: bool, collector: Collector
) -> None:
    async with traced_server(tracing.configure(collector.endpoint), failing(error)) as channel:
        assert await call(channel) is code
    (span,) = collector.spans
    reason = error.reason if isinstance(error, errors.DomainError) else "INTERNAL"
    assert told(span)["rpc.grpc.status_code"] == code.value[0]
    assert told(span)["error.type"] == reason
    assert span.status == Status(code=Status.STATUS_CODE_ERROR if is_fault else Status.STATUS_CODE_UNSET)
    assert not span.events


async def test_a_call_refused_at_the_door_and_one_of_an_rpc_that_does_not_exist_are_spans_too(
    collector: Collector,
) -> None:
    async with traced_server(tracing.configure(collector.endpoint), good) as channel:
        assert await call(channel, ()) is grpc.StatusCode.UNAUTHENTICATED
        assert await call(channel, AS_USER, method=f"/{CONTENT}/Nope") is grpc.StatusCode.UNIMPLEMENTED
    first, second = collector.spans
    assert (first.name, told(first)["rpc.grpc.status_code"]) == ("llmrouter.v2.RoutingService/Route", 16)
    assert (second.name, told(second)["rpc.grpc.status_code"]) == ("unknown", 12)
    assert told(second)["rpc.service"] == ""
    assert CONTENT.encode() not in b"".join(collector.bodies)


async def test_a_stream_is_one_span_and_so_is_a_call_whose_caller_hangs_up(collector: Collector) -> None:
    begun = asyncio.Event()

    async def stream(_: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        yield RouteResponse()
        yield RouteResponse()

    async def hang(_: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        begun.set()
        await asyncio.Event().wait()
        yield RouteResponse()

    async with traced_server(tracing.configure(collector.endpoint), cast("Any", stream), streams=True) as channel:
        parts = [part async for part in channel.unary_stream(ROUTE)(b"", metadata=AS_USER, timeout=PATIENCE_S)]
    async with traced_server(tracing.configure(collector.endpoint), cast("Any", hang), streams=True) as channel:
        started = channel.unary_stream(ROUTE)(b"", metadata=AS_USER, timeout=PATIENCE_S)
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        started.cancel()
    assert len(parts) == 2
    assert [told(span)["rpc.grpc.status_code"] for span in collector.spans] == [0, 1]


async def test_no_token_user_or_content_is_in_a_trace(collector: Collector) -> None:
    both = (("cookie", f"session={TOKEN}"), *AS_USER, ("x-user-id", str(USER_ID)), ("user-agent", CONTENT))
    for answer in (good, failing(RuntimeError(CONTENT)), failing(errors.invalid(("a", CONTENT)))):
        async with traced_server(tracing.configure(collector.endpoint), answer) as channel:
            await call(channel, (*both, *TRACED))
            await call(channel, both[:1])
    assert len(collector.spans) == 6
    sent = b"".join(collector.bodies) + repr(collector.headers).encode()
    for secret in (TOKEN, CONTENT, str(USER_ID)):
        assert secret.encode() not in sent


# --- trace context ---


@pytest.mark.parametrize(
    "traceparent",
    [
        "", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", f"00-{TRACE_ID}-{'0' * 16}-01", f"00-{TRACE_ID}-{PARENT_ID}",
        f"ff-{TRACE_ID}-{PARENT_ID}-01", f"00-{TRACE_ID.upper()}-{PARENT_ID}-01", "0" * 5000,
    ],
)  # fmt: skip
async def test_without_a_good_parent_a_call_begins_a_trace_of_its_own(traceparent: str, collector: Collector) -> None:
    async with traced_server(tracing.configure(collector.endpoint), good) as channel:
        assert await call(channel, (*AS_USER, ("traceparent", traceparent))) is grpc.StatusCode.OK
        assert await call(channel) is grpc.StatusCode.OK
    first, second = collector.spans
    assert first.parent_span_id == second.parent_span_id == b""
    assert len({TRACE_ID, first.trace_id.hex(), second.trace_id.hex(), "0" * 32}) == 4


async def test_a_trace_that_its_caller_does_not_want_is_not_delivered(collector: Collector) -> None:
    async with traced_server(tracing.configure(collector.endpoint), good) as channel:
        await call(channel, (*AS_USER, ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00")))
        await call(channel, (*AS_USER, *TRACED, ("x-request-id", "wanted")))
    assert [told(span)["llmrouter.request_id"] for span in collector.spans] == ["wanted"]


@given(st.text(max_size=600), st.text(max_size=600))
def test_whatever_comes_as_trace_context_fails_no_call(traceparent: str, tracestate: str) -> None:
    for parent in (traceparent, dict(TRACED)["traceparent"]):
        TRACER.start_span(ROUTE, {"traceparent": parent, "tracestate": tracestate}, "r-1").end("OK", None)


TRACER = tracing.configure("http://127.0.0.1:1")
