"""What a provider can do to those who ask it: each behaviour is a value with a name and one line that describes it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from gateway.provider_exchange import Exchange, Seen

DONE = b"data: [DONE]\n\n"
SSE = "text/event-stream; charset=utf-8"
WORD = "wörd ✓ 🙂 {}; "
"""Of one, two, three and four bytes a character."""
PAUSE_S = 0.05
"""Long enough for what was sent before to be read by itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    description: str
    act: Callable[[Exchange], Awaitable[None]] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name


class Usage(StrEnum):
    """How an answer says what it used."""

    OPENAI = "openai"
    """In a stream only if asked: a last chunk without choices, and null in all others."""
    ALWAYS = "always"
    """The same chunk, asked for or not."""
    WITH_FINISH = "with_finish"
    """In the chunk that has the finish_reason, asked for or not."""
    GROQ = "groq"
    """In the chunk that has the finish_reason, inside x_groq, asked for or not."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. Its content comes in so many chunks, the first after first_s seconds, each other after delay_s."""

    content: str = ""
    """"": a word a chunk."""
    chunks: int = 4
    first_s: float = 0.0
    delay_s: float = 0.0
    prompt_tokens: int = 19
    completion_tokens: int = 10
    cached_tokens: int = 8
    reasoning_tokens: int = 4
    usage: Usage = Usage.OPENAI
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        return self.content or "".join(WORD.format(number) for number in range(self.chunks))

    def pieces(self) -> list[str]:
        text = self.text
        ends = [len(text) * number // self.chunks for number in range(self.chunks + 1)]
        return [text[start:end] for start, end in pairwise(ends)]

    def figures(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens, "audio_tokens": 0},
        }

    def whole(self, seen: Seen) -> bytes:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        used = {} if self.usage is Usage.NEVER else {"usage": self.figures()}
        return _json({**_frame(seen, "chat.completion"), "choices": [choice], **used})

    def events(self, seen: Seen) -> list[bytes]:
        """Return the role, the content, the finish_reason, the usage if it is to be told, and [DONE]."""
        told = self.usage is Usage.ALWAYS or (self.usage is Usage.OPENAI and seen.wants_usage)
        frame = {**_frame(seen, "chat.completion.chunk"), **({"usage": None} if told else {})}
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in self.pieces())]
        chunks = [{**frame, "choices": [_choice(delta)]} for delta in deltas]
        last = {**frame, "choices": [_choice({}, self.finish_reason)]}
        if self.usage is Usage.WITH_FINISH:
            last["usage"] = self.figures()
        if self.usage is Usage.GROQ:
            last["x_groq"] = {"id": "req_groq", "usage": self.figures()}
        chunks.append(last)
        if told:
            chunks.append({**frame, "choices": [], "usage": self.figures()})
        return [event(_json(chunk)) for chunk in chunks] + [DONE]

    def parts(self, seen: Seen) -> list[bytes]:
        """Return what is sent one by one: events, or the pieces of one JSON document."""
        if seen.wants_stream:
            return self.events(seen)
        body = self.whole(seen)
        size = -(-len(body) // self.chunks)
        return [body[start : start + size] for start in range(0, len(body), size)]


def checked(chunks: int = 1000, *, size: int = 40, delay_s: float = 0.0) -> Answer:
    """Return a long answer whose content ends with the SHA-256 of all before: see `is_unharmed`."""
    words = "".join(WORD.format(number) for number in range(chunks * size // len(WORD) + 1))
    return Answer(content=words + hashlib.sha256(words.encode()).hexdigest(), chunks=chunks, delay_s=delay_s)


def is_unharmed(content: str) -> bool:
    return content[-64:] == hashlib.sha256(content[:-64].encode()).hexdigest()


OK = Answer()


# What is well, or slow


def ok(answer: Answer = OK, *, name: str = "ok", description: str = "Answers as it should.") -> Fault:
    async def act(exchange: Exchange) -> None:
        await _say(exchange, await _begin(exchange, answer), answer)
        await exchange.end()

    return Fault(name, description, act)


def no_usage(answer: Answer = OK) -> Fault:
    return ok(
        replace(answer, usage=Usage.NEVER),
        name="no usage",
        description="Answers as it should, but never says what it used.",
    )


def usage_like(usage: Usage) -> Fault:
    return ok(Answer(usage=usage), name=f"usage {usage}", description="Answers well; tells its usage in its own place.")


def slow_first_token(seconds: float, answer: Answer = OK) -> Fault:
    slow, name = replace(answer, first_s=seconds), "slow first token"
    return ok(slow, name=name, description="Sends its headers at once, the first content late.")


def late(seconds: float, fault: Fault) -> Fault:
    async def act(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await fault.act(exchange)

    return Fault(f"late {fault}", f"Sends nothing at all for a while, then: {fault.description}", act)


def for_a_while(seconds: float, fault: Fault, then: Fault) -> Fault:
    """By the provider's clock, from the first request that meets it."""

    async def act(exchange: Exchange) -> None:
        await (fault if exchange.since_s < seconds else then).act(exchange)

    return Fault(f"{fault} for a while, then {then}", f"First: {fault.description} Later: {then.description}", act)


def informed(code: int, fault: Fault) -> Fault:
    async def act(exchange: Exchange) -> None:
        hint = b"link: </style.css>; rel=preload\r\n" if code == 103 else b""
        await exchange.raw(b"HTTP/1.1 %d Informational\r\n%b\r\n" % (code, hint))
        await fault.act(exchange)

    return Fault(f"{code}, then {fault}", f"Sends an informational {code} before: {fault.description}", act)


def model_list(names: Sequence[str]) -> Fault:
    async def act(exchange: Exchange) -> None:
        models = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "provider"} for name in names]
        await exchange.answer(200, _json({"object": "list", "data": models}))

    return Fault("models", "Lists its models.", act)


# What refuses


def status(
    code: int,
    body: object = None,
    headers: Iterable[tuple[str, str]] = (),
    *,
    name: str = "",
    description: str = "",
    content_type: str = "application/json",
) -> Fault:
    """Refuse with this body: bytes as they are, None for an error of OpenAI's shape, anything else as JSON."""
    said = error_body(f"The provider says {code}.", "server_error") if body is None else body
    data, kept = said if isinstance(said, bytes) else _json(said), tuple(headers)

    async def act(exchange: Exchange) -> None:
        await exchange.answer(code, data, kept, content_type=content_type)

    return Fault(name or str(code), description or f"Answers {code}.", act)


def error_body(message: str, kind: str, code: str | int | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 6379 tokens "
    "(6029 in the messages, 350 in the completion). Please reduce the length of the messages or completion."
)
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 6204 `inputs` tokens and 2047"
ROUTED = (
    "This endpoint's maximum context length is 131072 tokens. However, you requested about 141607 tokens (10535 of "
    'text input, 131072 in the output). Please reduce the length of either one, or use the "middle-out" transform to '
    "compress your prompt automatically."
)
CROWDED = "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"
LONG = "prompt is too long: 208656 tokens > 200000 maximum"
REDUCE = "Please reduce the length of the messages or completion."
INVALID = "invalid_request_error"
TOO_LONG: dict[str, tuple[int, dict[str, Any]]] = {
    "openai": (400, error_body(VLLM, INVALID, "context_length_exceeded", "messages")),
    "groq": (400, error_body(REDUCE, INVALID, "context_length_exceeded", "messages")),
    "anthropic": (400, {"type": "error", "error": {"type": INVALID, "message": LONG}, "request_id": "req_1"}),
    "anthropic sum": (400, {"type": "error", "error": {"type": INVALID, "message": CROWDED}}),
    "anthropic as openai": (400, error_body(LONG, INVALID, INVALID)),
    "vllm": (400, error_body(VLLM, "BadRequestError", 400)),
    "old vllm": (400, {"object": "error", **error_body(VLLM, "BadRequestError", 400)["error"]}),
    "openrouter": (400, {"error": {"message": ROUTED, "code": 400, "metadata": {"provider_name": "Chutes"}}}),
    "together": (422, error_body(TGI + " `max_new_tokens`", INVALID, None, "max_tokens")),
    "huggingface": (422, {"error": TGI + " `max_new_tokens`", "error_type": "validation"}),
}
"""Whose wording: the status and the body."""


def too_long(whose: str = "openai") -> Fault:
    code, body = TOO_LONG[whose]
    return status(code, body, name=f"too long, {whose}", description="Refuses a prompt its context cannot hold.")


def content_filter() -> Fault:
    body = error_body("The response was filtered: content management policy.", INVALID, "content_filter", "prompt")
    return status(400, body, name="400 content filter", description="Refuses what is asked, not how.")


def bad_request() -> Fault:
    message = "Invalid value for 'temperature': 9. You sent the text 'maximum length', and no context is too long."
    body = error_body(message, INVALID, "invalid_value", "temperature")
    return status(400, body, name="400 invalid", description="Refuses a parameter, in words close to other refusals.")


def unauthorized() -> Fault:
    async def act(exchange: Exchange) -> None:
        key = exchange.seen.headers.get("authorization", "").partition(" ")[2]
        said = f"Incorrect API key provided: {key}. You can find your key at https://provider.test/keys."
        challenge = ("www-authenticate", f'Bearer realm="{key}"')
        await exchange.answer(401, _json(error_body(said, INVALID, "invalid_api_key")), [challenge])

    return Fault("401 with the key", "Refuses the key and quotes it in body and header.", act)


def too_large() -> Fault:
    said = "Request too large for the model on tokens per minute (TPM): Limit 6000, Requested 8012."
    body = error_body(said, "tokens", "rate_limit_exceeded")
    return status(413, body, name="413", description="Refuses the size for a limit of the account, not of the model.")


def no_quota() -> Fault:
    body = error_body("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
    return status(429, body, name="429 no quota", description="Refuses until somebody pays.")


def rate_limited(retry_after: str | None = None) -> Fault:
    body = error_body("Rate limit reached for requests.", "requests", "rate_limit_exceeded")
    headers = [] if retry_after is None else [("retry-after", retry_after)]
    name = "429" if retry_after is None else f"429 retry-after {retry_after}"
    return status(429, body, headers, name=name, description="Is asked too often, and may say for how long to wait.")


def rate_limited_until(seconds: int) -> Fault:
    """Name the date that is so many seconds away when the request comes."""

    async def act(exchange: Exchange) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        await rate_limited(moment).act(exchange)

    return Fault("429 until a date", "Is asked too often, and gives the date from which it may be asked.", act)


def unavailable(retry_after: int | None = None) -> Fault:
    headers = [] if retry_after is None else [("retry-after", str(retry_after))]
    name = "503" if retry_after is None else f"503 retry-after {retry_after}"
    return status(503, None, headers, name=name, description="Is out of service, and may say for how long.")


def overloaded() -> Fault:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return status(529, body, name="529", description="Is overloaded, with a status of its own making.")


def bad_gateway() -> Fault:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    return status(502, page, name="502", description="A page of its proxy.", content_type="text/html")


def no_such_path() -> Fault:
    return status(404, error_body("Invalid URL", INVALID), name="404 path", description="Does not know the path.")


def no_such_model() -> Fault:
    body = error_body("The model does not exist or you do not have access to it.", INVALID, "model_not_found")
    return status(404, body, name="404", description="Does not have the model, or not for this key.")


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
        await _say(exchange, (await _begin(exchange, answer))[:parts], answer)
        await asyncio.sleep(PAUSE_S)
        exchange.reset()

    name = f"reset after {parts} parts" if parts else "reset after headers"
    return Fault(name, "Breaks the connection in the middle of the answer.", act)


def cut_at_eof(parts: int, answer: Answer = OK) -> Fault:
    """Close properly after these parts of an answer whose end is the connection's: nobody can tell by HTTP."""

    async def act(exchange: Exchange) -> None:
        await _say(exchange, (await _begin(exchange, answer, to_eof=True))[:parts], answer)
        await exchange.end()

    return Fault("cut at EOF", "Ends its answer by closing the connection, too early.", act)


def cut(parts: int, answer: Answer = OK) -> Fault:
    """End properly after these parts. parts: counted as for `reset_after`; negative: so many less than all."""

    async def act(exchange: Exchange) -> None:
        said = answer.parts(exchange.seen)[:parts]
        length = None if exchange.seen.wants_stream else sum(map(len, said))
        await exchange.head(200, content_type=_content_type(exchange), length=length)
        await _say(exchange, said, answer)
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
        await _say(exchange, (await _begin(exchange, answer))[:parts], answer)
        await exchange.silence()

    name = f"stalled after {parts} parts" if parts else "silent after headers"
    return Fault(name, "Begins to answer and never goes on.", act)


# What is no HTTP, or too much of it


def bad_chunk(parts: int = 2) -> Fault:
    async def act(exchange: Exchange) -> None:
        await exchange.head(200, content_type=SSE if exchange.seen.wants_stream else "application/json")
        await _say(exchange, OK.parts(exchange.seen)[:parts], OK)
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
        await _say(exchange, [OK.whole(exchange.seen)], OK)
        await exchange.end()

    return Fault("two lengths", "Gives both a length and chunks, as smugglers do.", act)


def huge(size: int) -> Fault:
    """So many bytes of content; in a stream all in one event."""
    return ok(Answer(content="x" * size, chunks=1), name="huge body", description="Answers well, with megabytes.")


def endless() -> Fault:
    async def act(exchange: Exchange) -> None:
        first, *rest = Answer(chunks=64).parts(exchange.seen)
        await exchange.head(200, content_type=_content_type(exchange))
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


def many_headers(number: int = 5000) -> Fault:
    headers = [(f"x-many-{index}", str(index)) for index in range(number)]
    return status(200, OK_JSON, headers, name="many headers", description="Sends thousands of headers.")


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
        await _say(exchange, answer.events(exchange.seen), answer)
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
        await _say(exchange, [*packed, packer.flush()], answer)
        await exchange.end()

    return Fault("gzip", "Compresses its answer though not asked to.", act)


# Streams that are good SSE in unusual clothes, or bad SSE. An answer that is no stream stays as it should be.


def dressed(
    name: str, description: str, dress: Callable[[list[bytes]], list[bytes]], answer: Answer = OK, *, gap_s: float = 0.0
) -> Fault:
    """Make other writes of the stream's events, so many seconds apart."""

    async def act(exchange: Exchange) -> None:
        parts = await _begin(exchange, answer)
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
        said = {"object": "chat.completion.chunk", "error": error, "choices": [_choice({"content": ""}, "error")]}
    if style is ErrorEvent.ANTHROPIC:
        said = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    head = b"event: error\n" if style is ErrorEvent.ANTHROPIC else b""

    def dress(events: list[bytes]) -> list[bytes]:
        return [*events[:after], head + event(_json(said)), *([DONE] if done else [])]

    return dressed(f"error event, {style}", "Sends an error inside a stream that began with 200.", dress)


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


async def _begin(exchange: Exchange, answer: Answer, *, to_eof: bool = False) -> list[bytes]:
    """Send the headers and return what is to follow."""
    parts = answer.parts(exchange.seen)
    length = None if exchange.seen.wants_stream or to_eof else sum(map(len, parts))
    await exchange.head(200, content_type=_content_type(exchange), length=length, to_eof=to_eof)
    return parts


async def _say(exchange: Exchange, parts: Sequence[bytes], answer: Answer) -> None:
    for number, part in enumerate(parts):
        if seconds := answer.delay_s if number else answer.first_s:
            await asyncio.sleep(seconds)
        await exchange.body(part)


async def _apart(parts: Sequence[bytes], gap_s: float) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(gap_s)


def _content_type(exchange: Exchange) -> str:
    return SSE if exchange.seen.wants_stream else "application/json"


def _is_split(where: Split, text: bytes, end: int) -> bool:
    if where is Split.CHARACTER:
        return text[end] & 0xC0 == 0x80
    if where is Split.LINE_FEEDS:
        return text[end - 1 : end + 1] == b"\n\n"
    return text[:end].endswith((b"da", b'"choi', b'"content":"'))


def _frame(seen: Seen, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-of-the-provider",
        "object": kind,
        "created": 1_700_000_000,
        "model": seen.body.get("model"),
        "system_fingerprint": "fp_provider",
    }


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


OK_JSON = {"object": "chat.completion", "choices": [_choice({"content": "ok"}, "stop")], "usage": OK.figures()}

FAULTS: tuple[Fault, ...] = (
    ok(),
    no_usage(),
    *(usage_like(usage) for usage in (Usage.ALWAYS, Usage.WITH_FINISH, Usage.GROQ)),
    slow_first_token(PAUSE_S),
    late(PAUSE_S, ok()),
    for_a_while(60, unavailable(), ok()),
    informed(100, ok()),
    informed(103, ok()),
    *(too_long(whose) for whose in TOO_LONG),
    content_filter(),
    bad_request(),
    unauthorized(),
    *(status(code) for code in (402, 403)),
    no_such_model(),
    status(408),
    too_large(),
    status(422),
    rate_limited(),
    rate_limited("7"),
    rate_limited_until(7),
    no_quota(),
    status(500),
    bad_gateway(),
    unavailable(),
    unavailable(7),
    status(504),
    overloaded(),
    reset_before_headers(),
    hang_up_before_headers(),
    reset_after(0),
    reset_after(3),
    cut(3),
    no_done(),
    cut_at_eof(3),
    silent(),
    stalled(0),
    stalled(3),
    bad_chunk(),
    no_http(),
    two_lengths(),
    huge(4_000_000),
    endless(),
    huge_header(),
    many_headers(),
    html(),
    empty(),
    no_stream(),
    unasked_stream(),
    error_in_200(),
    redirect(),
    zipped(),
    *(split(where) for where in Split),
    at_once(),
    line_ends(b"\r\n"),
    line_ends(b"\r"),
    comments(),
    more_fields(),
    no_space(),
    bad_event(),
    *(error_event(style=style) for style in ErrorEvent),
)
"""Each behaviour once, with figures that fit a fast test; `go_away` and `come_back` are the provider's own."""
