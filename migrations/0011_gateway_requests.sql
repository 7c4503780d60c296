-- The chat requests under way on the data plane.
-- Locks: creates a new table only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- Rows come and go within seconds: cleaned up early, the table stays small and its indexes short.
create table llm_gateway_requests (
    decision_id uuid primary key,
    user_id uuid not null,
    plan jsonb not null check (jsonb_typeof(plan) = 'object'),
    opened_at timestamptz not null default now(),
    expires_at timestamptz not null,
    is_lost boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table llm_gateway_requests is
    'Each request with the plan that Envoy was given, from before the plan is answered until its usage is recorded. '
    'What nobody has reported by expires_at is_lost from then on: it is recorded by estimate, and no report counts.';
create index llm_gateway_requests_user_id on llm_gateway_requests (user_id);
create index llm_gateway_requests_expires_at on llm_gateway_requests (expires_at);
