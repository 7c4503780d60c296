"""The door of the settings: SettingsService."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmrouter.v2 import settings_pb2, settings_service_pb2, settings_service_pb2_grpc
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.runtime.interceptor import current_caller
from llmrouter_server.runtime.messages import timestamp
from llmrouter_server.settings.preferences import MAX_BUDGET_USD, ON_BUDGET_EXCEEDED, Preferences

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.runtime.interceptor import Context
    from llmrouter_server.settings.store import SettingsStore


class SettingsService(settings_service_pb2_grpc.SettingsServiceServicer):
    """The caller's own preferences."""

    def __init__(
        self,
        store: SettingsStore,
        month_spend: Callable[[UUID], Awaitable[Decimal]],
        changed: Callable[[UUID], None],
    ) -> None:
        """`changed` is told whose preferences are not what they were."""
        self._store, self._month_spend, self._tell_changed = store, month_spend, changed

    async def GetSettings(
        self, _request: settings_service_pb2.GetSettingsRequest, _context: Context
    ) -> settings_pb2.Settings:
        user_id = current_caller().user_id
        return await self._settings(user_id, await self._store.get(user_id))

    async def UpdateSettings(
        self, request: settings_service_pb2.UpdateSettingsRequest, _context: Context
    ) -> settings_pb2.Settings:
        user_id = current_caller().user_id
        changed = await self._store.change(user_id, lambda current: _changed(current, request))
        self._tell_changed(user_id)
        return await self._settings(user_id, changed)

    async def _settings(self, user_id: UUID, preferences: Preferences) -> settings_pb2.Settings:
        config, budget = preferences.routing_config, preferences.monthly_budget_usd
        return settings_pb2.Settings(
            user_id=str(user_id),
            preferred_power_level=power_level_message(preferences.preferred_power_level),
            routing_config=settings_pb2.RoutingConfig(
                strategy=config.strategy,
                cost_weight=config.cost_weight,
                latency_weight=config.latency_weight,
                quality_weight=config.quality_weight,
            ),
            monthly_budget_usd=float(budget) if budget is not None else None,
            current_month_spend_usd=float(await self._month_spend(user_id)),
            updated_at=timestamp(preferences.updated_at) if preferences.updated_at else None,
            on_budget_exceeded=preferences.on_budget_exceeded,
        )


def _changed(current: Preferences, request: settings_service_pb2.UpdateSettingsRequest) -> Preferences:
    """Merge a request into the preferences; INVALID_FIELD when the result is not valid."""
    fields = Fields()
    level = read_power_level(fields, "preferred_power_level", request.preferred_power_level)
    config = current.routing_config.merged({field.name: value for field, value in request.routing_config.ListFields()})
    config.check(fields)
    budget = current.monthly_budget_usd
    if request.HasField("monthly_budget_usd"):
        budget = fields.dollars("monthly_budget_usd", request.monthly_budget_usd, most=MAX_BUDGET_USD)
        if request.clear_monthly_budget:
            fields.wrong("clear_monthly_budget", "cannot go together with monthly_budget_usd")
    elif request.clear_monthly_budget:
        budget = None
    on_exceeded = current.on_budget_exceeded
    if request.HasField("on_budget_exceeded"):
        on_exceeded = fields.one_of("on_budget_exceeded", request.on_budget_exceeded, ON_BUDGET_EXCEEDED)
    fields.done()
    return replace(
        current,
        preferred_power_level=level or current.preferred_power_level,
        routing_config=config,
        monthly_budget_usd=budget,
        on_budget_exceeded=on_exceeded,
    )
