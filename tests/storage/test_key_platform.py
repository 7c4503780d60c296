from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from custody import NOT_TO_BE_SEEN, Custody, custody
from llmrouter_server.audit.changes import AdminChange, AdminChangeStore
from llmrouter_server.byok.cipher import Credential, DecryptionError
from llmrouter_server.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.database import Database

FIRST, SECOND = Credential("gsk_01-canary-0123456789"), Credential("gsk_02-canary-0123456789")


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


async def changes(keeper: Custody, provider: uuid.UUID) -> list[AdminChange]:
    """Return what was changed of the provider, oldest first."""
    found = await AdminChangeStore(keeper.database).list(resource_id=provider, admin_id=None, after=None, limit=100)
    return found[::-1]


async def revealed(keeper: Custody, provider: uuid.UUID) -> str | None:
    credential = await keeper.platform.get(provider)
    return credential.reveal() if credential is not None else None


async def test_a_platform_key_comes_changes_and_goes_on_the_record(keeper: Custody) -> None:
    provider, admin = await keeper.provider(), uuid.uuid4()
    assert await revealed(keeper, provider) is None
    await keeper.platform.set(provider, FIRST, admin_id=admin)
    assert await revealed(keeper, provider) == FIRST.reveal()
    await keeper.platform.set(provider, SECOND, admin_id=admin)
    assert await revealed(keeper, provider) == SECOND.reveal()
    await keeper.platform.delete(provider, admin_id=admin)
    assert await revealed(keeper, provider) is None
    found = await changes(keeper, provider)
    first, second = ({"is_set": True, "key_prefix": prefix} for prefix in ("gsk_01", "gsk_02"))
    assert [(change.action, change.before, change.after) for change in found] == [
        ("create", {}, first),
        ("update", first, second),
        ("delete", second, {"is_set": False}),
    ]
    assert {(change.admin_id, change.resource) for change in found} == {(admin, "platform_key")}
    assert NOT_TO_BE_SEEN not in str(found)


async def test_erasing_what_is_not_there_is_no_error_and_no_change(keeper: Custody) -> None:
    provider = await keeper.provider()
    await keeper.platform.delete(provider, admin_id=uuid.uuid4())
    assert await changes(keeper, provider) == []


async def test_an_unknown_provider_is_not_found(keeper: Custody) -> None:
    nobody = uuid.uuid4()
    for change in (
        keeper.platform.set(nobody, FIRST, admin_id=uuid.uuid4()),
        keeper.platform.delete(nobody, admin_id=uuid.uuid4()),
    ):
        with pytest.raises(DomainError, match="there is no such provider"):
            await change
    assert await keeper.platform.get(nobody) is None
    assert await changes(keeper, nobody) == []


async def test_a_change_without_its_record_does_not_happen(keeper: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, admin = await keeper.provider(), uuid.uuid4()

    async def fail(*_: Any) -> None:
        raise RuntimeError("no")

    await keeper.platform.set(provider, FIRST, admin_id=admin)
    monkeypatch.setattr("llmrouter_server.byok.platform.record_change", fail)
    for change in (
        keeper.platform.set(provider, SECOND, admin_id=admin),
        keeper.platform.delete(provider, admin_id=admin),
    ):
        with pytest.raises(RuntimeError):
            await change
    assert await revealed(keeper, provider) == FIRST.reveal()


async def test_changes_at_once_are_recorded_one_after_the_other(keeper: Custody) -> None:
    provider, admin = await keeper.provider(), uuid.uuid4()
    await asyncio.gather(
        *(keeper.platform.set(provider, Credential(f"gsk_{n:02}-0123456789"), admin_id=admin) for n in range(10))
    )
    async with keeper.database.connection() as connection:
        rows = await connection.fetch(
            "select before, after from llm_admin_changes where resource_id = $1 order by changed_at", provider
        )
    assert len(rows) == 10
    assert [row["before"] for row in rows] == [{}, *(row["after"] for row in rows[:-1])]
    assert (await revealed(keeper, provider) or "")[:6] == rows[-1]["after"]["key_prefix"]


async def test_a_platform_key_is_bound_to_its_provider(keeper: Custody) -> None:
    one, other = await keeper.provider(), await keeper.provider()
    for provider, credential in ((one, FIRST), (other, SECOND)):
        await keeper.platform.set(provider, credential, admin_id=uuid.uuid4())
    await keeper.execute(
        "update llm_platform_keys set encrypted_api_key ="
        " (select encrypted_api_key from llm_platform_keys where provider_id = $2) where provider_id = $1",
        one,
        other,
    )
    with pytest.raises(DecryptionError, match="belongs to another"):
        await keeper.platform.get(one)
