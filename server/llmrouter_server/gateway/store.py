"""All SQL of the gateway: the requests that are under way."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.audit.store import reading_row
from llmrouter_server.budget.ledger import rounded_up
from llmrouter_server.gateway.plan import Plan
from llmrouter_server.runtime.group_commit import GroupCommit
from llmrouter_server.usage.period import month_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.audit.key_reads import KeyRead
    from llmrouter_server.budget.ledger import HoldRequest
    from llmrouter_server.runtime.database import Database

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=1)
"""How long whoever records a lost request has for it, before another one may try."""
RETRY_AFTER_S = 1
OPENED, TOO_MANY = "OPENED", "TOO_MANY"
"""What OPEN says of a request; anything else: the budget has no room for it."""

OPEN = "select llm_gateway_open($1, $2, $3, $4)"

# Whoever changes several requests takes them in one order.
CLOSE = """
with chosen as materialized (
    select decision_id from llm_gateway_requests where decision_id = any ($1::uuid[]) order by decision_id for update
)
delete from llm_gateway_requests r using chosen c where r.decision_id = c.decision_id"""

# Hardly ever writes: only what would expire while its report is being recorded is given until then.
FIND = """
with expiring as materialized (
    select decision_id from llm_gateway_requests
    where decision_id = any ($1::uuid[]) and not is_lost and expires_at < $2::timestamptz
    order by decision_id for update
),
kept as (
    update llm_gateway_requests r set expires_at = $2 from expiring e where r.decision_id = e.decision_id
    returning r.decision_id
)
select decision_id from kept
union all
select decision_id from llm_gateway_requests where decision_id = any ($1) and not is_lost and expires_at >= $2"""

EXPIRED = """
with expired as materialized (
    select decision_id from llm_gateway_requests
    where expires_at <= $1::timestamptz order by expires_at limit $2 for update skip locked
)
update llm_gateway_requests r set is_lost = true, expires_at = $3 from expired e where r.decision_id = e.decision_id
returning r.decision_id, r.plan"""


@dataclass(frozen=True, slots=True)
class Opening:
    """A request that is to be noted as under way, with all that must be committed before it is."""

    plan: Plan
    expires_at: datetime
    """Until then its report is waited for."""
    money: HoldRequest | None = None
    """What is to be held for it."""
    reads: tuple[KeyRead, ...] = ()
    """Of the credentials that go along."""

    def row(self) -> tuple[object, ...]:
        """Return it as Postgres' type llm_gateway_opening."""
        plan, money = self.plan, self.money
        noted = plan.decision_id, plan.user_id, json.dumps(plan.to_dict()), self.expires_at
        if money is None:
            return *noted, month_of(plan.decided_at), None, None, None, None
        return *noted, money.month, rounded_up(money.amount_usd), money.budget_usd, money.created_at, money.expires_at


class GatewayRequestStore:
    """Keeps the requests under way, of each user at most `most_at_once`.

    That limit is exact within a replica. Statements of several replicas that run at the same moment do not see each
    other's rows: with N replicas a user can come to at most N times the limit, and only by requests within the few
    milliseconds that a statement takes.
    """

    def __init__(self, database: Database, *, most_at_once: int) -> None:
        self._database, self._most_at_once = database, most_at_once

    async def open(self, batch: Sequence[Opening]) -> list[bool | errors.DomainError]:
        """Keep requests, hold their money and write the readings of their keys: for each request all of it, or nothing.

        Return an outcome for each: True; False when the budget has no room for it; RATE_LIMITED when its user has too
        many under way. One that is open already stays as it is.
        """
        readings = [reading_row(read) for each in batch for read in each.reads]
        now = max(each.plan.decided_at for each in batch)
        async with self._database.connection() as connection:
            outcomes = await connection.fetchval(
                OPEN, [each.row() for each in batch], readings, now, self._most_at_once
            )
        return [self._too_many() if outcome == TOO_MANY else outcome == OPENED for outcome in outcomes]

    async def close(self, ids: Collection[UUID]) -> None:
        """Forget requests: they are recorded, or were never made."""
        async with self._database.connection() as connection:
            await connection.execute(CLOSE, list(ids))

    async def find(self, ids: Collection[UUID], until: datetime) -> set[UUID]:
        """Return which of these a report may be recorded for, and see to it that they do not expire before `until`."""
        async with self._database.connection() as connection:
            return {row["decision_id"] for row in await connection.fetch(FIND, list(ids), until)}

    async def expired(self, now: datetime, limit: int) -> Mapping[UUID, Plan | None]:
        """Return requests that nobody reported in time: no report counts for them any more, the caller records them.

        What the caller does not close within LEASE is returned again, to whoever asks then. None: the plan cannot be
        read.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(EXPIRED, now, limit, now + LEASE)
        return {row["decision_id"]: _plan(row["plan"]) for row in rows}

    def _too_many(self) -> errors.DomainError:
        return errors.rate_limited(f"at most {self._most_at_once} requests at once", RETRY_AFTER_S)


class OpenRequests:
    """Opens requests, in batches; one task of each process writes."""

    def __init__(self, store: GatewayRequestStore, *, lasts: timedelta) -> None:
        """`lasts` is how long a report is waited for: longer than Envoy lets a request take.

        And shorter than money is held: the estimate of what nobody reported is to be recorded before that ends.
        """
        self._store, self._lasts = store, lasts
        self._writer: GroupCommit[Opening, bool] = GroupCommit("gateway_requests", store.open)
        self._opening: dict[UUID, asyncio.Future[bool]] = {}

    async def start(self) -> None:
        """Begin to write."""
        await self._writer.start()

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        await self._writer.stop()

    async def open(self, plan: Plan, money: HoldRequest | None = None, reads: Iterable[KeyRead] = ()) -> bool:
        """Return when the request is committed, with its money held and these readings of keys in the audit.

        False: the budget has no room for it, and nothing was committed. RATE_LIMITED; UNAVAILABLE: it is not committed,
        or nobody knows.
        """
        opening = self._writer.enqueue(Opening(plan, plan.decided_at + self._lasts, money, tuple(reads)))
        self._opening[plan.decision_id] = opening
        opening.add_done_callback(lambda _: self._opening.pop(plan.decision_id, None))
        try:
            return await asyncio.shield(opening)
        except errors.DomainError:
            raise
        except Exception as error:  # whatever it is, it was logged where it happened
            raise errors.unavailable() from error

    async def close(self, ids: Collection[UUID]) -> None:
        """Forget requests that will not be made, also those whose opening nobody waited for."""
        opening = [self._opening[each] for each in ids if each in self._opening]
        if opening:
            await asyncio.wait(opening)  # the writer's waits are bounded
        await self._store.close(ids)


def _plan(stored: object) -> Plan | None:
    try:
        return Plan.from_dict(stored)
    except ValueError:
        log.exception("a stored plan cannot be read")
        return None
