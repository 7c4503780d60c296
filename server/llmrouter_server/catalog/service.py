"""The door of the catalogue: ProviderService and ModelService."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llmrouter.v2 import (
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from llmrouter_server import errors
from llmrouter_server.byok.cipher import read_credential
from llmrouter_server.catalog import model_wire, provider_wire
from llmrouter_server.catalog.model import ModelChanges
from llmrouter_server.catalog.model_wire import model_message, read_model
from llmrouter_server.catalog.power_level import read_power_level
from llmrouter_server.catalog.provider import ProviderChanges
from llmrouter_server.catalog.provider_wire import provider_message, read_provider
from llmrouter_server.runtime.auth import Role
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import current_caller, mark_created

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmrouter_server.byok.platform import PlatformKeyStore
    from llmrouter_server.catalog.store import CatalogStore
    from llmrouter_server.runtime.interceptor import Context


class ProviderService(provider_service_pb2_grpc.ProviderServiceServicer):
    """Providers, for admins."""

    def __init__(
        self,
        store: CatalogStore,
        platform_keys: PlatformKeyStore,
        changed: Callable[[], Awaitable[None]],
        *,
        allow_private_endpoints: bool,
    ) -> None:
        """`changed` is awaited after each change and before its answer."""
        self._store, self._platform_keys, self._changed = store, platform_keys, changed
        self._allow_private = allow_private_endpoints

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
            providers=[provider_message(provider) for provider in page],
            next_page_token=next_page_token(page[-1].priority, page[-1].name) if more else "",
        )

    async def GetProvider(
        self, request: provider_service_pb2.GetProviderRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        fields.done()
        return provider_message(await self._store.get_provider(provider_id))

    async def CreateProvider(
        self, request: provider_service_pb2.CreateProviderRequest, context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        values = read_provider(fields, request, required=provider_wire.REQUIRED, allow_private=self._allow_private)
        fields.done()
        provider = await self._store.create_provider(values, admin_id=current_caller().user_id)
        await self._changed()
        await mark_created(context)
        return provider_message(provider)

    async def UpdateProvider(
        self, request: provider_service_pb2.UpdateProviderRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        changes = read_provider(fields, request, allow_private=self._allow_private)
        fields.done()
        admin_id = current_caller().user_id
        provider = await self._store.update_provider(provider_id, changes, etag=request.etag, admin_id=admin_id)
        await self._changed()
        return provider_message(provider)

    async def DisableProvider(
        self, request: provider_service_pb2.DisableProviderRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        fields.done()
        provider = await self._store.update_provider(
            provider_id,
            ProviderChanges(is_enabled=False),
            etag=request.etag,
            admin_id=current_caller().user_id,
            action="disable",
        )
        await self._changed()
        return provider_message(provider)

    async def SetPlatformKey(
        self, request: provider_service_pb2.SetPlatformKeyRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        credential = read_credential(fields, "api_key", request.api_key)
        fields.done()
        await self._platform_keys.set(provider_id, credential, admin_id=current_caller().user_id)
        await self._changed()
        return provider_message(await self._store.get_provider(provider_id))

    async def DeletePlatformKey(
        self, request: provider_service_pb2.DeletePlatformKeyRequest, _context: Context
    ) -> provider_pb2.Provider:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        fields.done()
        await self._platform_keys.delete(provider_id, admin_id=current_caller().user_id)
        await self._changed()
        return provider_message(await self._store.get_provider(provider_id))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Models: reading for everyone, changing for admins."""

    def __init__(self, store: CatalogStore, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is awaited after each change and before its answer."""
        self._store, self._changed = store, changed

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, _context: Context
    ) -> model_service_pb2.ListModelsResponse:
        if request.include_disabled and Role.ADMIN not in current_caller().roles:
            raise errors.role_required("include_disabled needs the role admin")
        fields = Fields()
        level = read_power_level(fields, "power_level", request.power_level)
        provider_id = fields.optional_uuid("provider_id", request.provider_id)
        size = fields.page_size(request.page_size)
        after = cast("tuple[str, str, str] | None", fields.page_token(request.page_token, str, str, str))
        fields.done()
        found = await self._store.list_models(
            include_disabled=request.include_disabled,
            power_level=level,
            provider_id=provider_id,
            after=after,
            limit=size + 1,
        )
        page = found[:size]
        last = page[-1] if len(found) > size else None
        return model_service_pb2.ListModelsResponse(
            models=[model_message(model) for model in page],
            next_page_token=next_page_token(last.power_level.name, last.provider_name, last.model_name) if last else "",
        )

    async def GetModel(self, request: model_service_pb2.GetModelRequest, _context: Context) -> model_pb2.Model:
        fields = Fields()
        model_id = fields.uuid("model_id", request.model_id)
        fields.done()
        return model_message(await self._store.get_model(model_id))

    async def CreateModel(self, request: model_service_pb2.CreateModelRequest, context: Context) -> model_pb2.Model:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        values = read_model(fields, request, required=model_wire.REQUIRED)
        fields.done()
        model = await self._store.create_model(provider_id, values, admin_id=current_caller().user_id)
        await self._changed()
        await mark_created(context)
        return model_message(model)

    async def UpdateModel(self, request: model_service_pb2.UpdateModelRequest, _context: Context) -> model_pb2.Model:
        fields = Fields()
        model_id = fields.uuid("model_id", request.model_id)
        changes = read_model(fields, request)
        fields.done()
        admin_id = current_caller().user_id
        model = await self._store.update_model(model_id, changes, etag=request.etag, admin_id=admin_id)
        await self._changed()
        return model_message(model)

    async def DisableModel(self, request: model_service_pb2.DisableModelRequest, _context: Context) -> model_pb2.Model:
        fields = Fields()
        model_id = fields.uuid("model_id", request.model_id)
        fields.done()
        model = await self._store.update_model(
            model_id,
            ModelChanges(is_enabled=False),
            etag=request.etag,
            admin_id=current_caller().user_id,
            action="disable",
        )
        await self._changed()
        return model_message(model)
