"""Scores candidates against each other by cost, latency and quality. All scores lie in [0, 1]; higher is better."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel

HIGHEST_RATING = 10.0


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each criterion counts: each in [0, 1], together 1 (within 0.001)."""

    cost: float = 0.4
    latency: float = 0.4
    quality: float = 0.2


@dataclass(frozen=True, slots=True)
class Tokens:
    """The expected size of a request."""

    input: int = 0
    output: int = 0


ONE_MILLION = 1_000_000
ONE_MILLION_EACH = Tokens(ONE_MILLION, ONE_MILLION)
"""With no estimate, a model's cost is the sum of its two prices."""


NO_LIVE_LATENCIES: Mapping[UUID, int] = MappingProxyType({})


class Scored(NamedTuple):
    """A candidate with its scores, relative to the candidates it was scored with, and the figures behind them."""

    model: CatalogModel
    composite: float
    cost: float
    latency: float
    quality: float
    cost_usd: float
    latency_ms: int


def score(
    candidates: Sequence[CatalogModel],
    weights: Weights,
    tokens: Tokens = ONE_MILLION_EACH,
    live_latencies: Mapping[UUID, int] = NO_LIVE_LATENCIES,
) -> list[Scored]:
    """Score each candidate. A criterion on which all are zero (all free) scores 1 for all.

    `live_latencies` has the latencies of models, in milliseconds, that are better known than by the catalogue.
    """
    costs = [model.input_cost_per_1m * tokens.input + model.output_cost_per_1m * tokens.output for model in candidates]
    max_cost = max(costs, default=0.0)
    latencies = [live_latencies.get(model.model_id, model.avg_latency_ms) for model in candidates]
    max_latency = max(latencies, default=0)
    # Weights may sum to 1.001; dividing by the sum keeps the composite within [0, 1].
    total = max(weights.cost + weights.latency + weights.quality, 1.0)
    scored = []
    for model, cost, latency in zip(candidates, costs, latencies, strict=True):
        cost_score = 1.0 - cost / max_cost if max_cost else 1.0
        latency_score = 1.0 - latency / max_latency if max_latency else 1.0
        quality_score = model.quality_rating / HIGHEST_RATING
        composite = cost_score * weights.cost + latency_score * weights.latency + quality_score * weights.quality
        composite = min(composite / total, 1.0)
        scored.append(Scored(model, composite, cost_score, latency_score, quality_score, cost / ONE_MILLION, latency))
    return scored


PRESETS = {
    "cost_optimized": Weights(cost=0.8, latency=0.1, quality=0.1),
    "latency_optimized": Weights(cost=0.1, latency=0.8, quality=0.1),
    "quality_optimized": Weights(cost=0.1, latency=0.1, quality=0.8),
}
"""The weights of the strategies that do not use the caller's own."""
