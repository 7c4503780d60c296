"""The catalogue as it was: what is in memory is not read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from llmrouter_server import errors
from llmrouter_server.catalog.past import MOST_KEPT, PastSnapshots
from llmrouter_server.catalog.snapshot import Snapshot

NEWEST = Snapshot(100, ())


class Source:
    """Stands for the database."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.reading = 0
        self.is_stuck = False

    async def load_snapshot(self, number: int) -> Snapshot:
        self.read.append(number)
        self.reading += 1
        assert self.reading == 1
        await (asyncio.Event().wait() if self.is_stuck else asyncio.sleep(0))
        self.reading -= 1
        if number < 0:
            raise errors.not_found("snapshot")
        return Snapshot(number, ())


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def past(source: Source) -> PastSnapshots:
    async def newest() -> Snapshot:
        return NEWEST

    return PastSnapshots(cast("Any", source), newest)


async def test_the_newest_one_is_the_one_in_memory(past: PastSnapshots, source: Source) -> None:
    assert await past.get(100) is NEWEST
    assert source.read == []


async def test_one_that_was_read_is_not_read_again_and_those_asked_for_last_are_kept(
    past: PastSnapshots, source: Source
) -> None:
    for number in range(MOST_KEPT):
        assert (await past.get(number)).number == number
    assert (await past.get(0)).number == 0
    assert len(source.read) == MOST_KEPT
    await past.get(99)
    await past.get(0)
    assert source.read[MOST_KEPT:] == [99]
    await past.get(1)
    assert source.read[MOST_KEPT:] == [99, 1]


async def test_many_who_ask_at_once_have_each_read_once_one_after_the_other(
    past: PastSnapshots, source: Source
) -> None:
    found = await asyncio.gather(*(past.get(number) for number in (1, 2, 1, 2)))
    assert [each.number for each in found] == [1, 2, 1, 2]
    assert source.read == [1, 2]


async def test_one_that_is_kept_waits_for_nobody(past: PastSnapshots, source: Source) -> None:
    await past.get(1)
    source.is_stuck = True
    stuck = asyncio.create_task(past.get(2))
    async with asyncio.timeout(10):
        while source.reading == 0:
            await asyncio.sleep(0)
        assert (await past.get(1)).number == 1
    stuck.cancel()


async def test_one_that_is_gone_is_not_found_each_time(past: PastSnapshots, source: Source) -> None:
    for _ in range(2):
        with pytest.raises(errors.DomainError, match="no such snapshot"):
            await past.get(-1)
    assert source.read == [-1, -1]
