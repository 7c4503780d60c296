"""ModelService."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import grpc
import pytest

from llmrouter.v2 import (
    model_service_pb2,
    power_level_pb2,
)
from storage.catalog_house import CALLERS, House, Refusal, call, create_model, open_house, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter.v2.model_pb2 import Model


@pytest.fixture(scope="module")
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    async with open_house(await migrated_database()) as opened:
        yield opened


async def test_an_explicit_zero_is_a_change_and_an_absent_field_is_none(house: House) -> None:
    model = await create_model(house, input_cost_per_1m=1.5, avg_latency_ms=9, quality_score=9.5, display_name="D")
    request = model_service_pb2.UpdateModelRequest(
        model_id=model.model_id, input_cost_per_1m=-0.0, avg_latency_ms=0, quality_score=0, supports_streaming=False
    )
    changed = await call(house.models.UpdateModel, request)
    assert str(changed.input_cost_per_1m) == "0.0"
    assert (changed.avg_latency_ms, changed.quality_score, changed.supports_streaming) == (0, 0, False)
    assert (changed.display_name, changed.max_context_tokens, changed.power_level) == ("D", 4096, power_level_pb2.ECO)
    assert list(changed.capabilities) == []
    assert await call(house.models.UpdateModel, request) == changed


async def test_a_model_needs_a_provider_and_a_name_of_its_own(house: House) -> None:
    model = await create_model(house)
    taken = await refusal(create_model(house, provider_id=model.provider_id, model_name=model.model_name))
    assert taken == Refusal(
        grpc.StatusCode.ALREADY_EXISTS,
        "ALREADY_EXISTS",
        [],
        {"field": "model_name", "value": model.model_name},
    )
    elsewhere = await create_model(house, model_name=model.model_name)
    assert elsewhere.model_name == model.model_name
    sibling = await create_model(house, provider_id=model.provider_id)
    rename = model_service_pb2.UpdateModelRequest(model_id=sibling.model_id, model_name=model.model_name)
    assert (await refusal(call(house.models.UpdateModel, rename))).reason == "ALREADY_EXISTS"
    nowhere = await refusal(create_model(house, provider_id=str(uuid.uuid4())))
    assert nowhere == Refusal(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", [], {"resource": "provider"})


async def test_all_that_is_wrong_with_a_model_is_told_at_once(house: House) -> None:
    request = model_service_pb2.CreateModelRequest(
        provider_id="x",
        display_name="",
        input_cost_per_1m=float("nan"),
        output_cost_per_1m=float("inf"),
        avg_latency_ms=2**32 - 1,
        quality_score=10.01,
        max_context_tokens=0,
        capabilities=["chat", "sing"],
    )
    refused = await refusal(call(house.models.CreateModel, request))
    assert refused.reason == "INVALID_FIELD"
    assert sorted(refused.fields) == sorted(
        [
            "provider_id",
            "model_name",
            "display_name",
            "power_level",
            "input_cost_per_1m",
            "output_cost_per_1m",
            "avg_latency_ms",
            "quality_score",
            "max_context_tokens",
            "capabilities",
        ]
    )


async def test_disabled_models_are_listed_for_admins_who_ask(house: House) -> None:
    model = await create_model(house)
    disable = model_service_pb2.DisableModelRequest(model_id=model.model_id)
    disabled = await call(house.models.DisableModel, disable)

    async def listed(caller: str, *, include_disabled: bool) -> list[Model]:
        request = model_service_pb2.ListModelsRequest(provider_id=model.provider_id, include_disabled=include_disabled)
        return list((await call(house.models.ListModels, request, caller)).models)

    assert await listed("admin", include_disabled=True) == [disabled]
    assert await listed("both", include_disabled=True) == [disabled]
    for caller in CALLERS:
        assert await listed(caller, include_disabled=False) == []
    for caller in ("user", "service"):
        assert (await refusal(listed(caller, include_disabled=True))).reason == "ROLE_REQUIRED"


async def test_pages_with_disabled_models_lose_none(house: House) -> None:
    found: list[Model] = []
    token = ""
    while True:
        request = model_service_pb2.ListModelsRequest(include_disabled=True, page_size=4, page_token=token)
        answer = await call(house.models.ListModels, request)
        found += answer.models
        token = answer.next_page_token
        if not token:
            break
    async with house.database.connection() as connection:
        ids = await connection.fetch("select id from llm_models")
    assert sorted(model.model_id for model in found) == sorted(str(row["id"]) for row in ids)
