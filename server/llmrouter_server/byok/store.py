"""All SQL of provider keys: users' own and the operator's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import asyncpg
import uuid_utils.compat as uuid_utils

from llmrouter_server import errors
from llmrouter_server.byok.cipher import PLATFORM_USER
from llmrouter_server.byok.live_keys import KeptKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

WRITES_A_MINUTE = 5

# One statement, so that its row lock makes the limit exact for writers on any replica. clock_timestamp, because the
# wait for that lock must count.
TAKE_WRITE = """
insert into user_key_writes as w (user_id, written_at) values ($1, array[clock_timestamp()])
on conflict (user_id) do update set written_at = array(
    select t from unnest(w.written_at) as t where t > clock_timestamp() - interval '1 minute'
) || clock_timestamp()
where (select count(*) from unnest(w.written_at) as t where t > clock_timestamp() - interval '1 minute') < $2
returning true"""
SECONDS_TO_WAIT = """
select ceil(extract(epoch from written_at[cardinality(written_at) - $2 + 1] + interval '1 minute' - clock_timestamp()))
from user_key_writes where user_id = $1"""

_KEY = """
    k.id, k.provider_id, p.name as provider_name, k.key_prefix, k.is_active, k.metadata, k.created_at, k.updated_at,
    k.refused_at"""

UPSERT_KEY = f"""
with k as (
    insert into user_provider_keys as k (id, user_id, provider_id, encrypted_api_key, key_prefix, metadata)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (user_id, provider_id) do update set
        encrypted_api_key = excluded.encrypted_api_key, key_prefix = excluded.key_prefix,
        metadata = excluded.metadata, is_active = true, refused_at = null, updated_at = now()
    returning id, provider_id, key_prefix, is_active, metadata, created_at, updated_at, refused_at
)
select {_KEY} from k inner join llm_providers p on p.id = k.provider_id"""  # noqa: S608 - a constant list of columns

UPDATE_KEY = f"""
with k as (
    update user_provider_keys set
        is_active = coalesce($3, is_active),
        refused_at = case when $3 then null else refused_at end,
        metadata = coalesce($4, metadata),
        updated_at = now()
    where id = $1 and user_id = $2
    returning id, provider_id, key_prefix, is_active, metadata, created_at, updated_at, refused_at
)
select {_KEY} from k inner join llm_providers p on p.id = k.provider_id"""  # noqa: S608 - a constant list of columns

LIST_KEYS = f"""
select {_KEY}
from user_provider_keys k inner join llm_providers p on p.id = k.provider_id
where k.user_id = $1 and ($2::text is null or p.name > $2)
order by p.name
limit $3"""  # noqa: S608 - a constant list of columns

DELETE_KEY = "delete from user_provider_keys where id = $1 and user_id = $2 returning true"

FIND_SEALED = """
select k.id as key_id, k.user_id, p.id as provider_id, p.provider_type, p.api_endpoint, p.is_enabled,
    k.encrypted_api_key as ciphertext
from user_provider_keys k inner join llm_providers p on p.id = k.provider_id
where k.id = $1 and k.user_id = $2"""

# The user's own key goes before the platform's, which is only for providers without BYOK.
FIND_USABLE = """
select k.id as key_id, p.id as provider_id, p.provider_type, p.api_endpoint, p.is_enabled,
    coalesce(k.encrypted_api_key, o.encrypted_api_key) as ciphertext
from llm_providers p
left join user_provider_keys k on k.provider_id = p.id and k.user_id = $1 and k.is_active
left join llm_platform_keys o on o.provider_id = p.id and not p.requires_byok
where p.id = $2 and p.is_enabled"""

# Of the very key that was tried: one that was stored meanwhile has another ciphertext.
MARK_TRIED = """
update user_provider_keys set refused_at = $3
where id = $1 and encrypted_api_key = $2 and refused_at is distinct from $3
returning true"""

# Rows are locked in the order of their ids, so that two batches cannot wait for each other.
MARK_REFUSED = """
with refused as (
    select k.id
    from user_provider_keys k
    inner join unnest($1::uuid[], $2::uuid[]) as r (user_id, provider_id)
        on r.user_id = k.user_id and r.provider_id = k.provider_id
    where k.updated_at <= $3 and (k.refused_at is null or k.refused_at < $3)
    order by k.id
    for no key update of k
)
update user_provider_keys k set refused_at = $3 from refused r where k.id = r.id
returning k.user_id"""
MARK_WORKING = """
with working as (
    select k.id
    from user_provider_keys k
    inner join unnest($1::uuid[], $2::uuid[]) as w (user_id, provider_id)
        on w.user_id = k.user_id and w.provider_id = k.provider_id
    where k.refused_at is not null
    order by k.id
    for no key update of k
)
update user_provider_keys k set refused_at = null from working w where k.id = w.id
returning k.user_id"""

# Its lock lets one change of a platform key of this provider happen at a time.
LOCK_PROVIDER = "select true from llm_providers where id = $1 for no key update"
GET_PLATFORM_KEY = "select encrypted_api_key, key_prefix from llm_platform_keys where provider_id = $1"
LIST_PLATFORM_KEYS = "select provider_id, encrypted_api_key from llm_platform_keys"
UPSERT_PLATFORM_KEY = """
insert into llm_platform_keys (provider_id, encrypted_api_key, key_prefix) values ($1, $2, $3)
on conflict (provider_id) do update set
    encrypted_api_key = excluded.encrypted_api_key, key_prefix = excluded.key_prefix, updated_at = now()"""
DELETE_PLATFORM_KEY = "delete from llm_platform_keys where provider_id = $1"

# For the rotation of the encryption keys. A row is written only if it still holds what was read.
COUNT_SEALED = "select (select count(*) from user_provider_keys) + (select count(*) from llm_platform_keys)"
SEALED_AFTER = """
select id, user_id, provider_id, encrypted_api_key as ciphertext
from user_provider_keys
where $1::uuid is null or id > $1
order by id
limit $2"""
SEALED_PLATFORM_AFTER = """
select provider_id as id, '00000000-0000-0000-0000-000000000000'::uuid as user_id, provider_id,
    encrypted_api_key as ciphertext
from llm_platform_keys
where $1::uuid is null or provider_id > $1
order by provider_id
limit $2"""
RESEAL = """
with stale as (
    select k.id, s.new_text
    from user_provider_keys k
    inner join unnest($1::uuid[], $2::text[], $3::text[]) as s (id, old_text, new_text)
        on s.id = k.id and s.old_text = k.encrypted_api_key
    order by k.id
    for no key update of k
)
update user_provider_keys k set encrypted_api_key = s.new_text from stale s where k.id = s.id
returning k.id"""
RESEAL_PLATFORM = """
with stale as (
    select k.provider_id, s.new_text
    from llm_platform_keys k
    inner join unnest($1::uuid[], $2::text[], $3::text[]) as s (provider_id, old_text, new_text)
        on s.provider_id = k.provider_id and s.old_text = k.encrypted_api_key
    order by k.provider_id
    for no key update of k
)
update llm_platform_keys k set encrypted_api_key = s.new_text from stale s where k.provider_id = s.provider_id
returning k.provider_id"""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A stored key, without the key."""

    id: UUID
    provider_id: UUID
    provider_name: str
    key_prefix: str
    is_active: bool
    metadata: Mapping[str, object]
    created_at: datetime
    updated_at: datetime
    refused_at: datetime | None
    """When its provider last refused it; None: not since it was stored, activated or last worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """An encrypted key, with whose it is and where it may be sent."""

    key_id: UUID | None
    """None for the platform's."""
    user_id: UUID = PLATFORM_USER
    """Whose it is: what the ciphertext is bound to, besides the provider."""
    provider_id: UUID
    provider_type: str
    api_endpoint: str
    is_enabled: bool
    """Whether its provider is."""
    ciphertext: str = field(repr=False)

    @property
    def payer(self) -> Literal["USER_KEY", "PLATFORM"]:
        """Who pays what is done with it."""
        return "PLATFORM" if self.key_id is None else "USER_KEY"


class KeyStore:
    """Stored keys; the methods that take a user work on their own only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_write(self, user_id: UUID) -> None:
        """Count one write of the user; RATE_LIMITED when it would be the sixth within a minute."""
        async with self._database.connection() as connection:
            if await connection.fetchval(TAKE_WRITE, user_id, WRITES_A_MINUTE):
                return
            seconds = await connection.fetchval(SECONDS_TO_WAIT, user_id, WRITES_A_MINUTE)
        wait = max(1, int(seconds))
        raise errors.rate_limited(f"at most {WRITES_A_MINUTE} key changes a minute; try again in {wait} s", wait)

    async def store(
        self, *, user_id: UUID, provider_id: UUID, ciphertext: str, prefix: str, metadata: Mapping[str, object]
    ) -> tuple[ProviderKey, bool]:
        """Store or replace the user's key for a provider; True when it is new. RESOURCE_NOT_FOUND: no provider."""
        key_id = uuid_utils.uuid7()
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(
                    UPSERT_KEY, key_id, user_id, provider_id, ciphertext, prefix, dict(metadata)
                )
        except asyncpg.ForeignKeyViolationError:
            raise errors.not_found("provider") from None
        return ProviderKey(**row), row["id"] == key_id

    async def update(
        self, user_id: UUID, key_id: UUID, *, is_active: bool | None, metadata: Mapping[str, object] | None
    ) -> ProviderKey:
        """Change what is given of one of the user's keys; activating forgets a refusal. RESOURCE_NOT_FOUND."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                UPDATE_KEY, key_id, user_id, is_active, dict(metadata) if metadata is not None else None
            )
        if row is None:
            raise errors.not_found("key")
        return ProviderKey(**row)

    async def list(self, user_id: UUID, *, after: str | None, limit: int) -> list[ProviderKey]:
        """List the user's keys by provider name, from after this one."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_KEYS, user_id, after, limit)
        return [ProviderKey(**row) for row in rows]

    async def delete(self, user_id: UUID, key_id: UUID) -> None:
        """Erase one of the user's keys; RESOURCE_NOT_FOUND when the user has no such key."""
        async with self._database.connection() as connection:
            if not await connection.fetchval(DELETE_KEY, key_id, user_id):
                raise errors.not_found("key")

    async def find(self, user_id: UUID, key_id: UUID) -> SealedKey:
        """Return one of the user's keys, active or not; RESOURCE_NOT_FOUND when the user has no such key."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(FIND_SEALED, key_id, user_id)
        if row is None:
            raise errors.not_found("key")
        return SealedKey(**row)

    async def find_usable(self, user_id: UUID, provider_id: UUID) -> SealedKey:
        """Return the key to use for the user at an enabled provider: their own active one, else the platform's.

        RESOURCE_NOT_FOUND: no such provider, it is disabled, or there is neither key.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(FIND_USABLE, user_id, provider_id)
        if row is None or row["ciphertext"] is None:
            raise errors.not_found("provider" if row is None else "key")
        return SealedKey(**row, user_id=PLATFORM_USER if row["key_id"] is None else user_id)

    async def platform_keys(self) -> Mapping[UUID, KeptKey]:
        """Return the platform's keys, by provider."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PLATFORM_KEYS)
        return {row["provider_id"]: KeptKey(None, row["encrypted_api_key"]) for row in rows}

    async def mark_tried(self, key: SealedKey, refused_at: datetime | None) -> bool:
        """Note when a user's key was refused, or (None) that it works; True if that is news. A newer key is left."""
        async with self._database.connection() as connection:
            return bool(await connection.fetchval(MARK_TRIED, key.key_id, key.ciphertext, refused_at))

    async def mark_refused(self, pairs: Collection[tuple[UUID, UUID]], at: datetime) -> set[UUID]:
        """Note that providers refused users' keys, given as (user, provider), and return the users this changed.

        `at` is when they were tried: keys stored or changed since then are left alone, and later refusals stay.
        """
        return await self._mark(MARK_REFUSED, pairs, at)

    async def mark_working(self, pairs: Collection[tuple[UUID, UUID]]) -> set[UUID]:
        """Forget refusals of users' keys, given as (user, provider), and return the users this changed.

        Rows without a refusal are neither written nor locked.
        """
        return await self._mark(MARK_WORKING, pairs)

    async def _mark(self, statement: str, pairs: Collection[tuple[UUID, UUID]], *at: datetime) -> set[UUID]:
        if not pairs:
            return set()
        users, providers = [user for user, _ in pairs], [provider for _, provider in pairs]
        async with self._database.connection() as connection:
            return {row["user_id"] for row in await connection.fetch(statement, users, providers, *at)}
