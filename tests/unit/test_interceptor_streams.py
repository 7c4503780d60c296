"""Streams through the interceptor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server.runtime import interceptor
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor
from unit.intercepted_calls import (
    AS_USER,
    PATIENCE_S,
    ROUTE,
    SECRET,
    USER,
    Log,
    Outcome,
    Verifier,
    kept_log,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
def log() -> Iterator[Log]:
    with kept_log() as kept:
        yield kept


def streaming(*parts: Any) -> Any:
    """Make the handler of an RPC that answers with these; an exception among them is raised."""

    async def answer(_: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            yield RouteResponse(decision_id=part)

    return answer


@asynccontextmanager
async def streaming_server(answer: Any) -> AsyncIterator[grpc.aio.Channel]:
    calls = CallInterceptor(cast("Any", Verifier()), longest_s=PATIENCE_S)
    handler = grpc.unary_stream_rpc_method_handler(answer, RouteRequest.FromString, RouteResponse.SerializeToString)
    _, service, name = ROUTE.split("/")
    calls.add_registered_method_handlers(service, {name: handler})
    server = make_server(calls, reuse_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def read_stream(channel: grpc.aio.Channel, metadata: Metadata = AS_USER) -> tuple[list[str], Outcome | None]:
    """Return what came, and the outcome if it is an error."""
    stream = channel.unary_stream(ROUTE)(b"", metadata=metadata, timeout=PATIENCE_S)
    came: list[str] = []
    try:
        async for part in stream:
            came.append(RouteResponse.FromString(part).decision_id)  # noqa: PERF401 - what came before an error counts
    except grpc.aio.AioRpcError as error:
        return came, Outcome(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))
    return came, None


async def read_all(stream: Any) -> list[bytes]:
    return [part async for part in stream]


async def test_a_stream_comes_whole_and_is_logged_once(log: Log) -> None:
    async with streaming_server(streaming("a", "b", "c")) as channel:
        assert await read_stream(channel) == (["a", "b", "c"], None)
    assert [line["code"] for line in log.lines()] == ["OK"]


async def test_a_stream_that_breaks_says_so_after_what_came(log: Log) -> None:
    async with streaming_server(streaming("a", RuntimeError(SECRET))) as channel:
        came, got = await read_stream(channel)
    assert came == ["a"]
    assert got is not None
    assert (got.code, got.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in str(got)
    assert [line["code"] for line in log.lines()] == ["INTERNAL"]


class Flood:
    """A stream without an end; `sent` counts its parts."""

    def __init__(self) -> None:
        self.sent, self.ended = 0, asyncio.Event()

    async def __call__(self, _: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        try:
            while True:
                self.sent += 1
                yield RouteResponse(decision_id="x" * 65_536)
        finally:
            self.ended.set()

    async def until_nothing_is_taken(self) -> None:
        before = -1
        while self.sent != before:
            before = self.sent
            await asyncio.sleep(0.2)


async def test_a_caller_that_hangs_up_on_a_stream_it_does_not_read_is_logged_as_cancelled(log: Log) -> None:
    flood = Flood()
    async with streaming_server(flood) as channel:
        stream = channel.unary_stream(ROUTE)(b"", metadata=AS_USER)
        await stream.read()
        await flood.until_nothing_is_taken()
        stream.cancel()
        await asyncio.wait_for(flood.ended.wait(), PATIENCE_S)
        line = await log.line()
    assert (line["code"], line["reason"], line["user_id"]) == ("CANCELLED", None, str(USER.user_id))
    assert not log.lines("unhandled exception")


async def test_a_stream_that_its_caller_does_not_read_ends_by_the_servers_own_deadline(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptor, "LONGEST_STREAM_S", 0.5)
    flood = Flood()
    async with streaming_server(flood) as channel:
        stream = channel.unary_stream(ROUTE)(b"", metadata=AS_USER)
        line = await log.line()
        await asyncio.wait_for(flood.ended.wait(), PATIENCE_S)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(read_all(stream), PATIENCE_S)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_a_stream_needs_a_token_too() -> None:
    async with streaming_server(streaming("a")) as channel:
        came, got = await read_stream(channel, ())
    assert came == []
    assert got is not None
    assert got.code is grpc.StatusCode.UNAUTHENTICATED
