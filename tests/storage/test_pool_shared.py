"""What a pool is for when some want more of it than there is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from databases import started
from llmrouter_server import errors
from llmrouter_server.runtime import database as runtime_database
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE_S = 20
MOST = 3


@pytest.fixture
async def pool(
    migrated_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    monkeypatch.setattr(runtime_database, "PROBE_INTERVAL_S", 0.01)
    pool = await started(Database(await migrated_database(), min_size=MOST, max_size=MOST))
    yield pool
    await pool.stop()


async def test_a_database_whose_connections_are_all_lent_is_not_away(
    pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    pool.on_change(told.append)
    probes, probe_apart = asyncio.Semaphore(0), Database._probe_apart

    async def counted(database: Database) -> None:
        await probe_apart(database)
        probes.release()

    monkeypatch.setattr(Database, "_probe_apart", counted)
    async with AsyncExitStack() as lent, asyncio.timeout(PATIENCE_S):
        for _ in range(MOST):
            await lent.enter_async_context(pool.connection())
        for _ in range(2):
            await probes.acquire()
        assert pool.is_up
    assert told == [True]


async def test_reports_leave_connections_for_others(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool.for_reports() as report:
        assert await report.fetchval("select 1") == 1
        with monkeypatch.context() as impatient:
            impatient.setattr(runtime_database, "ACQUIRE_TIMEOUT_S", 0.1)
            with pytest.raises(errors.DomainError) as refused:
                async with pool.for_reports():
                    pass
        assert refused.value.reason == "UNAVAILABLE"
        async with pool.connection() as connection, pool.connection():
            assert await connection.fetchval("select 1") == 1
    async with pool.for_reports() as report:
        assert await report.fetchval("select 1") == 1
