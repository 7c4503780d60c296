"""A decision from what is known now: the user's state, the providers' health and the budget."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.decisions import MOST_VERDICTS
from llmrouter_server.routing.eligibility import Exclusion
from llmrouter_server.routing.state import REFUSED_FOR
from llmrouter_server.settings.preferences import Preferences, RoutingConfig
from unit.routing_world import GROQ, LOCAL, NOW, OPENROUTER, USER, View, World, asked, fates, names, over_budget
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from llmrouter_server.routing.router import Asked, Routed


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


# --- what is remembered of a request ---


class Again:
    """Asks the same router for the very same again and again, and counts what it had to decide anew."""

    def __init__(self, world: World, **changes: Any) -> None:
        self.world, self.router, self.made = world, world.router(), 0
        self.asked: Asked = asked(**changes)
        decide = self.router._decide

        def counting(*given: Any) -> Any:
            self.made += 1
            return decide(*given)

        self.router._decide = counting  # type: ignore[method-assign]

    async def route(self) -> Routed:
        return await self.router.route(self.asked)


async def test_the_same_request_is_decided_once_and_kept_each_time() -> None:
    again = Again(World())
    first, second = await again.route(), await again.route()
    assert again.made == 1
    assert first.decision is second.decision
    assert again.world.kept == [first.record, second.record]
    assert replace(first.record, id=second.record.id) == second.record
    assert first.record.id != second.record.id


@pytest.mark.parametrize(
    "change",
    [
        {"keyed_providers": frozenset({GROQ})},
        {"preferences": Preferences(routing_config=RoutingConfig(strategy="cost_optimized"))},
        {"preferences": Preferences(monthly_budget_usd=Decimal(50)), "spent_usd": Decimal(50)},
        {"refused_at": {GROQ: NOW}, "keyed_providers": frozenset({GROQ})},
    ],
)
async def test_a_change_of_the_user_is_seen_by_the_same_request(change: dict[str, Any]) -> None:
    again = Again(World())
    await again.route()
    again.world.user = replace(again.world.user, **change)
    assert (await again.route()).record.facts == (await Again(again.world).route()).record.facts
    assert again.made == 2


async def test_a_budget_that_is_used_up_rejects_the_same_request() -> None:
    within = replace(over_budget("reject"), spent_usd=Decimal(1))
    again = Again(World(within))
    await again.route()
    again.world.user = over_budget("reject")
    for _ in range(2):
        with pytest.raises(DomainError) as raised:
            await again.route()
        assert raised.value.reason == "BUDGET_EXCEEDED"
    again.world.user = within
    await again.route()


async def test_a_change_of_the_catalogue_is_seen_by_the_same_request() -> None:
    again = Again(World())
    first = await again.route()
    again.world.models = [model for model in MODELS if model is not first.decision.ranked[0].model]
    assert names(await again.route()) == names(first)[1:]


async def test_a_change_of_health_is_seen_by_the_same_request() -> None:
    again = Again(World())
    first = await again.route()
    again.world.health = View(unhealthy={LOCAL})
    assert names(await again.route()) == names(first)[1:]
    again.world.health = View(live_latencies={first.decision.ranked[0].model.model_id: 60_000})
    assert (await again.route()).decision.ranked != first.decision.ranked


async def test_a_refused_key_is_tried_again_after_its_rest_by_the_same_request() -> None:
    again = Again(World(replace(World().user, keyed_providers=frozenset({GROQ}), refused_at={GROQ: NOW})))
    assert "llama-3.1-70b-versatile" not in names(await again.route())
    again.world.now = NOW + REFUSED_FOR
    assert "llama-3.1-70b-versatile" in names(await again.route())


async def test_a_probe_is_taken_once_by_the_same_request() -> None:
    again = Again(World(health=View(unhealthy={LOCAL}, probe_due={LOCAL})))
    assert names(await again.route())[0] == "Qwen/Qwen2.5-32B-Instruct"
    assert names(await again.route()) == ["meta-llama/llama-3.1-405b"]
    assert again.world.probes == [LOCAL, LOCAL]


async def test_nobody_eligible_is_told_again_and_never_kept() -> None:
    again = Again(World(), context_tokens=10**9)
    for _ in range(2):
        with pytest.raises(DomainError) as raised:
            await again.route()
        assert raised.value.reason == "NO_ELIGIBLE_MODEL"
    assert again.made == 1
    assert again.world.kept == []


async def test_each_decision_is_counted_also_when_it_is_remembered() -> None:
    def counted() -> tuple[float, float]:
        chosen = {"provider": "Local vLLM", "model": "Qwen/Qwen2.5-32B-Instruct", "power_level": "ECO"}
        excluded = REGISTRY.get_sample_value("llmrouter_exclusions_total", {"reason": "POWER_LEVEL"})
        return REGISTRY.get_sample_value("llmrouter_decisions_total", chosen) or 0, excluded or 0

    again, before = Again(World()), counted()
    for _ in range(3):
        routed = await again.route()
    excluded = sum(reason is Exclusion.POWER_LEVEL for _, reason in routed.decision.excluded)
    assert counted() == (before[0] + 3, before[1] + 3 * excluded)


async def test_only_so_much_is_remembered() -> None:
    router = World().router()
    for _ in range(2 * MOST_VERDICTS // len(MODELS)):
        await router.route(asked())
    assert len(router._made) * len(MODELS) <= MOST_VERDICTS


async def test_what_is_asked_for_once_is_not_remembered() -> None:
    router = World().router()
    with pytest.raises(DomainError):
        await router.route(asked(needs_credential=True))
    assert not router._made
