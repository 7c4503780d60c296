"""A decision with the facts it was made from, and both as JSON: enough to make it again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.scoring import Tokens, Weights
from llmrouter_server.routing.selection import Decision, decide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmrouter_server.catalog.snapshot import CatalogModel

_to_json = json.JSONEncoder(separators=(",", ":")).encode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MILLISECONDS = 253_402_300_799_000
"""The last second of the year 9999, where datetime ends."""


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """The routing rule that a request matched, as it was called then."""

    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything but the catalogue that a decision is made from, and what else it says of itself."""

    need: Need
    weights: Weights
    tokens: Tokens
    strategy: str
    fallback_count: int
    task_type: str = ""
    live_latencies: Mapping[UUID, int] = field(default_factory=dict)
    """Milliseconds by model; at least those of the candidates that are better known than by the catalogue."""
    budget_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    rule: AppliedRule | None = None
    """What it made of the request is in the need and in the weights."""

    def decide(self, models: Iterable[CatalogModel]) -> Decision:
        """Make the decision, or make it again."""
        return decide(models, self.need, self.weights, self.tokens, self.live_latencies)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that was answered, with its scores."""

    model_id: UUID
    composite: float
    cost: float
    latency: float
    quality: float


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision, as it is kept."""

    id: UUID
    """A UUIDv7: it says when."""
    user_id: UUID
    snapshot_number: int
    facts: Facts
    choices: tuple[Choice, ...]
    """The primary and its fallbacks."""
    degraded: bool

    @property
    def decided_at(self) -> datetime:
        """When, to the millisecond."""
        return moment_of(self.id)


def choices_of(decision: Decision, fallback_count: int) -> tuple[Choice, ...]:
    """Return what is answered of a decision."""
    return decision.once(
        ("choices", fallback_count),
        lambda: tuple(
            Choice(each.model.model_id, each.composite, each.cost, each.latency, each.quality)
            for each in decision.best(1 + fallback_count)
        ),
    )


def moment_of(decision_id: UUID) -> datetime:
    """Return the time inside a UUIDv7; inside another UUID, some time or other up to the year 9999."""
    return EPOCH + timedelta(milliseconds=min(decision_id.int >> 80, MAX_MILLISECONDS))


def facts_to_json(facts: Facts, decision: Decision) -> str:
    """Write the facts of a decision: those it was made from, which are written once, and the others."""
    others: dict[str, object] = {
        "strategy": facts.strategy,
        "fallback_count": facts.fallback_count,
        "task_type": facts.task_type,
        "budget_usd": str(facts.budget_usd) if facts.budget_usd is not None else None,
        "spent_usd": str(facts.spent_usd),
    }
    if facts.rule is not None:
        others["rule"] = [str(facts.rule.id), facts.rule.name]
    return decision.once("facts", lambda: _decisive_to_json(facts, decision))[:-1] + "," + _to_json(others)[1:]


def _decisive_to_json(facts: Facts, decision: Decision) -> str:
    wished = {
        "weights": [facts.weights.cost, facts.weights.latency, facts.weights.quality],
        "tokens": [facts.tokens.input, facts.tokens.output],
        "context_tokens": facts.need.context_tokens,
    }
    return decision.selection.once("facts", lambda: _need_to_json(facts, decision))[:-1] + "," + _to_json(wished)[1:]


def _need_to_json(facts: Facts, decision: Decision) -> str:
    """Of the live latencies only the candidates' are kept: no other can change the decision."""
    need, live = facts.need, facts.live_latencies
    ruled = {} if need.rule_providers is None else {"rule_providers": sorted(map(str, need.rule_providers))}
    return _to_json(
        {
            "power_level": need.power_level.name,
            "keyed_providers": sorted(map(str, need.keyed_providers)),
            "failing_keys": sorted(map(str, need.failing_keys)),
            "free_only": need.free_only,
            "capabilities": sorted(need.capabilities),
            "unhealthy_providers": sorted(map(str, need.unhealthy_providers)),
            "model_name": need.model_name,
            "allow_fallbacks": need.allow_fallbacks,
            "without_credential": sorted(map(str, need.without_credential)),
            **ruled,
            "live_latencies": {
                str(model.model_id): live[model.model_id]
                for model in decision.selection.candidates.models
                if model.model_id in live
            },
        }
    )


def facts_from_json(value: Mapping[str, Any]) -> Facts:
    """Read facts; KeyError or ValueError when they are not what facts_to_json wrote.

    Facts from before the gateway lack what only it asks for, and those without a rule what a rule does.
    """
    rule, rule_providers = value.get("rule"), value.get("rule_providers")
    return Facts(
        need=Need(
            power_level=PowerLevel[value["power_level"]],
            keyed_providers=frozenset(map(UUID, value["keyed_providers"])),
            failing_keys=frozenset(map(UUID, value["failing_keys"])),
            free_only=value["free_only"],
            capabilities=frozenset(value["capabilities"]),
            context_tokens=value["context_tokens"],
            unhealthy_providers=frozenset(map(UUID, value["unhealthy_providers"])),
            model_name=value.get("model_name"),
            allow_fallbacks=value.get("allow_fallbacks", False),
            without_credential=frozenset(map(UUID, value.get("without_credential", ()))),
            rule_providers=frozenset(map(UUID, rule_providers)) if rule_providers is not None else None,
        ),
        weights=Weights(*value["weights"]),
        tokens=Tokens(*value["tokens"]),
        strategy=value["strategy"],
        fallback_count=value["fallback_count"],
        task_type=value["task_type"],
        live_latencies={UUID(model): latency for model, latency in value["live_latencies"].items()},
        budget_usd=Decimal(value["budget_usd"]) if value["budget_usd"] is not None else None,
        spent_usd=Decimal(value["spent_usd"]),
        rule=AppliedRule(UUID(rule[0]), rule[1]) if rule is not None else None,
    )


def outcome_to_json(record: DecisionRecord, decision: Decision) -> str:
    """Write what was answered; floats are written so that they are read back exactly."""
    return decision.once(("outcome", record.facts.fallback_count), lambda: _outcome_to_json(record))


def _outcome_to_json(record: DecisionRecord) -> str:
    choices = [[str(each.model_id), each.composite, each.cost, each.latency, each.quality] for each in record.choices]
    return _to_json({"choices": choices, "degraded": record.degraded})


def record_from_row(row: Mapping[str, Any]) -> DecisionRecord:
    """Read a row of llm_decisions."""
    return DecisionRecord(
        id=row["id"],
        user_id=row["user_id"],
        snapshot_number=row["snapshot_number"],
        facts=facts_from_json(row["facts"]),
        choices=tuple(Choice(UUID(model), *scores) for model, *scores in row["outcome"]["choices"]),
        degraded=row["outcome"]["degraded"],
    )
