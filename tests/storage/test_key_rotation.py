from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from custody import CANARY, NOT_TO_BE_SEEN
from databases import started
from llmrouter_server.byok import store
from llmrouter_server.byok.cipher import PLATFORM_USER, Cipher, Credential
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.byok.rotation import Rotation, Unreadable, rotate
from llmrouter_server.byok.store import KeyStore
from llmrouter_server.runtime.command import CommandError
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
IS_WAITING = """
select count(*) > 0 from pg_stat_activity
where datname = current_database() and application_name = 'llmrouter command' and wait_event_type = 'Lock'"""
BEFORE, DURING, AFTER = Cipher([OLD]), Cipher([NEW, OLD]), Cipher([NEW])


class Keys:
    """Keys of one's own, to rotate."""

    def __init__(self, url: str, database: Database, providers: list[uuid.UUID]) -> None:
        self.url, self.database, self.providers = url, database, providers
        self.store = KeyStore(database)

    async def put(self, user: uuid.UUID, plaintext: str = CANARY, *, cipher: Cipher = BEFORE) -> uuid.UUID:
        """Store a user's key for the first provider."""
        provider = self.providers[0]
        ciphertext = cipher.encrypt(Credential(plaintext), user_id=user, provider_id=provider)
        key, _ = await self.store.store(
            user_id=user, provider_id=provider, ciphertext=ciphertext, prefix="sk-can", metadata={}
        )
        return key.id

    async def put_many(self, count: int) -> list[uuid.UUID]:
        """Store keys of as many users."""
        users = [uuid.uuid4() for _ in range(count)]
        for user in users:
            await self.put(user, f"{CANARY}-{user}")
        return users

    async def revealed(self, user: uuid.UUID, cipher: Cipher = AFTER) -> str:
        """Return a user's key in plaintext; DecryptionError when the cipher cannot."""
        sealed = await self.store.find_usable(user, self.providers[0])
        return cipher.decrypt(sealed.ciphertext, user_id=user, provider_id=self.providers[0]).reveal()

    async def current(self) -> int:
        """Count the users' keys that are by the new key."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("select encrypted_api_key from user_provider_keys")
        return sum(AFTER.is_current(row[0]) for row in rows)

    async def rotate(self, cipher: Cipher = DURING, batch: int = 500) -> Rotation:
        return await rotate(self.url, cipher, progress=lambda _done, _total: None, batch=batch)


@pytest.fixture
async def keys(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Keys]:
    url = await migrated_database()
    database = await started(Database(url, min_size=1, max_size=5))
    async with database.connection() as connection:
        rows = await connection.fetch("select id from llm_providers order by id")
    yield Keys(url, database, [row["id"] for row in rows])
    await database.stop()


async def test_every_key_is_encrypted_anew_and_stays_the_same_key(keys: Keys) -> None:
    users = await keys.put_many(7)
    fresh = uuid.uuid4()
    await keys.put(fresh, cipher=DURING)
    platform = PlatformKeyStore(keys.database, BEFORE)
    for number, provider in enumerate(keys.providers[:3]):
        await platform.set(provider, Credential(f"platform-key-{number:04}"), admin_id=fresh)
    told: list[tuple[int, int]] = []
    rotation = await rotate(keys.url, DURING, progress=lambda done, total: told.append((done, total)), batch=3)
    assert rotation == Rotation(rotated=10, current=1, replaced=0, unreadable=())
    assert told == [(3, 11), (6, 11), (8, 11), (11, 11)]
    assert [await keys.revealed(user) for user in users] == [f"{CANARY}-{user}" for user in users]
    assert await keys.revealed(fresh) == CANARY
    after = PlatformKeyStore(keys.database, AFTER)
    for number, provider in enumerate(keys.providers[:3]):
        credential = await after.get(provider)
        assert credential is not None
        assert credential.reveal() == f"platform-key-{number:04}"


async def test_doing_it_again_does_nothing(keys: Keys) -> None:
    await keys.put_many(5)
    await keys.rotate()
    assert await keys.rotate() == Rotation(rotated=0, current=5, replaced=0, unreadable=())
    assert await keys.rotate(AFTER) == Rotation(rotated=0, current=5, replaced=0, unreadable=())


async def test_nothing_to_rotate_is_no_error(keys: Keys) -> None:
    assert await keys.rotate() == Rotation(rotated=0, current=0, replaced=0, unreadable=())


async def test_rotating_is_no_change_of_the_users(keys: Keys) -> None:
    (user,) = await keys.put_many(1)
    before = await keys.store.list(user, after=None, limit=1)
    await keys.rotate()
    assert await keys.store.list(user, after=None, limit=1) == before


async def test_it_can_be_stopped_in_the_middle_and_resumed(keys: Keys) -> None:
    users = await keys.put_many(9)
    enough = asyncio.Event()

    def stop_after_the_second_batch(done: int, _total: int) -> None:
        if done == 4:
            enough.set()

    running = asyncio.create_task(rotate(keys.url, DURING, progress=stop_after_the_second_batch, batch=2))
    await enough.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    done = await keys.current()
    assert 4 <= done < 9
    rotation = await keys.rotate(batch=2)
    assert (rotation.rotated, rotation.current) == (9 - done, done)
    assert [await keys.revealed(user) for user in users] == [f"{CANARY}-{user}" for user in users]


async def test_a_key_that_is_replaced_meanwhile_is_left_alone(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    users = await keys.put_many(3)
    # The one is replaced, the other is erased, after they were read and before they are written.
    reencrypt = DURING.reencrypt
    seen: list[str] = []

    def reencrypt_and_look(ciphertext: str, **owner: uuid.UUID) -> str:
        seen.append(ciphertext)
        return reencrypt(ciphertext, **owner)

    monkeypatch.setattr(DURING, "reencrypt", reencrypt_and_look)
    async with keys.database.transaction() as connection:
        await connection.fetch("select id from user_provider_keys for update")
        running = asyncio.create_task(keys.rotate())
        while len(seen) < 3 or not await connection.fetchval(IS_WAITING):
            await asyncio.sleep(0.01)
        replaced = BEFORE.encrypt(Credential("newer"), user_id=users[0], provider_id=keys.providers[0])
        await connection.execute(
            "update user_provider_keys set encrypted_api_key = $2 where user_id = $1", users[0], replaced
        )
        await connection.execute("delete from user_provider_keys where user_id = $1", users[1])
    assert await running == Rotation(rotated=1, current=0, replaced=2, unreadable=())
    assert await keys.revealed(users[0], BEFORE) == "newer"
    assert await keys.revealed(users[2]) == f"{CANARY}-{users[2]}"


async def test_users_who_store_keys_meanwhile_lose_none(keys: Keys) -> None:
    users = await keys.put_many(60)
    latest = dict.fromkeys(users, "")
    done = asyncio.Event()

    async def keep_storing(mine: list[uuid.UUID]) -> None:
        turn = 0
        while not done.is_set():
            for user in mine:
                turn += 1
                latest[user] = f"{user}-{turn}"
                await keys.put(user, latest[user], cipher=DURING)

    storing = [asyncio.create_task(keep_storing(users[start::3])) for start in range(3)]
    await asyncio.sleep(0)
    for _ in range(3):
        rotation = await keys.rotate(batch=7)
        assert rotation.unreadable == ()
    done.set()
    await asyncio.gather(*storing)
    assert {user: await keys.revealed(user) for user in users} == latest


async def test_two_at_once_do_each_key_once(keys: Keys) -> None:
    users = await keys.put_many(50)
    rotations = await asyncio.gather(*(keys.rotate(batch=size) for size in (7, 50, 11)))
    assert sum(rotation.rotated for rotation in rotations) == 50
    assert all(rotation.rotated + rotation.current + rotation.replaced == 50 for rotation in rotations)
    assert [await keys.revealed(user) for user in users] == [f"{CANARY}-{user}" for user in users]


async def test_unreadable_rows_are_told_by_their_ids_and_left_as_they_are(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, moved, strange, spoiled = uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    provider = keys.providers[0]
    ids = [
        await keys.put(user, cipher=cipher)
        for user, cipher in (
            (good, BEFORE),
            (moved, DURING),
            (strange, Cipher([Fernet.generate_key().decode()])),
            (spoiled, BEFORE),
        )
    ]
    async with keys.database.connection() as connection:
        statement = "update user_provider_keys set encrypted_api_key = $2 where user_id = $1"
        await connection.execute(
            statement, moved, AFTER.encrypt(Credential(CANARY), user_id=good, provider_id=provider)
        )
        await connection.execute(statement, spoiled, "spoiled")
        await connection.execute(store.UPSERT_PLATFORM_KEY, provider, "spoiled", "sk-can")
        before = await connection.fetch("select * from user_provider_keys where user_id <> $1 order by id", good)
    rotation = await keys.rotate(batch=2)
    assert (rotation.rotated, rotation.current, rotation.replaced) == (1, 0, 0)
    assert set(rotation.unreadable) == {
        *(Unreadable("user key", key_id) for key_id in ids[1:]),
        Unreadable("platform key", provider),
    }
    async with keys.database.connection() as connection:
        after = await connection.fetch("select * from user_provider_keys where user_id <> $1 order by id", good)
    assert after == before
    assert NOT_TO_BE_SEEN not in f"{rotation} {caplog.text}"


async def test_a_platform_key_is_bound_to_the_nil_user(keys: Keys) -> None:
    provider = keys.providers[0]
    someones = BEFORE.encrypt(Credential(CANARY), user_id=uuid.uuid4(), provider_id=provider)
    async with keys.database.connection() as connection:
        await connection.execute(store.UPSERT_PLATFORM_KEY, provider, someones, "sk-can")
    assert (await keys.rotate()).unreadable == (Unreadable("platform key", provider),)
    assert uuid.UUID(int=0) == PLATFORM_USER


async def test_a_database_that_cannot_be_used_is_told_in_a_sentence(
    keys: Keys, empty_database: Callable[[], Awaitable[str]]
) -> None:
    for url, sentence in ((await empty_database(), "not migrated"), (keys.url + "_missing", "cannot be reached")):
        with pytest.raises(CommandError, match=sentence):
            await rotate(url, DURING, progress=lambda _done, _total: None)
