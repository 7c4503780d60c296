"""What a routing request reads: the caller's state in one query, and the catalogue when it has changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.settings.store import preferences_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.catalog.store import CatalogStore
    from llmrouter_server.runtime.database import Database
    from llmrouter_server.settings.preferences import Preferences

CALLER_STATE = """
select v.number, s.preferred_power_level, s.routing_config, s.monthly_budget_usd, s.updated_at,
    array(select k.provider_id from user_provider_keys k where k.user_id = $1 and k.is_active) as keyed_providers
from llm_catalog_version v left join user_llm_settings s on s.user_id = $1"""


@dataclass(frozen=True, slots=True)
class CallerState:
    """What routing knows of the user it routes for."""

    preferences: Preferences
    keyed_providers: AbstractSet[UUID]
    """Providers for which the user has an active key."""


class RoutingStore:
    """Reads a user's state, and keeps the newest snapshot of the catalogue."""

    def __init__(self, database: Database, catalog: CatalogStore) -> None:
        self._database, self._catalog = database, catalog
        self._snapshot: Snapshot | None = None
        self._loading = asyncio.Lock()

    async def read(self, user_id: UUID) -> tuple[CallerState, Snapshot]:
        """Return the user's state and a catalogue at least as new as it: every change committed before is seen."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(CALLER_STATE, user_id)
        preferences = preferences_of(row if row["preferred_power_level"] is not None else None)
        state = CallerState(preferences, frozenset(row["keyed_providers"]))
        return state, await self._at_least(row["number"])

    async def _at_least(self, number: int) -> Snapshot:
        if self._snapshot is None or self._snapshot.number < number:
            async with self._loading:
                if self._snapshot is None or self._snapshot.number < number:
                    self._snapshot = await self._catalog.load_snapshot()
        return self._snapshot
