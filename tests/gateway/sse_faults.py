"""Streams that are good SSE in unusual clothes, or bad SSE. An answer that is no stream stays as it should be."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.answers import DONE, OK, Answer, choice_of, event, to_json
from gateway.behaviour import Fault, begin
from gateway.refusals import error_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.provider_exchange import Exchange


def dressed(
    name: str, description: str, dress: Callable[[list[bytes]], list[bytes]], answer: Answer = OK, *, gap_s: float = 0.0
) -> Fault:
    """Make other writes of the stream's events, so many seconds apart."""

    async def act(exchange: Exchange) -> None:
        parts = await begin(exchange, answer)
        async for part in _apart(dress(parts) if exchange.seen.wants_stream else parts, gap_s):
            await exchange.body(part)
        await exchange.end()

    return Fault(name, description, act)


class Split(StrEnum):
    EVENT = "inside an event"
    CHARACTER = "inside a character"
    LINE_FEEDS = "between line feeds"
    EVERY_BYTE = "at every byte"


def split(where: Split, answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        text = b"".join(events)
        if where is Split.EVERY_BYTE:
            return [bytes([byte]) for byte in text]
        ends = [0, *(end for end in range(1, len(text)) if _is_split(where, text, end)), len(text)]
        return [text[start:end] for start, end in pairwise(ends)]

    gap_s = 0.0 if where is Split.EVERY_BYTE else 0.002
    return dressed(f"split {where}", "Sends its events in awkward pieces.", dress, answer, gap_s=gap_s)


def at_once(answer: Answer = OK) -> Fault:
    return dressed("at once", "Sends all events in one write.", lambda events: [b"".join(events)], answer)


def line_ends(end: bytes = b"\r\n", answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        return [event.replace(b"\n", end) for event in events]

    name = {b"\r\n": "CRLF", b"\r": "CR"}[end]
    return dressed(f"{name} line ends", f"Ends the lines of its events with {name}, as SSE allows.", dress, answer)


def comments(answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        return [part for event in events for part in (b": OPENROUTER PROCESSING\n\n", event)]

    return dressed("comments", "Sends comment lines between its events.", dress, answer)


def more_fields(answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        return [b"event: message\nid: %d\nretry: 5\n" % n + event for n, event in enumerate(events)]

    return dressed("more fields", "Sends event, id and retry with each event.", dress, answer)


def no_space(answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        return [event.replace(b"data: ", b"data:", 1) for event in events]

    return dressed("no space", "Leaves out the space after data:, as SSE allows.", dress, answer)


def bad_event(after: int = 2, answer: Answer = OK) -> Fault:
    def dress(events: list[bytes]) -> list[bytes]:
        return [*events[:after], event(b'{"choices":[{"delta":{"content":"cut'), *events[after:]]

    return dressed("bad event", "Sends an event that is no JSON between good ones.", dress, answer)


class ErrorEvent(StrEnum):
    OPENAI = "openai"
    OPENROUTER = "openrouter"
    """With a choice that finishes with the reason `error`."""
    ANTHROPIC = "anthropic"
    """A named event."""


def error_event(after: int = 2, style: ErrorEvent = ErrorEvent.OPENAI, *, done: bool = False) -> Fault:
    """after: how many events come before; 0: the stream is nothing but the error."""
    said: dict[str, Any] = error_body("The server had an error while processing your request.", "server_error")
    if style is ErrorEvent.OPENROUTER:
        error = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
        said = {"object": "chat.completion.chunk", "error": error, "choices": [choice_of({"content": ""}, "error")]}
    if style is ErrorEvent.ANTHROPIC:
        said = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    head = b"event: error\n" if style is ErrorEvent.ANTHROPIC else b""

    def dress(events: list[bytes]) -> list[bytes]:
        return [*events[:after], head + event(to_json(said)), *([DONE] if done else [])]

    return dressed(f"error event, {style}", "Sends an error inside a stream that began with 200.", dress)


async def _apart(parts: Sequence[bytes], gap_s: float) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(gap_s)


def _is_split(where: Split, text: bytes, end: int) -> bool:
    if where is Split.CHARACTER:
        return text[end] & 0xC0 == 0x80
    if where is Split.LINE_FEEDS:
        return text[end - 1 : end + 1] == b"\n\n"
    return text[:end].endswith((b"da", b'"choi', b'"content":"'))
