"""All SQL of usage."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from llmrouter_server.usage.record import PLATFORM, USER_KEY, PricedModel, Receipt, Report, UsageRecord
from llmrouter_server.usage.rollup import daily_sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

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
on conflict (user_id, request_id) do nothing"""

CLAIMED_REQUESTS = """
select r.user_id, r.request_id, r.usage_id, r.cost_usd from llm_usage_requests r
inner join unnest($1::uuid[], $2::text[]) as asked (user_id, request_id) using (user_id, request_id)"""

ENSURE_PARTITION = "select llm_usage_ensure_partition($1)"

INSERT_RECORDS = """
insert into llm_usage_logs (
    id, user_id, provider_id, model_id, request_id, decision_id, power_level, payer, input_tokens, output_tokens,
    cost_usd, latency_ms, status, error_message, created_at
)
select * from unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::bigint[],
    $10::bigint[], $11::numeric[], $12::bigint[], $13::text[], $14::text[], $15::timestamptz[]
)"""

UPSERT_SUMS = """
insert into llm_usage_daily as d (
    user_id, day, provider_id, model_id, power_level, payer, requests, failed_requests, input_tokens, output_tokens,
    cost_usd, latency_ms_sum, latency_count
)
select * from unnest(
    $1::uuid[], $2::date[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
    $10::bigint[], $11::numeric[], $12::bigint[], $13::bigint[]
)
on conflict (user_id, day, model_id, power_level, payer) do update set
    requests = d.requests + excluded.requests,
    failed_requests = d.failed_requests + excluded.failed_requests,
    input_tokens = d.input_tokens + excluded.input_tokens,
    output_tokens = d.output_tokens + excluded.output_tokens,
    cost_usd = d.cost_usd + excluded.cost_usd,
    latency_ms_sum = d.latency_ms_sum + excluded.latency_ms_sum,
    latency_count = d.latency_count + excluded.latency_count"""

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

SPEND = "select coalesce(sum(cost_usd), 0) from llm_usage_daily where user_id = $1 and day >= $2"


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What was used of one provider at one power level."""

    provider_name: str
    power_level: str
    requests: int
    failed_requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    latency_ms_sum: int
    latency_count: int


class UsageStore:
    """Records usage and sums it up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, reports: Sequence[Report]) -> list[Receipt | None]:
        """Store the reports whose request id is new, all or none; None for one whose model does not exist."""
        async with self._database.transaction() as connection:
            models = {
                row["id"]: PricedModel(*tuple(row)[1:])
                for row in await connection.fetch(PRICED_MODELS, list({report.model_id for report in reports}))
            }
            known = [report for report in reports if report.model_id in models]
            payers = await _payers(connection, known, models)
            records = [UsageRecord(report, models[report.model_id], payers[report.usage_id]) for report in known]
            receipts = await _claim(connection, records)
            await _insert(connection, [r for r in records if not receipts[r.report.usage_id].is_duplicate])
        return [receipts.get(report.usage_id) for report in reports]

    async def sums(self, user_id: UUID, first: date, last: date) -> list[UsageSum]:
        """Sum a user's usage over these days, by provider and power level."""
        async with self._database.connection() as connection:
            return [UsageSum(**row) for row in await connection.fetch(SUMS, user_id, first, last)]

    async def spend_since(self, user_id: UUID, first: date) -> Decimal:
        """Sum what a user spent since this day, in US dollars."""
        async with self._database.connection() as connection:
            spent: Decimal = await connection.fetchval(SPEND, user_id, first)
        return spent


async def _payers(
    connection: Any,  # noqa: ANN401 - asyncpg has no types
    reports: Iterable[Report],
    models: Mapping[UUID, PricedModel],
) -> dict[UUID, str]:
    """Find out who paid, where the report does not say: the user's active key goes before the platform's."""
    asked = {(report.user_id, models[report.model_id].provider_id) for report in reports if report.payer is None}
    rows = await connection.fetch(ACTIVE_KEYS, *_columns(sorted(asked), 2)) if asked else []
    keyed = {tuple(row) for row in rows}
    return {
        report.usage_id: report.payer
        or (USER_KEY if (report.user_id, models[report.model_id].provider_id) in keyed else PLATFORM)
        for report in reports
    }


async def _claim(connection: Any, records: Iterable[UsageRecord]) -> dict[UUID, Receipt]:  # noqa: ANN401
    """Claim the request ids, in their order, so that two writers never wait for each other."""
    rows = [(*record.report.key, record.report.usage_id, record.cost_usd) for record in records]
    rows.sort(key=lambda row: row[:2])
    await connection.execute(CLAIM_REQUESTS, *_columns(rows, 4))
    claimed = {
        (row["user_id"], row["request_id"]): (row["usage_id"], row["cost_usd"])
        for row in await connection.fetch(CLAIMED_REQUESTS, *_columns([row[:2] for row in rows], 2))
    }
    receipts = {}
    for user_id, request_id, usage_id, _ in rows:
        stored_id, cost = claimed[user_id, request_id]
        receipts[usage_id] = Receipt(stored_id, cost, is_duplicate=stored_id != usage_id)
    return receipts


async def _insert(connection: Any, records: Sequence[UsageRecord]) -> None:  # noqa: ANN401
    if not records:
        return
    for month in sorted({r.report.occurred_at.astimezone(UTC).date().replace(day=1) for r in records}):
        await connection.execute(ENSURE_PARTITION, month)
    rows = [
        (
            record.report.usage_id,
            record.report.user_id,
            record.model.provider_id,
            record.report.model_id,
            record.report.request_id,
            record.report.decision_id,
            record.model.power_level,
            record.payer,
            record.report.input_tokens,
            record.report.output_tokens,
            record.cost_usd,
            record.report.latency_ms,
            "success" if record.report.succeeded else "error",
            record.report.error_message,
            record.report.occurred_at,
        )
        for record in records
    ]
    await connection.execute(INSERT_RECORDS, *_columns(rows, 15))
    sums = [(*key, *astuple(value)) for key, value in daily_sums(records).items()]
    await connection.execute(UPSERT_SUMS, *_columns(sums, 13))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into the columns that unnest() takes."""
    return [[row[position] for row in rows] for position in range(width)]
