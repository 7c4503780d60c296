"""A provider's server: it keeps what it was asked, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from h2.exceptions import StreamClosedError

from gateway.behaviour import Fault, model_list, ok
from gateway.provider_exchange import Exchange, Fate, Seen, reset
from gateway.provider_http1 import MAX_HEAD_BYTES, read_request
from gateway.provider_http2 import Http2Connection
from gateway.refusals import no_such_path

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Serve = Callable[["_Connection", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENCE_S = 20.0
"""How long a test waits for a request before it fails."""


class Provider:
    """Where it listens, what it was asked, and how it is to behave."""

    def __init__(self, name: str, tls: ssl.SSLContext | None, clock: Callable[[], float]) -> None:
        self.name = name
        self.requests: list[Seen] = []
        self.connections = 0
        """How many there were."""
        self.models: list[str] = ["test-model"]
        """What GET …/models lists."""
        self.failures: list[BaseException] = []
        """Of faults that are themselves faulty. The context raises the first when it closes."""
        self._tls, self._clock = tls, clock
        self._behaviour, self._listing = _Script(ok()), _Script(model_list(self.models))
        self._by_model: dict[str, _Script] = {}
        self._open: set[_Connection] = set()
        self._came = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """By name where there is TLS, since that is about names."""
        return f"https://localhost:{self.port}/v1" if self._tls else f"http://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Seen]:
        """The requests for completions, without those for the list of models."""
        return [seen for seen in self.requests if seen.method == "POST"]

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def behave(self, *faults: Fault) -> None:
        """Let the next completions follow these, one each, and all after them the last. None: be well."""
        self._behaviour = _Script(*faults or (ok(),))

    def behave_for(self, model_name: str, *faults: Fault) -> None:
        """Behave so towards requests for this model, whatever others get. None: like for the others."""
        self._by_model.pop(model_name, None)
        if faults:
            self._by_model[model_name] = _Script(*faults)

    def list_models_as(self, *faults: Fault) -> None:
        """Behave so when asked for the list of models, which `behave` leaves alone. None: list them."""
        self._listing = _Script(*faults or (model_list(self.models),))

    async def request(self, number: int = 1) -> Seen:
        """Wait for the completion with this number, from 1.

        TimeoutError: it did not come in 20 s.
        """
        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(lambda: len(self.chats) >= number)
        return self.chats[number - 1]

    async def go_away(self, *, hang_up: bool = True) -> None:
        """Refuse connections, and unless told otherwise break those there are. Nobody else can take the port."""
        if self._server is not None:
            self._server.close()
            self._server, self._socket = None, _bound(self.port)
        if hang_up:
            await self.drop_connections()

    async def come_back(self) -> None:
        """Listen again, on the same port."""
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self._serve, self._open), sock=self._socket, ssl=self._tls
            )

    async def drop_connections(self) -> None:
        """Break all there are, also those that idle (RST)."""
        connections = list(self._open)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.task for connection in connections), return_exceptions=True)

    async def close(self) -> None:
        await self.go_away()
        self._socket.close()
        if self.failures:
            raise self.failures[0]

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number, tls = self.connections, writer.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            await self._serve_http2(Http2Connection(reader, writer, number))
            return
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            while True:
                seen = await read_request(reader, writer, number, self._clock)
                exchange = Exchange(seen, writer)
                await self._answer(exchange, connection.gone)
                if not exchange.keeps_alive or not exchange.is_whole:
                    break
        writer.close()

    async def _serve_http2(self, connection: Http2Connection) -> None:
        async with asyncio.TaskGroup() as answers:
            async for exchange, gone in connection.requests(self._clock):
                answers.create_task(self._answer(exchange, gone))
        connection.writer.close()

    async def _answer(self, exchange: Exchange, client_is_gone: asyncio.Event) -> None:
        seen = exchange.seen
        async with self._came:
            self.requests.append(seen)
            self._came.notify_all()
        fault, began = self._script(seen).follow(seen.at)
        seen.fault, exchange.since_s = fault.name, seen.at - began
        act = asyncio.ensure_future(fault.act(exchange))
        gone = asyncio.ensure_future(client_is_gone.wait())
        try:
            await asyncio.wait({act, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            act.cancel()
            gone.cancel()
            (error, _) = await asyncio.gather(act, gone, return_exceptions=True)
            if exchange.is_broken:
                seen.fate = Fate.BROKEN
            else:
                seen.fate = Fate.ANSWERED if exchange.is_whole else Fate.LEFT
            is_refused = isinstance(error, StreamClosedError) and client_is_gone.is_set()
            if isinstance(error, Exception) and not isinstance(error, OSError) and not is_refused:
                self.failures.append(error)
                exchange.reset()
            seen.over.set()

    def _script(self, seen: Seen) -> _Script:
        path = seen.path.partition("?")[0]
        if seen.method == "GET" and path.endswith("/models"):
            return self._listing
        if seen.method == "POST" and path.endswith("/chat/completions"):
            return self._by_model.get(str(seen.body.get("model")), self._behaviour)
        return _Script(no_such_path())


@asynccontextmanager
async def provider(
    name: str = "provider", *, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Provider]:
    """Serve on a free port of this machine; at the end, break all connections at once."""
    served = Provider(name, tls, clock)
    await served.come_back()
    try:
        yield served
    finally:
        await served.close()


class _Script:
    """What is to be done with the requests to come."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = deque(faults)
        self._began: float | None = None

    def follow(self, now: float) -> tuple[Fault, float]:
        """Return what to do now, and since when it is being done."""
        if len(self._faults) > 1:
            return self._faults.popleft(), now
        if self._began is None:
            self._began = now
        return self._faults[0], self._began


class _Connection(asyncio.StreamReaderProtocol):
    """A connection that tells when its client is gone, also while nobody reads from it."""

    def __init__(self, serve: Serve, siblings: set[_Connection]) -> None:
        super().__init__(asyncio.StreamReader(limit=MAX_HEAD_BYTES), self._begin)
        self.gone = asyncio.Event()
        self.task: asyncio.Future[None]
        self._serve, self._siblings = serve, siblings
        self._writer: asyncio.StreamWriter

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._siblings.add(self)
        self.task = asyncio.ensure_future(self._serve(self, reader, writer))

    def abort(self) -> None:
        reset(self._writer.transport)
        self.task.cancel()

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._siblings.discard(self)
        super().connection_lost(exc)


def _bound(port: int) -> socket.socket:
    """Return a socket that holds the port, but refuses connections until it listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
