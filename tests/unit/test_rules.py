"""What a routing rule makes of a decision: the first that matches changes it and is named by it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from llmrouter.v2 import decision_pb2, power_level_pb2
from llmrouter.v2.routing_service_pb2 import RouteResponse
from llmrouter_server.catalog.snapshot import CatalogRule, PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.explanation import explain
from llmrouter_server.routing.record import AppliedRule, facts_from_json, facts_to_json
from llmrouter_server.routing.scoring import Tokens, Weights
from llmrouter_server.routing.service import _answer
from llmrouter_server.rules import condition as condition_module
from llmrouter_server.rules.matching import ActiveRules
from llmrouter_server.rules.rule import MOST_ACTIVE
from llmrouter_server.settings.preferences import Preferences, RoutingConfig
from turns import in_one_go
from unit.routing_world import LOCAL, NEW_USER, NOW, OPENROUTER, USER, World, asked, fates, names, over_budget
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from llmrouter_server.routing.router import Routed

ECO_OF_OPENROUTER, FREE_ECO = "meta-llama/llama-3.1-405b", "Qwen/Qwen2.5-32B-Instruct"
OWN_WEIGHTS = Preferences(routing_config=RoutingConfig(cost_weight=0.6, latency_weight=0.3, quality_weight=0.1))


def rule(name: str = "r", **values: Any) -> CatalogRule:
    return CatalogRule(UUID(int=sum(name.encode())), name, **values)


def ruled(*rules: CatalogRule, **values: Any) -> World:
    return World(rules=list(rules), **values)


def rule_of(routed: Routed) -> str | None:
    return routed.record.facts.rule.name if routed.record.facts.rule else None


# --- which rule ---


async def test_the_first_rule_that_matches_holds_and_is_named() -> None:
    world = ruled(
        rule("no", condition='task_type == "other"', power_level=PowerLevel.ECO),
        rule("first", condition='task_type == "chat"', power_level=PowerLevel.PRECISION),
        rule("second", strategy="cost_optimized"),
    )
    routed = await world.route()
    assert routed.record.facts.rule == AppliedRule(rule("first").rule_id, "first")
    assert routed.record.facts.need.power_level is PowerLevel.PRECISION
    assert routed.record.facts.strategy == "balanced"


async def test_when_none_matches_all_is_as_without_rules() -> None:
    routed = await ruled(rule(condition='task_type == "other"', provider_ids=frozenset({LOCAL}))).route()
    unruled = await World().route()
    assert routed.record.facts == unruled.record.facts
    assert fates(routed.decision) == fates(unruled.decision)


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ('task_type == "embed"', {"task_type": "embed"}),
        ('power_level == "PRECISION"', {"power_level": PowerLevel.PRECISION}),
        ('power_level == "BALANCED"', {"power_level": None}),
        (f'model == "{ECO_OF_OPENROUTER}"', {"model_name": ECO_OF_OPENROUTER}),
        ('model == ""', {}),
        ('required_capabilities == ["chat", "json"]', {"capabilities": frozenset({"json", "chat"})}),
        ("min_context_tokens == 9", {"context_tokens": 9}),
        ("input_tokens == 0 && output_tokens == 0", {}),
        ("input_tokens == 1000000 && output_tokens == 5", {"tokens": Tokens(1_000_000, 5)}),
        (f'user_id == "{USER}"', {}),
        ('now == timestamp("2026-03-31T23:00:00Z")', {}),
    ],
)
async def test_a_condition_is_about_the_request(condition: str, changes: dict[str, Any]) -> None:
    world = ruled(rule(condition=condition, strategy="cost_optimized"), now=NOW + timedelta(seconds=59))
    asks = asked(**{"task_type": "chat", **changes})
    assert rule_of(await world.router().route(asks)) == "r"


async def test_a_rule_that_cannot_be_evaluated_does_not_match_is_counted_and_logged_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failed() -> float:
        sample = REGISTRY.get_sample_value("llmrouter_rules_total", {"rule": "broken", "outcome": "failed"})
        return sample or 0.0

    world = ruled(
        rule("broken", condition="1 / output_tokens > 0", power_level=PowerLevel.ECO), rule("r", strategy="balanced")
    )
    before, router = failed(), world.router()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert rule_of(await router.route(asked())) == "r"
    assert failed() == before + 3
    assert [record.message for record in caplog.records] == ["a routing rule cannot be evaluated"]


def test_a_stored_condition_that_is_none_any_more_never_matches() -> None:
    active = ActiveRules([rule("old", condition="colour == 1", power_level=PowerLevel.ECO)])
    assert not active


async def test_each_match_is_counted_also_when_it_is_remembered() -> None:
    def matched() -> float:
        sample = REGISTRY.get_sample_value("llmrouter_rules_total", {"rule": "counted", "outcome": "matched"})
        return sample or 0.0

    router, asks, before = ruled(rule("counted", strategy="balanced")).router(), asked(), matched()
    for _ in range(3):
        await router.route(asks)
    assert matched() == before + 3


# --- what it does ---


async def test_its_power_level_goes_before_the_requests_and_the_settings() -> None:
    world = ruled(rule(power_level=PowerLevel.PRECISION))
    world.user = replace(NEW_USER, preferences=Preferences(preferred_power_level=PowerLevel.ECO))
    for level in (None, PowerLevel.ECO):
        routed = await world.route(level)
        assert names(routed) == names(await World().route(PowerLevel.PRECISION))


@pytest.mark.parametrize(
    ("values", "weights", "strategy"),
    [
        ({"weights": (0.5, 0.25, 0.25)}, Weights(0.5, 0.25, 0.25), "balanced"),
        ({"strategy": "quality_optimized"}, Weights(0.1, 0.1, 0.8), "quality_optimized"),
        ({"strategy": "balanced"}, Weights(0.4, 0.4, 0.2), "balanced"),
        ({"power_level": PowerLevel.ECO}, Weights(0.6, 0.3, 0.1), "balanced"),
    ],
)
async def test_its_weights_or_strategy_go_before_the_settings(
    values: dict[str, Any], weights: Weights, strategy: str
) -> None:
    facts = (await ruled(rule(**values), user=replace(NEW_USER, preferences=OWN_WEIGHTS)).route()).record.facts
    assert (facts.weights, facts.strategy) == (weights, strategy)


async def test_it_lets_only_its_providers_through() -> None:
    routed = await ruled(rule(provider_ids=frozenset({OPENROUTER}))).route()
    assert names(routed) == [ECO_OF_OPENROUTER]
    assert fates(routed.record.facts.decide(MODELS)) == fates(routed.decision)


async def test_when_its_providers_have_nothing_to_offer_nobody_is_eligible_and_the_rule_is_the_reason() -> None:
    with pytest.raises(DomainError) as raised:
        await ruled(rule(provider_ids=frozenset({UUID(int=99)}))).route()
    assert raised.value.reason == "NO_ELIGIBLE_MODEL"
    eco = sum(each.power_level is PowerLevel.ECO for each in MODELS)
    assert raised.value.metadata == {"POWER_LEVEL": str(len(MODELS) - eco), "RULE_PROVIDER": str(eco)}


async def test_its_power_level_is_not_held_against_a_model_asked_for_by_name_but_chooses_its_fallbacks() -> None:
    world = ruled(rule(power_level=PowerLevel.PRECISION))
    routed = await world.route(None, model_name=ECO_OF_OPENROUTER, allow_fallbacks=True)
    first, *others = names(routed)
    assert first == ECO_OF_OPENROUTER
    assert sorted(others) == sorted(names(await World().route(PowerLevel.PRECISION)))


async def test_its_providers_are_held_against_a_model_asked_for_by_name() -> None:
    with pytest.raises(DomainError) as raised:
        await ruled(rule(provider_ids=frozenset({LOCAL}))).route(None, model_name=ECO_OF_OPENROUTER)
    assert raised.value.metadata == {"MODEL_NAME": "20", "RULE_PROVIDER": "1"}


async def test_over_the_budget_only_free_eco_models_are_left_whatever_it_says() -> None:
    routed = await ruled(rule(power_level=PowerLevel.PRECISION), user=over_budget("downgrade")).route()
    assert names(routed) == [FREE_ECO]
    assert routed.record.facts.need.free_only
    assert rule_of(routed) == "r"
    within = replace(over_budget("downgrade"), spent_usd=Decimal(1))
    assert PowerLevel.ECO not in {
        scored.model.power_level
        for scored in (await ruled(rule(power_level=PowerLevel.PRECISION), user=within).route()).decision.ranked
    }


# --- what is remembered ---


async def test_the_conditions_of_many_rules_are_compiled_one_at_a_time_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = [rule(f"{n}", condition=f'task_type == "many {n}"', power_level=PowerLevel.ECO) for n in range(MOST_ACTIVE)]
    router = ruled(*rules).router()
    async with in_one_go() as compiled:
        monkeypatch.setattr(condition_module, "_compile", compiled.counted(condition_module._compile))
        routed = await router.route(asked(task_type=f"many {MOST_ACTIVE - 1}"))
        assert rule_of(routed) == f"{MOST_ACTIVE - 1}"
        assert (compiled.most, compiled.all) == (1, MOST_ACTIVE)
        for changed in (rules[1:], rules):
            await ruled(*changed).route()
        assert compiled.all == MOST_ACTIVE


async def test_decisions_that_come_out_the_same_are_one_and_name_each_their_own_rule() -> None:
    world = ruled(
        rule("a", condition='task_type == "a"', strategy="balanced"),
        rule("b", condition='task_type == "b2"', strategy="balanced"),
    )
    router = world.router()
    named, unnamed = await router.route(asked(task_type="a")), await router.route(asked(task_type="b"))
    other = await router.route(asked(task_type="b2"))
    assert named.decision is unnamed.decision is other.decision
    for routed, name in ((named, "a"), (unnamed, None), (other, "b")):
        assert rule_of(routed) == name
        assert RouteResponse.FromString(_answer(routed)).rule.rule_name == (name or "")
        assert (await explain(routed.record, routed.decision)).rule.rule_name == (name or "")
        stored = json.loads(facts_to_json(routed.record.facts, routed.decision))
        assert facts_from_json(stored) == routed.record.facts


async def test_the_answer_and_the_explanation_name_the_rule_and_what_it_did() -> None:
    only = frozenset({OPENROUTER, LOCAL})
    named = rule("only two", power_level=PowerLevel.ECO, weights=(0.0, 0.0, 1.0), provider_ids=only)
    routed = await ruled(named).route(PowerLevel.PRECISION)
    expected = decision_pb2.AppliedRule(rule_id=str(named.rule_id), rule_name="only two")
    answer, told = RouteResponse.FromString(_answer(routed)), await explain(routed.record, routed.decision)
    assert answer.rule == told.rule == expected
    assert (told.power_level, told.strategy, told.weights.quality) == (power_level_pb2.ECO, "balanced", 1)
    assert list(told.rule_provider_ids) == sorted(map(str, only))
    untold = await World().route()
    assert not RouteResponse.FromString(_answer(untold)).HasField("rule")
    assert not (await explain(untold.record, untold.decision)).HasField("rule")


async def test_a_rule_about_the_time_holds_from_minute_to_minute_for_the_same_request() -> None:
    world = ruled(rule("eve", condition="now.getMinutes() == 59", power_level=PowerLevel.ECO), now=NOW)
    router, asks, seen = world.router(), asked(PowerLevel.PRECISION), []
    for seconds in (-60, -1, 0, 59, 60):
        world.now = NOW + timedelta(seconds=seconds)
        seen.append(rule_of(await router.route(asks)))
    assert seen == ["eve", "eve", None, None, None]


async def test_a_request_is_evaluated_once_while_no_rule_looks_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    first_match = ActiveRules.first_match

    def counting(self: ActiveRules, situation: Any) -> Any:
        tried.append(situation)
        return first_match(self, situation)

    monkeypatch.setattr(ActiveRules, "first_match", counting)
    world = ruled(rule(condition='task_type == "chat"', strategy="balanced"))
    router, asks = world.router(), asked()
    for minutes in range(3):
        world.now = NOW + timedelta(minutes=minutes)
        await router.route(asks)
    assert len(tried) == 1


async def test_a_change_of_the_rules_is_seen_by_the_same_request() -> None:
    world = ruled()
    router, asks = world.router(), asked()
    assert rule_of(await router.route(asks)) is None
    world.rules = [rule("new", power_level=PowerLevel.PRECISION)]
    assert rule_of(await router.route(asks)) == "new"
    world.rules = []
    assert rule_of(await router.route(asks)) is None
