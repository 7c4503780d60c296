"""Records what became of chat requests: their attempts, the money that was held, and that they are over."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.gateway.ended import estimate_of_lost, reports_of
from llmrouter_server.gateway.store import LEASE
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from llmrouter_server.budget.store import BudgetStore
    from llmrouter_server.gateway.ended import Ended
    from llmrouter_server.gateway.plan import Plan
    from llmrouter_server.gateway.store import GatewayRequestStore
    from llmrouter_server.usage.record import Report
    from llmrouter_server.usage.recorder import UsageRecorder

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
MAX_BATCH = 200
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
STOP_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Over:
    """A request with what is to be recorded of it."""

    id: UUID
    reports: Sequence[Report]
    is_held: bool


class Reporter:
    """Owns the one task that records what Envoy tells. Recording is idempotent: whatever is told twice counts once.

    For a request that is not open any more nothing is recorded: it was before, or it was lost and an estimate was.
    """

    def __init__(
        self,
        recorder: UsageRecorder,
        requests: GatewayRequestStore,
        budget: BudgetStore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._recorder, self._requests, self._budget, self._now = recorder, requests, budget, now
        self._waiting: deque[tuple[Ended, float]] = deque()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dropped = telemetry.DROPPED.labels("gateway")
        self._batch_size = telemetry.BATCH_SIZE.labels("gateway")
        self._queue_seconds = telemetry.QUEUE_SECONDS.labels("gateway")

    async def start(self) -> None:
        """Begin to record."""
        self._task = asyncio.create_task(self._keep_reporting(), name="gateway reporter")

    async def stop(self) -> None:
        """Record what is waiting, for at most 5 s, then stop; what is left is counted as dropped."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            _, unfinished = await asyncio.wait({self._task}, timeout=STOP_TIMEOUT_S)
            if unfinished:
                self._task.cancel()
                await asyncio.wait(unfinished, timeout=CANCEL_TIMEOUT_S)
        if self._waiting:
            log.warning("chat requests are left to the journal", extra={"count": len(self._waiting)})
            self._dropped.inc(len(self._waiting))

    def add(self, ended: Ended) -> None:
        """Take a request that is over. When too many wait, it is dropped and counted: the journal has it too."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped.inc()
            return
        self._waiting.append((ended, time.perf_counter()))
        self._wake.set()

    async def report(self, batch: Sequence[Ended]) -> int:
        """Record these requests as far as they are open, and return how many that were.

        UNAVAILABLE: not all are recorded, and all may be reported again.
        """
        told = {ended.plan.decision_id: ended for ended in batch}
        if not told:
            return 0
        still_open = await self._requests.find(told, self._now() + LEASE)
        over = [
            _Over(decision_id, reports_of(ended), ended.plan.held)
            for decision_id, ended in told.items()
            if decision_id in still_open
        ]
        await self._end(over)
        return len(over)

    async def expire_lost(self, now: datetime) -> None:
        """Record by estimate what nobody reported until now; UNAVAILABLE."""
        while lost := await self._requests.expired(now, MAX_BATCH):
            log.warning("nobody reported chat requests, so they are recorded by estimate", extra={"count": len(lost)})
            await self._end([_lost(decision_id, plan) for decision_id, plan in lost.items()])

    async def _keep_reporting(self) -> None:
        delay_s = FIRST_RETRY_S
        while self._waiting or not self._stopping.is_set():
            await self._wake.wait()
            batch = list(itertools.islice(self._waiting, MAX_BATCH))
            if batch and await self._report_now(batch):
                delay_s = FIRST_RETRY_S
                for _ in batch:
                    self._waiting.popleft()
            elif batch:
                await self._pause(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
            if not self._waiting and not self._stopping.is_set():
                self._wake.clear()

    async def _report_now(self, batch: Sequence[tuple[Ended, float]]) -> bool:
        """Report a batch and return whether it is done with."""
        self._batch_size.observe(len(batch))
        self._queue_seconds.observe(time.perf_counter() - batch[0][1])
        try:
            await self.report([ended for ended, _ in batch])
        except errors.DomainError:
            return False  # the database is away
        except Exception:
            log.exception("chat requests could not be reported", extra={"count": len(batch)})
            self._dropped.inc(len(batch))
        return True

    async def _end(self, over: Sequence[_Over]) -> None:
        """Record, release and close requests; one that cannot be recorded takes no other with it, and stays open."""
        if not over:
            return
        try:
            await self._end_all(over)
        except errors.DomainError:
            raise
        except Exception:
            if len(over) > 1:
                for each in over:
                    await self._end([each])
                return
            log.exception("a chat request could not be recorded", extra={"decision_id": str(over[0].id)})
            self._dropped.inc()

    async def _end_all(self, over: Sequence[_Over]) -> None:
        outcomes = await self._recorder.record_all([report for each in over for report in each.reports])
        refused = [outcome for outcome in outcomes if isinstance(outcome, errors.DomainError)]
        if refused:
            log.error("attempts were refused to be recorded", extra={"count": len(refused), "why": str(refused[0])})
        # A success has settled its hold with its record. What failed before has taken its cost out of the hold; only
        # when that is committed may the rest be given back.
        for each in over:
            if each.is_held and (refused or not _has_settled(each)):
                await self._budget.release(each.id)
        await self._requests.close([each.id for each in over])

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation
                await self._stopping.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0.01)  # stopping: go on without a pause, but let others run


def _has_settled(over: _Over) -> bool:
    return any(report.succeeded for report in over.reports)


def _lost(decision_id: UUID, plan: Plan | None) -> _Over:
    if plan is None:  # what it may have cost is not known any more
        return _Over(decision_id, (), is_held=True)
    return _Over(decision_id, (estimate_of_lost(plan),), plan.held)
