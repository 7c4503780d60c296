"""What the databases of the scale benchmark hold, made in SQL: a catalogue, and a year of usage with all of its sums.

Triggers and foreign keys are off while it is loaded; that all sums agree with the records is checked after each month.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import md5
from typing import TYPE_CHECKING, Any

from llmrouter_server.usage.period import months_later
from llmrouter_server.usage.rollup import HOURLY_DAYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.scale_world import World

DAYS = 364
USERS_OF_USAGE = 5_000
HEAVY, NORMAL = 0, USERS_OF_USAGE // 2
"""Numbers of the user with the most usage, and of the median one."""

PREPARE = """
create table if not exists bench_loaded (part text primary key, loaded_at timestamptz not null default now())"""
IS_LOADED = "select exists (select from bench_loaded where part = $1)"
MARK_LOADED = "insert into bench_loaded (part) values ($1)"
FAST = """
set session_replication_role = replica;
set synchronous_commit = off;
set work_mem = '512MB';
set max_parallel_workers_per_gather = 0;"""

# Few users have most of it: the share of the first u of them all is the cube root of u. Each uses three models.
ADD_RECORDS = """
insert into llm_usage_logs (
    id, user_id, provider_id, model_id, request_id, power_level, payer, input_tokens, output_tokens, cost_usd,
    latency_ms, status, failure, created_at
)
select
    uuidv7(r.at - clock_timestamp()), md5('user ' || r.u)::uuid, m.provider_id, m.id,
    to_char($1::timestamptz, 'YYYY-MM') || '-' || r.n, m.power_level,
    case when m.requires_byok then 'USER_KEY' else 'PLATFORM' end, r.input, r.output,
    (r.input * m.input_cost_per_1m + r.output * m.output_cost_per_1m) / 1000000,
    200 + r.pick % 1000,
    case when r.pick % 50 = 0 then 'error' else 'success' end,
    case when r.pick % 50 = 0 then 'SERVER_ERROR' end, r.at
from (
    select
        n, $1::timestamptz + (n + random()) / $3 * ($2::timestamptz - $1::timestamptz) as at,
        floor($4 * power(random(), 3))::int as u, (100 + random() * 2000)::bigint as input,
        (10 + random() * 500)::bigint as output, (random() * 1000000)::int as pick
    from generate_series(0, $3::bigint - 1) as n
) as r
inner join (
    select m.*, p.requires_byok, row_number() over (order by m.id) - 1 as number
    from llm_models m inner join llm_providers p on p.id = m.provider_id
) as m on m.number = (r.u + r.pick % 3) % (select count(*) from llm_models)"""

SUMMED = """
    count(*) filter (where status = 'success'), count(*) filter (where status = 'error'),
    sum(input_tokens), sum(output_tokens), sum(cost_usd),
    coalesce(sum(latency_ms) filter (where status = 'success'), 0),
    count(latency_ms) filter (where status = 'success')
from llm_usage_logs where created_at >= $1 and created_at < $2"""
ADD_DAILY = f"""
insert into llm_usage_daily
select user_id, (created_at at time zone 'UTC')::date, provider_id, model_id, power_level, payer, {SUMMED}
group by 1, 2, 3, 4, 5, 6"""
ADD_HOURLY = f"""
insert into llm_usage_hourly
select user_id, date_trunc('hour', created_at, 'UTC'), provider_id, model_id, power_level, {SUMMED}
group by 1, 2, 3, 4, 5"""
ADD_REQUESTS = """
insert into llm_usage_requests (user_id, request_id, usage_id, cost_usd, recorded_at)
select user_id, request_id, id, cost_usd, created_at from llm_usage_logs where created_at >= $1 and created_at < $2"""
ADD_LEDGER = """
insert into llm_budget_ledger (user_id, month, spent_usd)
select user_id, date_trunc('month', day)::date, sum(cost_usd) from llm_usage_daily where day >= $1 and day < $2
group by 1, 2"""
AGREE = """
select r.number = $3 and r.number = d.number and r.cost = d.cost and r.cost = l.cost from
(select count(*) as number, sum(cost_usd) as cost from llm_usage_logs where created_at >= $1 and created_at < $2) as r,
(
    select sum(requests + failed_requests) as number, sum(cost_usd) as cost from llm_usage_daily
    where day >= $4 and day < $5
) as d,
(select sum(spent_usd) as cost from llm_budget_ledger where month = $4) as l"""

ADD_PROVIDERS = """
insert into llm_providers (name, provider_type, api_endpoint, requires_byok, priority)
select 'Provider ' || n, 'openai', 'https://provider-' || n || '.example/v1', false, n % 100
from generate_series(1, $1::int) as n"""
ADD_MODELS = """
insert into llm_models (
    provider_id, model_name, display_name, power_level, input_cost_per_1m, output_cost_per_1m, avg_latency_ms,
    quality_score, max_context_tokens, capabilities
)
select
    p.id, 'model-' || n, 'Model ' || n, (array['ECO', 'BALANCED', 'PRECISION'])[1 + n % 3],
    (n * 37 + p.priority * 11) % 900 / 100.0, (n * 53 + p.priority * 7) % 3000 / 100.0,
    100 + (n * 61 + p.priority * 13) % 2000, (n * 29 + p.priority * 17) % 1000 / 100.0, 128000,
    '{chat,code,tools,json,streaming}'
from llm_providers p, generate_series(1, $1::int) as n
where p.name like 'Provider %'"""


@dataclass(frozen=True, slots=True)
class Month:
    """A part of a calendar month, all of it in the year that is loaded."""

    first: date
    begins: datetime
    ends: datetime
    rows: int

    @property
    def part(self) -> str:
        """Its name among what is loaded."""
        return f"usage {self.first:%Y-%m}"


def user_id(number: int) -> uuid.UUID:
    """Return the id of a user, as md5() makes it in the SQL above."""
    return uuid.UUID(md5(f"user {number}".encode(), usedforsecurity=False).hexdigest())


def months_of_a_year(rows: int, until: datetime) -> list[Month]:
    """Spread so many rows evenly over the year before `until`, by month."""
    start = datetime.combine((until - timedelta(days=DAYS)).date(), time(), UTC)
    months, done = [], 0
    first = start.date().replace(day=1)
    while first <= until.date():
        begins = max(start, datetime.combine(first, time(), UTC))
        ends = min(until, datetime.combine(months_later(first, 1), time(), UTC))
        last = round(rows * ((ends - start) / (until - start)))
        months.append(Month(first, begins, ends, last - done))
        done, first = last, months_later(first, 1)
    return months


async def load_usage(
    world: World, database: str, rows: int, say: Callable[[str], object], *, most_months: int | None = None
) -> bool:
    """Load usage, at most so many months of it at this time; return whether all is there."""
    await world.make_database(database)
    async with loading(world, database) as connection:
        if not await connection.fetchval(IS_LOADED, "usage"):
            await connection.execute(MARK_LOADED, "usage")
        until = await connection.fetchval("select loaded_at from bench_loaded where part = 'usage'")
        missing = [
            month for month in months_of_a_year(rows, until) if not await connection.fetchval(IS_LOADED, month.part)
        ]
        for month in missing[:most_months]:
            async with connection.transaction():
                await _load_month(connection, month, until)
                await connection.execute(MARK_LOADED, month.part)
            await connection.execute(f"vacuum analyze llm_usage_logs_{month.first:%Y_%m}")
            say(f"{database}: {month.part}, {month.rows:,} rows")
        is_whole = most_months is None or len(missing) <= most_months
        if missing and is_whole:
            for table in ("daily", "hourly", "requests"):
                await connection.execute(f"vacuum analyze llm_usage_{table}")
            await connection.execute("vacuum analyze llm_budget_ledger")
            await connection.execute("analyze llm_usage_logs")
            await connection.execute("checkpoint")
    return is_whole


async def _load_month(connection: Any, month: Month, until: datetime) -> None:
    await connection.execute("select llm_usage_ensure_partition($1)", month.first)
    await connection.execute(ADD_RECORDS, month.begins, month.ends, month.rows, USERS_OF_USAGE)
    await connection.execute(ADD_DAILY, month.begins, month.ends)
    recent = max(month.begins, datetime.combine(until.date() - timedelta(days=HOURLY_DAYS), time(), UTC))
    if recent < month.ends:
        await connection.execute(ADD_HOURLY, recent, month.ends)
        await connection.execute(ADD_REQUESTS, recent, month.ends)
    last = months_later(month.first, 1)
    await connection.execute(ADD_LEDGER, month.first, last)
    if not await connection.fetchval(AGREE, month.begins, month.ends, month.rows, month.first, last):
        raise RuntimeError(f"the sums of {month.part} do not agree with its records")


async def load_catalogue(world: World, database: str, providers: int, models: int) -> None:
    """Add so many providers with so many models each to the seed's, in one transaction, as an admin's script would."""
    await world.make_database(database)
    async with world.connection(database) as connection, connection.transaction():
        await connection.execute(ADD_PROVIDERS, providers)
        await connection.execute(ADD_MODELS, models)


@asynccontextmanager
async def loading(world: World, database: str) -> AsyncIterator[Any]:
    """Lend a connection that loads fast, with a table of what is loaded."""
    async with world.connection(database) as connection:
        await connection.execute(PREPARE)
        await connection.execute(FAST)
        yield connection
