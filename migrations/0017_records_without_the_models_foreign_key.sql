-- Records without the foreign key to the model. A record's model is that of a daily sum, which is written in the same
-- transaction, is never erased and has the same foreign key: it was checked a second time, for every record.
-- Locks: drops a constraint, under brief access exclusive locks on the models and on the records with their partitions,
-- taken in the order in which recording uses them.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

lock table llm_models in access exclusive mode;
-- squawk-ignore ban-drop-constraint
alter table llm_usage_logs drop constraint llm_usage_logs_model_id_fkey;
