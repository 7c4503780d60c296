from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.settings.preferences import Preferences
from llmrouter_server.settings.store import SettingsStore

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database


async def test_who_never_changed_any_has_the_defaults(database: Database) -> None:
    assert await SettingsStore(database).get(uuid.uuid4()) == Preferences()


async def test_concurrent_first_changes_of_different_fields_all_last(database: Database) -> None:
    store, user = SettingsStore(database), uuid.uuid4()
    changes = (
        lambda current: replace(current, preferred_power_level=PowerLevel.ECO),
        lambda current: replace(current, monthly_budget_usd=Decimal("12.34")),
        lambda current: replace(current, routing_config=current.routing_config.merged({"strategy": "cost_optimized"})),
    )
    await asyncio.gather(*(store.change(user, change) for change in changes))
    result = await store.get(user)
    assert result.preferred_power_level is PowerLevel.ECO
    assert result.monthly_budget_usd == Decimal("12.34")
    assert result.routing_config.strategy == "cost_optimized"


async def test_a_refused_change_leaves_nothing(database: Database) -> None:
    store, user = SettingsStore(database), uuid.uuid4()

    def refuse(_current: Preferences) -> Preferences:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.change(user, refuse)
    assert await store.get(user) == Preferences()
