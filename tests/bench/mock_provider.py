"""A provider that answers from memory, as fast as asyncio can: a process of its own, `python -m bench.mock_provider`.

An answer in one piece goes out at once. A stream goes out a chunk every TICK_S, all streams in step: as many chunks as
the request's bound of tokens says.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK_S = 0.01
INPUT_TOKENS, OUTPUT_TOKENS = 19, 40
USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
CONTENT = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 3


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _frame(kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
    frame = {"id": "chatcmpl-Bench0123456789", "object": kind, "created": 1_700_000_000, "model": "bench-model"}
    return _json({**frame, "choices": choices, "usage": usage, "system_fingerprint": "fp_bench"})


def _chunk(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: %b\n\n" % _frame("chat.completion.chunk", [choice], None)


ANSWER = _frame(
    "chat.completion",
    [
        {
            "index": 0,
            "message": {"role": "assistant", "content": CONTENT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    USAGE,
)
PIECE = " brown fox"
EVENT = _chunk({"content": PIECE}, None)
LAST = _chunk({}, "stop") + b"data: %b\n\n" % _frame("chat.completion.chunk", [], USAGE) + b"data: [DONE]\n\n"


def stream_of(chunks: int) -> bytes:
    """Return the whole body of a stream of so many chunks."""
    return EVENT * chunks + LAST


def _in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
NOT_HERE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ONE, END = _in_chunk(EVENT), _in_chunk(LAST) + b"0\r\n\r\n"
BOUND = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Ticker:
    """Sends every stream its next chunk, all at the same moments."""

    def __init__(self) -> None:
        self._streams: list[Iterator[None]] = []

    def add(self, transport: asyncio.Transport, chunks: int) -> None:
        self._streams.append(_stream(transport, chunks))
        if len(self._streams) == 1:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._streams = [stream for stream in self._streams if next(stream, self) is None]
        if self._streams:
            loop.call_at(max(began + TICK_S, loop.time()), self._tick)


def _stream(transport: asyncio.Transport, chunks: int) -> Iterator[None]:
    for _ in range(chunks):
        if transport.is_closing():
            return
        transport.write(ONE)
        yield
    transport.write(END)


class Connection(asyncio.Protocol):
    """Serves one request after another."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker, self._came = ticker, b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a TCP connection it is
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        came = self._came = self._came + data
        head_end = came.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = LENGTH.search(came, 0, head_end)
        if length is None:  # it asks for something else, such as the models
            self._came = b""
            self._transport.write(NOT_HERE)
            return
        end = head_end + 4 + int(length[1])
        if len(came) < end:
            return
        body, self._came = came[head_end + 4 : end], came[end:]
        if b'"stream":true' not in body:
            self._transport.write(WHOLE)
            return
        bound = BOUND.search(body)
        assert bound is not None
        self._transport.write(STREAM_HEAD)
        self._ticker.add(self._transport, int(bound[1]))


async def main() -> None:
    ticker = Ticker()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(ticker), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
