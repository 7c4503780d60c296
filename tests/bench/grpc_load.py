"""A load of gRPC calls, as a process of its own: `python -m bench.grpc_load '<Load as JSON>'`.

It speaks HTTP/2 itself, as much of it as it needs, and so costs a small part of what a gRPC client in Python does: the
server is what is measured. It prints one JSON object, with a sample of the answers for whoever is to judge them.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import struct
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct(">BHBBI")
LONGEST_FRAME = 16_384
HUGE_WINDOW = 2**31 - 1 - 65535
FIRST_DYNAMIC = 62
"""HPACK's index of the header that was added last (RFC 7541, section 2.3.3)."""
WARM_UP = 0.2
LATE_S = 30.0
SAMPLES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to call, and how. Each caller calls again as soon as it is answered.

    messages: what is sent in a call, in base64, all at once; one answer is expected. Callers take turns in these.
    counted_field: a protobuf field, a number, that is added to all first messages and counts the calls: no two ask the
    same. 0: none.
    with_ids: each call has a request id of its own, as those of our clients have.
    """

    port: int
    path: str
    metadata: Mapping[str, str]
    messages: Sequence[Sequence[str]]
    connections: int
    callers: int
    """Of each connection."""
    seconds: float
    most_calls: int = 1_000_000
    counted_field: int = 0
    with_ids: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Results:
    early_s: list[float] = field(default_factory=list)
    """How long calls took that were begun in the time to warm up."""
    late_s: list[float] = field(default_factory=list)
    calls: int = 0
    begun: int = 0
    sample: list[bytes] = field(default_factory=list)
    """Last messages of calls, some from all over the time."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def data(stream: int, flags: int, payload: bytes) -> bytes:
    """Return the frames of a message, none longer than every server takes."""
    *first, last = (payload[at : at + LONGEST_FRAME] for at in range(0, len(payload), LONGEST_FRAME))
    return b"".join(frame(DATA, 0, stream, each) for each in first) + frame(DATA, flags, stream, last)


def grpc_message(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def _integer(value: int, bits: int, first: int) -> bytes:
    """Write a number as HPACK does (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    return bytes([first | value]) if value < most else bytes([first | most]) + varint(value - most)


def varint(value: int) -> bytes:
    """Write a number seven bits at a time, the lowest first, as protobuf does too."""
    written = bytearray()
    while value >= 128:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def header_blocks(headers: Sequence[tuple[str, str]]) -> tuple[bytes, bytes]:
    """Return the headers as a connection's first request has them, and as all later ones do: by number."""
    first = b"".join(
        b"\x40" + b"".join(_integer(len(text), 7, 0) + text.encode() for text in header) for header in headers
    )
    last = FIRST_DYNAMIC + len(headers) - 1
    return first, b"".join(_integer(last - number, 7, 0x80) for number in range(len(headers)))


def request_id(number: int) -> bytes:
    """Return a header that is not remembered (RFC 7541, section 6.2.2)."""
    name, value = b"x-request-id", b"5f0c6a1e-7d2b-4b8e-9a3f-%012x" % number
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


@dataclass(slots=True)
class Call:
    began: float
    got: int = 0
    came: bytes = b""
    last: bytes = b""


class Connection(asyncio.Protocol):
    def __init__(self, load: Load, results: Results, until: float) -> None:
        self._load, self._results, self._until = load, results, until
        self._calls: dict[int, Call] = {}
        self._next_stream, self._came = 1, b""
        self._messages = [[base64.b64decode(each) for each in call] for call in load.messages]
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", load.path), (":authority", "bench"),
            ("te", "trailers"), ("content-type", "application/grpc"), *load.metadata.items(),
        ]  # fmt: skip
        self._first, self._later = header_blocks(headers)
        self._transport: asyncio.Transport
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a TCP connection it is
        self._transport = transport
        window = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", HUGE_WINDOW))
        transport.write(PREFACE + frame(SETTINGS, 0, 0, b"") + window)
        for _ in range(self._load.callers):
            self._call()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionError(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        came, at = self._came + data, 0
        while len(came) - at >= 9:
            high, low, kind, flags, stream = FRAME.unpack_from(came, at)
            end = at + 9 + (high << 16 | low)
            if len(came) < end:
                break
            self._frame(kind, flags, stream, came[at + 9 : end])
            at = end
        self._came = came[at:]

    def _call(self) -> None:
        stream, block = self._next_stream, self._first if self._next_stream == 1 else self._later
        self._next_stream += 2
        messages = self._messages[self._results.begun % len(self._messages)]
        self._results.begun += 1
        self._calls[stream] = Call(time.perf_counter())
        first, *others = messages
        if field := self._load.counted_field:
            first += varint(field << 3) + varint(self._results.begun)
        if self._load.with_ids:
            block += request_id(self._results.begun)
        sent = b"".join(map(grpc_message, (first, *others)))
        self._transport.write(frame(HEADERS, END_HEADERS, stream, block) + data(stream, END_STREAM, sent))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._data(self._calls[stream], payload)
        elif kind == SETTINGS and not flags & ACK:
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY or (kind == RST_STREAM and stream in self._calls):  # a server may reset what it has ended
            self._fail(f"frame {kind}: {payload!r}")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self._ended(self._calls.pop(stream))

    @staticmethod
    def _data(call: Call, payload: bytes) -> None:
        call.came += payload
        while len(call.came) >= 5 and len(call.came) >= (end := 5 + int.from_bytes(call.came[1:5], "big")):
            call.last, call.came = call.came[5:end], call.came[end:]
            call.got += 1

    def _ended(self, call: Call) -> None:
        results, now = self._results, time.perf_counter()
        if call.got != 1:
            self._fail(f"a call was answered with {call.got} messages")
            return
        results.calls += 1
        is_late = call.began >= self._until - (1 - WARM_UP) * self._load.seconds
        (results.late_s if is_late else results.early_s).append(now - call.began)
        if len(results.sample) < SAMPLES or results.calls % 100 == 0:
            results.sample.append(call.last)
        if now < self._until and results.begun < self._load.most_calls:
            self._call()
        elif not self._calls and not self.over.done():
            self.over.set_result(None)
            self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(ValueError(why))
        self._transport.close()


async def run(load: Load) -> dict[str, object]:
    loop, results = asyncio.get_running_loop(), Results()
    began = time.perf_counter()
    until = began + load.seconds
    connections = []
    for _ in range(load.connections):
        made = functools.partial(Connection, load, results, until)
        connections.append((await loop.create_connection(made, "127.0.0.1", load.port))[1])
    async with asyncio.timeout(load.seconds + LATE_S):
        await asyncio.gather(*(each.over for each in connections))
    return {
        "answers": results.calls,
        "per_s": results.calls / (time.perf_counter() - began),
        "latencies_s": results.late_s or results.early_s,
        "sample": [base64.b64encode(each).decode() for each in results.sample],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(run(Load(**json.loads(sys.argv[1]))))))
