-- Records and daily sums without the foreign key to the provider. A record's provider is that of its model, whose own
-- foreign keys keep both from being erased: it was checked a second time, for every record and every sum that was new.
-- Locks: drops two constraints, under brief access exclusive locks on the catalogue's tables, on the records with their
-- partitions and on the sums, taken in the order in which recording uses them.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

lock table llm_providers, llm_models in access exclusive mode;
-- squawk-ignore ban-drop-constraint
alter table llm_usage_logs drop constraint llm_usage_logs_provider_id_fkey;
-- squawk-ignore ban-drop-constraint
alter table llm_usage_daily drop constraint llm_usage_daily_provider_id_fkey;
