"""A replica that is killed while it records: this file is also the program that is killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from databases import started
from llmrouter_server.runtime.database import Database
from usage_samples import NOW, model_ids, quiet_recorder, report, usage_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WRITERS = 200
ACKNOWLEDGED_BEFORE_THE_KILL = 2000


async def test_what_a_killed_replica_acknowledged_is_stored_and_counted(
    migrated_database: Callable[[], Awaitable[str]],
) -> None:
    url, user = await migrated_database(), uuid.uuid4()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        url,
        str(user),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert child.stdout is not None
    acknowledged: list[str] = []
    try:
        async with asyncio.timeout(60):
            while len(acknowledged) < ACKNOWLEDGED_BEFORE_THE_KILL and (line := await child.stdout.readline()):
                acknowledged.append(line.decode().strip())
    finally:
        child.kill()
    rest, _ = await child.communicate()
    acknowledged += [line.decode() for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    database = await started(Database(url, min_size=1, max_size=2))
    stored, costs = await books(database, user)
    await database.stop()
    assert len(acknowledged) >= ACKNOWLEDGED_BEFORE_THE_KILL
    assert {line.strip() for line in acknowledged} <= stored
    assert costs == [len(stored) * Decimal("0.0035")] * 4


async def books(database: Database, user: uuid.UUID) -> tuple[set[str], list[Decimal]]:
    async with asyncio.timeout(30), database.connection() as connection:
        # What the killed one was writing may still be at its end.
        while await connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        ):
            await asyncio.sleep(0.01)
        rows = await connection.fetch("select request_id from llm_usage_logs where user_id = $1", user)
        costs = [
            await connection.fetchval(f"select sum({column}) from {table} where user_id = $1", user)
            for table, column in (
                ("llm_usage_logs", "cost_usd"),
                ("llm_usage_daily", "cost_usd"),
                ("llm_usage_hourly", "cost_usd"),
                ("llm_budget_ledger", "spent_usd"),
            )
        ]
    return {row["request_id"] for row in rows}, costs


async def record_for_ever(url: str, user: uuid.UUID) -> None:
    """Record with full buffers, and write each request id as soon as it is acknowledged."""
    database = await started(Database(url, min_size=1, max_size=2))
    model, numbers = (await model_ids(database))["gpt-4o"], itertools.count()
    recorder = quiet_recorder(usage_store(database))
    await recorder.start()

    async def write() -> None:
        for number in numbers:
            told = report(user, model, request_id=f"{number}", occurred_at=NOW)
            await recorder.record(told)
            os.write(1, f"{told.request_id}\n".encode())

    await asyncio.gather(*(write() for _ in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(record_for_ever(sys.argv[1], uuid.UUID(sys.argv[2])))
