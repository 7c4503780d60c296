"""What is written together, and what each who waits is told; what stores it is a stand-in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llmrouter_server import errors
from llmrouter_server.runtime.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

BAD, AWAY = -1, -2


class Store:
    """Answers each number with its double. A bad one spoils its batch; while one is away, nothing can be stored."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def write(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        await asyncio.sleep(0)
        if AWAY in numbers:
            raise errors.unavailable()
        if BAD in numbers:
            raise ValueError("bad")
        return [2 * number for number in numbers]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def commits(store: Store) -> AsyncIterator[GroupCommit[int, int]]:
    commits = GroupCommit("usage", store.write, max_batch=4, max_waiting=10)
    await commits.start()
    yield commits
    await commits.stop()


async def test_items_that_came_together_are_written_together_and_answered_in_their_order(
    commits: GroupCommit[int, int], store: Store
) -> None:
    first, alone, second = await asyncio.gather(commits.add_all([1, 2, 3]), commits.add(4), commits.add_all([5, 6]))
    assert (first, alone, second) == ([2, 4, 6], 8, [10, 12])
    assert store.batches == [[1, 2, 3, 4], [5, 6]]


async def test_one_bad_item_spoils_nothing_but_its_own_outcome(commits: GroupCommit[int, int], store: Store) -> None:
    together, alone = await asyncio.gather(commits.add_all([1, BAD, 2]), commits.add(3))
    assert (together[0], together[2], alone) == (2, 4, 6)
    assert isinstance(together[1], ValueError)
    assert store.batches == [[1, BAD, 2, 3], [1], [BAD], [2], [3]]


async def test_when_nothing_can_be_stored_everyone_in_the_batch_is_told_so(commits: GroupCommit[int, int]) -> None:
    together, alone = await asyncio.gather(commits.add_all([1, AWAY]), commits.add(3), return_exceptions=True)
    assert isinstance(together, list)
    assert all(isinstance(outcome, errors.DomainError) for outcome in (*together, alone))


async def test_items_for_which_there_is_no_room_are_all_refused(commits: GroupCommit[int, int], store: Store) -> None:
    with pytest.raises(errors.DomainError, match="unavailable"):
        await commits.add_all(list(range(11)))
    assert await commits.add_all([]) == []
    assert await commits.add_all(list(range(10))) == [2 * number for number in range(10)]
    assert store.batches == [list(range(10))]


async def test_who_hung_up_while_waiting_is_left_out(commits: GroupCommit[int, int], store: Store) -> None:
    gone, staying = asyncio.create_task(commits.add_all([1, 2])), asyncio.create_task(commits.add(3))
    await asyncio.sleep(0)
    gone.cancel()
    assert await staying == 6
    assert store.batches == [[3]]


class SlowStore:
    """Stores a batch when it is let to, and knows how many it is at."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.batches: list[list[int]] = []
        self.writing = 0

    async def write(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        self.writing += 1
        await self.is_open.wait()
        self.writing -= 1
        return [2 * number for number in numbers]


async def test_only_a_full_batch_is_written_beside_another_and_never_more_than_so_many() -> None:
    store = SlowStore()
    commits = GroupCommit("usage", store.write, max_batch=4, max_writing=2)
    await commits.start()
    waiting = [asyncio.create_task(commits.add(1))]
    await _until(lambda: store.writing == 1)
    waiting += [asyncio.create_task(commits.add(number)) for number in (2, 3, 4)]
    await _turns()
    assert store.batches == [[1]]
    waiting.append(asyncio.create_task(commits.add(5)))
    await _until(lambda: store.writing == 2)
    waiting += [asyncio.create_task(commits.add(number)) for number in range(6, 11)]
    await _turns()
    assert store.batches == [[1], [2, 3, 4, 5]]
    store.is_open.set()
    assert await asyncio.gather(*waiting) == [2 * number for number in range(1, 11)]
    assert store.batches[2][:4] == [6, 7, 8, 9]
    await commits.stop()


async def test_stopping_waits_for_all_that_is_written_and_all_that_waits() -> None:
    store = SlowStore()
    commits = GroupCommit("usage", store.write, max_batch=2, max_writing=2)
    await commits.start()
    waiting = [asyncio.create_task(commits.add_all([number, number])) for number in range(4)]
    await _until(lambda: store.writing == 2)
    stopping = asyncio.create_task(commits.stop())
    await _turns()
    assert not stopping.done()
    with pytest.raises(errors.DomainError, match="unavailable"):
        await commits.add(5)
    store.is_open.set()
    await stopping
    assert [task.done() for task in waiting] == [True] * 4
    assert await asyncio.gather(*waiting) == [[2 * number] * 2 for number in range(4)]


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0)


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
