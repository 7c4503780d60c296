"""Writes items in batches, and tells nobody that an item is stored before it is.

Whoever waits while one batch is written goes into the next: no timer, no added latency when it is quiet. When it is
busy, the writer pauses for twice as long as a batch took, so that the next one is larger. Full batches may be written
side by side: while one waits for the disk, or for a row that another writes, the server reads and answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmrouter_server import errors
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
LONGEST_PAUSE_S = 0.010
"""Between batches, while items come in as fast as they are written: each batch has a cost of its own."""


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    """Items that came together, and the future of their outcomes; of one that came alone, of its outcome."""

    items: Sequence[Item]
    stored: asyncio.Future[Any]
    is_alone: bool
    since: float


class GroupCommit(Generic[Item, Result]):
    """Owns the tasks that write: one, and up to `max_writing` while a full batch waits for each of the others.

    `write` stores a batch, all or nothing, and returns one outcome for each item: a result, or an error for that item
    alone. When it raises something unexpected, each item of the batch is tried alone. Items that came together are
    written together: a batch ends with those that make it `max_batch` or more.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_batch: int = 500,
        max_writing: int = 1,
        max_waiting: int = 10_000,
    ) -> None:
        self._name, self._store, self._max_waiting = name, write, max_waiting
        self._max_batch, self._max_writing = max_batch, max_writing
        self._waiting: deque[_Waiting[Item]] = deque()
        self._items = 0
        """How many wait."""
        self._writing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False
        self._batch_size = telemetry.BATCH_SIZE.labels(name)
        self._queue_seconds = telemetry.QUEUE_SECONDS.labels(name)

    async def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write(), name=f"{self._name} writer")

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        self._stopping = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    async def add(self, item: Item) -> Result:
        """Return when the item is stored. Raises its error; UNAVAILABLE: nothing was stored, or it is not known."""
        return await self.enqueue(item)

    def enqueue(self, item: Item) -> asyncio.Future[Result]:
        """Take an item, and return the future of its outcome; UNAVAILABLE when too many wait."""
        stored: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._take((item,), stored, is_alone=True)
        return stored

    async def add_all(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        """Return when the items are stored, with the outcome of each. UNAVAILABLE: no room for all of them."""
        if not items:
            return []
        stored: asyncio.Future[Sequence[Result | Exception]] = asyncio.get_running_loop().create_future()
        self._take(items, stored, is_alone=False)
        return await stored

    def _take(self, items: Sequence[Item], stored: asyncio.Future[Any], *, is_alone: bool) -> None:
        if self._stopping or self._items + len(items) > self._max_waiting:
            raise errors.unavailable()
        self._waiting.append(_Waiting(items, stored, is_alone, time.perf_counter()))
        self._items += len(items)
        if self._may_begin():
            self._wake.set()

    async def _write(self) -> None:
        while self._waiting or not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            await self._gather()
            while self._may_begin():
                batch = self._next_batch()
                if batch:
                    task = asyncio.create_task(self._write_batch(batch), name=f"{self._name} batch")
                    self._writing.add(task)
                    task.add_done_callback(self._end)
        if self._writing:
            await asyncio.wait(self._writing)

    def _may_begin(self) -> bool:
        """Tell whether a batch is to be written now: alone any, beside others a full one."""
        if self._writing:
            return len(self._writing) < self._max_writing and self._items >= self._max_batch
        return bool(self._waiting)

    async def _write_batch(self, batch: list[_Waiting[Item]]) -> None:
        self._batch_size.observe(sum(len(each.items) for each in batch))
        began = time.perf_counter()
        self._queue_seconds.observe(began - batch[0].since)
        await self._store_batch(batch)
        if 0 < self._items < self._max_batch and not self._stopping:  # it is busy: the next batch is to be larger
            await asyncio.sleep(min(2 * (time.perf_counter() - began), LONGEST_PAUSE_S))

    def _end(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._wake.set()

    async def _gather(self) -> None:
        """Let what has arrived already come in, for as long as each turn of the loop brings more."""
        before = 0
        while before < self._items < self._max_batch and not self._stopping:
            before = self._items
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Waiting[Item]]:
        batch: list[_Waiting[Item]] = []
        size = 0
        while self._waiting and size < self._max_batch:
            each = self._waiting.popleft()
            self._items -= len(each.items)
            if not each.stored.done():  # who hung up while waiting is left out: nobody would learn that it was stored
                batch.append(each)
                size += len(each.items)
        return batch

    async def _store_batch(self, batch: list[_Waiting[Item]]) -> None:
        outcomes = await self._outcomes([item for each in batch for item in each.items])
        begin = 0
        for each in batch:
            end = begin + len(each.items)
            if not each.stored.done():  # else the caller hung up meanwhile
                _settle(each, outcomes[begin:end])
            begin = end

    async def _outcomes(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            return await self._store(items)
        except errors.DomainError as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) > 1:  # one bad item must not take its neighbours with it
                return [outcome for item in items for outcome in await self._outcomes([item])]
            log.exception("an item could not be stored", extra={"queue": self._name})
            return [error]


def _settle(waiting: _Waiting[Item], outcomes: Sequence[Result | Exception]) -> None:
    if not waiting.is_alone:
        waiting.stored.set_result(outcomes)
    elif isinstance(outcomes[0], Exception):
        waiting.stored.set_exception(outcomes[0])
    else:
        waiting.stored.set_result(outcomes[0])
