"""All SQL of budgets: holds, and what the ledger holds. Recording (usage) writes what it has spent."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server.budget.ledger import BudgetState, Hold, rounded_up
from llmrouter_server.usage.period import month_of
from llmrouter_server.usage.rows import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime, timedelta
    from uuid import UUID

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.rollup import MonthKey
    from llmrouter_server.usage.settlement import Settlement

EXPIRE_BATCH = 500

HOLD = "select llm_budget_hold($1, $2, $3, $4, $5, $6, $7)"

RELEASE = """
with closed as (
    delete from llm_budget_holds where id = $1 returning user_id, month, amount_usd
)
update llm_budget_ledger l set held_usd = l.held_usd - c.amount_usd
from closed c where l.user_id = c.user_id and l.month = c.month"""

# Whoever changes several holds, or several months, takes them in one order. The inserts never insert: a hold's month is
# there, since the hold refers to it. They are what Postgres offers to update rows in a given order.
LOCK_HOLDS = """
select id, user_id, month, amount_usd from llm_budget_holds where id = any ($1::uuid[]) order by id for update"""

SHRINK_HOLDS = """
update llm_budget_holds h set amount_usd = kept.amount_usd
from unnest($1::uuid[], $2::numeric[]) as kept (id, amount_usd) where h.id = kept.id"""

CLOSE_HOLDS = "delete from llm_budget_holds where id = any ($1::uuid[])"

EXPIRE = """
with expired as (
    select id from llm_budget_holds where expires_at <= $1 order by expires_at limit $2 for update skip locked
),
closed as (
    delete from llm_budget_holds h using expired e where h.id = e.id returning h.user_id, h.month, h.amount_usd
),
lowered as (
    insert into llm_budget_ledger as l (user_id, month, held_usd)
    select user_id, month, sum(amount_usd) from closed group by user_id, month order by user_id, month
    on conflict (user_id, month) do update set held_usd = l.held_usd - excluded.held_usd
    returning 1
)
select count(*) from closed"""

STATE = "select spent_usd, held_usd from llm_budget_ledger where user_id = $1 and month = $2"


class BudgetStore:
    """Holds money for requests under way, so that spent + held never passes a budget.

    Invariant: a month's held_usd is the sum of its open holds, its spent_usd the sum of its records.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(
        self, user_id: UUID, hold_id: UUID, amount: Decimal, budget: Decimal | None, *, now: datetime, ttl: timedelta
    ) -> bool:
        """Set `amount` US dollars aside in the UTC month of `now`, for `ttl`; False when the budget has no room for it.

        The id is that of the decision; holding it again while it is open changes nothing. Without a budget nothing is
        held: there is nothing to keep within, and all of a user's requests would queue for one row for it. A request
        that costs nothing needs no room, even where a budget is used up.
        """
        if budget is None or amount == 0:
            return True
        asked = hold_id, user_id, month_of(now), rounded_up(amount), budget, now, now + ttl
        async with self._database.connection() as connection:
            with contextlib.suppress(asyncpg.UniqueViolationError):
                return bool(await connection.fetchval(HOLD, *asked))
            return bool(await connection.fetchval(HOLD, *asked))  # somebody else was at the same

    async def release(self, hold_id: UUID) -> None:
        """Give back what is held for a decision that will not be recorded; one that is closed already is left alone."""
        async with self._database.connection() as connection:
            await connection.execute(RELEASE, hold_id)

    async def settle(self, connection: Any, settlements: Sequence[Settlement]) -> Mapping[MonthKey, Decimal]:  # noqa: ANN401 - asyncpg has no types
        """See usage.settlement.Holds. A decision whose hold expired, or that had none, settles nothing."""
        wanted = {(settlement.decision_id, settlement.user_id): settlement for settlement in settlements}
        ids = [decision_id for decision_id, _ in wanted]
        holds = [Hold(**row) for row in await connection.fetch(LOCK_HOLDS, ids)] if ids else []
        released: dict[MonthKey, Decimal] = {}
        closed: list[UUID] = []
        shrunk: list[tuple[UUID, Decimal]] = []
        for hold in holds:
            settlement = wanted.get((hold.id, hold.user_id))
            if settlement is None:
                continue
            left = hold.left_after(settlement)
            key = hold.user_id, hold.month
            released[key] = released.get(key, Decimal(0)) + hold.amount_usd - left
            if settlement.is_final:
                closed.append(hold.id)
            elif left != hold.amount_usd:
                shrunk.append((hold.id, left))
        if closed:
            await connection.execute(CLOSE_HOLDS, closed)
        if shrunk:
            await connection.execute(SHRINK_HOLDS, *columns(shrunk, 2))
        return released

    async def expire(self, now: datetime) -> None:
        """Give back what was held until now or before, a batch at a time; what others are at is left to them."""
        expired = EXPIRE_BATCH
        while expired == EXPIRE_BATCH:
            async with self._database.connection() as connection:
                expired = await connection.fetchval(EXPIRE, now, EXPIRE_BATCH)

    async def state(self, user_id: UUID, month: date) -> BudgetState:
        """Return what a user spent and has on hold in the UTC month that begins on this day."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(STATE, user_id, month)
        return BudgetState(*row) if row else BudgetState()
