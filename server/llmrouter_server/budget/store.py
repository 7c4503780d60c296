"""All SQL of budgets: holds, and what the ledger holds. Recording (usage) writes what it has spent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from llmrouter_server.budget.ledger import BudgetState, rounded_up
from llmrouter_server.usage.period import month_of

if TYPE_CHECKING:
    from datetime import date, datetime, timedelta
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

EXPIRE_BATCH = 500

HOLD = "select llm_budget_hold($1, $2, $3, $4, $5, $6, $7)"

RELEASE = """
with closed as (
    delete from llm_budget_holds where id = $1 returning user_id, month, amount_usd
)
update llm_budget_ledger l set held_usd = l.held_usd - c.amount_usd
from closed c where l.user_id = c.user_id and l.month = c.month"""

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
