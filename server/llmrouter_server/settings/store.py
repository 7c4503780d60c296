"""All SQL of users' preferences."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.settings.preferences import Preferences, RoutingConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

GET = """
select preferred_power_level, routing_config, monthly_budget_usd, on_budget_exceeded, updated_at
from user_llm_settings where user_id = $1"""

# Makes sure that there is a row to lock, so that two first changes at once do not lose one of them.
ENSURE = "insert into user_llm_settings (user_id) values ($1) on conflict (user_id) do nothing"
LOCK = GET + " for update"

PUT = """
update user_llm_settings set
    preferred_power_level = $2, routing_config = $3, monthly_budget_usd = $4, on_budget_exceeded = $5,
    updated_at = now()
where user_id = $1
returning preferred_power_level, routing_config, monthly_budget_usd, on_budget_exceeded, updated_at"""


class SettingsStore:
    """Reads and changes users' preferences."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: UUID) -> Preferences:
        """Return the user's preferences, or the defaults."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(GET, user_id)
        return preferences_of(row)

    async def change(self, user_id: UUID, change: Callable[[Preferences], Preferences]) -> Preferences:
        """Replace the preferences by what `change` makes of them, alone with them; whatever it raises undoes all."""
        async with self._database.transaction() as connection:
            await connection.execute(ENSURE, user_id)
            wanted = change(preferences_of(await connection.fetchrow(LOCK, user_id)))
            row = await connection.fetchrow(
                PUT,
                user_id,
                wanted.preferred_power_level.name,
                asdict(wanted.routing_config),
                wanted.monthly_budget_usd,
                wanted.on_budget_exceeded,
            )
        return preferences_of(row)


def preferences_of(row: Any) -> Preferences:  # noqa: ANN401 - asyncpg has no types
    """Read a row of user_llm_settings, or its absence."""
    if row is None:
        return Preferences()
    return Preferences(
        preferred_power_level=PowerLevel[row["preferred_power_level"]],
        routing_config=RoutingConfig().merged(row["routing_config"]),
        monthly_budget_usd=row["monthly_budget_usd"],
        on_budget_exceeded=row["on_budget_exceeded"],
        updated_at=row["updated_at"],
    )
