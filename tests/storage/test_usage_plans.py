"""How Postgres finds what analytics ask for: the SQL that the stores run, explained."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from databases import started
from llmrouter_server.budget.store import STATE
from llmrouter_server.runtime.database import Database
from llmrouter_server.usage.period import Period
from llmrouter_server.usage.store import (
    DAYS,
    ENSURE_PARTITION,
    HOURS,
    LAST_ID,
    PRUNE_HOURLY,
    PRUNE_REQUESTS,
    RECORDS,
    SPEND,
    SUMS,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

USER = uuid.uuid4()
PERIOD = Period(date(2026, 2, 20), date(2026, 3, 20))
EVERYTHING = (None, None, None)
SOME = (uuid.uuid4(), uuid.uuid4(), "ECO")
MONTHS = [date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)]
PLAN_MODES = ("force_custom_plan", "force_generic_plan")

# 200 users of one model, each with 60 days, 120 hours, 4 months and 60 request ids.
FILL = """
create temporary table users as select gen_random_uuid() as id from generate_series(1, 200);
create temporary table models as
select id, provider_id, power_level from llm_models where model_name = 'gpt-4o';
insert into llm_usage_daily
select u.id, date '2026-02-01' + n, m.provider_id, m.id, m.power_level, 'PLATFORM', 1, 0, 1, 1, 1, 1, 1
from users u cross join models m cross join generate_series(0, 59) n;
insert into llm_usage_hourly
select u.id, timestamptz '2026-02-01 00:00Z' + n * interval '12 hours', m.provider_id, m.id, m.power_level, 1, 0, 1,
    1, 1, 1, 1
from users u cross join models m cross join generate_series(0, 119) n;
insert into llm_budget_ledger (user_id, month)
select u.id, date '2025-12-01' + n * interval '1 month' from users u cross join generate_series(0, 3) n;
insert into llm_usage_requests (user_id, request_id, usage_id, cost_usd, recorded_at)
select u.id, n::text, gen_random_uuid(), 1, timestamptz '2026-02-01 00:00Z' + n * interval '1 day'
from users u cross join generate_series(0, 59) n;
analyze llm_usage_daily, llm_usage_hourly, llm_budget_ledger, llm_usage_requests;
"""


async def plan_of(connection: Any, query: str, *arguments: Any) -> str:
    await connection.execute(f"prepare guarded as {query}")
    given = ", ".join("null" if argument is None else f"'{argument}'" for argument in arguments)
    plan = await connection.fetch(f"explain (analyze, costs off, timing off) execute guarded ({given})")
    await connection.execute("deallocate guarded")
    return "\n".join(row[0] for row in plan)


@pytest.fixture(scope="module")
async def filled_database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    """One of its own, whose sums are of many users and hours: in a table with a few rows, any index is as good."""
    database = await started(Database(await migrated_database(), min_size=1, max_size=2))
    async with database.connection() as connection:
        await connection.execute(FILL)
        for month in MONTHS:
            await connection.execute(ENSURE_PARTITION, month)
    yield database
    await database.stop()


@pytest.fixture(params=PLAN_MODES)
async def connection(request: pytest.FixtureRequest, filled_database: Database) -> AsyncIterator[Any]:
    """One that reads the records, of which there are none, as if there were many: in the order of an index."""
    async with filled_database.transaction() as connection:
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


@pytest.mark.parametrize(
    ("query", "index"),
    [(PRUNE_HOURLY, "llm_usage_hourly_hour"), (PRUNE_REQUESTS, "llm_usage_requests_recorded_at")],
)
async def test_what_is_too_old_is_found_by_its_time(connection: Any, query: str, index: str) -> None:
    plan = await plan_of(connection, query, PERIOD.start, 5000)
    assert re.search(rf"Index Scan using {index} [^\n]*\n\s*Index Cond: \(\w+ < ", plan)
