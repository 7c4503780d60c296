"""What the gateway asks of routing beyond Route: a model by its name, what can be paid, and what is free."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from llmrouter_server.byok.cipher import PLATFORM_USER
from llmrouter_server.byok.live_keys import KeptKey
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.eligibility import Exclusion
from unit.routing_world import GROQ, LOCAL, NEW_USER, NOW, OPENROUTER, USER, View, World, fates, names, over_budget
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from datetime import datetime

    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.routing.state import UserState


# --- a model asked for by name ---

ECO_OF_OPENROUTER = "meta-llama/llama-3.1-405b"
BALANCED_OF_OPENROUTER = "deepseek/deepseek-chat"


async def test_the_named_model_is_the_only_candidate_and_its_level_the_one_routed_for() -> None:
    world = World()
    routed = await world.route(None, model_name=ECO_OF_OPENROUTER)
    assert names(routed) == [ECO_OF_OPENROUTER]
    assert routed.record.facts.need.power_level is PowerLevel.ECO
    assert fates(routed.record.facts.decide(MODELS)) == fates(routed.decision)


async def test_the_lowest_level_of_that_name_is_taken_and_one_that_is_asked_for_goes_before_it() -> None:
    world = World()
    twin = next(each for each in MODELS if each.model_name == ECO_OF_OPENROUTER)
    world.models = [replace(twin, model_id=UUID(int=9), power_level=PowerLevel.PRECISION), *MODELS]
    routed = await world.route(None, model_name=ECO_OF_OPENROUTER)
    assert names(routed) == [ECO_OF_OPENROUTER] * 2
    assert routed.record.facts.need.power_level is PowerLevel.ECO
    routed = await world.route(PowerLevel.BALANCED, model_name=ECO_OF_OPENROUTER)
    assert names(routed) == [ECO_OF_OPENROUTER] * 2
    assert routed.record.facts.need.power_level is PowerLevel.BALANCED


async def test_others_of_its_level_come_after_it_when_they_may() -> None:
    routed = await World().route(None, model_name=BALANCED_OF_OPENROUTER, allow_fallbacks=True)
    first, *others = names(routed)
    assert first == BALANCED_OF_OPENROUTER
    unnamed = names(await World().route(PowerLevel.BALANCED))
    assert others == [name for name in unnamed if name != BALANCED_OF_OPENROUTER] != []


@pytest.mark.parametrize("allow_fallbacks", [False, True])
async def test_nothing_stands_in_for_a_name_that_is_in_no_catalogue(allow_fallbacks: bool) -> None:
    world = World()
    with pytest.raises(DomainError) as raised:
        await world.route(None, model_name="gpt-4-o", allow_fallbacks=allow_fallbacks)
    assert (raised.value.reason, raised.value.metadata) == ("NO_ELIGIBLE_MODEL", {"MODEL_NAME": "21"})


async def test_a_named_model_that_costs_is_not_had_over_the_budget_but_free_ones_stand_in_for_it() -> None:
    world = World(over_budget("downgrade"))
    with pytest.raises(DomainError) as raised:
        await world.route(None, model_name=BALANCED_OF_OPENROUTER)
    assert raised.value.metadata == {"MODEL_NAME": "20", "OVER_BUDGET": "1"}
    routed = await world.route(None, model_name=BALANCED_OF_OPENROUTER, allow_fallbacks=True)
    assert names(routed) == ["Qwen/Qwen2.5-32B-Instruct"]


async def test_a_free_model_of_any_level_is_had_by_its_name_over_the_budget() -> None:
    free = "google/gemini-2.0-flash-thinking-exp"
    routed = await World(over_budget("downgrade")).route(None, model_name=free, allow_fallbacks=True)
    assert names(routed) == [free, "Qwen/Qwen2.5-32B-Instruct"]
    assert routed.record.facts.need.power_level is PowerLevel.ECO


# --- free models only, because a request would cost more than is left ---


async def test_the_downgraded_decision_can_be_asked_for_before_the_budget_is_used_up() -> None:
    world = World(replace(over_budget("downgrade"), spent_usd=Decimal(49)))
    routed = await world.route(PowerLevel.PRECISION, free_only=True)
    assert names(routed) == names(await World(over_budget("downgrade")).route(PowerLevel.PRECISION))
    assert routed.record.facts.need.free_only


async def test_who_would_rather_be_rejected_is_rejected_then_too() -> None:
    world = World(replace(over_budget("reject"), spent_usd=Decimal(49)))
    with pytest.raises(DomainError) as raised:
        await world.route(free_only=True)
    assert raised.value.reason == "BUDGET_EXCEEDED"


# --- what providers are paid with ---

OWN, OPERATORS = KeptKey(UUID(int=70), "own ciphertext"), KeptKey(None, "operator's ciphertext")


def keyed(*providers: UUID, refused_at: dict[UUID, datetime] | None = None) -> UserState:
    sealed = dict.fromkeys(providers, OWN)
    return replace(NEW_USER, keyed_providers=frozenset(providers), sealed_keys=sealed, refused_at=refused_at)


def of_kinds() -> list[CatalogModel]:
    """Return the catalogue with the providers' kinds: a local one, and others that answer nobody without a key."""
    return [replace(each, provider_type="local" if each.provider_id == LOCAL else "openai") for each in MODELS]


async def test_a_provider_that_nobody_has_a_key_for_is_left_out_unless_it_needs_none() -> None:
    world = World(models=of_kinds())
    routed = await world.route(needs_credential=True)
    assert names(routed) == ["Qwen/Qwen2.5-32B-Instruct"]
    assert routed.key_for(LOCAL) is None
    assert routed.record.facts.need.without_credential == {OPENROUTER}
    reasons = {model.model_name: reason for model, reason in routed.decision.excluded}
    assert reasons[ECO_OF_OPENROUTER] is Exclusion.NO_CREDENTIAL
    assert reasons["mixtral-8x7b-32768"] is Exclusion.KEY_REQUIRED
    assert fates(routed.record.facts.decide(world.models)) == fates(routed.decision)


async def test_the_platforms_key_pays_where_a_key_of_ones_own_is_not_required() -> None:
    world = World(models=of_kinds())
    world.platform.keys = {OPENROUTER: OPERATORS, GROQ: OPERATORS}
    routed = await world.route(needs_credential=True)
    assert names(routed) == ["Qwen/Qwen2.5-32B-Instruct", ECO_OF_OPENROUTER]
    key = routed.key_for(OPENROUTER)
    assert key is not None
    assert (key.key_id, key.user_id, key.payer, key.ciphertext) == (
        None,
        PLATFORM_USER,
        "PLATFORM",
        "operator's ciphertext",
    )
    assert routed.key_for(GROQ) is None


async def test_the_users_own_key_goes_before_the_platforms() -> None:
    world = World(keyed(OPENROUTER, GROQ), models=of_kinds())
    world.platform.keys = {OPENROUTER: OPERATORS, GROQ: OPERATORS}
    routed = await world.route(needs_credential=True)
    for provider in (OPENROUTER, GROQ):
        key = routed.key_for(provider)
        assert key is not None
        assert (key.key_id, key.user_id, key.payer, key.ciphertext) == (OWN.key_id, USER, "USER_KEY", "own ciphertext")
        [model, *_] = (each for each in world.models if each.provider_id == provider)
        assert (key.provider_type, key.api_endpoint, key.is_enabled) == ("openai", model.api_endpoint, True)


async def test_the_platforms_key_is_not_put_in_the_place_of_one_that_was_refused() -> None:
    world = World(keyed(OPENROUTER, refused_at={OPENROUTER: NOW}), models=of_kinds())
    world.platform.keys = {OPENROUTER: OPERATORS}
    routed = await world.route(needs_credential=True)
    assert names(routed) == ["Qwen/Qwen2.5-32B-Instruct"]
    assert dict(routed.decision.excluded)[
        next(each for each in world.models if each.model_name == ECO_OF_OPENROUTER)
    ] is (Exclusion.NO_CREDENTIAL)


async def test_route_itself_looks_for_no_keys() -> None:
    world = World(keyed(GROQ), models=of_kinds())
    routed = await world.route()
    assert ECO_OF_OPENROUTER in names(routed)
    assert (routed.key_for(GROQ), world.platform.reads) == (None, 0)


async def test_what_is_routed_does_not_show_the_keys_in_it() -> None:
    routed = await World(keyed(OPENROUTER), models=of_kinds()).route(needs_credential=True)
    assert "ciphertext" not in f"{routed!r} {routed.key_for(OPENROUTER)!r}"


# --- what a user could have ---


async def test_the_usable_models_are_those_of_every_level_that_could_be_paid() -> None:
    world = World(keyed(GROQ), models=of_kinds())
    assert {model.provider_id for model in await world.router().usable_models(USER)} == {LOCAL, GROQ}
    world.platform.keys = {OPENROUTER: OPERATORS}
    usable = await world.router().usable_models(USER)
    assert {model.provider_id for model in usable} == {LOCAL, GROQ, OPENROUTER}
    assert {model.power_level for model in usable} == set(PowerLevel)
    assert len({model.model_id for model in usable}) == len(usable)


async def test_each_usable_model_can_be_had_by_its_name_and_no_other() -> None:
    world = World(keyed(GROQ, refused_at={GROQ: NOW}), models=of_kinds())
    world.platform.keys = {OPENROUTER: OPERATORS}
    usable = {model.model_name for model in await world.router().usable_models(USER)}
    for model in world.models:
        try:
            routed = await world.route(None, model_name=model.model_name, needs_credential=True)
        except DomainError:
            assert model.model_name not in usable
        else:
            assert names(routed) == [model.model_name]
            assert model.model_name in usable


async def test_an_unhealthy_provider_takes_no_model_from_the_usable_ones() -> None:
    world = World(health=View(unhealthy={LOCAL}), models=of_kinds())
    assert [model.provider_id for model in await world.router().usable_models(USER)] == [LOCAL]


@pytest.mark.parametrize(("on_exceeded", "count"), [("downgrade", 2), ("reject", 0)])
async def test_over_the_budget_the_free_ones_are_usable_unless_the_user_would_be_rejected(
    on_exceeded: str, count: int
) -> None:
    world = World(over_budget(on_exceeded), models=of_kinds())
    world.platform.keys = {OPENROUTER: OPERATORS}
    usable = await world.router().usable_models(USER)
    assert len(usable) == count
    assert not any(model.input_cost_per_1m or model.output_cost_per_1m for model in usable)


@pytest.mark.parametrize(("on_exceeded", "downgrades"), [("downgrade", True), ("reject", False)])
async def test_what_a_user_wants_when_the_budget_is_used_up_is_known(on_exceeded: str, downgrades: bool) -> None:
    assert await World(over_budget(on_exceeded)).router().downgrades(USER) is downgrades
