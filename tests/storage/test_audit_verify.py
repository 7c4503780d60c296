from __future__ import annotations

import asyncio
import tracemalloc
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from databases import started
from llmrouter_server.audit.key_reads import KeyRead, Link, extend
from llmrouter_server.audit.store import KeyReadStore
from llmrouter_server.audit.verify import verify
from llmrouter_server.runtime.command import CommandError
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)


class Audit:
    """An audit of one's own, to tamper with."""

    def __init__(self, url: str, database: Database, read: KeyRead) -> None:
        self.url, self.database, self.read = url, database, read
        self.store = KeyReadStore(database)

    async def write(self, month: date, count: int) -> list[KeyRead]:
        at = datetime(month.year, month.month, 5, tzinfo=UTC)
        reads = [replace(self.read, read_at=at, user_id=uuid.uuid4()) for _ in range(count)]
        await self.store.append(reads)
        return reads

    async def tamper(self, *statements: str) -> None:
        async with self.database.connection() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def verify(self, month: date | None = None) -> tuple[int, list[str]]:
        said: list[str] = []
        return await verify(self.url, said.append, month=month), said


@pytest.fixture
async def audit(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Audit]:
    url = await migrated_database()
    database = await started(Database(url, min_size=1, max_size=3))
    async with database.connection() as connection:
        provider = await connection.fetchval("select id from llm_providers where name = 'Groq'")
    read = KeyRead(
        read_at=datetime(2026, 11, 5, tzinfo=UTC),
        user_id=uuid.uuid4(),
        provider_id=provider,
        key_id=uuid.uuid4(),
        payer="USER_KEY",
        reader_id=uuid.uuid4(),
        purpose="credential",
    )
    yield Audit(url, database, read)
    await database.stop()


async def test_an_untouched_audit_is_told_month_by_month_with_its_heads(audit: Audit) -> None:
    october, november = await audit.write(OCTOBER, 2), await audit.write(NOVEMBER, 3)
    heads = [
        extend(month, Link.before_first(month), reads)[-1].hash.hex()
        for month, reads in ((OCTOBER, october), (NOVEMBER, november))
    ]
    lines = [f"2026-10: 2 rows, head {heads[0]} at row 2", f"2026-11: 3 rows, head {heads[1]} at row 3"]
    assert await audit.verify() == (0, lines)
    assert await audit.verify(OCTOBER) == (0, lines[:1])


async def test_an_empty_audit_says_so(audit: Audit) -> None:
    assert await audit.verify() == (0, ["no reading is recorded"])
    assert await audit.verify(OCTOBER) == (0, ["no reading is recorded for 2026-10"])


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        (
            "update llm_key_reads set reader_id = gen_random_uuid() where sequence = 3",
            "2026-11: row 3 was edited, or the hash of row 2",
        ),
        (
            "update llm_key_reads set read_at = read_at + interval '1 microsecond' where sequence = 1",
            "2026-11: row 1 was edited",
        ),
        (
            "update llm_key_reads set hash = sha256('x') where sequence = 5",
            "2026-11: row 5 was edited, or the hash of row 4",
        ),
        (
            "delete from llm_key_reads where sequence = 2",
            "2026-11: row 2 is missing, so row 3 cannot be checked",
        ),
        (
            "delete from llm_key_reads where sequence < 3",
            "2026-11: rows 1 to 2 are missing, so row 3 cannot be checked",
        ),
        ("delete from llm_key_reads where sequence > 3", "2026-11: rows 4 to 5 are missing at the end"),
        ("delete from llm_key_reads", "2026-11: rows 1 to 5 are missing at the end"),
        (
            "delete from llm_key_read_heads",
            "2026-11: the head is missing, so whether rows after 5 were removed is not known",
        ),
        (
            "update llm_key_read_heads set sequence = 4",
            "2026-11: the head was altered: it names row 4, and the last is 5",
        ),
        (
            "update llm_key_read_heads set hash = sha256('x')",
            "2026-11: the head was altered, or row 5: their hashes differ",
        ),
        (
            "update llm_key_reads set month = '2026-10-01' where sequence = 5",
            "2026-10: row 5 was read in 2026-11: it is in the wrong month",
        ),
    ],
)
async def test_each_tampering_is_told(audit: Audit, tampering: str, problem: str) -> None:
    await audit.write(NOVEMBER, 5)
    await audit.tamper(tampering)
    problems, said = await audit.verify()
    assert problem in said
    assert problems == len([line for line in said if " rows, head " not in line]) >= 1


async def test_every_problem_is_told_and_counted(audit: Audit) -> None:
    await audit.write(OCTOBER, 4)
    await audit.write(NOVEMBER, 6)
    await audit.tamper(
        "delete from llm_key_reads where month = '2026-10-01' and sequence = 4",
        "update llm_key_reads set purpose = 'gateway' where month = '2026-11-01' and sequence in (2, 5)",
        "delete from llm_key_reads where month = '2026-11-01' and sequence = 3",
    )
    problems, said = await audit.verify()
    assert problems == 4
    assert [line for line in said if "head" not in line] == [
        "2026-10: row 4 is missing at the end",
        "2026-11: row 2 was edited, or the hash of row 1",
        "2026-11: row 3 is missing, so row 4 cannot be checked",
        "2026-11: row 5 was edited, or the hash of row 4",
    ]
    assert (await audit.verify(OCTOBER))[0] == 1


async def test_writing_goes_on_while_it_looks(audit: Audit) -> None:
    await audit.write(NOVEMBER, 1)
    done = asyncio.Event()

    async def keep_writing() -> int:
        written = 0
        while not done.is_set():
            written += len(await audit.write(NOVEMBER, 7))
        return written

    writing = asyncio.create_task(keep_writing())
    outcomes = [await audit.verify() for _ in range(10)]
    done.set()
    written = await writing
    assert [problems for problems, _ in outcomes] == [0] * 10
    assert f"2026-11: {written + 1} rows" in (await audit.verify())[1][0]


async def test_progress_is_told_and_reaches_the_end(audit: Audit) -> None:
    await audit.write(OCTOBER, 2500)
    await audit.write(NOVEMBER, 10)
    told: list[tuple[int, int]] = []
    await verify(audit.url, lambda _: None, progress=lambda done, total: told.append((done, total)))
    assert told == [(1000, 2510), (2000, 2510), (2500, 2510), (2510, 2510)]


async def test_a_month_of_any_length_takes_little_memory(audit: Audit) -> None:
    for _ in range(4):
        await audit.write(NOVEMBER, 5000)
    tracemalloc.start()
    try:
        assert (await audit.verify())[0] == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # the rows together are several times that


async def test_a_database_that_cannot_be_read_is_told_in_a_sentence(
    audit: Audit, empty_database: Callable[[], Awaitable[str]]
) -> None:
    with pytest.raises(CommandError, match="not migrated"):
        await verify(await empty_database(), lambda _: None)
    with pytest.raises(CommandError, match="cannot be reached"):
        await verify(audit.url + "_missing", lambda _: None)
    await audit.tamper("drop table llm_key_reads")
    with pytest.raises(CommandError, match='the database failed: relation "llm_key_reads" does not exist'):
        await verify(audit.url, lambda _: None)
