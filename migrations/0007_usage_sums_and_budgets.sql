-- Hourly sums, why attempts failed, and the ledger of each user's month.
-- Locks: adds a column without a default (no rewrite) under a brief access exclusive lock on llm_usage_logs; fills the
-- new tables from what is there.
set local lock_timeout = '5s';
set local statement_timeout = '600s';

alter table llm_usage_logs add column failure text;

create function llm_usage_drop_partition(month date) returns void language plpgsql as $$
declare
    partition text := 'llm_usage_logs_' || to_char(month, 'YYYY_MM');
begin
    if to_regclass(partition) is not null then
        -- Dropping its foreign keys locks this table too. Writers read it first and write records then, so in this order
        -- nobody waits for each other.
        lock table llm_models in access exclusive mode;
        execute format('alter table llm_usage_logs detach partition %I', partition);
        execute format('drop table %I', partition);
    end if;
end $$;
comment on function llm_usage_drop_partition is
    'Drops the partition of the month that begins on this day, if it is there. Locks llm_usage_logs exclusively.';

create table llm_usage_hourly (
    user_id uuid not null,
    hour timestamptz not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    model_id uuid not null references llm_models (id) on delete restrict,
    power_level text not null check (power_level in ('ECO', 'BALANCED', 'PRECISION')),
    requests bigint not null,
    failed_requests bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cost_usd numeric(24, 10) not null,
    latency_ms_sum bigint not null,
    latency_count bigint not null,
    primary key (user_id, hour, model_id, power_level)
);
comment on table llm_usage_hourly is
    'Sums of llm_usage_logs for each user and UTC hour, kept in the same transaction; dropped after a while.';
create index llm_usage_hourly_hour on llm_usage_hourly (hour);

insert into llm_usage_hourly (
    user_id, hour, provider_id, model_id, power_level, requests, failed_requests, input_tokens, output_tokens,
    cost_usd, latency_ms_sum, latency_count
)
select
    user_id, date_trunc('hour', created_at, 'UTC'), provider_id, model_id, power_level,
    count(*) filter (where status = 'success'), count(*) filter (where status = 'error'),
    sum(input_tokens), sum(output_tokens), sum(cost_usd),
    coalesce(sum(latency_ms) filter (where status = 'success'), 0),
    count(latency_ms) filter (where status = 'success')
from llm_usage_logs
group by 1, 2, 3, 4, 5;

create table llm_budget_ledger (
    user_id uuid not null,
    month date not null check (extract(day from month) = 1),
    spent_usd numeric(24, 10) not null default 0 check (spent_usd >= 0),
    held_usd numeric(24, 10) not null default 0 check (held_usd >= 0),
    primary key (user_id, month)
);
comment on table llm_budget_ledger is
    'What each user spent and has on hold in each UTC month. spent_usd is the sum of the month''s records, kept in their '
    'transaction; held_usd the sum of the open holds.';

insert into llm_budget_ledger (user_id, month, spent_usd)
select user_id, date_trunc('month', day)::date, sum(cost_usd) from llm_usage_daily group by 1, 2;

create table llm_budget_holds (
    id uuid primary key,
    user_id uuid not null,
    month date not null,
    amount_usd numeric(24, 10) not null check (amount_usd >= 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    foreign key (user_id, month) references llm_budget_ledger (user_id, month) on delete restrict
);
comment on table llm_budget_holds is
    'Money set aside for a request under way, by the id of its decision. Settled by its record, else released.';
create index llm_budget_holds_expires_at on llm_budget_holds (expires_at);
