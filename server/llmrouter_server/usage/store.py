"""All SQL of usage."""

from __future__ import annotations

from dataclasses import astuple
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llmrouter_server import errors
from llmrouter_server.usage.period import month_of
from llmrouter_server.usage.record import PLATFORM, USER_KEY, PricedModel, Receipt, StoredRecord, priced
from llmrouter_server.usage.rollup import Sum, UsageSum, monthly_costs
from llmrouter_server.usage.rows import columns, record_row
from llmrouter_server.usage.settlement import settlements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.period import Period
    from llmrouter_server.usage.record import Report, UsageRecord
    from llmrouter_server.usage.rollup import Only
    from llmrouter_server.usage.settlement import Holds

PRICED_MODELS = """
select id, provider_id, power_level, input_cost_per_1m, output_cost_per_1m
from llm_models where id = any ($1::uuid[])"""

ACTIVE_KEYS = """
select k.user_id, k.provider_id from user_provider_keys k
inner join unnest($1::uuid[], $2::uuid[]) as asked (user_id, provider_id) using (user_id, provider_id)
where k.is_active"""

CLAIM_REQUESTS = """
insert into llm_usage_requests (user_id, request_id, usage_id, cost_usd)
select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::numeric[])
order by 1, 2, 3 -- one order for all who lock; of the same id twice in a batch, the first
on conflict (user_id, request_id) do nothing
returning usage_id"""

CLAIMED_REQUESTS = """
select r.user_id, r.request_id, r.usage_id, r.cost_usd from llm_usage_requests r
inner join unnest($1::uuid[], $2::text[]) as asked (user_id, request_id) using (user_id, request_id)"""

ENSURE_PARTITION = "select llm_usage_ensure_partition($1)"

# A batch with its sums, which are taken of what is stored. Every writer runs this one plan and so locks in one order:
# hours by key, and then, since nothing reads what `days` returns and Postgres leaves it for last, days by key.
INSERT_RECORDS = """
with recorded as (
    insert into llm_usage_logs (
        id, user_id, provider_id, model_id, request_id, decision_id, power_level, payer, input_tokens, output_tokens,
        cost_usd, latency_ms, status, failure, error_message, created_at, cached_tokens, reasoning_tokens, is_estimated
    )
    select * from unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::bigint[],
        $10::bigint[], $11::numeric[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::timestamptz[],
        $17::bigint[], $18::bigint[], $19::boolean[]
    )
    returning user_id, created_at, provider_id, model_id, power_level, payer, status = 'success' as succeeded,
        input_tokens, output_tokens, cost_usd, latency_ms
),
days as (
    insert into llm_usage_daily as d (
        user_id, day, provider_id, model_id, power_level, payer, requests, failed_requests, input_tokens,
        output_tokens, cost_usd, latency_ms_sum, latency_count
    )
    select user_id, (created_at at time zone 'UTC')::date as day, provider_id, model_id, power_level, payer,
        count(*) filter (where succeeded), count(*) filter (where not succeeded),
        sum(input_tokens), sum(output_tokens), sum(cost_usd),
        coalesce(sum(latency_ms) filter (where succeeded), 0), count(latency_ms) filter (where succeeded)
    from recorded
    group by user_id, day, provider_id, model_id, power_level, payer
    order by user_id, day, provider_id, model_id, power_level, payer
    on conflict (user_id, day, model_id, power_level, payer) do update set
        requests = d.requests + excluded.requests,
        failed_requests = d.failed_requests + excluded.failed_requests,
        input_tokens = d.input_tokens + excluded.input_tokens,
        output_tokens = d.output_tokens + excluded.output_tokens,
        cost_usd = d.cost_usd + excluded.cost_usd,
        latency_ms_sum = d.latency_ms_sum + excluded.latency_ms_sum,
        latency_count = d.latency_count + excluded.latency_count
)
insert into llm_usage_hourly as h (
    user_id, hour, provider_id, model_id, power_level, requests, failed_requests, input_tokens, output_tokens,
    cost_usd, latency_ms_sum, latency_count
)
select user_id, date_trunc('hour', created_at, 'UTC') as hour, provider_id, model_id, power_level,
    count(*) filter (where succeeded), count(*) filter (where not succeeded),
    sum(input_tokens), sum(output_tokens), sum(cost_usd),
    coalesce(sum(latency_ms) filter (where succeeded), 0), count(latency_ms) filter (where succeeded)
from recorded
group by user_id, hour, provider_id, model_id, power_level
order by user_id, hour, provider_id, model_id, power_level
on conflict (user_id, hour, model_id, power_level) do update set
    requests = h.requests + excluded.requests,
    failed_requests = h.failed_requests + excluded.failed_requests,
    input_tokens = h.input_tokens + excluded.input_tokens,
    output_tokens = h.output_tokens + excluded.output_tokens,
    cost_usd = h.cost_usd + excluded.cost_usd,
    latency_ms_sum = h.latency_ms_sum + excluded.latency_ms_sum,
    latency_count = h.latency_count + excluded.latency_count"""

# The fourth column is what is no longer held; where anything was, the row exists, since the hold refers to it. The
# replicas are told of the users whose budget they watch, when this transaction commits.
COUNT_SPEND = """
with counted as (
    insert into llm_budget_ledger as l (user_id, month, spent_usd, held_usd)
    select * from unnest($1::uuid[], $2::date[], $3::numeric[], $4::numeric[])
    on conflict (user_id, month) do update set
        spent_usd = l.spent_usd + excluded.spent_usd, held_usd = l.held_usd - excluded.held_usd
    returning user_id, month, spent_usd, held_usd
)
select pg_notify(
    'llmrouter_spend', concat_ws(' ', c.user_id, to_char(c.month, 'YYYY-MM-DD'), c.spent_usd, c.held_usd)
)
from counted c
inner join user_llm_settings s on s.user_id = c.user_id
where s.monthly_budget_usd is not null"""

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

    def __init__(self, database: Database, holds: Holds) -> None:
        self._database, self._holds = database, holds
        self._months: set[date] = set()
        """Those that have a partition. One is dropped long after the last report of its month is taken."""

    async def record(self, reports: Sequence[Report]) -> list[Receipt | errors.DomainError]:
        """Store the reports whose request id is new, all or none; RESOURCE_NOT_FOUND for one without a model.

        Every writer locks in the same order: request ids, the partition it creates, hours, days, holds, months; and
        within each by key. So two writers never wait for each other.
        """
        months = {month_of(report.occurred_at) for report in reports}
        async with self._database.transaction() as connection:
            models = {
                row["id"]: PricedModel(*tuple(row)[1:])
                for row in await connection.fetch(PRICED_MODELS, list({report.model_id for report in reports}))
            }
            known = [report for report in reports if report.model_id in models]
            payers = await _payers(connection, known, models)
            records = [priced(report, models[report.model_id], payers[report.usage_id]) for report in known]
            receipts = await _claim(connection, records)
            new = [receipt.record for receipt in receipts.values() if receipt.record is not None]
            if new:
                for month in sorted(months - self._months):
                    await connection.execute(ENSURE_PARTITION, month)
                await connection.execute(INSERT_RECORDS, *columns([record_row(record) for record in new], 19))
                await self._count_spend(connection, new)
        if new:
            self._months |= months
        return [receipts.get(report.usage_id) or errors.not_found("model") for report in reports]

    async def _count_spend(self, connection: Any, records: Sequence[UsageRecord]) -> None:  # noqa: ANN401
        released = await self._holds.settle(connection, settlements(records))
        spent = monthly_costs(records)
        rows = [(*key, spent.get(key, 0), released.get(key, 0)) for key in sorted(spent.keys() | released.keys())]
        await connection.execute(COUNT_SPEND, *columns(rows, 4))

    async def sums(self, user_id: UUID, first: date, last: date) -> list[UsageSum]:
        """Sum a user's usage over these days, by provider and power level."""
        async with self._database.connection() as connection:
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
        async with self._database.connection() as connection:
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
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                RECORDS, user_id, period.start, moment, usage_id, *astuple(only), status, limit
            )
        return [StoredRecord(**row) for row in rows]


async def _payers(
    connection: Any,  # noqa: ANN401 - asyncpg has no types
    reports: Iterable[Report],
    models: Mapping[UUID, PricedModel],
) -> dict[UUID, str]:
    """Find out who paid, where the report does not say: the user's active key goes before the platform's."""
    asked = {(report.user_id, models[report.model_id].provider_id) for report in reports if report.payer is None}
    rows = await connection.fetch(ACTIVE_KEYS, *columns(sorted(asked), 2)) if asked else []
    keyed = {tuple(row) for row in rows}
    return {
        report.usage_id: report.payer
        or (USER_KEY if (report.user_id, models[report.model_id].provider_id) in keyed else PLATFORM)
        for report in reports
    }


async def _claim(connection: Any, records: Sequence[UsageRecord]) -> dict[UUID, Receipt]:  # noqa: ANN401
    """Claim the request ids; those that were claimed before get what was stored then."""
    rows = [(*record.report.key, record.report.usage_id, record.cost_usd) for record in records]
    claimed = {row["usage_id"] for row in await connection.fetch(CLAIM_REQUESTS, *columns(rows, 4))}
    receipts = {
        record.report.usage_id: Receipt(record.report.usage_id, record.cost_usd, record)
        for record in records
        if record.report.usage_id in claimed
    }
    repeated = [record.report for record in records if record.report.usage_id not in claimed]
    if repeated:
        keys = [report.key for report in repeated]
        found = {
            (row["user_id"], row["request_id"]): Receipt(row["usage_id"], row["cost_usd"], record=None)
            for row in await connection.fetch(CLAIMED_REQUESTS, *columns(keys, 2))
        }
        receipts |= {report.usage_id: found[report.key] for report in repeated}
    return receipts
