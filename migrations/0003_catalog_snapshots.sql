-- Every state of the catalogue is kept under its number, so that a past decision can be made again; admin changes are
-- audited and guarded by a revision.
-- Locks: adds columns with constant defaults (no rewrite) under a brief access exclusive lock on the two catalogue
-- tables; the rest are new tables.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table llm_providers add column revision bigint not null default 1;
alter table llm_models add column revision bigint not null default 1;

create table llm_catalog_snapshots (
    number bigint primary key,
    models jsonb not null check (jsonb_typeof(models) = 'array'),
    created_at timestamptz not null default now(),
    superseded_at timestamptz
);
comment on table llm_catalog_snapshots is
    'Each state of the catalogue whole, by its number. Kept for as long as decisions that were made from it.';

create function llm_catalog_models() returns jsonb language sql stable as $$
    select coalesce(
        jsonb_agg(
            jsonb_build_object(
                'model_id', m.id,
                'provider_id', m.provider_id,
                'model_name', m.model_name,
                'display_name', m.display_name,
                'provider_name', p.name,
                'api_endpoint', p.api_endpoint,
                'power_level', m.power_level,
                'input_cost_per_1m', m.input_cost_per_1m,
                'output_cost_per_1m', m.output_cost_per_1m,
                'avg_latency_ms', m.avg_latency_ms,
                'quality_rating', m.quality_score,
                'max_context_tokens', m.max_context_tokens,
                'capabilities', to_jsonb(m.capabilities),
                'priority', p.priority,
                'requires_byok', p.requires_byok,
                'model_enabled', m.is_enabled,
                'provider_enabled', p.is_enabled
            )
            order by m.id
        ),
        '[]'
    )
    from llm_models m
    inner join llm_providers p on p.id = m.provider_id
$$;
comment on function llm_catalog_models is 'All models, enabled or not, with what routing needs of their providers.';

create function llm_catalog_store_snapshot() returns trigger language plpgsql as $$
declare
    current_number bigint;
begin
    select number into current_number from llm_catalog_version;
    if exists (select from llm_catalog_snapshots where number = current_number) then
        return null; -- stored by an earlier statement's trigger of the same transaction
    end if;
    update llm_catalog_snapshots set superseded_at = now() where superseded_at is null;
    insert into llm_catalog_snapshots (number, models) values (current_number, llm_catalog_models());
    perform pg_notify('llmrouter_catalog', current_number::text);
    return null;
end $$;
comment on function llm_catalog_store_snapshot is
    'Runs at commit, once for the last number of a transaction: only that one can ever be seen.';
create constraint trigger store_snapshot after update on llm_catalog_version
deferrable initially deferred for each row execute function llm_catalog_store_snapshot();

insert into llm_catalog_snapshots (number, models) select number, llm_catalog_models() from llm_catalog_version;

create table llm_admin_changes (
    id uuid primary key,
    changed_at timestamptz not null default now(),
    admin_id uuid not null,
    resource text not null check (resource in ('provider', 'model', 'platform_key')),
    resource_id uuid not null,
    action text not null check (action in ('create', 'update', 'disable', 'delete')),
    before jsonb not null check (jsonb_typeof(before) = 'object'),
    after jsonb not null check (jsonb_typeof(after) = 'object')
);
comment on table llm_admin_changes is
    'What admins changed: the fields that differ, before and after, written in the transaction of the change.';
create index llm_admin_changes_resource on llm_admin_changes (resource_id, id desc);
create index llm_admin_changes_admin on llm_admin_changes (admin_id, id desc);
