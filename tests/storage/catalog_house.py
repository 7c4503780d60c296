"""ProviderService, ModelService and RoutingRuleService over a real gRPC server and a database of their own."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from cryptography.fernet import Fernet
from google.rpc import error_details_pb2, status_pb2

from databases import started
from llmrouter.v2 import (
    model_service_pb2,
    model_service_pb2_grpc,
    power_level_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
    routing_rule_service_pb2_grpc,
)
from llmrouter_server.byok.cipher import Cipher
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.catalog.service import ModelService, ProviderService
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.rules.service import RoutingRuleService
from llmrouter_server.rules.store import RuleStore
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.database import Database
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from llmrouter.v2.model_pb2 import Model
    from llmrouter.v2.provider_pb2 import Provider

ADMIN = Caller(uuid.uuid4(), frozenset({Role.ADMIN}))
CALLERS = {
    "admin": ADMIN,
    "user": Caller(uuid.uuid4(), frozenset({Role.USER})),
    "service": Caller(uuid.uuid4(), frozenset({Role.SERVICE})),
    "both": Caller(uuid.uuid4(), frozenset({Role.USER, Role.ADMIN})),
}


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
    rules: Any
    refresh: Refresh
    database: Database


@asynccontextmanager
async def open_house(database_url: str) -> AsyncIterator[House]:
    """Serve the catalogue of a database."""
    database = await started(Database(database_url, min_size=2, max_size=10))
    catalog = CatalogStore(database)
    refresh = Refresh(catalog)
    platform_keys = PlatformKeyStore(database, Cipher([Fernet.generate_key().decode()]))
    calls: Any = CallInterceptor(Tokens(), longest_s=30)
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(
        ProviderService(catalog, platform_keys, refresh, allow_private_endpoints=False), calls
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(catalog, refresh), calls)
    routing_rule_service_pb2_grpc.add_RoutingRuleServiceServicer_to_server(
        RoutingRuleService(RuleStore(database), refresh), calls
    )
    server = make_server(calls, reuse_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield House(
            provider_service_pb2_grpc.ProviderServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
            routing_rule_service_pb2_grpc.RoutingRuleServiceStub(channel),
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
