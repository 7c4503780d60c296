"""A decision from what is known now: the user's state, the providers' health and the budget."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.eligibility import Exclusion
from llmrouter_server.settings.preferences import Preferences, RoutingConfig
from unit.routing_world import GROQ, LOCAL, NOW, OPENROUTER, USER, View, World, fates, names, over_budget
from unit.seed_catalog import MODELS


async def test_the_decision_is_kept_with_what_it_was_made_from() -> None:
    world = World()
    routed = await world.route()
    [record] = world.kept
    assert record is routed.record
    assert (record.user_id, record.snapshot_number) == (USER, 7)
    assert fates(record.facts.decide(MODELS)) == fates(routed.decision)
    assert [choice.model_id for choice in record.choices] == [each.model.model_id for each in routed.decision.ranked]


async def test_without_a_power_level_the_users_own_is_used() -> None:
    world = World()
    world.user = replace(world.user, preferences=Preferences(preferred_power_level=PowerLevel.PRECISION))
    routed = await world.route(None)
    assert routed.record.facts.need.power_level is PowerLevel.PRECISION


async def test_the_weights_are_those_of_the_strategy() -> None:
    world = World()
    own = RoutingConfig(cost_weight=0.6, latency_weight=0.3, quality_weight=0.1)
    for strategy, expected in {"balanced": (0.6, 0.3, 0.1), "quality_optimized": (0.1, 0.1, 0.8)}.items():
        world.user = replace(world.user, preferences=Preferences(routing_config=replace(own, strategy=strategy)))
        weights = (await world.route()).record.facts.weights
        assert (weights.cost, weights.latency, weights.quality) == expected


async def test_nobody_eligible_is_not_kept_and_says_why() -> None:
    world = World()
    with pytest.raises(DomainError) as raised:
        await world.route(context_tokens=10**9)
    assert raised.value.reason == "NO_ELIGIBLE_MODEL"
    assert sum(int(count) for count in raised.value.metadata.values()) == 21
    assert world.kept == []


# --- budget ---


async def test_over_the_budget_only_free_eco_models_are_left() -> None:
    world = World(over_budget("downgrade"))
    routed = await world.route(PowerLevel.PRECISION)
    assert names(routed) == ["Qwen/Qwen2.5-32B-Instruct"]
    assert routed.record.facts.need.free_only
    assert routed.record.facts.need.power_level is PowerLevel.ECO
    assert Exclusion.OVER_BUDGET in dict(routed.decision.excluded).values()


async def test_or_the_request_is_rejected_until_the_next_month() -> None:
    with pytest.raises(DomainError) as raised:
        await World(over_budget("reject")).route()
    assert raised.value.reason == "BUDGET_EXCEEDED"
    assert raised.value.metadata == {"monthly_budget_usd": "50", "spent_usd": "50.12"}
    assert raised.value.retry_after_s == 3600


@pytest.mark.parametrize("on_exceeded", ["downgrade", "reject"])
async def test_within_the_budget_nothing_changes(on_exceeded: str) -> None:
    world = World(replace(over_budget(on_exceeded), spent_usd=Decimal("49.99")))
    assert names(await world.route()) == names(await World().route())


# --- keys ---


async def test_a_key_that_was_refused_a_moment_ago_is_left_out() -> None:
    keyed = replace(World().user, keyed_providers=frozenset({GROQ}))
    assert "llama-3.1-70b-versatile" in names(await World(keyed).route())
    refused = replace(keyed, refused_at={GROQ: NOW})
    routed = await World(refused).route()
    assert "llama-3.1-70b-versatile" not in names(routed)
    assert Exclusion.KEY_FAILING in dict(routed.decision.excluded).values()


# --- health ---


async def test_an_unhealthy_provider_is_left_out() -> None:
    routed = await World(health=View(unhealthy={LOCAL})).route()
    assert names(routed) == ["meta-llama/llama-3.1-405b"]
    assert not routed.decision.degraded


async def test_when_all_are_unhealthy_all_are_candidates_and_it_is_degraded() -> None:
    world = World(health=View(unhealthy={LOCAL, OPENROUTER}, probe_due={LOCAL}))
    routed = await world.route()
    assert len(names(routed)) == 2
    assert routed.decision.degraded
    assert world.probes == []


async def test_a_probe_that_is_due_goes_to_the_provider_once() -> None:
    world = World(health=View(unhealthy={LOCAL}, probe_due={LOCAL}))
    assert names(await world.route())[0] == "Qwen/Qwen2.5-32B-Instruct"
    assert names(await world.route()) == ["meta-llama/llama-3.1-405b"]
    assert world.probes == [LOCAL, LOCAL]
    assert [record.facts.need.unhealthy_providers for record in world.kept] == [set(), {LOCAL}]


async def test_a_provider_whose_probe_is_due_may_be_a_fallback_without_taking_it() -> None:
    world = World(health=View(unhealthy={OPENROUTER}, probe_due={OPENROUTER}))
    assert names(await world.route()) == ["Qwen/Qwen2.5-32B-Instruct", "meta-llama/llama-3.1-405b"]
    assert world.probes == []


async def test_a_probe_is_not_spent_on_a_request_that_the_provider_cannot_serve() -> None:
    world = World(health=View(unhealthy={GROQ}, probe_due={GROQ}))  # the user has no key for it
    await world.route()
    assert world.probes == []


async def test_a_live_latency_is_used_and_kept() -> None:
    model = next(each for each in MODELS if each.provider_id == OPENROUTER and each.power_level is PowerLevel.ECO)
    world = World(health=View(live_latencies={model.model_id: 90}))
    routed = await world.route()
    scored = next(each for each in routed.decision.ranked if each.model is model)
    assert scored.latency_ms == 90
    assert routed.record.facts.live_latencies == {model.model_id: 90}
