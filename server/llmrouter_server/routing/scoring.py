"""Scores candidates against each other by cost, latency and quality. All scores lie in [0, 1]; higher is better."""

from __future__ import annotations

import math
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


class Candidates:
    """Models that are scored against each other, with what no weights and no estimate of tokens change of that.

    `live_latencies` has the latencies of models, in milliseconds, that are better known than by the catalogue.
    """

    __slots__ = ("_inputs", "_latencies", "_latency_scores", "_outputs", "_quality_scores", "models")

    def __init__(self, models: Sequence[CatalogModel], live_latencies: Mapping[UUID, int] = NO_LIVE_LATENCIES) -> None:
        self.models = models
        self._inputs = [model.input_cost_per_1m for model in models]
        self._outputs = [model.output_cost_per_1m for model in models]
        self._latencies = [live_latencies.get(model.model_id, model.avg_latency_ms) for model in models]
        slowest = max(self._latencies, default=0)
        self._latency_scores = [1.0 - latency / slowest if slowest else 1.0 for latency in self._latencies]
        self._quality_scores = [model.quality_rating / HIGHEST_RATING for model in models]

    def score(self, weights: Weights, tokens: Tokens = ONE_MILLION_EACH) -> Scores:
        """Score each of them. A criterion on which all are zero (all free) scores 1 for all."""
        costs = [
            input_cost * tokens.input + output_cost * tokens.output
            for input_cost, output_cost in zip(self._inputs, self._outputs, strict=True)
        ]
        by_cost, by_latency, by_quality = weights.cost, weights.latency, weights.quality
        dearest = max(costs, default=0.0) or math.inf  # then each scores 1 - 0 / inf
        # Weights may sum to 1.001; dividing by the sum keeps the composite within [0, 1].
        total = max(by_cost + by_latency + by_quality, 1.0)
        composites = [
            ((1.0 - cost / dearest) * by_cost + latency * by_latency + quality * by_quality) / total
            for cost, latency, quality in zip(costs, self._latency_scores, self._quality_scores, strict=True)
        ]
        if max(composites, default=0.0) > 1.0:  # by the rounding of a sum
            composites = [min(composite, 1.0) for composite in composites]
        return Scores(self, costs, dearest, composites)

    def scored(self, place: int, composite: float, cost: float, dearest: float) -> Scored:
        """Put together what is known of one of them."""
        return Scored(
            self.models[place],
            composite,
            1.0 - cost / dearest,
            self._latency_scores[place],
            self._quality_scores[place],
            cost / ONE_MILLION,
            self._latencies[place],
        )


class Scores:
    """What candidates scored, by their place among them."""

    __slots__ = ("_candidates", "_costs", "_dearest", "composites")

    def __init__(
        self, candidates: Candidates, costs: Sequence[float], dearest: float, composites: Sequence[float]
    ) -> None:
        self._candidates, self._costs, self._dearest, self.composites = candidates, costs, dearest, composites

    def __getitem__(self, place: int) -> Scored:
        return self._candidates.scored(place, self.composites[place], self._costs[place], self._dearest)

    def __len__(self) -> int:
        return len(self.composites)


PRESETS = {
    "cost_optimized": Weights(cost=0.8, latency=0.1, quality=0.1),
    "latency_optimized": Weights(cost=0.1, latency=0.8, quality=0.1),
    "quality_optimized": Weights(cost=0.1, latency=0.1, quality=0.8),
}
"""The weights of the strategies that do not use the caller's own."""
