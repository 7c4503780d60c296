"""Which models are candidates, and for which one reason the others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.routing.eligibility import Exclusion, Need, select_eligible
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from llmrouter_server.catalog.snapshot import CatalogModel

PROVIDER, OTHER_PROVIDER, REFUSING_PROVIDER = UUID(int=1), UUID(int=2), UUID(int=4)
UNPAID_PROVIDER = UUID(int=5)
NEED = Need(
    PowerLevel.ECO,
    keyed_providers={PROVIDER, REFUSING_PROVIDER},
    failing_keys={REFUSING_PROVIDER},
    capabilities={"chat", "tools"},
    context_tokens=8192,
    without_credential={UNPAID_PROVIDER},
    rule_providers={UUID(int=number) for number in range(1, 6)},
)
# Meets NEED in every respect, and the context exactly.
FIT = replace(
    MODELS[0],
    model_id=UUID(int=10),
    provider_id=PROVIDER,
    power_level=PowerLevel.ECO,
    requires_byok=True,
    capabilities=frozenset({"chat", "tools", "json"}),
    max_context_tokens=8192,
)
OTHER_FIT = replace(FIT, model_id=UUID(int=11), provider_id=OTHER_PROVIDER, requires_byok=False)


def reason_for(model: CatalogModel, need: Need = NEED) -> Exclusion | None:
    """Return why the model is excluded, beside a healthy candidate of another provider."""
    eligibility = select_eligible([model, OTHER_FIT], need)
    assert OTHER_FIT in eligibility.candidates
    return dict(eligibility.excluded).get(model)


def test_a_model_that_meets_every_need_is_a_candidate() -> None:
    eligibility = select_eligible([FIT], NEED)
    assert eligibility.candidates == (FIT,)
    assert eligibility.excluded == ()
    assert not eligibility.degraded


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_enabled": False}, Exclusion.MODEL_DISABLED),
        ({"provider_enabled": False}, Exclusion.PROVIDER_DISABLED),
        ({"power_level": PowerLevel.BALANCED}, Exclusion.POWER_LEVEL),
        ({"power_level": PowerLevel.PRECISION}, Exclusion.POWER_LEVEL),
        ({"provider_id": UUID(int=6)}, Exclusion.RULE_PROVIDER),
        ({"provider_id": UUID(int=3)}, Exclusion.KEY_REQUIRED),
        ({"provider_id": REFUSING_PROVIDER}, Exclusion.KEY_FAILING),
        ({"provider_id": UNPAID_PROVIDER, "requires_byok": False}, Exclusion.NO_CREDENTIAL),
        ({"capabilities": frozenset({"chat", "json"})}, Exclusion.CAPABILITY_MISSING),
        ({"capabilities": frozenset()}, Exclusion.CAPABILITY_MISSING),
        ({"max_context_tokens": 8191}, Exclusion.CONTEXT_TOO_SMALL),
    ],
)
def test_one_unmet_need_excludes_a_model_and_is_the_reason_given(change: dict[str, object], reason: Exclusion) -> None:
    assert reason_for(replace(FIT, **change)) is reason


def test_a_model_of_an_unhealthy_provider_is_excluded_while_a_healthy_one_is_there() -> None:
    assert reason_for(FIT, replace(NEED, unhealthy_providers={PROVIDER})) is Exclusion.PROVIDER_UNHEALTHY


def test_of_several_unmet_needs_the_first_is_the_reason() -> None:
    """Everything is wrong with the model; repaired one need at a time, it gives each reason in the stated order."""
    need = replace(
        NEED,
        model_name=OTHER_FIT.model_name,
        free_only=True,
        keyed_providers=set(),
        failing_keys={PROVIDER},
        without_credential={PROVIDER},
        unhealthy_providers={PROVIDER},
        rule_providers={OTHER_PROVIDER},
    )
    model = replace(
        FIT,
        model_name="another",
        input_cost_per_1m=1.0,
        model_enabled=False,
        provider_enabled=False,
        power_level=PowerLevel.PRECISION,
        capabilities=frozenset(),
        max_context_tokens=1,
    )
    repairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"model_enabled": True}, {}),
        ({"provider_enabled": True}, {}),
        ({}, {"allow_fallbacks": True}),
        ({"power_level": PowerLevel.ECO}, {}),
        ({}, {"rule_providers": None}),
        ({"input_cost_per_1m": 0.0, "output_cost_per_1m": 0.0}, {}),
        ({}, {"keyed_providers": {PROVIDER}}),
        ({"requires_byok": False}, {}),
        ({}, {"without_credential": set()}),
        ({"capabilities": FIT.capabilities}, {}),
        ({"max_context_tokens": 8192}, {}),
    ]
    reasons = [reason_for(model, need)]
    for of_model, of_need in repairs:
        model, need = replace(model, **of_model), replace(need, **of_need)
        reasons.append(reason_for(model, need))
    assert reasons == list(Exclusion)
    assert reason_for(model, NEED) is None


@pytest.mark.parametrize(("input_price", "output_price"), [(0.0001, 0.0), (0.0, 0.0001), (1.0, 2.0)])
def test_over_the_budget_only_what_costs_nothing_at_all_is_a_candidate(input_price: float, output_price: float) -> None:
    need = replace(NEED, free_only=True)
    priced = replace(FIT, input_cost_per_1m=input_price, output_cost_per_1m=output_price)
    assert reason_for(priced, need) is Exclusion.OVER_BUDGET
    assert reason_for(replace(FIT, input_cost_per_1m=0.0, output_cost_per_1m=0.0), need) is None


def test_a_refused_key_of_ones_own_does_not_matter_where_none_is_needed() -> None:
    assert reason_for(replace(FIT, provider_id=REFUSING_PROVIDER, requires_byok=False)) is None


def test_a_provider_without_byok_needs_no_key() -> None:
    assert reason_for(replace(FIT, requires_byok=False), replace(NEED, keyed_providers=set())) is None


def test_a_key_for_one_provider_opens_no_other_one() -> None:
    assert reason_for(FIT, replace(NEED, keyed_providers={OTHER_PROVIDER})) is Exclusion.KEY_REQUIRED


@pytest.mark.parametrize(("context", "is_candidate"), [(8191, False), (8192, True), (8193, True)])
def test_a_context_of_exactly_the_size_asked_for_is_enough(context: int, is_candidate: bool) -> None:
    assert (reason_for(replace(FIT, max_context_tokens=context)) is None) == is_candidate


def test_with_nothing_asked_for_any_context_and_capabilities_will_do() -> None:
    bare = replace(FIT, capabilities=frozenset(), max_context_tokens=0)
    assert select_eligible([bare], Need(PowerLevel.ECO, {PROVIDER})).candidates == (bare,)


def test_when_only_unhealthy_providers_are_left_all_of_them_are_candidates_and_it_is_degraded() -> None:
    need = replace(NEED, unhealthy_providers={PROVIDER, OTHER_PROVIDER})
    disabled = replace(FIT, model_id=UUID(int=12), model_enabled=False)
    eligibility = select_eligible([FIT, disabled, OTHER_FIT], need)
    assert eligibility.candidates == (FIT, OTHER_FIT)
    assert eligibility.excluded == ((disabled, Exclusion.MODEL_DISABLED),)
    assert eligibility.degraded


def test_a_healthy_model_that_is_excluded_for_another_reason_does_not_prevent_degradation() -> None:
    need = replace(NEED, unhealthy_providers={PROVIDER})
    eligibility = select_eligible([FIT, replace(OTHER_FIT, model_enabled=False)], need)
    assert eligibility.candidates == (FIT,)
    assert eligibility.degraded


def test_one_unhealthy_provider_among_healthy_ones_is_no_degradation() -> None:
    assert not select_eligible([FIT, OTHER_FIT], replace(NEED, unhealthy_providers={PROVIDER})).degraded


@pytest.mark.parametrize("models", [[], [replace(FIT, model_enabled=False)]], ids=["empty", "all disabled"])
def test_nobody_eligible_is_no_degradation(models: list[CatalogModel]) -> None:
    eligibility = select_eligible(models, replace(NEED, unhealthy_providers={PROVIDER}))
    assert eligibility.candidates == ()
    assert [model for model, _ in eligibility.excluded] == models
    assert not eligibility.degraded


def test_by_default_a_caller_has_no_keys_and_no_provider_is_unhealthy() -> None:
    need = Need(PowerLevel.ECO)
    assert (need.keyed_providers, need.capabilities, need.context_tokens, need.unhealthy_providers) == (
        frozenset(),
        frozenset(),
        0,
        frozenset(),
    )


# --- asked for by name ---


@pytest.mark.parametrize("level", list(PowerLevel))
def test_the_power_level_is_not_held_against_the_model_that_was_asked_for(level: PowerLevel) -> None:
    need = replace(NEED, power_level=level, model_name=FIT.model_name)
    assert select_eligible([FIT], need).candidates == (FIT,)


def test_the_same_name_at_another_provider_and_level_is_the_model_that_was_asked_for() -> None:
    need = replace(NEED, model_name=FIT.model_name)
    assert reason_for(replace(FIT, power_level=PowerLevel.PRECISION), need) is None


@pytest.mark.parametrize(
    ("allow_fallbacks", "level", "reason"),
    [
        (False, PowerLevel.ECO, Exclusion.MODEL_NAME),
        (False, PowerLevel.PRECISION, Exclusion.MODEL_NAME),
        (True, PowerLevel.ECO, None),
        (True, PowerLevel.PRECISION, Exclusion.POWER_LEVEL),
    ],
)
def test_another_name_may_stand_in_only_if_that_is_allowed_and_only_at_the_power_level(
    allow_fallbacks: bool, level: PowerLevel, reason: Exclusion | None
) -> None:
    need = replace(NEED, model_name=FIT.model_name, allow_fallbacks=allow_fallbacks)
    assert reason_for(replace(FIT, model_name="another", power_level=level), need) is reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_enabled": False}, Exclusion.MODEL_DISABLED),
        ({"input_cost_per_1m": 0.1}, Exclusion.OVER_BUDGET),
        ({"provider_id": UUID(int=3)}, Exclusion.KEY_REQUIRED),
        ({"capabilities": frozenset()}, Exclusion.CAPABILITY_MISSING),
    ],
)
def test_every_other_need_is_held_against_the_named_model_too(change: dict[str, Any], reason: Exclusion) -> None:
    free = {"input_cost_per_1m": 0.0, "output_cost_per_1m": 0.0}
    need = replace(NEED, model_name=FIT.model_name, free_only=True)
    eligibility = select_eligible([replace(FIT, **{**free, **change})], need)
    assert [why for _, why in eligibility.excluded] == [reason]
