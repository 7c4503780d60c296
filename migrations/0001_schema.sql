-- The tables of the catalogue, of users and of usage.
-- Locks: creates new tables only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table llm_providers (
    id uuid primary key default gen_random_uuid(),
    name text not null unique check (char_length(name) between 1 and 100),
    provider_type text not null check (provider_type ~ '^[a-z][a-z0-9_-]{0,49}$'),
    api_endpoint text not null check (char_length(api_endpoint) between 1 and 2048),
    requires_byok boolean not null default true,
    is_enabled boolean not null default true,
    priority bigint not null default 50 check (priority between 0 and 1000),
    config jsonb not null default '{}' check (jsonb_typeof(config) = 'object'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table llm_providers is 'Upstream APIs that serve models. Disabled, never erased.';

create table llm_models (
    id uuid primary key default gen_random_uuid(),
    provider_id uuid not null references llm_providers (id) on delete restrict,
    model_name text not null check (char_length(model_name) between 1 and 200),
    display_name text not null check (char_length(display_name) between 1 and 200),
    power_level text not null check (power_level in ('ECO', 'BALANCED', 'PRECISION')),
    input_cost_per_1m numeric(10, 4) not null default 0 check (input_cost_per_1m >= 0),
    output_cost_per_1m numeric(10, 4) not null default 0 check (output_cost_per_1m >= 0),
    avg_latency_ms bigint not null default 500 check (avg_latency_ms between 0 and 3600000),
    quality_score numeric(4, 2) not null default 5 check (quality_score between 0 and 10),
    supports_streaming boolean not null default true,
    max_context_tokens bigint not null default 4096 check (max_context_tokens between 1 and 1000000000),
    capabilities text[] not null default '{}',
    is_enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (provider_id, model_name)
);
comment on table llm_models is 'One provider''s offer of one language model. Prices in US dollars per million tokens.';

create table llm_routing_rules (
    id uuid primary key default gen_random_uuid(),
    rule_name text not null unique check (char_length(rule_name) between 1 and 100),
    strategy text not null default 'balanced',
    config jsonb not null check (jsonb_typeof(config) = 'object'),
    priority bigint not null default 50 check (priority between 0 and 1000),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table llm_routing_rules is 'Routing rules of the operator; nothing reads them yet.';

create table llm_catalog_version (
    is_only_row boolean primary key default true check (is_only_row),
    number bigint not null
);
comment on table llm_catalog_version is
    'Number of the catalogue snapshot: one more with every statement that changes providers, models or rules.';
insert into llm_catalog_version (number) values (1);

create function llm_catalog_changed() returns trigger language plpgsql as $$
begin
    update llm_catalog_version set number = number + 1;
    return null;
end $$;
comment on function llm_catalog_changed is
    'Its row lock is held to the end of the transaction: a number and what it numbers become visible together.';
create trigger catalog_changed after insert or update or delete or truncate on llm_providers
for each statement execute function llm_catalog_changed();
create trigger catalog_changed after insert or update or delete or truncate on llm_models
for each statement execute function llm_catalog_changed();
create trigger catalog_changed after insert or update or delete or truncate on llm_routing_rules
for each statement execute function llm_catalog_changed();

create table user_provider_keys (
    id uuid primary key,
    user_id uuid not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    encrypted_api_key text not null,
    key_prefix text not null check (char_length(key_prefix) <= 6),
    is_active boolean not null default true,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (user_id, provider_id)
);
comment on table user_provider_keys is
    'Users'' own provider keys. encrypted_api_key is a Fernet token that also binds user and provider.';

create table user_key_writes (
    user_id uuid primary key,
    written_at timestamptz[] not null
);
comment on table user_key_writes is
    'When each user last changed keys, within the last minute: the exact write limit, across replicas.';

create table user_llm_settings (
    user_id uuid primary key,
    preferred_power_level text not null default 'BALANCED'
    check (preferred_power_level in ('ECO', 'BALANCED', 'PRECISION')),
    routing_config jsonb not null
    default '{"strategy": "balanced", "cost_weight": 0.4, "latency_weight": 0.4, "quality_weight": 0.2}'
    check (jsonb_typeof(routing_config) = 'object'),
    monthly_budget_usd numeric(10, 2) check (monthly_budget_usd >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table user_llm_settings is 'Preferences of users who changed any; everyone else has the defaults.';

create table llm_usage_logs (
    id uuid not null,
    user_id uuid not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    model_id uuid not null references llm_models (id) on delete restrict,
    request_id text not null check (char_length(request_id) between 1 and 128),
    decision_id uuid,
    power_level text not null check (power_level in ('ECO', 'BALANCED', 'PRECISION')),
    payer text not null check (payer in ('USER_KEY', 'PLATFORM')),
    input_tokens bigint not null check (input_tokens >= 0),
    output_tokens bigint not null check (output_tokens >= 0),
    cost_usd numeric(20, 10) not null check (cost_usd >= 0),
    latency_ms bigint check (latency_ms >= 0),
    status text not null check (status in ('success', 'error')),
    error_message text check (char_length(error_message) <= 1000),
    created_at timestamptz not null,
    primary key (id, created_at)
) partition by range (created_at);
comment on table llm_usage_logs is
    'One row an attempt, partitioned by UTC month of created_at (when it happened). Cost is as priced when recorded.';
create index llm_usage_logs_user on llm_usage_logs (user_id, created_at desc, id desc);

create function llm_usage_ensure_partition(month date) returns void language plpgsql as $$
declare
    partition text := 'llm_usage_logs_' || to_char(month, 'YYYY_MM');
begin
    if to_regclass(partition) is null then
        perform pg_advisory_xact_lock(hashtext(partition));
        execute format(
            'create table if not exists %I partition of llm_usage_logs for values from (%L) to (%L)',
            partition,
            month::text || ' 00:00:00+00',
            (month + interval '1 month')::date::text || ' 00:00:00+00'
        );
    end if;
end $$;
comment on function llm_usage_ensure_partition is
    'Creates the partition of the month that begins on this day, unless it is there. Safe when two call at once.';

create table llm_usage_requests (
    user_id uuid not null,
    request_id text not null,
    usage_id uuid not null,
    cost_usd numeric(20, 10) not null,
    recorded_at timestamptz not null default now(),
    primary key (user_id, request_id)
);
comment on table llm_usage_requests is
    'Makes recording idempotent: a partitioned table cannot hold this unique key without its partition key.';

create index llm_usage_requests_recorded_at on llm_usage_requests (recorded_at);

create table llm_usage_daily (
    user_id uuid not null,
    day date not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    model_id uuid not null references llm_models (id) on delete restrict,
    power_level text not null check (power_level in ('ECO', 'BALANCED', 'PRECISION')),
    payer text not null check (payer in ('USER_KEY', 'PLATFORM')),
    requests bigint not null,
    failed_requests bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cost_usd numeric(24, 10) not null,
    latency_ms_sum bigint not null,
    latency_count bigint not null,
    primary key (user_id, day, model_id, power_level, payer)
);
comment on table llm_usage_daily is
    'Sums of llm_usage_logs for each user and UTC day, kept in the same transaction; analytics read only these.';
