"""Partitions made ahead, and what is old dropped. These tests have a database of their own: they drop from it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from databases import started
from llmrouter_server.runtime.database import Database
from llmrouter_server.usage import upkeep as upkeep_module
from llmrouter_server.usage.period import Period, month_of, months_later
from llmrouter_server.usage.rollup import HOURLY_DAYS, Only
from llmrouter_server.usage.store import ENSURE_PARTITION, PARTITIONS
from llmrouter_server.usage.upkeep import REQUEST_DAYS, UsageUpkeep
from usage_samples import model_ids, report, usage_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter_server.usage.store import UsageStore

NOW = datetime.now(UTC)
"""What drops anything asks the database's clock too."""
RETENTION_DAYS = 400
WRONG_BY = timedelta(days=500)


@pytest.fixture
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = await started(Database(await migrated_database(), min_size=2, max_size=4))
    yield database
    await database.stop()


@pytest.fixture
def store(database: Database) -> UsageStore:
    return usage_store(database)


@pytest.fixture
def upkeep(database: Database) -> UsageUpkeep:
    return UsageUpkeep(database)


@pytest.fixture
async def model(database: Database) -> uuid.UUID:
    return (await model_ids(database))["gpt-4o"]


async def partitions(database: Database) -> list[str]:
    async with database.connection() as connection:
        return [row["relname"].removeprefix("llm_usage_logs_") for row in await connection.fetch(PARTITIONS)]


async def ensure(database: Database, *months: date) -> None:
    async with database.connection() as connection:
        for month in months:
            await connection.execute(ENSURE_PARTITION, month)


async def count(database: Database, table: str) -> int:
    async with database.connection() as connection:
        number: int = await connection.fetchval(f"select count(*) from {table}")
    return number


@pytest.mark.parametrize(
    ("now", "months"),
    [
        (datetime(2026, 10, 1, tzinfo=UTC), ["2026_10", "2026_11", "2026_12"]),
        (datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), ["2026_12", "2027_01", "2027_02"]),
        (datetime(2027, 1, 1, 1, tzinfo=UTC).astimezone(), ["2027_01", "2027_02", "2027_03"]),
        (datetime(2024, 1, 31, tzinfo=UTC), ["2024_01", "2024_02", "2024_03"]),
    ],
)
async def test_this_month_and_the_next_two_have_a_partition(
    upkeep: UsageUpkeep, database: Database, now: datetime, months: list[str]
) -> None:
    for _ in range(2):  # the second time, it is there
        await upkeep.create_partitions_ahead(now)
        assert await partitions(database) == months


async def test_a_partition_takes_every_moment_of_its_month_and_no_other(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID
) -> None:
    user = uuid.uuid4()
    await upkeep.create_partitions_ahead(datetime(2024, 2, 29, tzinfo=UTC))
    edges = [
        datetime(2024, 2, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 3, 1, tzinfo=UTC),
    ]
    await store.record([report(user, model, occurred_at=moment) for moment in edges])
    assert await partitions(database) == ["2024_02", "2024_03", "2024_04"]
    assert [await count(database, f"llm_usage_logs_2024_{month}") for month in ("02", "03")] == [2, 1]


async def test_clocks_that_jump_make_partitions_and_lose_none(upkeep: UsageUpkeep, database: Database) -> None:
    for now in (datetime(2030, 5, 5, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(2030, 6, 5, tzinfo=UTC)):
        await upkeep.create_partitions_ahead(now)
    assert await partitions(database) == ["2026_01", "2026_02", "2026_03", "2030_05", "2030_06", "2030_07", "2030_08"]


async def test_partitions_are_made_by_several_at_once(database: Database) -> None:
    await asyncio.gather(*(UsageUpkeep(database).create_partitions_ahead(NOW) for _ in range(4)))
    assert len(await partitions(database)) == 3


async def test_records_older_than_they_are_kept_are_dropped_by_the_month_and_their_sums_stay(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID
) -> None:
    user = uuid.uuid4()
    kept_from = NOW - timedelta(days=RETENTION_DAYS)
    partly, whole = month_of(kept_from), months_later(month_of(kept_from), -1)
    for month in (partly, whole):
        moment = datetime(month.year, month.month, 1, tzinfo=UTC)
        await store.record([report(user, model, occurred_at=moment)])
    await upkeep.drop_old_records(NOW, RETENTION_DAYS)
    assert await partitions(database) == [f"{partly:%Y_%m}"]
    period = Period(whole, partly)
    assert len(await store.days(user, period, Only())) == 2
    assert len(await store.records(user, period, Only(), status=None, before=None, limit=9)) == 1
    assert await store.spend(user, whole) > 0
    await upkeep.drop_old_records(NOW, RETENTION_DAYS)


async def test_a_late_record_of_a_dropped_month_is_stored_all_the_same(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID
) -> None:
    await ensure(database, date(2020, 1, 1))
    await upkeep.drop_old_records(NOW, RETENTION_DAYS)
    assert await partitions(database) == []
    await store.record([report(uuid.uuid4(), model, occurred_at=datetime(2020, 1, 31, tzinfo=UTC))])
    assert await partitions(database) == ["2020_01"]


@pytest.mark.parametrize("wrong_by", [WRONG_BY, -WRONG_BY])
async def test_a_clock_that_jumped_drops_nothing(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID, wrong_by: timedelta
) -> None:
    await store.record([report(uuid.uuid4(), model, occurred_at=NOW)])
    await upkeep.drop_old_records(NOW + wrong_by, RETENTION_DAYS)
    await upkeep.prune_hourly(NOW + wrong_by)
    await upkeep.prune_requests(NOW + wrong_by)
    assert [await count(database, f"llm_usage_{table}") for table in ("logs", "hourly", "requests")] == [1, 1, 1]


async def test_a_partition_that_is_in_use_is_dropped_next_time(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID, caplog: pytest.LogCaptureFixture
) -> None:
    await ensure(database, date(2020, 1, 1), month_of(NOW))
    async with database.transaction() as connection:
        await connection.execute("lock table llm_usage_logs in row exclusive mode")
        await upkeep.drop_old_records(NOW, RETENTION_DAYS)
        assert len(await partitions(database)) == 2
        assert "a partition is left for next time" in caplog.text
        await asyncio.wait_for(store.record([report(uuid.uuid4(), model, occurred_at=NOW)]), 5)
    await upkeep.drop_old_records(NOW, RETENTION_DAYS)
    assert await partitions(database) == [f"{NOW:%Y_%m}"]


async def test_records_are_stored_while_old_ones_are_dropped(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID
) -> None:
    await ensure(database, *(date(2020, month, 1) for month in range(1, 9)), month_of(NOW))
    user, done = uuid.uuid4(), asyncio.Event()

    async def write() -> int:
        written = 0
        while not done.is_set():
            written += len(await store.record([report(user, model, occurred_at=NOW)]))
        return written

    writers = [asyncio.create_task(write()) for _ in range(2)]
    async with asyncio.timeout(30):
        while len(await partitions(database)) > 1:
            await upkeep.drop_old_records(NOW, RETENTION_DAYS)
    done.set()
    assert sum(await asyncio.gather(*writers)) == await count(database, "llm_usage_logs") > 0


async def test_hours_older_than_they_are_kept_are_dropped_a_batch_at_a_time(
    upkeep: UsageUpkeep, store: UsageStore, model: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "BATCH_ROWS", 3)
    user, kept_from = uuid.uuid4(), NOW.date() - timedelta(days=HOURLY_DAYS)
    kept = datetime(kept_from.year, kept_from.month, kept_from.day, tzinfo=UTC)
    old = [kept - timedelta(hours=hours) for hours in range(1, 9)]
    await store.record([report(user, model, occurred_at=moment) for moment in [NOW, kept, *old]])
    await upkeep.prune_hourly(NOW)
    period = Period(kept_from - timedelta(days=2), NOW.date())
    assert sorted(await store.hours(user, period, Only())) == [kept, NOW.replace(minute=0, second=0, microsecond=0)]
    assert sum(total.requests for total in (await store.days(user, period, Only())).values()) == 10


async def test_request_ids_are_forgotten_when_no_report_can_come_so_late(
    upkeep: UsageUpkeep, database: Database, store: UsageStore, model: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "BATCH_ROWS", 3)
    user = uuid.uuid4()
    reports = [report(user, model, request_id=f"{number}", occurred_at=NOW) for number in range(10)]
    await store.record(reports)
    async with database.connection() as connection:
        await connection.execute(
            "update llm_usage_requests"
            " set recorded_at = case when request_id::int < 8 then $1 else $2::timestamptz end",
            NOW - timedelta(days=REQUEST_DAYS, seconds=1),
            NOW - timedelta(days=REQUEST_DAYS) + timedelta(minutes=1),
        )
    await upkeep.prune_requests(NOW)
    async with database.connection() as connection:
        rows = await connection.fetch("select request_id from llm_usage_requests order by request_id")
    assert [row["request_id"] for row in rows] == ["8", "9"]
    assert await count(database, "llm_usage_logs") == 10
