"""What admins changed: the record of a change, and all SQL of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import uuid_utils.compat as uuid_utils

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

Resource: TypeAlias = Literal["provider", "model", "routing_rule", "platform_key"]
Action: TypeAlias = Literal["create", "update", "disable", "delete"]

# clock_timestamp, because a change may have waited for the lock of the thing it changes.
INSERT = """
insert into llm_admin_changes (id, changed_at, admin_id, resource, resource_id, action, before, after)
values ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7)"""

LIST = """
select id, changed_at, admin_id, resource, resource_id, action, before, after
from llm_admin_changes
where ($1::uuid is null or resource_id = $1)
    and ($2::uuid is null or admin_id = $2)
    and ($3::uuid is null or id < $3)
order by id desc
limit $4"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an admin does to one thing. The values are JSON, and never a key."""

    admin_id: UUID
    resource: Resource
    resource_id: UUID
    """Of the provider, for a platform key."""
    action: Action
    before: Mapping[str, object] = field(default_factory=dict)
    """The fields that differ, as they were; empty for a creation."""
    after: Mapping[str, object] = field(default_factory=dict)
    """The same fields as they became; all of them for a creation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange(Change):
    """A change as it was recorded."""

    id: UUID
    """UUIDv7: the order of changes."""
    changed_at: datetime


async def record_change(connection: Any, change: Change) -> None:  # noqa: ANN401 - asyncpg has no types
    """Record the change in the transaction that makes it: both are there, or neither."""
    await connection.execute(
        INSERT,
        uuid_utils.uuid7(),
        change.admin_id,
        change.resource,
        change.resource_id,
        change.action,
        dict(change.before),
        dict(change.after),
    )


class AdminChangeStore:
    """Reads what admins changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, *, resource_id: UUID | None, admin_id: UUID | None, after: UUID | None, limit: int
    ) -> list[AdminChange]:
        """List changes, newest first, from after the one with this id; of one thing or by one admin if given."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST, resource_id, admin_id, after, limit)
        return [AdminChange(**row) for row in rows]


def differing(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the fields of two JSON objects with the same fields that differ, as they were and as they became."""
    names = [name for name in after if not _same_json(before[name], after[name])]
    return {name: before[name] for name in names}, {name: after[name] for name in names}


def _same_json(one: object, other: object) -> bool:
    """Tell whether two values are the same JSON. For Python alone, true is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)  # Postgres writes 1e+30 as 31 digits, which are read as an int
    return one == other
