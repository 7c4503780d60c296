-- Replicas keep users' state in memory and are told when it changes.
-- Locks: adds columns with constant or no defaults (no rewrite) and triggers, under brief locks on the two tables.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table user_llm_settings add column on_budget_exceeded text not null default 'downgrade';
alter table user_llm_settings add constraint user_llm_settings_on_budget_exceeded
check (on_budget_exceeded in ('downgrade', 'reject')) not valid;
alter table user_provider_keys add column refused_at timestamptz;

create function llm_user_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('llmrouter_user', coalesce(new.user_id, old.user_id)::text);
    return null;
end $$;
comment on function llm_user_changed is
    'Tells every replica to forget what it remembers of the user. Arrives after the commit, once for a transaction.';
create trigger user_changed after insert or update or delete on user_llm_settings
for each row execute function llm_user_changed();
create trigger user_changed after insert or delete or update of is_active, refused_at on user_provider_keys
for each row execute function llm_user_changed();
