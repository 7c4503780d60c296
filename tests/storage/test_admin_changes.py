from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from llmrouter_server.audit.changes import AdminChange, AdminChangeStore, Change, record_change

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database


@pytest.fixture
def changes(database: Database) -> AdminChangeStore:
    return AdminChangeStore(database)


async def record(database: Database, change: Change) -> None:
    async with database.transaction() as connection:
        await record_change(connection, change)


def of_provider(admin_id: uuid.UUID, resource_id: uuid.UUID, priority: int = 1) -> Change:
    return Change(
        admin_id=admin_id,
        resource="provider",
        resource_id=resource_id,
        action="update",
        before={"priority": 0},
        after={"priority": priority},
    )


async def test_a_change_is_read_as_it_was_recorded(database: Database, changes: AdminChangeStore) -> None:
    before = {"config": {"a": [1, True, None, "é"]}, "input_cost_per_1m": 0.15, "capabilities": []}
    change = Change(
        admin_id=uuid.uuid4(),
        resource="model",
        resource_id=uuid.uuid4(),
        action="disable",
        before=before,
        after={"config": {}, "input_cost_per_1m": 0, "capabilities": ["chat"]},
    )
    await record(database, change)
    (found,) = await changes.list(resource_id=change.resource_id, admin_id=None, after=None, limit=10)
    assert found == AdminChange(
        id=found.id,
        changed_at=found.changed_at,
        admin_id=change.admin_id,
        resource="model",
        resource_id=change.resource_id,
        action="disable",
        before=before,
        after=change.after,
    )
    assert found.id.version == 7
    assert abs(found.changed_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_change_of_a_platform_key_needs_no_fields(database: Database, changes: AdminChangeStore) -> None:
    change = Change(admin_id=uuid.uuid4(), resource="platform_key", resource_id=uuid.uuid4(), action="delete")
    await record(database, change)
    (found,) = await changes.list(resource_id=change.resource_id, admin_id=None, after=None, limit=10)
    assert (found.resource, found.action, found.before, found.after) == ("platform_key", "delete", {}, {})


async def test_a_change_that_is_rolled_back_is_not_recorded(database: Database, changes: AdminChangeStore) -> None:
    change = of_provider(uuid.uuid4(), uuid.uuid4())

    async def fail() -> None:
        async with database.transaction() as connection:
            await record_change(connection, change)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await changes.list(resource_id=change.resource_id, admin_id=None, after=None, limit=10) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_pages_are_newest_first_and_lose_none(database: Database, changes: AdminChangeStore, size: int) -> None:
    resource_id = uuid.uuid4()
    for priority in range(7):
        await record(database, of_provider(uuid.uuid4(), resource_id, priority))
    found: list[AdminChange] = []
    while page := await changes.list(
        resource_id=resource_id, admin_id=None, after=found[-1].id if found else None, limit=size
    ):
        assert len(page) <= size
        found += page
    assert [change.after["priority"] for change in found] == [6, 5, 4, 3, 2, 1, 0]


async def test_changes_are_found_by_thing_by_admin_by_both_and_by_none(
    database: Database, changes: AdminChangeStore
) -> None:
    (one, other), (first, second) = (uuid.uuid4(), uuid.uuid4()), (uuid.uuid4(), uuid.uuid4())
    pairs = [(one, first), (one, second), (other, first), (other, second)]
    for admin_id, resource_id in pairs:
        await record(database, of_provider(admin_id, resource_id))

    async def found(resource_id: uuid.UUID | None, admin_id: uuid.UUID | None) -> list[tuple[uuid.UUID, uuid.UUID]]:
        listed = await changes.list(resource_id=resource_id, admin_id=admin_id, after=None, limit=4)
        return [(change.admin_id, change.resource_id) for change in listed]

    assert await found(None, None) == pairs[::-1]
    assert await found(first, None) == [(other, first), (one, first)]
    assert await found(None, one) == [(one, second), (one, first)]
    assert await found(second, other) == [(other, second)]
    assert await found(uuid.uuid4(), one) == []
