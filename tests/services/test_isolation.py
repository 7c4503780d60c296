"""A second user never sees, changes or deletes what is the first one's: tried on every RPC."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from llmrouter import LlmrouterError
from llmrouter.v2.audit_service_pb2 import ListAdminChangesRequest, ListKeyReadsRequest
from llmrouter.v2.byok_service_pb2 import (
    DeleteKeyRequest,
    ListKeysRequest,
    StoreKeyRequest,
    UpdateKeyRequest,
    VerifyKeyRequest,
)
from llmrouter.v2.credential_service_pb2 import GetCredentialRequest
from llmrouter.v2.health_service_pb2 import GetProviderHealthRequest, ListProviderHealthRequest
from llmrouter.v2.model_service_pb2 import (
    CreateModelRequest,
    DisableModelRequest,
    GetModelRequest,
    ListModelsRequest,
    UpdateModelRequest,
)
from llmrouter.v2.provider_service_pb2 import (
    CreateProviderRequest,
    DeletePlatformKeyRequest,
    DisableProviderRequest,
    GetProviderRequest,
    ListProvidersRequest,
    SetPlatformKeyRequest,
    UpdateProviderRequest,
)
from llmrouter.v2.routing_rule_service_pb2 import (
    CreateRoutingRuleRequest,
    DeleteRoutingRuleRequest,
    GetRoutingRuleRequest,
    ListRoutingRulesRequest,
    UpdateRoutingRuleRequest,
)
from llmrouter.v2.routing_service_pb2 import GetDecisionRequest, RouteRequest
from llmrouter.v2.settings_pb2 import RoutingConfig
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest, UpdateSettingsRequest
from llmrouter.v2.usage_service_pb2 import (
    BatchRecordUsageRequest,
    ExportUsageRequest,
    GetUsageRequest,
    ListUsageBucketsRequest,
    ListUsageRecordsRequest,
    RecordUsageRequest,
)
from llmrouter_server.runtime.roles import METHOD_ROLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import User
    from llmrouter import AsyncClient


@dataclass
class Owner:
    """The first user, who has a key that was read, settings, a decision and usage."""

    user: User
    client: AsyncClient
    provider_id: str
    model_id: str
    key_id: str
    decision_id: str
    usage_id: str

    async def everything(self) -> tuple[Any, ...]:
        """Return all that is theirs, as they see it."""
        route = await self.client.routing.Route(RouteRequest())
        return (
            await self.client.byok.ListKeys(ListKeysRequest()),
            await self.client.audit.ListKeyReads(ListKeyReadsRequest()),
            await self.client.settings.GetSettings(GetSettingsRequest()),
            await self.client.usage.GetUsage(GetUsageRequest()),
            await self.client.usage.ListUsageRecords(ListUsageRecordsRequest()),
            await self.client.routing.GetDecision(GetDecisionRequest(decision_id=self.decision_id)),
            [option.model_id for option in (route.primary, *route.fallbacks)],
        )


@pytest.fixture
async def owner(connect: Callable[[str], AsyncClient], new_user: Callable[..., User]) -> Owner:
    user = new_user()
    client = connect(user.token)
    models = await client.models.ListModels(ListModelsRequest())
    model = next(model for model in models.models if model.model_name == "gpt-4o")
    key = await client.byok.StoreKey(StoreKeyRequest(provider_id=model.provider_id, api_key="sk-proj-the-owners-own"))
    await client.settings.UpdateSettings(
        UpdateSettingsRequest(
            preferred_power_level="BALANCED",
            routing_config=RoutingConfig(strategy="quality_optimized"),
            monthly_budget_usd=76543.25,
        )
    )
    routed = await client.routing.Route(RouteRequest(task_type="the-owners-task"))
    service = connect(new_user("service").token)
    await service.credentials.GetCredential(
        GetCredentialRequest(user_id=str(user.id), provider_id=model.provider_id, decision_id=routed.decision_id)
    )
    recorded = await service.usage.RecordUsage(
        RecordUsageRequest(
            user_id=str(user.id),
            request_id="the-owners-attempt",
            model_id=model.model_id,
            input_tokens=987654321,
            decision_id=routed.decision_id,
        )
    )
    return Owner(user, client, model.provider_id, model.model_id, key.key_id, routed.decision_id, recorded.usage_id)


async def answer(call: Any) -> Any:
    """Wait for an answer; for all of its parts, when it is a stream."""
    return await call if inspect.isawaitable(call) else [part async for part in call]


def forged(owner: Owner) -> RecordUsageRequest:
    return RecordUsageRequest(user_id=str(owner.user.id), request_id="forged", model_id=owner.model_id)


# For each RPC: what another user sends to get at the owner's things, and the reason of its refusal, or None for one
# that is answered, without anything of the owner's in it.
Attempt = tuple[str, str, "Callable[[Owner], Any]", str | None]
ATTEMPTS: list[Attempt] = [
    ("providers", "ListProviders", lambda _: ListProvidersRequest(), "ROLE_REQUIRED"),
    ("providers", "GetProvider", lambda o: GetProviderRequest(provider_id=o.provider_id), "ROLE_REQUIRED"),
    ("providers", "CreateProvider", lambda _: CreateProviderRequest(name="x"), "ROLE_REQUIRED"),
    ("providers", "UpdateProvider", lambda o: UpdateProviderRequest(provider_id=o.provider_id), "ROLE_REQUIRED"),
    ("providers", "DisableProvider", lambda o: DisableProviderRequest(provider_id=o.provider_id), "ROLE_REQUIRED"),
    (
        "providers",
        "SetPlatformKey",
        lambda o: SetPlatformKeyRequest(provider_id=o.provider_id, api_key="sk-other-others-own"),
        "ROLE_REQUIRED",
    ),
    ("providers", "DeletePlatformKey", lambda o: DeletePlatformKeyRequest(provider_id=o.provider_id), "ROLE_REQUIRED"),
    ("health", "ListProviderHealth", lambda _: ListProviderHealthRequest(), None),
    ("health", "GetProviderHealth", lambda o: GetProviderHealthRequest(provider_id=o.provider_id), None),
    ("models", "ListModels", lambda _: ListModelsRequest(), None),
    ("models", "ListModels", lambda _: ListModelsRequest(include_disabled=True), "ROLE_REQUIRED"),
    ("models", "GetModel", lambda o: GetModelRequest(model_id=o.model_id), None),
    ("models", "CreateModel", lambda o: CreateModelRequest(provider_id=o.provider_id), "ROLE_REQUIRED"),
    ("models", "UpdateModel", lambda o: UpdateModelRequest(model_id=o.model_id), "ROLE_REQUIRED"),
    ("models", "DisableModel", lambda o: DisableModelRequest(model_id=o.model_id), "ROLE_REQUIRED"),
    ("rules", "ListRoutingRules", lambda _: ListRoutingRulesRequest(), "ROLE_REQUIRED"),
    ("rules", "GetRoutingRule", lambda o: GetRoutingRuleRequest(rule_id=o.provider_id), "ROLE_REQUIRED"),
    ("rules", "CreateRoutingRule", lambda _: CreateRoutingRuleRequest(rule_name="x"), "ROLE_REQUIRED"),
    ("rules", "UpdateRoutingRule", lambda o: UpdateRoutingRuleRequest(rule_id=o.provider_id), "ROLE_REQUIRED"),
    ("rules", "DeleteRoutingRule", lambda o: DeleteRoutingRuleRequest(rule_id=o.provider_id), "ROLE_REQUIRED"),
    ("byok", "StoreKey", lambda o: StoreKeyRequest(provider_id=o.provider_id, api_key="sk-other-others-own"), None),
    ("byok", "ListKeys", lambda _: ListKeysRequest(), None),
    ("byok", "UpdateKey", lambda o: UpdateKeyRequest(key_id=o.key_id, is_active=False), "RESOURCE_NOT_FOUND"),
    ("byok", "VerifyKey", lambda o: VerifyKeyRequest(key_id=o.key_id), "RESOURCE_NOT_FOUND"),
    ("byok", "DeleteKey", lambda o: DeleteKeyRequest(key_id=o.key_id), "RESOURCE_NOT_FOUND"),
    (
        "credentials",
        "GetCredential",
        lambda o: GetCredentialRequest(user_id=str(o.user.id), provider_id=o.provider_id),
        "ROLE_REQUIRED",
    ),
    ("audit", "ListKeyReads", lambda _: ListKeyReadsRequest(), None),
    ("audit", "ListKeyReads", lambda o: ListKeyReadsRequest(key_id=o.key_id), None),
    ("audit", "ListAdminChanges", lambda _: ListAdminChangesRequest(), "ROLE_REQUIRED"),
    ("settings", "GetSettings", lambda _: GetSettingsRequest(), None),
    ("settings", "UpdateSettings", lambda _: UpdateSettingsRequest(monthly_budget_usd=1), None),
    ("routing", "Route", lambda _: RouteRequest(explain=True), None),
    ("routing", "Route", lambda o: RouteRequest(user_id=str(o.user.id)), "ROLE_REQUIRED"),
    ("routing", "GetDecision", lambda o: GetDecisionRequest(decision_id=o.decision_id), "RESOURCE_NOT_FOUND"),
    ("usage", "GetUsage", lambda _: GetUsageRequest(), None),
    ("usage", "GetUsage", lambda o: GetUsageRequest(user_id=str(o.user.id)), "ROLE_REQUIRED"),
    ("usage", "ListUsageBuckets", lambda o: ListUsageBucketsRequest(model_id=o.model_id), None),
    ("usage", "ListUsageBuckets", lambda o: ListUsageBucketsRequest(user_id=str(o.user.id)), "ROLE_REQUIRED"),
    ("usage", "ListUsageRecords", lambda o: ListUsageRecordsRequest(model_id=o.model_id), None),
    ("usage", "ListUsageRecords", lambda o: ListUsageRecordsRequest(user_id=str(o.user.id)), "ROLE_REQUIRED"),
    ("usage", "ExportUsage", lambda o: ExportUsageRequest(model_id=o.model_id), None),
    ("usage", "ExportUsage", lambda o: ExportUsageRequest(user_id=str(o.user.id)), "ROLE_REQUIRED"),
    ("usage", "RecordUsage", forged, "ROLE_REQUIRED"),
    ("usage", "BatchRecordUsage", lambda o: BatchRecordUsageRequest(records=[forged(o)]), "ROLE_REQUIRED"),
]


def test_every_rpc_is_tried() -> None:
    assert {method.rpartition("/")[2] for method in METHOD_ROLES} == {attempt[1] for attempt in ATTEMPTS}


@pytest.mark.parametrize(
    ("service", "rpc", "request_of", "refusal"), ATTEMPTS, ids=[f"{a[1]}-{a[3] or 'answered'}" for a in ATTEMPTS]
)
async def test_another_user_gets_at_nothing(
    owner: Owner,
    connect: Callable[[str], AsyncClient],
    new_user: Callable[..., User],
    service: str,
    rpc: str,
    request_of: Callable[[Owner], Any],
    refusal: str | None,
) -> None:
    other = connect(new_user().token)
    before = await owner.everything()
    call = getattr(getattr(other, service), rpc)
    if refusal:
        with pytest.raises(LlmrouterError) as error:
            await answer(call(request_of(owner)))
        assert error.value.reason == refusal
        shown = str(error.value)
    else:
        shown = str(await answer(call(request_of(owner))))
    for theirs in (
        str(owner.user.id),
        owner.key_id,
        owner.decision_id,
        owner.usage_id,
        "the-owners-",
        "987654321",
        "9.87654321e+08",
        "987654321.0",
        "sk-pro",
        "quality_optimized",
        "76543.25",
    ):
        assert theirs not in shown, theirs
    assert await owner.everything() == before


async def test_the_keys_of_one_user_open_nothing_to_another(
    owner: Owner, connect: Callable[[str], AsyncClient], new_user: Callable[..., User]
) -> None:
    mine = await owner.client.routing.Route(RouteRequest(fallback_count=5))
    other = await connect(new_user().token).routing.Route(RouteRequest(fallback_count=5))
    assert "gpt-4o" in {option.model_name for option in (mine.primary, *mine.fallbacks)}
    assert {option.provider_name for option in (other.primary, *other.fallbacks)} == {"OpenRouter"}


async def test_a_service_acts_for_the_user_it_names_and_for_nobody_else(
    owner: Owner, connect: Callable[[str], AsyncClient], new_user: Callable[..., User]
) -> None:
    service = connect(new_user("service").token)
    for_owner = await service.routing.Route(RouteRequest(user_id=str(owner.user.id), fallback_count=5))
    assert "gpt-4o" in {option.model_name for option in (for_owner.primary, *for_owner.fallbacks)}
    usage = await service.usage.GetUsage(GetUsageRequest(user_id=str(owner.user.id)))
    assert (usage.user_id, usage.total_input_tokens) == (str(owner.user.id), 987_654_321)
    records = await service.usage.ListUsageRecords(ListUsageRecordsRequest(user_id=str(owner.user.id)))
    assert [record.usage_id for record in records.records] == [owner.usage_id]
    exported = await answer(service.usage.ExportUsage(ExportUsageRequest(user_id=str(owner.user.id))))
    assert owner.usage_id in b"".join(part.data for part in exported).decode()
    for call in (
        service.routing.Route(RouteRequest()),
        service.usage.GetUsage(GetUsageRequest()),
        service.usage.ListUsageBuckets(ListUsageBucketsRequest()),
        service.usage.ListUsageRecords(ListUsageRecordsRequest()),
        service.usage.ExportUsage(ExportUsageRequest()),
    ):
        with pytest.raises(LlmrouterError, match="user_id: is required from the role service"):
            await answer(call)


@pytest.mark.parametrize("role", ["admin", "service"])
async def test_admins_and_services_may_see_a_users_decision(
    owner: Owner, connect: Callable[[str], AsyncClient], new_user: Callable[..., User], role: str
) -> None:
    client = connect(new_user(role).token)
    decision = await client.routing.GetDecision(GetDecisionRequest(decision_id=owner.decision_id))
    assert (decision.user_id, decision.task_type) == (str(owner.user.id), "the-owners-task")


@pytest.mark.parametrize("role", ["user", "admin", "service"])
async def test_every_rpc_is_closed_to_every_role_but_its_own(
    connect: Callable[[str], AsyncClient], new_user: Callable[..., User], owner: Owner, role: str
) -> None:
    client = connect(new_user(role).token)
    for method, allowed in METHOD_ROLES.items():
        service, rpc, request_of, _ = next(a for a in ATTEMPTS if a[1] == method.rpartition("/")[2])
        if role in {each.value for each in allowed}:
            continue
        with pytest.raises(LlmrouterError) as error:
            await answer(getattr(getattr(client, service), rpc)(request_of(owner)))
        assert error.value.reason == "ROLE_REQUIRED", method
