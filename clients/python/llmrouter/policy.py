"""How each RPC is called: how long it may take and whether it is tried again. The one table of both.

A call that may be tried again is, up to 4 times in all and only when the service is UNAVAILABLE, by gRPC itself (the
channel's service config is made from this table). The others are calls whose second try could find the first one's
work: an ALREADY_EXISTS, RESOURCE_NOT_FOUND or ETAG_MISMATCH of one's own making. A test fails for an RPC that is not
here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ATTEMPTS = 4
RETRY_POLICY = {
    "maxAttempts": MAX_ATTEMPTS,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""https://github.com/grpc/proposal/blob/master/A6-client-retries.md; each wait is random, up to the backoff."""


class Policy(NamedTuple):
    """How an RPC is called."""

    may_repeat: bool
    timeout_s: float | None = None
    """How long it may take, unless the call says otherwise. None: the client's `timeout`."""


REPEAT = Policy(may_repeat=True)
ONCE = Policy(may_repeat=False)

POLICIES: Mapping[str, Policy] = {
    "/llmrouter.v2.ProviderService/ListProviders": REPEAT,
    "/llmrouter.v2.ProviderService/GetProvider": REPEAT,
    "/llmrouter.v2.ProviderService/CreateProvider": ONCE,
    "/llmrouter.v2.ProviderService/UpdateProvider": ONCE,
    "/llmrouter.v2.ProviderService/DisableProvider": ONCE,
    "/llmrouter.v2.ProviderService/SetPlatformKey": REPEAT,
    "/llmrouter.v2.ProviderService/DeletePlatformKey": REPEAT,
    "/llmrouter.v2.HealthService/ListProviderHealth": REPEAT,
    "/llmrouter.v2.HealthService/GetProviderHealth": REPEAT,
    "/llmrouter.v2.ModelService/ListModels": REPEAT,
    "/llmrouter.v2.ModelService/GetModel": REPEAT,
    "/llmrouter.v2.ModelService/CreateModel": ONCE,
    "/llmrouter.v2.ModelService/UpdateModel": ONCE,
    "/llmrouter.v2.ModelService/DisableModel": ONCE,
    "/llmrouter.v2.RoutingRuleService/ListRoutingRules": REPEAT,
    "/llmrouter.v2.RoutingRuleService/GetRoutingRule": REPEAT,
    "/llmrouter.v2.RoutingRuleService/CreateRoutingRule": ONCE,
    "/llmrouter.v2.RoutingRuleService/UpdateRoutingRule": ONCE,
    "/llmrouter.v2.RoutingRuleService/DeleteRoutingRule": ONCE,
    "/llmrouter.v2.ByokService/StoreKey": REPEAT,
    "/llmrouter.v2.ByokService/ListKeys": REPEAT,
    "/llmrouter.v2.ByokService/UpdateKey": REPEAT,
    "/llmrouter.v2.ByokService/VerifyKey": REPEAT,
    "/llmrouter.v2.ByokService/DeleteKey": ONCE,
    "/llmrouter.v2.CredentialService/GetCredential": REPEAT,
    "/llmrouter.v2.AuditService/ListKeyReads": REPEAT,
    "/llmrouter.v2.AuditService/ListAdminChanges": REPEAT,
    "/llmrouter.v2.SettingsService/GetSettings": REPEAT,
    "/llmrouter.v2.SettingsService/UpdateSettings": REPEAT,
    "/llmrouter.v2.RoutingService/Route": REPEAT,
    "/llmrouter.v2.RoutingService/GetDecision": REPEAT,
    "/llmrouter.v2.UsageService/GetUsage": REPEAT,
    "/llmrouter.v2.UsageService/ListUsageBuckets": REPEAT,
    "/llmrouter.v2.UsageService/ListUsageRecords": REPEAT,
    "/llmrouter.v2.UsageService/ExportUsage": Policy(may_repeat=True, timeout_s=300),  # until its first byte
    "/llmrouter.v2.UsageService/RecordUsage": REPEAT,  # counts once for each request_id
    "/llmrouter.v2.UsageService/BatchRecordUsage": REPEAT,
}


def service_config() -> str:
    """Return gRPC's service config: the retries of the RPCs that may be repeated.

    The deadlines are not in it but go with each call. From here, gRPC's core (1.85.1) ends a call 1 to 2 s early,
    tells the server nothing of it, counts no time before the name is resolved, and lets no call have longer.
    """
    names = [method.strip("/").split("/") for method, policy in POLICIES.items() if policy.may_repeat]
    repeated = [{"service": service, "method": method} for service, method in names]
    return json.dumps({"methodConfig": [{"name": repeated, "retryPolicy": RETRY_POLICY}]})


def timeout_s(method: str, given: float | None, default: float) -> float:
    """Return how many seconds a call may take: as it says, else as the table does, else the client's default."""
    if given is not None:
        return given
    policy = POLICIES.get(method, ONCE)
    return default if policy.timeout_s is None else policy.timeout_s
