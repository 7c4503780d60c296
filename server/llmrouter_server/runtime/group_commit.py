"""Writes items in batches, and tells nobody that an item is stored before it is.

Whoever waits while one batch is written goes into the next: no timer, no added latency when it is quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from llmrouter_server import errors
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Owns the one task that writes.

    `write` stores a batch, all or nothing, and returns one outcome for each item: a result, or an error for that item
    alone. When it raises something unexpected, each item of the batch is tried alone.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_batch: int = 500,
        max_waiting: int = 10_000,
    ) -> None:
        self._name, self._store, self._max_batch, self._max_waiting = name, write, max_batch, max_waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result], float]] = deque()
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
        if self._stopping or len(self._waiting) >= self._max_waiting:
            raise errors.unavailable()
        stored: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, stored, time.perf_counter()))
        self._wake.set()
        return stored

    async def _write(self) -> None:
        while self._waiting or not self._stopping:
            await self._wake.wait()
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            # Who hung up while waiting is left out: nobody would learn that it was stored.
            batch = [each for each in taken if not each[1].done()]
            if batch:
                self._batch_size.observe(len(batch))
                self._queue_seconds.observe(time.perf_counter() - batch[0][2])
                await self._store_batch([(item, stored) for item, stored, _ in batch])
            if not self._waiting and not self._stopping:
                self._wake.clear()

    async def _store_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            outcomes = await self._store([item for item, _ in batch])
        except errors.DomainError as error:
            for _, stored in batch:
                _settle(stored, error)
        except Exception as error:
            if len(batch) > 1:  # one bad item must not take its neighbours with it
                for each in batch:
                    await self._store_batch([each])
                return
            log.exception("an item could not be stored", extra={"queue": self._name})
            _settle(batch[0][1], error)
        else:
            for (_, stored), outcome in zip(batch, outcomes, strict=True):
                _settle(stored, outcome)


def _settle(stored: asyncio.Future[Result], outcome: Result | Exception) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # the caller hung up meanwhile
        if isinstance(outcome, Exception):
            stored.set_exception(outcome)
        else:
            stored.set_result(outcome)
