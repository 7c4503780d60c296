"""Providers and models for tests, made and changed as an admin does it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from llmrouter_server.catalog.model import Model, ModelChanges
from llmrouter_server.catalog.provider import Provider, ProviderChanges
from llmrouter_server.catalog.snapshot import PowerLevel

if TYPE_CHECKING:
    from llmrouter_server.catalog.store import CatalogStore
    from llmrouter_server.runtime.database import Database

ADMIN = uuid.uuid4()


async def new_provider(catalog: CatalogStore, **values: Any) -> Provider:
    given = {"name": f"p {uuid.uuid4()}", "provider_type": "openai", "api_endpoint": "https://llm.example.com/v1"}
    return await catalog.create_provider(ProviderChanges(**(given | values)), admin_id=ADMIN)


async def new_model(catalog: CatalogStore, provider: Provider | None = None, **values: Any) -> Model:
    owner = provider or await new_provider(catalog)
    given = {"model_name": f"m {uuid.uuid4()}", "power_level": PowerLevel.ECO}
    return await catalog.create_model(owner.id, ModelChanges(**(given | values)), admin_id=ADMIN)


async def update(catalog: CatalogStore, thing: Provider | Model, etag: str = "", **values: Any) -> Any:
    if isinstance(thing, Provider):
        return await catalog.update_provider(thing.id, ProviderChanges(**values), etag=etag, admin_id=ADMIN)
    return await catalog.update_model(thing.id, ModelChanges(**values), etag=etag, admin_id=ADMIN)


async def read(catalog: CatalogStore, thing: Provider | Model) -> Any:
    return await (catalog.get_provider(thing.id) if isinstance(thing, Provider) else catalog.get_model(thing.id))


async def changes_of(database: Database, thing: Provider | Model) -> list[dict[str, Any]]:
    """Return what was recorded of a thing, oldest first."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select admin_id, resource, action, before, after from llm_admin_changes where resource_id = $1"
            " order by id",
            thing.id,
        )
    return [dict(row) for row in rows]
