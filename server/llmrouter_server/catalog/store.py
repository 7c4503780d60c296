"""All SQL of the catalogue."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server import errors
from llmrouter_server.audit.changes import Change, differing, record_change
from llmrouter_server.catalog.model import Model, ModelChanges, with_streaming
from llmrouter_server.catalog.provider import Provider, ProviderChanges
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.catalog.stored_snapshot import read_snapshot

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.audit.changes import Action
    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.runtime.database import Database

_PROVIDER = """
    p.id, p.name, p.provider_type, p.api_endpoint, p.requires_byok, p.is_enabled, p.priority, p.config,
    (select count(*) from llm_models m where m.provider_id = p.id and m.is_enabled) as model_count,
    exists (select from llm_platform_keys k where k.provider_id = p.id) as has_platform_key,
    p.revision, p.created_at, p.updated_at"""

LIST_PROVIDERS = f"""
select {_PROVIDER} from llm_providers p
where (p.is_enabled or not $1) and ($2::bigint is null or (-p.priority, p.name) > (-$2::bigint, $3::text))
order by -p.priority, p.name
limit $4"""  # noqa: S608 - a constant list of columns

GET_PROVIDER = f"select {_PROVIDER} from llm_providers p where p.id = $1"  # noqa: S608 - a constant list of columns
# Keys, models and usage that refer to the row need not wait for this lock.
LOCK_PROVIDER = GET_PROVIDER + " for no key update"

INSERT_PROVIDER = f"""
insert into llm_providers as p (name, provider_type, api_endpoint, requires_byok, is_enabled, priority, config)
values ($1, $2, $3, coalesce($4, true), coalesce($5, true), coalesce($6, 50), coalesce($7, '{{}}'::jsonb))
returning {_PROVIDER}"""  # noqa: S608 - a constant list of columns

# clock_timestamp, because the wait for the lock must count.
UPDATE_PROVIDER = f"""
update llm_providers p set
    name = $2, provider_type = $3, api_endpoint = $4, requires_byok = $5, is_enabled = $6, priority = $7, config = $8,
    revision = revision + 1, updated_at = clock_timestamp()
where p.id = $1
returning {_PROVIDER}"""  # noqa: S608 - a constant list of columns

_MODEL = """
    m.id, m.provider_id, p.name as provider_name, m.model_name, m.display_name, m.power_level,
    m.input_cost_per_1m, m.output_cost_per_1m, m.avg_latency_ms, m.quality_score, m.supports_streaming,
    m.max_context_tokens, m.capabilities, m.is_enabled, p.requires_byok, m.revision, m.created_at, m.updated_at"""

LIST_MODELS = f"""
select {_MODEL}
from llm_models m
inner join llm_providers p on p.id = m.provider_id
where ((m.is_enabled and p.is_enabled) or $1)
    and ($2::text is null or m.power_level = $2)
    and ($3::uuid is null or m.provider_id = $3)
    and (
        $4::text is null
        or (array_position(array['ECO', 'BALANCED', 'PRECISION'], m.power_level), p.name, m.model_name)
        > (array_position(array['ECO', 'BALANCED', 'PRECISION'], $4), $5::text, $6::text)
    )
order by array_position(array['ECO', 'BALANCED', 'PRECISION'], m.power_level), p.name, m.model_name
limit $7"""  # noqa: S608 - a constant list of columns

GET_MODEL = f"""
select {_MODEL} from llm_models m inner join llm_providers p on p.id = m.provider_id
where m.id = $1"""  # noqa: S608 - a constant list of columns
LOCK_MODEL = GET_MODEL + " for no key update of m"

INSERT_MODEL = f"""
with m as (
    insert into llm_models (
        provider_id, model_name, display_name, power_level, input_cost_per_1m, output_cost_per_1m, avg_latency_ms,
        quality_score, supports_streaming, max_context_tokens, capabilities, is_enabled
    )
    values (
        $1, $2, coalesce($3, $2), $4, coalesce($5::numeric, 0), coalesce($6::numeric, 0), coalesce($7::bigint, 500),
        coalesce($8::numeric, 5), coalesce($9, true), coalesce($10::bigint, 4096), $11, coalesce($12, true)
    )
    returning *
)
select {_MODEL} from m inner join llm_providers p on p.id = m.provider_id"""  # noqa: S608 - a constant list of columns

UPDATE_MODEL = f"""
update llm_models m set
    model_name = $2, display_name = $3, power_level = $4, input_cost_per_1m = $5, output_cost_per_1m = $6,
    avg_latency_ms = $7, quality_score = $8, supports_streaming = $9, max_context_tokens = $10, capabilities = $11,
    is_enabled = $12, revision = m.revision + 1, updated_at = clock_timestamp()
from llm_providers p
where m.id = $1 and p.id = m.provider_id
returning {_MODEL}"""  # noqa: S608 - a constant list of columns

CATALOG_NUMBER = "select number from llm_catalog_version"
NEWEST_SNAPSHOT = "select number, models, rules from llm_catalog_snapshots order by number desc limit 1"
PAST_SNAPSHOT = "select number, models, rules from llm_catalog_snapshots where number = $1"
# The newest is not superseded. So many at once, that each statement ends in good time.
PRUNE_SNAPSHOTS = """
with pruned as (
    delete from llm_catalog_snapshots
    where number in (
        select number from llm_catalog_snapshots where superseded_at < $1 order by number limit $2
    )
    returning number
)
select count(*) from pruned"""
PRUNED_AT_ONCE = 500


class CatalogStore:
    """Reads and changes providers and models, and records each change of an admin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_providers(self, *, enabled_only: bool, after: tuple[int, str] | None, limit: int) -> list[Provider]:
        """List by descending priority, then name, from after the provider with these two."""
        priority, name = after or (None, None)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_PROVIDERS, enabled_only, priority, name, limit)
        return [Provider(**row) for row in rows]

    async def get_provider(self, provider_id: UUID) -> Provider:
        """Return a provider; RESOURCE_NOT_FOUND."""
        async with self._database.connection() as connection:
            return _provider(await connection.fetchrow(GET_PROVIDER, provider_id))

    async def create_provider(self, values: ProviderChanges, *, admin_id: UUID) -> Provider:
        """Create a provider; None stands for a field's default. ALREADY_EXISTS when the name is taken."""
        try:
            async with self._database.transaction() as connection:
                provider = _provider(await connection.fetchrow(INSERT_PROVIDER, *_values(values, ProviderChanges)))
                change = Change(
                    admin_id=admin_id,
                    resource="provider",
                    resource_id=provider.id,
                    action="create",
                    after=provider.facts(),
                )
                await record_change(connection, change)
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("provider", "name", str(values.name)) from None
        return provider

    async def update_provider(
        self, provider_id: UUID, changes: ProviderChanges, *, etag: str, admin_id: UUID, action: Action = "update"
    ) -> Provider:
        """Change the fields that are given; when all have these values already, do nothing.

        Errors: RESOURCE_NOT_FOUND; ETAG_MISMATCH unless `etag` is empty or the present one; ALREADY_EXISTS when the
        name is taken.
        """
        try:
            async with self._database.transaction() as connection:
                provider = _provider(await connection.fetchrow(LOCK_PROVIDER, provider_id))
                if etag and etag != provider.etag:
                    raise errors.etag_mismatch("provider")
                wanted = changes.applied_to(provider)
                before, after = differing(provider.facts(), wanted.facts())
                if after:
                    values = _values(wanted, ProviderChanges)
                    provider = _provider(await connection.fetchrow(UPDATE_PROVIDER, provider_id, *values))
                    change = Change(
                        admin_id=admin_id,
                        resource="provider",
                        resource_id=provider_id,
                        action=action,
                        before=before,
                        after=after,
                    )
                    await record_change(connection, change)
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("provider", "name", str(changes.name)) from None
        return provider

    async def list_models(
        self,
        *,
        include_disabled: bool = False,
        power_level: PowerLevel | None,
        provider_id: UUID | None,
        after: tuple[str, str, str] | None,
        limit: int,
    ) -> list[Model]:
        """List models by power level, provider name and model name, from after the model with these three.

        Without `include_disabled`, only the enabled ones of enabled providers.
        """
        level = power_level.name if power_level is not None else None
        keys = after or (None, None, None)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_MODELS, include_disabled, level, provider_id, *keys, limit)
        return [_model(row) for row in rows]

    async def get_model(self, model_id: UUID) -> Model:
        """Return a model, enabled or not; RESOURCE_NOT_FOUND."""
        async with self._database.connection() as connection:
            return _model(await connection.fetchrow(GET_MODEL, model_id))

    async def create_model(self, provider_id: UUID, values: ModelChanges, *, admin_id: UUID) -> Model:
        """Create a model of a provider; None stands for a field's default.

        Errors: RESOURCE_NOT_FOUND when there is no such provider; ALREADY_EXISTS when it has a model of this name.
        """
        streams = values.supports_streaming is not False
        capabilities = with_streaming(values.capabilities or (), supports_streaming=streams)
        values = dataclasses.replace(values, capabilities=capabilities)
        try:
            async with self._database.transaction() as connection:
                model = _model(await connection.fetchrow(INSERT_MODEL, provider_id, *_values(values, ModelChanges)))
                change = Change(
                    admin_id=admin_id,
                    resource="model",
                    resource_id=model.id,
                    action="create",
                    after={"provider_id": str(provider_id), **model.facts()},
                )
                await record_change(connection, change)
        except asyncpg.ForeignKeyViolationError:
            raise errors.not_found("provider") from None
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("model", "model_name", str(values.model_name)) from None
        return model

    async def update_model(
        self, model_id: UUID, changes: ModelChanges, *, etag: str, admin_id: UUID, action: Action = "update"
    ) -> Model:
        """Change the fields that are given; when all have these values already, do nothing.

        Errors: RESOURCE_NOT_FOUND; ETAG_MISMATCH unless `etag` is empty or the present one; ALREADY_EXISTS when the
        provider has a model of the new name.
        """
        try:
            async with self._database.transaction() as connection:
                model = _model(await connection.fetchrow(LOCK_MODEL, model_id))
                if etag and etag != model.etag:
                    raise errors.etag_mismatch("model")
                wanted = changes.applied_to(model)
                before, after = differing(model.facts(), wanted.facts())
                if after:
                    values = _values(wanted, ModelChanges)
                    model = _model(await connection.fetchrow(UPDATE_MODEL, model_id, *values))
                    change = Change(
                        admin_id=admin_id,
                        resource="model",
                        resource_id=model_id,
                        action=action,
                        before=before,
                        after=after,
                    )
                    await record_change(connection, change)
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("model", "model_name", str(changes.model_name)) from None
        return model

    async def catalog_number(self) -> int:
        """Return the number of the newest snapshot."""
        async with self._database.connection() as connection:
            number: int = await connection.fetchval(CATALOG_NUMBER)
        return number

    async def load_snapshot(self, number: int | None = None) -> Snapshot:
        """Read the whole catalogue, as it is or as it was; RESOURCE_NOT_FOUND when that one is gone."""
        async with self._database.connection() as connection:
            if number is None:
                row = await connection.fetchrow(NEWEST_SNAPSHOT)
            else:
                row = await connection.fetchrow(PAST_SNAPSHOT, number)
        if row is None:
            raise errors.not_found("snapshot")
        return read_snapshot(row["number"], row["models"], row["rules"])

    async def prune_snapshots(self, before: datetime) -> None:
        """Delete the snapshots that were superseded before then; never the newest."""
        pruned = PRUNED_AT_ONCE
        while pruned == PRUNED_AT_ONCE:
            async with self._database.connection() as connection:
                pruned = await connection.fetchval(PRUNE_SNAPSHOTS, before, PRUNED_AT_ONCE)


def _values(thing: object, changes: type[ProviderChanges | ModelChanges]) -> tuple[object, ...]:
    """Return what the changeable columns are to hold, in the order of the changes' fields."""
    values = (getattr(thing, field.name) for field in dataclasses.fields(changes))
    return tuple(value.name if isinstance(value, PowerLevel) else value for value in values)


def _provider(row: Any) -> Provider:  # noqa: ANN401 - asyncpg has no types
    if row is None:
        raise errors.not_found("provider")
    return Provider(**row)


def _model(row: Any) -> Model:  # noqa: ANN401 - asyncpg has no types
    if row is None:
        raise errors.not_found("model")
    return Model(**{**row, "power_level": PowerLevel[row["power_level"]], "capabilities": tuple(row["capabilities"])})
