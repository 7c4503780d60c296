"""A provider's HTTP/1.1 server: it keeps what it was asked, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gateway.faults import Fault, model_list, no_such_path, ok

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    Serve = Callable[["_Connection", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TELLTALES = (
    ("server", "provider-under-test"),
    ("via", "1.1 provider-proxy"),
    ("set-cookie", "__cf_bm=provider-cookie; path=/; HttpOnly; Secure"),
    ("set-cookie", "_cfuvid=provider-visitor; path=/"),
    ("openai-organization", "org-of-the-provider"),
    ("openai-processing-ms", "17"),
    ("openai-version", "2020-10-01"),
    ("x-request-id", "req_of_the_provider"),
    ("x-ratelimit-limit-requests", "5000"),
    ("x-ratelimit-remaining-requests", "4999"),
    ("x-ratelimit-remaining-tokens", "159976"),
    ("x-ratelimit-reset-requests", "12ms"),
    ("cf-ray", "provider-ray"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("strict-transport-security", "max-age=31536000"),
    ("access-control-expose-headers", "X-Request-ID"),
)
"""On every answer, and none of a client's business."""
MAX_HEAD_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 20
PATIENCE_S = 20.0
"""How long a test waits for a request before it fails."""


class Fate(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"
    """The provider said all it meant to say, also if that was nonsense or cut."""
    LEFT = "left"
    """The client hung up first."""
    BROKEN = "broken"
    """The provider broke the connection."""


@dataclass(slots=True, eq=False)
class Seen:
    """A request as it came, what was done with it, and how it ended.

    at: by the provider's clock, in seconds. headers: names in lower case, repeated ones joined by ", ".
    body: {} unless it was a JSON object. connection: counts from 1.
    sent_bytes, sent: of the answer's body, without its chunks' frames. over: set as soon as fate is final.
    """

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes
    connection: int
    fault: str = ""
    fate: Fate = Fate.OPEN
    sent_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _sent: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def sent(self) -> str:
        """SHA-256 in hex."""
        return str(self._sent.hexdigest())

    def count(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._sent.update(data)

    @property
    def wants_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """The last chunk of a stream is to tell it."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


class Exchange:
    """One request's end of the connection, for a fault to act on."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter, since_s: float) -> None:
        self.seen = seen
        self.since_s = since_s
        """How long the provider has been behaving like this."""
        self.is_broken = self.is_whole = False
        self.keeps_alive = seen.headers.get("connection", "").lower() != "close"
        self._writer, self._chunked = writer, False

    async def head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        *,
        content_type: str | None = "application/json",
        length: int | None = None,
        to_eof: bool = False,
    ) -> None:
        """Begin an answer of so many bytes; without a length in chunks, or as far as the connection goes."""
        self._chunked = length is None and not to_eof
        lines = [f"HTTP/1.1 {status} {_reason(status)}"]
        lines += [f"{name}: {value}" for name, value in (*TELLTALES, *headers)]
        if content_type:
            lines.append(f"content-type: {content_type}")
        if self._chunked:
            lines.append("transfer-encoding: chunked")
        elif length is not None:
            lines.append(f"content-length: {length}")
        if to_eof:
            self.keeps_alive = False
        if not self.keeps_alive:
            lines.append("connection: close")
        await self.raw("\r\n".join((*lines, "", "")).encode())

    async def body(self, data: bytes) -> None:
        """Send a piece of the body, in a chunk of its own if the answer is in chunks."""
        if data:
            self.seen.count(data)
            await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        self.is_whole = True  # before the client has it: it may hang up as soon as it does
        await self.raw(b"0\r\n\r\n" if self._chunked else b"")

    async def answer(
        self, status: int, data: bytes, headers: Iterable[tuple[str, str]] = (), *, content_type: str | None = None
    ) -> None:
        """Say all at once."""
        await self.head(status, headers, content_type=content_type or "application/json", length=len(data))
        self.is_whole = True
        await self.body(data)

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        if data:
            self._writer.write(data)
        await self._writer.drain()

    async def last(self, data: bytes) -> None:
        """Send bytes as they are, after which the connection is of no more use. Returning closes it."""
        self.is_whole, self.keeps_alive = True, False
        await self.raw(data)

    async def hang_up(self) -> None:
        """Close the connection properly (FIN) after all that was written."""
        self.is_broken, self.keeps_alive = True, False
        self._writer.close()
        await self._writer.wait_closed()

    def reset(self) -> None:
        """Break the connection (RST)."""
        self.is_broken, self.keeps_alive = True, False
        _reset(self._writer.transport)

    async def silence(self) -> None:
        """Say nothing until the client goes, or the provider does."""
        await asyncio.Event().wait()


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
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

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
        number = self.connections
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            while True:
                seen = await _read(reader, writer, number, self._clock)
                async with self._came:
                    self.requests.append(seen)
                    self._came.notify_all()
                if not await self._answer(seen, connection, writer):
                    break
        writer.close()

    async def _answer(self, seen: Seen, connection: _Connection, writer: asyncio.StreamWriter) -> bool:
        """Return whether the connection may be used again."""
        fault, began = self._script(seen).follow(seen.at)
        seen.fault = fault.name
        exchange = Exchange(seen, writer, seen.at - began)
        act = asyncio.ensure_future(fault.act(exchange))
        gone = asyncio.ensure_future(connection.gone.wait())
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
            if isinstance(error, Exception) and not isinstance(error, OSError):
                self.failures.append(error)
                exchange.reset()
            seen.over.set()
        return exchange.keeps_alive and exchange.is_whole

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
        _reset(self._writer.transport)
        self.task.cancel()

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._siblings.discard(self)
        super().connection_lost(exc)


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, clock: Callable[[], float]
) -> Seen:
    """Read a request.

    asyncio.IncompleteReadError: there was no other. ValueError, asyncio.LimitOverrunError: it is not HTTP.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        key, value = (part.strip() for part in line.split(":", 1))
        headers[key.lower()] = f"{headers[key.lower()]}, {value}" if key.lower() in headers else value
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    raw = await _read_body(reader, headers)
    return Seen(clock(), method, path, headers, _json_of(raw), raw, connection)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(_bounded(int(headers.get("content-length", "0"))))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(_bounded(len(body) + size) - len(body) + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return body


def _json_of(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        body = json.loads(raw)
        return body if isinstance(body, dict) else {}
    return {}


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_BODY_BYTES:
        raise ValueError("no body of this size is meant")
    return size


def _bound(port: int) -> socket.socket:
    """Return a socket that holds the port, but refuses connections until it listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


def _reset(transport: asyncio.WriteTransport) -> None:
    connection = transport.get_extra_info("socket")
    with suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"
