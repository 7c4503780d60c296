"""The catalogue in memory: never older than the last change that was heard of, and read no more than that takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from llmrouter_server import errors
from llmrouter_server.catalog.live import LiveCatalog
from llmrouter_server.catalog.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Source:
    """Stands for the database: what it holds, what was asked of it, and whether changes are heard of."""

    def __init__(self) -> None:
        self.number = 1
        self.asked: list[str] = []
        self.is_told = True
        self.is_away = False
        self.failure: Exception = errors.unavailable()
        self.slow: asyncio.Event | None = None
        self.live = LiveCatalog(cast("Any", self), lambda: self.is_told)

    async def load_snapshot(self) -> Snapshot:
        return Snapshot(await self._answer("snapshot"), ())

    async def catalog_number(self) -> int:
        return await self._answer("number")

    async def _answer(self, what: str) -> int:
        self.asked.append(what)
        number = self.number
        if self.slow is not None:
            await self.slow.wait()
        if self.is_away:
            raise self.failure
        return number

    async def begun(self, count: int) -> None:
        """Let others run until so many questions were asked."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                await asyncio.sleep(0)

    def users(self, count: int) -> list[asyncio.Task[Snapshot]]:
        return [asyncio.create_task(self.live.current()) for _ in range(count)]


async def numbers(users: list[asyncio.Task[Snapshot]]) -> list[int]:
    return [snapshot.number for snapshot in await asyncio.gather(*users)]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_is_read_once_until_it_changes() -> None:
    source = Source()
    assert [(await source.live.current()).number for _ in range(3)] == [1, 1, 1]
    source.number = 2
    source.live.changed("2")
    assert [(await source.live.current()).number for _ in range(3)] == [2, 2, 2]
    assert source.asked == ["snapshot", "snapshot"]


async def test_whoever_changed_it_sees_the_change_next() -> None:
    source = Source()
    await source.live.current()
    source.number = 2
    await source.live.refresh()
    assert (await source.live.current()).number == 2


async def test_while_changes_are_not_heard_of_each_use_looks_whether_the_number_has_grown() -> None:
    source = Source()
    await source.live.current()
    source.is_told = False
    assert [(await source.live.current()).number for _ in range(2)] == [1, 1]
    source.number = 2
    assert (await source.live.current()).number == 2
    assert source.asked == ["snapshot", "number", "number", "number", "snapshot"]


async def test_a_change_that_is_heard_of_while_it_is_read_is_read_too() -> None:
    source = Source()
    source.slow = asyncio.Event()
    [early] = source.users(1)
    await source.begun(1)
    source.number = 2
    source.live.changed("2")
    [late] = source.users(1)
    source.slow.set()
    assert await numbers([early, late]) == [1, 2]


async def test_any_number_of_uses_at_once_need_one_look() -> None:
    source = Source()
    await source.live.current()
    source.is_told, source.slow = False, asyncio.Event()
    first = source.users(1)
    await source.begun(2)
    others = source.users(100)  # too late for the first look: a change may have been missed since it began
    await settle()
    source.slow.set()
    await numbers(first + others)
    assert source.asked == ["snapshot", "number", "number"]


async def test_uses_that_wait_for_a_look_see_what_changed_before_they_came() -> None:
    source = Source()
    await source.live.current()
    source.is_told, source.slow = False, asyncio.Event()
    first = source.users(1)
    await source.begun(2)
    source.number = 2
    others = source.users(5)
    await settle()
    source.slow.set()
    assert await numbers(first + others) == [1, 2, 2, 2, 2, 2]


async def refused(uses: list[Awaitable[Snapshot]]) -> None:
    for use in uses:
        with pytest.raises(errors.DomainError, match="unavailable"):
            await use


async def test_a_look_that_fails_fails_for_all_who_waited_for_it_and_for_nobody_later() -> None:
    source = Source()
    source.slow, source.is_away = asyncio.Event(), True
    uses: list[Any] = source.users(1)
    await source.begun(1)
    uses += source.users(100)
    await settle()
    source.slow.set()
    await refused(uses)
    assert source.asked == ["snapshot", "snapshot"]
    source.is_away = False
    assert (await source.live.current()).number == 1


async def test_so_does_one_that_meets_what_it_cannot_read() -> None:
    source = Source()
    source.slow, source.is_away, source.failure = asyncio.Event(), True, KeyError("power_level")
    uses = source.users(1)
    await source.begun(1)
    uses += source.users(100)
    await settle()
    source.slow.set()
    outcomes = await asyncio.gather(*uses, return_exceptions=True)
    assert outcomes == [source.failure] * 101
    assert source.asked == ["snapshot", "snapshot"]


async def test_who_hangs_up_in_the_middle_of_a_look_leaves_it_to_the_next() -> None:
    source = Source()
    source.slow = asyncio.Event()
    [gone] = source.users(1)
    await source.begun(1)
    waiting = source.users(3)
    await settle()
    gone.cancel()
    source.slow.set()
    assert await numbers(waiting) == [1, 1, 1]
    assert source.asked == ["snapshot", "snapshot"]


async def test_a_catalogue_that_could_not_be_read_after_a_change_is_not_taken_for_new() -> None:
    source = Source()
    await source.live.current()
    source.number, source.is_away = 2, True
    source.live.changed("2")
    await refused([source.live.current(), source.live.current()])
    source.is_away = False
    assert (await source.live.current()).number == 2
