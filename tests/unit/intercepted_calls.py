"""A server behind the interceptor alone, calls to it, and what it logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server import errors
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor
from llmrouter_server.runtime.telemetry import JsonLines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Answer = Callable[[RouteRequest, Any], Awaitable[Any]]
    Metadata = tuple[tuple[str, str], ...]

ROUTE, LIST_PROVIDERS = "/llmrouter.v2.RoutingService/Route", "/llmrouter.v2.ProviderService/ListProviders"
USER = Caller(UUID(int=1), frozenset({Role.USER}))
SERVICE = Caller(UUID(int=2), frozenset({Role.SERVICE}))
CALLERS = {"token-user": USER, "token-service": SERVICE, "token-nothing": Caller(UUID(int=3), frozenset())}
AS_USER = (("authorization", "Bearer token-user"),)
SECRET = "postgresql://llmrouter:hunter2@db/llmrouter"
PATIENCE_S = 10.0


class Verifier:
    async def verify(self, token: str) -> Caller:
        if token == "token-hang":
            await asyncio.Event().wait()
        if token not in CALLERS:
            raise errors.unauthenticated("the token is not known")
        return CALLERS[token]


@dataclass(frozen=True)
class Outcome:
    """What the caller gets."""

    code: grpc.StatusCode
    message: str
    trailing: dict[str, Any]

    @property
    def status(self) -> status_pb2.Status:
        return status_pb2.Status.FromString(self.trailing["grpc-status-details-bin"])

    def detail(self, kind: Any) -> Any:
        """Return the detail of this kind, or None."""
        found = [packed for packed in self.status.details if packed.Is(kind.DESCRIPTOR)]
        if not found:
            return None
        unpacked = kind()
        found[0].Unpack(unpacked)
        return unpacked

    @property
    def reason(self) -> str:
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "llmrouter"
        return str(info.reason)


@asynccontextmanager
async def serving(answer: Answer, *, longest_s: float = PATIENCE_S) -> AsyncIterator[grpc.aio.Channel]:
    calls = CallInterceptor(cast("Any", Verifier()), longest_s=longest_s)
    handler = grpc.unary_unary_rpc_method_handler(answer, RouteRequest.FromString, RouteResponse.SerializeToString)
    for method in (ROUTE, LIST_PROVIDERS):
        _, service, name = method.split("/")
        calls.add_registered_method_handlers(service, {name: handler})
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), cast("Any", calls))
    reflection.enable_server_reflection((reflection.SERVICE_NAME,), cast("Any", calls))
    server = make_server(calls, reuse_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def call(
    channel: grpc.aio.Channel,
    metadata: Metadata = AS_USER,
    *,
    method: str = ROUTE,
    request: bytes = b"",
    timeout_s: float | None = PATIENCE_S,
) -> Outcome:
    return await outcome(start(channel, metadata, method, request, timeout_s))


def start(
    channel: grpc.aio.Channel, metadata: Metadata, method: str, request: bytes, timeout_s: float | None
) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return rpc(request, metadata=metadata, timeout=timeout_s)


async def outcome(started: Any) -> Outcome:
    async with asyncio.timeout(2 * PATIENCE_S):
        code, message = await started.code(), await started.details()
        return Outcome(code, message, dict(await started.trailing_metadata()))


async def good(_: RouteRequest, __: Any) -> RouteResponse:
    return RouteResponse()


def failing(error: BaseException) -> Answer:
    async def answer(_: RouteRequest, __: Any) -> RouteResponse:
        raise error

    return answer


class Log:
    def __init__(self) -> None:
        self.written = io.StringIO()

    @property
    def text(self) -> str:
        telemetry.tell()
        return self.written.getvalue()

    def lines(self, message: str = "call") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text.splitlines()) if line["message"] == message]

    async def line(self) -> dict[str, Any]:
        """Wait for the one line about the one call."""
        (line,) = await self.some()
        return line

    async def some(self) -> list[dict[str, Any]]:
        """Wait for the first line about a call; return all there are."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.lines():
                await asyncio.sleep(0.01)
        return self.lines()


@contextmanager
def kept_log() -> Iterator[Log]:
    """Keep what the server logs meanwhile."""
    telemetry.tell()
    logger, kept = logging.getLogger("llmrouter_server"), Log()
    handler, level = logging.StreamHandler(kept.written), logger.level
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(level)
