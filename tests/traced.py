"""A server whose calls are traced, and what stands in for a collector of OpenTelemetry."""

from __future__ import annotations

import asyncio
import http.server
import logging
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from llmrouter_server.runtime.tracing import Tracer

    Answer = Callable[[RouteRequest, Any], Awaitable[Any]]
    Metadata = tuple[tuple[str, str], ...]

ROUTE = "/llmrouter.v2.RoutingService/Route"
USER_ID = UUID("11111111-2222-4333-8444-555555555555")
TOKEN, CONTENT = "token-that-nobody-may-see", "content-that-nobody-may-see"
AS_USER = (("authorization", f"Bearer {TOKEN}"),)
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("tracestate", "vendor=opaque"))
PATIENCE_S = 20.0


class Verifier:
    async def verify(self, _: str) -> Caller:
        return Caller(USER_ID, frozenset({Role.USER}))


class Collector:
    """Takes OTLP over HTTP; `status` is what it answers, and it answers nothing while `open` is not set."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: set[str] = set()
        self.status = 200
        self.open, self.asked = threading.Event(), threading.Event()
        self.open.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.asked.set()
                collector.open.wait(PATIENCE_S)
                collector.paths.add(self.path)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200:
                    collector.bodies.append(body)
                self.send_response(collector.status)
                if collector.status != 200:
                    self.send_header("retry-after", "3600")  # so that nobody tries again
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def exports(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for export in self.exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def stop(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.stop()


@asynccontextmanager
async def traced_server(tracer: Tracer, answer: Answer, *, streams: bool = False) -> AsyncIterator[Any]:
    """Serve an RPC with traces; yields the channel, and has delivered all spans at the end."""
    await tracer.start()
    calls = CallInterceptor(cast("Any", Verifier()), longest_s=PATIENCE_S, tracer=tracer)
    kind = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    handler: Any = kind(answer, RouteRequest.FromString, RouteResponse.SerializeToString)
    _, service, name = ROUTE.split("/")
    calls.add_registered_method_handlers(service, {name: handler})
    server = make_server(calls, reuse_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(PATIENCE_S)
    await tracer.stop()


async def call(channel: Any, metadata: Metadata = AS_USER, *, method: str = ROUTE) -> grpc.StatusCode:
    """Call and return the code; the request has content that no trace may show."""
    rpc: Any = channel.unary_unary(method)
    started = rpc(RouteRequest(task_type=CONTENT).SerializeToString(), metadata=metadata, timeout=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        return cast("grpc.StatusCode", await started.code())


async def good(request: RouteRequest, _: Any) -> RouteResponse:
    assert request.task_type == CONTENT
    return RouteResponse(decision_id=CONTENT)


def failing(error: BaseException) -> Answer:
    async def answer(_: RouteRequest, __: Any) -> RouteResponse:
        raise error

    return answer


def told(span: Span) -> dict[str, object]:
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Keep every log that reaches the root, from whatever thread."""
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeping()
    logging.getLogger().addHandler(handler)
    yield kept
    logging.getLogger().removeHandler(handler)
