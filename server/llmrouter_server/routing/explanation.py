"""Tells a decision whole: its facts, and the fate of every model of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2 import decision_pb2
from llmrouter_server.catalog.power_level import power_level_message
from llmrouter_server.routing.eligibility import Exclusion
from llmrouter_server.runtime.messages import timestamp
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.routing.record import AppliedRule, DecisionRecord, Facts
    from llmrouter_server.routing.scoring import Scored
    from llmrouter_server.routing.selection import Decision

    Verdicts = RepeatedCompositeFieldContainer[decision_pb2.ModelVerdict]

VERDICTS_AT_ONCE = 50
"""How many models are told of before others have their turn."""


async def explain(record: DecisionRecord, decision: Decision) -> decision_pb2.Decision:
    """Write everything; the candidates by rank, then the excluded models by provider and name."""
    facts, need = record.facts, record.facts.need
    explained = decision_pb2.Decision(
        decision_id=str(record.id),
        user_id=str(record.user_id),
        decided_at=timestamp(record.decided_at),
        catalog_snapshot=record.snapshot_number,
        power_level=power_level_message(need.power_level),
        task_type=facts.task_type,
        strategy=facts.strategy,
        weights=decision_pb2.Weights(
            cost=facts.weights.cost, latency=facts.weights.latency, quality=facts.weights.quality
        ),
        required_capabilities=sorted(need.capabilities),
        min_context_tokens=need.context_tokens,
        input_tokens=facts.tokens.input,
        output_tokens=facts.tokens.output,
        fallback_count=facts.fallback_count,
        budget=decision_pb2.BudgetFacts(
            monthly_budget_usd=float(facts.budget_usd) if facts.budget_usd is not None else None,
            spent_usd=float(facts.spent_usd),
            downgraded=need.free_only,
        ),
        unhealthy_provider_ids=_ids(need.unhealthy_providers),
        keyed_provider_ids=_ids(need.keyed_providers),
        failing_key_provider_ids=_ids(need.failing_keys),
        degraded=decision.degraded,
        model_name=need.model_name or "",
        allow_fallbacks=need.allow_fallbacks,
        without_credential_provider_ids=_ids(need.without_credential),
        rule=rule_message(facts.rule),
        rule_provider_ids=_ids(need.rule_providers or ()),
    )
    async for rank, scored in in_turns(enumerate(decision.ranked, start=1), VERDICTS_AT_ONCE):
        _add_candidate(explained.models, scored, rank, facts)
    excluded = sorted(decision.excluded, key=lambda pair: (pair[0].provider_name, pair[0].model_name))
    async for model, reason in in_turns(excluded, VERDICTS_AT_ONCE):
        verdict = _add_verdict(explained.models, model)
        verdict.exclusion = decision_pb2.Exclusion.Value(f"EXCLUSION_{reason.value}")
        verdict.exclusion_detail = _DETAILS[reason](model, facts)
    return explained


def rule_message(rule: AppliedRule | None) -> decision_pb2.AppliedRule | None:
    """Write the rule that a request matched, if there is one."""
    return None if rule is None else decision_pb2.AppliedRule(rule_id=str(rule.id), rule_name=rule.name)


def _ids(ids: Iterable[UUID]) -> list[str]:
    return sorted(map(str, ids))


def _add_candidate(verdicts: Verdicts, scored: Scored, rank: int, facts: Facts) -> None:
    verdict = _add_verdict(verdicts, scored.model)
    verdict.rank = rank
    verdict.composite_score, verdict.cost_score = scored.composite, scored.cost
    verdict.latency_score, verdict.quality_score = scored.latency, scored.quality
    verdict.cost_usd, verdict.latency_ms = scored.cost_usd, scored.latency_ms
    verdict.latency_is_live = scored.model.model_id in facts.live_latencies


def _add_verdict(verdicts: Verdicts, model: CatalogModel) -> decision_pb2.ModelVerdict:
    return verdicts.add(
        model_id=str(model.model_id),
        model_name=model.model_name,
        provider_id=str(model.provider_id),
        provider_name=model.provider_name,
        power_level=power_level_message(model.power_level),
    )


def _over_budget(model: CatalogModel, facts: Facts) -> str:
    return (
        f"costs {_price(model.input_cost_per_1m)} and {_price(model.output_cost_per_1m)} US dollars per million "
        f"input and output tokens, and {_shortage(facts)}"
    )


def _shortage(facts: Facts) -> str:
    if facts.budget_usd is None or facts.spent_usd >= facts.budget_usd:
        return "the month's budget is used up"
    return "what is left of the month's budget does not cover the request"


def _no_credential(model: CatalogModel, facts: Facts) -> str:
    if model.provider_id in facts.need.failing_keys:
        return f"{model.provider_name} refused the user's key in the last 15 minutes, and no other is put in its place"
    return f"{model.provider_name} takes no request without a key, and neither the user nor the operator has one there"


def _price(dollars: float) -> str:
    """Write a price, which has at most four decimals."""
    return f"{dollars:.4f}".rstrip("0").rstrip(".")


_DETAILS: Mapping[Exclusion, Callable[[CatalogModel, Facts], str]] = {
    Exclusion.MODEL_DISABLED: lambda _model, _facts: "the model is disabled",
    Exclusion.PROVIDER_DISABLED: lambda model, _facts: f"{model.provider_name} is disabled",
    Exclusion.MODEL_NAME: lambda _model, facts: f"{facts.need.model_name} was asked for by name",
    Exclusion.POWER_LEVEL: lambda model, facts: (
        f"is {model.power_level.name}, {facts.need.power_level.name} was routed for"
    ),
    Exclusion.RULE_PROVIDER: lambda _model, facts: (
        f"the routing rule {facts.rule.name if facts.rule else ''} lets only others through"
    ),
    Exclusion.OVER_BUDGET: _over_budget,
    Exclusion.KEY_REQUIRED: lambda model, _facts: (
        f"{model.provider_name} needs a key of the user's own, and there is no active one"
    ),
    Exclusion.KEY_FAILING: lambda model, _facts: f"{model.provider_name} refused the user's key in the last 15 minutes",
    Exclusion.NO_CREDENTIAL: _no_credential,
    Exclusion.CAPABILITY_MISSING: lambda model, facts: (
        f"lacks {', '.join(sorted(facts.need.capabilities - model.capabilities))}"
    ),
    Exclusion.CONTEXT_TOO_SMALL: lambda model, facts: (
        f"holds {model.max_context_tokens} tokens, {facts.need.context_tokens} were asked for"
    ),
    Exclusion.PROVIDER_UNHEALTHY: lambda model, _facts: f"{model.provider_name} is unhealthy",
}
"""What is told of an excluded model, by the reason."""
