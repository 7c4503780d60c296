"""What the store makes of providers and models, in a database of their own."""

from __future__ import annotations

import dataclasses
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from catalog_things import ADMIN, changes_of, new_model, new_provider, update
from databases import started
from llmrouter_server.catalog.model import Model, ModelChanges
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


# --- providers ---


async def test_a_provider_tells_whether_it_has_a_platform_key_and_never_which(
    catalog: CatalogStore, database: Database
) -> None:
    provider = await new_provider(catalog)
    assert not provider.has_platform_key
    async with database.connection() as connection:
        await connection.execute(
            "insert into llm_platform_keys (provider_id, encrypted_api_key, key_prefix) values ($1, 'secret', 'secr')",
            provider.id,
        )
    with_key = await catalog.get_provider(provider.id)
    assert with_key == dataclasses.replace(provider, has_platform_key=True)
    listed = await catalog.list_providers(enabled_only=True, after=None, limit=500)
    assert next(each for each in listed if each.id == provider.id) == with_key
    changed = await update(catalog, provider, priority=1)
    assert changed.has_platform_key
    assert "secr" not in repr((changed, listed, await changes_of(database, provider)))


async def test_what_does_not_exist_is_not_found(catalog: CatalogStore) -> None:
    with pytest.raises(DomainError, match="there is no such provider"):
        await catalog.get_provider(uuid.uuid4())
    with pytest.raises(DomainError, match="there is no such model"):
        await catalog.get_model(uuid.uuid4())


async def test_usage_and_keys_need_not_wait_for_an_admin(catalog: CatalogStore, database: Database) -> None:
    model = await new_model(catalog)
    async with database.transaction() as admin, database.transaction() as user:
        await admin.fetchrow(LOCK_PROVIDER, model.provider_id)
        await admin.fetchrow(LOCK_MODEL, model.id)
        # What a foreign key's check does; `nowait` fails where the check would wait.
        for table, row_id in (("llm_providers", model.provider_id), ("llm_models", model.id)):
            assert await user.fetchval(f"select true from {table} where id = $1 for key share nowait", row_id)


# --- models ---


async def test_a_new_model_has_the_defaults(catalog: CatalogStore) -> None:
    provider = await new_provider(catalog, requires_byok=False)
    model = await new_model(catalog, provider, model_name="org/model-1")
    assert model == Model(
        id=model.id,
        provider_id=provider.id,
        provider_name=provider.name,
        model_name="org/model-1",
        display_name="org/model-1",
        power_level=PowerLevel.ECO,
        input_cost_per_1m=Decimal(0),
        output_cost_per_1m=Decimal(0),
        avg_latency_ms=500,
        quality_score=Decimal(5),
        supports_streaming=True,
        max_context_tokens=4096,
        capabilities=("streaming",),
        is_enabled=True,
        requires_byok=False,
        revision=1,
        created_at=model.created_at,
        updated_at=model.updated_at,
    )
    assert await catalog.get_model(model.id) == model


async def test_every_field_of_a_model_can_be_given_and_changed_to_the_ends_of_its_range(catalog: CatalogStore) -> None:
    low = ModelChanges(
        model_name="a",
        display_name="A",
        power_level=PowerLevel.BALANCED,
        input_cost_per_1m=Decimal("0.0001"),
        output_cost_per_1m=Decimal(0),
        avg_latency_ms=0,
        quality_score=Decimal(0),
        supports_streaming=False,
        max_context_tokens=1,
        capabilities=("chat",),
        is_enabled=False,
    )
    high = ModelChanges(
        model_name="m" * 200,
        display_name="é" * 200,
        power_level=PowerLevel.PRECISION,
        input_cost_per_1m=Decimal("999998.9999"),
        output_cost_per_1m=Decimal(999_999),
        avg_latency_ms=3_600_000,
        quality_score=Decimal("10.00"),
        supports_streaming=True,
        max_context_tokens=1_000_000_000,
        capabilities=("chat", "code", "vision", "tools", "json", "reasoning", "streaming"),
        is_enabled=True,
    )
    provider = await new_provider(catalog)
    created = await catalog.create_model(provider.id, low, admin_id=ADMIN)
    changed = await catalog.update_model(created.id, high, etag="", admin_id=ADMIN)
    for model, given in ((created, low), (changed, high)):
        assert {name: getattr(model, name) for name in dataclasses.asdict(given)} == dataclasses.asdict(given)
    assert changed.updated_at > created.updated_at


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ((True, ("chat", "streaming")), {"supports_streaming": False}, (False, ("chat",))),
        ((False, ("chat",)), {"supports_streaming": True}, (True, ("chat", "streaming"))),
        ((True, ("chat", "streaming")), {"capabilities": ("code",)}, (True, ("code", "streaming"))),
        ((False, ("chat",)), {"capabilities": ("code", "streaming")}, (False, ("code",))),
        ((False, ("chat",)), {"capabilities": ("streaming",)}, (False, ())),
        ((False, ("chat", "streaming")), {"avg_latency_ms": 1}, (False, ("chat",))),  # made so by hand, and mended
        ((True, ("song", "streaming")), {"avg_latency_ms": 1}, (True, ("song", "streaming"))),  # of a later release
    ],
)
async def test_the_capability_streaming_follows_supports_streaming(
    catalog: CatalogStore,
    database: Database,
    before: tuple[bool, tuple[str, ...]],
    values: dict[str, Any],
    after: tuple[bool, tuple[str, ...]],
) -> None:
    model = await new_model(catalog)
    async with database.connection() as connection:
        await connection.execute(
            "update llm_models set supports_streaming = $2, capabilities = $3 where id = $1", model.id, *before
        )
    changed = await update(catalog, model, **values)
    assert (changed.supports_streaming, changed.capabilities) == after


@pytest.mark.parametrize("include_disabled", [False, True])
async def test_pages_of_models_lose_none_and_disabled_ones_are_listed_when_asked_for(
    catalog: CatalogStore, include_disabled: bool
) -> None:
    off, on = await new_provider(catalog, is_enabled=False), await new_provider(catalog)
    made = [
        await new_model(catalog, provider, power_level=level, is_enabled=is_enabled)
        for provider in (off, on)
        for level in PowerLevel
        for is_enabled in (True, False)
    ]
    found: list[Model] = []
    while page := await catalog.list_models(
        include_disabled=include_disabled,
        power_level=None,
        provider_id=None,
        after=(found[-1].power_level.name, found[-1].provider_name, found[-1].model_name) if found else None,
        limit=5,
    ):
        found += page
    keys = [(model.power_level.value, model.provider_name, model.model_name) for model in found]
    assert keys == sorted(set(keys))
    usable = {model.id for model in made if model.is_enabled and model.provider_id == on.id}
    expected = {model.id for model in made} if include_disabled else usable
    assert {model.id for model in found} & {model.id for model in made} == expected
