"""A load of requests over HTTP/1.1, as a process of its own: `python -m bench.http_load '<Load as JSON>'`.

It prints one JSON object when it is done. While streams run, it prints how many chunks came so far for each line that
it gets on its standard input. Every answer is judged: see answers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import uvloop

from bench.answers import JUDGES, STREAM_JUDGES
from bench.mock_provider import LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH = "/v1/chat/completions"
WARM_UP = 0.2
"""The part of the time after which latencies count."""
LATE_S = 30.0
LAST_CHUNK = b"\r\n0\r\n\r\n"
"""Of HTTP, which ends a stream; it may come in two reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to ask, and how.

    per_s: requests a second; 0: each connection asks again as soon as it is answered.
    chunks: of each stream; 0: no streams. Streams are asked for once, by each connection.
    tokens: connections take turns in these; without any, nobody says who they are.
    body: what to send; empty: a chat request for `model`.
    judge: the name of whoever says whether an answer is right.
    """

    port: int
    tokens: Sequence[str]
    connections: int
    seconds: float = 0.0
    per_s: float = 0.0
    chunks: int = 0
    path: str = PATH
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = "auto"
    body: str = ""
    judge: str = "the provider's bytes"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def request(self, number: int) -> bytes:
        body = self.body.encode() or self.chat()
        headers = {"host": "gateway.test", "content-type": "application/json", **self.headers}
        if self.tokens:
            headers["authorization"] = f"Bearer {self.tokens[number % len(self.tokens)]}"
        headers["content-length"] = str(len(body))
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def chat(self) -> bytes:
        """Return the body of a chat request."""
        asked: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant that answers in one short sentence."},
                {"role": "user", "content": "What does the quick brown fox do, and does anybody mind?"},
            ],
            "max_tokens": self.chunks or 100,
            "temperature": 0.2,
        }
        if self.chunks:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(asked, separators=(",", ":")).encode()


class Asking(asyncio.Protocol):
    """A connection that asks for answers in one piece."""

    def __init__(self, load: Load, number: int, done: Done) -> None:
        self._request, self._is_right, self._done = load.request(number), JUDGES[load.judge], done
        self._came, self._since = b"", 0.0
        self._transport: asyncio.Transport
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a TCP connection it is
        self._transport = transport

    def ask(self, since: float) -> None:
        """Ask; `since` is when the request was due."""
        self._since = since
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        came = self._came = self._came + data if self._came else data
        head_end = came.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return
        length = LENGTH.search(came, 0, head_end)
        if came[:12] != b"HTTP/1.1 200" or length is None:
            self._done.fail(came)
            return
        if len(came) < head_end + int(length[1]):
            return
        if not self._is_right(came[head_end:]):
            self._done.fail(came)
            return
        self._came = b""
        self._done.answered(self, self._since)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._done.fail(f"the connection was lost: {exc}".encode())

    def close(self) -> None:
        self._is_over = True
        self._transport.close()


class Done:
    """Takes note of answers, and says what comes next."""

    def __init__(self, load: Load) -> None:
        self._load, self._loop = load, asyncio.get_running_loop()
        self._counts_from = self._until = 0.0
        self._idle: deque[Asking] = deque()
        self._due: deque[float] = deque()
        self._under_way, self._all_asked = 0, not load.per_s
        self._early_s: list[float] = []
        self._late_s: list[float] = []
        self.answers = 0
        self.over: asyncio.Future[None] = self._loop.create_future()

    @property
    def latencies_s(self) -> list[float]:
        """Return those that count; all of them, when everything was so slow that none was asked for late enough."""
        return self._late_s or self._early_s

    def begin(self, connections: Sequence[Asking]) -> None:
        self._counts_from = time.perf_counter() + WARM_UP * self._load.seconds
        self._until = time.perf_counter() + self._load.seconds
        if not self._load.per_s:
            self._under_way = len(connections)
            for each in connections:
                each.ask(time.perf_counter())
            return
        self._idle.extend(connections)
        self._next(self._loop.time())

    def answered(self, asking: Asking, since: float) -> None:
        now = time.perf_counter()  # the loop's own time is in whole milliseconds
        self.answers += 1
        (self._late_s if since >= self._counts_from else self._early_s).append(now - since)
        if not self._load.per_s and now < self._until:
            asking.ask(now)
            return
        self._under_way -= 1
        self._idle.append(asking)
        if self._due:
            self._start(self._due.popleft())
        elif self._all_asked and not self._under_way and not self.over.done():
            self.over.set_result(None)

    def fail(self, came: bytes) -> None:
        if not self.over.done():
            self.over.set_exception(ValueError(f"not the right answer: {came[:2000]!r}"))

    def _next(self, due: float) -> None:
        """Ask at each due moment; when no connection is free the request waits, and the wait counts."""
        now = time.perf_counter()
        if self._idle:
            self._start(now)
        else:
            self._due.append(now)
        if now + 1 / self._load.per_s < self._until:
            following = due + 1 / self._load.per_s
            self._loop.call_at(following, self._next, following)
        else:
            self._all_asked = True

    def _start(self, due: float) -> None:
        self._under_way += 1
        self._idle.popleft().ask(due)


async def ask(load: Load) -> dict[str, object]:
    """Ask for answers in one piece, for `seconds`."""
    done, loop = Done(load), asyncio.get_running_loop()
    connections = []
    for number in range(load.connections):
        made = functools.partial(Asking, load, number, done)
        _, each = await loop.create_connection(made, "127.0.0.1", load.port)
        connections.append(each)
    began = time.perf_counter()
    done.begin(connections)
    try:
        async with asyncio.timeout(load.seconds + LATE_S):
            await done.over
    finally:
        for each in connections:
            each.close()
    took = time.perf_counter() - began
    return {"answers": done.answers, "per_s": done.answers / took, "latencies_s": done.latencies_s}


class Streaming(asyncio.Protocol):
    """A connection that asks for one stream and reads it to its end."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self._end = b""
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)
        self._end = (self._end + data)[-len(LAST_CHUNK) :]
        if self._end == LAST_CHUNK and not self.whole.done():
            self.whole.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_exception(ValueError(f"a stream broke off: {exc}, {b''.join(self.reads)[:2000]!r}"))

    def body(self) -> bytes:
        """Return it without the frames of its chunks."""
        head, _, framed = b"".join(self.reads).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"no stream: {head!r}")
        parts, at = [], 0
        while size := int(framed[at : (line_end := framed.index(b"\r\n", at))], 16):
            parts.append(framed[line_end + 2 : line_end + 2 + size])
            at = line_end + 2 + size + 2
        return b"".join(parts)


async def stream(load: Load) -> dict[str, object]:
    """Have as many streams as connections at once, and tell how many chunks came whenever somebody asks."""
    loop, streams = asyncio.get_running_loop(), []
    for number in range(load.connections):
        transport, each = await loop.create_connection(Streaming, "127.0.0.1", load.port)
        transport.write(load.request(number))
        streams.append(each)

    def tell() -> None:
        if sys.stdin.readline():
            chunks = sum(read.count(b"data: {") for each in streams for read in each.reads)
            sys.stdout.write(json.dumps({"chunks": chunks}) + "\n")
            sys.stdout.flush()

    loop.add_reader(sys.stdin, tell)
    async with asyncio.timeout(LATE_S + load.chunks / 20):
        await asyncio.gather(*(each.whole for each in streams))
    is_right = STREAM_JUDGES[load.judge]
    for each in streams:
        if not is_right(body := each.body(), load.chunks):
            raise ValueError(f"a stream is not what it should be: {body[:1000]!r} ... {body[-1000:]!r}")
    return {"answers": len(streams), "chunks": load.chunks * len(streams)}


async def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(await (stream if load.chunks else ask)(load)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
