from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from llmrouter_server.budget import store as budget_store
from llmrouter_server.budget.ledger import BudgetState
from llmrouter_server.budget.store import BudgetStore
from usage_samples import NOW, attempt, model_ids, report, usage_store

if TYPE_CHECKING:
    from datetime import datetime

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.store import UsageStore

MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)
TTL = timedelta(minutes=5)
ONE, TEN = Decimal(1), Decimal(10)


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
    """A user with a budget of 10 who has 1 on hold, and the hold's id."""
    user, decision = uuid.uuid4(), uuid.uuid4()
    assert await hold(budgets, user, ONE, decision)
    return user, decision


async def hold(
    budgets: BudgetStore,
    user: uuid.UUID,
    amount: Decimal,
    decision: uuid.UUID | None = None,
    *,
    budget: Decimal | None = TEN,
    now: datetime = NOW,
) -> bool:
    return await budgets.hold(user, decision or uuid.uuid4(), amount, budget, now=now, ttl=TTL)


async def open_holds(database: Database, user: uuid.UUID) -> list[Decimal]:
    async with database.connection() as connection:
        rows = await connection.fetch("select amount_usd from llm_budget_holds where user_id = $1", user)
    return [row["amount_usd"] for row in rows]


async def test_each_month_of_each_user_has_its_own_room(budgets: BudgetStore, database: Database) -> None:
    first, second, new = (uuid.uuid4() for _ in range(3))
    in_april, before = NOW + timedelta(minutes=1), uuid.uuid4()
    assert await hold(budgets, first, Decimal(4))
    assert await hold(budgets, second, ONE, before)
    assert await hold(budgets, second, Decimal(9))
    assert await hold(budgets, first, Decimal(6))
    assert not await hold(budgets, first, ONE)
    assert await hold(budgets, new, TEN)
    assert not await hold(budgets, new, Decimal(11), now=in_april)
    assert await hold(budgets, second, ONE, before)  # again
    assert await budgets.state(first, MARCH) == BudgetState(Decimal(0), TEN)
    assert await budgets.state(second, MARCH) == BudgetState(Decimal(0), TEN)
    assert await budgets.state(new, MARCH) == BudgetState(Decimal(0), TEN)
    assert await budgets.state(new, APRIL) == BudgetState()
    assert sorted(await open_holds(database, second)) == [ONE, Decimal(9)]


async def test_holds_are_granted_up_to_the_budget_and_no_further(budgets: BudgetStore) -> None:
    user = uuid.uuid4()
    assert await budgets.state(user, MARCH) == BudgetState(Decimal(0), Decimal(0))
    assert await hold(budgets, user, Decimal("7.5"))
    assert not await hold(budgets, user, Decimal("2.5000000001"))
    assert await hold(budgets, user, Decimal("2.5"))
    assert not await hold(budgets, user, Decimal("0.0000000001"))
    assert await budgets.state(user, MARCH) == BudgetState(Decimal(0), TEN)


async def test_a_first_hold_larger_than_the_budget_leaves_nothing_behind(
    budgets: BudgetStore, database: Database
) -> None:
    user = uuid.uuid4()
    assert not await hold(budgets, user, Decimal("10.01"))
    assert await open_holds(database, user) == []
    assert await budgets.state(user, MARCH) == BudgetState()


async def test_what_was_spent_takes_room_too(budgets: BudgetStore, usage: UsageStore, model: uuid.UUID) -> None:
    user = uuid.uuid4()
    await usage.record([attempt(user, model, None, "9.5")])
    assert not await hold(budgets, user, ONE)
    assert await hold(budgets, user, Decimal("0.5"))


async def test_a_hold_is_rounded_up_to_what_the_ledger_counts_in(budgets: BudgetStore) -> None:
    user = uuid.uuid4()
    assert await hold(budgets, user, Decimal("0.00000000001"))
    assert (await budgets.state(user, MARCH)).held_usd == Decimal("0.0000000001")


async def test_without_a_budget_or_a_cost_nothing_is_held(
    budgets: BudgetStore, usage: UsageStore, database: Database, model: uuid.UUID
) -> None:
    user = uuid.uuid4()
    assert await hold(budgets, user, Decimal(10**6), budget=None)
    await usage.record([attempt(user, model, None, "20")])
    assert await hold(budgets, user, Decimal(0))
    assert await open_holds(database, user) == []


async def test_holding_again_while_it_is_open_changes_nothing(
    budgets: BudgetStore, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    assert await hold(budgets, user, Decimal(9), decision)
    assert await hold(budgets, user, ONE, decision, budget=Decimal(0))
    assert (await budgets.state(user, MARCH)).held_usd == ONE
    assert not await hold(budgets, uuid.uuid4(), ONE, decision)  # somebody else's


async def test_the_same_hold_asked_for_at_once_is_charged_once(budgets: BudgetStore, database: Database) -> None:
    for _ in range(10):
        user, decision = uuid.uuid4(), uuid.uuid4()
        assert await asyncio.gather(*(hold(budgets, user, ONE, decision) for _ in range(8))) == [True] * 8
        assert (await budgets.state(user, MARCH)).held_usd == ONE
        assert await open_holds(database, user) == [ONE]


async def test_of_many_holds_at_once_as_many_are_granted_as_there_is_room_for(budgets: BudgetStore) -> None:
    user = uuid.uuid4()
    granted = await asyncio.gather(*(hold(budgets, user, Decimal(3)) for _ in range(50)))
    assert sum(granted) == 3
    assert (await budgets.state(user, MARCH)).held_usd == 9


async def test_a_record_settles_its_hold_and_what_is_left_is_free_again(
    budgets: BudgetStore, usage: UsageStore, database: Database, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    first = attempt(user, model, decision, "0.25")
    await usage.record([first])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.25"), Decimal(0))
    assert await open_holds(database, user) == []
    await usage.record([report(user, model, request_id=first.request_id, decision_id=decision)])  # told again
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.25"), Decimal(0))


async def test_a_failed_attempt_takes_its_cost_out_of_the_hold_which_stays_open(
    budgets: BudgetStore, usage: UsageStore, database: Database, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    await usage.record([attempt(user, model, decision, "0.25", succeeded=False)])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.25"), Decimal("0.75"))
    assert await open_holds(database, user) == [Decimal("0.75")]
    await usage.record([attempt(user, model, decision, "0.5")])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.75"), Decimal(0))


async def test_all_attempts_of_a_decision_may_come_together(
    budgets: BudgetStore, usage: UsageStore, database: Database, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    await usage.record(
        [
            attempt(user, model, decision, "0.5"),
            attempt(user, model, decision, "0.25", succeeded=False),
            attempt(user, model, decision, "0", succeeded=False),
        ]
    )
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.75"), Decimal(0))
    assert await open_holds(database, user) == []


async def test_a_record_that_cost_more_than_its_hold_counts_as_it_is_and_is_logged(
    budgets: BudgetStore,
    usage: UsageStore,
    model: uuid.UUID,
    held_one: tuple[uuid.UUID, uuid.UUID],
    caplog: pytest.LogCaptureFixture,
) -> None:
    user, decision = held_one
    with caplog.at_level(logging.WARNING):
        await usage.record([attempt(user, model, decision, "1.25")])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("1.25"), Decimal(0))
    [line] = [line for line in caplog.records if line.message == "a request cost more than was held for it"]
    assert vars(line)["decision_id"] == str(decision)


async def test_nobody_elses_record_settles_a_hold(
    budgets: BudgetStore, usage: UsageStore, database: Database, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    other = uuid.uuid4()
    await usage.record([attempt(other, model, decision, "0.5")])
    assert await open_holds(database, user) == [ONE]
    assert await budgets.state(other, MARCH) == BudgetState(Decimal("0.5"), Decimal(0))
    await usage.record([attempt(other, model, decision, "0.5"), attempt(user, model, decision, "0.5")])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.5"), Decimal(0))


async def test_what_is_released_is_given_back_once(budgets: BudgetStore, held_one: tuple[uuid.UUID, uuid.UUID]) -> None:
    user, decision = held_one
    await hold(budgets, user, Decimal(2))
    for _ in range(2):
        await budgets.release(decision)
        assert await budgets.state(user, MARCH) == BudgetState(Decimal(0), Decimal(2))
    await budgets.release(uuid.uuid4())


async def test_what_expired_is_given_back_and_its_late_record_still_counts(
    budgets: BudgetStore, usage: UsageStore, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    await budgets.expire(NOW + TTL - timedelta(seconds=1))
    assert (await budgets.state(user, MARCH)).held_usd == ONE
    await budgets.expire(NOW + TTL)
    assert await budgets.state(user, MARCH) == BudgetState()
    await usage.record([attempt(user, model, decision, "0.5")])
    assert await budgets.state(user, MARCH) == BudgetState(Decimal("0.5"), Decimal(0))


async def test_expiry_goes_on_until_nothing_expired_is_left(
    budgets: BudgetStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_store, "EXPIRE_BATCH", 3)
    user, other = uuid.uuid4(), uuid.uuid4()
    for number in range(8):
        assert await hold(budgets, user if number % 2 else other, ONE)
    assert await hold(budgets, user, ONE, now=NOW + TTL)
    await budgets.expire(NOW + TTL)
    assert (await budgets.state(user, MARCH)).held_usd == (await budgets.state(other, MARCH)).held_usd == 0
    assert await budgets.state(user, APRIL) == BudgetState(Decimal(0), ONE)
    assert await open_holds(database, user) == [ONE]


async def test_expiry_leaves_a_hold_to_whoever_is_at_it(
    budgets: BudgetStore, database: Database, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    async with database.transaction() as connection:
        await connection.execute("select 1 from llm_budget_holds where id = $1 for update", decision)
        await budgets.expire(NOW + TTL)
        assert await open_holds(database, user) == [ONE]
    await budgets.expire(NOW + TTL)
    assert await budgets.state(user, MARCH) == BudgetState()


async def test_a_month_has_its_own_budget(
    budgets: BudgetStore, usage: UsageStore, model: uuid.UUID, held_one: tuple[uuid.UUID, uuid.UUID]
) -> None:
    user, decision = held_one
    april = NOW + timedelta(seconds=1)
    assert not await hold(budgets, user, TEN)
    assert await hold(budgets, user, TEN, now=april)
    await usage.record([attempt(user, model, decision, "0.5", occurred_at=april)])  # it counts when it happened
    assert await budgets.state(user, MARCH) == BudgetState()
    assert await budgets.state(user, APRIL) == BudgetState(Decimal("0.5"), TEN)
    assert await hold(budgets, user, TEN)


async def test_local_time_does_not_decide_the_month(budgets: BudgetStore) -> None:
    user = uuid.uuid4()
    await hold(budgets, user, ONE, now=(NOW + timedelta(seconds=1)).astimezone(ZoneInfo("America/Los_Angeles")))
    assert await budgets.state(user, APRIL) == BudgetState(Decimal(0), ONE)
