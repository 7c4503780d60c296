"""Holds, records, releases and expiry at the same time."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from llmrouter_server.budget.ledger import BudgetState
from llmrouter_server.budget.store import RELEASE, BudgetStore
from usage_samples import NOW, attempt, model_ids, quiet_recorder, report, usage_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.recorder import UsageRecorder
    from llmrouter_server.usage.store import UsageStore

MARCH = date(2026, 3, 1)
TTL = timedelta(minutes=5)
ONE, BUDGET = Decimal(1), Decimal(60)
# One statement: everything as of one moment.
BOOKS = """
select l.spent_usd, l.held_usd,
    (select coalesce(sum(amount_usd), 0) from llm_budget_holds where user_id = $1) as open_holds,
    (select coalesce(sum(cost_usd), 0) from llm_usage_logs where user_id = $1) as records,
    (select coalesce(sum(cost_usd), 0) from llm_usage_daily where user_id = $1) as days,
    (select coalesce(sum(cost_usd), 0) from llm_usage_hourly where user_id = $1) as hours
from llm_budget_ledger l where l.user_id = $1"""


@pytest.fixture
def budgets(database: Database) -> BudgetStore:
    return BudgetStore(database)


@pytest.fixture
def usage(database: Database) -> UsageStore:
    return usage_store(database)


@pytest.fixture(scope="session")
async def model(database: Database) -> uuid.UUID:
    return (await model_ids(database))["gpt-4o"]


@pytest.fixture
async def held_one(budgets: BudgetStore) -> tuple[uuid.UUID, uuid.UUID]:
    """A user who has 1 on hold, and the hold's id."""
    user, decision = uuid.uuid4(), uuid.uuid4()
    assert await budgets.hold(user, decision, ONE, BUDGET, now=NOW, ttl=TTL)
    return user, decision


@pytest.fixture
async def releasing(
    database: Database, held_one: tuple[uuid.UUID, uuid.UUID]
) -> tuple[uuid.UUID, uuid.UUID, Callable[[], Awaitable[None]]]:
    """The hold is being released, and the release is committed when told."""
    may_commit, has_begun = asyncio.Event(), asyncio.Event()

    async def release() -> None:
        async with database.transaction() as connection:
            await connection.execute(RELEASE, held_one[1])
            has_begun.set()
            await may_commit.wait()

    async def commit() -> None:
        may_commit.set()
        await task

    task = asyncio.create_task(release())
    await has_begun.wait()
    return *held_one, commit


async def waiting_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(10), database.connection() as connection:
        while not await connection.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.01)


async def test_a_hold_that_is_released_while_its_record_waits_is_given_back_once(
    budgets: BudgetStore,
    usage: UsageStore,
    database: Database,
    model: uuid.UUID,
    releasing: tuple[uuid.UUID, uuid.UUID, Callable[[], Awaitable[None]]],
) -> None:
    user, decision, commit = releasing
    recording = asyncio.create_task(usage.record([attempt(user, model, decision, "0.5")]))
    await waiting_for_a_lock(database)
    await commit()
    await recording
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.5"), Decimal(0))


async def test_a_hold_that_is_released_while_it_expires_is_given_back_once(
    budgets: BudgetStore, releasing: tuple[uuid.UUID, uuid.UUID, Callable[[], Awaitable[None]]]
) -> None:
    user, _, commit = releasing
    await budgets.expire(NOW + TTL)
    await commit()
    await budgets.expire(NOW + TTL)
    assert (await budgets.state(user, MARCH)).held_usd == 0


async def test_money_is_neither_lost_nor_doubled_nor_overspent_under_fifty_writers(
    database: Database, budgets: BudgetStore, usage: UsageStore, model: uuid.UUID
) -> None:
    user, draw = uuid.uuid4(), random.Random(11)
    recorders = [quiet_recorder(usage) for _ in range(5)]  # as on five replicas
    for each in recorders:
        await each.start()
    watching = asyncio.Event()
    reader = asyncio.create_task(watch(database, user, watching))
    outcomes = await asyncio.gather(
        *(write(user, model, budgets, recorders[number % 5], random.Random(draw.random())) for number in range(50))
    )
    await budgets.expire(NOW + TTL)
    watching.set()
    looks = await reader
    for each in recorders:
        await each.stop()
    books = await read_books(database, user)
    acknowledged = sum((cost for some in outcomes for cost in some), Decimal(0))
    assert looks > 10
    assert 0 < acknowledged == books["spent_usd"] <= BUDGET
    assert books["held_usd"] == 0


async def write(
    user: uuid.UUID, model: uuid.UUID, budgets: BudgetStore, recorder: UsageRecorder, draw: random.Random
) -> list[Decimal]:
    """Hold, and then end the request in one of the ways in which requests end; return what was acknowledged."""
    costs: list[Decimal] = []
    for _ in range(10):
        decision, hundredths = uuid.uuid4(), draw.randrange(1, 100)
        amount = Decimal(hundredths) / 100
        if not await budgets.hold(user, decision, amount, BUDGET, now=NOW, ttl=TTL):
            continue
        first = draw.randrange(hundredths)
        attempts = [
            attempt(user, model, decision, f"{Decimal(first) / 100}", succeeded=False),
            attempt(user, model, decision, f"{Decimal(draw.randrange(hundredths - first)) / 100}"),
        ]
        end = draw.choice(["records", "one by one", "failure", "release", "expiry", "told twice"])
        if end == "one by one":
            costs += [(await recorder.record(each)).cost_usd for each in attempts]
        elif end == "records":
            receipts = await recorder.record_all(attempts)
            costs += [receipt.cost_usd for receipt in receipts]
        elif end == "failure":
            costs.append((await recorder.record(attempts[0])).cost_usd)
            await budgets.release(decision)
        elif end == "told twice":
            receipts, _ = await asyncio.gather(recorder.record(attempts[1]), recorder.record(attempts[1]))
            costs.append(receipts.cost_usd)
        elif end == "release":
            await asyncio.gather(budgets.release(decision), budgets.release(decision))
    return costs


async def watch(database: Database, user: uuid.UUID, done: asyncio.Event) -> int:
    """Check the books until told to stop; return how often."""
    looks = 0
    while not done.is_set():
        books = await read_books(database, user)
        looks += bool(books)
        await asyncio.sleep(0)
    return looks


async def read_books(database: Database, user: uuid.UUID) -> dict[str, Decimal]:
    async with database.connection() as connection:
        row = await connection.fetchrow(BOOKS, user)
    books = dict(row) if row else {}
    if books:
        assert books["spent_usd"] + books["held_usd"] <= BUDGET
        assert books["held_usd"] == books["open_holds"]
        assert books["spent_usd"] == books["records"] == books["days"] == books["hours"]
    return books


async def test_writers_of_many_months_and_users_in_any_order_never_wait_for_each_other_in_a_circle(
    database: Database, budgets: BudgetStore, usage: UsageStore, model: uuid.UUID
) -> None:
    """Postgres would end one of two transactions that wait for each other; here it never has to."""
    users, draw = [uuid.uuid4() for _ in range(4)], random.Random(5)
    moments = [NOW - timedelta(days=days) for days in (0, 40, 70)]
    held = [(user, uuid.uuid4(), moment) for user in users for moment in moments for _ in range(6)]
    for user, decision, moment in held:
        assert await budgets.hold(user, decision, ONE, Decimal(100), now=moment, ttl=TTL)

    async def record() -> None:
        for _ in range(8):
            batch = [
                report(
                    user,
                    model,
                    request_id=f"{draw.randrange(200)}",
                    decision_id=decision,
                    succeeded=draw.random() < 0.5,
                    occurred_at=draw.choice(moments),
                )
                for user, decision, _ in draw.sample(held, 20)
            ]
            await usage.record(batch)

    async def tidy() -> None:
        for _ in range(20):
            await budgets.release(draw.choice(held)[1])
            await budgets.expire(moments[-1] + TTL)

    await asyncio.gather(*(record() for _ in range(12)), tidy(), tidy())
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select l.spent_usd, l.held_usd,"
            " (select coalesce(sum(amount_usd), 0) from llm_budget_holds h"
            "  where h.user_id = l.user_id and h.month = l.month) as open_holds,"
            " (select coalesce(sum(cost_usd), 0) from llm_usage_daily d where d.user_id = l.user_id"
            "  and date_trunc('month', d.day) = l.month) as days"
            " from llm_budget_ledger l where l.user_id = any ($1)",
            users,
        )
    assert len(rows) == 12
    assert all(row["held_usd"] == row["open_holds"] and row["spent_usd"] == row["days"] for row in rows)
