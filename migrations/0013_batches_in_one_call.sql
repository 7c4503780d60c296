-- A batch of chat requests or of readings of keys is written by one call of a function, in one round trip: asking and
-- answering costs both sides more than the work does, and nobody's lock waits for the next statement to come.
-- What an array is made of is a type of its own. A release that needs other fields makes another type and function.
-- Locks: creates types and functions only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create function llm_budget_hold(
    hold_id uuid, holder_id uuid, of_month date, amount_usd numeric, budget_usd numeric, since timestamptz,
    until timestamptz
) returns boolean language plpgsql as $$
#variable_conflict use_variable
declare
    owner_id uuid;
begin
    select h.user_id into owner_id from llm_budget_holds h where h.id = hold_id;
    if found or amount_usd > budget_usd then
        return coalesce(owner_id = holder_id, false);
    end if;
    -- Locks the month's row, which gets made where there is none. Whoever is quicker with either is counted.
    insert into llm_budget_ledger as l (user_id, month, held_usd) values (holder_id, of_month, amount_usd)
    on conflict on constraint llm_budget_ledger_pkey do update set held_usd = l.held_usd + amount_usd
    where l.spent_usd + l.held_usd + amount_usd <= budget_usd;
    if not found then -- somebody else may have been at the same
        return exists (select from llm_budget_holds h where h.id = hold_id and h.user_id = holder_id);
    end if;
    insert into llm_budget_holds (id, user_id, month, amount_usd, created_at, expires_at)
    values (hold_id, holder_id, of_month, amount_usd, since, until);
    return true;
end $$;
comment on function llm_budget_hold is
    'Sets an amount aside where the month''s spent and held stay within the budget with it, and tells whether it is on '
    'hold. What is held already stays as it is.';

create type llm_key_reading as (
    month date, read_at timestamptz, user_id uuid, provider_id uuid, key_id uuid, payer text, reader_id uuid,
    purpose text, decision_id uuid, hashed_after_sequence text
);

create function llm_key_reads_append(readings llm_key_reading[]) returns void language plpgsql
set plan_cache_mode = force_generic_plan as $$
declare
    chained date;
    newly bigint;
    of_month llm_key_reading[];
    before bigint;
    reading llm_key_reading;
    link bytea;
    links bytea[];
begin
    for chained, newly in -- locks are taken in the same order everywhere: by month
        select r.month, count(*) from unnest(readings) r group by r.month order by r.month
    loop
        of_month := readings;
        if newly < cardinality(readings) then
            of_month := array(select r from unnest(readings) r where r.month = chained);
        end if;
        select h.sequence, h.hash into before, link from llm_key_read_heads h where h.month = chained for update;
        if not found then
            insert into llm_key_read_heads (month, sequence, hash)
            values (chained, 0, sha256(convert_to(to_char(chained, 'YYYY-MM'), 'UTF8')))
            on conflict (month) do nothing;
            select h.sequence, h.hash into before, link from llm_key_read_heads h where h.month = chained for update;
        end if;
        links := '{}';
        foreach reading in array of_month loop
            link := sha256(link || convert_to(
                format('["%s",%s', to_char(chained, 'YYYY-MM'), before + cardinality(links) + 1)
                || reading.hashed_after_sequence, 'UTF8'
            ));
            links := links || link;
        end loop;
        insert into llm_key_reads (
            month, sequence, read_at, user_id, provider_id, key_id, payer, reader_id, purpose, decision_id, hash
        )
        select chained, before + r.place, r.read_at, r.user_id, r.provider_id, r.key_id, r.payer, r.reader_id,
            r.purpose, r.decision_id, links[r.place]
        from unnest(of_month) with ordinality as r (
            month, read_at, user_id, provider_id, key_id, payer, reader_id, purpose, decision_id,
            hashed_after_sequence, place
        );
        update llm_key_read_heads h set sequence = before + newly, hash = link where h.month = chained;
    end loop;
end $$;
comment on function llm_key_reads_append is
    'Hangs readings onto their months'' chains, in their order. hashed_after_sequence is the rest of what a row''s hash '
    'covers, after the month and the sequence.';

create type llm_gateway_opening as (
    decision_id uuid, user_id uuid, plan text, expires_at timestamptz, month date, amount_usd numeric,
    budget_usd numeric, held_since timestamptz, held_until timestamptz
);

create function llm_gateway_open(
    openings llm_gateway_opening[], readings llm_key_reading[], moment timestamptz, most_at_once bigint
) returns text[] language plpgsql
set enable_seqscan = off as $$ -- the tables are nearly empty when a plan is made, and that plan stays
declare
    opening record;
    opened uuid[] := '{}';
    outcomes text[] := array_fill('TOO_MANY'::text, array[cardinality(openings)]);
begin
    -- Of each user in the order of the batch; all who hold money lock the months of the ledger in this order.
    for opening in
        select o.* from unnest(openings) with ordinality as o (
            decision_id, user_id, plan, expires_at, month, amount_usd, budget_usd, held_since, held_until, place
        )
        order by o.user_id, o.month, o.place
    loop
        insert into llm_gateway_requests (decision_id, user_id, plan, expires_at)
        select opening.decision_id, opening.user_id, opening.plan::jsonb, opening.expires_at
        where (
            select count(*) from llm_gateway_requests r where r.user_id = opening.user_id and r.expires_at > moment
        ) < most_at_once -- what expired takes no room
        on conflict (decision_id) do nothing;
        if not found then -- it may be open already
            perform from llm_gateway_requests r where r.decision_id = opening.decision_id;
            continue when not found;
        end if;
        if opening.amount_usd is null or llm_budget_hold(
            opening.decision_id, opening.user_id, opening.month, opening.amount_usd, opening.budget_usd,
            opening.held_since, opening.held_until
        ) then
            outcomes[opening.place] := 'OPENED';
            opened := opened || opening.decision_id;
        else
            outcomes[opening.place] := 'NO_ROOM';
            delete from llm_gateway_requests r where r.decision_id = opening.decision_id;
        end if;
    end loop;
    if cardinality(opened) < cardinality(openings) then
        readings := array(select r from unnest(readings) r where r.decision_id = any (opened));
    end if;
    perform llm_key_reads_append(readings);
    return outcomes;
end $$;
comment on function llm_gateway_open is
    'Notes requests, holds their money and appends the readings of their keys: for each all of it, or nothing. Returns '
    'for each OPENED, NO_ROOM when the budget has none, or TOO_MANY when its user has too many under way.';
