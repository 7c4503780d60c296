"""What operators see of the pool: how many connections there are, and how long callers wait for one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from databases import started
from llmrouter_server import errors
from llmrouter_server.runtime import database as runtime_database
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE_S = 20
MOST = 3


def connections() -> dict[str, float | None]:
    found = {
        state: REGISTRY.get_sample_value("llmrouter_pool_connections", {"state": state}) for state in ("idle", "used")
    }
    return found | {"limit": REGISTRY.get_sample_value("llmrouter_pool_connections_limit")}


def waits(at_most: str = "+Inf") -> float:
    return REGISTRY.get_sample_value("llmrouter_pool_wait_seconds_bucket", {"le": at_most}) or 0.0


async def until(wanted: dict[str, float | None]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while connections() != wanted:
            await asyncio.sleep(0.005)


@pytest.fixture
async def pool(
    migrated_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    monkeypatch.setattr(runtime_database, "PROBE_INTERVAL_S", 0.01)
    pool = await started(Database(await migrated_database(), min_size=1, max_size=MOST))
    yield pool
    await pool.stop()


@asynccontextmanager
async def lent(pool: Database, count: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(pool.connection())
        yield


async def test_connections_are_shown_by_their_state_as_they_are_lent_and_given_back(pool: Database) -> None:
    await until({"idle": 1, "used": 0, "limit": MOST})
    async with lent(pool, 2):
        await until({"idle": 1, "used": 2, "limit": MOST})  # the idle one is the watcher's own
    await until({"idle": 3, "used": 0, "limit": MOST})


async def test_a_pool_without_a_database_has_no_connections() -> None:
    pool = Database("postgresql://router@127.0.0.1:1/x", min_size=1, max_size=2 * MOST)
    await pool.start()
    shown = connections()
    await pool.stop()
    assert shown == {"idle": 0, "used": 0, "limit": 2 * MOST}


async def test_a_stopped_pool_is_shown_as_empty(migrated_database: Callable[[], Awaitable[str]]) -> None:
    pool = await started(Database(await migrated_database(), min_size=2, max_size=MOST))
    await until({"idle": 2, "used": 0, "limit": MOST})
    await pool.stop()
    assert connections() == {"idle": 0, "used": 0, "limit": MOST}


async def test_each_connection_that_is_lent_is_one_wait(pool: Database) -> None:
    before = waits()
    for _ in range(3):
        async with pool.connection():
            pass
    async with pool.transaction():
        pass
    assert waits() == before + 4


async def test_a_wait_in_vain_is_counted_as_long_as_it_was(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lent(pool, MOST):
        monkeypatch.setattr(runtime_database, "ACQUIRE_TIMEOUT_S", 0.2)
        before, short_before = waits(), waits("0.1")
        with pytest.raises(errors.DomainError) as refused:
            async with pool.connection():
                pass
    assert refused.value.reason == "UNAVAILABLE"
    assert waits() == before + 1
    assert waits("0.1") == short_before


async def test_the_work_done_with_a_connection_is_no_wait(pool: Database) -> None:
    async with pool.connection():
        before = waits()
        await asyncio.sleep(0.01)
    assert waits() == before
