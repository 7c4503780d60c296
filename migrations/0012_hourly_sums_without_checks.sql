-- Hourly sums without foreign keys. They are made of records in the statement that stores these, and are gone before
-- them: what the records' own foreign keys check was checked a second time, for every sum that was new.
-- Locks: drops two constraints, under brief access exclusive locks on the catalogue's tables and on the sums, taken in
-- the order in which recording uses them.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

lock table llm_providers, llm_models in access exclusive mode;
-- squawk-ignore ban-drop-constraint
alter table llm_usage_hourly drop constraint llm_usage_hourly_provider_id_fkey;
-- squawk-ignore ban-drop-constraint
alter table llm_usage_hourly drop constraint llm_usage_hourly_model_id_fkey;
