"""Every service of the protos, as attributes of the clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.services.audit import AsyncAuditService, AuditService
from llmrouter.services.byok import AsyncByokService, ByokService
from llmrouter.services.credentials import AsyncCredentialService, CredentialService
from llmrouter.services.health import AsyncHealthService, HealthService
from llmrouter.services.models import AsyncModelService, ModelService
from llmrouter.services.providers import AsyncProviderService, ProviderService
from llmrouter.services.routing import AsyncRoutingService, RoutingService
from llmrouter.services.rules import AsyncRoutingRuleService, RoutingRuleService
from llmrouter.services.settings import AsyncSettingsService, SettingsService
from llmrouter.services.usage import AsyncUsageService, UsageService

if TYPE_CHECKING:
    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel


class Services:
    """One attribute for each service."""

    def __init__(self, channel: Channel) -> None:
        self.audit = AuditService(channel)
        self.byok = ByokService(channel)
        self.credentials = CredentialService(channel)
        self.health = HealthService(channel)
        self.models = ModelService(channel)
        self.providers = ProviderService(channel)
        self.routing = RoutingService(channel)
        self.rules = RoutingRuleService(channel)
        self.settings = SettingsService(channel)
        self.usage = UsageService(channel)


class AsyncServices:
    """One attribute for each service."""

    def __init__(self, channel: AsyncChannel) -> None:
        self.audit = AsyncAuditService(channel)
        self.byok = AsyncByokService(channel)
        self.credentials = AsyncCredentialService(channel)
        self.health = AsyncHealthService(channel)
        self.models = AsyncModelService(channel)
        self.providers = AsyncProviderService(channel)
        self.routing = AsyncRoutingService(channel)
        self.rules = AsyncRoutingRuleService(channel)
        self.settings = AsyncSettingsService(channel)
        self.usage = AsyncUsageService(channel)
