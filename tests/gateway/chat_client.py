"""A client of the gateway that keeps what it got byte by byte, and how it ended."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE_S = 30.0
"""How long a test waits for an answer's end before it fails."""
EXCERPT = 200


@dataclass(slots=True)
class Reply:
    """An answer, as far as it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    reads: list[bytes] = field(default_factory=list)
    """The body, a piece for each time that some of it came."""
    end: str = "whole"
    """As HTTP has it: "whole", "broken" by the gateway, or "left" by the client."""

    def __repr__(self) -> str:
        return f"Reply({self.status}, {self.end}, {self.headers}, {self.body[:EXCERPT]!r}…{self.body[-EXCERPT:]!r})"

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    @property
    def size(self) -> int:
        return sum(map(len, self.reads))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What an error in OpenAI's shape says; {} when it is none."""
        try:
            error = self.json.get("error", {})
        except (ValueError, AttributeError):
            return {}
        return error if isinstance(error, dict) else {"message": error}

    @property
    def decided_at(self) -> float:
        """When the decision was made, by its id (RFC 9562, section 5.7: milliseconds in the first 48 bits)."""
        return (uuid.UUID(self.headers["x-llmrouter-decision-id"]).int >> 80) / 1000

    @property
    def data(self) -> list[str]:
        """What the events hold, by an SSE reader of its own: any line end, comments and other fields left out."""
        lines = self.body.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events that are JSON."""
        found = []
        for data in self.data:
            try:
                found.append(json.loads(data))
            except ValueError:
                continue  # [DONE], or an event that broke off
        return found

    @property
    def is_done(self) -> bool:
        return "[DONE]" in self.data

    @property
    def text(self) -> str:
        """The content, of a stream or of a whole answer."""
        if not self.is_stream:
            return str(self.json["choices"][0]["message"]["content"])
        return "".join(
            choice["delta"].get("content", "") for chunk in self.chunks for choice in chunk.get("choices", ())
        )

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


async def send(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    leave_when: Callable[[Reply], bool] = lambda _: False,
) -> Reply:
    """Ask, over a connection of its own, and read to the end, or hang up as soon as `leave_when` says so."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = {} if "transfer-encoding" in headers else {"content-length": str(len(body))}
    sent = {"host": "gateway.test", **framing, **headers}
    reply = Reply()
    try:
        for event in (
            h11.Request(method=method, target=path, headers=list(sent.items())),
            h11.Data(body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        async with asyncio.timeout(PATIENCE_S):
            await _read(connection, reader, reply, leave_when)
    except (ConnectionError, h11.RemoteProtocolError):
        reply.end = "broken"
    except TimeoutError:
        raise TimeoutError(f"no end after {PATIENCE_S:.0f} s: {reply}") from None
    finally:
        writer.close()
    return reply


async def _read(
    connection: h11.Connection, reader: asyncio.StreamReader, reply: Reply, leave_when: Callable[[Reply], bool]
) -> None:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(1 << 16))
        elif isinstance(event, h11.Response):
            reply.status = event.status_code
            reply.headers = {key.decode(): value.decode() for key, value in event.headers}
        elif isinstance(event, h11.Data):
            reply.reads.append(bytes(event.data))
            if leave_when(reply):
                reply.end = "left"
                return
        elif isinstance(event, h11.EndOfMessage):
            return
