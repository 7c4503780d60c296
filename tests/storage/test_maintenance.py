"""Work that is due now and then: one replica at a time does it, and a job that fails takes no other with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from databases import started
from llmrouter_server import errors
from llmrouter_server.runtime import maintenance as maintenance_room
from llmrouter_server.runtime.database import Database
from llmrouter_server.runtime.maintenance import Maintenance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

PATIENCE_S = 10
POOL = "llmrouter"


class Jobs:
    """Jobs that note when they ran, and can be held up."""

    def __init__(self, *, failing: BaseException | None = None) -> None:
        self.done: list[str] = []
        self._failing = failing
        self.held: asyncio.Event | None = None
        self.began = asyncio.Event()

    @property
    def mapping(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {"first": self.first, "second": self.second}

    async def first(self) -> None:
        self.began.set()
        if self.held is not None:
            await self.held.wait()
        if self._failing is not None:
            raise self._failing
        self.done.append("first")

    async def second(self) -> None:
        self.done.append("second")


async def stopped_in_time(maintenance: Maintenance) -> None:
    """Stop it. Not with wait_for, whose own cancellation would help it to end."""
    done, _ = await asyncio.wait({asyncio.create_task(maintenance.stop())}, timeout=PATIENCE_S)
    assert done, "it did not stop"


async def test_every_job_runs(database: Database) -> None:
    jobs = Jobs()
    await Maintenance(database, jobs.mapping).run_once()
    assert jobs.done == ["first", "second"]


async def test_a_job_that_fails_takes_no_other_with_it(database: Database) -> None:
    jobs = Jobs(failing=RuntimeError("no"))
    await Maintenance(database, jobs.mapping).run_once()
    assert jobs.done == ["second"]


async def test_while_one_replica_is_at_it_another_leaves_it_alone(database: Database) -> None:
    busy, idle = Jobs(), Jobs()
    busy.held = asyncio.Event()
    at_it = asyncio.create_task(Maintenance(database, busy.mapping).run_once())
    await asyncio.wait_for(busy.began.wait(), PATIENCE_S)
    await Maintenance(database, idle.mapping).run_once()
    assert idle.done == []
    busy.held.set()
    await at_it
    await Maintenance(database, idle.mapping).run_once()
    assert idle.done == ["first", "second"]


async def test_stopped_in_the_middle_it_leaves_the_work_to_others(database: Database) -> None:
    stopped, other = Jobs(), Jobs()
    stopped.held = asyncio.Event()
    maintenance = Maintenance(database, stopped.mapping)
    await maintenance.start()
    await asyncio.wait_for(stopped.began.wait(), PATIENCE_S)
    await stopped_in_time(maintenance)
    await Maintenance(database, other.mapping).run_once()
    assert (stopped.done, other.done) == ([], ["first", "second"])


async def test_a_lock_that_cannot_be_given_back_goes_with_its_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = Jobs(), Jobs()
    monkeypatch.setattr(maintenance_room, "UNLOCK", "select what_there_is_not($1)")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await Maintenance(database, stuck.mapping).run_once()
    monkeypatch.undo()
    elsewhere = await started(Database(database._url, min_size=1, max_size=2))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not other.done:  # Postgres ends the session when it hears that the connection is gone
                await Maintenance(elsewhere, other.mapping).run_once()
    finally:
        await elsewhere.stop()
    assert other.done == ["first", "second"]


async def test_without_a_database_nothing_is_done() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", min_size=1, max_size=1)
    jobs = Jobs()
    with pytest.raises(errors.DomainError, match="unavailable"):
        await Maintenance(away, jobs.mapping).run_once()
    assert jobs.done == []


async def test_a_job_that_the_database_does_not_answer_ends_the_round_and_the_next_begins_after_it(
    database: Database,
) -> None:
    jobs = Jobs(failing=errors.unavailable())
    maintenance = Maintenance(database, jobs.mapping)
    with pytest.raises(errors.DomainError, match="unavailable"):
        await maintenance.run_once()
    assert jobs.done == []
    with pytest.raises(errors.DomainError, match="unavailable"):
        await maintenance.run_once()
    assert jobs.done == ["second"]


async def test_after_such_a_round_it_goes_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance_room, "INTERVAL_S", 0.01)
    jobs = Jobs(failing=errors.unavailable())
    maintenance = Maintenance(database, jobs.mapping)
    await maintenance.start()
    async with asyncio.timeout(PATIENCE_S):
        while jobs.done.count("second") < 3:
            await asyncio.sleep(0.01)
    await stopped_in_time(maintenance)


async def test_whatever_goes_wrong_with_a_round_the_next_one_comes(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maintenance_room, "INTERVAL_S", 0.01)
    monkeypatch.setattr(maintenance_room, "TRY_LOCK", "select what_there_is_not($1)")
    jobs = Jobs()
    maintenance = Maintenance(database, jobs.mapping)
    await maintenance.start()
    async with asyncio.timeout(PATIENCE_S):
        while "maintenance failed" not in caplog.messages:
            await asyncio.sleep(0.01)
        monkeypatch.undo()
        await jobs.began.wait()
    await stopped_in_time(maintenance)


@pytest.fixture
async def lost(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[tuple[Database, Callable[[], Any]]]:
    """A database of one's own, and what ends all its connections."""
    url = await migrated_database()
    database = await started(Database(url, min_size=1, max_size=3))

    async def lose() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "select pg_terminate_backend(pid, 20000) from pg_stat_activity"
            " where application_name = $1 and datname = current_database()",
            POOL,
        )
        await connection.close()

    yield database, lose
    await database.stop()


async def test_it_can_be_stopped_in_the_middle_when_its_connection_is_lost_too(
    lost: tuple[Database, Callable[[], Any]],
) -> None:
    database, lose = lost
    jobs, other = Jobs(), Jobs()
    jobs.held = asyncio.Event()
    maintenance = Maintenance(database, jobs.mapping)
    await maintenance.start()
    await asyncio.wait_for(jobs.began.wait(), PATIENCE_S)
    await lose()
    await stopped_in_time(maintenance)
    await Maintenance(database, other.mapping).run_once()
    assert (jobs.done, other.done) == ([], ["first", "second"])


async def test_a_lost_connection_leaves_the_lock_to_others(lost: tuple[Database, Callable[[], Any]]) -> None:
    database, lose = lost
    jobs, other = Jobs(), Jobs()
    jobs.held = asyncio.Event()
    at_it = asyncio.create_task(Maintenance(database, jobs.mapping).run_once())
    await asyncio.wait_for(jobs.began.wait(), PATIENCE_S)
    await lose()
    await Maintenance(database, other.mapping).run_once()
    assert other.done == ["first", "second"]
    jobs.held.set()
    with pytest.raises(errors.DomainError, match="unavailable"):
        await at_it


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400), timedelta(days=1, minutes=1)])
async def test_while_its_clock_is_wrong_it_does_nothing_that_goes_by_the_clock(
    database: Database, jump: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, jumped = Jobs(), jump
    maintenance = Maintenance(database, jobs.mapping, lambda: datetime.now(UTC) + jumped)
    await maintenance.run_once()
    assert jobs.done == []
    assert [record.message for record in caplog.records] == [
        "no maintenance: the clocks here and of the database differ by more than a day"
    ]
    jumped = timedelta(hours=-23)
    await maintenance.run_once()
    assert jobs.done == ["first", "second"]
