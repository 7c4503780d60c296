"""Two hundred streams at once: every byte arrives, and nobody but Envoy works for it. LONG=1 makes them last 30 s."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from conftest import User
from gateway import chat_client
from gateway.answers import Answer, Usage, is_unharmed
from gateway.behaviour import Fault, ok
from process_meter import cpu_s, resident_bytes

if TYPE_CHECKING:
    import pytest

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, World
    from gateway.provider_exchange import Exchange

STREAMS = 200
USERS = 4
CHUNKS, DELAY_S = (300 if os.environ.get("LONG") == "1" else 50), 0.1
SETTLED = 0.3
"""The part of the streams that goes by before anything is measured: all decisions are made and written down by then."""
MEASURED = 0.4
MOST_GROWTH_BYTES = 8 * 1024 * 1024
MOST_CPU_S_PER_CHUNK = 1e-3 / 100
PATIENCE_S = 2 * CHUNKS * DELAY_S + 30


def own_words(text: str) -> Answer:
    """Answer with words of this stream alone, and their SHA-256 at the end."""
    words = f"{text}: " * (CHUNKS * 40 // len(text))
    return Answer(
        content=words + hashlib.sha256(words.encode()).hexdigest(), chunks=CHUNKS, delay_s=DELAY_S, usage=Usage.ALWAYS
    )


async def echo(exchange: Exchange) -> None:
    await ok(own_words(exchange.seen.body["messages"][0]["content"])).act(exchange)


ECHO = Fault("own words", "Answers each request with words of its own.", echo)


async def test_two_hundred_streams_at_once_cost_python_nothing(
    chat: ChatStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "PATIENCE_S", PATIENCE_S)
    world.a.behave(ECHO)
    server, envoy = chat.stack.server.pid, chat.stack.envoy.pid
    seconds, reads = CHUNKS * DELAY_S, 0

    def count(_: Reply) -> bool:
        nonlocal reads
        reads += 1
        return False

    async def ask(who: World, number: int) -> Reply:
        said = {"messages": [{"role": "user", "content": f"wörd {number}"}], "max_tokens": 1000}
        return await chat.ask(who, stream=True, usage=True, leave_when=count, **said)

    before = cpu_s(server)
    await asyncio.sleep(MEASURED * seconds)
    idle_s = cpu_s(server) - before

    users = [world] + [replace(world, user=_new_user(chat)) for _ in range(USERS - 1)]
    tasks = [asyncio.create_task(ask(users[number % USERS], number)) for number in range(STREAMS)]
    await world.a.request(STREAMS)
    await asyncio.sleep(SETTLED * seconds)
    resident = {pid: resident_bytes(pid) for pid in (server, envoy)}
    before, read_before = cpu_s(server), reads
    await asyncio.sleep(MEASURED * seconds)
    used_s, chunks = cpu_s(server) - before, reads - read_before
    growth = {pid: resident_bytes(pid) - resident[pid] for pid in (server, envoy)}
    assert not any(task.done() for task in tasks)
    assert chunks > STREAMS * MEASURED * CHUNKS / 2
    assert max(0.0, used_s - idle_s) / chunks < MOST_CPU_S_PER_CHUNK
    assert max(growth.values()) < MOST_GROWTH_BYTES

    replies = await asyncio.gather(*tasks)
    sent = {seen.body["messages"][0]["content"]: seen.sent for seen in world.a.chats}
    assert len(sent) == STREAMS
    for number, reply in enumerate(replies):
        assert (reply.status, reply.end, reply.is_done) == (200, "whole", True)
        assert reply.text.startswith(f"wörd {number}: ")
        assert is_unharmed(reply.text)
        assert hashlib.sha256(reply.body).hexdigest() == sent[f"wörd {number}"]
    for user in users:
        recorded = await chat.recorded(user, STREAMS // USERS)
        assert len(recorded) == STREAMS // USERS
        assert all(each.succeeded and not each.is_estimated and each.at == "A" for each in recorded)
        assert {(each.input_tokens, each.output_tokens) for each in recorded} == {(19, 10)}


def _new_user(chat: ChatStack) -> User:
    user_id = uuid.uuid4()
    return User(user_id, chat.stack.identity.mint("user", user_id))
