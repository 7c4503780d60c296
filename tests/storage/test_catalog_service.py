"""ProviderService and ModelService over a real gRPC server and a database of their own."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from cryptography.fernet import Fernet
from google.rpc import error_details_pb2, status_pb2

from llmrouter.v2 import (
    model_service_pb2,
    model_service_pb2_grpc,
    power_level_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from llmrouter_server import errors
from llmrouter_server.byok.cipher import Cipher
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.catalog.service import ModelService, ProviderService
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.database import Database
from llmrouter_server.runtime.interceptor import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter.v2.model_pb2 import Model
    from llmrouter.v2.provider_pb2 import Provider

ADMIN = Caller(uuid.uuid4(), frozenset({Role.ADMIN}))
CALLERS = {
    "admin": ADMIN,
    "user": Caller(uuid.uuid4(), frozenset({Role.USER})),
    "service": Caller(uuid.uuid4(), frozenset({Role.SERVICE})),
    "both": Caller(uuid.uuid4(), frozenset({Role.USER, Role.ADMIN})),
}
KEY = "sk-canary-0123456789abcdef"


class Tokens:
    """Takes a caller's name for their token."""

    async def verify(self, token: str) -> Caller:
        return CALLERS[token]


class Refresh:
    """Stands for the live catalogue: notes its number each time it is told of a change."""

    def __init__(self, catalog: CatalogStore) -> None:
        self._catalog = catalog
        self.numbers: list[int] = []
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.numbers.append(await self._catalog.catalog_number())
        if self.error is not None:
            raise self.error


class House(NamedTuple):
    providers: Any
    models: Any
    refresh: Refresh
    database: Database


@pytest.fixture(scope="module")
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    database = Database(await migrated_database(), min_size=2, max_size=10)
    await database.start()
    catalog = CatalogStore(database)
    refresh = Refresh(catalog)
    platform_keys = PlatformKeyStore(database, Cipher([Fernet.generate_key().decode()]))
    server = grpc.aio.server(interceptors=[CallInterceptor(Tokens(), longest_s=30)])
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(
        ProviderService(catalog, platform_keys, refresh, allow_private_endpoints=False), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(catalog, refresh), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield House(
            provider_service_pb2_grpc.ProviderServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
            refresh,
            database,
        )
    await server.stop(None)
    await database.stop()


def call(rpc: Any, request: Any, caller: str = "admin") -> Any:
    return rpc(request, metadata=(("authorization", f"Bearer {caller}"),), timeout=30)


class Refusal(NamedTuple):
    code: grpc.StatusCode
    reason: str
    fields: list[str]
    metadata: dict[str, str]


async def refusal(answer: Awaitable[Any]) -> Refusal:
    """Return how a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answer
    trailing = dict(raised.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return Refusal(raised.value.code(), info.reason, [each.field for each in bad.field_violations], dict(info.metadata))


async def create_provider(house: House, **values: Any) -> Provider:
    given = {"name": f"p {uuid.uuid4()}", "provider_type": "openai", "api_endpoint": "https://llm.example.com/v1"}
    request = provider_service_pb2.CreateProviderRequest(**(given | values))
    return await call(house.providers.CreateProvider, request)


async def create_model(house: House, **values: Any) -> Model:
    if "provider_id" not in values:
        values["provider_id"] = (await create_provider(house)).provider_id
    given = {"model_name": f"m {uuid.uuid4()}", "power_level": power_level_pb2.ECO}
    return await call(house.models.CreateModel, model_service_pb2.CreateModelRequest(**(given | values)))


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


# --- models ---


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
