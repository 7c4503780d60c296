-- What routing needs to choose for the gateway from memory alone: a provider's kind in the snapshots of the catalogue,
-- and news of every change of an encrypted key.
-- Locks: replaces a function; replaces one trigger and creates another under brief locks on the two tables of keys;
-- changes of the catalogue wait for the end.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function llm_catalog_models() returns jsonb language sql stable as $$
    select coalesce(
        jsonb_agg(
            jsonb_build_object(
                'model_id', m.id,
                'provider_id', m.provider_id,
                'model_name', m.model_name,
                'display_name', m.display_name,
                'provider_name', p.name,
                'provider_type', p.provider_type,
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
update llm_catalog_version set number = number + 1; -- the newest snapshot is to have it too

create or replace trigger user_changed
after insert or delete or update of is_active, refused_at, encrypted_api_key on user_provider_keys
for each row execute function llm_user_changed();

create function llm_platform_key_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('llmrouter_platform_key', '');
    return null;
end $$;
comment on function llm_platform_key_changed is
    'Tells every replica to read the platform keys again. Arrives after the commit, once for a transaction.';
create trigger platform_key_changed after insert or update or delete or truncate on llm_platform_keys
for each statement execute function llm_platform_key_changed();
