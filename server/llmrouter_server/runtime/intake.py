"""How calls come in: several at a time, where grpc.aio takes one, and then asks gRPC for the next.

gRPC's thread and Python's would wake each other up for every single call. So they hand over all that there are, and
what the work on a call needs is still in the processor's caches when the next one is worked on.

Parts of grpc.aio that are not public are used for it. Where they are not as they are known here, calls come in as
grpc.aio takes them, and the log says so.
"""

# ruff: noqa: SLF001 - see above

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import operator
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from typing import BinaryIO

log = logging.getLogger(__name__)

AT_ONCE = 16
"""How many calls of one RPC can be handed over together: more than that saves next to nothing."""
_PARTS: Mapping[str, Sequence[str]] = {
    "PollerCompletionQueue._handle_events": ("self", "context_loop"),
    "AioServer.is_running": ("self",),
    "AioServer._request_registered_call": ("self", "method"),
    "_handle_rpc": ("method_name", "method_resolver", "interceptors", "rpc_state", "loop", "concurrency_exceeded"),
    "_schedule_rpc_coro": ("rpc_coro", "rpc_state", "loop", "method_name"),
}
"""What is used of grpc.aio's compiled part, and what that takes; the errors below besides."""
_ERRORS = ("_RequestCallError", "ExecuteBatchError", "_ServerStoppedError")
_unsent: contextvars.ContextVar[list[Callable[[], Awaitable[None]]]] = contextvars.ContextVar("unsent")


def if_unsent(do: Callable[[], Awaitable[None]]) -> bool:
    """Have this done when the only answer of the call that is worked on cannot be sent, since the client has left.

    False: it will not be done, because nobody hears of that. So it is with calls which grpc.aio took itself: one in
    seventeen, or all where it is not known here.
    """
    todo = _unsent.get(None)
    if todo is not None:
        todo.append(do)
    return todo is not None


class Intake:
    """Starts a server, and takes its calls. The server must have no interceptors and no limit of calls at once."""

    def __init__(self, server: grpc.aio.Server, handler: grpc.GenericRpcHandler, methods: Sequence[str]) -> None:
        """`handler` is the one that the server has for all calls; `methods` are such as /package.Service/Name.

        The others come as grpc.aio takes them, and wait long where these are many.
        """
        self._server, self._methods = server, methods if is_known() else ()
        self.resolve_handler = handler.service
        """What grpc.aio asks who answers a call."""
        self._tasks: set[asyncio.Task[None]] = set()
        for method in self._methods:
            _, service, name = method.split("/")
            # Known to gRPC by its name, and to grpc.aio by no handler of its own, which would not learn the metadata.
            server.add_registered_method_handlers(service, {name: None})  # type: ignore[dict-item]

    async def start(self) -> None:
        """Begin; until the server is stopped."""
        await self._server.start()
        for method in self._methods:
            for _ in range(AT_ONCE):
                self._begin(self._take(method))

    async def _take(self, method: str) -> None:
        server, name, loop = self._server._server, method.encode(), asyncio.get_running_loop()  # type: ignore[attr-defined]
        while server.is_running():
            with contextlib.suppress(cygrpc._RequestCallError):  # the server stops, or nobody waits any more
                self._begin(self._answer(await server._request_registered_call(name), method, loop))

    def _answer(self, call: Any, method: str, loop: asyncio.AbstractEventLoop) -> Any:  # noqa: ANN401 - without types
        """Not in `_take`, which would keep the call, with all that an aborted one holds, until its next one."""
        handling = _to_its_end(cygrpc._handle_rpc(method, self, (), call, loop, False))
        return cygrpc._schedule_rpc_coro(handling, call, loop, method)

    def _begin(self, running: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(running)
        self._tasks.add(task)  # or nobody would keep it alive
        task.add_done_callback(self._tasks.discard)


async def _to_its_end(handling: Coroutine[Any, Any, None]) -> None:
    todo: list[Callable[[], Awaitable[None]]] = []
    _unsent.set(todo)
    try:
        await handling
    except (cygrpc.ExecuteBatchError, cygrpc._ServerStoppedError):
        for do in todo:
            await do()
        raise


@functools.cache
def is_known() -> bool:
    """Whether grpc.aio is made as it is known here."""
    try:
        unlike = [name for name, takes in _PARTS.items() if _parameters(name) != takes]
        unlike += [name for name in _ERRORS if not issubclass(getattr(cygrpc, name), Exception)]
    except (AttributeError, TypeError, ValueError) as error:
        unlike = [str(error)]
    if unlike:
        told = {"version": grpc.__version__, "unlike": unlike}
        log.warning("this grpcio is not known here: each call costs more", extra=told)
    return not unlike


def _parameters(name: str) -> Sequence[str]:
    return tuple(inspect.signature(operator.attrgetter(name)(cygrpc)).parameters)


@contextlib.contextmanager
def told_by_a_pipe() -> Iterator[None]:
    """Let grpc.aio begin in this block. Its thread sends a byte for all that it tells, four times a call.

    To a pipe that takes a third of what a socket takes, and all the bytes of a moment are read at once.
    """

    def make(*asked: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one, for the other threads
        return _make_pipe() if threading.get_ident() == ours else real(*asked, **named)

    real, ours = socket.socketpair, threading.get_ident()
    if is_known():
        socket.socketpair = make
    try:
        yield
    finally:
        socket.socketpair = real


def _make_pipe() -> tuple[_Reading, BinaryIO]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # when it is full, nobody need be woken up
    return _Reading(reading), os.fdopen(writing, "wb", buffering=0)


class _Reading:
    """A pipe's end that stands in for a socket, as far as grpc.aio uses one."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "rb", buffering=0)
        self.close, self.fileno = self._file.close, self._file.fileno

    def setblocking(self, flag: bool) -> None:
        os.set_blocking(self.fileno(), flag)

    def recv(self, _: int) -> bytes:
        """Read all, not one: grpc.aio then does all that there is to do."""
        return os.read(self.fileno(), select.PIPE_BUF)
