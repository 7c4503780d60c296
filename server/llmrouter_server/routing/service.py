"""The door of routing: RoutingService."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from llmrouter.v2 import decision_pb2, routing_service_pb2, routing_service_pb2_grpc
from llmrouter_server import errors
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.catalog.snapshot import CAPABILITIES
from llmrouter_server.routing.explanation import explain, rule_message
from llmrouter_server.routing.router import Asked
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Scored, Tokens
from llmrouter_server.runtime.auth import Role
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.runtime.interceptor import current_caller, reads

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.catalog.past import PastSnapshots
    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.routing.log import DecisionLog
    from llmrouter_server.routing.record import DecisionRecord
    from llmrouter_server.routing.router import Routed, Router
    from llmrouter_server.routing.selection import Decision, Selection
    from llmrouter_server.routing.store import RoutingStore
    from llmrouter_server.runtime.interceptor import Context

T = TypeVar("T")

DEFAULT_FALLBACKS = 3
MAX_FALLBACKS = 5
MAX_TASK_TYPE_CHARS = 64
MOST_KEPT, MOST_KEPT_BYTES = 4096, 256
"""How many requests are kept as they were read, and how long each may be."""
_ID = routing_service_pb2.RouteResponse(decision_id="x" * 36).SerializeToString().removesuffix(b"x" * 36)
"""What goes before the letters of an id in an answer."""


def _kept(read: Callable[..., T]) -> Callable[..., T]:
    """Remember what was read of a short request, the last argument: the same bytes are the same object again."""
    kept = functools.lru_cache(maxsize=MOST_KEPT)(read)
    return lambda *given: (kept if len(given[-1]) <= MOST_KEPT_BYTES else read)(*given)


@_kept
def _request(sent: bytes) -> routing_service_pb2.RouteRequest:
    return routing_service_pb2.RouteRequest.FromString(sent)


class RoutingService(routing_service_pb2_grpc.RoutingServiceServicer):
    """Decides which model to use, and says why."""

    def __init__(self, router: Router, store: RoutingStore, log: DecisionLog, snapshots: PastSnapshots) -> None:
        self._router, self._store, self._log, self._snapshots = router, store, log, snapshots

    @reads(lambda sent: (_request(sent), sent))
    async def Route(  # type: ignore[override] # see reads
        self, asked: tuple[routing_service_pb2.RouteRequest, bytes], _context: Context
    ) -> bytes:
        request, sent = asked
        routed = await self._router.route(_asked(current_caller().acts_for(request.user_id), sent))
        if not request.explain:
            return _answer(routed)
        explanation = await explain(routed.record, routed.decision)
        return _answer(routed) + routing_service_pb2.RouteResponse(explanation=explanation).SerializeToString()

    async def GetDecision(
        self, request: routing_service_pb2.GetDecisionRequest, _context: Context
    ) -> decision_pb2.Decision:
        fields = Fields()
        decision_id = fields.uuid("decision_id", request.decision_id)
        fields.done()
        caller = current_caller()
        record = self._log.find(decision_id) or await self._store.find_decision(decision_id)
        if record.user_id != caller.user_id and not caller.roles & {Role.ADMIN, Role.SERVICE}:
            raise errors.not_found("decision")
        snapshot = await self._snapshots.get(record.snapshot_number)
        return await explain(record, record.facts.decide(snapshot.models))


@_kept
def _asked(user_id: UUID, sent: bytes) -> Asked:
    request = _request(sent)
    fields = Fields()
    level = read_power_level(fields, "power_level", request.power_level)
    task_type = fields.text("task_type", request.task_type, shortest=0, longest=MAX_TASK_TYPE_CHARS)
    for capability in request.required_capabilities[: len(CAPABILITIES) + 1]:
        fields.one_of("required_capabilities", capability, CAPABILITIES)
    fallbacks = request.fallback_count if request.HasField("fallback_count") else DEFAULT_FALLBACKS
    fields.number("fallback_count", fallbacks, low=1, high=MAX_FALLBACKS)
    fields.done()
    estimate = Tokens(request.estimated_input_tokens, request.estimated_output_tokens)
    return Asked(
        user_id=user_id,
        power_level=level,
        capabilities=frozenset(request.required_capabilities),
        context_tokens=request.min_context_tokens,
        fallback_count=fallbacks,
        tokens=estimate if estimate.input or estimate.output else ONE_MILLION_EACH,
        task_type=task_type,
    )


def _answer(routed: Routed) -> bytes:
    """Write the answer. Protobuf messages one after the other are one: each field is in one of them."""
    record, decision = routed.record, routed.decision
    told_apart = "answer", record.facts.fallback_count, record.facts.rule
    written = decision.once(told_apart, lambda: _without_id(record, decision))
    return written + _ID + str(record.id).encode()


def _without_id(record: DecisionRecord, decision: Decision) -> bytes:
    best = decision.best(1 + record.facts.fallback_count)
    primary, *fallbacks = (_scored(decision.selection, scored) for scored in best)
    return routing_service_pb2.RouteResponse(
        primary=primary,
        fallbacks=fallbacks,
        total_options=1 + len(fallbacks),
        catalog_snapshot=record.snapshot_number,
        power_level=power_level_message(record.facts.need.power_level),
        degraded=decision.degraded,
        downgraded=record.facts.need.free_only,
        rule=rule_message(record.facts.rule),
    ).SerializeToString()


def _scored(selection: Selection, scored: Scored) -> routing_service_pb2.ScoredModel:
    """Write a model with its scores; what it is without them is written once for all requests of the same need."""
    model = scored.model
    written = routing_service_pb2.ScoredModel.FromString(selection.once(model.model_id, lambda: _unscored(model)))
    written.composite_score, written.cost_score = scored.composite, scored.cost
    written.latency_score, written.quality_score = scored.latency, scored.quality
    written.avg_latency_ms = scored.latency_ms
    return written


def _unscored(model: CatalogModel) -> bytes:
    return routing_service_pb2.ScoredModel(
        model_id=str(model.model_id),
        provider_id=str(model.provider_id),
        model_name=model.model_name,
        provider_name=model.provider_name,
        input_cost_per_1m=model.input_cost_per_1m,
        output_cost_per_1m=model.output_cost_per_1m,
        quality_rating=model.quality_rating,
        priority=model.priority,
        display_name=model.display_name,
        api_endpoint=model.api_endpoint,
    ).SerializeToString()
