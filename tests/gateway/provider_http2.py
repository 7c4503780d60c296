"""A provider's connection in HTTP/2 (RFC 9113): several requests at once, each on a stream of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from gateway.provider_exchange import TELLTALES, Exchange, Seen, json_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

READ_BYTES = 1 << 16


@dataclass(slots=True)
class _Stream:
    head: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Http2Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.writer, self.http2 = writer, H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._reader, self._number = reader, number
        self._streams: dict[int, _Stream] = {}
        self._may_send_more = asyncio.Condition()

    async def requests(self, clock: Callable[[], float]) -> AsyncIterator[tuple[Http2Exchange, asyncio.Event]]:
        """Give out each request as soon as it is whole, and what tells when its client is gone, until all are."""
        self.http2.initiate_connection()
        await self.flush()
        try:
            while data := await self._reader.read(READ_BYTES):
                for event in self.http2.receive_data(data):
                    if isinstance(event, RequestReceived):
                        self._streams[event.stream_id] = _Stream(_joined(event.headers))
                    elif isinstance(event, DataReceived):
                        self._streams[event.stream_id].body += event.data
                        self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, StreamEnded):
                        stream = self._streams[event.stream_id]
                        seen = self._seen(stream, clock())
                        yield Http2Exchange(seen, self, event.stream_id), stream.gone
                    elif isinstance(event, StreamReset):
                        self._streams[event.stream_id].gone.set()
                    elif isinstance(event, WindowUpdated):
                        async with self._may_send_more:
                            self._may_send_more.notify_all()
                await self.flush()
        except (OSError, ProtocolError):
            pass  # it is over, one way or another
        finally:
            for stream in self._streams.values():
                stream.gone.set()

    async def send(self, stream_id: int, data: bytes) -> None:
        """Send a piece of a body as the client's windows allow."""
        left = memoryview(data)  # a slice of megabytes would be copied each time
        while left:
            async with self._may_send_more:
                await self._may_send_more.wait_for(lambda: self.http2.local_flow_control_window(stream_id) > 0)
            window = left[: self.http2.local_flow_control_window(stream_id)]
            left = left[len(window) :]
            while window:
                self.http2.send_data(stream_id, bytes(window[: self.http2.max_outbound_frame_size]))
                window = window[self.http2.max_outbound_frame_size :]
            await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.http2.data_to_send())
        await self.writer.drain()

    def _seen(self, stream: _Stream, at: float) -> Seen:
        head = {name: value for name, value in stream.head.items() if not name.startswith(":")}
        head["host"] = stream.head[":authority"]
        raw = bytes(stream.body)
        method, path = stream.head[":method"], stream.head[":path"]
        return Seen(at, method, path, head, json_of(raw), raw, self._number, version="HTTP/2")


class Http2Exchange(Exchange):
    """One request's stream, for a fault to act on."""

    def __init__(self, seen: Seen, connection: Http2Connection, stream_id: int) -> None:
        super().__init__(seen, connection.writer)
        self._connection, self._stream_id = connection, stream_id

    async def head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        *,
        content_type: str | None = "application/json",
        length: int | None = None,
        to_eof: bool = False,
    ) -> None:
        """Begin an answer of so many bytes; without a length as far as the stream goes, whichever is asked for."""
        del to_eof
        fields = [(":status", str(status)), *TELLTALES, *headers]
        if content_type:
            fields.append(("content-type", content_type))
        if length is not None:
            fields.append(("content-length", str(length)))
        self._connection.http2.send_headers(self._stream_id, fields)
        await self._connection.flush()

    async def body(self, data: bytes) -> None:
        self.seen.count(data)
        await self._connection.send(self._stream_id, data)

    async def end(self) -> None:
        self.is_whole = True
        self._connection.http2.end_stream(self._stream_id)
        await self._connection.flush()

    async def answer(
        self, status: int, data: bytes, headers: Iterable[tuple[str, str]] = (), *, content_type: str | None = None
    ) -> None:
        await self.head(status, headers, content_type=content_type or "application/json", length=len(data))
        await self.body(data)
        await self.end()

    async def raw(self, data: bytes) -> None:
        raise NotImplementedError("HTTP/2 knows nothing but frames")

    def reset(self, error: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Break this stream alone (RST_STREAM)."""
        self.is_broken = True
        with suppress(ProtocolError):  # over already
            self._connection.http2.reset_stream(self._stream_id, error)
        self._connection.writer.write(self._connection.http2.data_to_send())

    async def go_away(self, error: ErrorCodes = ErrorCodes.NO_ERROR, *, is_taken: bool = True) -> None:
        """Say that the connection takes no more requests (GOAWAY), this one still or not even this.

        Not by the library, which would end the connection for itself too.
        """
        last = self._stream_id if is_taken else 0
        frame = GoAwayFrame(stream_id=0, last_stream_id=last, error_code=error)
        self._connection.writer.write(frame.serialize())
        await self._connection.writer.drain()


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
