"""Laws of routing rules, over catalogues and rules of all kinds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.catalog.snapshot import CatalogModel, CatalogRule, PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.record import facts_from_json, facts_to_json
from llmrouter_server.routing.router import Asked, Routed
from llmrouter_server.routing.scoring import ONE_MILLION_EACH
from property.routing_cases import LEVELS, NAMES, PROVIDER_IDS, catalogues, weightings
from unit.routing_world import USER, World, fates

MATCHING = ["", "true", 'task_type == "chat"', "now.getHours() == 23", "!(1 in [2])"]
OTHERS = ["false", 'task_type == "other"', "now.getHours() < 23", "1 / input_tokens > 0", 'user_id == ""']


@dataclass(frozen=True)
class Kind:
    """A rule without its name."""

    condition: str
    power_level: PowerLevel | None
    strategy: str | None
    weights: tuple[float, float, float] | None
    provider_ids: frozenset[UUID]


def kinds(conditions: list[str]) -> st.SearchStrategy[Kind]:
    return st.builds(
        Kind,
        condition=st.sampled_from(conditions),
        power_level=st.none() | LEVELS,
        strategy=st.sampled_from([None, "balanced", "quality_optimized"]),
        weights=st.none() | weightings().map(lambda weights: (weights.cost, weights.latency, weights.quality)),
        provider_ids=st.just(frozenset()) | st.frozensets(st.sampled_from(PROVIDER_IDS), min_size=1),
    )


def named(found: list[Kind]) -> list[CatalogRule]:
    return [
        CatalogRule(
            UUID(int=number),
            f"rule {number}",
            each.condition,
            each.power_level,
            each.strategy,
            each.weights,
            each.provider_ids,
        )
        for number, each in enumerate(found)
    ]


asks = st.builds(
    Asked,
    user_id=st.just(USER),
    power_level=st.none() | LEVELS,
    capabilities=st.just(frozenset()),
    context_tokens=st.just(0),
    fallback_count=st.integers(1, 5),
    tokens=st.just(ONE_MILLION_EACH),
    task_type=st.just("chat"),
    model_name=st.none() | NAMES,
    allow_fallbacks=st.booleans(),
)


async def routed(models: list[CatalogModel], rules: list[CatalogRule], asked: Asked) -> Routed | dict[str, str]:
    """Route, or return why nobody is eligible."""
    try:
        return await World(models=models, rules=rules).router().route(asked)
    except DomainError as error:
        return {"reason": error.reason, **error.metadata}


def told(routed: Routed | dict[str, str]) -> object:
    """Return all that a decision says, but for its id."""
    return routed if isinstance(routed, dict) else (routed.record.facts, fates(routed.decision))


@given(catalogues(), st.lists(kinds(OTHERS), max_size=4), asks)
async def test_rules_of_which_none_matches_change_nothing(
    models: list[CatalogModel], found: list[Kind], asked: Asked
) -> None:
    assert told(await routed(models, named(found), asked)) == told(await routed(models, [], asked))


@given(
    catalogues(),
    st.lists(kinds(OTHERS), max_size=3),
    kinds(MATCHING),
    st.lists(kinds(MATCHING + OTHERS), max_size=3),
    asks,
)
async def test_only_the_first_rule_that_matches_counts(
    models: list[CatalogModel], before: list[Kind], first: Kind, after: list[Kind], asked: Asked
) -> None:
    rules = named([*before, first, *after])
    assert told(await routed(models, rules, asked)) == told(await routed(models, [rules[len(before)]], asked))


@given(catalogues(always_eligible=True), kinds(MATCHING), asks)
async def test_a_ruled_decision_is_made_again_from_what_is_stored_of_it(
    models: list[CatalogModel], kind: Kind, asked: Asked
) -> None:
    made = await routed(models, named([kind]), asked)
    if isinstance(made, dict):
        return
    stored = json.loads(facts_to_json(made.record.facts, made.decision))
    read = facts_from_json(stored)
    assert read == made.record.facts
    assert fates(read.decide(models)) == fates(made.decision)
    assert read.rule is not None
    if kind.provider_ids:
        assert {scored.model.provider_id for scored in made.decision.ranked} <= kind.provider_ids
