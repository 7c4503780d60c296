-- The operator's keys, and the audit of every reading of a key.
-- Locks: creates new tables only; nothing that is in use is locked.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table llm_platform_keys (
    provider_id uuid primary key references llm_providers (id) on delete restrict,
    encrypted_api_key text not null,
    key_prefix text not null check (char_length(key_prefix) <= 6),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table llm_platform_keys is
    'The operator''s own keys, encrypted like users'' keys, with the nil UUID for the user.';

create table llm_key_reads (
    month date not null check (extract(day from month) = 1),
    sequence bigint not null check (sequence >= 1),
    read_at timestamptz not null,
    user_id uuid not null,
    provider_id uuid not null references llm_providers (id) on delete restrict,
    key_id uuid,
    payer text not null check (payer in ('USER_KEY', 'PLATFORM')),
    reader_id uuid not null,
    purpose text not null check (purpose in ('credential', 'verify', 'gateway')),
    decision_id uuid,
    hash bytea not null check (octet_length(hash) = 32),
    primary key (month, sequence)
);
comment on table llm_key_reads is
    'Each decryption of a key. hash covers the row and the hash before it within the UTC month, the first one the month.';
create index llm_key_reads_user on llm_key_reads (user_id, month desc, sequence desc);

create table llm_key_read_heads (
    month date primary key,
    sequence bigint not null,
    hash bytea not null check (octet_length(hash) = 32)
);
comment on table llm_key_read_heads is 'The last row of each month''s chain of llm_key_reads; its lock orders writers.';
