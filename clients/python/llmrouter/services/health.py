"""HealthService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.health_pb2 import ProviderHealth
from llmrouter.v2.health_service_pb2 import (
    GetProviderHealthRequest,
    ListProviderHealthRequest,
    ListProviderHealthResponse,
)

if TYPE_CHECKING:
    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.HealthService/"


class HealthService:
    """How well the enabled providers do.

    For every user. Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.ListProviderHealth = channel.unary(
            _SERVICE + "ListProviderHealth", ListProviderHealthRequest, ListProviderHealthResponse
        )
        """As list_provider_health, with the messages of the protos."""
        self.GetProviderHealth = channel.unary(_SERVICE + "GetProviderHealth", GetProviderHealthRequest, ProviderHealth)
        """As get_provider_health, with the messages of the protos."""

    def list_provider_health(
        self, *, page_size: int = 0, page_token: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> Pages[ProviderHealth, ListProviderHealthResponse]:
        """Lists the health of the enabled providers, by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        page_size: The most providers in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListProviderHealthResponse:
            request = ListProviderHealthRequest(page_size=page_size, page_token=token)
            return self.ListProviderHealth(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.providers, lambda page: page.next_page_token)

    def get_provider_health(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> ProviderHealth:
        """Returns the health of one enabled provider.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = GetProviderHealthRequest(provider_id=provider_id)
        return self.GetProviderHealth(request, timeout=timeout, metadata=headers)


class AsyncHealthService:
    """How well the enabled providers do.

    For every user. Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.ListProviderHealth = channel.unary(
            _SERVICE + "ListProviderHealth", ListProviderHealthRequest, ListProviderHealthResponse
        )
        """As list_provider_health, with the messages of the protos."""
        self.GetProviderHealth = channel.unary(_SERVICE + "GetProviderHealth", GetProviderHealthRequest, ProviderHealth)
        """As get_provider_health, with the messages of the protos."""

    def list_provider_health(
        self, *, page_size: int = 0, page_token: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> AsyncPages[ProviderHealth, ListProviderHealthResponse]:
        """Lists the health of the enabled providers, by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        page_size: The most providers in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListProviderHealthResponse:
            request = ListProviderHealthRequest(page_size=page_size, page_token=token)
            return await self.ListProviderHealth(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.providers, lambda page: page.next_page_token)

    async def get_provider_health(
        self, provider_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> ProviderHealth:
        """Returns the health of one enabled provider.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        provider_id: UUID of the provider, from the path.
        """
        request = GetProviderHealthRequest(provider_id=provider_id)
        return await self.GetProviderHealth(request, timeout=timeout, metadata=headers)
