-- What the gateway learns of tokens: those that were cached, those of reasoning, and whether all are an estimate.
-- Locks: adds columns with constant defaults (no rewrite) and checks that no row is read for, under a brief access
-- exclusive lock on llm_usage_logs and its partitions.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table llm_usage_logs
add column cached_tokens bigint not null default 0,
add column reasoning_tokens bigint not null default 0,
add column is_estimated boolean not null default false,
add constraint llm_usage_logs_cached_tokens check (cached_tokens >= 0) not valid,
add constraint llm_usage_logs_reasoning_tokens check (reasoning_tokens >= 0) not valid;
