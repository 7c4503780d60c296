"""Asks a provider's server one thing and learns the status of its answer, whatever that server may do.

Nothing else of the answer is used or kept: the body is never read. The connection goes to an address that was checked
itself, so that a name that resolves to something else a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

import h11

from llmrouter_server.catalog.provider import is_private_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

TOTAL_S = 8.0
CONNECT_S = 3.0
"""For each address, so that one that swallows everything leaves time for the next."""
MAX_ADDRESSES = 4
MAX_HEAD_BYTES = 65_536
READ_BYTES = 4096
MAX_AT_ONCE = 32
"""In one process. Others wait, within their own time."""

Resolve: TypeAlias = "Callable[[str, int], Awaitable[Sequence[str]]]"
Headers: TypeAlias = tuple[tuple[str, str], ...]


class Failure(enum.Enum):
    """Why there is no status; the value is the sentence for people."""

    TIME_OUT = "the provider did not answer in time"
    UNKNOWN_NAME = "the provider's host name cannot be resolved"
    PRIVATE = "the provider's address is private, and keys are not sent there"
    NO_CONNECTION = "no connection to the provider could be made or kept"
    TLS = "the provider's certificate is not valid, or it speaks no TLS"
    NO_HTTP = "the provider's answer was not understood"


class ProbeError(Exception):
    """There is no status. Holds nothing of the request or of what the server sent."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    authority: str
    path: str
    is_tls: bool


class Probe:
    """Makes GET requests, each in a bounded time. Redirects are an answer like any other."""

    def __init__(
        self,
        *,
        allow_private: bool,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        total_s: float = TOTAL_S,
    ) -> None:
        """Take the system's certificates unless `tls` has others, and the system's names unless `resolve` does."""
        self._allow_private, self._tls = allow_private, tls or _system_tls()
        self._resolve, self._total_s = resolve or _resolve, total_s
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def status(self, url: str, headers: Headers) -> int:
        """Return the status of the final answer to a GET, 200 to 999; ProbeError when there is none."""
        try:
            async with asyncio.timeout(self._total_s), self._slots:
                return await self._status(url, headers)
        except TimeoutError:
            raise ProbeError(Failure.TIME_OUT) from None

    async def _status(self, url: str, headers: Headers) -> int:
        target = _target(url)
        exchange = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        request = _request(exchange, target, headers)
        reader, writer = await self._connect(target, await self._addresses(target))
        try:
            writer.write(request)
            return await _read_status(exchange, reader)
        except ssl.SSLError:
            raise ProbeError(Failure.TLS) from None
        except OSError:
            raise ProbeError(Failure.NO_CONNECTION) from None
        finally:
            writer.transport.abort()  # says no goodbye, and so waits for none

    async def _addresses(self, target: _Target) -> Sequence[str]:
        if not self._allow_private and is_private_address(target.host):
            raise ProbeError(Failure.PRIVATE)
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            raise ProbeError(Failure.UNKNOWN_NAME)
        if not self._allow_private and any(map(is_private_address, addresses)):
            raise ProbeError(Failure.PRIVATE)
        return addresses[:MAX_ADDRESSES]

    async def _connect(
        self, target: _Target, addresses: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failure = Failure.NO_CONNECTION
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(
                        address,
                        target.port,
                        limit=MAX_HEAD_BYTES,
                        ssl=self._tls if target.is_tls else None,
                        server_hostname=target.host if target.is_tls else None,
                    )
            except ssl.SSLError:
                failure = Failure.TLS
            except TimeoutError:
                failure = Failure.TIME_OUT
            except (OSError, ValueError):
                failure = Failure.NO_CONNECTION
        raise ProbeError(failure)


def _target(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError:
        raise ProbeError(Failure.UNKNOWN_NAME) from None
    if not name:
        raise ProbeError(Failure.UNKNOWN_NAME)
    is_tls = parts.scheme == "https"
    authority = f"[{name}]" if ":" in name else name
    return _Target(
        host=name,
        port=port or (443 if is_tls else 80),
        authority=authority if port is None else f"{authority}:{port}",
        path=quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._"),
        is_tls=is_tls,
    )


def _request(exchange: h11.Connection, target: _Target, headers: Headers) -> bytes:
    """Return the request's bytes. What h11 says of a value it refuses is dropped: the value may be a key."""
    try:
        head = h11.Request(
            method="GET",
            target=target.path,
            headers=[
                ("host", target.authority),
                *headers,
                ("accept", "application/json"),
                ("accept-encoding", "identity"),
                ("user-agent", "llmrouter"),
                ("connection", "close"),
            ],
        )
        return (exchange.send(head) or b"") + (exchange.send(h11.EndOfMessage()) or b"")
    except (h11.LocalProtocolError, UnicodeError):
        raise ProbeError(Failure.NO_HTTP) from None


async def _read_status(exchange: h11.Connection, reader: asyncio.StreamReader) -> int:
    left = MAX_HEAD_BYTES
    while True:
        try:
            event = exchange.next_event()
        except h11.RemoteProtocolError:
            raise ProbeError(Failure.NO_HTTP) from None
        if isinstance(event, h11.Response):
            return event.status_code
        if isinstance(event, h11.InformationalResponse):
            continue
        if event is not h11.NEED_DATA or left <= 0:
            raise ProbeError(Failure.NO_HTTP)
        received = await reader.read(min(READ_BYTES, left))
        if not received:
            raise ProbeError(Failure.NO_CONNECTION)
        left -= len(received)
        exchange.receive_data(received)


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _system_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
