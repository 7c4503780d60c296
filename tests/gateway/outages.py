"""A provider that is down for a while and then healthy: the steps that the tests check and docs/failover.md shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway import refusals
from gateway.behaviour import Fault, ok
from gateway.failover_rows import BOTH, REFUSED, STREAM, TOLD
from gateway.failover_words import said, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, Recorded, World
    from gateway.provider_exchange import Exchange

TO_OPEN = 2
"""Requests, each of which fails twice at A, until it is unhealthy: that takes 3 failures in a row."""
GOOD_PROBES = 3
"""In a row, until it is healthy."""
AT_ONCE = 3
"""Requests that are sent side by side, again and again."""
PAUSE_S = 0.3
PATIENCE_S = 30.0
"""How long a test waits for a probe before it fails."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request. requests: the providers in the order of their requests. recorded: each attempt."""

    sees: str
    requests: str
    recorded: tuple[str, ...]


LEFT_ALONE = Fate("B's answer", "B", (f"B: {TOLD}",))
SERVED = Fate("A's answer", "A", (f"A: {TOLD}",))


@dataclass(frozen=True, slots=True)
class Outage:
    """How A is down, and what becomes of a request that tries it then. B is well."""

    down: Fault
    lost: Fate
    asked: tuple[str, ...] = BOTH


OUTAGES = (
    Outage(refusals.unavailable(), Fate("B's answer", "A A B", ("A: SERVER_ERROR", "A: SERVER_ERROR", f"B: {TOLD}"))),
    Outage(REFUSED, Fate("B's answer", "B", ("A: CONNECT", "A: CONNECT", f"B: {TOLD}"))),
)
SCENARIOS: Mapping[str, tuple[Outage, str]] = {
    f"{outage.down}, {asked}": (outage, asked) for outage in OUTAGES for asked in outage.asked
}


@dataclass(frozen=True, slots=True)
class Wave:
    """Requests that were sent side by side.

    decided_at: when each was, in seconds since the epoch. asked_at: when A was asked, by its own clock.
    """

    fates: Sequence[Fate]
    decided_at: Sequence[float]
    asked_at: Sequence[float]

    @property
    def tried(self) -> list[int]:
        """The numbers of those for which A was tried."""
        return [number for number, fate in enumerate(self.fates) if any(each[0] == "A" for each in fate.recorded)]


@dataclass(frozen=True, slots=True)
class Course:
    """What happened, in this order."""

    at_first: Sequence[Wave]
    """A fails; one request a wave."""
    probes: Sequence[tuple[Sequence[Wave], Wave]]
    """What was sent until A was tried again, and the wave in which it was; A is down at the first, and then well."""
    at_last: Wave
    recorded: Sequence[Recorded]


class Player:
    """Plays an outage in a world of its own."""

    def __init__(self, chat: ChatStack, world: World, asked: str) -> None:
        self._chat, self._world, self._is_stream = chat, world, asked == STREAM
        self._sent = 0
        self._others_are_over = asyncio.Event()

    async def play(self, outage: Outage) -> Course:
        a = self._world.a
        if outage.down == REFUSED:
            await a.go_away()
        else:
            a.behave(outage.down)
        at_first = [await self._wave(1) for _ in range(TO_OPEN)]
        probes = [await self._until_probed()]
        a.behave(self._held())
        await a.come_back()
        probes += [await self._until_probed() for _ in range(GOOD_PROBES)]
        a.behave(ok())
        at_last = await self._wave(AT_ONCE)
        return Course(at_first, probes, at_last, await self._chat.recorded(self._world, self._sent))

    def _held(self) -> Fault:
        async def act(exchange: Exchange) -> None:
            await self._others_are_over.wait()
            await ok().act(exchange)

        return Fault("held", "Answers when the requests beside it are over: what it proves must not help them.", act)

    async def _until_probed(self) -> tuple[Sequence[Wave], Wave]:
        before: list[Wave] = []
        async with asyncio.timeout(PATIENCE_S):
            while not (wave := await self._wave(AT_ONCE)).tried:
                before.append(wave)
                await asyncio.sleep(PAUSE_S)
        return before, wave

    async def _wave(self, number: int) -> Wave:
        """Send so many at once, and wait until they are recorded."""
        self._others_are_over.clear()
        seen = {letter: len(each.chats) for letter, each in self._world.providers.items()}
        under_way = [asyncio.create_task(self._ask()) for _ in range(number)]
        for over, task in enumerate(asyncio.as_completed(under_way), 1):
            await task
            if over == number - 1:
                self._others_are_over.set()
        replies = [task.result() for task in under_way]
        self._sent += number
        recorded = await self._chat.recorded(self._world, self._sent)
        fates = [self._fate(reply, recorded) for reply in replies]
        came = {letter: each.chats[seen[letter] :] for letter, each in self._world.providers.items()}
        assert {letter: len(each) for letter, each in came.items()} == {
            letter: sum(fate.requests.count(letter) for fate in fates) for letter in came
        }
        return Wave(fates, [reply.decided_at for reply in replies], [each.at for each in came["A"]])

    async def _ask(self) -> Reply:
        return await self._chat.ask(self._world, stream=self._is_stream, usage=True if self._is_stream else None)

    def _fate(self, reply: Reply, recorded: Sequence[Recorded]) -> Fate:
        attempts = [each for each in recorded if each.decision_id == reply.headers["x-llmrouter-decision-id"]]
        reached = (each.at for each in attempts if each.failure != "CONNECT")
        return Fate(said(self._world, reply), " ".join(reached), tuple(map(told, attempts)))
