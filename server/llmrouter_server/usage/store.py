"""All SQL of usage."""

from __future__ import annotations

import logging
from dataclasses import astuple
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llmrouter_server import errors
from llmrouter_server.runtime.turns import in_turns
from llmrouter_server.usage.period import month_of
from llmrouter_server.usage.record import Receipt, StoredRecord, UsageRecord
from llmrouter_server.usage.rollup import Sum, UsageSum
from llmrouter_server.usage.rows import report_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.period import Period
    from llmrouter_server.usage.record import Report
    from llmrouter_server.usage.rollup import Only

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 100
"""How many rows are made records before others have their turn."""

RECORD = "select * from llm_usage_record($1, $2)"

ENSURE_PARTITION = "select llm_usage_ensure_partition($1)"

SUMS = """
select p.name as provider_name, d.power_level,
    sum(d.requests)::bigint as requests, sum(d.failed_requests)::bigint as failed_requests,
    sum(d.input_tokens)::bigint as input_tokens, sum(d.output_tokens)::bigint as output_tokens,
    sum(d.cost_usd) as cost_usd,
    sum(d.latency_ms_sum)::bigint as latency_ms_sum, sum(d.latency_count)::bigint as latency_count
from llm_usage_daily d
inner join llm_providers p on p.id = d.provider_id
where d.user_id = $1 and d.day between $2 and $3
group by p.name, d.power_level
order by p.name, d.power_level"""

SPEND = "select spent_usd from llm_budget_ledger where user_id = $1 and month = $2"

DAYS = """
select day as start,
    sum(requests)::bigint as requests, sum(failed_requests)::bigint as failed_requests,
    sum(input_tokens)::bigint as input_tokens, sum(output_tokens)::bigint as output_tokens, sum(cost_usd) as cost_usd,
    sum(latency_ms_sum)::bigint as latency_ms_sum, sum(latency_count)::bigint as latency_count
from llm_usage_daily
where user_id = $1 and day between $2 and $3
    and ($4::uuid is null or provider_id = $4) and ($5::uuid is null or model_id = $5)
    and ($6::text is null or power_level = $6)
group by day"""

HOURS = """
select hour as start,
    sum(requests)::bigint as requests, sum(failed_requests)::bigint as failed_requests,
    sum(input_tokens)::bigint as input_tokens, sum(output_tokens)::bigint as output_tokens, sum(cost_usd) as cost_usd,
    sum(latency_ms_sum)::bigint as latency_ms_sum, sum(latency_count)::bigint as latency_count
from llm_usage_hourly
where user_id = $1 and hour between $2 and $3
    and ($4::uuid is null or provider_id = $4) and ($5::uuid is null or model_id = $5)
    and ($6::text is null or power_level = $6)
group by hour"""

# The page is cut out first, so that whatever is joined to it cannot change how it is found. `between` is there for
# the partitions: a comparison of rows excludes none.
RECORDS = """
with page as (
    select id, user_id, provider_id, model_id, request_id, decision_id, power_level, payer, input_tokens,
        output_tokens, cost_usd, latency_ms, status, failure, error_message, created_at, cached_tokens,
        reasoning_tokens, is_estimated
    from llm_usage_logs
    where user_id = $1 and created_at between $2 and $3 and (created_at, id) < ($3, $4)
        and ($5::uuid is null or provider_id = $5) and ($6::uuid is null or model_id = $6)
        and ($7::text is null or power_level = $7) and ($8::text is null or status = $8)
    order by created_at desc, id desc
    limit $9
)
select l.id as usage_id, l.request_id, l.created_at as occurred_at, l.provider_id, p.name as provider_name, l.model_id,
    m.model_name, l.power_level, l.payer, l.input_tokens, l.output_tokens, l.cost_usd, l.latency_ms, l.status,
    l.failure, l.error_message, l.decision_id, l.cached_tokens, l.reasoning_tokens, l.is_estimated
from page l
inner join llm_providers p on p.id = l.provider_id
inner join llm_models m on m.id = l.model_id
order by l.created_at desc, l.id desc"""

PARTITIONS = """
select c.relname from pg_inherits i
inner join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'llm_usage_logs'::regclass
order by c.relname"""

DROP_PARTITION = "select llm_usage_drop_partition($1)"

PRUNE_HOURLY = """
delete from llm_usage_hourly where ctid = any (
    array(select ctid from llm_usage_hourly where hour < $1 limit $2 for update skip locked)
)"""

PRUNE_REQUESTS = """
delete from llm_usage_requests where ctid = any (
    array(select ctid from llm_usage_requests where recorded_at < $1 limit $2 for update skip locked)
)"""

CLOCK_IS_RIGHT = "select abs(extract(epoch from clock_timestamp() - $1)) < $2"
BRIEF_LOCKS = "set local lock_timeout = '500ms'"

LAST_ID = UUID(int=2**128 - 1)
"""No record's: it sorts after all of them."""


class UsageStore:
    """Records usage, sums it up and lists it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._months: set[date] = set()
        """Those that have a partition. One is dropped long after the last report of its month is taken."""

    async def record(self, reports: Sequence[Report]) -> list[Receipt | errors.DomainError]:
        """Store the reports whose request id is new, all or none; RESOURCE_NOT_FOUND for one without a model."""
        months = {month_of(moment) for moment in {report.occurred_at for report in reports}}
        rows = [report_row(report) for report in reports]
        async with self._database.connection() as connection:
            stored = await connection.fetch(RECORD, rows, sorted(months - self._months))
        by_id = {report.usage_id: report for report in reports}
        receipts: dict[UUID, Receipt] = {}
        for report_id, usage_id, provider_id, payer, cost_usd, _, _ in stored:
            is_new = usage_id == report_id
            record = UsageRecord(by_id[report_id], provider_id, payer, cost_usd) if is_new else None
            receipts[report_id] = Receipt(usage_id, cost_usd, record)
        _log_overdrawn(by_id, stored)
        if any(receipt.record is not None for receipt in receipts.values()):
            self._months |= months
        return [receipts.get(report.usage_id) or errors.not_found("model") for report in reports]

    async def sums(self, user_id: UUID, first: date, last: date) -> list[UsageSum]:
        """Sum a user's usage over these days, by provider and power level."""
        async with self._database.for_reports() as connection:
            return [UsageSum(**row) for row in await connection.fetch(SUMS, user_id, first, last)]

    async def spend(self, user_id: UUID, month: date) -> Decimal:
        """Return what a user spent in the UTC month that begins on this day, in US dollars."""
        async with self._database.connection() as connection:
            spent: Decimal | None = await connection.fetchval(SPEND, user_id, month)
        return spent or Decimal(0)

    async def days(self, user_id: UUID, period: Period, only: Only) -> dict[date, Sum]:
        """Sum a user's usage of each UTC day that has any."""
        return await self._buckets(DAYS, user_id, period.first, period.last, only)

    async def hours(self, user_id: UUID, period: Period, only: Only) -> dict[datetime, Sum]:
        """Sum a user's usage of each UTC hour that has any, by its first moment."""
        return await self._buckets(HOURS, user_id, period.start, period.end, only)

    async def _buckets(self, query: str, user_id: UUID, first: date, last: date, only: Only) -> dict[Any, Sum]:
        async with self._database.for_reports() as connection:
            rows = await connection.fetch(query, user_id, first, last, *astuple(only))
        return {row["start"]: Sum(*tuple(row)[1:]) for row in rows}

    async def records(
        self,
        user_id: UUID,
        period: Period,
        only: Only,
        *,
        status: str | None,
        before: tuple[datetime, UUID] | None,
        limit: int,
    ) -> list[StoredRecord]:
        """List a user's records, newest first, from before the one that happened then and has this id."""
        moment, usage_id = min(before or (period.end, LAST_ID), (period.end, LAST_ID))
        async with self._database.for_reports() as connection:
            rows = await connection.fetch(
                RECORDS, user_id, period.start, moment, usage_id, *astuple(only), status, limit
            )
        return [StoredRecord(**row) async for row in in_turns(rows, ROWS_AT_ONCE)]


def _log_overdrawn(reports: Mapping[UUID, Report], stored: Iterable[Any]) -> None:
    """Tell of requests that cost more than was held for them: the providers charged more than they were bound to."""
    overdrawn = {reports[row["report_id"]].decision_id: row for row in stored if row["overdrawn_usd"] is not None}
    for decision_id, row in overdrawn.items():
        log.warning(
            "a request cost more than was held for it",
            extra={
                "decision_id": str(decision_id),
                "user_id": str(reports[row["report_id"]].user_id),
                "held_usd": f"{row['held_usd']:f}",
                "cost_usd": f"{row['overdrawn_usd']:f}",
            },
        )
