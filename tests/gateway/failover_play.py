"""Plays a row of docs/failover.md in a world of its own, and checks that everything is as it says."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.failover_rows import REFUSED, STREAM, Row
from gateway.failover_words import said, told
from gateway.provider_exchange import TELLTALES
from process_meter import waited_s

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, Recorded, World

AT_ONCE = 8
"""Scenarios that run side by side: more, and a busy machine makes a healthy provider look silent."""
HEADERS = {
    "cache-control",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "transfer-encoding",
    "x-accel-buffering",
    "x-llmrouter-attempts",
    "x-llmrouter-decision-id",
    "x-llmrouter-model",
    "x-llmrouter-provider",
    "x-request-id",
}
"""All that a client may see."""
MOST_EACH = 2
TICK_S = 0.05
LATE_S = 0.5
"""For how long the machine may keep those waiting who are to hear of silence, or of a quick failure."""
MOST_PLAYS = 3

Scenario = tuple[Row, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    world: World
    reply: Reply
    recorded: list[Recorded]


async def play_all(
    chat: ChatStack,
    impatient: ChatStack,
    scenarios: Mapping[str, Scenario],
    *,
    tls: Callable[[ChatStack], Mapping[str, ssl.SSLContext]] = lambda _: {},
    at_once: int = AT_ONCE,
) -> Mapping[str, Outcome | BaseException]:
    """Play them side by side, each in a world of its own; return what became of each, by its name.

    impatient: the place of those that are about silence. What fails while the machine keeps somebody waiting says
    nothing, and is played again.
    """
    turn = asyncio.Semaphore(at_once)
    plays: dict[str, Coroutine[Any, Any, Outcome]] = {}

    async def run(stack: ChatStack, scenario: Scenario, world: World) -> Outcome:
        async with turn:
            for _ in range(MOST_PLAYS - 1):
                async with lateness(os.getpid(), stack.stack.server.pid, stack.stack.envoy.pid) as late_s:
                    try:
                        return await play(stack, world, *scenario)
                    except (AssertionError, TimeoutError):
                        if late_s() < LATE_S:
                            raise
                (world,) = await stack.new_worlds(1, tls=tls(stack))
            return await play(stack, world, *scenario)

    for stack in (impatient, chat):
        here = {name: each for name, each in scenarios.items() if each[0].is_about_silence is (stack is impatient)}
        worlds = await stack.new_worlds(len(here), tls=tls(stack))
        plays |= {name: run(stack, here[name], world) for name, world in zip(here, worlds, strict=True)}
    return dict(zip(plays, await asyncio.gather(*plays.values(), return_exceptions=True), strict=True))


@asynccontextmanager
async def lateness(*pids: int) -> AsyncIterator[Callable[[], float]]:
    """Measure how long the machine has kept somebody waiting since then: these processes for a CPU, or our own."""
    before, longest = {pid: waited_s(pid) for pid in pids}, 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.monotonic() - due)

    ticking = asyncio.create_task(tick())
    try:
        yield lambda: max(longest, *(waited_s(pid) - before[pid] for pid in pids))
    finally:
        ticking.cancel()


async def play(chat: ChatStack, world: World, row: Row, asked: str) -> Outcome:
    """Ask once; AssertionError when it is not as the row says."""
    for provider, behaviour in zip(world.providers.values(), (row.a, row.b, row.c), strict=True):
        if behaviour == (REFUSED,):
            await provider.go_away()
        else:
            provider.behave(*behaviour)
    is_stream = asked == STREAM
    reply = await chat.ask(world, stream=is_stream, usage=True if is_stream else None)
    assert "x-llmrouter-decision-id" in reply.headers, reply
    outcome = Outcome(world, reply, await chat.recorded(world))
    assert_as_told(outcome, row, chat.silence_s)
    return outcome


def assert_as_told(outcome: Outcome, row: Row, silence_s: float) -> None:
    world, reply = outcome.world, outcome.reply
    order = world.order()
    assert (said(world, reply), " ".join(letter for _, letter in order), *map(told, outcome.recorded)) == (
        row.sees,
        row.attempts,
        *row.recorded,
    ), reply
    assert [each.number for each in outcome.recorded] == list(range(1, len(outcome.recorded) + 1))
    assert reply.headers["x-llmrouter-attempts"] == str(len(outcome.recorded))
    assert {each.payer for each in outcome.recorded} == {"PLATFORM"}
    assert_nobody_is_hammered(world, row, silence_s)
    assert_nothing_leaks(world, reply)
    if row.says:
        message = reply.error["message"]
        assert [words for words in row.says if words not in message] == []
        assert reply.headers.get("retry-after") == (None if row.retry_after_s is None else str(row.retry_after_s))


def assert_nobody_is_hammered(world: World, row: Row, silence_s: float) -> None:
    times = {letter: [seen.at for seen in each.chats] for letter, each in world.providers.items()}
    assert max(map(len, times.values())) <= MOST_EACH
    for first, second in (each for each in times.values() if len(each) == MOST_EACH):
        assert second - first >= row.pause_s
    if row.is_silent:
        places = [each for each in times.values() if each]
        for before, after in pairwise(places):
            assert after[0] - before[-1] >= silence_s - 0.25  # when it came is noted by a busy process


def assert_nothing_leaks(world: World, reply: Reply) -> None:
    """No header of a provider, no key but at its own provider, the client's token nowhere."""
    assert reply.headers.keys() <= HEADERS
    values = {value for _, value in TELLTALES}
    assert not [value for value in reply.headers.values() if value in values]
    uuid.UUID(reply.headers["x-llmrouter-decision-id"])
    whole = (repr(reply.headers).encode(), reply.body)
    assert not [key for key in world.keys.values() for part in whole if key.encode() in part]
    for letter, provider in world.providers.items():
        secrets = [key for of, key in world.keys.items() if of != letter] + [world.user.token]
        for seen in provider.chats:
            assert seen.headers["authorization"] == f"Bearer {world.keys[letter]}"
            assert seen.path == "/v1/chat/completions"
            assert seen.body["model"] == world.model
            assert not [each for each in secrets if each in repr(seen.headers) or each.encode() in seen.raw]
