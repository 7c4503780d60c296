from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from llmrouter_server.byok.store import WRITES_A_MINUTE, KeyStore
from llmrouter_server.errors import DomainError

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


async def provider_id(database: Database, name: str = "OpenAI") -> uuid.UUID:
    async with database.connection() as connection:
        return await connection.fetchval("select id from llm_providers where name = $1", name)


async def store(keys: KeyStore, user: uuid.UUID, provider: uuid.UUID, ciphertext: str = "c") -> tuple[uuid.UUID, bool]:
    key, is_new = await keys.store(
        user_id=user, provider_id=provider, ciphertext=ciphertext, prefix="sk-pro", metadata={}
    )
    return key.id, is_new


async def test_exactly_five_of_fifty_concurrent_writes_pass(keys: KeyStore) -> None:
    user = uuid.uuid4()
    outcomes = await asyncio.gather(*(keys.take_write(user) for _ in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) - len(refused) == WRITES_A_MINUTE == 5
    assert all(isinstance(outcome, DomainError) and outcome.reason == "RATE_LIMITED" for outcome in refused)
    assert all(1 <= outcome.retry_after_s <= 60 for outcome in refused)
    await keys.take_write(uuid.uuid4())  # another user's limit is their own


async def test_the_window_slides_and_tells_when_it_opens(keys: KeyStore, database: Database) -> None:
    user = uuid.uuid4()
    ages = [70, 50, 40, 30, 20]  # seconds; the first has left the window
    async with database.connection() as connection:
        await connection.execute(
            "insert into user_key_writes select $1, array(select now() - make_interval(secs => s)"
            " from unnest($2::float[]) s order by s desc)",
            user,
            [float(age) for age in ages],
        )
    await keys.take_write(user)  # the fifth within a minute
    with pytest.raises(DomainError) as refusal:
        await keys.take_write(user)
    assert 9 <= refusal.value.retry_after_s <= 10  # the write of 50 seconds ago leaves the window in 10
    async with database.connection() as connection:
        kept = await connection.fetchval("select cardinality(written_at) from user_key_writes where user_id = $1", user)
    assert kept == WRITES_A_MINUTE  # what left the window is forgotten


async def test_storing_again_replaces_and_reactivates(keys: KeyStore, database: Database) -> None:
    user, provider = uuid.uuid4(), await provider_id(database)
    first = await store(keys, user, provider, "first")
    async with database.connection() as connection:
        await connection.execute("update user_provider_keys set is_active = false where user_id = $1", user)
    second = await store(keys, user, provider, "second")
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0]
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select encrypted_api_key, is_active from user_provider_keys where user_id = $1", user
        )
    assert [tuple(row) for row in rows] == [("second", True)]


async def test_an_unknown_provider_is_not_found(keys: KeyStore) -> None:
    with pytest.raises(DomainError, match="no such provider"):
        await store(keys, uuid.uuid4(), uuid.uuid4())


async def test_nobody_deletes_another_users_key(keys: KeyStore, database: Database) -> None:
    owner, other = uuid.uuid4(), uuid.uuid4()
    key_id, _ = await store(keys, owner, await provider_id(database))
    with pytest.raises(DomainError, match="no such key"):
        await keys.delete(other, key_id)
    assert await keys.list(other, after=None, limit=10) == []
    assert [key.id for key in await keys.list(owner, after=None, limit=10)] == [key_id]
    await keys.delete(owner, key_id)
    assert await keys.list(owner, after=None, limit=10) == []


async def test_pages_are_by_provider_name(keys: KeyStore, database: Database) -> None:
    user = uuid.uuid4()
    for name in ("OpenAI", "Anthropic", "Groq"):
        await store(keys, user, await provider_id(database, name))
    first = await keys.list(user, after=None, limit=2)
    second = await keys.list(user, after=first[-1].provider_name, limit=2)
    assert [key.provider_name for key in (*first, *second)] == ["Anthropic", "Groq", "OpenAI"]
