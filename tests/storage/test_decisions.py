"""Decisions are written behind: nobody waits for them, and what was taken is found, now and for 30 days."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import uuid_utils.compat as uuid_utils
from prometheus_client import REGISTRY

from databases import started
from decision_samples import FACTS, PATIENCE_S, House, decided, keeping, written
from llmrouter_server import errors
from llmrouter_server.errors import DomainError
from llmrouter_server.routing import log as decision_log
from llmrouter_server.routing.log import DecisionLog
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.runtime.database import Database
from proxy import Proxy
from turns import in_one_go

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter_server.routing.record import DecisionRecord


@pytest.fixture(scope="module")
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    """A database of this file's own: its partitions are dropped."""
    async with keeping(await migrated_database()) as house:
        yield house


@pytest.fixture
async def log(house: House) -> AsyncIterator[DecisionLog]:
    log = DecisionLog(house.store)
    await log.start()
    yield log
    await log.stop()


def dropped() -> float:
    return REGISTRY.get_sample_value("llmrouter_dropped_total", {"queue": "decisions"}) or 0.0


async def is_kept(house: House, record: DecisionRecord) -> bool:
    try:
        return await house.store.find_decision(record.id) == record
    except DomainError:
        return False


async def test_a_decision_is_found_while_it_waits_and_after_it_is_written(house: House, log: DecisionLog) -> None:
    record, decision = decided(await house.catalog.load_snapshot())
    log.add(record, decision)
    assert log.find(record.id) == record
    await written(log, record.id)
    assert await house.store.find_decision(record.id) == record


async def test_those_of_the_same_facts_are_each_written_as_those_of_others(house: House, log: DecisionLog) -> None:
    snapshot = await house.catalog.load_snapshot()
    kinds = [decided(snapshot, replace(FACTS, task_type=task_type)) for task_type in ("one", "two", "three")]
    records = []
    for _ in range(4):
        for record, decision in kinds:
            records.append(replace(record, id=uuid_utils.uuid7(), user_id=uuid.uuid4()))
            log.add(records[-1], decision)
    await written(log, records[-1].id)
    assert [await is_kept(house, record) for record in records] == [True] * 12


async def test_those_that_wait_are_written_when_it_stops(house: House) -> None:
    log, snapshot = DecisionLog(house.store), await house.catalog.load_snapshot()
    await log.start()
    records = [decided(snapshot) for _ in range(2500)]
    for record, decision in records:
        log.add(record, decision)
    await log.stop()
    for record, _ in records[::500]:
        assert await house.store.find_decision(record.id) == record


async def test_many_are_made_ready_for_the_database_a_few_at_a_time(
    house: House, log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await house.catalog.load_snapshot()
    records = [decided(snapshot) for _ in range(500)]
    async with in_one_go() as counting:
        monkeypatch.setattr(decision_log, "facts_to_json", counting.counted(decision_log.facts_to_json))
        for record, decision in records:
            log.add(record, decision)
        await written(log, records[-1][0].id)
    assert counting.all == 500
    assert counting.most <= decision_log.AT_ONCE


# --- when they cannot be written ---


class Away(RoutingStore):
    """A store whose database is away for a while."""

    is_away = True
    tries = 0

    async def write_decisions(self, *arguments: Any) -> None:
        self.tries += 1
        if self.is_away:
            raise errors.unavailable()
        await super().write_decisions(*arguments)


async def test_what_could_not_be_written_is_written_when_the_database_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "RETRY_DELAY_S", 0.01)
    away = Away(house.database)
    log = DecisionLog(away)
    await log.start()
    record, decision = decided(await house.catalog.load_snapshot())
    log.add(record, decision)
    async with asyncio.timeout(PATIENCE_S):
        while away.tries < 3:
            await asyncio.sleep(0.01)
    assert log.find(record.id) == record
    away.is_away = False
    await written(log, record.id)
    await log.stop()
    assert await away.find_decision(record.id) == record


async def test_a_connection_that_breaks_in_the_middle_loses_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "RETRY_DELAY_S", 0.01)
    snapshot = await house.catalog.load_snapshot()
    async with Proxy(house.url) as proxy:
        database = await started(Database(proxy.url, min_size=1, max_size=2))
        log = DecisionLog(RoutingStore(database))
        await log.start()
        records = [decided(snapshot) for _ in range(300)]
        for number, (record, decision) in enumerate(records):
            log.add(record, decision)
            if number % 100 == 50:
                await asyncio.sleep(decision_log.GATHER_S)  # it writes about now
                proxy.hang_up()
        await written(log, records[-1][0].id)
        await log.stop()
        await database.stop()
    assert [record for record, _ in records if not await is_kept(house, record)] == []


async def test_what_was_written_though_the_answer_was_lost_is_no_trouble(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decision_log, "RETRY_DELAY_S", 0.01)

    class AnswerLost(Away):
        async def write_decisions(self, *arguments: Any) -> None:
            await RoutingStore.write_decisions(self, *arguments)
            await super().write_decisions(*arguments)

    lossy, before = AnswerLost(house.database), dropped()
    log = DecisionLog(lossy)
    await log.start()
    record, decision = decided(await house.catalog.load_snapshot())
    log.add(record, decision)
    async with asyncio.timeout(PATIENCE_S):
        while lossy.tries < 2:
            await asyncio.sleep(0.01)
    lossy.is_away = False
    await written(log, record.id)
    await log.stop()
    assert await is_kept(house, record)
    assert (dropped(), caplog.messages) == (before, [])


async def test_when_too_many_wait_the_newest_are_dropped_and_counted_and_nobody_waits_for_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MAX_WAITING", 2)
    monkeypatch.setattr(decision_log, "STOP_TIMEOUT_S", 0.1)
    log, snapshot, before = DecisionLog(Away(house.database)), await house.catalog.load_snapshot(), dropped()
    await log.start()
    records = [decided(snapshot) for _ in range(5)]
    for record, decision in records:
        log.add(record, decision)
    assert [log.find(record.id) is not None for record, _ in records] == [True, True, False, False, False]
    assert dropped() == before + 3
    await log.stop()
    assert dropped() == before + 5  # those that waited in vain


async def test_it_stops_in_time_when_the_database_does_not_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "STOP_TIMEOUT_S", 0.2)

    class Hanging(RoutingStore):
        async def write_decisions(self, *_: Any) -> None:
            await asyncio.Event().wait()

    log, before = DecisionLog(Hanging(house.database)), dropped()
    await log.start()
    record, decision = decided(await house.catalog.load_snapshot())
    log.add(record, decision)
    stopping = asyncio.create_task(log.stop())
    done, _ = await asyncio.wait({stopping}, timeout=PATIENCE_S)
    assert done
    assert dropped() == before + 1
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "decision writer"]


# --- when one of them is bad ---


def unwritable(record: DecisionRecord, task_type: object) -> DecisionRecord:
    return replace(record, facts=replace(record.facts, task_type=task_type))  # type: ignore[arg-type]


@pytest.mark.parametrize("task_type", ["a\0b", object()])
async def test_one_that_cannot_be_written_takes_no_other_with_it(
    house: House, log: DecisionLog, task_type: object
) -> None:
    snapshot, before = await house.catalog.load_snapshot(), dropped()
    good = [decided(snapshot) for _ in range(20)]
    bad = unwritable(good[7][0], task_type)
    records = [record if number != 7 else bad for number, (record, _) in enumerate(good)]
    for record, (_, decision) in zip(records, good, strict=True):
        log.add(record, decision)
    for record in records:
        await written(log, record.id)
    assert [await is_kept(house, record) for record in records] == [number != 7 for number in range(20)]
    assert dropped() == before + 1
    later, decision = decided(snapshot)
    log.add(later, decision)
    await written(log, later.id)
    assert await is_kept(house, later)


# --- days ---


async def test_each_day_has_its_partition_and_30_days_are_kept(house: House) -> None:
    snapshot, last = await house.catalog.load_snapshot(), datetime.now(UTC).replace(hour=23, minute=59)
    records = [decided(snapshot, at=last - timedelta(days=days)) for days in (0, 29, 30, 31, 60)]
    await house.keep(*records)
    assert [await is_kept(house, record) for record, _ in records] == [True] * 5
    await house.store.drop_partitions(last.date() - timedelta(days=decision_log.KEPT_DAYS))
    assert [await is_kept(house, record) for record, _ in records] == [True, True, True, False, False]


async def test_a_new_day_begins_without_anybody_having_made_its_partition(house: House, log: DecisionLog) -> None:
    snapshot = await house.catalog.load_snapshot()
    midnight = datetime(2031, 1, 1, tzinfo=UTC)
    records = [decided(snapshot, at=midnight + timedelta(milliseconds=each)) for each in (-1, 0, 1)]
    for record, decision in records:
        log.add(record, decision)
    await written(log, records[-1][0].id)
    assert [await is_kept(house, record) for record, _ in records] == [True] * 3


async def test_a_partition_that_has_gone_is_made_again(house: House, log: DecisionLog) -> None:
    snapshot, at = await house.catalog.load_snapshot(), datetime(2032, 5, 6, 7, tzinfo=UTC)
    for _ in range(2):
        record, decision = decided(snapshot, at=at)
        log.add(record, decision)
        await written(log, record.id)
        assert await is_kept(house, record)
        await house.execute("drop table llm_decisions_2032_05_06")


@pytest.mark.parametrize("decision_id", [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4(), uuid_utils.uuid7()])
async def test_an_id_of_no_decision_is_not_found(house: House, decision_id: uuid.UUID) -> None:
    with pytest.raises(DomainError, match="there is no such decision"):
        await house.store.find_decision(decision_id)
