"""Work that the server does for its tables now and then: partitions made ahead, old rows and partitions dropped.

Every replica tries; an advisory lock lets one at a time do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

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


class Maintenance:
    """Runs each job at the start and then every minute. A job that fails is logged, and tried again next time."""

    def __init__(self, database: Database, jobs: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._database, self._jobs = database, jobs
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_running(), name="maintenance")

    async def stop(self) -> None:
        """End, in the middle of a job if need be: each is safe to interrupt."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def run_once(self) -> None:
        """Run every job, unless another replica is at it."""
        async with self._database.connection() as connection:
            if not await connection.fetchval(TRY_LOCK, LOCK_ID):
                return
            try:
                for name, job in self._jobs.items():
                    try:
                        await job()
                    except errors.DomainError:
                        raise  # the database went away
                    except Exception:
                        log.exception("maintenance failed", extra={"job": name})
            finally:
                await connection.execute(UNLOCK, LOCK_ID)

    async def _keep_running(self) -> None:
        while True:
            with contextlib.suppress(errors.DomainError):
                await self.run_once()
            await asyncio.sleep(INTERVAL_S)
