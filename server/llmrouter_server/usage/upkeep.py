"""What maintenance does for the tables of usage: partitions made ahead, old records, sums and request ids dropped."""

from __future__ import annotations

import logging
import re
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import asyncpg

from llmrouter_server.usage.period import month_of, months_later
from llmrouter_server.usage.rollup import HOURLY_DAYS
from llmrouter_server.usage.store import (
    BRIEF_LOCKS,
    CLOCK_IS_RIGHT,
    DROP_PARTITION,
    ENSURE_PARTITION,
    PARTITIONS,
    PRUNE_HOURLY,
    PRUNE_REQUESTS,
)

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database

log = logging.getLogger(__name__)

MONTHS_AHEAD = 2
REQUEST_DAYS = 62
"""How long a request id is remembered; longer than a report may be late."""
BATCH_ROWS = 5000
WRONG_CLOCK_S = 86_400
PARTITION = re.compile(r"llm_usage_logs_([0-9]{4})_([0-9]{2})")


class UsageUpkeep:
    """The jobs. Each is safe to interrupt, to repeat, and to run twice at once.

    What drops anything does so only while the clock here and the database's agree within a day: a clock that jumped
    must not cost anybody their history.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_partitions_ahead(self, now: datetime) -> None:
        """Make the partitions of this month and the next two. One whose lock is not free soon is left for next time."""
        for count in range(MONTHS_AHEAD + 1):
            await self._briefly(ENSURE_PARTITION, months_later(month_of(now), count))

    async def drop_old_records(self, now: datetime, retention_days: int) -> None:
        """Drop the records of each month whose last day is more than so many days ago. Their sums stay."""
        if await self._is_wrong(now):
            return
        async with self._database.connection() as connection:
            names = [row["relname"] for row in await connection.fetch(PARTITIONS)]
        for month in old_months(names, now, retention_days):
            if await self._briefly(DROP_PARTITION, month):
                log.info("dropped old usage records", extra={"month": f"{month:%Y-%m}"})

    async def prune_hourly(self, now: datetime) -> None:
        """Drop the hourly sums of days that are more than 62 days ago."""
        if not await self._is_wrong(now):
            first = now.astimezone(UTC).date() - timedelta(days=HOURLY_DAYS)
            await self._prune(PRUNE_HOURLY, datetime.combine(first, time(), UTC))

    async def prune_requests(self, now: datetime) -> None:
        """Forget the request ids that were recorded more than 62 days ago."""
        if not await self._is_wrong(now):
            await self._prune(PRUNE_REQUESTS, now - timedelta(days=REQUEST_DAYS))

    async def _is_wrong(self, now: datetime) -> bool:
        async with self._database.connection() as connection:
            if await connection.fetchval(CLOCK_IS_RIGHT, now, WRONG_CLOCK_S):
                return False
        log.warning("nothing old is dropped: the clocks here and of the database differ by more than a day")
        return True

    async def _briefly(self, query: str, month: date) -> bool:
        """Run a statement that locks a table in use, unless the lock is not free soon: all writers wait behind it."""
        try:
            async with self._database.transaction() as connection:
                await connection.execute(BRIEF_LOCKS)
                await connection.execute(query, month)
        except asyncpg.LockNotAvailableError:
            log.warning("usage records are busy; a partition is left for next time", extra={"month": f"{month:%Y-%m}"})
            return False
        return True

    async def _prune(self, query: str, before: datetime) -> None:
        deleted = BATCH_ROWS
        while deleted == BATCH_ROWS:
            async with self._database.connection() as connection:
                deleted = int((await connection.execute(query, before, BATCH_ROWS)).split()[-1])


def old_months(partitions: list[str], now: datetime, retention_days: int) -> list[date]:
    """Return the months among these partitions whose last day is more than so many days before today, oldest first."""
    kept_from = now.astimezone(UTC).date() - timedelta(days=retention_days)
    months = [date(int(found[1]), int(found[2]), 1) for found in map(PARTITION.fullmatch, partitions) if found]
    return sorted(month for month in months if months_later(month, 1) <= kept_from)
