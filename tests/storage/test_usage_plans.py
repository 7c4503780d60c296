"""How Postgres finds what analytics ask for: the SQL that the stores run, explained."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from llmrouter_server.budget.store import STATE
from llmrouter_server.usage.period import Period
from llmrouter_server.usage.store import DAYS, ENSURE_PARTITION, HOURS, LAST_ID, RECORDS, SPEND, SUMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.database import Database

USER = uuid.uuid4()
PERIOD = Period(date(2026, 2, 20), date(2026, 3, 20))
EVERYTHING = (None, None, None)
SOME = (uuid.uuid4(), uuid.uuid4(), "ECO")
MONTHS = [date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)]
PLAN_MODES = ("force_custom_plan", "force_generic_plan")


async def plan_of(connection: Any, query: str, *arguments: Any) -> str:
    await connection.execute(f"prepare guarded as {query}")
    given = ", ".join("null" if argument is None else f"'{argument}'" for argument in arguments)
    plan = await connection.fetch(f"explain (analyze, costs off, timing off) execute guarded ({given})")
    await connection.execute("deallocate guarded")
    return "\n".join(row[0] for row in plan)


@pytest.fixture(params=PLAN_MODES)
async def connection(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Any]:
    """One that reads tables that are nearly empty as if they were large: in the order of an index, if there is one."""
    async with database.transaction() as connection:
        for month in MONTHS:
            await connection.execute(ENSURE_PARTITION, month)
        for choice in ("seqscan", "bitmapscan", "sort"):
            await connection.execute(f"set local enable_{choice} = off")
        await connection.execute(f"set local plan_cache_mode = {request.param}")
        yield connection


ANALYTICS = {
    "usage": (SUMS, "llm_usage_daily_pkey", (USER, PERIOD.first, PERIOD.last)),
    "days": (DAYS, "llm_usage_daily_pkey", (USER, PERIOD.first, PERIOD.last, *EVERYTHING)),
    "days of something": (DAYS, "llm_usage_daily_pkey", (USER, PERIOD.first, PERIOD.last, *SOME)),
    "hours": (HOURS, "llm_usage_hourly_pkey", (USER, PERIOD.start, PERIOD.end, *EVERYTHING)),
    "hours of something": (HOURS, "llm_usage_hourly_pkey", (USER, PERIOD.start, PERIOD.end, *SOME)),
    "spend": (SPEND, "llm_budget_ledger_pkey", (USER, MONTHS[0])),
    "budget": (STATE, "llm_budget_ledger_pkey", (USER, MONTHS[0])),
}


@pytest.mark.parametrize("name", ANALYTICS)
async def test_analytics_find_their_sums_by_user_and_day_and_never_look_at_records(connection: Any, name: str) -> None:
    query, index, arguments = ANALYTICS[name]
    plan = await plan_of(connection, query, *arguments)
    assert "Seq Scan" not in plan
    assert "llm_usage_logs" not in plan
    [condition] = re.findall(rf"{index}[^\n]*\n\s*Index Cond: (.*)", plan)
    assert condition.startswith("((user_id = ")
    assert re.search(r"\b(day|hour|month) ", condition)


@pytest.mark.parametrize("before", [None, (datetime(2026, 3, 10, tzinfo=UTC), uuid.uuid4())])
@pytest.mark.parametrize("only", [EVERYTHING, SOME])
@pytest.mark.parametrize("status", [None, "error"])
async def test_records_are_found_in_their_order_in_the_partitions_of_the_period_alone(
    connection: Any, before: tuple[datetime, uuid.UUID] | None, only: tuple[Any, ...], status: str | None
) -> None:
    place = before or (PERIOD.end, LAST_ID)
    plan = await plan_of(connection, RECORDS, USER, PERIOD.start, *place, *only, status, 100)
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
    scanned = re.findall(r"Index Scan using (\w+) on (llm_usage_logs_\w+)", plan)
    assert [table for _, table in scanned] == ["llm_usage_logs_2026_03", "llm_usage_logs_2026_02"]
    assert all(index.endswith("_user_id_created_at_id_idx") for index, _ in scanned)
    conditions = re.findall(r"llm_usage_logs_\d+_\d+_user_id_created_at_id_idx[^\n]*\n\s*Index Cond: (.*)", plan)
    assert all("user_id = " in each and "ROW(created_at, id) < ROW(" in each for each in conditions)
    assert len(conditions) == 2


async def test_what_was_never_used_has_no_month_to_search(connection: Any) -> None:
    future = Period(date(2040, 1, 1), date(2040, 1, 1) + timedelta(days=364))
    plan = await plan_of(connection, RECORDS, USER, future.start, future.end, LAST_ID, *EVERYTHING, None, 100)
    assert "llm_usage_logs_2" not in plan
