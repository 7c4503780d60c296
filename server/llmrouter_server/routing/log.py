"""Keeps decisions, written behind: a decision is never slower and never fails because of its record."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeAlias

from llmrouter_server import errors
from llmrouter_server.routing.record import facts_to_json, outcome_to_json
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from uuid import UUID

    from llmrouter_server.routing.record import DecisionRecord
    from llmrouter_server.routing.selection import Decision
    from llmrouter_server.routing.store import RoutingStore

    Waiting: TypeAlias = tuple[DecisionRecord, Decision, float]
    """A decision's record, the decision, and since when it waits."""

log = logging.getLogger(__name__)

KEPT_DAYS = 30
MAX_WAITING = 50_000
MAX_BATCH, AT_ONCE = 1000, 50
"""How many are written together, and made ready for it in one go."""
GATHER_S = 0.1
"""How long decisions are gathered before they are written together."""
RETRY_DELAY_S = 1.0
STOP_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 1.0


class DecisionLog:
    """Owns the one task that writes. What is waiting can be found by its id."""

    def __init__(self, store: RoutingStore) -> None:
        self._store = store
        self._waiting: dict[UUID, Waiting] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._known_days: set[date] = set()
        self._dropped = telemetry.DROPPED.labels("decisions")
        self._batch_size = telemetry.BATCH_SIZE.labels("decisions")
        self._queue_seconds = telemetry.QUEUE_SECONDS.labels("decisions")

    async def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._write(), name="decision writer")

    async def stop(self) -> None:
        """Write what is waiting, for at most 5 s, then stop; what is left is counted as dropped."""
        self._stopping.set()
        self._wake.set()
        if self._writer is not None:
            _, unfinished = await asyncio.wait({self._writer}, timeout=STOP_TIMEOUT_S)
            if unfinished:
                self._writer.cancel()
                await asyncio.wait(unfinished, timeout=CANCEL_TIMEOUT_S)
        if self._waiting:
            log.warning("decisions could not be kept", extra={"count": len(self._waiting)})
            self._dropped.inc(len(self._waiting))

    def add(self, record: DecisionRecord, decision: Decision) -> None:
        """Take a decision. When too many wait, because the database is away, it is dropped and counted."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped.inc()
            return
        self._waiting[record.id] = record, decision, time.perf_counter()
        self._wake.set()

    def find(self, decision_id: UUID) -> DecisionRecord | None:
        """Return a decision that is not written yet."""
        waiting = self._waiting.get(decision_id)
        return waiting[0] if waiting else None

    async def _write(self) -> None:
        while self._waiting or not self._stopping.is_set():
            await self._wake.wait()
            if not self._stopping.is_set():
                await self._pause(GATHER_S)
            batch = [self._waiting[each] for each in list(self._waiting)[:MAX_BATCH]]
            if batch and not await self._store_batch(batch):
                await self._pause(RETRY_DELAY_S)
            if not self._waiting and not self._stopping.is_set():
                self._wake.clear()

    async def _store_batch(self, batch: Sequence[Waiting]) -> bool:
        """Write a batch and return whether it is done with."""
        self._batch_size.observe(len(batch))
        self._queue_seconds.observe(time.perf_counter() - batch[0][2])
        try:
            await self._store_all(batch)
        except errors.DomainError:
            return False  # the database is away
        except Exception:  # noqa: BLE001 - which of them is to blame is found out, and logged
            return await self._store_each(batch)
        return True

    async def _store_each(self, batch: Sequence[Waiting]) -> bool:
        """Write each alone, so that one bad record does not take the others with it."""
        self._known_days.clear()  # or it was a partition that is not there any more
        last_error, dropped = None, 0
        for each in batch:
            try:
                await self._store_all([each])
            except errors.DomainError:
                return False
            except Exception as error:  # noqa: BLE001 - it is logged below, once for all of them
                last_error, dropped = error, dropped + 1
                del self._waiting[each[0].id]
        if last_error is not None:
            log.error("decisions could not be kept", exc_info=last_error, extra={"count": dropped})
            self._dropped.inc(dropped)
        return True

    async def _store_all(self, batch: Sequence[Waiting]) -> None:
        texts: dict[tuple[int, int], tuple[int, str, str]] = {}
        """By what they are written of, which decisions share that were made once: number, facts and outcome."""
        rows, days = [], set()
        async for record, decision, _ in in_turns(batch, AT_ONCE):
            made = id(record.facts), id(decision)
            text = texts.get(made)
            if text is None:
                written = facts_to_json(record.facts, decision), outcome_to_json(record, decision)
                text = texts[made] = (len(texts) + 1, *written)
            decided_at = record.decided_at
            days.add(decided_at.date())
            rows.append((record.id, decided_at, record.user_id, record.snapshot_number, text[0]))
        _, facts, outcomes = zip(*texts.values(), strict=True)
        await self._store.write_decisions([*zip(*rows, strict=True), facts, outcomes], days - self._known_days)
        self._known_days |= days
        for record, _, _ in batch:
            del self._waiting[record.id]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation
                await self._stopping.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0.01)  # stopping: go on without a pause, but let others run
