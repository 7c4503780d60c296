"""A server that answers the Python clients as it is told, and calls of both of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from llmrouter import AsyncClient, Client, RouteRequest, RouteResponse
from llmrouter.v2 import routing_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TOKEN = "header.payload-of-a-secret-token.signature"
Route = "Callable[..., Awaitable[RouteResponse]]"


@dataclass
class StandIn(routing_service_pb2_grpc.RoutingServiceServicer):
    """A RoutingService that does what `behave` says, and remembers the metadata of each call."""

    behave: Callable[[grpc.ServicerContext, int], None] = lambda _context, _call: None
    calls: list[dict[str, str]] = field(default_factory=list)
    padding: str = ""

    def Route(self, _request: RouteRequest, context: grpc.ServicerContext) -> RouteResponse:
        self.calls.append(dict(context.invocation_metadata()))
        self.behave(context, len(self.calls))
        return RouteResponse(total_options=len(self.calls), decision_id=self.padding)


@contextmanager
def serving(
    servicer: StandIn, credentials: grpc.ServerCredentials | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Serve until the end of the block, and return the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(servicer, server)
    address = f"{host}:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(None).wait(5)


async def async_route(
    target: str,
    *,
    timeout: float | None = None,  # noqa: ASYNC109
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> RouteResponse:
    async with AsyncClient(target, **options) as client:
        return await client.routing.Route(RouteRequest(), timeout=timeout, metadata=headers)


async def sync_route(
    target: str,
    *,
    timeout: float | None = None,  # noqa: ASYNC109
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> RouteResponse:
    def call() -> RouteResponse:
        with Client(target, **options) as client:
            return client.routing.Route(RouteRequest(), timeout=timeout, metadata=headers)

    return await asyncio.to_thread(call)
