-- What is checked of a record, a daily sum and a month is one constraint each: Postgres reads and prepares every
-- constraint anew for each statement. A record's and an hourly sum's power level and payer are those of a daily sum,
-- which is written in the same transaction and checks them.
-- Locks: replaces constraints by equal ones, which no row is read for, under brief access exclusive locks on the records
-- with their partitions, the sums and the ledger, taken in the order in which recording uses them.
-- squawk-ignore-file ban-drop-constraint
set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table llm_usage_logs
drop constraint llm_usage_logs_request_id_check,
drop constraint llm_usage_logs_power_level_check,
drop constraint llm_usage_logs_payer_check,
drop constraint llm_usage_logs_input_tokens_check,
drop constraint llm_usage_logs_output_tokens_check,
drop constraint llm_usage_logs_cached_tokens,
drop constraint llm_usage_logs_reasoning_tokens,
drop constraint llm_usage_logs_cost_usd_check,
drop constraint llm_usage_logs_latency_ms_check,
drop constraint llm_usage_logs_status_check,
drop constraint llm_usage_logs_error_message_check,
add constraint llm_usage_logs_check check (
    least(input_tokens, output_tokens, cached_tokens, reasoning_tokens, latency_ms) >= 0 and cost_usd >= '0'
    and status = any('{success,error}'::text[]) and char_length(request_id) between 1 and 128
    and char_length(error_message) <= 1000
) not valid;
alter table llm_usage_hourly drop constraint llm_usage_hourly_power_level_check;
alter table llm_usage_daily
drop constraint llm_usage_daily_power_level_check,
drop constraint llm_usage_daily_payer_check,
add constraint llm_usage_daily_check check (
    power_level = any('{ECO,BALANCED,PRECISION}'::text[]) and payer = any('{USER_KEY,PLATFORM}'::text[])
) not valid;
alter table llm_budget_ledger
drop constraint llm_budget_ledger_month_check,
drop constraint llm_budget_ledger_spent_usd_check,
drop constraint llm_budget_ledger_held_usd_check,
add constraint llm_budget_ledger_check check (
    spent_usd >= '0' and held_usd >= '0' and extract(day from month) = '1'
) not valid;
