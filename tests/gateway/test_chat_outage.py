"""The chat door while a part of the product is away: it says so at once, and works again by itself."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

import http_json
from gateway import answers
from gateway.answers import OK
from gateway.behaviour import Fault, begin, ok, say
from gateway.chat_stack import PATIENCE_S, chat_stack
from gateway.test_chat_door import CHAT, assert_refused, body_of, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, World
    from gateway.provider_exchange import Exchange

FROZEN_S = 10.0
"""Envoy gives up waiting for a decision after 4 s, and its client must have heard long before its own patience ends."""

EARLY_BYTES = 2000
"""Of a stream of 13 KB that takes two seconds."""

STREAMS = 80
"""Their reports are several times what Envoy keeps of them by default."""


@pytest.fixture(scope="module")
async def fragile() -> AsyncIterator[ChatStack]:
    """A stack of this file's own, whose parts its tests stop and start again."""
    async with chat_stack() as running:
        yield running


@pytest.fixture
async def home(fragile: ChatStack) -> World:
    return await fragile.new_world()


async def ask(fragile: ChatStack, home: World) -> Reply:
    async with asyncio.timeout(FROZEN_S):
        return await fragile.post(home, body_of(home))


async def until_well(fragile: ChatStack, home: World) -> None:
    reply = None
    async with asyncio.timeout(30):
        while reply is None or reply.status != 200:
            reply = await fragile.post(home, body_of(home))
            if reply.status != 200:
                assert_refused(reply, 503, "unavailable")
                await asyncio.sleep(0.05)
    assert reply.text == OK.text


async def test_refusals_are_counted_by_their_code(fragile: ChatStack, home: World) -> None:
    assert (await fragile.post(home, b"{")).status == 400
    assert (await ask(fragile, home)).status == 200
    metrics = http_json.call("GET", fragile.stack.metrics_url).json
    for code in ("INVALID_ARGUMENT", "OK"):
        assert f'llmrouter_requests_total{{code="{code}",method="{CHAT}"}} 1.0' in metrics


async def test_without_the_server_nothing_goes_on(fragile: ChatStack, home: World) -> None:
    home.a.behave(ok(answers.checked(40, delay_s=0.05)))
    running = asyncio.create_task(fragile.ask(home, stream=True))
    seen = await home.a.request()
    async with asyncio.timeout(FROZEN_S):
        while seen.sent_bytes < EARLY_BYTES:  # the decision on it is over
            await asyncio.sleep(0.02)
    await fragile.stack.kill_server()
    try:
        reply = await ask(fragile, home)
        assert_refused(reply, 503, "unavailable")
        assert reply.headers["retry-after"] == "1"
        listed = await request(fragile, "GET", "/v1/models", home.user.token)
        assert_refused(listed, 503, "unavailable")
        assert len(home.a.chats) == 1
        # What had been decided before goes on without it.
        under_way = await running
        assert (under_way.end, under_way.is_done) == ("whole", True)
        assert answers.is_unharmed(under_way.text)
    finally:
        await fragile.stack.start_server()
    home.a.behave()
    await until_well(fragile, home)


async def test_a_frozen_server_is_not_waited_for(fragile: ChatStack, home: World) -> None:
    os.kill(fragile.stack.server.pid, signal.SIGSTOP)
    try:
        assert_refused(await ask(fragile, home), 503, "unavailable")
        assert home.order() == []
    finally:
        os.kill(fragile.stack.server.pid, signal.SIGCONT)
    await until_well(fragile, home)
    [one] = await fragile.recorded(home)
    assert one.at == "A"


def held(may_go_on: asyncio.Event) -> Fault:
    async def act(exchange: Exchange) -> None:
        parts = await begin(exchange, OK)
        await say(exchange, parts[:2], OK)
        await may_go_on.wait()
        await say(exchange, parts[2:], OK)
        await exchange.end()

    return Fault("held", "Begins to answer, and goes on when all may.", act)


async def test_what_ends_while_the_server_stands_still_is_reported_when_it_goes_on(fragile: ChatStack) -> None:
    await fragile.stack.kill_server()
    await fragile.stack.start_server()  # nobody has reported anything to this one: no stream for reports is open
    homes, begun, may_go_on = await fragile.new_worlds(2), [0] * STREAMS, asyncio.Event()
    for home in homes:
        home.a.behave(held(may_go_on))

    async def ask_for(number: int) -> Reply:
        def count(reply: Reply) -> bool:
            begun[number] = reply.size
            return False

        return await fragile.ask(homes[number % 2], stream=True, max_tokens=100, leave_when=count)

    under_way = [asyncio.create_task(ask_for(number)) for number in range(STREAMS)]
    async with asyncio.timeout(PATIENCE_S):
        while not all(begun):
            await asyncio.sleep(0.02)
    os.kill(fragile.stack.server.pid, signal.SIGSTOP)
    try:
        await fragile.until_no_server_is_healthy()
        may_go_on.set()
        replies = await asyncio.gather(*under_way)
    finally:
        os.kill(fragile.stack.server.pid, signal.SIGCONT)
    assert {(reply.status, reply.end, reply.is_done) for reply in replies} == {(200, "whole", True)}
    for home in homes:
        assert len(await fragile.recorded(home, STREAMS // 2)) == STREAMS // 2
    # What is read from the journal, later, does not count here.
    metrics = http_json.call("GET", fragile.stack.metrics_url).json
    assert re.findall(r'^llmrouter_batch_size_sum{queue="gateway"} (.+)$', metrics, re.MULTILINE) == [f"{STREAMS}.0"]


async def test_without_the_database_nothing_goes_on(fragile: ChatStack, home: World) -> None:
    assert (await ask(fragile, home)).status == 200
    await fragile.recorded(home)
    await fragile.stack.stop_postgres()
    try:
        assert_refused(await ask(fragile, home), 503, "unavailable")
        assert len(home.a.chats) == 1
    finally:
        await fragile.stack.start_postgres()
    await until_well(fragile, home)
