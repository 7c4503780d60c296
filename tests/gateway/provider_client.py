"""A client that asks a provider of the tests, and keeps all that it gets."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gateway.behaviour import Fault
    from gateway.provider_server import Provider

    Last = Callable[["Reply"], bool]

KEY = "sk-made-up-0123456789"
ENOUGH_BYTES = 6_000_000
LIMIT_S = 20
FOREVER_S = 0.1
"""How long to wait for what never comes."""


@dataclass
class Reply:
    """What a client of a provider got, as far as it got it."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    end: str = "whole"
    """Or "reset", "closed", "nonsense", "waiting", "enough"."""

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def data(self) -> list[str]:
        """What the events hold, in an SSE reader of its own: any line end, comments and other fields left out."""
        lines = self.body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content", "") for chunk in self.chunks for choice in chunk["choices"])


class Client:
    """One connection that asks one thing after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)

    @classmethod
    async def connect(cls, served: Provider, tls: ssl.SSLContext | None = None) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", served.port, ssl=tls))

    async def ask(
        self,
        *,
        stream: bool = False,
        usage: bool = True,
        model: str = "some-model",
        last: Last | None = None,
        **more: Any,
    ) -> Reply:
        """last: tells of what came so far that it is all that will come; FOREVER_S more is waited for another word."""
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": usage}}
        return await self.send("POST", "/v1/chat/completions", json.dumps(asked).encode(), last)

    async def send(self, method: str, path: str, body: bytes = b"", last: Last | None = None) -> Reply:
        headers = [("host", "provider"), ("authorization", f"Bearer {KEY}"), ("content-length", str(len(body)))]
        request = h11.Request(method=method, target=path, headers=headers)
        for event in (request, h11.Data(body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        reply = Reply()
        try:
            async with asyncio.timeout(LIMIT_S):
                if last is None:
                    await self._read(reply)
                else:
                    await self._read_until(last, reply)
        except ConnectionError:
            reply.end = "reset"
        except h11.RemoteProtocolError:
            reply.end = "closed" if self._reader.at_eof() else "nonsense"
        return reply

    async def _read_until(self, last: Last, reply: Reply) -> None:
        reading = asyncio.ensure_future(self._read(reply))
        while not last(reply) and not reading.done():
            await asyncio.sleep(0.005)
        await asyncio.wait({reading}, timeout=FOREVER_S)
        if reading.cancel():
            reply.end = "waiting"
        else:
            await reading

    async def _read(self, reply: Reply) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(1 << 16))
            elif isinstance(event, h11.InformationalResponse):
                reply.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                reply.status = event.status_code
                reply.headers = [(key.decode(), value.decode()) for key, value in event.headers]
            elif isinstance(event, h11.Data):
                reply.reads.append(bytes(event.data))
                if sum(map(len, reply.reads)) > ENOUGH_BYTES:
                    reply.end = "enough"
                    return
            else:
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                return

    async def leave(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def ask(served: Provider, *behaviour: Fault, tls: ssl.SSLContext | None = None, **asked: Any) -> Reply:
    if behaviour:
        served.behave(*behaviour)
    client = await Client.connect(served, tls)
    try:
        return await client.ask(**asked)
    finally:
        await client.leave()
