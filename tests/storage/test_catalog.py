"""Providers and models as admins change them, in a database of their own: other tests expect the initial catalogue."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from catalog_things import ADMIN, changes_of, new_model, new_provider, read, update
from databases import started
from llmrouter_server.catalog.model import Model, ModelChanges
from llmrouter_server.catalog.provider import Provider, ProviderChanges
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.catalog.store import LOCK_MODEL, LOCK_PROVIDER, CatalogStore
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture(scope="module")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = await started(Database(await migrated_database(), min_size=2, max_size=20))
    yield database
    await database.stop()


@pytest.fixture
def catalog(database: Database) -> CatalogStore:
    return CatalogStore(database)


@pytest.fixture(params=["provider", "model"])
async def thing(request: pytest.FixtureRequest, catalog: CatalogStore) -> Provider | Model:
    """One of each: what is said of both is tested with both."""
    return await (new_provider if request.param == "provider" else new_model)(catalog)


# --- etags ---


async def test_each_change_gives_another_etag_and_reading_gives_the_same(
    catalog: CatalogStore, thing: Provider | Model
) -> None:
    etags = [thing.etag]
    for is_enabled in (False, True, False):
        changed = await update(catalog, thing, etag=etags[-1], is_enabled=is_enabled)
        assert (await read(catalog, thing)).etag == changed.etag
        etags.append(changed.etag)
    assert len(set(etags)) == 4


async def test_a_stale_etag_is_refused_even_for_a_change_of_nothing_and_leaves_all_as_it_is(
    catalog: CatalogStore, database: Database, thing: Provider | Model
) -> None:
    current = await update(catalog, thing, is_enabled=False)
    recorded = await changes_of(database, thing)
    for is_enabled in (True, False):
        with pytest.raises(DomainError) as refused:
            await update(catalog, thing, etag=thing.etag, is_enabled=is_enabled)
        kind = "provider" if isinstance(thing, Provider) else "model"
        assert refused.value.reason == "ETAG_MISMATCH"
        assert refused.value.code is grpc.StatusCode.ABORTED
        assert refused.value.metadata == {"resource": kind}
    assert await read(catalog, thing) == current
    assert await changes_of(database, thing) == recorded


@pytest.mark.parametrize("malformed", ["x", " ", "\0", "1", "*", "é", '"', "0" * 100_000])
async def test_a_malformed_etag_is_a_mismatch(catalog: CatalogStore, thing: Provider | Model, malformed: str) -> None:
    for etag in (malformed, thing.etag + malformed, malformed + thing.etag):
        with pytest.raises(DomainError, match="was changed meanwhile"):
            await update(catalog, thing, etag=etag, is_enabled=False)
    assert await read(catalog, thing) == thing


async def test_the_etag_of_another_thing_is_a_mismatch(catalog: CatalogStore) -> None:
    first, second = await new_provider(catalog), await new_provider(catalog)
    assert first.revision == second.revision
    with pytest.raises(DomainError, match="was changed meanwhile"):
        await update(catalog, first, etag=second.etag, is_enabled=False)


async def test_of_many_changes_at_once_with_one_etag_exactly_one_is_made(
    catalog: CatalogStore, database: Database, thing: Provider | Model
) -> None:
    name = "name" if isinstance(thing, Provider) else "display_name"
    outcomes = await asyncio.gather(
        *(update(catalog, thing, etag=thing.etag, **{name: f"{thing.id} {n}"}) for n in range(10)),
        return_exceptions=True,
    )
    made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, DomainError)]
    assert (len(made), len(refused)) == (1, 9)
    assert {error.reason for error in refused} == {"ETAG_MISMATCH"}
    assert await read(catalog, thing) == made[0]
    assert len(await changes_of(database, thing)) == 2  # the creation and this one


async def test_changes_at_once_of_different_fields_without_an_etag_are_all_made(
    catalog: CatalogStore, database: Database
) -> None:
    model = await new_model(catalog)
    await asyncio.gather(
        update(catalog, model, avg_latency_ms=1),
        update(catalog, model, input_cost_per_1m=Decimal("0.0001")),
        update(catalog, model, is_enabled=False),
    )
    result = await catalog.get_model(model.id)
    assert (result.avg_latency_ms, result.input_cost_per_1m, result.is_enabled) == (1, Decimal("0.0001"), False)
    assert result.revision == model.revision + 3
    assert len(await changes_of(database, model)) == 4


async def test_a_change_that_waited_is_dated_after_its_wait(
    catalog: CatalogStore, database: Database, thing: Provider | Model
) -> None:
    lock = LOCK_PROVIDER if isinstance(thing, Provider) else LOCK_MODEL
    async with database.transaction() as connection:
        await connection.fetchrow(lock, thing.id)
        waiting = asyncio.create_task(update(catalog, thing, is_enabled=False))
        while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
            await asyncio.sleep(0)
        moment = await connection.fetchval("select clock_timestamp()")
    changed = await waiting
    assert changed.updated_at >= moment
    async with database.connection() as connection:
        recorded = await connection.fetchval(
            "select max(changed_at) from llm_admin_changes where resource_id = $1", thing.id
        )
    assert recorded >= changed.updated_at


# --- changes of nothing ---


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "same"},
        {"provider_type": "openai"},
        {"requires_byok": True},
        {"is_enabled": True},
        {"priority": 50},
        {"config": {"n": 1.0, "on": True, "big": 1e300, "list": [1.0, {"x": None}]}},
    ],
)
async def test_a_change_of_a_provider_that_changes_nothing_leaves_no_trace(
    catalog: CatalogStore, database: Database, values: dict[str, Any]
) -> None:
    config = {"list": [1, {"x": None}], "big": 1e300, "on": True, "n": 1}
    provider = await new_provider(catalog, config=config)
    values = {"name": provider.name} if "name" in values else values
    await assert_no_trace(catalog, database, provider, lambda: update(catalog, provider, **values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"power_level": PowerLevel.ECO},
        {"input_cost_per_1m": Decimal("0.1")},
        {"output_cost_per_1m": Decimal("0.0")},
        {"quality_score": Decimal("5.00")},
        {"avg_latency_ms": 500},
        {"max_context_tokens": 4096},
        {"supports_streaming": True},
        {"capabilities": ("chat", "code")},
        {"is_enabled": True},
    ],
)
async def test_a_change_of_a_model_that_changes_nothing_leaves_no_trace(
    catalog: CatalogStore, database: Database, values: dict[str, Any]
) -> None:
    model = await new_model(catalog, input_cost_per_1m=Decimal("0.1000"), capabilities=("chat", "code", "streaming"))
    await assert_no_trace(catalog, database, model, lambda: update(catalog, model, **values))


async def assert_no_trace(
    catalog: CatalogStore, database: Database, thing: Provider | Model, change: Callable[[], Awaitable[Any]]
) -> None:
    number, recorded = await catalog.catalog_number(), await changes_of(database, thing)
    assert await change() == thing
    assert await read(catalog, thing) == thing
    assert await catalog.catalog_number() == number
    assert await changes_of(database, thing) == recorded


@pytest.mark.parametrize("value", [True, "1", [1], {"a": 1}, None, 1.5])
async def test_a_config_of_another_json_type_is_a_change(catalog: CatalogStore, value: object) -> None:
    provider = await new_provider(catalog, config={"a": 1})
    changed = await update(catalog, provider, config={"a": value})
    assert changed.revision == provider.revision + 1
    assert type(changed.config["a"]) is type(value)
    assert changed.config == {"a": value}


async def test_disabling_twice_is_one_change(
    catalog: CatalogStore, database: Database, thing: Provider | Model
) -> None:
    async def disable() -> Any:
        if isinstance(thing, Provider):
            wanted = ProviderChanges(is_enabled=False)
            return await catalog.update_provider(thing.id, wanted, etag="", admin_id=ADMIN, action="disable")
        wanted_model = ModelChanges(is_enabled=False)
        return await catalog.update_model(thing.id, wanted_model, etag="", admin_id=ADMIN, action="disable")

    disabled = await disable()
    assert (disabled.is_enabled, disabled.revision) == (False, thing.revision + 1)
    await assert_no_trace(catalog, database, disabled, disable)
    _, change = await changes_of(database, thing)
    assert change["action"] == "disable"
    assert (change["before"], change["after"]) == ({"is_enabled": True}, {"is_enabled": False})


# --- the record ---


async def test_a_creation_is_recorded_with_all_fields(catalog: CatalogStore, database: Database) -> None:
    provider = await new_provider(catalog, config={"region": "eu"}, priority=7)
    assert await changes_of(database, provider) == [
        {
            "admin_id": ADMIN,
            "resource": "provider",
            "action": "create",
            "before": {},
            "after": {
                "name": provider.name,
                "provider_type": "openai",
                "api_endpoint": "https://llm.example.com/v1",
                "requires_byok": True,
                "is_enabled": True,
                "priority": 7,
                "config": {"region": "eu"},
            },
        }
    ]
    model = await new_model(catalog, provider, input_cost_per_1m=Decimal("0.15"))
    assert await changes_of(database, model) == [
        {
            "admin_id": ADMIN,
            "resource": "model",
            "action": "create",
            "before": {},
            "after": {
                "provider_id": str(provider.id),
                "model_name": model.model_name,
                "display_name": model.model_name,
                "power_level": "ECO",
                "input_cost_per_1m": 0.15,
                "output_cost_per_1m": 0,
                "avg_latency_ms": 500,
                "quality_score": 5,
                "supports_streaming": True,
                "max_context_tokens": 4096,
                "capabilities": ["streaming"],
                "is_enabled": True,
            },
        }
    ]


async def test_a_change_is_recorded_with_the_fields_that_differ_and_who_made_it(
    catalog: CatalogStore, database: Database
) -> None:
    provider, admin = await new_provider(catalog), uuid.uuid4()
    wanted = ProviderChanges(name=provider.name, priority=3, config={"a": 1}, requires_byok=True)
    await catalog.update_provider(provider.id, wanted, etag="", admin_id=admin)
    assert (await changes_of(database, provider))[1] == {
        "admin_id": admin,
        "resource": "provider",
        "action": "update",
        "before": {"priority": 50, "config": {}},
        "after": {"priority": 3, "config": {"a": 1}},
    }
    model = await new_model(catalog)
    await catalog.update_model(model.id, ModelChanges(supports_streaming=False), etag="", admin_id=admin)
    assert (await changes_of(database, model))[1] == {
        "admin_id": admin,
        "resource": "model",
        "action": "update",
        "before": {"supports_streaming": True, "capabilities": ["streaming"]},
        "after": {"supports_streaming": False, "capabilities": []},
    }


async def test_a_refused_change_leaves_no_record_and_no_number(catalog: CatalogStore, database: Database) -> None:
    provider, other = await new_provider(catalog), await new_provider(catalog)
    model = await new_model(catalog, provider)
    sibling = await new_model(catalog, provider)
    number = await catalog.catalog_number()
    async with database.connection() as connection:
        recorded = await connection.fetchval("select count(*) from llm_admin_changes")
    for attempt, reason in [
        (new_provider(catalog, name=provider.name), "ALREADY_EXISTS"),
        (update(catalog, other, name=provider.name), "ALREADY_EXISTS"),
        (new_model(catalog, provider, model_name=model.model_name), "ALREADY_EXISTS"),
        (update(catalog, sibling, model_name=model.model_name), "ALREADY_EXISTS"),
        (new_model(catalog, dataclasses.replace(provider, id=uuid.uuid4())), "RESOURCE_NOT_FOUND"),
        (update(catalog, dataclasses.replace(provider, id=uuid.uuid4())), "RESOURCE_NOT_FOUND"),
        (update(catalog, dataclasses.replace(model, id=uuid.uuid4())), "RESOURCE_NOT_FOUND"),
    ]:
        with pytest.raises(DomainError) as refused:
            await attempt
        assert refused.value.reason == reason
    assert await catalog.catalog_number() == number
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from llm_admin_changes") == recorded
    assert [await read(catalog, thing) for thing in (other, model, sibling)] == [other, model, sibling]
