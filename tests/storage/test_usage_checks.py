"""What Postgres refuses to keep, whoever wrote it."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from usage_samples import NOW, model_ids, report, usage_store

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database

DAY = NOW.date()


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": ""},
        {"request_id": "r" * 129},
        {"payer": "NOBODY"},
        {"input_tokens": -1},
        {"output_tokens": -1},
        {"cached_tokens": -1},
        {"reasoning_tokens": -1},
        {"latency_ms": -1},
        {"error_message": "m" * 1001},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_record_out_of_range_is_refused_with_all_of_its_batch(
    database: Database, wrong: dict[str, Any]
) -> None:
    store, user, model = usage_store(database), uuid.uuid4(), (await model_ids(database))["gpt-4o"]
    with pytest.raises(asyncpg.CheckViolationError):
        await store.record([report(user, model), report(user, model, **wrong)])
    assert await store.sums(user, DAY, DAY) == []
    assert await store.spend(user, DAY.replace(day=1)) == Decimal(0)


@pytest.mark.parametrize(
    "change",
    [
        "llm_usage_logs set status = 'lost'",
        "llm_usage_logs set cost_usd = -0.0000000001",
        "llm_usage_daily set power_level = 'MAX'",
        "llm_usage_daily set payer = 'NOBODY'",
        "llm_budget_ledger set spent_usd = -0.0000000001",
        "llm_budget_ledger set held_usd = -0.0000000001",
        "llm_budget_ledger set month = month + 1",
    ],
)
async def test_a_stored_value_cannot_be_changed_to_a_wrong_one(database: Database, change: str) -> None:
    user = uuid.uuid4()
    await usage_store(database).record([report(user, (await model_ids(database))["gpt-4o"])])
    async with database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"update {change} where user_id = $1", user)


async def test_a_record_needs_neither_latency_nor_error_message(database: Database) -> None:
    user, model = uuid.uuid4(), (await model_ids(database))["gpt-4o"]
    store = usage_store(database)
    await store.record([report(user, model, latency_ms=None, error_message=None)])
    assert [total.requests for total in await store.sums(user, DAY, DAY)] == [1]
