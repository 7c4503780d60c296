"""The platform's keys in memory: never older than the last change that was heard of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from llmrouter_server import errors
from llmrouter_server.byok.live_keys import KeptKey, PlatformKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVIDER = UUID(int=1)


class Source:
    """Stands for the database: what it holds, how often it was asked, and whether changes are heard of."""

    def __init__(self) -> None:
        self.ciphertext = "first"
        self.reads = 0
        self.is_told = True
        self.is_away = False
        self.slow: asyncio.Event | None = None
        self.keys = PlatformKeys(self.read, is_told=lambda: self.is_told)

    async def read(self) -> Mapping[UUID, KeptKey]:
        self.reads += 1
        keys = {PROVIDER: KeptKey(None, self.ciphertext)}
        if self.slow is not None:
            await self.slow.wait()
        if self.is_away:
            raise errors.unavailable()
        return keys

    async def used(self) -> str:
        return (await self.keys.current())[PROVIDER].ciphertext


async def test_they_are_read_once_until_one_changes() -> None:
    source = Source()
    assert [await source.used() for _ in range(3)] == ["first"] * 3
    source.ciphertext = "second"
    source.keys.changed("")
    assert [await source.used() for _ in range(3)] == ["second"] * 3
    assert source.reads == 2


async def test_while_changes_are_not_heard_of_every_use_reads() -> None:
    source = Source()
    await source.used()
    source.is_told, source.ciphertext = False, "second"
    assert await source.used() == "second"
    source.ciphertext = "third"
    assert await source.used() == "third"


async def test_a_change_that_is_heard_of_while_they_are_read_is_read_too() -> None:
    source = Source()
    source.slow = asyncio.Event()
    reading = asyncio.create_task(source.used())
    await asyncio.sleep(0)
    source.ciphertext = "second"
    source.keys.changed()
    source.slow.set()
    assert await reading == "first"  # asked before the change was heard of
    assert await source.used() == "second"


async def test_any_number_of_uses_at_once_need_one_read() -> None:
    source = Source()
    assert await asyncio.gather(*(source.used() for _ in range(100))) == ["first"] * 100
    assert source.reads == 1


async def test_a_read_that_fails_is_not_remembered() -> None:
    source = Source()
    source.is_away = True
    for _ in range(2):
        with pytest.raises(errors.DomainError):
            await source.used()
    source.is_away = False
    assert await source.used() == "first"
