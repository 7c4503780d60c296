from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from databases import started
from llmrouter_server.audit.key_reads import ChainCheck, KeyRead
from llmrouter_server.audit.log import AuditLog
from llmrouter_server.audit.store import LIST_OF_USER, KeyReadStore, read_head, read_month
from llmrouter_server.audit.verify import verify
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MONTHS = (date(2031 + number // 12, 1 + number % 12, 1) for number in itertools.count())


@pytest.fixture
def month() -> date:
    """A month that no other test writes to."""
    return next(MONTHS)


async def a_provider(database: Database) -> uuid.UUID:
    async with database.connection() as connection:
        return await connection.fetchval("select id from llm_providers where name = 'Groq'")


async def a_read(database: Database, month: date, *, user: uuid.UUID | None = None) -> KeyRead:
    return KeyRead(
        read_at=datetime(month.year, month.month, 7, 8, 9, 10, 123456, UTC),
        user_id=user or uuid.uuid4(),
        provider_id=await a_provider(database),
        key_id=uuid.uuid4(),
        payer="USER_KEY",
        reader_id=uuid.uuid4(),
        purpose="credential",
        decision_id=uuid.uuid4(),
    )


@asynccontextmanager
async def logs(database: Database, count: int) -> AsyncIterator[list[AuditLog]]:
    """Run several logs, as several replicas would."""
    async with AsyncExitStack() as stack:
        made = [AuditLog(KeyReadStore(database)) for _ in range(count)]
        for log in made:
            await log.start()
            stack.push_async_callback(log.stop)
        yield made


async def stored(database: Database, month: date) -> list[KeyRead]:
    """Return the month's readings, and fail if there is anything wrong with its chain."""
    check = ChainCheck(month)
    async with database.transaction() as connection:
        rows = [row async for row in read_month(connection, month)]
        problems = [problem for row in rows for problem in check.row(row)]
        problems += check.end(await read_head(connection, month))
    assert problems == []
    return [row.read for row in rows]


async def test_what_is_recorded_is_read_back_as_it_was(database: Database, month: date) -> None:
    first = await a_read(database, month)
    second = replace(first, key_id=None, payer="PLATFORM", decision_id=None, purpose="gateway")
    async with logs(database, 1) as (log,):
        await log.record(first)
        assert await stored(database, month) == [first]
        await log.record(second)
    assert await stored(database, month) == [first, second]


async def test_many_writers_on_many_replicas_make_one_chain(database: Database, month: date) -> None:
    read = await a_read(database, month)
    reads = [replace(read, user_id=uuid.uuid4()) for _ in range(500)]
    async with logs(database, 5) as made:

        async def write(writer: int) -> None:
            for each in reads[writer::50]:
                await made[writer % 5].record(each)

        await asyncio.gather(*(write(writer) for writer in range(50)))
    written = await stored(database, month)
    assert Counter(written) == Counter(reads)
    for writer in range(50):
        mine = reads[writer::50]
        assert [each for each in written if each in mine] == mine


async def test_each_month_has_its_own_chain(database: Database) -> None:
    months = [next(MONTHS) for _ in range(3)]
    reads = [await a_read(database, month) for month in months]
    async with logs(database, 5) as made:
        await asyncio.gather(*(log.record(read) for log in made for read in (*reads, *reads[::-1])))
    for month, read in zip(months, reads, strict=True):
        assert await stored(database, month) == [read] * 10


async def test_the_month_of_a_reading_is_that_of_utc(database: Database) -> None:
    first, second = next(MONTHS), next(MONTHS)
    midnight = datetime(second.year, second.month, 1, tzinfo=UTC)
    read = await a_read(database, first)
    reads = [replace(read, read_at=midnight - timedelta(microseconds=1)), replace(read, read_at=midnight)]
    async with logs(database, 1) as (log,):
        await asyncio.gather(*(log.record(each) for each in reads))
    assert [await stored(database, first), await stored(database, second)] == [[reads[0]], [reads[1]]]


async def test_a_reading_that_cannot_be_stored_takes_no_neighbour_with_it(database: Database, month: date) -> None:
    good = await a_read(database, month)
    bad = replace(good, provider_id=uuid.uuid4())
    async with logs(database, 1) as (log,):
        outcomes = await asyncio.gather(*(log.record(each) for each in (good, bad, good)), return_exceptions=True)
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [None, "UNAVAILABLE", None]
    assert await stored(database, month) == [good, good]


async def test_after_the_end_nothing_is_recorded(database: Database, month: date) -> None:
    read = await a_read(database, month)
    async with logs(database, 1) as (log,):
        pass
    with pytest.raises(DomainError, match="unavailable"):
        await log.record(read)
    assert await stored(database, month) == []


async def test_connections_that_break_lose_no_acknowledged_reading_and_leave_no_gap(
    migrated_database: Callable[[], Awaitable[str]],
) -> None:
    url = await migrated_database()
    database = await started(Database(url, min_size=2, max_size=10))
    month = date(2026, 11, 1)
    read = await a_read(database, month)
    acknowledged: list[KeyRead] = []
    refused: list[str] = []
    async with logs(database, 5) as made:

        async def write(log: AuditLog) -> None:
            written = 0
            while written < 20 or not refused:  # until a connection was broken while it was used
                written += 1
                mine = replace(read, user_id=uuid.uuid4())
                try:
                    await log.record(mine)
                except DomainError as error:
                    refused.append(error.reason)
                else:
                    acknowledged.append(mine)

        async def break_connections() -> None:
            broken = 0
            while broken < 10 or not refused:
                broken += 1
                with contextlib.suppress(DomainError):  # the one that it is lent may be broken too
                    async with database.connection() as connection:
                        await connection.execute(
                            "select pg_terminate_backend(pid) from pg_stat_activity"
                            " where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
                        )
                await asyncio.sleep(0.01)

        await asyncio.gather(*(write(log) for log in made for _ in range(4)), break_connections())
    written = await stored(database, month)
    assert set(acknowledged) <= set(written)
    assert len(written) <= len(acknowledged) + len(refused)
    assert set(refused) == {"UNAVAILABLE"}
    assert await verify(url, lambda _: None) == 0
    await database.stop()


async def test_users_see_their_own_readings_newest_first(database: Database) -> None:
    store, user = KeyReadStore(database), uuid.uuid4()
    first, second = next(MONTHS), next(MONTHS)
    mine = [
        replace(await a_read(database, month, user=user), key_id=uuid.UUID(int=number))
        for month, number in ((first, 1), (first, 2), (second, 1), (second, 3))
    ]
    await store.append([*mine, await a_read(database, second)])
    newest_first = mine[::-1]
    page = await store.list(user, key_id=None, after=None, limit=3)
    rest = await store.list(user, key_id=None, after=(page[-1].month, page[-1].sequence), limit=3)
    assert [each.read for each in (*page, *rest)] == newest_first
    assert {each.provider_name for each in page} == {"Groq"}
    of_key = await store.list(user, key_id=uuid.UUID(int=1), after=None, limit=9)
    assert [each.read for each in of_key] == [mine[2], mine[0]]
    assert await store.list(uuid.uuid4(), key_id=None, after=None, limit=9) == []


async def test_a_page_is_read_from_the_index_without_sorting(database: Database, month: date) -> None:
    await KeyReadStore(database).append([await a_read(database, month) for _ in range(200)])
    async with database.transaction() as connection:
        await connection.execute("analyze llm_key_reads")  # of an empty table, one index is as good as another
        await connection.execute("set local enable_seqscan = off")
        rows = await connection.fetch(f"explain {LIST_OF_USER}", uuid.uuid4(), None, month, 1000, 100)
    plan = "\n".join(row[0] for row in rows)
    assert "llm_key_reads_user" in plan
    assert "Sort" not in plan
