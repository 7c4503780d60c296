"""Work that is due now and then: one replica at a time does it, and a job that fails takes no other with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llmrouter_server import errors
from llmrouter_server.runtime.database import Database
from llmrouter_server.runtime.maintenance import Maintenance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

PATIENCE_S = 10


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
    await asyncio.wait_for(maintenance.stop(), PATIENCE_S)
    await Maintenance(database, other.mapping).run_once()
    assert (stopped.done, other.done) == ([], ["first", "second"])


async def test_without_a_database_nothing_is_done() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", min_size=1, max_size=1)
    jobs = Jobs()
    with pytest.raises(errors.DomainError, match="unavailable"):
        await Maintenance(away, jobs.mapping).run_once()
    assert jobs.done == []


async def test_a_database_that_goes_away_in_the_middle_ends_the_round_and_nothing_else(database: Database) -> None:
    jobs = Jobs(failing=errors.unavailable())
    maintenance = Maintenance(database, jobs.mapping)
    await maintenance.start()
    await asyncio.wait_for(jobs.began.wait(), PATIENCE_S)
    await maintenance.stop()
    assert jobs.done == []
