"""All SQL of the catalogue."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server import errors
from llmrouter_server.catalog.model import Model
from llmrouter_server.catalog.provider import Provider, ProviderChanges
from llmrouter_server.catalog.snapshot import CatalogModel, PowerLevel, Snapshot

if TYPE_CHECKING:
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

_PROVIDER = """
    p.id, p.name, p.provider_type, p.api_endpoint, p.requires_byok, p.is_enabled, p.priority, p.config,
    (select count(*) from llm_models m where m.provider_id = p.id and m.is_enabled) as model_count,
    p.created_at, p.updated_at"""

LIST_PROVIDERS = f"""
select {_PROVIDER} from llm_providers p
where (p.is_enabled or not $1) and ($2::bigint is null or (-p.priority, p.name) > (-$2::bigint, $3::text))
order by -p.priority, p.name
limit $4"""  # noqa: S608 - a constant list of columns

INSERT_PROVIDER = f"""
insert into llm_providers as p (name, provider_type, api_endpoint, requires_byok, is_enabled, priority, config)
values ($1, $2, $3, coalesce($4, true), coalesce($5, true), coalesce($6, 50), coalesce($7, '{{}}'::jsonb))
returning {_PROVIDER}"""  # noqa: S608 - a constant list of columns

UPDATE_PROVIDER = f"""
update llm_providers p set
    name = coalesce($2, name),
    provider_type = coalesce($3, provider_type),
    api_endpoint = coalesce($4, api_endpoint),
    requires_byok = coalesce($5, requires_byok),
    is_enabled = coalesce($6, is_enabled),
    priority = coalesce($7, priority),
    config = coalesce($8, config),
    updated_at = now()
where p.id = $1
returning {_PROVIDER}"""  # noqa: S608 - a constant list of columns

LIST_MODELS = """
select m.id, m.provider_id, p.name as provider_name, m.model_name, m.display_name, m.power_level,
    m.input_cost_per_1m, m.output_cost_per_1m, m.avg_latency_ms, m.quality_score, m.supports_streaming,
    m.max_context_tokens, m.capabilities, m.is_enabled, p.requires_byok, m.created_at, m.updated_at
from llm_models m
inner join llm_providers p on p.id = m.provider_id
where m.is_enabled and p.is_enabled
    and ($1::text is null or m.power_level = $1)
    and ($2::uuid is null or m.provider_id = $2)
    and (
        $3::text is null
        or (array_position(array['ECO', 'BALANCED', 'PRECISION'], m.power_level), p.name, m.model_name)
        > (array_position(array['ECO', 'BALANCED', 'PRECISION'], $3), $4::text, $5::text)
    )
order by array_position(array['ECO', 'BALANCED', 'PRECISION'], m.power_level), p.name, m.model_name
limit $6"""

# The number and the models in one statement: what the number numbers.
LOAD_SNAPSHOT = """
select v.number, m.id, m.provider_id, m.model_name, m.display_name, p.name as provider_name, p.api_endpoint,
    m.power_level, m.input_cost_per_1m, m.output_cost_per_1m, m.avg_latency_ms, m.quality_score, m.max_context_tokens,
    m.capabilities, p.priority, p.requires_byok, m.is_enabled as model_enabled, p.is_enabled as provider_enabled
from llm_catalog_version v
left join (llm_models m inner join llm_providers p on p.id = m.provider_id) on true
order by m.id"""


class CatalogStore:
    """Reads and changes providers and models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_providers(self, *, enabled_only: bool, after: tuple[int, str] | None, limit: int) -> list[Provider]:
        """List by descending priority, then name, from after the provider with these two."""
        priority, name = after or (None, None)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PROVIDERS, enabled_only, priority, name, limit)
        return [Provider(**row) for row in rows]

    async def create_provider(self, values: ProviderChanges) -> Provider:
        """Create a provider; None stands for a field's default. ALREADY_EXISTS when the name is taken."""
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(INSERT_PROVIDER, *_values(values))
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("provider", "name", str(values.name)) from None
        return Provider(**row)

    async def update_provider(self, provider_id: UUID, changes: ProviderChanges) -> Provider:
        """Change the fields that are given. RESOURCE_NOT_FOUND; ALREADY_EXISTS when the name is taken."""
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(UPDATE_PROVIDER, provider_id, *_values(changes))
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("provider", "name", str(changes.name)) from None
        if row is None:
            raise errors.not_found("provider")
        return Provider(**row)

    async def list_models(
        self,
        *,
        power_level: PowerLevel | None,
        provider_id: UUID | None,
        after: tuple[str, str, str] | None,
        limit: int,
    ) -> list[Model]:
        """List usable models by power level, provider name and model name, from after the model with these three."""
        level = power_level.name if power_level is not None else None
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_MODELS, level, provider_id, *(after or (None, None, None)), limit)
        return [
            Model(**{**row, "power_level": PowerLevel[row["power_level"]], "capabilities": tuple(row["capabilities"])})
            for row in rows
        ]

    async def load_snapshot(self) -> Snapshot:
        """Read the whole catalogue."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(LOAD_SNAPSHOT)
        return Snapshot(rows[0]["number"], tuple(_catalog_model(row) for row in rows if row["id"] is not None))


def _values(changes: ProviderChanges) -> tuple[object, ...]:
    return tuple(getattr(changes, field.name) for field in dataclasses.fields(changes))


def _catalog_model(row: Any) -> CatalogModel:  # noqa: ANN401 - asyncpg has no types
    return CatalogModel(
        model_id=row["id"],
        provider_id=row["provider_id"],
        model_name=row["model_name"],
        display_name=row["display_name"],
        provider_name=row["provider_name"],
        api_endpoint=row["api_endpoint"],
        power_level=PowerLevel[row["power_level"]],
        input_cost_per_1m=float(row["input_cost_per_1m"]),
        output_cost_per_1m=float(row["output_cost_per_1m"]),
        avg_latency_ms=row["avg_latency_ms"],
        quality_rating=float(row["quality_score"]),
        max_context_tokens=row["max_context_tokens"],
        capabilities=frozenset(row["capabilities"]),
        priority=row["priority"],
        requires_byok=row["requires_byok"],
        model_enabled=row["model_enabled"],
        provider_enabled=row["provider_enabled"],
    )
