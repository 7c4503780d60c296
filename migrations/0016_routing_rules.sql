-- Routing rules take part in routing: each snapshot of the catalogue holds the active ones, and their changes are
-- audited. Rules from before, which nothing read, are inactive and without effect: nobody has decided that they are to
-- hold. What their config said is kept in it.
-- Locks: adds columns with constant defaults (no rewrite) under brief access exclusive locks on the rules and on the
-- snapshots; replaces a constraint on the admins' changes by a wider one, which is not checked for what is there, under
-- another; replaces a function; changes of the catalogue wait for the end.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

update llm_routing_rules set is_active = false, strategy = '', config = jsonb_build_object('before', config);
alter table llm_routing_rules add column revision bigint not null default 1;
comment on table llm_routing_rules is
    'Routing rules of the operator. strategy: empty for none; config: the condition, and the other effects: power_level, '
    'weights, provider_ids.';

-- squawk-ignore ban-drop-constraint
alter table llm_admin_changes drop constraint llm_admin_changes_resource_check;
alter table llm_admin_changes add constraint llm_admin_changes_resource_check
check (resource in ('provider', 'model', 'routing_rule', 'platform_key')) not valid;

alter table llm_catalog_snapshots add column rules jsonb not null default '[]';

create function llm_catalog_rules() returns jsonb language sql stable as $$
    select coalesce(
        jsonb_agg(
            jsonb_build_object('rule_id', id, 'rule_name', rule_name, 'strategy', nullif(strategy, ''), 'config', config)
            order by priority desc, rule_name collate "C"
        ),
        '[]'
    )
    from llm_routing_rules
    where is_active
$$;
comment on function llm_catalog_rules is 'The active routing rules, in the order in which they are tried.';

create or replace function llm_catalog_store_snapshot() returns trigger language plpgsql as $$
declare
    current_number bigint;
begin
    select number into current_number from llm_catalog_version;
    if exists (select from llm_catalog_snapshots where number = current_number) then
        return null; -- stored by an earlier statement's trigger of the same transaction
    end if;
    update llm_catalog_snapshots set superseded_at = now() where superseded_at is null;
    insert into llm_catalog_snapshots (number, models, rules)
    values (current_number, llm_catalog_models(), llm_catalog_rules());
    perform pg_notify('llmrouter_catalog', current_number::text);
    return null;
end $$;
