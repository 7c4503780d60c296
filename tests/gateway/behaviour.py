"""What a provider can do to those who ask it: a value with a name and one line that describes it; and being well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gateway.answers import OK, SSE, Answer, Usage, to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.provider_exchange import Exchange

PAUSE_S = 0.5
"""Long enough for what was sent before to be read, and handed on, by itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    description: str
    act: Callable[[Exchange], Awaitable[None]] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name


def ok(answer: Answer = OK, *, name: str = "ok", description: str = "Answers as it should.") -> Fault:
    async def act(exchange: Exchange) -> None:
        await say(exchange, await begin(exchange, answer), answer)
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
        await exchange.answer(200, to_json({"object": "list", "data": models}))

    return Fault("models", "Lists its models.", act)


async def begin(exchange: Exchange, answer: Answer, *, to_eof: bool = False) -> list[bytes]:
    """Send the headers and return what is to follow."""
    parts = answer.parts(exchange.seen)
    length = None if exchange.seen.wants_stream or to_eof else sum(map(len, parts))
    await exchange.head(200, content_type=content_type_of(exchange), length=length, to_eof=to_eof)
    return parts


async def say(exchange: Exchange, parts: Sequence[bytes], answer: Answer) -> None:
    for number, part in enumerate(parts):
        if seconds := answer.delay_s if number else answer.first_s:
            await asyncio.sleep(seconds)
        await exchange.body(part)


def content_type_of(exchange: Exchange) -> str:
    return SSE if exchange.seen.wants_stream else "application/json"
