"""What routing keeps in memory, on two servers over one database: never older than the last change by a second."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from conftest import make_open_folder
from llmrouter import AsyncClient, LlmrouterError, NoEligibleModel
from llmrouter.v2.byok_service_pb2 import DeleteKeyRequest, StoreKeyRequest, UpdateKeyRequest
from llmrouter.v2.model_service_pb2 import ListModelsRequest, UpdateModelRequest
from llmrouter.v2.provider_service_pb2 import UpdateProviderRequest
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter.v2.settings_pb2 import RoutingConfig
from llmrouter.v2.settings_service_pb2 import UpdateSettingsRequest
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest
from llmrouter_server.runtime.dev_identity import DevIdentity
from llmrouter_server.runtime.local_ports import free_ports
from server_process import server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HEARD_WITHIN_S = 1.0
LISTENER = "llmrouter notifications"
WARM = "user_llm_settings, user_provider_keys, llm_budget_ledger, llm_catalog_version, llm_catalog_snapshots"
"""What Route would read if it were not warm."""


@dataclass
class Replicas:
    """Two servers, `here` and `there`."""

    url: str
    identity: DevIdentity
    here: str
    there: str

    def client(self, address: str, role: str = "user", user: uuid.UUID | None = None) -> AsyncClient:
        return AsyncClient(address, token=self.identity.mint(role, user or uuid.uuid4()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def replicas(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Replicas]:
    folder, url = make_open_folder(), await migrated_database()
    identity, key = DevIdentity.load_or_create(folder / "identity"), Fernet.generate_key().decode()
    first, second = free_ports(2)
    async with (
        server(folder, url, identity, first, key) as here,
        server(folder, url, identity, second, key) as there,
    ):
        yield Replicas(url, identity, here, there)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def sql(replicas: Replicas) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(replicas.url)
    yield connection
    await connection.close()


class Pair:
    """One user, with a client of each server, both warm."""

    def __init__(self, replicas: Replicas) -> None:
        self.id = uuid.uuid4()
        self.replicas = replicas
        self.here = replicas.client(replicas.here, "user", self.id)
        self.there = replicas.client(replicas.there, "user", self.id)
        self.admin = replicas.client(replicas.here, "admin")
        self.service = replicas.client(replicas.here, "service")

    async def model(self, name: str) -> Any:
        listed = await self.here.models.ListModels(ListModelsRequest(page_size=500))
        return next(model for model in listed.models if model.model_name == name)

    async def close(self) -> None:
        for client in (self.here, self.there, self.admin, self.service):
            await client.close()


@pytest.fixture
async def pair(replicas: Replicas) -> AsyncIterator[Pair]:
    made = Pair(replicas)
    for client in (made.here, made.there):
        await client.routing.Route(RouteRequest())
    yield made
    await made.close()


def names(answer: RouteResponse) -> set[str]:
    return {option.model_name for option in (answer.primary, *answer.fallbacks)}


Change = "Callable[[Pair], Awaitable[None]]"


async def change_level(pair: Pair) -> None:
    await pair.here.settings.UpdateSettings(UpdateSettingsRequest(preferred_power_level="ECO"))


async def change_strategy(pair: Pair) -> None:
    await pair.here.settings.UpdateSettings(
        UpdateSettingsRequest(routing_config=RoutingConfig(strategy="quality_optimized"))
    )


async def use_up_budget(pair: Pair) -> None:
    await pair.here.settings.UpdateSettings(UpdateSettingsRequest(monthly_budget_usd=0))


async def store_key(pair: Pair) -> None:
    model = await pair.model("gpt-4o-mini")
    await pair.here.byok.StoreKey(StoreKeyRequest(provider_id=model.provider_id, api_key="sk-live-state-of-mine"))


CHANGES: dict[str, tuple[Any, Callable[[RouteResponse], bool]]] = {
    "power level": (change_level, lambda answer: answer.power_level == 1),
    "strategy": (change_strategy, lambda answer: answer.primary.quality_rating == 9.0),
    "budget": (use_up_budget, lambda answer: answer.downgraded),
    "key": (store_key, lambda answer: "gpt-4o-mini" in names(answer)),
}


async def seen_by(client: AsyncClient, is_seen: Callable[[RouteResponse], bool]) -> float:
    """Return after how many seconds the client's own server knows it."""
    started = time.monotonic()
    async with asyncio.timeout(10):
        while not is_seen(await client.routing.Route(RouteRequest(fallback_count=5, explain=True))):
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def refused_by(client: AsyncClient) -> NoEligibleModel:
    """Wait until nobody is eligible any more."""
    async with asyncio.timeout(HEARD_WITHIN_S):
        while True:
            try:
                await client.routing.Route(RouteRequest())
            except NoEligibleModel as error:
                return error


@pytest.mark.parametrize("name", CHANGES)
async def test_a_users_change_is_seen_here_at_once_and_there_within_a_second(pair: Pair, name: str) -> None:
    change, is_seen = CHANGES[name]
    assert not is_seen(await pair.there.routing.Route(RouteRequest(fallback_count=5)))
    await change(pair)
    assert is_seen(await pair.here.routing.Route(RouteRequest(fallback_count=5)))
    assert await seen_by(pair.there, is_seen) < HEARD_WITHIN_S


@pytest.mark.parametrize("name", CHANGES)
async def test_nor_is_it_missed_while_the_connection_for_notifications_is_killed(
    pair: Pair, sql: Any, name: str
) -> None:
    change, is_seen = CHANGES[name]
    stop = asyncio.Event()

    async def keep_killing() -> None:
        while not stop.is_set():
            await sql.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", LISTENER
            )
            await asyncio.sleep(0.05)

    killing = asyncio.create_task(keep_killing())
    try:
        await change(pair)
        assert is_seen(await pair.here.routing.Route(RouteRequest(fallback_count=5)))
        assert await seen_by(pair.there, is_seen) < HEARD_WITHIN_S
    finally:
        stop.set()
        await killing


async def test_a_key_that_is_deactivated_or_erased_is_not_used_there_a_second_later(pair: Pair) -> None:
    await store_key(pair)
    await seen_by(pair.there, lambda answer: "gpt-4o-mini" in names(answer))
    model = await pair.model("gpt-4o-mini")
    stored = await pair.here.byok.StoreKey(
        StoreKeyRequest(provider_id=model.provider_id, api_key="sk-live-state-of-mine")
    )
    await pair.here.byok.UpdateKey(UpdateKeyRequest(key_id=stored.key_id, is_active=False))
    assert await seen_by(pair.there, lambda answer: "gpt-4o-mini" not in names(answer)) < HEARD_WITHIN_S
    await pair.here.byok.UpdateKey(UpdateKeyRequest(key_id=stored.key_id, is_active=True))
    assert await seen_by(pair.there, lambda answer: "gpt-4o-mini" in names(answer)) < HEARD_WITHIN_S
    await pair.here.byok.DeleteKey(DeleteKeyRequest(key_id=stored.key_id))
    assert await seen_by(pair.there, lambda answer: "gpt-4o-mini" not in names(answer)) < HEARD_WITHIN_S


async def test_an_admins_change_of_the_catalogue_is_seen_by_all(pair: Pair) -> None:
    model = await pair.model("qwen/qwen-2.5-72b-instruct")
    before = await pair.there.routing.Route(RouteRequest())
    assert before.primary.model_name == model.model_name
    await pair.admin.models.UpdateModel(UpdateModelRequest(model_id=model.model_id, output_cost_per_1m=900))
    try:
        here = await pair.here.routing.Route(RouteRequest())
        assert here.primary.model_name != model.model_name
        assert here.catalog_snapshot > before.catalog_snapshot
        assert await seen_by(pair.there, lambda answer: answer.catalog_snapshot == here.catalog_snapshot) < 1
        await pair.admin.providers.UpdateProvider(
            UpdateProviderRequest(provider_id=model.provider_id, is_enabled=False)
        )
        for client in (pair.here, pair.there):
            assert (await refused_by(client)).metadata["PROVIDER_DISABLED"]
    finally:
        await pair.admin.providers.UpdateProvider(UpdateProviderRequest(provider_id=model.provider_id, is_enabled=True))
        await pair.admin.models.UpdateModel(UpdateModelRequest(model_id=model.model_id, output_cost_per_1m=0.4))


@contextlib.asynccontextmanager
async def nothing_to_read(sql: Any, *clients: AsyncClient) -> AsyncIterator[None]:
    """Lock all that Route would read, once every client's user is in memory: late news may have put them out again."""
    async with asyncio.timeout(10):
        while True:
            transaction = sql.transaction()
            await transaction.start()
            try:
                await sql.execute(f"lock table {WARM} in access exclusive mode")
                for client in clients:
                    await client.routing.Route(RouteRequest(), timeout=0.5)
                break
            except LlmrouterError:
                await transaction.rollback()
                for client in clients:
                    await client.routing.Route(RouteRequest())
    try:
        yield
    finally:
        await transaction.rollback()


async def test_usage_that_uses_up_the_budget_is_heard_of_without_a_query(pair: Pair, sql: Any) -> None:
    await pair.here.settings.UpdateSettings(UpdateSettingsRequest(monthly_budget_usd=1))
    for client in (pair.here, pair.there):
        await seen_by(client, lambda answer: answer.explanation.budget.monthly_budget_usd == 1)
    async with nothing_to_read(sql, pair.here, pair.there):
        pass
    model = await pair.model("gpt-4o")
    await pair.service.usage.RecordUsage(
        RecordUsageRequest(user_id=str(pair.id), request_id="dear", model_id=model.model_id, input_tokens=400_000)
    )
    async with sql.transaction():
        await sql.execute(f"lock table {WARM} in access exclusive mode")  # whoever reads now waits
        for client in (pair.here, pair.there):
            assert await seen_by(client, lambda answer: answer.downgraded) < HEARD_WITHIN_S


async def test_a_warm_route_asks_the_database_nothing(pair: Pair, replicas: Replicas, sql: Any) -> None:
    async with replicas.client(replicas.here) as stranger, nothing_to_read(sql, pair.here, pair.there):
        for client in (pair.here, pair.there):
            for _ in range(20):
                await client.routing.Route(RouteRequest(explain=True), timeout=2)
        with pytest.raises(LlmrouterError) as cold:  # and one who is not known yet does wait
            await stranger.routing.Route(RouteRequest(), timeout=1)
        assert cold.value.reason in ("DEADLINE_EXCEEDED", "")
    await pair.here.routing.Route(RouteRequest())
