"""The door of the catalogue: ProviderService and ModelService."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from llmrouter.v2 import (
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.catalog.provider import (
    MAX_CONFIG_BYTES,
    MAX_PRIORITY,
    PROVIDER_TYPE,
    ProviderChanges,
    endpoint_problem,
)
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import mark_created
from llmrouter_server.runtime.messages import struct, timestamp

if TYPE_CHECKING:
    from llmrouter_server.catalog.model import Model
    from llmrouter_server.catalog.provider import Provider
    from llmrouter_server.catalog.store import CatalogStore
    from llmrouter_server.runtime.interceptor import Context


class ProviderService(provider_service_pb2_grpc.ProviderServiceServicer):
    """Providers, for admins."""

    def __init__(self, store: CatalogStore, *, allow_private_endpoints: bool) -> None:
        self._store, self._allow_private = store, allow_private_endpoints

    async def ListProviders(
        self, request: provider_service_pb2.ListProvidersRequest, _context: Context
    ) -> provider_service_pb2.ListProvidersResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        after = cast("tuple[int, str] | None", fields.page_token(request.page_token, int, str))
        fields.done()
        found = await self._store.list_providers(enabled_only=request.enabled_only, after=after, limit=size + 1)
        page = found[:size]
        more = len(found) > size
        return provider_service_pb2.ListProvidersResponse(
            providers=[_provider(provider) for provider in page],
            next_page_token=next_page_token(page[-1].priority, page[-1].name) if more else "",
        )

    async def CreateProvider(
        self, request: provider_service_pb2.CreateProviderRequest, context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        values = self._changes(fields, request, required={"name", "provider_type", "api_endpoint"})
        fields.done()
        provider = await self._store.create_provider(values)
        await mark_created(context)
        return _provider(provider)

    async def UpdateProvider(
        self, request: provider_service_pb2.UpdateProviderRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        changes = self._changes(fields, request)
        fields.done()
        return _provider(await self._store.update_provider(provider_id, changes))

    async def DisableProvider(
        self, request: provider_service_pb2.DisableProviderRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        fields.done()
        return _provider(await self._store.update_provider(provider_id, ProviderChanges(is_enabled=False)))

    def _changes(
        self,
        fields: Fields,
        request: provider_service_pb2.CreateProviderRequest | provider_service_pb2.UpdateProviderRequest,
        required: frozenset[str] | set[str] = frozenset(),
    ) -> ProviderChanges:
        given = {field.name for field, _ in request.ListFields()} | required
        if "provider_type" in given and not re.fullmatch(PROVIDER_TYPE, request.provider_type):
            fields.wrong("provider_type", "must be 1 to 50 lower-case letters, digits, - and _, for instance openai")
        return ProviderChanges(
            name=fields.text("name", request.name, longest=100) if "name" in given else None,
            provider_type=request.provider_type if "provider_type" in given else None,
            api_endpoint=self._endpoint(fields, request.api_endpoint) if "api_endpoint" in given else None,
            requires_byok=request.requires_byok if "requires_byok" in given else None,
            is_enabled=request.is_enabled if "is_enabled" in given else None,
            priority=fields.number("priority", request.priority, low=0, high=MAX_PRIORITY)
            if "priority" in given
            else None,
            config=fields.json_object("config", request.config, most_bytes=MAX_CONFIG_BYTES)
            if "config" in given
            else None,
        )

    def _endpoint(self, fields: Fields, value: str) -> str:
        endpoint = fields.text("api_endpoint", value, longest=2048)
        problem = endpoint_problem(endpoint, allow_private=self._allow_private) if endpoint else None
        if problem:
            fields.wrong("api_endpoint", problem)
        return endpoint


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Models, for everyone."""

    def __init__(self, store: CatalogStore) -> None:
        self._store = store

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, _context: Context
    ) -> model_service_pb2.ListModelsResponse:
        fields = Fields()
        level = read_power_level(fields, "power_level", request.power_level)
        provider_id = fields.optional_uuid("provider_id", request.provider_id)
        size = fields.page_size(request.page_size)
        after = cast("tuple[str, str, str] | None", fields.page_token(request.page_token, str, str, str))
        fields.done()
        found = await self._store.list_models(power_level=level, provider_id=provider_id, after=after, limit=size + 1)
        page = found[:size]
        last = page[-1] if len(found) > size else None
        return model_service_pb2.ListModelsResponse(
            models=[_model(model) for model in page],
            next_page_token=next_page_token(last.power_level.name, last.provider_name, last.model_name) if last else "",
        )


def _provider(provider: Provider) -> provider_pb2.Provider:
    return provider_pb2.Provider(
        provider_id=str(provider.id),
        name=provider.name,
        provider_type=provider.provider_type,
        api_endpoint=provider.api_endpoint,
        requires_byok=provider.requires_byok,
        is_enabled=provider.is_enabled,
        priority=provider.priority,
        config=struct(provider.config),
        model_count=provider.model_count,
        created_at=timestamp(provider.created_at),
        updated_at=timestamp(provider.updated_at),
    )


def _model(model: Model) -> model_pb2.Model:
    return model_pb2.Model(
        model_id=str(model.id),
        provider_id=str(model.provider_id),
        provider_name=model.provider_name,
        model_name=model.model_name,
        display_name=model.display_name,
        power_level=power_level_message(model.power_level),
        input_cost_per_1m=float(model.input_cost_per_1m),
        output_cost_per_1m=float(model.output_cost_per_1m),
        avg_latency_ms=model.avg_latency_ms,
        quality_score=float(model.quality_score),
        supports_streaming=model.supports_streaming,
        max_context_tokens=model.max_context_tokens,
        capabilities=model.capabilities,
        is_enabled=model.is_enabled,
        requires_byok=model.requires_byok,
        created_at=timestamp(model.created_at),
        updated_at=timestamp(model.updated_at),
    )
