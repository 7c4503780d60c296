"""What a record knows of its tokens beyond their number, in the table itself."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from llmrouter_server.runtime.migrations import load, migrate
from usage_samples import NOW, model_ids, report, usage_store

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database

EmptyDatabase = Callable[[], Awaitable[str]]

# As a release writes it that does not know of cached tokens.
INSERT_AS_BEFORE = """
insert into llm_usage_logs (
    id, user_id, provider_id, model_id, request_id, power_level, payer, input_tokens, output_tokens, cost_usd, status,
    created_at
)
select gen_random_uuid(), gen_random_uuid(), provider_id, id, 'before', power_level, 'PLATFORM', 5, 5, 0, 'success', $1
from llm_models where model_name = 'gpt-4o'"""


@pytest.fixture
async def upgraded(empty_database: EmptyDatabase) -> AsyncIterator[Any]:
    """A connection to a database that has a partition with a record from before the migration."""
    url, migrations = await empty_database(), load()
    [number] = [number for number, migration in enumerate(migrations) if migration.name == "gateway_usage"]
    await migrate(url, say=lambda _: None, migrations=migrations[:number])
    connection = await asyncpg.connect(url)
    await connection.execute("select llm_usage_ensure_partition('2026-03-01')")
    await connection.execute(INSERT_AS_BEFORE, NOW)
    await migrate(url, say=lambda _: None)
    yield connection
    await connection.close()


async def test_records_of_a_release_that_knows_of_none_have_none_and_are_no_estimate(upgraded: Any) -> None:
    await upgraded.execute(INSERT_AS_BEFORE, NOW)
    rows = await upgraded.fetch("select cached_tokens, reasoning_tokens, is_estimated from llm_usage_logs")
    assert [tuple(row) for row in rows] == [(0, 0, False)] * 2


@pytest.mark.parametrize("tokens", ["cached_tokens", "reasoning_tokens"])
async def test_fewer_than_none_are_refused_in_partitions_of_before(upgraded: Any, tokens: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match='"llm_usage_logs_check"'):
        await upgraded.execute(f"update llm_usage_logs_2026_03 set {tokens} = -1")


@pytest.mark.parametrize("tokens", ["cached_tokens", "reasoning_tokens"])
async def test_fewer_than_none_are_refused_in_new_partitions(database: Database, tokens: str) -> None:
    told = report(uuid.uuid4(), (await model_ids(database))["gpt-4o"], **{tokens: -1})
    with pytest.raises(asyncpg.CheckViolationError, match='"llm_usage_logs_check"'):
        await usage_store(database).record([told])
