"""AuditService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.audit_service_pb2 import (
    ListAdminChangesRequest,
    ListAdminChangesResponse,
    ListKeyReadsRequest,
    ListKeyReadsResponse,
)

if TYPE_CHECKING:
    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers
    from llmrouter.v2.audit_pb2 import AdminChange, KeyRead

_SERVICE = "/llmrouter.v2.AuditService/"


class AuditService:
    """Who did what.

    Every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.ListKeyReads = channel.unary(_SERVICE + "ListKeyReads", ListKeyReadsRequest, ListKeyReadsResponse)
        """As list_key_reads, with the messages of the protos."""
        self.ListAdminChanges = channel.unary(
            _SERVICE + "ListAdminChanges", ListAdminChangesRequest, ListAdminChangesResponse
        )
        """As list_admin_changes, with the messages of the protos."""

    def list_key_reads(
        self,
        *,
        key_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[KeyRead, ListKeyReadsResponse]:
        """Lists when the caller's own keys (and platform keys on the caller's behalf) were read, newest first.

        For every user, about themselves.

        Errors: INVALID_FIELD.

        key_id: Only readings of this key, a UUID. Default: all.
        page_size: The most rows in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListKeyReadsResponse:
            request = ListKeyReadsRequest(key_id=key_id, page_size=page_size, page_token=token)
            return self.ListKeyReads(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.reads, lambda page: page.next_page_token)

    def list_admin_changes(
        self,
        *,
        resource_id: str = "",
        admin_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[AdminChange, ListAdminChangesResponse]:
        """Lists what admins changed in the catalogue and its routing rules, newest first.

        Needs the role admin.

        Errors: INVALID_FIELD.

        resource_id: Only changes of this thing, a UUID. Default: all.
        admin_id: Only changes by this admin, a UUID. Default: all.
        page_size: The most changes in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListAdminChangesResponse:
            request = ListAdminChangesRequest(
                resource_id=resource_id, admin_id=admin_id, page_size=page_size, page_token=token
            )
            return self.ListAdminChanges(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.changes, lambda page: page.next_page_token)


class AsyncAuditService:
    """Who did what.

    Every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.ListKeyReads = channel.unary(_SERVICE + "ListKeyReads", ListKeyReadsRequest, ListKeyReadsResponse)
        """As list_key_reads, with the messages of the protos."""
        self.ListAdminChanges = channel.unary(
            _SERVICE + "ListAdminChanges", ListAdminChangesRequest, ListAdminChangesResponse
        )
        """As list_admin_changes, with the messages of the protos."""

    def list_key_reads(
        self,
        *,
        key_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[KeyRead, ListKeyReadsResponse]:
        """Lists when the caller's own keys (and platform keys on the caller's behalf) were read, newest first.

        For every user, about themselves.

        Errors: INVALID_FIELD.

        key_id: Only readings of this key, a UUID. Default: all.
        page_size: The most rows in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListKeyReadsResponse:
            request = ListKeyReadsRequest(key_id=key_id, page_size=page_size, page_token=token)
            return await self.ListKeyReads(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.reads, lambda page: page.next_page_token)

    def list_admin_changes(
        self,
        *,
        resource_id: str = "",
        admin_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[AdminChange, ListAdminChangesResponse]:
        """Lists what admins changed in the catalogue and its routing rules, newest first.

        Needs the role admin.

        Errors: INVALID_FIELD.

        resource_id: Only changes of this thing, a UUID. Default: all.
        admin_id: Only changes by this admin, a UUID. Default: all.
        page_size: The most changes in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListAdminChangesResponse:
            request = ListAdminChangesRequest(
                resource_id=resource_id, admin_id=admin_id, page_size=page_size, page_token=token
            )
            return await self.ListAdminChanges(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.changes, lambda page: page.next_page_token)
