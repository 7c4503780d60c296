"""The laws of the ledger, over generated histories of one user against a real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from databases import started
from llmrouter_server.budget.ledger import BudgetState
from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.runtime.database import Database
from llmrouter_server.usage.period import month_of, months_later
from llmrouter_server.usage.store import UsageStore
from usage_samples import model_ids, report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from llmrouter_server.usage.record import Report

STEP_TIMEOUT_S = 20
TTL = timedelta(minutes=5)
A_TOKEN = Decimal("0.0000025")
"""What one input token of gpt-4o costs; every amount here is so many of it."""
TOKENS = st.integers(1, 60)
BUDGETS = st.none() | st.integers(0, 200)
SUMS = """
select
    (select coalesce(sum(cost_usd), 0) from llm_usage_logs where user_id = $1 and created_at >= $3 and created_at < $4),
    (select coalesce(sum(cost_usd), 0) from llm_usage_daily where user_id = $1 and day >= $2 and day < $5),
    (select coalesce(sum(cost_usd), 0) from llm_usage_hourly where user_id = $1 and hour >= $3 and hour < $4),
    (select coalesce(sum(amount_usd), 0) from llm_budget_holds where user_id = $1 and month = $2)"""


class World(NamedTuple):
    loop: asyncio.AbstractEventLoop
    database: Database
    model: uuid.UUID


@dataclass
class Held:
    """A hold as it should be. The machine changes it as things happen."""

    id: uuid.UUID
    month: date
    tokens: int
    until: datetime
    is_open: bool = True


class Ledger(RuleBasedStateMachine):
    """What should happen, in whole tokens, beside what does happen."""

    world: World
    holds: Bundle[Held] = Bundle("holds")
    recorded: Bundle[Report] = Bundle("recorded")

    def __init__(self) -> None:
        super().__init__()
        self.budgets = BudgetStore(self.world.database)
        self.usage = UsageStore(self.world.database)
        self.user, self.now = uuid.uuid4(), datetime(2027, 12, 31, 23, 50, tzinfo=UTC)
        self.budget: int | None = 100
        self.highest_budget = 100
        self.all_holds: list[Held] = []
        self.spent: dict[date, int] = {}
        self.uncovered: dict[date, int] = {}
        """What was recorded without an open hold: nothing kept it within the budget."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.world.loop).result(STEP_TIMEOUT_S)

    def held(self, month: date) -> int:
        return sum(hold.tokens for hold in self.all_holds if hold.is_open and hold.month == month)

    def hold(self, hold_id: uuid.UUID, tokens: int) -> Awaitable[bool]:
        budget = None if self.budget is None else self.budget * A_TOKEN
        return self.budgets.hold(self.user, hold_id, tokens * A_TOKEN, budget, now=self.now, ttl=TTL)

    def attempt(self, held: Held | None, tokens: int, **changes: Any) -> Report:
        """Make a report that happens in the month of its hold, as the data plane's do."""
        decision = held.id if held else None
        changes = {"occurred_at": held.until - TTL if held else self.now} | changes
        return report(
            self.user, self.world.model, decision_id=decision, input_tokens=tokens, output_tokens=0, **changes
        )

    def count(self, held: Held | None, each: Report) -> None:
        month = month_of(each.occurred_at)
        self.spent[month] = self.spent.get(month, 0) + each.input_tokens
        if held is None or not held.is_open or month != held.month:
            self.uncovered[month] = self.uncovered.get(month, 0) + each.input_tokens
        if held is not None and held.is_open:
            held.tokens -= each.input_tokens
            held.is_open = not each.succeeded

    @rule(budget=BUDGETS)
    def change_the_budget(self, budget: int | None) -> None:
        self.budget = budget
        self.highest_budget = max(self.highest_budget, budget or 0)

    @rule(target=holds, tokens=TOKENS)
    def begin(self, tokens: int) -> Any:
        held = Held(uuid.uuid4(), month_of(self.now), tokens, self.now + TTL)
        room = self.budget is None or (self.spent.get(held.month, 0) + self.held(held.month) + tokens <= self.budget)
        assert self.run(self.hold(held.id, tokens)) == room
        if not room or self.budget is None:
            return multiple()
        self.all_holds.append(held)
        return held

    @rule(held=holds, tokens=TOKENS)
    def begin_again(self, held: Held, tokens: int) -> None:
        if held.is_open:
            assert self.run(self.hold(held.id, tokens))

    @rule(target=recorded, held=holds, share=st.fractions(0, 1), succeeds=st.booleans())
    def record(self, held: Held, share: Any, succeeds: bool) -> Report:
        each = self.attempt(held, int(held.tokens * share), succeeded=succeeds)
        [receipt] = self.run(self.usage.record([each]))
        assert not receipt.is_duplicate
        self.count(held, each)
        return each

    @rule(target=recorded, held=consumes(holds), share=st.fractions(0, 1))
    def record_late_in_the_next_month(self, held: Held, share: Any) -> Report:
        next_month = datetime.combine(months_later(held.month, 1), datetime.min.time(), UTC)
        each = self.attempt(held, int(held.tokens * share), occurred_at=next_month)
        self.run(self.usage.record([each]))
        self.count(held, each)
        return each

    @rule(target=recorded, tokens=TOKENS)
    def record_without_a_decision(self, tokens: int) -> Report:
        each = self.attempt(None, tokens)
        self.run(self.usage.record([each]))
        self.count(None, each)
        return each

    @rule(each=recorded)
    def record_again(self, each: Report) -> None:
        again = report(self.user, self.world.model, request_id=each.request_id, decision_id=each.decision_id)
        [receipt] = self.run(self.usage.record([again]))
        assert receipt.is_duplicate
        assert receipt.usage_id == each.usage_id

    @rule(held=holds)
    def release(self, held: Held) -> None:
        self.run(self.budgets.release(held.id))
        held.is_open = False

    @rule(minutes=st.sampled_from([1, 5, 6, 60]))
    def time_passes_and_what_expired_is_given_back(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        self.run(self.budgets.expire(self.now))
        for held in self.all_holds:
            held.is_open = held.is_open and held.until > self.now

    @rule()
    def the_month_changes(self) -> None:
        self.now = datetime.combine(months_later(month_of(self.now), 1), datetime.min.time(), UTC)

    @precondition(lambda self: self.budget is not None)
    @rule(target=recorded, tokens=TOKENS, share=st.fractions(0, 1), writers=st.integers(2, 5))
    def everything_at_once(self, tokens: int, share: Any, writers: int) -> Any:
        """Whoever comes first, the hold is closed once and the record counts once."""
        held = Held(uuid.uuid4(), month_of(self.now), tokens, self.now + TTL)
        room = self.spent.get(held.month, 0) + self.held(held.month) + tokens <= (self.budget or 0)

        async def hold() -> list[bool]:
            return await asyncio.gather(*(self.hold(held.id, tokens) for _ in range(writers)))

        assert self.run(hold()) == [room] * writers
        if not room:
            return multiple()
        each = self.attempt(held, int(tokens * share))
        self.all_holds.append(held)

        async def end() -> list[Any]:
            return await asyncio.gather(
                *(self.usage.record([each]) for _ in range(writers)),
                self.budgets.release(held.id),
                self.budgets.expire(held.until),
            )

        self.run(end())
        self.now = max(self.now, held.until)
        for other in self.all_holds:
            other.is_open = other.is_open and other is not held and other.until > held.until
        self.spent[held.month] = self.spent.get(held.month, 0) + each.input_tokens
        self.uncovered[held.month] = self.uncovered.get(held.month, 0) + each.input_tokens
        return each

    @invariant()
    def the_ledger_is_right(self) -> None:
        for month in {month_of(self.now), *self.spent, *(held.month for held in self.all_holds)}:
            spent, held = self.spent.get(month, 0), self.held(month)
            state, sums = self.run(self.read(month))
            assert state == BudgetState(spent * A_TOKEN, held * A_TOKEN)
            assert sums == (spent * A_TOKEN, spent * A_TOKEN, spent * A_TOKEN, held * A_TOKEN)
            assert spent + held <= self.highest_budget + self.uncovered.get(month, 0)

    async def read(self, month: date) -> tuple[BudgetState, tuple[Decimal, ...]]:
        start, after = (datetime.combine(months_later(month, n), datetime.min.time(), UTC) for n in (0, 1))
        async with self.world.database.connection() as connection:
            row = await connection.fetchrow(SUMS, self.user, month, start, after, after.date())
        return await self.budgets.state(self.user, month), tuple(row)


@pytest.fixture(scope="module")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = await started(Database(await migrated_database(), min_size=2, max_size=8))
    yield database
    await database.stop()


async def test_no_history_loses_or_doubles_money_or_passes_the_budget(database: Database) -> None:
    models = await model_ids(database)

    class Bound(Ledger):
        world = World(asyncio.get_running_loop(), database, models["gpt-4o"])

    limits = settings(
        max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    await asyncio.to_thread(run_state_machine_as_test, Bound, settings=limits)
