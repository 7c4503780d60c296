from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from google.protobuf.struct_pb2 import Struct

from custody import CANARY, NOT_TO_BE_SEEN, Custody, StubContext, calling, custody
from llmrouter.v2.byok_service_pb2 import (
    DeleteKeyRequest,
    ListKeysRequest,
    StoreKeyRequest,
    UpdateKeyRequest,
    VerifyKeyRequest,
)
from llmrouter_server.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter.v2.byok_pb2 import ProviderKey
    from llmrouter_server.runtime.database import Database

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


async def listed(keeper: Custody, user: uuid.UUID) -> list[ProviderKey]:
    with calling(user):
        return list((await keeper.byok.ListKeys(ListKeysRequest(), StubContext())).keys)


async def refuse(keeper: Custody, user: uuid.UUID, provider: uuid.UUID) -> None:
    await keeper.execute(
        "update user_provider_keys set refused_at = $3 where user_id = $1 and provider_id = $2",
        user,
        provider,
        LONG_AGO,
    )


async def test_a_key_is_stored_and_can_be_read_by_nobody(keeper: Custody) -> None:
    user, provider, context = uuid.uuid4(), await keeper.provider(), StubContext()
    with calling(user):
        stored = await keeper.byok.StoreKey(StoreKeyRequest(provider_id=str(provider), api_key=f" {CANARY}\n"), context)
    assert (stored.key_prefix, stored.is_active, stored.HasField("refused_at")) == ("sk-can", True, False)
    assert context.headers == (("x-http-code", "201"),)
    assert keeper.changed == [user]
    assert await listed(keeper, user) == [stored]
    assert NOT_TO_BE_SEEN not in str(stored)


async def test_storing_again_forgets_that_the_key_was_refused(keeper: Custody) -> None:
    user, provider, context = uuid.uuid4(), await keeper.provider(), StubContext()
    await keeper.store(user, provider)
    await refuse(keeper, user, provider)
    (before,) = await listed(keeper, user)
    assert before.refused_at.ToDatetime(UTC) == LONG_AGO
    with calling(user):
        await keeper.byok.StoreKey(StoreKeyRequest(provider_id=str(provider), api_key=CANARY), context)
    (after,) = await listed(keeper, user)
    assert not after.HasField("refused_at")
    assert (after.key_id, context.headers) == (before.key_id, ())


async def test_only_what_is_given_is_updated(keeper: Custody) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    key_id = str(await keeper.store(user, provider))
    await refuse(keeper, user, provider)
    notes = Struct()
    notes.update({"note": "mine"})
    with calling(user):
        off = await keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id, is_active=False), StubContext())
        noted = await keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id, metadata=notes), StubContext())
        emptied = await keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id, metadata=Struct()), StubContext())
    assert (off.is_active, noted.is_active, emptied.is_active) == (False, False, False)
    assert (dict(off.metadata), dict(noted.metadata), dict(emptied.metadata)) == ({}, {"note": "mine"}, {})
    assert off.refused_at == noted.refused_at == emptied.refused_at
    assert emptied.refused_at.ToDatetime(UTC) == LONG_AGO
    assert keeper.changed == [user] * 3


async def test_activating_forgets_that_the_key_was_refused(keeper: Custody) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    key_id = str(await keeper.store(user, provider))
    await refuse(keeper, user, provider)
    with calling(user):
        on = await keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id, is_active=True), StubContext())
    assert on.is_active
    assert not on.HasField("refused_at")
    assert on.updated_at.ToDatetime(UTC) > datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.parametrize("metadata", [{"note": "x" * 5000}, {"note": "a\0b"}, {"note": float("nan")}])
async def test_notes_that_cannot_be_kept_are_refused(keeper: Custody, metadata: dict[str, object]) -> None:
    notes = Struct()
    notes.update(metadata)
    with calling(uuid.uuid4()), pytest.raises(DomainError, match="metadata: must "):
        await keeper.byok.UpdateKey(UpdateKeyRequest(key_id=str(uuid.uuid4()), metadata=notes), StubContext())


async def test_nobody_touches_another_users_key(keeper: Custody) -> None:
    owner, other = uuid.uuid4(), uuid.uuid4()
    key_id = str(await keeper.store(owner, await keeper.provider()))
    for call in (
        keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id, is_active=False), StubContext()),
        keeper.byok.VerifyKey(VerifyKeyRequest(key_id=key_id), StubContext()),
        keeper.byok.DeleteKey(DeleteKeyRequest(key_id=key_id), StubContext()),
    ):
        with calling(other), pytest.raises(DomainError, match="there is no such key"):
            await call
    (key,) = await listed(keeper, owner)
    assert key.is_active
    assert keeper.changed == []
    assert await keeper.reads(owner) == await keeper.reads(other) == []


async def test_every_write_counts_and_the_sixth_within_a_minute_is_refused(keeper: Custody) -> None:
    user, provider = uuid.uuid4(), await keeper.provider(is_enabled=False)
    key_id = str(await keeper.store(user, provider))

    def call(name: str) -> object:
        match name:
            case "store":
                request = StoreKeyRequest(provider_id=str(provider), api_key=CANARY)
                return keeper.byok.StoreKey(request, StubContext())
            case "update":
                return keeper.byok.UpdateKey(UpdateKeyRequest(key_id=key_id), StubContext())
            case "verify":
                return keeper.byok.VerifyKey(VerifyKeyRequest(key_id=key_id), StubContext())
            case _:
                return keeper.byok.DeleteKey(DeleteKeyRequest(key_id=key_id), StubContext())

    with calling(user):
        for name in ("store", "update", "verify", "verify", "update"):
            await call(name)
        for name in ("store", "update", "verify", "delete"):
            with pytest.raises(DomainError) as error:
                await call(name)
            assert error.value.reason == "RATE_LIMITED"
    assert len(await listed(keeper, user)) == 1


async def test_a_wrong_request_counts_for_nothing(keeper: Custody) -> None:
    user = uuid.uuid4()
    with calling(user):
        for _ in range(6):
            with pytest.raises(DomainError, match="key_id: must be a UUID"):
                await keeper.byok.VerifyKey(VerifyKeyRequest(key_id="x"), StubContext())
        key_id = str(await keeper.store(user, await keeper.provider()))
        await keeper.byok.DeleteKey(DeleteKeyRequest(key_id=key_id), StubContext())
    assert keeper.changed == [user]
