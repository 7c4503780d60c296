"""Routing rules on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2 import decision_pb2, routing_rule_pb2
from llmrouter.v2.routing_rule_service_pb2 import CreateRoutingRuleRequest, UpdateRoutingRuleRequest
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.catalog.provider import MAX_PRIORITY
from llmrouter_server.rules.condition import MAX_CHARS, ConditionError, compile_condition
from llmrouter_server.rules.rule import DefinitionChanges, RuleWeights
from llmrouter_server.runtime.messages import timestamp
from llmrouter_server.settings.preferences import STRATEGIES, WEIGHT_SUM_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.rules.rule import Rule
    from llmrouter_server.runtime.fields import Fields

MAX_NAME_CHARS = 100
MAX_PROVIDERS = 50


def read_definition(fields: Fields, request: CreateRoutingRuleRequest | UpdateRoutingRuleRequest) -> DefinitionChanges:
    """Read the fields that are given; of a new rule, the name too if it is not."""
    given = {field.name for field, _ in request.ListFields()}
    if isinstance(request, CreateRoutingRuleRequest):
        given.add("rule_name")
    readers: dict[str, Callable[[], object]] = {
        "rule_name": lambda: fields.text("rule_name", request.rule_name, longest=MAX_NAME_CHARS),
        "priority": lambda: fields.number("priority", request.priority, low=0, high=MAX_PRIORITY),
        "is_active": lambda: request.is_active,
        "condition": lambda: _condition(fields, request.condition),
        "power_level": lambda: read_power_level(fields, "power_level", request.power_level),
        "provider_ids": lambda: _providers(fields, request.provider_ids),
    }
    values: dict[str, object] = {name: read() for name, read in readers.items() if name in given}
    if given & {"strategy", "weights"}:
        values |= _weighing(fields, request, given)
    if isinstance(request, UpdateRoutingRuleRequest):
        values |= _cleared(fields, request, given)
    return DefinitionChanges(values)


def _weighing(
    fields: Fields, request: CreateRoutingRuleRequest | UpdateRoutingRuleRequest, given: AbstractSet[str]
) -> dict[str, object]:
    if {"strategy", "weights"} <= given:
        fields.wrong("weights", "cannot go together with strategy")
    return {
        "strategy": fields.one_of("strategy", request.strategy, STRATEGIES) if "strategy" in given else None,
        "weights": _weights(fields, request.weights) if "weights" in given else None,
    }


def _cleared(fields: Fields, request: UpdateRoutingRuleRequest, given: AbstractSet[str]) -> dict[str, object]:
    for flag, others in (
        ("clear_power_level", {"power_level"}),
        ("clear_weights", {"strategy", "weights"}),
        ("clear_provider_ids", {"provider_ids"}),
    ):
        if flag in given and others & given:
            fields.wrong(flag, f"cannot go together with {' or '.join(sorted(others & given))}")
    cleared: dict[str, object] = {"power_level": None} if request.clear_power_level else {}
    if request.clear_weights:
        cleared |= {"strategy": None, "weights": None}
    if request.clear_provider_ids:
        cleared["provider_ids"] = ()
    return cleared


def _condition(fields: Fields, value: str) -> str:
    condition = fields.text("condition", value, shortest=0, longest=MAX_CHARS)
    if condition and len(condition) <= MAX_CHARS:
        try:
            compile_condition(condition)
        except ConditionError as error:
            fields.wrong("condition", str(error))
    return condition


def _weights(fields: Fields, message: decision_pb2.Weights) -> RuleWeights:
    weights = RuleWeights(
        cost=fields.fraction("weights.cost", message.cost),
        latency=fields.fraction("weights.latency", message.latency),
        quality=fields.fraction("weights.quality", message.quality),
    )
    total = message.cost + message.latency + message.quality
    if not abs(total - 1) <= WEIGHT_SUM_TOLERANCE + 1e-12:
        fields.wrong("weights", f"the three weights must sum to 1, not {total:.6g}")
    return weights


def _providers(fields: Fields, ids: Sequence[str]) -> tuple[UUID, ...]:
    if len(ids) > MAX_PROVIDERS:
        fields.wrong("provider_ids", f"must be at most {MAX_PROVIDERS}")
        return ()
    providers = tuple(fields.uuid("provider_ids", each) for each in ids)
    if len(set(providers)) < len(providers):
        fields.wrong("provider_ids", "must name each provider once")
    return providers


def rule_message(rule: Rule) -> routing_rule_pb2.RoutingRule:
    """Write a rule."""
    definition = rule.definition
    level, weights = definition.power_level, definition.weights
    return routing_rule_pb2.RoutingRule(
        rule_id=str(rule.id),
        rule_name=definition.rule_name,
        priority=definition.priority,
        is_active=definition.is_active,
        condition=definition.condition,
        power_level=power_level_message(level) if level else None,
        strategy=definition.strategy or "",
        weights=decision_pb2.Weights(cost=weights.cost, latency=weights.latency, quality=weights.quality)
        if weights
        else None,
        provider_ids=map(str, definition.provider_ids),
        created_at=timestamp(rule.created_at),
        updated_at=timestamp(rule.updated_at),
        etag=rule.etag,
    )
