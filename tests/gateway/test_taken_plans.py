"""Whether Envoy was sent a plan, when it breaks its stream off: only then is what was set up for it still needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gateway_samples import plan
from llmrouter_server.gateway.decision import Prepared
from llmrouter_server.gateway.envoy_api import ProcessingRequest, ProcessingResponse
from llmrouter_server.gateway.ext_proc import CHAT, PROCESS, ExtProc
from llmrouter_server.gateway.plan import PlansUnderWay
from llmrouter_server.gateway.server import SECRET_HEADER, GatewayServer
from llmrouter_server.runtime.auth import Caller
from llmrouter_server.runtime.local_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmrouter_server.gateway.plan import Plan

PLAN = plan()
SECRET = "s" * 32
PATIENCE_S = 20.0


class Decides:
    """Decides always the same, and keeps what it is told to take back."""

    def __init__(self) -> None:
        self.undone: list[Plan] = []
        self.stands_still_until: threading.Event | None = None
        """So that the server hears of nothing else before the plan is there."""
        self.stands_still = threading.Event()

    async def verify(self, _token: str) -> Caller:
        return Caller(PLAN.user_id, frozenset())

    async def decide(self, *_: object, **__: object) -> Prepared:
        if self.stands_still_until is not None:
            self.stands_still.set()
            assert self.stands_still_until.wait(PATIENCE_S)
        return Prepared(PLAN, "", is_slow=False)

    async def undo(self, undone: Plan) -> None:
        self.undone.append(undone)


class Envoy:
    """Has sent a request."""

    def __init__(self, *, request_id: str = "1") -> None:
        sent = {":path": CHAT, "authorization": "Bearer t", "x-request-id": request_id}
        headers = [{"key": name, "raw_value": value.encode()} for name, value in sent.items()]
        body = b'{"messages":[{"role":"user","content":"Hi"}]}'
        self.sends = [
            ProcessingRequest(request_headers={"headers": {"headers": headers}}),
            ProcessingRequest(request_body={"body": body, "end_of_stream": True}),
        ]

    async def read(self) -> Any:
        return self.sends.pop(0)


@pytest.fixture
def decides() -> Decides:
    return Decides()


@pytest.fixture
async def port(decides: Decides) -> AsyncIterator[int]:
    [port] = free_ports(1)
    doors = [ExtProc(decides, decides, decides, PlansUnderWay()).handler()]  # type: ignore[arg-type]
    server = GatewayServer(f"127.0.0.1:{port}", SECRET, doors, reuse_port=False)
    await server.start()
    try:
        yield port
    finally:
        await server.stop()


@contextlib.contextmanager
def asked(port: int, sends: list[Any]) -> Iterator[Any]:
    """A stream that stays open, as Envoy's does."""
    over = threading.Event()

    def sent() -> Iterator[Any]:
        yield from sends
        over.wait(PATIENCE_S)

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(PROCESS, ProcessingRequest.SerializeToString, ProcessingResponse.FromString)
        try:
            yield call(sent(), metadata=((SECRET_HEADER, SECRET),), timeout=PATIENCE_S)
        finally:
            over.set()


def take(port: int) -> str:
    """Take the plan, and break the stream off."""
    with asked(port, Envoy().sends) as call:
        answer = str(next(call))
        call.cancel()
        return answer


async def test_a_plan_that_was_sent_is_kept_though_its_stream_is_broken_off(decides: Decides, port: int) -> None:
    for _ in range(20):
        assert str(PLAN.decision_id) in await asyncio.to_thread(take, port)
    await asyncio.sleep(0.1)
    assert decides.undone == []


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_plan_that_could_not_be_sent_is_taken_back(decides: Decides, port: int, *, is_first: bool) -> None:
    """The first call is one that grpc.aio takes itself: see if_unsent."""
    if not is_first:
        await asyncio.to_thread(take, port)
    decides.stands_still_until = has_left = threading.Event()

    def leave() -> None:
        with asked(port, Envoy().sends) as call:
            assert decides.stands_still.wait(PATIENCE_S)
            call.cancel()
        time.sleep(0.5)  # gRPC hears of that by itself, the event loop does not
        has_left.set()

    await asyncio.to_thread(leave)
    async with asyncio.timeout(PATIENCE_S):
        while not decides.undone:
            await asyncio.sleep(0.01)
    assert decides.undone == [PLAN]


@pytest.mark.parametrize("sends", [[], [ProcessingRequest()], Envoy().sends[1:], Envoy().sends[:1]])
async def test_a_request_without_its_headers_or_body_is_refused(decides: Decides, port: int, sends: list[Any]) -> None:
    def ask() -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(PROCESS, ProcessingRequest.SerializeToString, ProcessingResponse.FromString)
            with pytest.raises(grpc.RpcError) as caught:
                next(call(iter(sends), metadata=((SECRET_HEADER, SECRET),), timeout=PATIENCE_S))
            return caught.value

    refused = await asyncio.to_thread(ask)
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert decides.undone == []
