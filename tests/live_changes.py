"""What can change under Route, each made through one server, with how another server's Route shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmrouter.v2 import decision_pb2, power_level_pb2
from llmrouter.v2.byok_service_pb2 import DeleteKeyRequest, StoreKeyRequest, UpdateKeyRequest
from llmrouter.v2.model_service_pb2 import ListModelsRequest, UpdateModelRequest
from llmrouter.v2.provider_service_pb2 import UpdateProviderRequest
from llmrouter.v2.routing_rule_service_pb2 import (
    CreateRoutingRuleRequest,
    DeleteRoutingRuleRequest,
    UpdateRoutingRuleRequest,
)
from llmrouter.v2.settings_pb2 import RoutingConfig
from llmrouter.v2.settings_service_pb2 import UpdateSettingsRequest
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from llmrouter import AsyncClient
    from llmrouter.v2.routing_service_pb2 import RouteResponse

KEYED, PRICED, OF_LOCAL = "gpt-4o-mini", "qwen/qwen-2.5-72b-instruct", "Qwen/Qwen2.5-32B-Instruct"
OF_OPENROUTER = "meta-llama/llama-3.1-405b"
PRICE, PRIORITY, RATING, RATING_OF_LOCAL = 0.4, 100, 9.0, 7.5


@dataclass
class Hands:
    """Those who change things through one server, for one user."""

    user_id: UUID
    user: AsyncClient
    admin: AsyncClient
    service: AsyncClient
    key_id: str = ""
    rule_id: str = ""
    _models: dict[str, Any] = field(default_factory=dict)

    async def model(self, name: str) -> Any:
        """Return a model as it was when the first was asked for; one of a disabled provider is not listed."""
        if not self._models:
            listed = await self.user.models.ListModels(ListModelsRequest(page_size=500))
            self._models = {model.model_name: model for model in listed.models}
        return self._models[name]

    async def settings(self, **changes: Any) -> None:
        await self.user.settings.UpdateSettings(UpdateSettingsRequest(**changes))

    async def store_key(self) -> None:
        provider_id = (await self.model(KEYED)).provider_id
        stored = await self.user.byok.StoreKey(StoreKeyRequest(provider_id=provider_id, api_key="sk-of-live-state"))
        self.key_id = stored.key_id

    async def deactivate_key(self) -> None:
        await self.user.byok.UpdateKey(UpdateKeyRequest(key_id=self.key_id, is_active=False))

    async def delete_key(self) -> None:
        await self.user.byok.DeleteKey(DeleteKeyRequest(key_id=self.key_id))

    async def provider(self, name: str, **changes: Any) -> None:
        provider_id = (await self.model(name)).provider_id
        await self.admin.providers.UpdateProvider(UpdateProviderRequest(provider_id=provider_id, **changes))

    async def price(self, dollars: float) -> None:
        model_id = (await self.model(PRICED)).model_id
        await self.admin.models.UpdateModel(UpdateModelRequest(model_id=model_id, output_cost_per_1m=dollars))

    async def rate(self, rating: float) -> None:
        model_id = (await self.model(OF_OPENROUTER)).model_id
        await self.admin.models.UpdateModel(UpdateModelRequest(model_id=model_id, quality_score=rating))

    async def make_eco_a_tie(self) -> None:
        """Let nothing but the providers' priority decide between the two ECO models that need no key."""
        await self.settings(
            preferred_power_level="ECO",
            routing_config=RoutingConfig(cost_weight=0, latency_weight=0, quality_weight=1),
        )
        await self.rate(RATING_OF_LOCAL)

    async def end_the_tie(self) -> None:
        await self.provider(OF_LOCAL, priority=PRIORITY)
        await self.rate(RATING)

    async def rule(self) -> None:
        created = await self.admin.rules.CreateRoutingRule(
            CreateRoutingRuleRequest(
                rule_name=f"for {self.user_id}",
                condition=f'user_id == "{self.user_id}"',
                power_level=power_level_pb2.PRECISION,
            )
        )
        self.rule_id = created.rule_id

    async def deactivate_rule(self) -> None:
        await self.admin.rules.UpdateRoutingRule(UpdateRoutingRuleRequest(rule_id=self.rule_id, is_active=False))

    async def delete_rule(self) -> None:
        await self.admin.rules.DeleteRoutingRule(DeleteRoutingRuleRequest(rule_id=self.rule_id))

    async def spend(self) -> None:
        model_id = (await self.model("gpt-4o")).model_id
        await self.service.usage.RecordUsage(
            RecordUsageRequest(user_id=str(self.user_id), request_id="dear", model_id=model_id, input_tokens=400_000)
        )


async def nothing(_: Hands) -> None:
    """Prepare, or undo, nothing."""


@dataclass(frozen=True)
class Change:
    """A change, and whether an answer of Route, explained, was made with knowledge of it."""

    make: Callable[[Hands], Awaitable[None]]
    is_seen: Callable[[RouteResponse], bool]
    prepare: Callable[[Hands], Awaitable[None]] = nothing
    undo: Callable[[Hands], Awaitable[None]] = nothing


def verdict(answer: RouteResponse, name: str) -> Any:
    return next(each for each in answer.explanation.models if each.model_name == name)


def is_keyed(answer: RouteResponse) -> bool:
    return verdict(answer, KEYED).rank > 0


def is_ruled(answer: RouteResponse) -> bool:
    return answer.HasField("rule") and answer.power_level == power_level_pb2.PRECISION


OF_THE_USER = {
    "power level": Change(
        lambda hands: hands.settings(preferred_power_level="ECO"),
        lambda answer: answer.power_level == power_level_pb2.ECO,
    ),
    "strategy": Change(
        lambda hands: hands.settings(routing_config=RoutingConfig(strategy="quality_optimized")),
        lambda answer: answer.explanation.strategy == "quality_optimized",
    ),
    "weights": Change(
        lambda hands: hands.settings(routing_config=RoutingConfig(cost_weight=0, latency_weight=0, quality_weight=1)),
        lambda answer: answer.explanation.weights.quality == 1,
    ),
    "budget": Change(lambda hands: hands.settings(monthly_budget_usd=0), lambda answer: answer.downgraded),
    "budget taken away": Change(
        lambda hands: hands.settings(clear_monthly_budget=True),
        lambda answer: not answer.downgraded,
        prepare=lambda hands: hands.settings(monthly_budget_usd=0),
    ),
    "key stored": Change(Hands.store_key, is_keyed),
    "key deactivated": Change(Hands.deactivate_key, lambda answer: not is_keyed(answer), prepare=Hands.store_key),
    "key deleted": Change(Hands.delete_key, lambda answer: not is_keyed(answer), prepare=Hands.store_key),
}
OF_THE_CATALOGUE = {
    "provider disabled": Change(
        lambda hands: hands.provider(OF_LOCAL, is_enabled=False),
        lambda answer: verdict(answer, OF_LOCAL).exclusion == decision_pb2.EXCLUSION_PROVIDER_DISABLED,
        undo=lambda hands: hands.provider(OF_LOCAL, is_enabled=True),
    ),
    "priority": Change(
        lambda hands: hands.provider(OF_LOCAL, priority=1),
        lambda answer: answer.primary.model_name == OF_OPENROUTER,
        prepare=Hands.make_eco_a_tie,
        undo=Hands.end_the_tie,
    ),
    "price": Change(
        lambda hands: hands.price(900),
        lambda answer: verdict(answer, PRICED).cost_usd > 900,
        undo=lambda hands: hands.price(PRICE),
    ),
    "rule": Change(Hands.rule, is_ruled, undo=Hands.delete_rule),
    "rule deactivated": Change(
        Hands.deactivate_rule, lambda answer: not is_ruled(answer), prepare=Hands.rule, undo=Hands.delete_rule
    ),
    "rule deleted": Change(Hands.delete_rule, lambda answer: not is_ruled(answer), prepare=Hands.rule),
}
SPEND = Change(
    Hands.spend, lambda answer: answer.downgraded, prepare=lambda hands: hands.settings(monthly_budget_usd=1)
)
