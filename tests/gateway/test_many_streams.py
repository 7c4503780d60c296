"""Two hundred streams at once: every byte arrives, and nobody but Envoy works for it. LONG=1 makes them last 30 s."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from conftest import User
from gateway import chat_client
from gateway.answers import Answer, Usage, is_unharmed
from gateway.behaviour import Fault, begin, say
from process_meter import cpu_s, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, World
    from gateway.provider_exchange import Exchange

STREAMS = 200
USERS = 4
CHUNKS, DELAY_S = (300 if os.environ.get("LONG") == "1" else 70), 0.1
SETTLED = CHUNKS // 5
"""Chunks of each stream before anything is measured: its decision is made and written down by then."""
MEASURED, WINDOWS = 0.1, 3
"""The part of each stream that is measured at a time, and how often: what the server does besides is not in each."""
MOST_GROWTH_BYTES = 8 * 1024 * 1024
MOST_CPU_S_PER_CHUNK = 1e-3 / 100
PATIENCE_S = 2 * CHUNKS * DELAY_S + 30


def own_words(text: str) -> Answer:
    """Answer with words of this stream alone, and their SHA-256 at the end."""
    words = f"{text}: " * (CHUNKS * 40 // len(text))
    return Answer(
        content=words + hashlib.sha256(words.encode()).hexdigest(), chunks=CHUNKS, delay_s=DELAY_S, usage=Usage.ALWAYS
    )


def echo(all_are_settled: asyncio.Event) -> Fault:
    async def act(exchange: Exchange) -> None:
        answer = own_words(exchange.seen.body["messages"][0]["content"])
        parts = await begin(exchange, answer)
        await say(exchange, parts[: SETTLED + 1], answer)  # the first has no words
        await all_are_settled.wait()
        await say(exchange, parts[SETTLED + 1 :], answer)
        await exchange.end()

    return Fault("own words", "Answers each request with words of its own.", act)


async def test_two_hundred_streams_at_once_cost_python_nothing(
    chat: ChatStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "PATIENCE_S", PATIENCE_S)
    all_are_settled = asyncio.Event()
    world.a.behave(echo(all_are_settled))
    server, envoy = chat.stack.server.pid, chat.stack.envoy.pid
    came = [0] * STREAMS
    """Chunks, of each stream."""

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(DELAY_S)
                assert not any(task.done() for task in tasks)

    async def ask(who: World, number: int) -> Reply:
        def count(reply: Reply) -> bool:
            came[number] += reply.reads[-1].count(b"\n\n")
            return False

        said = {"messages": [{"role": "user", "content": f"wörd {number}"}], "max_tokens": 1000}
        return await chat.ask(who, stream=True, usage=True, leave_when=count, **said)

    before, began = cpu_s(server), time.monotonic()
    await asyncio.sleep(WINDOWS * MEASURED * CHUNKS * DELAY_S)
    idle = (cpu_s(server) - before) / (time.monotonic() - began)

    users = [world] + [replace(world, user=_new_user(chat)) for _ in range(USERS - 1)]
    tasks = [asyncio.create_task(ask(users[number % USERS], number)) for number in range(STREAMS)]
    await until(lambda: min(came) >= SETTLED)
    all_are_settled.set()
    resident = {pid: resident_bytes(pid) for pid in (server, envoy)}
    used = []
    for _ in range(WINDOWS):
        before, began, came_before = cpu_s(server), time.monotonic(), sum(came)
        await until(lambda came_before=came_before: sum(came) - came_before >= MEASURED * STREAMS * CHUNKS)
        used_s = cpu_s(server) - before - idle * (time.monotonic() - began)
        used.append(used_s / (sum(came) - came_before))
    growth = {pid: resident_bytes(pid) - resident[pid] for pid in (server, envoy)}
    assert min(used) < MOST_CPU_S_PER_CHUNK
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
