"""A request to a provider as it came, and the provider's end of the connection on which it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    version: str = "HTTP/1.1"
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
    """One request's end of the connection, in HTTP/1.1, for a fault to act on."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen = seen
        self.since_s = 0.0
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
        reset(self._writer.transport)

    async def silence(self) -> None:
        """Say nothing until the client goes, or the provider does."""
        await asyncio.Event().wait()


def json_of(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        body = json.loads(raw)
        return body if isinstance(body, dict) else {}
    return {}


def reset(transport: asyncio.WriteTransport) -> None:
    connection = transport.get_extra_info("socket")
    with suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"
