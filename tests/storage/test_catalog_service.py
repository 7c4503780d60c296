"""What both services of the catalogue do alike, and ProviderService."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llmrouter.v2 import (
    model_service_pb2,
    power_level_pb2,
    provider_service_pb2,
)
from llmrouter_server import errors
from storage.catalog_house import (
    ADMIN,
    CALLERS,
    House,
    Refusal,
    call,
    create_model,
    create_provider,
    open_house,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(scope="module")
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    async with open_house(await migrated_database()) as opened:
        yield opened


async def of_kind(house: House, kind: str) -> tuple[str, Any, Any, Any]:
    """Make a provider or a model; return its id, itself, and its RPCs for update and disable as (etag, ...) calls."""
    if kind == "provider":
        made: Any = await create_provider(house)
        service, pb2, made_id = house.providers, provider_service_pb2, {"provider_id": made.provider_id}
        update, disable = pb2.UpdateProviderRequest, pb2.DisableProviderRequest
        calls = (service.UpdateProvider, service.DisableProvider)
    else:
        made = await create_model(house)
        service, pb2, made_id = house.models, model_service_pb2, {"model_id": made.model_id}
        update, disable = pb2.UpdateModelRequest, pb2.DisableModelRequest
        calls = (service.UpdateModel, service.DisableModel)
    return (
        next(iter(made_id.values())),
        made,
        lambda **values: call(calls[0], update(**made_id, **values)),
        lambda **values: call(calls[1], disable(**made_id, **values)),
    )


@asynccontextmanager
async def told(house: House) -> AsyncIterator[None]:
    """Check that the live catalogue is told exactly once meanwhile, after the commit."""
    before = len(house.refresh.numbers)
    yield
    assert len(house.refresh.numbers) == before + 1
    async with house.database.connection() as connection:
        number = await connection.fetchval("select max(number) from llm_catalog_snapshots")
    assert house.refresh.numbers[-1] == number


# --- both ---


@pytest.mark.parametrize("kind", ["provider", "model"])
async def test_an_update_with_the_etag_that_was_read_is_made_and_a_second_one_refused(house: House, kind: str) -> None:
    _, made, update, disable = await of_kind(house, kind)
    assert made.etag
    changed = await update(is_enabled=False, etag=made.etag)
    assert changed.etag not in ("", made.etag)
    expected = Refusal(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", [], {"resource": kind})
    assert await refusal(update(is_enabled=True, etag=made.etag)) == expected
    assert await refusal(disable(etag=made.etag)) == expected
    assert await refusal(disable(etag="no such thing")) == expected
    assert (await disable(etag=changed.etag)).etag == changed.etag  # it is disabled already
    enabled = await update(is_enabled=True)  # without an etag, whatever it is
    assert enabled.is_enabled
    assert not (await disable(etag=enabled.etag)).is_enabled


@pytest.mark.parametrize("kind", ["provider", "model"])
async def test_the_live_catalogue_is_told_after_each_write_before_the_answer(house: House, kind: str) -> None:
    async with told(house):
        provider = await create_provider(house)
    async with told(house):
        await create_model(house, provider_id=provider.provider_id)
    _, _, update, disable = await of_kind(house, kind)
    async with told(house):
        await update(is_enabled=False)
    async with told(house):
        await update(is_enabled=True)
    async with told(house):
        await disable()
    before = len(house.refresh.numbers)
    await refusal(update(is_enabled=True, etag="x"))
    assert len(house.refresh.numbers) == before


async def test_a_write_whose_telling_fails_is_not_called_done(house: House) -> None:
    provider = await create_provider(house)
    house.refresh.error = errors.unavailable()
    try:
        request = provider_service_pb2.DisableProviderRequest(provider_id=provider.provider_id)
        refused = await refusal(call(house.providers.DisableProvider, request))
        assert refused.reason == "UNAVAILABLE"
    finally:
        house.refresh.error = None
    async with told(house):  # trying again tells again, although there is nothing left to change
        assert not (await call(house.providers.DisableProvider, request)).is_enabled


@pytest.mark.parametrize("kind", ["provider", "model"])
async def test_what_is_created_is_answered_with_http_201_and_read_back(house: House, kind: str) -> None:
    provider = await create_provider(house)
    if kind == "provider":
        rpc, read = house.providers.CreateProvider, house.providers.GetProvider
        request: Any = provider_service_pb2.CreateProviderRequest(
            name=f"p {uuid.uuid4()}", provider_type="local", api_endpoint="https://llm.example.com/v1"
        )
    else:
        rpc, read = house.models.CreateModel, house.models.GetModel
        request = model_service_pb2.CreateModelRequest(
            provider_id=provider.provider_id, model_name="m", power_level=power_level_pb2.PRECISION
        )
    creating = call(rpc, request)
    made = await creating
    assert ("x-http-code", "201") in tuple(await creating.initial_metadata())
    key = f"{kind}_id"
    pb2 = provider_service_pb2 if kind == "provider" else model_service_pb2
    get = getattr(pb2, f"Get{kind.capitalize()}Request")
    assert await call(read, get(**{key: getattr(made, key)})) == made
    assert await refusal(call(read, get(**{key: str(uuid.uuid4())}))) == Refusal(
        grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", [], {"resource": kind}
    )
    assert (await refusal(call(read, get(**{key: "x"})))).fields == [key]


@pytest.mark.parametrize("caller", ["user", "service"])
async def test_only_an_admin_changes_the_catalogue(house: House, caller: str) -> None:
    model = await create_model(house)
    providers, models = provider_service_pb2, model_service_pb2
    for rpc, request in [
        (house.providers.GetProvider, providers.GetProviderRequest(provider_id=model.provider_id)),
        (house.providers.DisableProvider, providers.DisableProviderRequest(provider_id=model.provider_id)),
        (house.providers.SetPlatformKey, providers.SetPlatformKeyRequest(provider_id=model.provider_id, api_key=KEY)),
        (house.providers.DeletePlatformKey, providers.DeletePlatformKeyRequest(provider_id=model.provider_id)),
        (house.models.CreateModel, models.CreateModelRequest(provider_id=model.provider_id)),
        (house.models.UpdateModel, models.UpdateModelRequest(model_id=model.model_id, is_enabled=False)),
        (house.models.DisableModel, models.DisableModelRequest(model_id=model.model_id)),
    ]:
        assert (await refusal(call(rpc, request, caller))).reason == "ROLE_REQUIRED"
    assert await call(house.models.GetModel, models.GetModelRequest(model_id=model.model_id), caller) == model


async def test_each_change_is_recorded_under_the_caller(house: House) -> None:
    provider = await create_provider(house)
    request = provider_service_pb2.UpdateProviderRequest(provider_id=provider.provider_id, priority=1)
    await call(house.providers.UpdateProvider, request, "both")
    disable = provider_service_pb2.DisableProviderRequest(provider_id=provider.provider_id)
    await call(house.providers.DisableProvider, disable)
    async with house.database.connection() as connection:
        rows = await connection.fetch(
            "select action, admin_id from llm_admin_changes where resource_id = $1 order by id",
            uuid.UUID(provider.provider_id),
        )
    assert [tuple(row) for row in rows] == [
        ("create", ADMIN.user_id),
        ("update", CALLERS["both"].user_id),
        ("disable", ADMIN.user_id),
    ]


# --- providers ---


async def test_a_platform_key_is_set_and_erased_and_never_shown(house: House, caplog: pytest.LogCaptureFixture) -> None:
    provider = await create_provider(house)
    provider_id = provider.provider_id
    assert not provider.has_platform_key
    set_key = provider_service_pb2.SetPlatformKeyRequest(provider_id=provider_id, api_key=f" {KEY}\n")
    async with told(house):
        assert (await call(house.providers.SetPlatformKey, set_key)).has_platform_key
    get = provider_service_pb2.GetProviderRequest(provider_id=provider_id)
    answer = await call(house.providers.GetProvider, get)
    assert answer.has_platform_key
    delete_key = provider_service_pb2.DeletePlatformKeyRequest(provider_id=provider_id)
    async with told(house):
        assert not (await call(house.providers.DeletePlatformKey, delete_key)).has_platform_key
    assert not (await call(house.providers.DeletePlatformKey, delete_key)).has_platform_key  # twice is no error
    async with house.database.connection() as connection:
        recorded = await connection.fetch(
            "select before::text, after::text from llm_admin_changes where resource_id = $1", uuid.UUID(provider_id)
        )
    assert KEY not in f"{answer} {[tuple(row) for row in recorded]} {caplog.text}"


@pytest.mark.parametrize("api_key", ["", "short", "x" * 15, "x" * 513, "with a space in it", "é" * 20, "\0" * 20])
async def test_a_malformed_platform_key_is_refused_without_showing_it(house: House, api_key: str) -> None:
    provider = await create_provider(house)
    request = provider_service_pb2.SetPlatformKeyRequest(provider_id=provider.provider_id, api_key=api_key)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(house.providers.SetPlatformKey, request)
    assert raised.value.details() == "api_key: must be 16 to 512 printable ASCII characters without spaces"


async def test_a_platform_key_of_no_provider_is_not_found(house: House) -> None:
    nowhere = str(uuid.uuid4())
    for rpc, request in [
        (
            house.providers.SetPlatformKey,
            provider_service_pb2.SetPlatformKeyRequest(provider_id=nowhere, api_key=KEY),
        ),
        (house.providers.DeletePlatformKey, provider_service_pb2.DeletePlatformKeyRequest(provider_id=nowhere)),
    ]:
        assert (await refusal(call(rpc, request))).reason == "RESOURCE_NOT_FOUND"


async def test_a_config_comes_back_as_it_was_given_and_giving_it_again_is_no_change(house: House) -> None:
    values: dict[str, Any] = {"n": 1, "big": 1e308, "tiny": 5e-324, "zero": -0.0, "on": True, "list": [None, "é", {}]}
    provider = await create_provider(house, config=values)
    assert dict(provider.config) == values | {"list": provider.config["list"]}
    assert list(provider.config["list"])[:2] == [None, "é"]
    request = provider_service_pb2.UpdateProviderRequest(provider_id=provider.provider_id, config=values)
    assert await call(house.providers.UpdateProvider, request) == provider
    request.config["on"] = 1
    changed = await call(house.providers.UpdateProvider, request)
    assert changed.etag != provider.etag
    assert changed.config["on"] is not True
