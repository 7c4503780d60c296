-- Decisions, with the facts that they were made from.
-- Locks: creates new tables only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table llm_decisions (
    id uuid not null,
    decided_at timestamptz not null,
    user_id uuid not null,
    snapshot_number bigint not null,
    facts jsonb not null check (jsonb_typeof(facts) = 'object'),
    outcome jsonb not null check (jsonb_typeof(outcome) = 'object'),
    primary key (id, decided_at)
) partition by range (decided_at);
comment on table llm_decisions is
    'One row a routing decision, partitioned by UTC day of decided_at, which is also the time inside the UUIDv7.';

create function llm_decisions_ensure_partition(day date) returns void language plpgsql as $$
declare
    partition text := 'llm_decisions_' || to_char(day, 'YYYY_MM_DD');
begin
    if to_regclass(partition) is null then
        perform pg_advisory_xact_lock(hashtext(partition));
        execute format(
            'create table if not exists %I partition of llm_decisions for values from (%L) to (%L)',
            partition,
            day::text || ' 00:00:00+00',
            (day + 1)::text || ' 00:00:00+00'
        );
    end if;
end $$;
comment on function llm_decisions_ensure_partition is
    'Creates the partition of this UTC day, unless it is there. Safe when two call at once.';
