"""The door of the audit: AuditService."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

from llmrouter.v2 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc, usage_pb2
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import current_caller
from llmrouter_server.runtime.messages import struct, timestamp

if TYPE_CHECKING:
    from llmrouter_server.audit.changes import AdminChange, AdminChangeStore
    from llmrouter_server.audit.store import KeyReadStore, ListedRead
    from llmrouter_server.runtime.interceptor import Context

PAYERS = {"USER_KEY": usage_pb2.PAYER_USER_KEY, "PLATFORM": usage_pb2.PAYER_PLATFORM}


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """Who did what: to users' keys, for each about their own; to the catalogue, for admins."""

    def __init__(self, reads: KeyReadStore, changes: AdminChangeStore) -> None:
        self._reads, self._changes = reads, changes

    async def ListKeyReads(
        self, request: audit_service_pb2.ListKeyReadsRequest, _context: Context
    ) -> audit_service_pb2.ListKeyReadsResponse:
        fields = Fields()
        key_id = fields.optional_uuid("key_id", request.key_id)
        size = fields.page_size(request.page_size)
        after = _after_read(fields, request.page_token)
        fields.done()
        found = await self._reads.list(current_caller().user_id, key_id=key_id, after=after, limit=size + 1)
        page = found[:size]
        more = len(found) > size
        return audit_service_pb2.ListKeyReadsResponse(
            reads=[_key_read(each) for each in page],
            next_page_token=next_page_token(page[-1].month.isoformat(), page[-1].sequence) if more else "",
        )

    async def ListAdminChanges(
        self, request: audit_service_pb2.ListAdminChangesRequest, _context: Context
    ) -> audit_service_pb2.ListAdminChangesResponse:
        fields = Fields()
        resource_id = fields.optional_uuid("resource_id", request.resource_id)
        admin_id = fields.optional_uuid("admin_id", request.admin_id)
        size = fields.page_size(request.page_size)
        after = _after_change(fields, request.page_token)
        fields.done()
        found = await self._changes.list(resource_id=resource_id, admin_id=admin_id, after=after, limit=size + 1)
        page = found[:size]
        return audit_service_pb2.ListAdminChangesResponse(
            changes=[_change(change) for change in page],
            next_page_token=next_page_token(str(page[-1].id)) if len(found) > size else "",
        )


def _after_read(fields: Fields, token: str) -> tuple[date, int] | None:
    match fields.page_token(token, str, int):
        case (str(month), int(sequence)):
            try:
                return date.fromisoformat(month), sequence
            except ValueError:
                fields.wrong("page_token", "is not one that this list returned")
    return None


def _after_change(fields: Fields, token: str) -> UUID | None:
    match fields.page_token(token, str):
        case (str(change_id),):
            try:
                return UUID(change_id)
            except ValueError:
                fields.wrong("page_token", "is not one that this list returned")
    return None


def _key_read(listed: ListedRead) -> audit_pb2.KeyRead:
    read = listed.read
    return audit_pb2.KeyRead(
        read_at=timestamp(read.read_at),
        provider_id=str(read.provider_id),
        provider_name=listed.provider_name,
        key_id=str(read.key_id) if read.key_id is not None else "",
        payer=PAYERS[read.payer],
        reader_id=str(read.reader_id),
        purpose=read.purpose,
        decision_id=str(read.decision_id) if read.decision_id is not None else "",
    )


def _change(change: AdminChange) -> audit_pb2.AdminChange:
    return audit_pb2.AdminChange(
        change_id=str(change.id),
        changed_at=timestamp(change.changed_at),
        admin_id=str(change.admin_id),
        resource=change.resource,
        resource_id=str(change.resource_id),
        action=change.action,
        before=struct(change.before),
        after=struct(change.after),
    )
