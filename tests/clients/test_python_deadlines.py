"""The deadline of a Python client's call: how long it is, that the server is told, and what it covers."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc
import pytest

from client_stand_in import TOKEN
from llmrouter import AsyncClient, Client, DeadlineExceeded, RouteRequest, service_config
from llmrouter.v2.routing_service_pb2_grpc import RoutingServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROUTE = "/llmrouter.v2.RoutingService/Route"  # may be repeated
CREATE = "/llmrouter.v2.ProviderService/CreateProvider"  # may not
EXPORT = "/llmrouter.v2.UsageService/ExportUsage"  # a stream, with a deadline of its own


@dataclass
class Server(grpc.GenericRpcHandler):
    """Answers the first calls of any method with the codes of `answers` and hangs in all later ones."""

    answers: list[grpc.StatusCode] = field(default_factory=list)
    pause_s: float = 0
    left: list[float] = field(default_factory=list)
    """How long each call still had when it arrived."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        def one(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self.left.append(context.time_remaining())
            ended = threading.Event()
            if not context.add_callback(ended.set):
                return b""
            code = self.answers.pop(0) if self.answers else None
            ended.wait(self.pause_s if code else 60)
            if code not in (None, grpc.StatusCode.OK):
                context.abort(code, "as it was told")
            return b""

        def many(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield one(request, context)

        if details.method == EXPORT:
            return grpc.unary_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(one)


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    behaviour = Server()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[behaviour])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield behaviour, f"127.0.0.1:{port}"
    server.stop(None).wait(5)


Call: TypeAlias = "Callable[..., Awaitable[None]]"


async def call_async(client: AsyncClient, method: str, timeout: float | None) -> None:  # noqa: ASYNC109
    if method == ROUTE:
        await client.routing.route(timeout=timeout)
    elif method == CREATE:
        await client.providers.create_provider(name="n", provider_type="t", api_endpoint="e", timeout=timeout)
    else:
        assert [part async for part in client.usage.export_usage(timeout=timeout)]


def call_sync(client: Client, method: str, timeout: float | None) -> None:
    if method == ROUTE:
        client.routing.route(timeout=timeout)
    elif method == CREATE:
        client.providers.create_provider(name="n", provider_type="t", api_endpoint="e", timeout=timeout)
    else:
        assert list(client.usage.export_usage(timeout=timeout))


@pytest.fixture(params=[Client, AsyncClient])
def call(request: pytest.FixtureRequest, server: tuple[Server, str]) -> Call:
    async def done(
        method: str,
        *,
        client_timeout: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        token: str | Callable[[], str] = TOKEN,
    ) -> None:
        if request.param is AsyncClient:
            async with AsyncClient(server[1], token=token, timeout=client_timeout) as client:
                await call_async(client, method, timeout)
        else:
            with Client(server[1], token=token, timeout=client_timeout) as client:
                await asyncio.to_thread(call_sync, client, method, timeout)

    return done


@pytest.mark.parametrize("method", [ROUTE, CREATE, EXPORT])
async def test_a_call_that_hangs_ends_by_the_service_configs_deadline_and_the_server_was_told(
    server: tuple[Server, str], call: Call, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(service_config.OF_METHOD, method, {"timeout": "0.3s"})
    with pytest.raises(DeadlineExceeded):
        await call(method)
    assert len(server[0].left) <= 1
    assert all(left <= 0.35 for left in server[0].left)


@pytest.mark.parametrize(("method", "default"), [(ROUTE, 10), (CREATE, 10), (EXPORT, 300)])
async def test_a_call_may_say_less_or_more(server: tuple[Server, str], call: Call, method: str, default: float) -> None:
    server[0].answers = [grpc.StatusCode.OK] * 3
    await call(method)
    await call(method, timeout=5)
    await call(method, timeout=900)
    for left, given in zip(server[0].left, (default, 5, 900), strict=True):
        assert given - 5 < left < given + 1


@pytest.mark.parametrize(("method", "told"), [(ROUTE, 5), (CREATE, 5), (EXPORT, 300)])
async def test_a_client_may_say_less_or_more_for_calls_with_one_answer(
    server: tuple[Server, str], call: Call, method: str, told: float
) -> None:
    server[0].answers = [grpc.StatusCode.OK]
    await call(method, client_timeout=5)
    assert told - 5 < server[0].left[0] < told + 1


async def test_all_attempts_together_have_one_deadline(server: tuple[Server, str], call: Call) -> None:
    server[0].pause_s = 0.2
    while len(server[0].left) < 2:  # a busy machine may let the deadline pass before the second attempt
        server[0].answers, server[0].left = [grpc.StatusCode.UNAVAILABLE], []
        with pytest.raises(DeadlineExceeded):
            await call(ROUTE, client_timeout=1.5)
    first, second = server[0].left
    assert second < first - 0.1


@pytest.mark.parametrize("method", [ROUTE, CREATE, EXPORT])
async def test_the_attempt_with_another_token_has_what_is_left(
    server: tuple[Server, str], call: Call, method: str
) -> None:
    server[0].answers, server[0].pause_s = [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK], 0.5
    tokens = iter(["old", "new"])
    await call(method, timeout=10, token=lambda: next(tokens))  # gRPC tells what is up to 3 % less as the same
    first, second = server[0].left
    assert second < first - 0.1


def test_the_deadline_goes_with_the_call_because_grpc_tells_the_server_none_of_its_service_config(
    server: tuple[Server, str],
) -> None:
    server[0].answers = [grpc.StatusCode.OK]
    config = {"methodConfig": [{"name": [{}], "timeout": "60s"}]}
    with grpc.insecure_channel(server[1], [("grpc.service_config", json.dumps(config))]) as channel:
        RoutingServiceStub(channel).Route(RouteRequest())
    assert server[0].left[0] > 1_000_000
