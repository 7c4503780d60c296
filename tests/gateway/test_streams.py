from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from gateway import answers, behaviour, faults, sse_faults
from gateway.answers import OK, SSE, Answer, Usage, checked, is_unharmed
from gateway.behaviour import Fault, ok
from gateway.provider_exchange import Fate
from gateway.sse_faults import ErrorEvent, Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, Recorded, World
    from gateway.provider_exchange import Exchange

MANY = 1000
AT_ONCE = 40
USED = (19, 10, 8, 4)
"""Prompt, completion, cached and reasoning tokens of the faults' answers."""
DRESSES = (
    *(sse_faults.split(where) for where in Split),
    sse_faults.at_once(),
    sse_faults.line_ends(b"\r\n"),
    sse_faults.line_ends(b"\r"),
    sse_faults.comments(),
    sse_faults.more_fields(),
    sse_faults.no_space(),
    faults.zipped(),
    behaviour.usage_like(Usage.ALWAYS),
)


def written(name: str, *parts: bytes, length: bool = False) -> Fault:
    """Write these bytes as the body of a stream, one by one; in good HTTP, by chunks or by a length."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, content_type=SSE, length=sum(map(len, parts)) if length else None)
        for part in parts:
            await exchange.body(part)
            await asyncio.sleep(0.01)
        await exchange.end()

    return Fault(name, "", act)


def content(text: str) -> bytes:
    return answers.event(json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode())


def used(attempt: Recorded) -> tuple[int, int, int, int]:
    return attempt.input_tokens, attempt.output_tokens, attempt.cached_tokens, attempt.reasoning_tokens


def assert_visibly_broken(reply: Reply) -> None:
    assert not reply.is_done
    assert reply.end == "broken" or reply.chunks[-1]["error"]["message"]


# What passes


async def test_every_byte_of_a_long_stream_arrives(chat: ChatStack, world: World) -> None:
    world.a.behave(ok(checked(MANY)))
    reply = await chat.ask(world, stream=True, usage=True)
    assert is_unharmed(reply.text)
    assert hashlib.sha256(reply.body).hexdigest() == world.a.chats[0].sent
    assert [used(each) for each in await chat.recorded(world)] == [USED]


async def test_streams_side_by_side_keep_to_themselves(chat: ChatStack, world: World) -> None:
    world.a.behave(ok(checked(200, delay_s=0.002)))
    replies = await asyncio.gather(*(chat.ask(world, stream=True, max_tokens=500) for _ in range(AT_ONCE)))
    assert [reply for reply in replies if reply.status != 200] == []
    assert all(is_unharmed(reply.text) and reply.is_done for reply in replies)
    recorded = await chat.recorded(world, AT_ONCE)
    assert [used(each) for each in recorded] == [USED] * AT_ONCE


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
async def test_events_are_handed_on_as_they_come(chat: ChatStack, world: World, end: bytes) -> None:
    heard = asyncio.Event()

    async def act(exchange: Exchange) -> None:
        first, *rest = (event.replace(b"\n", end) for event in OK.events(exchange.seen))
        await exchange.head(200, content_type=SSE)
        await exchange.body(first)
        await heard.wait()
        await exchange.body(b"".join(rest))
        await exchange.end()

    def note(reply: Reply) -> bool:
        if reply.data:
            heard.set()
        return False

    world.a.behave(Fault("waits for its client", "", act))
    reply = await chat.ask(world, stream=True, leave_when=note)
    assert reply.text == OK.text
    assert reply.is_done
    assert len(reply.reads) > 1


@pytest.mark.parametrize("asked", [None, False, True], ids=["not said", "refused", "asked for"])
@pytest.mark.parametrize("dress", DRESSES, ids=str)
async def test_the_usage_is_read_and_shown_to_those_who_asked(
    chat: ChatStack, world: World, dress: Fault, asked: bool | None
) -> None:
    world.a.behave(dress)
    reply = await chat.ask(world, stream=True, usage=asked)
    assert world.a.chats[0].wants_usage
    assert reply.text == OK.text
    assert reply.is_done
    shown = [chunk for chunk in reply.chunks if not chunk["choices"]]
    assert [chunk["usage"] for chunk in shown] == ([OK.figures()] if asked else [])
    assert [used(each) for each in await chat.recorded(world)] == [USED]


@pytest.mark.parametrize("usage", [Usage.WITH_FINISH, Usage.GROQ])
async def test_a_chunk_that_tells_more_than_the_usage_is_never_hidden(
    chat: ChatStack, world: World, usage: Usage
) -> None:
    world.a.behave(behaviour.usage_like(usage))
    reply = await chat.ask(world, stream=True)
    assert hashlib.sha256(reply.body).hexdigest() == world.a.chats[0].sent
    assert [used(each) for each in await chat.recorded(world)] == [USED]


@pytest.mark.parametrize(
    "said",
    [
        'data: [DONE]\n\n"finish_reason":"stop"',
        '"usage": {"prompt_tokens": 1, "completion_tokens": 2}, "choices": []',
        '{"error":{"message":"none"}}',
        "event: error\ndata: data: data:\r\n\r\n",
    ],
)
async def test_words_of_the_protocol_in_an_answer_are_but_words(chat: ChatStack, world: World, said: str) -> None:
    world.a.behave(ok(Answer(content=said, chunks=1)))
    reply = await chat.ask(world, stream=True)
    assert reply.text == said
    assert reply.is_done
    assert [(each.succeeded, used(each)) for each in await chat.recorded(world)] == [(True, USED)]


async def test_a_stream_that_speaks_of_done_is_not_taken_for_complete(chat: ChatStack, world: World) -> None:
    world.a.behave(faults.cut(2, Answer(content='data: [DONE]\n\n"finish_reason":"stop"', chunks=1)))
    reply = await chat.ask(world, stream=True)
    assert_visibly_broken(reply)
    assert [each.failure for each in await chat.recorded(world)] == ["SERVER_ERROR"]


@pytest.mark.parametrize("length", [False, True], ids=["by chunks", "by its length"])
async def test_a_last_event_without_a_blank_line_is_handed_on(chat: ChatStack, world: World, length: bool) -> None:
    end = b"data: [DONE]"
    world.a.behave(written("no blank line", content("all"), end, length=length))
    reply = await chat.ask(world, stream=True)
    assert reply.text == "all"
    assert reply.is_done
    assert [each.succeeded for each in await chat.recorded(world)] == [True]


async def test_a_huge_event_and_a_huge_answer_arrive(chat: ChatStack, world: World) -> None:
    size = 12_000_000
    world.a.behave(faults.huge(size))
    stream, whole = await asyncio.gather(chat.ask(world, stream=True), chat.ask(world))
    assert (len(stream.text), len(whole.text)) == (size, size)
    assert [used(each) for each in await chat.recorded(world, 2)] == [USED] * 2


# What breaks


@pytest.mark.parametrize("parts", range(6))
@pytest.mark.parametrize("fault", [faults.reset_after, faults.cut, faults.cut_at_eof])
async def test_a_stream_that_breaks_anywhere_is_visibly_broken(
    chat: ChatStack, world: World, fault: Callable[[int], Fault], parts: int
) -> None:
    world.a.behave(fault(parts))
    reply = await chat.ask(world, stream=True)
    assert_visibly_broken(reply)
    assert OK.text.startswith(reply.text)
    (attempt,) = await chat.recorded(world)
    assert (attempt.failure, attempt.is_estimated) == ("SERVER_ERROR", True)
    assert attempt.output_tokens <= parts
    assert world.b.chats == []


@pytest.mark.parametrize("length", [False, True], ids=["by chunks", "by its length"])
async def test_half_an_event_is_replaced_by_the_error(chat: ChatStack, world: World, length: bool) -> None:
    world.a.behave(written("half an event", content("half"), content("an event")[:-9], length=length))
    reply = await chat.ask(world, stream=True)
    assert reply.text == "half"
    assert [json.loads(data).get("error", {}).get("code") for data in reply.data] == [None, "stream_interrupted"]
    assert [(each.failure, each.is_estimated) for each in await chat.recorded(world)] == [("SERVER_ERROR", True)]


@pytest.mark.parametrize("style", ErrorEvent)
async def test_an_error_of_the_providers_own_is_the_last_word(chat: ChatStack, world: World, style: ErrorEvent) -> None:
    world.a.behave(sse_faults.error_event(style=style, done=True))
    reply = await chat.ask(world, stream=True)
    assert "error" in reply.chunks[-1]
    assert sum("error" in chunk for chunk in reply.chunks) == 1
    assert not reply.is_done
    assert [each.failure for each in await chat.recorded(world)] == ["SERVER_ERROR"]


async def test_an_endless_answer_in_one_piece_ends_in_an_error(chat: ChatStack, world: World) -> None:
    world.a.behave(faults.endless())
    reply = await chat.ask(world)
    assert (reply.status, reply.error["code"]) == (502, "answer_not_passed_on")
    assert [each.failure for each in await chat.recorded(world)] == ["SERVER_ERROR"]


# Clients that hang up


async def test_a_client_that_hangs_up_pays_by_estimate_for_what_came(chat: ChatStack, world: World) -> None:
    world.a.behave(ok(Answer(chunks=1000, delay_s=0.05)))
    reply = await chat.ask(world, stream=True, leave_when=lambda reply: len(reply.chunks) >= 5)
    (attempt,) = await chat.recorded(world)
    assert (attempt.failure, attempt.is_estimated) == ("CANCELLED", True)
    assert attempt.input_tokens > 0
    assert len(reply.chunks) <= attempt.output_tokens < 100
    seen = await world.a.request()
    await seen.over.wait()
    assert seen.fate is Fate.LEFT


async def test_a_client_that_leaves_an_endless_stream_ends_it(chat: ChatStack, world: World) -> None:
    world.a.behave(faults.endless())
    reply = await chat.ask(world, stream=True, leave_when=lambda reply: reply.size > 3_000_000)
    assert reply.end == "left"
    assert [(each.failure, each.is_estimated) for each in await chat.recorded(world)] == [("CANCELLED", True)]
    assert (await world.a.request()).fate is Fate.LEFT


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_hangs_up_before_the_answer_pays_nothing(
    chat: ChatStack, world: World, stream: bool
) -> None:
    world.a.behave(faults.silent())
    asking = asyncio.create_task(chat.ask(world, stream=stream))
    seen = await world.a.request()
    asking.cancel()
    (attempt,) = await chat.recorded(world)
    assert (attempt.failure, used(attempt), attempt.cost_usd) == ("CANCELLED", (0, 0, 0, 0), 0)
    await seen.over.wait()
    assert (seen.fate, world.b.chats) == (Fate.LEFT, [])


def test_envoy_has_nothing_to_complain_about(chat: ChatStack) -> None:
    assert chat.complaints() == []
