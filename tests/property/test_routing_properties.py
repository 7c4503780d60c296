"""The laws of routing, over generated catalogues: free, equal, huge and zero figures, and empty ones."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmrouter_server.catalog.snapshot import CatalogModel, PowerLevel, Snapshot
from llmrouter_server.routing.decisions import Decisions
from llmrouter_server.routing.eligibility import Exclusion, Need
from llmrouter_server.routing.record import Facts
from llmrouter_server.routing.scoring import Weights
from property.routing_cases import (
    LATENCIES,
    NAMES,
    PRICES,
    PROVIDER_IDS,
    RATINGS,
    TOKENS,
    Case,
    cases,
    catalogues,
    needs,
    open_cases,
    sick_cases,
    weightings,
)
from unit.routing_world import fates

if TYPE_CHECKING:
    from random import Random

    from llmrouter_server.routing.selection import Decision


def ids(decision: Decision) -> list[UUID]:
    return [scored.model.model_id for scored in decision.ranked]


def scores(decision: Decision) -> list[tuple[UUID, float, float, float, float]]:
    return [(each.model.model_id, each.composite, each.cost, each.latency, each.quality) for each in decision.ranked]


def unmet_needs(model: CatalogModel, need: Need) -> list[Exclusion]:
    """Return every unmet need but the provider's health, in the order in which they are given as the reason."""
    is_named, is_another = need.model_name is not None, model.model_name != need.model_name
    reasons = {
        Exclusion.MODEL_DISABLED: not model.model_enabled,
        Exclusion.PROVIDER_DISABLED: not model.provider_enabled,
        Exclusion.MODEL_NAME: is_named and is_another and not need.allow_fallbacks,
        Exclusion.POWER_LEVEL: model.power_level != need.power_level and (is_another or not is_named),
        Exclusion.RULE_PROVIDER: need.rule_providers is not None and model.provider_id not in need.rule_providers,
        Exclusion.OVER_BUDGET: need.free_only and max(model.input_cost_per_1m, model.output_cost_per_1m) > 0,
        Exclusion.KEY_REQUIRED: model.requires_byok and model.provider_id not in need.keyed_providers,
        Exclusion.KEY_FAILING: model.requires_byok and model.provider_id in need.failing_keys,
        Exclusion.NO_CREDENTIAL: model.provider_id in need.without_credential,
        Exclusion.CAPABILITY_MISSING: bool(need.capabilities - model.capabilities),
        Exclusion.CONTEXT_TOO_SMALL: need.context_tokens > model.max_context_tokens,
    }
    return [reason for reason, is_so in reasons.items() if is_so]


@given(cases | open_cases)
def test_all_scores_lie_between_0_and_1(case: Case) -> None:
    decision = case.decide()
    for scored in decision.ranked:
        for value in (scored.composite, scored.cost, scored.latency, scored.quality):
            assert 0.0 <= value <= 1.0, scored


@given(open_cases)
def test_the_scores_are_those_of_the_formula_in_exact_arithmetic(case: Case) -> None:
    costs = {
        model.model_id: Fraction(model.input_cost_per_1m) + Fraction(model.output_cost_per_1m) for model in case.models
    }
    dearest = max(costs.values(), default=Fraction(0))
    slowest = max((model.avg_latency_ms for model in case.models), default=0)
    weights = [Fraction(weight) for weight in (case.weights.cost, case.weights.latency, case.weights.quality)]
    for scored in case.decide().ranked:
        model = scored.model
        exact = [
            1 - costs[model.model_id] / dearest if dearest else Fraction(1),
            1 - Fraction(model.avg_latency_ms, slowest) if slowest else Fraction(1),
            Fraction(model.quality_rating) / 10,
        ]
        assert [scored.cost, scored.latency, scored.quality] == pytest.approx([float(each) for each in exact], abs=1e-9)
        composite = sum(weight * each for weight, each in zip(weights, exact, strict=True)) / max(sum(weights), 1)
        assert scored.composite == pytest.approx(float(composite), abs=1e-9)


@given(cases | open_cases, st.randoms(use_true_random=False))
def test_the_decision_does_not_depend_on_the_order_of_the_catalogue(case: Case, random: Random) -> None:
    shuffled = list(case.models)
    random.shuffle(shuffled)
    one, other = case.decide(), replace(case, models=shuffled).decide()
    assert one.ranked == other.ranked
    assert dict(one.excluded) == dict(other.excluded)
    assert one.degraded == other.degraded


@given(cases | sick_cases)
def test_no_model_is_lost_and_none_is_in_two_places(case: Case) -> None:
    decision = case.decide()
    found = ids(decision) + [model.model_id for model, _ in decision.excluded]
    assert sorted(found) == sorted(model.model_id for model in case.models)


@given(cases | sick_cases)
def test_each_excluded_model_has_the_first_unmet_need_as_its_reason_and_no_other_is_excluded(case: Case) -> None:
    decision = case.decide()
    for scored in decision.ranked:
        assert unmet_needs(scored.model, case.need) == []
    for model, reason in decision.excluded:
        unmet = unmet_needs(model, case.need)
        if unmet:
            assert reason is unmet[0]
        else:
            assert reason is Exclusion.PROVIDER_UNHEALTHY
            assert model.provider_id in case.need.unhealthy_providers
            assert decision.ranked


@given(cases | sick_cases)
def test_it_is_degraded_when_and_only_when_all_that_is_left_is_unhealthy(case: Case) -> None:
    able = [model for model in case.models if not unmet_needs(model, case.need)]
    healthy = [model for model in able if model.provider_id not in case.need.unhealthy_providers]
    decision = case.decide()
    assert decision.degraded == (bool(able) and not healthy)
    assert sorted(ids(decision)) == sorted(model.model_id for model in healthy or able)


@given(cases | sick_cases, st.sampled_from(Exclusion), st.integers(0, 8), PRICES, LATENCIES, RATINGS)
def test_a_model_that_is_not_eligible_changes_nothing_for_the_others(
    case: Case, reason: Exclusion, place: int, price: float, latency: int, rating: float
) -> None:
    """Add one that meets every need but one, with any price, latency and rating, anywhere in the catalogue."""
    before = case.decide()
    assume(reason is not Exclusion.PROVIDER_UNHEALTHY or (before.ranked and not before.degraded))
    newcomer = UUID(int=99)
    need = replace(case.need, rule_providers=case.need.rule_providers and case.need.rule_providers | {newcomer})
    price = 0.0 if need.free_only else price
    added = CatalogModel(
        model_id=UUID(int=5000),
        provider_id=newcomer,
        model_name=need.model_name or "newcomer",
        display_name="",
        provider_name="newcomer",
        api_endpoint="",
        power_level=need.power_level,
        input_cost_per_1m=price,
        output_cost_per_1m=price,
        avg_latency_ms=latency,
        quality_rating=rating,
        max_context_tokens=need.context_tokens,
        capabilities=frozenset(need.capabilities),
        priority=1000,
        requires_byok=False,
        model_enabled=True,
        provider_enabled=True,
    )
    of_model, of_need = _unmet(reason, need, newcomer)
    added, need = replace(added, **of_model), replace(need, **of_need)
    before = replace(case, need=need).decide()
    models = [*case.models[:place], added, *case.models[place:]]
    after = replace(case, models=models, need=need).decide()
    assert after.ranked == before.ranked
    assert after.degraded == before.degraded
    assert {**dict(before.excluded), added: reason} == dict(after.excluded)


def _unmet(reason: Exclusion, need: Need, newcomer: UUID) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a newcomer that meets every need, and the need, are to be changed for one to be unmet."""
    keyed, failing = need.keyed_providers | {newcomer}, need.failing_keys | {newcomer}
    another_level = next(level for level in PowerLevel if level != need.power_level)
    changes: dict[Exclusion, tuple[dict[str, Any], dict[str, Any]]] = {
        Exclusion.MODEL_DISABLED: ({"model_enabled": False}, {}),
        Exclusion.PROVIDER_DISABLED: ({"provider_enabled": False}, {}),
        Exclusion.MODEL_NAME: (
            {"model_name": "newcomer"},
            {"model_name": need.model_name or "a", "allow_fallbacks": False},
        ),
        Exclusion.POWER_LEVEL: ({"model_name": "newcomer", "power_level": another_level}, {"allow_fallbacks": True}),
        Exclusion.RULE_PROVIDER: ({}, {"rule_providers": (need.rule_providers or {*PROVIDER_IDS}) - {newcomer}}),
        Exclusion.OVER_BUDGET: ({"output_cost_per_1m": 0.0001}, {"free_only": True}),
        Exclusion.KEY_REQUIRED: ({"requires_byok": True}, {}),
        Exclusion.KEY_FAILING: ({"requires_byok": True}, {"keyed_providers": keyed, "failing_keys": failing}),
        Exclusion.NO_CREDENTIAL: ({}, {"without_credential": need.without_credential | {newcomer}}),
        Exclusion.CAPABILITY_MISSING: (
            {"capabilities": need.capabilities - {"vision"}},
            {"capabilities": need.capabilities | {"vision"}},
        ),
        Exclusion.CONTEXT_TOO_SMALL: (
            {"max_context_tokens": max(need.context_tokens, 1) - 1},
            {"context_tokens": max(need.context_tokens, 1)},
        ),
        Exclusion.PROVIDER_UNHEALTHY: ({}, {"unhealthy_providers": need.unhealthy_providers | {newcomer}}),
    }
    return changes[reason]


@given(cases | open_cases, NAMES)
def test_models_asked_for_by_name_come_first_and_among_themselves_all_stand_as_ever(case: Case, name: str) -> None:
    """Leave the power level out of it: then the name changes the order and nothing else."""
    level = case.need.power_level
    alike = replace(case, models=[replace(model, power_level=level) for model in case.models])
    unnamed = replace(alike, need=replace(case.need, model_name=None)).decide().ranked
    named = replace(alike, need=replace(case.need, model_name=name, allow_fallbacks=True)).decide().ranked
    wanted = [scored for scored in unnamed if scored.model.model_name == name]
    assert list(named) == wanted + [scored for scored in unnamed if scored.model.model_name != name]


@given(cases, NAMES)
def test_without_fallbacks_the_candidates_have_the_name_and_any_power_level(case: Case, name: str) -> None:
    need = replace(case.need, model_name=name, allow_fallbacks=False)
    by_level = [set(ids(replace(case, need=replace(need, power_level=level)).decide())) for level in PowerLevel]
    assert by_level[0] == by_level[1] == by_level[2]
    assert by_level[0] <= {model.model_id for model in case.models if model.model_name == name}


@given(open_cases, st.integers(0, 8), st.data())
def test_a_model_never_ranks_below_one_that_is_dearer_slower_and_worse(
    case: Case, place: int, data: st.DataObject
) -> None:
    dominated = CatalogModel(
        model_id=UUID(int=4000),
        provider_id=PROVIDER_IDS[0],
        model_name="a",  # first, as its priority is
        display_name="",
        provider_name="",
        api_endpoint="",
        power_level=PowerLevel.ECO,
        input_cost_per_1m=data.draw(PRICES.filter(bool)),
        output_cost_per_1m=data.draw(PRICES.filter(bool)),
        avg_latency_ms=data.draw(LATENCIES.filter(bool)),
        quality_rating=data.draw(RATINGS.filter(lambda rating: rating < 10)),
        max_context_tokens=0,
        capabilities=frozenset(),
        priority=1000,
        requires_byok=False,
        model_enabled=True,
        provider_enabled=True,
    )
    better = replace(
        dominated,
        model_id=UUID(int=5000),
        model_name="z",
        priority=0,
        input_cost_per_1m=data.draw(st.sampled_from([0.0, dominated.input_cost_per_1m - 0.0001])),
        output_cost_per_1m=data.draw(st.sampled_from([0.0, dominated.output_cost_per_1m - 0.0001])),
        avg_latency_ms=data.draw(st.integers(0, dominated.avg_latency_ms - 1)),
        quality_rating=data.draw(st.sampled_from([10.0, dominated.quality_rating + 0.01])),
    )
    models = [dominated, *case.models[:place], better, *case.models[place:]]
    ranked = ids(replace(case, models=models).decide())
    assert ranked.index(better.model_id) < ranked.index(dominated.model_id)


@given(open_cases)
def test_a_model_never_ranks_below_one_that_is_better_at_nothing(case: Case) -> None:
    """Equal in some figures and better in others, it is before the other, or tied and named after it."""
    ranked = [scored.model for scored in case.decide().ranked]
    for place, lower in enumerate(ranked):
        for higher in ranked[:place]:
            assert not (
                lower.input_cost_per_1m <= higher.input_cost_per_1m
                and lower.output_cost_per_1m <= higher.output_cost_per_1m
                and lower.avg_latency_ms <= higher.avg_latency_ms
                and lower.quality_rating >= higher.quality_rating
                and lower.priority >= higher.priority
                and lower.model_name < higher.model_name
            ), (lower, higher)


@given(cases | open_cases, st.integers(-8, 8))
def test_all_prices_in_another_unit_change_nothing(case: Case, doublings: int) -> None:
    """Powers of two scale a float exactly, so the scores are the same to the last bit."""
    scaled = [_with_prices_times(model, 2.0**doublings) for model in case.models]
    assert scores(replace(case, models=scaled).decide()) == scores(case.decide())


@given(open_cases, st.sampled_from([0.001, 0.93, 3, 7.77, 100]))
def test_all_prices_in_another_currency_change_no_score_by_more_than_rounding(case: Case, rate: float) -> None:
    scaled = replace(case, models=[_with_prices_times(model, rate) for model in case.models]).decide()
    before = {scored[0]: scored[1:] for scored in scores(case.decide())}
    for model_id, *after in scores(scaled):
        assert after == pytest.approx(before[model_id], abs=1e-12)


@given(open_cases)
def test_all_latencies_in_another_unit_change_nothing(case: Case) -> None:
    scaled = [replace(model, avg_latency_ms=model.avg_latency_ms * 1024) for model in case.models]
    assert scores(replace(case, models=scaled).decide()) == scores(case.decide())


@given(open_cases)
def test_the_order_is_that_of_the_composite(case: Case) -> None:
    ranked = case.decide().ranked
    for higher, lower in itertools.pairwise(ranked):
        assert higher.composite >= lower.composite - 1e-12


@given(cases | open_cases, st.sampled_from([0, 1, 500]))
def test_the_best_few_are_the_first_of_all(case: Case, latency: int) -> None:
    """Also where many score the same: with one latency, by cost or not at all."""
    alike = replace(case, models=[replace(model, avg_latency_ms=latency) for model in case.models])
    for each in (case, alike, replace(alike, weights=Weights(0.0, 1.0, 0.0))):
        decision = each.decide()
        ranked = decision.ranked
        assert decision.primary == (ranked[0] if ranked else None)
        for count in range(len(case.models) + 2):
            assert decision.best(count) == ranked[:count]


@given(cases | open_cases, st.sets(st.sampled_from(PROVIDER_IDS)), st.integers(1, 4))
def test_the_first_of_some_are_those_of_all(case: Case, wanted: set[UUID], count: int) -> None:
    decision = case.decide()
    found = decision.first(count, lambda model: model.provider_id in wanted)
    assert found == [scored for scored in decision.ranked if scored.model.provider_id in wanted][:count]


@given(st.lists(st.tuples(needs, weightings(), TOKENS), max_size=6), catalogues() | catalogues(always_eligible=True))
def test_decisions_that_are_kept_are_those_that_would_be_made(asked: list, models: list) -> None:
    """Whatever was asked for before, and with a context that is one token from a model's."""
    decisions, snapshot, latencies = Decisions(), Snapshot(1, tuple(models)), {}
    for need, weights, tokens in asked:
        for context in {max(need.context_tokens + one, 0) for one in (-1, 0, 1)}:
            facts = Facts(replace(need, context_tokens=context), weights, tokens, "", 3, live_latencies=latencies)
            assert fates(decisions.decide(snapshot, facts)) == fates(facts.decide(models))


@given(open_cases, st.sampled_from([0, 1, 500]), PRICES)
def test_ties_are_broken_by_priority_then_rating_then_name_then_id(case: Case, latency: int, price: float) -> None:
    """With one price and one latency, and quality weighing nothing, all composites are equal."""
    tied = [
        replace(model, input_cost_per_1m=price, output_cost_per_1m=price, avg_latency_ms=latency)
        for model in case.models
    ]
    ranked = replace(case, models=tied, weights=Weights(0.5, 0.5, 0.0)).decide().ranked
    expected = sorted(tied, key=lambda model: str(model.model_id))
    expected.sort(key=lambda model: model.model_name)
    expected.sort(key=lambda model: model.quality_rating, reverse=True)
    expected.sort(key=lambda model: model.priority, reverse=True)
    assert [scored.model for scored in ranked] == expected


@given(open_cases)
def test_when_all_are_free_and_instant_quality_alone_decides(case: Case) -> None:
    free = [
        replace(model, input_cost_per_1m=0.0, output_cost_per_1m=0.0, avg_latency_ms=0, priority=0)
        for model in case.models
    ]
    ranked = replace(case, models=free).decide().ranked
    assert all(scored.cost == scored.latency == 1.0 for scored in ranked)
    ratings = [scored.model.quality_rating for scored in ranked]
    assert ratings == sorted(ratings, reverse=True)


@given(open_cases)
def test_the_dearest_and_the_slowest_score_0_unless_nobody_costs_or_takes_anything(case: Case) -> None:
    ranked = case.decide().ranked
    assume(ranked)
    anyone_costs = any(model.input_cost_per_1m + model.output_cost_per_1m > 0 for model in case.models)
    anyone_takes_time = any(model.avg_latency_ms > 0 for model in case.models)
    assert min(scored.cost for scored in ranked) == (0.0 if anyone_costs else 1.0)
    assert min(scored.latency for scored in ranked) == (0.0 if anyone_takes_time else 1.0)


def _with_prices_times(model: CatalogModel, factor: float) -> CatalogModel:
    return replace(
        model,
        input_cost_per_1m=model.input_cost_per_1m * factor,
        output_cost_per_1m=model.output_cost_per_1m * factor,
    )
