"""Providers that break off, say nothing, speak no HTTP, or answer what was not asked."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING

from gateway.answers import OK, OK_JSON, SSE, Answer
from gateway.behaviour import PAUSE_S, Fault, begin, content_type_of, ok, say
from gateway.refusals import status

if TYPE_CHECKING:
    from gateway.provider_exchange import Exchange

# What breaks off


def reset_before_headers() -> Fault:
    async def act(exchange: Exchange) -> None:
        exchange.reset()

    return Fault("reset before headers", "Breaks the connection instead of an answer.", act)


def hang_up_before_headers() -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.hang_up()

    return Fault("hang-up before headers", "Closes the connection instead of an answer, as an idle one may be.", act)


def reset_after(parts: int, answer: Answer = OK) -> Fault:
    """parts: of a stream, events (the first has the role only); otherwise pieces of the JSON document; 0: headers."""

    async def act(exchange: Exchange) -> None:
        await say(exchange, (await begin(exchange, answer))[:parts], answer)
        await asyncio.sleep(PAUSE_S)
        exchange.reset()

    name = f"reset after {parts} parts" if parts else "reset after headers"
    return Fault(name, "Breaks the connection in the middle of the answer.", act)


def cut_at_eof(parts: int, answer: Answer = OK) -> Fault:
    """Close properly after these parts of an answer whose end is the connection's: nobody can tell by HTTP."""

    async def act(exchange: Exchange) -> None:
        await say(exchange, (await begin(exchange, answer, to_eof=True))[:parts], answer)
        await exchange.end()

    return Fault("cut at EOF", "Ends its answer by closing the connection, too early.", act)


def cut(parts: int, answer: Answer = OK) -> Fault:
    """End properly after these parts. parts: counted as for `reset_after`; negative: so many less than all."""

    async def act(exchange: Exchange) -> None:
        said = answer.parts(exchange.seen)[:parts]
        length = None if exchange.seen.wants_stream else sum(map(len, said))
        await exchange.head(200, content_type=content_type_of(exchange), length=length)
        await say(exchange, said, answer)
        await exchange.end()

    return Fault("cut", "Ends its answer too early, without an end to the text but in good HTTP.", act)


def no_done(answer: Answer = OK) -> Fault:
    return Fault("no [DONE]", "Gives a finish_reason, and ends its stream without [DONE].", cut(-1, answer).act)


# What says nothing


def silent() -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.silence()

    return Fault("silent", "Takes the request and never says a word.", act)


def stalled(parts: int, answer: Answer = OK) -> Fault:
    async def act(exchange: Exchange) -> None:
        await say(exchange, (await begin(exchange, answer))[:parts], answer)
        await exchange.silence()

    name = f"stalled after {parts} parts" if parts else "silent after headers"
    return Fault(name, "Begins to answer and never goes on.", act)


# What is no HTTP, or too much of it


def bad_chunk(parts: int = 2) -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.head(200, content_type=SSE if exchange.seen.wants_stream else "application/json")
        await say(exchange, OK.parts(exchange.seen)[:parts], OK)
        await asyncio.sleep(PAUSE_S)
        await exchange.last(b"no-size\r\nwhatever\r\n")
        await asyncio.sleep(PAUSE_S)

    return Fault("bad chunk", "Sends a chunk whose size is no number.", act)


def no_http() -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.last(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await asyncio.sleep(PAUSE_S)

    return Fault("no HTTP", "Answers in another protocol.", act)


def two_lengths() -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("content-length", "5")])
        await say(exchange, [OK.whole(exchange.seen)], OK)
        await exchange.end()

    return Fault("two lengths", "Gives both a length and chunks, as smugglers do.", act)


def huge(size: int) -> Fault:
    """So many bytes of content; in a stream all in one event."""
    return ok(Answer(content="x" * size, chunks=1), name="huge body", description="Answers well, with megabytes.")


def endless() -> Fault:
    async def act(exchange: Exchange) -> None:
        first, *rest = Answer(chunks=64).parts(exchange.seen)
        await exchange.head(200, content_type=content_type_of(exchange))
        await exchange.body(first)
        more = b"".join(rest[:32]) if exchange.seen.wants_stream else b" " * 8192
        while True:
            await exchange.body(more)
            await asyncio.sleep(0)

    return Fault("endless", "Answers without an end, as fast as it is read.", act)


def huge_header(size: int = 100_000) -> Fault:
    return status(
        200, OK_JSON, [("x-huge", "x" * size)], name="huge header", description="Sends a header as large as a book."
    )


def many_headers(number: int = 1000) -> Fault:
    headers = [(f"x-many-{index}", str(index)) for index in range(number)]
    return status(200, OK_JSON, headers, name="many headers", description="Sends a thousand headers.")


# What is HTTP, but not what was asked for


def html() -> Fault:
    page = b"<!doctype html><title>Log in to continue</title>"
    return status(200, page, name="html", description="Answers 200 with a web page.", content_type="text/html")


def empty() -> Fault:
    return status(200, b"", name="empty", description="Answers 200 with nothing.")


def no_stream(answer: Answer = OK) -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.answer(200, answer.whole(exchange.seen))

    return Fault("JSON for a stream", "Answers in one JSON document though asked for a stream.", act)


def unasked_stream(answer: Answer = OK) -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.head(200, content_type=SSE)
        await say(exchange, answer.events(exchange.seen), answer)
        await exchange.end()

    return Fault("stream for JSON", "Answers in a stream though not asked for one.", act)


def error_in_200() -> Fault:
    body = {"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "Chutes"}}}
    return status(200, body, name="error in 200", description="Answers 200 with a JSON document that is an error.")


def redirect(to: str = "https://elsewhere.test/v1/chat/completions", code: int = 302) -> Fault:
    """to: another provider's address, whose `requests` tell whether it was followed."""
    return status(code, b"", [("location", to)], name=str(code), description="Sends the client to another host.")


def zipped(answer: Answer = OK) -> Fault:
    async def act(exchange: Exchange) -> None:
        parts, encoding = answer.parts(exchange.seen), [("content-encoding", "gzip")]
        if not exchange.seen.wants_stream:
            await exchange.answer(200, gzip.compress(b"".join(parts)), encoding)
            return
        await exchange.head(200, encoding, content_type=SSE)
        packer = zlib.compressobj(wbits=31)
        packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        await say(exchange, [*packed, packer.flush()], answer)
        await exchange.end()

    return Fault("gzip", "Compresses its answer though not asked to.", act)
