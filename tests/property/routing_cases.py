"""Catalogues, needs and weights of all kinds, from which the properties of routing are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from hypothesis import strategies as st

from llmrouter_server.catalog.snapshot import CAPABILITIES, CatalogModel, PowerLevel
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, PRESETS, Tokens, Weights
from llmrouter_server.routing.selection import Decision, decide

HIGHEST_PRICE = 999_999.9999
LONGEST_LATENCY = 2**31 - 1
MOST_TOKENS = 2**32 - 1
LEVELS = st.sampled_from(PowerLevel)
# Few different ones, so that equal values meet often.
PRICES = st.sampled_from([0.0, 0.0001, 0.15, 1.0, 2.5, 75.0, HIGHEST_PRICE]) | st.integers(0, 10**6).map(
    lambda hundredths_of_cents: hundredths_of_cents / 10_000
)
LATENCIES = st.sampled_from([0, 1, 250, 500, LONGEST_LATENCY]) | st.integers(0, 10_000)
RATINGS = st.sampled_from([0.0, 5.0, 9.99, 10.0]) | st.integers(0, 1000).map(lambda hundredths: hundredths / 100)
CONTEXTS = st.sampled_from([0, 4096, 32_768, MOST_TOKENS])
CAPABILITY_SETS = st.frozensets(st.sampled_from(CAPABILITIES[:3]))
TOKENS = st.just(ONE_MILLION_EACH) | st.builds(Tokens, st.integers(0, MOST_TOKENS), st.integers(0, MOST_TOKENS))
NAMES = st.sampled_from(["a", "b", "ü", "Z"])
PROVIDER_IDS = [UUID(int=number) for number in range(1, 5)]


@st.composite
def catalogues(draw: st.DrawFn, *, always_eligible: bool = False) -> list[CatalogModel]:
    """Generate models with ids of their own; the facts of a provider are the same for all of its models."""
    providers = {
        provider_id: {
            "provider_id": provider_id,
            "provider_name": f"provider {provider_id.int}",
            "priority": draw(st.sampled_from([0, 50, 90, 1000])),
            "requires_byok": not always_eligible and draw(st.booleans()),
            "provider_enabled": always_eligible or draw(st.integers(0, 4)) > 0,
        }
        for provider_id in PROVIDER_IDS
    }
    free, alike = draw(st.integers(0, 4)) == 0, draw(st.integers(0, 4)) == 0
    models = [
        CatalogModel(
            model_id=UUID(int=1000 + number),
            model_name=draw(NAMES),
            display_name="",
            api_endpoint="",
            power_level=PowerLevel.ECO if always_eligible else draw(LEVELS),
            input_cost_per_1m=0.0 if free else draw(PRICES),
            output_cost_per_1m=0.0 if free else draw(PRICES),
            avg_latency_ms=draw(LATENCIES),
            quality_rating=draw(RATINGS),
            max_context_tokens=draw(CONTEXTS),
            capabilities=draw(CAPABILITY_SETS),
            model_enabled=always_eligible or draw(st.integers(0, 4)) > 0,
            **providers[draw(st.sampled_from(PROVIDER_IDS))],
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    return [replace(models[0], model_id=model.model_id) for model in models] if alike and models else models


@st.composite
def weightings(draw: st.DrawFn) -> Weights:
    """Generate every kind of weights that a caller may store: each in [0, 1], the sum within 0.001 of 1."""
    cost = draw(st.integers(0, 1000))
    latency = draw(st.integers(0, 1000 - cost))
    quality = 1000 - cost - latency + draw(st.sampled_from([-1, 0, 1]))
    own = Weights(cost / 1000, latency / 1000, min(max(quality, 0), 1000) / 1000)
    return draw(st.sampled_from([own, Weights(), *PRESETS.values()]))


@dataclass(frozen=True)
class Case:
    """All of decide's input."""

    models: list[CatalogModel]
    need: Need
    weights: Weights
    tokens: Tokens

    def decide(self) -> Decision:
        return decide(self.models, self.need, self.weights, self.tokens)


needs = st.builds(
    Need,
    power_level=LEVELS,
    keyed_providers=st.frozensets(st.sampled_from(PROVIDER_IDS)),
    failing_keys=st.frozensets(st.sampled_from(PROVIDER_IDS)),
    free_only=st.booleans(),
    capabilities=st.just(frozenset()) | CAPABILITY_SETS,
    context_tokens=st.just(0) | CONTEXTS | CONTEXTS.map(lambda size: size + 1),
    unhealthy_providers=st.frozensets(st.sampled_from(PROVIDER_IDS)),
    model_name=st.none() | NAMES,
    allow_fallbacks=st.booleans(),
    without_credential=st.just(frozenset()) | st.frozensets(st.sampled_from(PROVIDER_IDS)),
    rule_providers=st.none() | st.frozensets(st.sampled_from(PROVIDER_IDS), min_size=1),
)
cases = st.builds(Case, catalogues(), needs, weightings(), TOKENS)
# Every model is a candidate, so that the laws of scores and order are not tried on one or two models.
open_cases = st.builds(
    Case, catalogues(always_eligible=True), st.just(Need(PowerLevel.ECO)), weightings(), st.just(ONE_MILLION_EACH)
)

# Every model meets the need, and health alone decides.
sick_cases = st.builds(
    Case,
    catalogues(always_eligible=True),
    st.builds(Need, st.just(PowerLevel.ECO), unhealthy_providers=st.frozensets(st.sampled_from(PROVIDER_IDS))),
    weightings(),
    TOKENS,
)
