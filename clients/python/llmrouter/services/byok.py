"""ByokService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.byok_pb2 import ProviderKey
from llmrouter.v2.byok_service_pb2 import (
    DeleteKeyRequest,
    DeleteKeyResponse,
    ListKeysRequest,
    ListKeysResponse,
    StoreKeyRequest,
    UpdateKeyRequest,
    VerifyKeyRequest,
    VerifyKeyResponse,
)
from llmrouter.values import struct_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.ByokService/"


class ByokService:
    """Bring your own key: the caller's provider keys, encrypted at rest.

    Everyone sees and changes only their own. Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or
    DEADLINE_EXCEEDED; the writes with RATE_LIMITED, at more than 5 a minute for each user.
    """

    def __init__(self, channel: Channel) -> None:
        self.StoreKey = channel.unary(_SERVICE + "StoreKey", StoreKeyRequest, ProviderKey)
        """As store_key, with the messages of the protos."""
        self.ListKeys = channel.unary(_SERVICE + "ListKeys", ListKeysRequest, ListKeysResponse)
        """As list_keys, with the messages of the protos."""
        self.UpdateKey = channel.unary(_SERVICE + "UpdateKey", UpdateKeyRequest, ProviderKey)
        """As update_key, with the messages of the protos."""
        self.VerifyKey = channel.unary(_SERVICE + "VerifyKey", VerifyKeyRequest, VerifyKeyResponse)
        """As verify_key, with the messages of the protos."""
        self.DeleteKey = channel.unary(_SERVICE + "DeleteKey", DeleteKeyRequest, DeleteKeyResponse)
        """As delete_key, with the messages of the protos."""

    def store_key(
        self,
        *,
        provider_id: str,
        api_key: str,
        metadata: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> ProviderKey:
        """Stores the caller's key for a provider and activates it; a key already stored for that provider is
        replaced.

        Answers HTTP 201 for a new key, 200 for a replaced one.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; RATE_LIMITED.

        provider_id: UUID of the provider the key is for.
        api_key: The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed.
        metadata: The user's own notes, an object of at most 4 KiB as JSON. Default {}.
        """
        request = StoreKeyRequest(provider_id=provider_id, api_key=api_key, metadata=struct_of(metadata))
        return self.StoreKey(request, timeout=timeout, metadata=headers)

    def list_keys(
        self, *, page_size: int = 0, page_token: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Pages[ProviderKey, ListKeysResponse]:
        """Lists the caller's keys by provider name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        page_size: The most keys in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListKeysResponse:
            request = ListKeysRequest(page_size=page_size, page_token=token)
            return self.ListKeys(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.keys, lambda page: page.next_page_token)

    def update_key(
        self,
        key_id: str,
        *,
        is_active: bool | None = None,
        metadata: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> ProviderKey:
        """Activates or deactivates one of the caller's keys, or changes its notes.

        The key itself is replaced by StoreKey.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        is_active: Whether routing may use it. Activating it also forgets that its provider refused it.
        metadata: New notes, an object of at most 4 KiB as JSON; they replace the old ones as a whole.
        """
        request = UpdateKeyRequest(key_id=key_id, is_active=is_active, metadata=struct_of(metadata))
        return self.UpdateKey(request, timeout=timeout, metadata=headers)

    def verify_key(
        self, key_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> VerifyKeyResponse:
        """Tries one of the caller's keys at its provider, by asking for the provider's list of models.

        Takes at most 8 s.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        """
        request = VerifyKeyRequest(key_id=key_id)
        return self.VerifyKey(request, timeout=timeout, metadata=headers)

    def delete_key(self, key_id: str, *, timeout: float | None = None, headers: Headers | None = None) -> None:
        """Erases one of the caller's keys for good.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        """
        request = DeleteKeyRequest(key_id=key_id)
        self.DeleteKey(request, timeout=timeout, metadata=headers)


class AsyncByokService:
    """Bring your own key: the caller's provider keys, encrypted at rest.

    Everyone sees and changes only their own. Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or
    DEADLINE_EXCEEDED; the writes with RATE_LIMITED, at more than 5 a minute for each user.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.StoreKey = channel.unary(_SERVICE + "StoreKey", StoreKeyRequest, ProviderKey)
        """As store_key, with the messages of the protos."""
        self.ListKeys = channel.unary(_SERVICE + "ListKeys", ListKeysRequest, ListKeysResponse)
        """As list_keys, with the messages of the protos."""
        self.UpdateKey = channel.unary(_SERVICE + "UpdateKey", UpdateKeyRequest, ProviderKey)
        """As update_key, with the messages of the protos."""
        self.VerifyKey = channel.unary(_SERVICE + "VerifyKey", VerifyKeyRequest, VerifyKeyResponse)
        """As verify_key, with the messages of the protos."""
        self.DeleteKey = channel.unary(_SERVICE + "DeleteKey", DeleteKeyRequest, DeleteKeyResponse)
        """As delete_key, with the messages of the protos."""

    async def store_key(
        self,
        *,
        provider_id: str,
        api_key: str,
        metadata: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> ProviderKey:
        """Stores the caller's key for a provider and activates it; a key already stored for that provider is
        replaced.

        Answers HTTP 201 for a new key, 200 for a replaced one.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; RATE_LIMITED.

        provider_id: UUID of the provider the key is for.
        api_key: The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed.
        metadata: The user's own notes, an object of at most 4 KiB as JSON. Default {}.
        """
        request = StoreKeyRequest(provider_id=provider_id, api_key=api_key, metadata=struct_of(metadata))
        return await self.StoreKey(request, timeout=timeout, metadata=headers)

    def list_keys(
        self, *, page_size: int = 0, page_token: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> AsyncPages[ProviderKey, ListKeysResponse]:
        """Lists the caller's keys by provider name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        page_size: The most keys in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListKeysResponse:
            request = ListKeysRequest(page_size=page_size, page_token=token)
            return await self.ListKeys(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.keys, lambda page: page.next_page_token)

    async def update_key(
        self,
        key_id: str,
        *,
        is_active: bool | None = None,
        metadata: Mapping[str, object] | None = None,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> ProviderKey:
        """Activates or deactivates one of the caller's keys, or changes its notes.

        The key itself is replaced by StoreKey.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        is_active: Whether routing may use it. Activating it also forgets that its provider refused it.
        metadata: New notes, an object of at most 4 KiB as JSON; they replace the old ones as a whole.
        """
        request = UpdateKeyRequest(key_id=key_id, is_active=is_active, metadata=struct_of(metadata))
        return await self.UpdateKey(request, timeout=timeout, metadata=headers)

    async def verify_key(
        self, key_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> VerifyKeyResponse:
        """Tries one of the caller's keys at its provider, by asking for the provider's list of models.

        Takes at most 8 s.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        """
        request = VerifyKeyRequest(key_id=key_id)
        return await self.VerifyKey(request, timeout=timeout, metadata=headers)

    async def delete_key(self, key_id: str, *, timeout: float | None = None, headers: Headers | None = None) -> None:
        """Erases one of the caller's keys for good.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's;
        RATE_LIMITED.

        key_id: UUID of the key, from the path.
        """
        request = DeleteKeyRequest(key_id=key_id)
        await self.DeleteKey(request, timeout=timeout, metadata=headers)
