from __future__ import annotations

import json

import pytest

from gateway import sse_faults
from gateway.answers import Answer
from gateway.behaviour import Fault, ok
from gateway.provider_client import ask
from gateway.provider_server import provider
from gateway.sse_faults import ErrorEvent, Split

DRESSED = [
    *(sse_faults.split(where) for where in Split),
    *(sse_faults.line_ends(end) for end in (b"\r\n", b"\r")),
    sse_faults.at_once(),
    sse_faults.comments(),
    sse_faults.more_fields(),
    sse_faults.no_space(),
]


@pytest.mark.parametrize("fault", DRESSED, ids=str)
async def test_a_stream_in_unusual_clothes_says_the_same(fault: Fault) -> None:
    async with provider() as served:
        usual, reply = await ask(served, ok(), stream=True), await ask(served, fault, stream=True)
        document = await ask(served, fault)
    assert [chunk["choices"] for chunk in reply.chunks] == [chunk["choices"] for chunk in usual.chunks]
    assert reply.data[-1] == "[DONE]"
    assert document.json["usage"] == Answer().figures()


async def test_the_clothes_are_unusual_indeed() -> None:
    async with provider() as served:
        crlf = (await ask(served, sse_faults.line_ends(), stream=True)).body
        assert crlf.count(b"\r\n") == crlf.count(b"\n") > 0
        assert b"\n" not in (await ask(served, sse_faults.line_ends(b"\r"), stream=True)).body
        assert (await ask(served, sse_faults.comments(), stream=True)).body.startswith(
            b": OPENROUTER PROCESSING\n\ndata:"
        )
        assert b"data: " not in (await ask(served, sse_faults.no_space(), stream=True)).body
        fields = (await ask(served, sse_faults.more_fields(), stream=True)).body
        assert fields.startswith(b"event: message\nid: 0\nretry: 5\ndata: ")


async def test_events_are_split_at_the_places_named() -> None:
    async with provider() as served:
        event = (await ask(served, sse_faults.split(Split.EVENT), stream=True)).reads
        character = (await ask(served, sse_faults.split(Split.CHARACTER), stream=True)).reads
        feeds = (await ask(served, sse_faults.split(Split.LINE_FEEDS), stream=True)).reads
        every = (await ask(served, sse_faults.split(Split.EVERY_BYTE), stream=True)).reads
        once = (await ask(served, sse_faults.at_once(), stream=True)).reads
    assert any(read.endswith(b'"content":"') for read in event)
    assert any(read[0] & 0xC0 == 0x80 for read in character)
    assert all(read.endswith(b"\n") and not read.endswith(b"\n\n") for read in feeds[:-1])
    assert all(len(read) == 1 for read in every)
    assert len(once) == 1


async def test_a_bad_event_stands_between_good_ones() -> None:
    async with provider() as served:
        reply = await ask(served, sse_faults.bad_event(2), stream=True)
    assert reply.data[-1] == "[DONE]"
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.data[2])
    assert json.loads(reply.data[3])["choices"]


@pytest.mark.parametrize(("style", "done"), [(style, done) for style in ErrorEvent for done in (False, True)])
async def test_an_error_may_come_in_the_middle_of_a_stream(style: ErrorEvent, done: bool) -> None:
    async with provider() as served:
        reply = await ask(served, sse_faults.error_event(1, style, done=done), stream=True)
        alone = await ask(served, sse_faults.error_event(0, style), stream=True)
    assert reply.status == 200
    assert [bool(chunk.get("error")) for chunk in reply.chunks] == [False, True]
    assert (reply.data[-1] == "[DONE]") is done
    assert len(alone.data) == 1
    assert alone.body.startswith(b"event: error\n") is (style is ErrorEvent.ANTHROPIC)
