-- What each replica saw of the providers, for the others.
-- Locks: creates a new table only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table llm_provider_minutes (
    minute timestamptz not null,
    replica_id uuid not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    successes bigint not null check (successes >= 0),
    failures bigint not null check (failures >= 0),
    consecutive_failures bigint not null check (consecutive_failures >= 0),
    last_success_at timestamptz,
    last_failure_at timestamptz,
    latencies_ms jsonb not null check (jsonb_typeof(latencies_ms) = 'object'),
    primary key (minute, replica_id, provider_id)
);
comment on table llm_provider_minutes is
    'Attempts at a provider that one replica saw within one minute. latencies_ms: model id -> latencies of successes. '
    'Only the last 15 minutes count; older rows are deleted.';
