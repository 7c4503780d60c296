from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from custody import NOT_TO_BE_SEEN, Custody, StubContext, calling, custody
from llmrouter.v2.audit_service_pb2 import ListAdminChangesRequest, ListKeyReadsRequest
from llmrouter.v2.usage_pb2 import PAYER_PLATFORM, PAYER_USER_KEY
from llmrouter_server.audit.changes import AdminChangeStore
from llmrouter_server.audit.service import AuditService
from llmrouter_server.audit.store import KeyReadStore
from llmrouter_server.byok.cipher import Credential
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.auth import Role
from llmrouter_server.runtime.fields import next_page_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter.v2.audit_pb2 import AdminChange, KeyRead
    from llmrouter_server.runtime.database import Database

PLATFORM_KEY = Credential("sk-p01-canary-0123456789")


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


@pytest.fixture
def service(database: Database) -> AuditService:
    return AuditService(KeyReadStore(database), AdminChangeStore(database))


async def key_reads(service: AuditService, user: uuid.UUID, *, key_id: str = "", size: int = 0) -> list[KeyRead]:
    """Return all pages."""
    found, token = [], ""
    with calling(user):
        while True:
            request = ListKeyReadsRequest(key_id=key_id, page_size=size, page_token=token)
            answer = await service.ListKeyReads(request, StubContext())
            found += answer.reads
            token = answer.next_page_token
            if not token:
                return found
            assert len(answer.reads) == size


async def admin_changes(
    service: AuditService, *, resource: str = "", admin: str = "", size: int = 0
) -> list[AdminChange]:
    """Return all pages."""
    found, token = [], ""
    with calling(uuid.uuid4(), Role.ADMIN):
        while True:
            request = ListAdminChangesRequest(resource_id=resource, admin_id=admin, page_size=size, page_token=token)
            answer = await service.ListAdminChanges(request, StubContext())
            found += answer.changes
            token = answer.next_page_token
            if not token:
                return found
            assert len(answer.changes) == size


async def test_a_user_sees_who_read_which_key_and_why(keeper: Custody, service: AuditService) -> None:
    user, reader, decision = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    own, free = await keeper.provider(), await keeper.provider(requires_byok=False)
    key_id = await keeper.store(user, own)
    await keeper.platform.set(free, PLATFORM_KEY, admin_id=uuid.uuid4())
    began = datetime.now(UTC)
    await keeper.credentials.for_user(user, own, reader_id=reader, purpose="credential", decision_id=decision)
    await keeper.credentials.for_user(user, free, reader_id=reader, purpose="gateway")
    platform, mine = await key_reads(service, user)
    assert (mine.provider_id, mine.key_id, mine.payer) == (str(own), str(key_id), PAYER_USER_KEY)
    assert (mine.reader_id, mine.purpose, mine.decision_id) == (str(reader), "credential", str(decision))
    assert began <= mine.read_at.ToDatetime(UTC) <= platform.read_at.ToDatetime(UTC) <= datetime.now(UTC)
    assert mine.provider_name.startswith("test ")
    assert (platform.key_id, platform.payer, platform.decision_id) == ("", PAYER_PLATFORM, "")
    assert await key_reads(service, user, key_id=str(key_id)) == [mine]
    assert await key_reads(service, reader) == []


async def test_a_reading_outlives_its_key(keeper: Custody, service: AuditService) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    key_id = await keeper.store(user, provider)
    await keeper.credentials.for_user(user, provider, reader_id=user, purpose="credential")
    await keeper.keys.delete(user, key_id)
    (read,) = await key_reads(service, user)
    assert read.key_id == str(key_id)


async def test_pages_of_readings_hold_each_once(keeper: Custody, service: AuditService) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    await keeper.store(user, provider)
    decisions = [uuid.uuid4() for _ in range(7)]
    for decision in decisions:
        await keeper.credentials.for_user(user, provider, reader_id=user, purpose="gateway", decision_id=decision)
    for size in (1, 3, 7, 100):
        found = await key_reads(service, user, size=size)
        assert [read.decision_id for read in found] == [str(decision) for decision in reversed(decisions)]


async def test_admins_see_what_admins_changed(keeper: Custody, service: AuditService) -> None:
    one, other, admin = await keeper.provider(), await keeper.provider(), uuid.uuid4()
    for provider, by in ((one, admin), (other, admin), (one, uuid.uuid4())):
        await keeper.platform.set(provider, PLATFORM_KEY, admin_id=by)
    await keeper.platform.delete(one, admin_id=admin)
    for size in (1, 2, 0):
        of_one = await admin_changes(service, resource=str(one), size=size)
        assert [change.action for change in of_one] == ["delete", "update", "create"]
        by_admin = await admin_changes(service, admin=str(admin), size=size)
        assert [change.resource_id for change in by_admin] == [str(one), str(other), str(one)]
    erased = of_one[0]
    assert (erased.admin_id, erased.resource) == (str(admin), "platform_key")
    assert (dict(erased.before), dict(erased.after)) == (
        {"is_set": True, "key_prefix": "sk-p01"},
        {"is_set": False},
    )
    assert [change.action for change in await admin_changes(service, resource=str(one), admin=str(admin))] == [
        "delete",
        "create",
    ]
    assert NOT_TO_BE_SEEN not in str(of_one)


@pytest.mark.parametrize(
    "token", ["x", next_page_token("2026-13-01", 1), next_page_token("2026-11-01"), next_page_token(1, 2)]
)
async def test_a_token_of_another_list_of_readings_is_refused(service: AuditService, token: str) -> None:
    with calling(uuid.uuid4()), pytest.raises(DomainError, match="page_token: is not one that this list returned"):
        await service.ListKeyReads(ListKeyReadsRequest(page_token=token), StubContext())


@pytest.mark.parametrize("token", ["x", next_page_token("x"), next_page_token(str(uuid.UUID(int=7)), 1)])
async def test_a_token_of_another_list_of_changes_is_refused(service: AuditService, token: str) -> None:
    with calling(uuid.uuid4()), pytest.raises(DomainError, match="page_token: is not one that this list returned"):
        await service.ListAdminChanges(ListAdminChangesRequest(page_token=token), StubContext())


async def test_wrong_fields_are_all_told(service: AuditService) -> None:
    of_reads = ListKeyReadsRequest(key_id="x", page_size=501)
    of_changes = ListAdminChangesRequest(resource_id="x", admin_id="y", page_size=501)
    with calling(uuid.uuid4()):
        with pytest.raises(DomainError) as reads:
            await service.ListKeyReads(of_reads, StubContext())
        with pytest.raises(DomainError) as changes:
            await service.ListAdminChanges(of_changes, StubContext())
    assert [each.field for each in reads.value.violations] == ["key_id", "page_size"]
    assert [each.field for each in changes.value.violations] == ["resource_id", "admin_id", "page_size"]
