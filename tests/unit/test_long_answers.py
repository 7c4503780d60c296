"""What is told of a large catalogue: it holds nobody up, and stays what it was of a small one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from llmrouter.v2 import decision_pb2
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.gateway import models as models_module
from llmrouter_server.gateway.models import UsableModels
from llmrouter_server.routing import explanation as explanation_module
from llmrouter_server.routing.explanation import explain
from turns import in_one_go
from unit.routing_world import GROQ, LOCAL, USER, World
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.catalog.snapshot import CatalogModel

MOST_AT_ONCE = 50


def large(count: int = 300) -> list[CatalogModel]:
    [model, *_] = (each for each in MODELS if each.provider_id == LOCAL)
    levels = list(PowerLevel)
    return [
        replace(
            model,
            model_id=UUID(int=1000 + n),
            model_name=f"model {n:04}",
            power_level=levels[n % 3],
            provider_type="local",
        )
        for n in range(count)
    ]


def listing(world: World, unusable: Sequence[UUID] = ()) -> UsableModels:
    return UsableModels(world.router(), is_usable=lambda provider_id, _endpoint: provider_id not in unusable)


async def test_an_explanation_of_many_models_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = await World(models=large()).route()
    async with in_one_go() as verdicts:
        monkeypatch.setattr(explanation_module, "_add_verdict", verdicts.counted(explanation_module._add_verdict))
        told = await explain(routed.record, routed.decision)
    assert verdicts.all == len(told.models) == 300
    assert verdicts.most <= MOST_AT_ONCE
    assert [each.rank for each in told.models] == [*range(1, 101), *[0] * 200]
    excluded = told.models[100:]
    assert {each.exclusion for each in excluded} == {decision_pb2.EXCLUSION_POWER_LEVEL}
    assert [each.model_name for each in excluded] == sorted(each.model_name for each in excluded)


async def test_a_list_of_many_models_holds_nobody_up_and_each_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(models=large())
    models = listing(world)
    async with in_one_go() as entries:
        monkeypatch.setattr(models_module, "_of", entries.counted(models_module._of))
        first = await models.answer(USER, "")
        assert (entries.most, entries.all) == (MOST_AT_ONCE, 300)
        assert await models.answer(USER, "") == first
        assert entries.all == 300
        world.models = [replace(world.models[0], display_name="renamed"), *world.models[1:]]
        changed = json.loads(await models.answer(USER, ""))
        assert entries.all == 301
    assert [each["display_name"] for each in changed["data"] if each["id"] == "model 0000"] == ["renamed"]
    assert len(changed["data"]) == 304


async def test_a_list_has_the_routers_own_names_then_each_model_by_name() -> None:
    world = World(models=large(4))
    answer = json.loads(await listing(world).answer(USER, ""))
    assert answer["object"] == "list"
    own, models = answer["data"][:4], answer["data"][4:]
    assert [each["id"] for each in own] == ["auto", "eco", "balanced", "precision"]
    assert [each["id"] for each in models] == [f"model {n:04}" for n in range(4)]
    assert models[0] == {
        "id": "model 0000",
        "object": "model",
        "created": 0,
        "owned_by": "Local vLLM",
        "display_name": world.models[0].display_name,
        "power_level": "ECO",
        "context_window": world.models[0].max_context_tokens,
        "capabilities": sorted(world.models[0].capabilities),
    }
    for each in answer["data"]:
        assert json.loads(await listing(world).answer(USER, each["id"])) == each


@pytest.mark.parametrize("name", ["model 9999", "Auto"])
async def test_a_model_that_is_not_to_be_had_is_not_found(name: str) -> None:
    with pytest.raises(DomainError, match="there is no such model"):
        await listing(World(models=large(4))).answer(USER, name)


async def test_a_model_whose_provider_envoy_does_not_know_yet_is_left_out() -> None:
    local, other = large(2)
    world = World(models=[local, replace(other, provider_id=GROQ, provider_name="Groq")])
    answer = json.loads(await listing(world, unusable=[GROQ]).answer(USER, ""))
    assert [each["id"] for each in answer["data"][4:]] == ["model 0000"]
