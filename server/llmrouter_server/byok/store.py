"""All SQL of users' provider keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import uuid_utils.compat as uuid_utils

from llmrouter_server import errors

if TYPE_CHECKING:
    from collections.abc import Mapping
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

UPSERT_KEY = """
with stored as (
    insert into user_provider_keys as k (id, user_id, provider_id, encrypted_api_key, key_prefix, metadata)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (user_id, provider_id) do update set
        encrypted_api_key = excluded.encrypted_api_key, key_prefix = excluded.key_prefix,
        metadata = excluded.metadata, is_active = true, updated_at = now()
    returning *
)
select s.id, s.provider_id, p.name as provider_name, s.key_prefix, s.is_active, s.metadata, s.created_at, s.updated_at
from stored s inner join llm_providers p on p.id = s.provider_id"""

LIST_KEYS = """
select k.id, k.provider_id, p.name as provider_name, k.key_prefix, k.is_active, k.metadata, k.created_at, k.updated_at
from user_provider_keys k inner join llm_providers p on p.id = k.provider_id
where k.user_id = $1 and ($2::text is null or p.name > $2)
order by p.name
limit $3"""

DELETE_KEY = "delete from user_provider_keys where id = $1 and user_id = $2 returning true"


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


class KeyStore:
    """Users' keys; every method but the limit works on one user's own."""

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
