"""Keys kept in memory for the gateway: what is read, what is told of changes, and how many are opened at once."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from custody import CANARY, NOT_TO_BE_SEEN, Custody, custody
from llmrouter_server.byok import store
from llmrouter_server.byok.cipher import Credential
from llmrouter_server.byok.live_keys import CHANNEL, KeptKey
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.payment import find_keys
from llmrouter_server.routing.state import USER_CHANNEL
from llmrouter_server.routing.store import RoutingStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter_server.byok.store import SealedKey
    from llmrouter_server.runtime.database import Database

MONTH = date(2026, 3, 1)
PLATFORM_KEY, OTHER_KEY = "sk-platform-canary-0123456789", "sk-other-canary-0123456789"
PATIENCE_S = 10


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


# --- what is read ---


async def test_a_users_state_has_their_active_keys_still_encrypted(keeper: Custody) -> None:
    user, (one, other, inactive) = uuid.uuid4(), [await keeper.provider() for _ in range(3)]
    ids = {provider: await keeper.store(user, provider) for provider in (one, other, inactive)}
    await keeper.store(uuid.uuid4(), one)
    await keeper.keys.update(user, ids[inactive], is_active=False, metadata=None)
    await keeper.keys.mark_tried(await keeper.keys.find(user, ids[other]), datetime(2026, 3, 1, tzinfo=UTC))
    state = await RoutingStore(keeper.database).user_state(user, MONTH)
    assert state.keyed_providers == state.sealed_keys.keys() == {one, other}
    assert state.refused_at == {other: datetime(2026, 3, 1, tzinfo=UTC)}
    for provider, kept in state.sealed_keys.items():
        assert kept == KeptKey(ids[provider], (await keeper.keys.find(user, ids[provider])).ciphertext)


async def test_a_user_without_keys_has_none(keeper: Custody) -> None:
    state = await RoutingStore(keeper.database).user_state(uuid.uuid4(), MONTH)
    assert (state.keyed_providers, state.sealed_keys, state.refused_at) == (frozenset(), {}, None)


async def test_all_platform_keys_are_read_at_once(keeper: Custody) -> None:
    with_key, without = await keeper.provider(), await keeper.provider()
    await keeper.platform.set(with_key, Credential(PLATFORM_KEY), admin_id=uuid.uuid4())
    keys = await keeper.keys.platform_keys()
    assert without not in keys
    assert keys[with_key].key_id is None
    opened = keeper.cipher.decrypt(keys[with_key].ciphertext, user_id=uuid.UUID(int=0), provider_id=with_key)
    assert opened.reveal() == PLATFORM_KEY


# --- what is told ---


@asynccontextmanager
async def hearing(url: str, channel: str) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Listen; the function it gives returns what was told before it was called, and since it last was."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(url)
    await connection.add_listener(channel, lambda *told: heard.put_nowait(told[3]))

    async def told() -> list[str]:
        await connection.execute("select pg_notify($1, 'end')", channel)
        async with asyncio.timeout(PATIENCE_S):
            payloads = []
            while (payload := await heard.get()) != "end":
                payloads.append(payload)
        return payloads

    yield told
    await connection.close()


async def test_every_change_of_a_users_key_is_told(keeper: Custody, database: Database) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    async with hearing(database._url, USER_CHANNEL) as told:
        key_id = await keeper.store(user, provider)
        assert str(user) in await told()
        await keeper.store(user, provider, OTHER_KEY)
        assert str(user) in await told()
        sealed = await keeper.keys.find(user, key_id)
        again = keeper.cipher.encrypt(Credential(OTHER_KEY), user_id=user, provider_id=provider)
        await keeper.execute(store.RESEAL, [key_id], [sealed.ciphertext], [again])
        assert str(user) in await told()
        await keeper.keys.update(user, key_id, is_active=False, metadata=None)
        assert str(user) in await told()
        await keeper.keys.delete(user, key_id)
        assert str(user) in await told()
        await keeper.store(user, provider)
        await told()
        await keeper.execute("update user_provider_keys set metadata = '{\"a\": 1}' where user_id = $1", user)
        assert str(user) not in await told()


async def test_every_change_of_a_platform_key_is_told(keeper: Custody, database: Database) -> None:
    provider, admin = await keeper.provider(), uuid.uuid4()
    async with hearing(database._url, CHANNEL) as told:
        for plaintext in (PLATFORM_KEY, OTHER_KEY):
            await keeper.platform.set(provider, Credential(plaintext), admin_id=admin)
            assert await told()
        kept = (await keeper.keys.platform_keys())[provider].ciphertext
        again = keeper.cipher.encrypt(Credential(OTHER_KEY), user_id=uuid.UUID(int=0), provider_id=provider)
        await keeper.execute(store.RESEAL_PLATFORM, [provider], [kept], [again])
        assert await told()
        await keeper.platform.delete(provider, admin_id=admin)
        assert await told()
        await keeper.store(uuid.uuid4(), provider)
        assert await told() == []


async def test_whoever_changed_a_platform_key_is_told_at_once(keeper: Custody) -> None:
    provider, admin, seen = await keeper.provider(), uuid.uuid4(), []
    platform = PlatformKeyStore(keeper.database, keeper.cipher, lambda: seen.append("changed"))
    await platform.set(provider, Credential(PLATFORM_KEY), admin_id=admin)
    await platform.delete(provider, admin_id=admin)
    with pytest.raises(DomainError):
        await platform.set(uuid.uuid4(), Credential(PLATFORM_KEY), admin_id=admin)
    assert seen == ["changed", "changed"]


# --- how they are opened ---


async def sealed_keys(keeper: Custody, user: uuid.UUID) -> list[SealedKey]:
    """Return a key of the user's own, the platform's, and another of their own, from memory as the router does."""
    own, free, other = await keeper.provider(), await keeper.provider(requires_byok=False), await keeper.provider()
    await keeper.store(user, own)
    await keeper.store(user, other, OTHER_KEY)
    await keeper.platform.set(free, Credential(PLATFORM_KEY), admin_id=uuid.uuid4())
    for provider in (own, free, other):
        await keeper.execute(
            "insert into llm_models (provider_id, model_name, display_name, power_level) values ($1, 'm', 'm', 'ECO')",
            provider,
        )
    models = [
        each
        for each in (await CatalogStore(keeper.database).load_snapshot()).models
        if each.provider_id in {own, free, other}
    ]
    state = await RoutingStore(keeper.database).user_state(user, MONTH)
    keys = find_keys(models, user, state.sealed_keys, await keeper.keys.platform_keys())
    for provider, key in keys.items():
        assert key == await keeper.keys.find_usable(user, provider)
    return [keys[own], keys[free], keys[other]]


async def test_a_key_is_unlocked_with_the_reading_that_is_to_be_committed(keeper: Custody) -> None:
    user, reader, decision = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    keys = await sealed_keys(keeper, user)
    unlocked = [
        keeper.credentials.unlock(key, user_id=user, reader_id=reader, purpose="gateway", decision_id=decision)
        for key in keys
    ]
    assert [opened.credential.reveal() for opened, _ in unlocked] == [CANARY, PLATFORM_KEY, OTHER_KEY]
    assert [opened.sealed for opened, _ in unlocked] == keys
    assert [(read.provider_id, read.key_id, read.payer) for _, read in unlocked] == [
        (key.provider_id, key.key_id, key.payer) for key in keys
    ]
    assert {(read.user_id, read.reader_id, read.purpose, read.decision_id) for _, read in unlocked} == {
        (user, reader, "gateway", decision)
    }
    assert NOT_TO_BE_SEEN not in f"{unlocked!r} {keys!r}"
    assert await keeper.reads(user) == []


async def test_a_key_that_was_put_in_anothers_place_is_not_unlocked(keeper: Custody) -> None:
    user = uuid.uuid4()
    one, _, _ = await sealed_keys(keeper, user)
    stranger, provider = uuid.uuid4(), await keeper.provider()
    another = await keeper.keys.find(stranger, await keeper.store(stranger, provider))
    moved = store.SealedKey(
        key_id=one.key_id,
        user_id=user,
        provider_id=provider,
        provider_type="openai",
        api_endpoint="",
        is_enabled=True,
        ciphertext=another.ciphertext,
    )
    with pytest.raises(DomainError) as error:
        keeper.credentials.unlock(moved, user_id=user, reader_id=user, purpose="gateway")
    assert error.value.reason == "INTERNAL"
