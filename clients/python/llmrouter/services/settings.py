"""SettingsService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2.power_level_pb2 import PowerLevel
from llmrouter.v2.settings_pb2 import Settings
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest, UpdateSettingsRequest

if TYPE_CHECKING:
    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers
    from llmrouter.v2.settings_pb2 import RoutingConfig

_SERVICE = "/llmrouter.v2.SettingsService/"


class SettingsService:
    """The caller's own preferences.

    Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.GetSettings = channel.unary(_SERVICE + "GetSettings", GetSettingsRequest, Settings)
        """As get_settings, with the messages of the protos."""
        self.UpdateSettings = channel.unary(_SERVICE + "UpdateSettings", UpdateSettingsRequest, Settings)
        """As update_settings, with the messages of the protos."""

    def get_settings(self, *, timeout: float | None = None, headers: Headers | None = None) -> Settings:
        """Returns the caller's preferences, or the defaults."""
        request = GetSettingsRequest()
        return self.GetSettings(request, timeout=timeout, metadata=headers)

    def update_settings(
        self,
        *,
        preferred_power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        routing_config: RoutingConfig | None = None,
        monthly_budget_usd: float | None = None,
        clear_monthly_budget: bool = False,
        on_budget_exceeded: str | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Settings:
        """Changes the given preferences and leaves the others as they are.

        Errors: INVALID_FIELD, also when the merged routing_config is not valid as a whole.

        preferred_power_level: The level to use when a request names none.
        routing_config: Merged, field by field, into the stored one; the result is validated as a whole.
        monthly_budget_usd: The most to spend in a calendar month, 0 to 1,000,000 US dollars with at most 2
            decimals.
        clear_monthly_budget: Removes the budget. Not together with monthly_budget_usd. Default false.
        on_budget_exceeded: What to do once the budget is used up: `downgrade` or `reject`.
        """
        request = UpdateSettingsRequest(
            preferred_power_level=preferred_power_level,
            routing_config=routing_config,
            monthly_budget_usd=monthly_budget_usd,
            clear_monthly_budget=clear_monthly_budget,
            on_budget_exceeded=on_budget_exceeded,
        )
        return self.UpdateSettings(request, timeout=timeout, metadata=headers)


class AsyncSettingsService:
    """The caller's own preferences.

    Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.GetSettings = channel.unary(_SERVICE + "GetSettings", GetSettingsRequest, Settings)
        """As get_settings, with the messages of the protos."""
        self.UpdateSettings = channel.unary(_SERVICE + "UpdateSettings", UpdateSettingsRequest, Settings)
        """As update_settings, with the messages of the protos."""

    async def get_settings(self, *, timeout: float | None = None, headers: Headers | None = None) -> Settings:
        """Returns the caller's preferences, or the defaults."""
        request = GetSettingsRequest()
        return await self.GetSettings(request, timeout=timeout, metadata=headers)

    async def update_settings(
        self,
        *,
        preferred_power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        routing_config: RoutingConfig | None = None,
        monthly_budget_usd: float | None = None,
        clear_monthly_budget: bool = False,
        on_budget_exceeded: str | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Settings:
        """Changes the given preferences and leaves the others as they are.

        Errors: INVALID_FIELD, also when the merged routing_config is not valid as a whole.

        preferred_power_level: The level to use when a request names none.
        routing_config: Merged, field by field, into the stored one; the result is validated as a whole.
        monthly_budget_usd: The most to spend in a calendar month, 0 to 1,000,000 US dollars with at most 2
            decimals.
        clear_monthly_budget: Removes the budget. Not together with monthly_budget_usd. Default false.
        on_budget_exceeded: What to do once the budget is used up: `downgrade` or `reject`.
        """
        request = UpdateSettingsRequest(
            preferred_power_level=preferred_power_level,
            routing_config=routing_config,
            monthly_budget_usd=monthly_budget_usd,
            clear_monthly_budget=clear_monthly_budget,
            on_budget_exceeded=on_budget_exceeded,
        )
        return await self.UpdateSettings(request, timeout=timeout, metadata=headers)
