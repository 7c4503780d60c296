"""Reads requests in HTTP/1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.provider_exchange import Seen, json_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MAX_HEAD_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 20


async def read_request(
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
    return Seen(clock(), method, path, headers, json_of(raw), raw, connection)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(_bounded(int(headers.get("content-length", "0"))))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(_bounded(len(body) + size) - len(body) + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return body


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_BODY_BYTES:
        raise ValueError("no body of this size is meant")
    return size
