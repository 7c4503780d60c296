"""How calls come in: several at a time, and each as if it were alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from llmrouter_server.runtime import intake
from llmrouter_server.runtime.intake import AT_ONCE, Intake, if_unsent, told_by_a_pipe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BUSY, OTHER = "/test.Service/Busy", "/test.Service/Other"
PATIENCE_S = 20.0


@dataclass
class Echo(grpc.GenericRpcHandler):
    """Answers with the request and the metadata; counts what it does in each turn of the event loop."""

    began: dict[int, int] = field(default_factory=dict)
    turn: int = 0
    waits: asyncio.Event | None = None
    cancelled: int = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in (BUSY, OTHER):
            return None
        name = dict(details.invocation_metadata or ()).get("name")

        async def answer(request: bytes, _: object) -> bytes:
            self.began[self.turn] = self.began.get(self.turn, 0) + 1
            if self.waits is not None:
                try:
                    await self.waits.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            return request + str(name).encode()

        return grpc.unary_unary_rpc_method_handler(answer)

    async def count_turns(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)


@dataclass
class Running:
    server: grpc.aio.Server
    intake: Intake
    echo: Echo
    port: int

    async def call(self, number: int, method: str = BUSY) -> bytes:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = channel.unary_unary(method)(b"%d " % number, metadata=(("name", f"n{number}"),), timeout=PATIENCE_S)
            return bytes(await call)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as served:
        yield served


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Running]:
    server, echo = grpc.aio.server(), Echo()
    server.add_generic_rpc_handlers((echo,))
    taken = Intake(server, echo, (BUSY,))
    port = server.add_insecure_port("127.0.0.1:0")
    await taken.start()
    try:
        yield Running(server, taken, echo, port)
    finally:
        await server.stop(None)


async def test_every_call_is_answered_with_what_it_brought(running: Running) -> None:
    many = 3 * AT_ONCE  # also grpc.aio's own way takes some of them
    answers = await asyncio.gather(*(running.call(each, (BUSY, OTHER)[each % 2]) for each in range(2 * many)))
    assert answers == [b"%d n%d" % (each, each) for each in range(2 * many)]


async def test_what_nobody_answers_is_unimplemented(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.call(1, "/test.Service/Nothing")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_that_wait_are_begun_together(running: Running) -> None:
    """They come while the event loop is held up; grpc.aio itself begins one in each turn."""
    channel = grpc.insecure_channel(f"127.0.0.1:{running.port}")
    turns = asyncio.create_task(running.echo.count_turns())
    try:
        grpc.channel_ready_future(channel).result(PATIENCE_S)
        calls = [channel.unary_unary(BUSY).future(b"", timeout=PATIENCE_S) for _ in range(AT_ONCE)]
        time.sleep(0.5)  # noqa: ASYNC251 - that is the test
        async with asyncio.timeout(PATIENCE_S):
            while not all(call.done() for call in calls):
                await asyncio.sleep(0.01)
        assert max(running.echo.began.values()) > AT_ONCE / 4
    finally:
        turns.cancel()
        channel.close()


async def test_a_call_that_is_cancelled_is_not_worked_on_any_more(running: Running) -> None:
    running.echo.waits = asyncio.Event()
    calls = [asyncio.create_task(running.call(each)) for each in range(AT_ONCE + 2)]
    async with asyncio.timeout(PATIENCE_S):
        while sum(running.echo.began.values()) < len(calls):
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        while running.echo.cancelled < len(calls):
            await asyncio.sleep(0.01)


async def test_a_stop_lets_calls_end_and_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        served.echo.waits = asyncio.Event()
        calls = [asyncio.create_task(served.call(each)) for each in range(AT_ONCE + 2)]
        async with asyncio.timeout(PATIENCE_S):
            while sum(served.echo.began.values()) < len(calls):
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(served.server.stop(PATIENCE_S))
            await asyncio.sleep(0.1)
            served.echo.waits.set()
            assert sorted(await asyncio.gather(*calls)) == sorted(
                b"%d n%d" % (each, each) for each in range(len(calls))
            )
            await stopping
            while served.intake._tasks:
                await asyncio.sleep(0.01)
    gc.collect()
    assert not caplog.records  # of exceptions that nobody took


async def test_a_call_that_is_over_is_not_kept(running: Running) -> None:
    """grpc.aio keeps the last one that it took, until its next one."""
    requests = weakref.WeakSet[Any]()

    async def fail(request: Any, context: Any) -> None:
        requests.add(request)
        await context.abort(grpc.StatusCode.NOT_FOUND, "")

    class Request:
        def __init__(self, _: bytes) -> None:
            pass

    running.intake.resolve_handler = lambda _: grpc.unary_unary_rpc_method_handler(fail, Request)
    for each in range(2 * AT_ONCE):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await running.call(each)
    gc.collect()
    assert len(requests) < AT_ONCE / 4


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(intake, "_PARTS", {**intake._PARTS, "_handle_rpc": ("something", "else")})
    intake.is_known.cache_clear()
    yield
    intake.is_known.cache_clear()


@pytest.mark.usefixtures("unknown")
async def test_with_a_grpcio_that_is_not_known_calls_come_in_as_it_takes_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving() as served:
            assert await asyncio.gather(*map(served.call, range(3))) == [b"0 n0", b"1 n1", b"2 n2"]
            assert not served.intake._tasks
    [line] = caplog.records
    assert vars(line)["unlike"] == ["_handle_rpc"]


def test_the_grpcio_that_is_locked_is_known() -> None:
    assert intake.is_known()


BEGUN_IN_THE_BLOCK = """
import asyncio, os, sys

import grpc
import uvloop

from llmrouter_server.runtime.intake import told_by_a_pipe
from unit.test_intake import AT_ONCE, serving

def pipes():
    links = (os.readlink(f"/dev/fd/{each}") for each in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{each}"))
    return sum(each.startswith("pipe:") for each in links)

async def main():
    before = pipes()
    with told_by_a_pipe():
        server = grpc.aio.server()
    made = pipes() - before
    async with serving() as served:
        answers = await asyncio.gather(*map(served.call, range(3 * AT_ONCE)))
    print(made, answers == [b"%d n%d" % (each, each) for each in range(3 * AT_ONCE)])

(uvloop if sys.argv[1] == "uvloop" else asyncio).run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the test looks where Linux tells what is open")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_grpcs_thread_wakes_pythons_up_through_a_pipe(loop: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-c", BEGUN_IN_THE_BLOCK, loop),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaints = await process.communicate()
    assert printed.split() == [b"2", b"True"], complaints.decode()
    assert b"ResourceWarning" not in complaints


def test_of_many_wake_ups_one_read_takes_all_and_none_waits() -> None:
    with told_by_a_pipe():
        wakes, waker = socket.socketpair()
    wakes.setblocking(False)
    with contextlib.closing(wakes), waker:
        fd = waker.fileno()
        for _ in range(100):
            os.write(fd, b"1")
        assert len(wakes.recv(1)) == 100
        with pytest.raises(BlockingIOError):
            wakes.recv(1)
        written = os.write(fd, bytes(10_000_000))  # a full one holds up nobody
        assert len(wakes.recv(1)) < written < 10_000_000


def test_nobody_else_is_given_a_pipe() -> None:
    def pair() -> bytes:
        one, other = socket.socketpair(type=socket.SOCK_STREAM)
        with one, other:
            one.send(b"1")
            return other.recv(1)

    with told_by_a_pipe(), ThreadPoolExecutor() as another_thread:
        assert another_thread.submit(pair).result() == b"1"
    assert pair() == b"1"


@pytest.mark.usefixtures("unknown")
def test_a_grpcio_that_is_not_known_is_given_its_sockets() -> None:
    with told_by_a_pipe():
        one, other = socket.socketpair()
    with one, other:
        assert isinstance(one, socket.socket)


@pytest.mark.parametrize(
    ("ends_with", "is_done"),
    [
        (None, False),
        (asyncio.CancelledError(), False),
        (ValueError("a fault"), False),
        (cygrpc.ExecuteBatchError("the client has left"), True),
        (cygrpc._ServerStoppedError(), True),
    ],
)
async def test_what_is_to_be_done_if_an_answer_cannot_be_sent_is_done_then_alone(
    ends_with: BaseException | None, is_done: bool
) -> None:
    done = []

    async def undo() -> None:
        done.append(True)

    async def handle() -> None:
        assert if_unsent(undo)
        if ends_with is not None:
            raise ends_with

    with contextlib.suppress(BaseException):
        await intake._to_its_end(handle())
    assert done == [True] * is_done


def test_where_nobody_hears_of_answers_that_cannot_be_sent_it_is_said() -> None:
    async def undo() -> None:
        raise AssertionError

    assert not if_unsent(undo)
