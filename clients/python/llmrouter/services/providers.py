"""ProviderService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.provider_pb2 import Provider
from llmrouter.v2.provider_service_pb2 import (
    CreateProviderRequest,
    DeletePlatformKeyRequest,
    DisableProviderRequest,
    GetProviderRequest,
    ListProvidersRequest,
    ListProvidersResponse,
    SetPlatformKeyRequest,
    UpdateProviderRequest,
)
from llmrouter.values import struct_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.ProviderService/"


class ProviderService:
    """The providers of the catalogue.

    Every RPC needs the role admin, and every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or
    DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.ListProviders = channel.unary(_SERVICE + "ListProviders", ListProvidersRequest, ListProvidersResponse)
        """As list_providers, with the messages of the protos."""
        self.GetProvider = channel.unary(_SERVICE + "GetProvider", GetProviderRequest, Provider)
        """As get_provider, with the messages of the protos."""
        self.CreateProvider = channel.unary(_SERVICE + "CreateProvider", CreateProviderRequest, Provider)
        """As create_provider, with the messages of the protos."""
        self.UpdateProvider = channel.unary(_SERVICE + "UpdateProvider", UpdateProviderRequest, Provider)
        """As update_provider, with the messages of the protos."""
        self.DisableProvider = channel.unary(_SERVICE + "DisableProvider", DisableProviderRequest, Provider)
        """As disable_provider, with the messages of the protos."""
        self.SetPlatformKey = channel.unary(_SERVICE + "SetPlatformKey", SetPlatformKeyRequest, Provider)
        """As set_platform_key, with the messages of the protos."""
        self.DeletePlatformKey = channel.unary(_SERVICE + "DeletePlatformKey", DeletePlatformKeyRequest, Provider)
        """As delete_platform_key, with the messages of the protos."""

    def list_providers(
        self,
        *,
        enabled_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[Provider, ListProvidersResponse]:
        """Lists providers by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        enabled_only: Only enabled providers. Default false: all.
        page_size: The most providers in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListProvidersResponse:
            request = ListProvidersRequest(enabled_only=enabled_only, page_size=page_size, page_token=token)
            return self.ListProviders(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.providers, lambda page: page.next_page_token)

    def get_provider(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Returns a provider.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = GetProviderRequest(provider_id=provider_id)
        return self.GetProvider(request, timeout=timeout, metadata=headers)

    def create_provider(
        self,
        *,
        name: str,
        provider_type: str,
        api_endpoint: str,
        requires_byok: bool | None = None,
        is_enabled: bool | None = None,
        priority: int | None = None,
        config: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Provider:
        """Creates a provider.

        Answers HTTP 201.

        Errors: INVALID_FIELD; ALREADY_EXISTS when the name is taken.

        name: Unique name, 1 to 100 characters.
        provider_type: The kind of API, for instance `openai`, 1 to 50 characters: see Provider.
        api_endpoint: Base URL of its OpenAI-compatible API. A loopback, private or link-local address, or
            `localhost`, is refused unless the operator has allowed it. What another name leads to is looked at
            when a key is verified, and not before.
        requires_byok: Whether users need a key of their own. Default true.
        is_enabled: Whether it takes part in routing. Default true.
        priority: 0 to 1000. Default 50.
        config: Free-form settings. Default {}.
        """
        request = CreateProviderRequest(
            name=name,
            provider_type=provider_type,
            api_endpoint=api_endpoint,
            requires_byok=requires_byok,
            is_enabled=is_enabled,
            priority=priority,
            config=struct_of(config),
        )
        return self.CreateProvider(request, timeout=timeout, metadata=headers)

    def update_provider(
        self,
        provider_id: str,
        *,
        name: str | None = None,
        provider_type: str | None = None,
        api_endpoint: str | None = None,
        requires_byok: bool | None = None,
        is_enabled: bool | None = None,
        priority: int | None = None,
        config: Mapping[str, object] | None = None,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Provider:
        """Changes the given fields of a provider and leaves the others as they are.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is taken; ETAG_MISMATCH.

        provider_id: UUID of the provider, from the path.
        name: New name, 1 to 100 characters.
        provider_type: New kind of API, 1 to 50 characters.
        api_endpoint: New base URL.
        requires_byok: Whether users need a key of their own.
        is_enabled: Enable or disable.
        priority: New priority, 0 to 1000.
        config: New settings; they replace the old ones as a whole.
        etag: The etag of the provider as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateProviderRequest(
            provider_id=provider_id,
            name=name,
            provider_type=provider_type,
            api_endpoint=api_endpoint,
            requires_byok=requires_byok,
            is_enabled=is_enabled,
            priority=priority,
            config=struct_of(config),
            etag=etag,
        )
        return self.UpdateProvider(request, timeout=timeout, metadata=headers)

    def disable_provider(
        self, provider_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Disables a provider: it takes no part in routing until it is enabled again.

        Nothing is erased; doing it twice is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        provider_id: UUID of the provider, from the path.
        etag: As in UpdateProviderRequest.
        """
        request = DisableProviderRequest(provider_id=provider_id, etag=etag)
        return self.DisableProvider(request, timeout=timeout, metadata=headers)

    def set_platform_key(
        self, *, provider_id: str, api_key: str, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Stores the operator's own key for a provider, encrypted, in place of the one before.

        It pays for every user without an active key of their own, at providers that need no BYOK. It cannot be
        read back.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        api_key: The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed.
        """
        request = SetPlatformKeyRequest(provider_id=provider_id, api_key=api_key)
        return self.SetPlatformKey(request, timeout=timeout, metadata=headers)

    def delete_platform_key(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Erases the operator's own key for a provider; when there is none, that is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = DeletePlatformKeyRequest(provider_id=provider_id)
        return self.DeletePlatformKey(request, timeout=timeout, metadata=headers)


class AsyncProviderService:
    """The providers of the catalogue.

    Every RPC needs the role admin, and every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or
    DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.ListProviders = channel.unary(_SERVICE + "ListProviders", ListProvidersRequest, ListProvidersResponse)
        """As list_providers, with the messages of the protos."""
        self.GetProvider = channel.unary(_SERVICE + "GetProvider", GetProviderRequest, Provider)
        """As get_provider, with the messages of the protos."""
        self.CreateProvider = channel.unary(_SERVICE + "CreateProvider", CreateProviderRequest, Provider)
        """As create_provider, with the messages of the protos."""
        self.UpdateProvider = channel.unary(_SERVICE + "UpdateProvider", UpdateProviderRequest, Provider)
        """As update_provider, with the messages of the protos."""
        self.DisableProvider = channel.unary(_SERVICE + "DisableProvider", DisableProviderRequest, Provider)
        """As disable_provider, with the messages of the protos."""
        self.SetPlatformKey = channel.unary(_SERVICE + "SetPlatformKey", SetPlatformKeyRequest, Provider)
        """As set_platform_key, with the messages of the protos."""
        self.DeletePlatformKey = channel.unary(_SERVICE + "DeletePlatformKey", DeletePlatformKeyRequest, Provider)
        """As delete_platform_key, with the messages of the protos."""

    def list_providers(
        self,
        *,
        enabled_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[Provider, ListProvidersResponse]:
        """Lists providers by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        enabled_only: Only enabled providers. Default false: all.
        page_size: The most providers in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListProvidersResponse:
            request = ListProvidersRequest(enabled_only=enabled_only, page_size=page_size, page_token=token)
            return await self.ListProviders(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.providers, lambda page: page.next_page_token)

    async def get_provider(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Returns a provider.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = GetProviderRequest(provider_id=provider_id)
        return await self.GetProvider(request, timeout=timeout, metadata=headers)

    async def create_provider(
        self,
        *,
        name: str,
        provider_type: str,
        api_endpoint: str,
        requires_byok: bool | None = None,
        is_enabled: bool | None = None,
        priority: int | None = None,
        config: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Provider:
        """Creates a provider.

        Answers HTTP 201.

        Errors: INVALID_FIELD; ALREADY_EXISTS when the name is taken.

        name: Unique name, 1 to 100 characters.
        provider_type: The kind of API, for instance `openai`, 1 to 50 characters: see Provider.
        api_endpoint: Base URL of its OpenAI-compatible API. A loopback, private or link-local address, or
            `localhost`, is refused unless the operator has allowed it. What another name leads to is looked at
            when a key is verified, and not before.
        requires_byok: Whether users need a key of their own. Default true.
        is_enabled: Whether it takes part in routing. Default true.
        priority: 0 to 1000. Default 50.
        config: Free-form settings. Default {}.
        """
        request = CreateProviderRequest(
            name=name,
            provider_type=provider_type,
            api_endpoint=api_endpoint,
            requires_byok=requires_byok,
            is_enabled=is_enabled,
            priority=priority,
            config=struct_of(config),
        )
        return await self.CreateProvider(request, timeout=timeout, metadata=headers)

    async def update_provider(
        self,
        provider_id: str,
        *,
        name: str | None = None,
        provider_type: str | None = None,
        api_endpoint: str | None = None,
        requires_byok: bool | None = None,
        is_enabled: bool | None = None,
        priority: int | None = None,
        config: Mapping[str, object] | None = None,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Provider:
        """Changes the given fields of a provider and leaves the others as they are.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is taken; ETAG_MISMATCH.

        provider_id: UUID of the provider, from the path.
        name: New name, 1 to 100 characters.
        provider_type: New kind of API, 1 to 50 characters.
        api_endpoint: New base URL.
        requires_byok: Whether users need a key of their own.
        is_enabled: Enable or disable.
        priority: New priority, 0 to 1000.
        config: New settings; they replace the old ones as a whole.
        etag: The etag of the provider as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateProviderRequest(
            provider_id=provider_id,
            name=name,
            provider_type=provider_type,
            api_endpoint=api_endpoint,
            requires_byok=requires_byok,
            is_enabled=is_enabled,
            priority=priority,
            config=struct_of(config),
            etag=etag,
        )
        return await self.UpdateProvider(request, timeout=timeout, metadata=headers)

    async def disable_provider(
        self, provider_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Disables a provider: it takes no part in routing until it is enabled again.

        Nothing is erased; doing it twice is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        provider_id: UUID of the provider, from the path.
        etag: As in UpdateProviderRequest.
        """
        request = DisableProviderRequest(provider_id=provider_id, etag=etag)
        return await self.DisableProvider(request, timeout=timeout, metadata=headers)

    async def set_platform_key(
        self, *, provider_id: str, api_key: str, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Stores the operator's own key for a provider, encrypted, in place of the one before.

        It pays for every user without an active key of their own, at providers that need no BYOK. It cannot be
        read back.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        api_key: The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed.
        """
        request = SetPlatformKeyRequest(provider_id=provider_id, api_key=api_key)
        return await self.SetPlatformKey(request, timeout=timeout, metadata=headers)

    async def delete_platform_key(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Provider:
        """Erases the operator's own key for a provider; when there is none, that is no error.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = DeletePlatformKeyRequest(provider_id=provider_id)
        return await self.DeletePlatformKey(request, timeout=timeout, metadata=headers)
