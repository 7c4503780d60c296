"""The door of routing: RoutingService."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import uuid_utils.compat as uuid_utils

from llmrouter.v2 import routing_service_pb2, routing_service_pb2_grpc
from llmrouter_server import errors
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.catalog.snapshot import CAPABILITIES, PowerLevel
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, PRESETS, Scored, Tokens, Weights
from llmrouter_server.routing.selection import Decision, decide
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.runtime.interceptor import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.routing.store import RoutingStore
    from llmrouter_server.runtime.interceptor import Context
    from llmrouter_server.settings.preferences import RoutingConfig

DEFAULT_FALLBACKS = 3
MAX_FALLBACKS = 5
MAX_TASK_TYPE_CHARS = 64


class RoutingService(routing_service_pb2_grpc.RoutingServiceServicer):
    """Decides which model to use."""

    def __init__(self, store: RoutingStore, unhealthy_providers: Callable[[], AbstractSet[UUID]]) -> None:
        self._store, self._unhealthy_providers = store, unhealthy_providers

    async def Route(
        self, request: routing_service_pb2.RouteRequest, _context: Context
    ) -> routing_service_pb2.RouteResponse:
        user_id = current_caller().acts_for(request.user_id)
        asked = _read(request)
        state, snapshot = await self._store.read(user_id)
        level = asked.power_level or state.preferences.preferred_power_level
        need = Need(
            power_level=level,
            keyed_providers=state.keyed_providers,
            capabilities=asked.capabilities,
            context_tokens=request.min_context_tokens,
            unhealthy_providers=self._unhealthy_providers(),
        )
        decision = decide(snapshot.models, need, _weights(state.preferences.routing_config), asked.tokens)
        if not decision.ranked:
            raise errors.no_eligible_model(Counter(reason.value for _, reason in decision.excluded))
        return _response(decision, level, snapshot.number, asked.fallback_count)


class _Asked(NamedTuple):
    """A decoded RouteRequest."""

    power_level: PowerLevel | None
    capabilities: frozenset[str]
    fallback_count: int
    tokens: Tokens


def _read(request: routing_service_pb2.RouteRequest) -> _Asked:
    fields = Fields()
    level = read_power_level(fields, "power_level", request.power_level)
    fields.text("task_type", request.task_type, shortest=0, longest=MAX_TASK_TYPE_CHARS)
    for capability in request.required_capabilities[: len(CAPABILITIES) + 1]:
        fields.one_of("required_capabilities", capability, CAPABILITIES)
    fallbacks = request.fallback_count if request.HasField("fallback_count") else DEFAULT_FALLBACKS
    fields.number("fallback_count", fallbacks, low=1, high=MAX_FALLBACKS)
    fields.done()
    estimate = Tokens(request.estimated_input_tokens, request.estimated_output_tokens)
    tokens = estimate if estimate.input or estimate.output else ONE_MILLION_EACH
    return _Asked(level, frozenset(request.required_capabilities), fallbacks, tokens)


def _weights(config: RoutingConfig) -> Weights:
    own = Weights(config.cost_weight, config.latency_weight, config.quality_weight)
    return PRESETS.get(config.strategy, own)


def _response(
    decision: Decision, level: PowerLevel, snapshot: int, fallback_count: int
) -> routing_service_pb2.RouteResponse:
    primary, *fallbacks = (_scored(scored) for scored in decision.ranked[: 1 + fallback_count])
    return routing_service_pb2.RouteResponse(
        primary=primary,
        fallbacks=fallbacks,
        total_options=1 + len(fallbacks),
        decision_id=str(uuid_utils.uuid7()),
        catalog_snapshot=snapshot,
        power_level=power_level_message(level),
        degraded=decision.degraded,
    )


def _scored(scored: Scored) -> routing_service_pb2.ScoredModel:
    model = scored.model
    return routing_service_pb2.ScoredModel(
        model_id=str(model.model_id),
        provider_id=str(model.provider_id),
        model_name=model.model_name,
        provider_name=model.provider_name,
        composite_score=scored.composite,
        cost_score=scored.cost,
        latency_score=scored.latency,
        quality_score=scored.quality,
        input_cost_per_1m=model.input_cost_per_1m,
        output_cost_per_1m=model.output_cost_per_1m,
        avg_latency_ms=model.avg_latency_ms,
        quality_rating=model.quality_rating,
        priority=model.priority,
        display_name=model.display_name,
        api_endpoint=model.api_endpoint,
    )
