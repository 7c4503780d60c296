"""Writes usage in batches, and tells nobody that it is stored before it is.

Whoever waits while one batch is written goes into the next: no timer, no added latency when it is quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from llmrouter_server import errors

if TYPE_CHECKING:
    from llmrouter_server.usage.record import Receipt, Report
    from llmrouter_server.usage.store import UsageStore

log = logging.getLogger(__name__)

MAX_BATCH = 500
MAX_WAITING = 10_000


class UsageRecorder:
    """Owns the one task that writes."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self._waiting: deque[tuple[Report, asyncio.Future[Receipt]]] = deque()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write(), name="usage writer")

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        self._stopping = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    async def record(self, report: Report) -> Receipt:
        """Return when the report is stored. RESOURCE_NOT_FOUND: no such model; UNAVAILABLE: nothing was stored."""
        if self._stopping or len(self._waiting) >= MAX_WAITING:
            raise errors.unavailable()
        stored: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, stored))
        self._wake.set()
        return await stored

    async def _write(self) -> None:
        while self._waiting or not self._stopping:
            await self._wake.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            # Who hung up while waiting is left out: nobody would learn that it was stored.
            batch = [(report, stored) for report, stored in batch if not stored.done()]
            if batch:
                await self._store_batch(batch)
            if not self._waiting and not self._stopping:
                self._wake.clear()

    async def _store_batch(self, batch: list[tuple[Report, asyncio.Future[Receipt]]]) -> None:
        try:
            receipts = await self._store.record([report for report, _ in batch])
        except errors.DomainError as error:
            for _, stored in batch:
                _settle(stored, error)
        except Exception as error:
            if len(batch) > 1:  # one bad record must not take its neighbours with it
                for item in batch:
                    await self._store_batch([item])
                return
            log.exception("a usage record could not be stored")
            _settle(batch[0][1], error)
        else:
            for (_, stored), receipt in zip(batch, receipts, strict=True):
                _settle(stored, receipt or errors.not_found("model"))


def _settle(stored: asyncio.Future[Receipt], outcome: Receipt | Exception) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # the caller hung up meanwhile
        if isinstance(outcome, Exception):
            stored.set_exception(outcome)
        else:
            stored.set_result(outcome)
