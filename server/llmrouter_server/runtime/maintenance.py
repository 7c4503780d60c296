"""Work that the server does for its tables now and then: partitions made ahead, old rows and partitions dropped.

Every replica tries; an advisory lock lets one at a time do it, and holds one connection of the pool meanwhile: the pool
needs a second one. Much of it goes by the clock and cannot be undone: a replica whose clock and the database's differ
by more than a day does none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmrouter_server import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llmrouter_server.runtime.database import Database

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
LOCK_ID = 0x6C6C6D72_6D61696E
"""Advisory lock of maintenance: the bytes `llmrmain`."""
TRY_LOCK = "select pg_try_advisory_lock($1)"
UNLOCK = "select pg_advisory_unlock($1)"
WRONG_CLOCK_S = 86_400
IS_CLOCK_RIGHT = "select abs(extract(epoch from clock_timestamp() - $1::timestamptz)) <= $2"


class Maintenance:
    """Runs each job at the start and then every minute. A job that fails is logged, and tried again next time."""

    def __init__(
        self,
        database: Database,
        jobs: Mapping[str, Callable[[], Awaitable[None]]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database, self._now = database, now
        self._jobs = deque(jobs.items())
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_running(), name="maintenance")

    async def stop(self) -> None:
        """End, in the middle of a job if need be: each is safe to interrupt."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def run_once(self) -> None:
        """Run every job, unless another replica is at it. UNAVAILABLE ends the round.

        It may be the database that is away, or one job that asks too much of it: so the next round begins after that
        job, and the others have their turn.
        """
        async with self._database.connection() as connection:
            if not await connection.fetchval(TRY_LOCK, LOCK_ID):
                return
            try:
                if await connection.fetchval(IS_CLOCK_RIGHT, self._now(), WRONG_CLOCK_S):
                    await self._run_jobs()
                else:
                    log.error("no maintenance: the clocks here and of the database differ by more than a day")
            finally:
                await _unlock(connection)

    async def _run_jobs(self) -> None:
        for _ in range(len(self._jobs)):
            name, job = self._jobs[0]
            self._jobs.rotate(-1)
            try:
                await job()
            except errors.DomainError:
                log.warning("maintenance ended early: the database did not answer", extra={"job": name})
                raise
            except Exception:
                log.exception("maintenance failed", extra={"job": name})

    async def _keep_running(self) -> None:
        # Not simply for ever: when the connection is lost while it is stopped, that error is all there is to see.
        while not self._is_stopping:
            try:
                await self.run_once()
            except errors.DomainError:
                pass  # the pool has logged it
            except Exception:
                log.exception("maintenance failed")
            if not self._is_stopping:
                await asyncio.sleep(INTERVAL_S)


async def _unlock(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Give the lock back; when that cannot be, with the connection: the session would keep it."""
    try:
        await connection.execute(UNLOCK, LOCK_ID)
    except BaseException:
        connection.terminate()
        raise
