"""How candidates are scored against each other, and how ties are broken."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.routing.eligibility import Exclusion, Need
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Candidates, Scored, Tokens, Weights
from llmrouter_server.routing.selection import decide
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from llmrouter_server.catalog.snapshot import CatalogModel

ECO = Need(PowerLevel.ECO)
ALIKE = replace(
    MODELS[0],
    model_id=UUID(int=10),
    model_name="m",
    power_level=PowerLevel.ECO,
    requires_byok=False,
    input_cost_per_1m=1.0,
    output_cost_per_1m=3.0,
    avg_latency_ms=100,
    quality_rating=5.0,
    priority=50,
)


def order(models: list[CatalogModel], weights: Weights | None = None, need: Need = ECO) -> list[CatalogModel]:
    return [scored.model for scored in decide(models, need, weights or Weights()).ranked]


def score(models: list[CatalogModel], weights: Weights, tokens: Tokens = ONE_MILLION_EACH) -> list[Scored]:
    return list(Candidates(models).score(weights, tokens))


def assert_goes_first(first: CatalogModel, second: CatalogModel, weights: Weights | None = None) -> None:
    """Check the order of two models whichever comes first in the catalogue."""
    assert order([first, second], weights) == order([second, first], weights) == [first, second]


def test_the_higher_composite_goes_before_priority_rating_and_name() -> None:
    better = replace(
        ALIKE, model_id=UUID(int=11), model_name="z", input_cost_per_1m=0.5, quality_rating=4.9, priority=0
    )
    favoured = replace(ALIKE, model_name="a", priority=1000)
    assert_goes_first(better, favoured)


def test_of_equal_composites_the_higher_priority_goes_first() -> None:
    first = replace(ALIKE, model_id=UUID(int=11), model_name="z", priority=51)
    assert_goes_first(first, ALIKE)


def test_priority_goes_before_rating() -> None:
    first = replace(ALIKE, model_id=UUID(int=11), model_name="z", priority=51, quality_rating=1.0)
    assert_goes_first(first, ALIKE, Weights(0.5, 0.5, 0))


def test_of_equal_priorities_the_higher_rating_goes_first() -> None:
    first = replace(ALIKE, model_id=UUID(int=11), model_name="z", quality_rating=5.01)
    assert_goes_first(first, ALIKE, Weights(0.5, 0.5, 0))


def test_of_equal_ratings_the_name_decides() -> None:
    first = replace(ALIKE, model_id=UUID(int=11), model_name="l")
    assert_goes_first(first, ALIKE)


def test_two_providers_models_of_the_same_name_are_in_the_order_of_their_ids() -> None:
    first = replace(ALIKE, model_id=UUID(int=9), provider_id=UUID(int=2))
    assert_goes_first(first, ALIKE)


def test_composites_that_differ_by_rounding_alone_are_equal() -> None:
    """Both composites are 0.868, but the floating-point sums differ in the last bit: priority decides, not the bit.

    The dearest costs 90, the slowest takes 5000 ms: 0.4 * 1 + 0.4 * 0.7 + 0.2 * 0.94, and
    0.4 * 0.8 + 0.4 * 0.88 + 0.2 * 0.98.
    """
    worst = replace(ALIKE, input_cost_per_1m=15.0, output_cost_per_1m=75.0, avg_latency_ms=5000, quality_rating=0.0)
    free = replace(ALIKE, model_id=UUID(int=1), input_cost_per_1m=0.0, output_cost_per_1m=0.0)
    free = replace(free, avg_latency_ms=1500, quality_rating=9.4)
    paid = replace(ALIKE, model_id=UUID(int=2), input_cost_per_1m=3.0, output_cost_per_1m=15.0)
    paid = replace(paid, avg_latency_ms=600, quality_rating=9.8)
    scored = {each.model.model_id: each.composite for each in score([worst, free, paid], Weights())}
    assert scored[free.model_id] != scored[paid.model_id]  # else this test shows nothing
    assert order([replace(free, priority=90), replace(paid, priority=80), worst])[0].model_id == free.model_id
    assert order([replace(free, priority=80), replace(paid, priority=90), worst])[0].model_id == paid.model_id


def test_every_order_of_the_catalogue_gives_the_same_decision() -> None:
    models = [
        ALIKE,
        replace(ALIKE, model_id=UUID(int=11), model_name="l"),
        replace(ALIKE, model_id=UUID(int=12), priority=60),
        replace(ALIKE, model_id=UUID(int=13), avg_latency_ms=50),
    ]
    decisions = {decide(permuted, ECO, Weights()).ranked for permuted in itertools.permutations(models)}
    assert len(decisions) == 1


def test_costs_and_latencies_are_relative_to_the_eligible_models_alone() -> None:
    """A dear, slow model of another level does not make the others look cheap and fast."""
    elsewhere = replace(
        ALIKE, model_id=UUID(int=11), power_level=PowerLevel.PRECISION, input_cost_per_1m=96.0, avg_latency_ms=10_000
    )
    decision = decide([ALIKE, elsewhere], ECO, Weights())
    assert [(scored.cost, scored.latency) for scored in decision.ranked] == [(0.0, 0.0)]
    assert decision.excluded == ((elsewhere, Exclusion.POWER_LEVEL),)


def test_a_model_half_as_dear_and_half_as_slow_as_the_worst_scores_a_half() -> None:
    half = replace(ALIKE, model_id=UUID(int=11), input_cost_per_1m=2.0, output_cost_per_1m=0.0, avg_latency_ms=50)
    _, scored = score([ALIKE, half], Weights())
    assert (scored.cost, scored.latency, scored.quality) == (0.5, 0.5, 0.5)
    assert scored.composite == pytest.approx(0.5)


def test_when_all_are_free_and_instant_each_scores_1_for_cost_and_latency() -> None:
    free = replace(ALIKE, input_cost_per_1m=0.0, output_cost_per_1m=0.0, avg_latency_ms=0, quality_rating=10.0)
    (scored,) = score([free], Weights())
    assert (scored.cost, scored.latency, scored.quality, scored.composite) == (1.0, 1.0, 1.0, 1.0)


def test_a_request_of_no_tokens_costs_nothing_anywhere() -> None:
    dear = replace(ALIKE, model_id=UUID(int=11), input_cost_per_1m=99.0)
    assert [scored.cost for scored in score([ALIKE, dear], Weights(), Tokens(0, 0))] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (Tokens(1000, 0), [0.5, 0.0]),  # 1 against 2 per million in
        (Tokens(0, 1000), [0.0, 1.0]),  # 3 against 0 per million out
        (Tokens(2000, 1000), [0.0, 0.2]),  # 2 * 1 + 3 = 5 against 2 * 2 + 0 = 4
    ],
)
def test_input_and_output_tokens_are_priced_apart(tokens: Tokens, expected: list[float]) -> None:
    other = replace(ALIKE, model_id=UUID(int=11), input_cost_per_1m=2.0, output_cost_per_1m=0.0)
    assert [scored.cost for scored in score([ALIKE, other], Weights(), tokens)] == pytest.approx(expected)


@pytest.mark.parametrize("weights", [Weights(0.401, 0.4, 0.2), Weights(1, 0.001, 0), Weights(0.4, 0.4, 0.199)])
def test_weights_that_sum_to_1_within_a_thousandth_keep_the_composite_within_1(weights: Weights) -> None:
    perfect = replace(ALIKE, input_cost_per_1m=0.0, output_cost_per_1m=0.0, avg_latency_ms=0, quality_rating=10.0)
    (scored,) = score([perfect], weights)
    assert 0.999 <= scored.composite <= 1.0


@pytest.mark.parametrize(
    ("weights", "composite"), [(Weights(1, 0, 0), 0.75), (Weights(0, 1, 0), 0.5), (Weights(0, 0, 1), 0.8)]
)
def test_a_weight_of_1_makes_its_criterion_the_composite(weights: Weights, composite: float) -> None:
    model = replace(ALIKE, model_id=UUID(int=11), output_cost_per_1m=0.0, avg_latency_ms=50, quality_rating=8.0)
    assert [scored.composite for scored in score([ALIKE, model], weights)][1] == composite


def test_no_candidates_is_no_error_and_every_model_has_its_reason() -> None:
    decision = decide(MODELS, Need(PowerLevel.ECO, context_tokens=10**9), Weights())
    assert decision.ranked == ()
    assert len(decision.excluded) == len(MODELS)
    assert not decision.degraded


def test_an_empty_catalogue_is_no_error() -> None:
    decision = decide([], ECO, Weights())
    assert (decision.ranked, decision.excluded, decision.degraded) == ((), (), False)
    assert score([], Weights()) == []


def test_a_decision_with_only_unhealthy_candidates_ranks_them_and_says_degraded() -> None:
    other = replace(ALIKE, model_id=UUID(int=11), priority=60)
    decision = decide([ALIKE, other], replace(ECO, unhealthy_providers={ALIKE.provider_id}), Weights())
    assert [scored.model for scored in decision.ranked] == [other, ALIKE]
    assert decision.degraded
