-- A batch of usage is recorded with fewer look-ups: a request id is looked for before it is written only where one of
-- the batch turned out to be there; holds are locked and summed up only where there are any; a user's key is looked
-- for only where the report leaves open who pays.
-- Locks: replaces a function; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

-- Every writer locks in the same order: request ids, the partition it creates, hours, days, holds, months; and within
-- each by key. So two writers never wait for each other.
create or replace function llm_usage_record(reports llm_usage_report[], new_months date[]) returns table (
    report_id uuid, usage_id uuid, provider_id uuid, payer text, cost_usd numeric, overdrawn_usd numeric,
    held_usd numeric
) language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off as $$ -- a table may be nearly empty when a plan is made, and that plan stays
#variable_conflict use_column
declare
    priced llm_priced_report[];
    fresh llm_priced_report[];
    settled llm_settlement[] := '{}';
    claimed bigint;
    told bigint;
    month_to_come date;
begin
    -- The price of the moment, exactly; a user's active key pays before the platform's, where the report does not say.
    priced := array(
        select row(
            a.id, a.user_id, m.provider_id, a.model_id, a.request_id, a.decision_id, m.power_level,
            coalesce(
                a.payer,
                (
                    select 'USER_KEY' from user_provider_keys k
                    where k.user_id = a.user_id and k.provider_id = m.provider_id and k.is_active
                ),
                'PLATFORM'
            ),
            a.input_tokens, a.output_tokens,
            (a.input_tokens * m.input_cost_per_1m + a.output_tokens * m.output_cost_per_1m) * 0.000001,
            a.latency_ms, a.status, a.failure, a.error_message, a.occurred_at, a.cached_tokens, a.reasoning_tokens,
            a.is_estimated
        )::llm_priced_report
        from unnest(reports) a
        inner join llm_models m on m.id = a.model_id
    );
    begin
        insert into llm_usage_requests (user_id, request_id, usage_id, cost_usd)
        select p.user_id, p.request_id, p.id, p.cost_usd from unnest(priced) p
        order by p.user_id, p.request_id;
        claimed := cardinality(priced);
    exception when unique_violation then
        insert into llm_usage_requests (user_id, request_id, usage_id, cost_usd)
        select p.user_id, p.request_id, p.id, p.cost_usd from unnest(priced) p
        order by p.user_id, p.request_id, p.id -- of the same id twice in a batch, the first
        on conflict (user_id, request_id) do nothing;
        get diagnostics claimed = row_count;
    end;
    fresh := priced;
    if claimed < cardinality(priced) then
        fresh := array(
            select p from unnest(priced) p
            inner join llm_usage_requests r
                on r.user_id = p.user_id and r.request_id = p.request_id and r.usage_id = p.id
        );
    end if;
    if claimed > 0 then
        foreach month_to_come in array new_months loop
            perform llm_usage_ensure_partition(month_to_come);
        end loop;
        insert into llm_usage_logs (
            id, user_id, provider_id, model_id, request_id, decision_id, power_level, payer, input_tokens,
            output_tokens, cost_usd, latency_ms, status, failure, error_message, created_at, cached_tokens,
            reasoning_tokens, is_estimated
        )
        select p.id, p.user_id, p.provider_id, p.model_id, p.request_id, p.decision_id, p.power_level, p.payer,
            p.input_tokens, p.output_tokens, p.cost_usd, p.latency_ms, p.status, p.failure, p.error_message,
            p.created_at, p.cached_tokens, p.reasoning_tokens, p.is_estimated
        from unnest(fresh) p;
        insert into llm_usage_hourly as h (
            user_id, hour, provider_id, model_id, power_level, requests, failed_requests, input_tokens, output_tokens,
            cost_usd, latency_ms_sum, latency_count
        )
        select p.user_id, date_bin('1 hour', p.created_at, timestamptz 'epoch') as hour, p.provider_id, p.model_id,
            p.power_level, count(*) filter (where p.status = 'success'), count(*) filter (where p.status <> 'success'),
            sum(p.input_tokens), sum(p.output_tokens), sum(p.cost_usd),
            coalesce(sum(p.latency_ms) filter (where p.status = 'success'), 0),
            count(p.latency_ms) filter (where p.status = 'success')
        from unnest(fresh) p
        group by p.user_id, hour, p.provider_id, p.model_id, p.power_level
        order by p.user_id, hour, p.provider_id, p.model_id, p.power_level
        on conflict (user_id, hour, model_id, power_level) do update set
            requests = h.requests + excluded.requests,
            failed_requests = h.failed_requests + excluded.failed_requests,
            input_tokens = h.input_tokens + excluded.input_tokens,
            output_tokens = h.output_tokens + excluded.output_tokens,
            cost_usd = h.cost_usd + excluded.cost_usd,
            latency_ms_sum = h.latency_ms_sum + excluded.latency_ms_sum,
            latency_count = h.latency_count + excluded.latency_count;
        insert into llm_usage_daily as d (
            user_id, day, provider_id, model_id, power_level, payer, requests, failed_requests, input_tokens,
            output_tokens, cost_usd, latency_ms_sum, latency_count
        )
        select p.user_id, (p.created_at at time zone 'UTC')::date as day, p.provider_id, p.model_id, p.power_level,
            p.payer, count(*) filter (where p.status = 'success'), count(*) filter (where p.status <> 'success'),
            sum(p.input_tokens), sum(p.output_tokens), sum(p.cost_usd),
            coalesce(sum(p.latency_ms) filter (where p.status = 'success'), 0),
            count(p.latency_ms) filter (where p.status = 'success')
        from unnest(fresh) p
        group by p.user_id, day, p.provider_id, p.model_id, p.power_level, p.payer
        order by p.user_id, day, p.provider_id, p.model_id, p.power_level, p.payer
        on conflict (user_id, day, model_id, power_level, payer) do update set
            requests = d.requests + excluded.requests,
            failed_requests = d.failed_requests + excluded.failed_requests,
            input_tokens = d.input_tokens + excluded.input_tokens,
            output_tokens = d.output_tokens + excluded.output_tokens,
            cost_usd = d.cost_usd + excluded.cost_usd,
            latency_ms_sum = d.latency_ms_sum + excluded.latency_ms_sum,
            latency_count = d.latency_count + excluded.latency_count;
        -- Nothing stays on hold once an attempt succeeded. A failed one takes what it cost out of the hold, since
        -- another attempt may follow.
        if exists ( -- one by one: as a join, its plan would go through all holds, made when there were few
            select from unnest(fresh) p
            where (select h.id from llm_budget_holds h where h.id = p.decision_id) is not null
        ) then
            with paid as (
                select p.decision_id, p.user_id, sum(p.cost_usd) as cost_usd, bool_or(p.status = 'success') as is_final
                from unnest(fresh) p
                where p.decision_id is not null
                group by p.decision_id, p.user_id
            ),
            held as materialized (
                select h.id, h.user_id, h.month, h.amount_usd from llm_budget_holds h
                where h.id in (select decision_id from paid)
                order by h.id for update
            )
            select array_agg(row(
                h.id, h.user_id, h.month, h.amount_usd, p.cost_usd,
                case when p.is_final then 0 else greatest(h.amount_usd - p.cost_usd, 0) end, p.is_final
            )::llm_settlement) into settled
            from held h inner join paid p on p.decision_id = h.id and p.user_id = h.user_id;
            if cardinality(settled) > 0 then
                delete from llm_budget_holds h using unnest(settled) s where h.id = s.id and s.is_final;
                update llm_budget_holds h set amount_usd = s.left_usd
                from unnest(settled) s where h.id = s.id and not s.is_final;
            end if;
        end if;
        -- Where anything was on hold, the row exists, since the hold refers to it. The replicas are told of the users
        -- whose budget they watch, when this transaction commits.
        with changed as (
            select p.user_id, date_trunc('month', p.created_at at time zone 'UTC')::date as month, p.cost_usd as spent,
                0 as released
            from unnest(fresh) p
            union all
            select s.user_id, s.month, 0, s.held_usd - s.left_usd from unnest(settled) s
        ),
        counted as (
            insert into llm_budget_ledger as l (user_id, month, spent_usd, held_usd)
            select user_id, month, sum(spent), sum(released) from changed
            group by user_id, month order by user_id, month
            on conflict (user_id, month) do update set
                spent_usd = l.spent_usd + excluded.spent_usd, held_usd = l.held_usd - excluded.held_usd
            returning user_id, month, spent_usd, held_usd
        )
        select count(pg_notify(
            'llmrouter_spend', concat_ws(' ', c.user_id, to_char(c.month, 'YYYY-MM-DD'), c.spent_usd, c.held_usd)
        )) into told
        from counted c
        inner join user_llm_settings s on s.user_id = c.user_id
        where s.monthly_budget_usd is not null;
    end if;
    return query
    select p.id, p.id, p.provider_id, p.payer, p.cost_usd, s.cost_usd, s.held_usd
    from unnest(fresh) p
    left join unnest(settled) s on s.id = p.decision_id and s.user_id = p.user_id and s.cost_usd > s.held_usd;
    if claimed < cardinality(priced) then
        return query
        select p.id, r.usage_id, p.provider_id, p.payer, r.cost_usd, null::numeric, null::numeric
        from unnest(priced) p
        inner join llm_usage_requests r
            on r.user_id = p.user_id and r.request_id = p.request_id and r.usage_id <> p.id;
    end if;
end $$;
