"""Which role may call which RPC: the one table. A test fails for an RPC that is not in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.runtime.auth import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYONE = frozenset(Role)
PEOPLE = frozenset({Role.USER, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})
SERVICES = frozenset({Role.SERVICE})

METHOD_ROLES: Mapping[str, frozenset[Role]] = {
    "/llmrouter.v2.ProviderService/ListProviders": ADMINS,
    "/llmrouter.v2.ProviderService/GetProvider": ADMINS,
    "/llmrouter.v2.ProviderService/CreateProvider": ADMINS,
    "/llmrouter.v2.ProviderService/UpdateProvider": ADMINS,
    "/llmrouter.v2.ProviderService/DisableProvider": ADMINS,
    "/llmrouter.v2.ProviderService/SetPlatformKey": ADMINS,
    "/llmrouter.v2.ProviderService/DeletePlatformKey": ADMINS,
    "/llmrouter.v2.HealthService/ListProviderHealth": EVERYONE,
    "/llmrouter.v2.HealthService/GetProviderHealth": EVERYONE,
    "/llmrouter.v2.ModelService/ListModels": EVERYONE,
    "/llmrouter.v2.ModelService/GetModel": EVERYONE,
    "/llmrouter.v2.ModelService/CreateModel": ADMINS,
    "/llmrouter.v2.ModelService/UpdateModel": ADMINS,
    "/llmrouter.v2.ModelService/DisableModel": ADMINS,
    "/llmrouter.v2.RoutingRuleService/ListRoutingRules": ADMINS,
    "/llmrouter.v2.RoutingRuleService/GetRoutingRule": ADMINS,
    "/llmrouter.v2.RoutingRuleService/CreateRoutingRule": ADMINS,
    "/llmrouter.v2.RoutingRuleService/UpdateRoutingRule": ADMINS,
    "/llmrouter.v2.RoutingRuleService/DeleteRoutingRule": ADMINS,
    "/llmrouter.v2.ByokService/StoreKey": PEOPLE,
    "/llmrouter.v2.ByokService/ListKeys": PEOPLE,
    "/llmrouter.v2.ByokService/UpdateKey": PEOPLE,
    "/llmrouter.v2.ByokService/VerifyKey": PEOPLE,
    "/llmrouter.v2.ByokService/DeleteKey": PEOPLE,
    "/llmrouter.v2.CredentialService/GetCredential": SERVICES,
    "/llmrouter.v2.AuditService/ListKeyReads": PEOPLE,
    "/llmrouter.v2.AuditService/ListAdminChanges": ADMINS,
    "/llmrouter.v2.SettingsService/GetSettings": PEOPLE,
    "/llmrouter.v2.SettingsService/UpdateSettings": PEOPLE,
    "/llmrouter.v2.RoutingService/Route": EVERYONE,
    "/llmrouter.v2.RoutingService/GetDecision": EVERYONE,
    "/llmrouter.v2.UsageService/GetUsage": EVERYONE,
    "/llmrouter.v2.UsageService/ListUsageBuckets": EVERYONE,
    "/llmrouter.v2.UsageService/ListUsageRecords": EVERYONE,
    "/llmrouter.v2.UsageService/ExportUsage": EVERYONE,
    "/llmrouter.v2.UsageService/RecordUsage": SERVICES,
    "/llmrouter.v2.UsageService/BatchRecordUsage": SERVICES,
}
OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Need no token: they are reachable on the internal port only."""
