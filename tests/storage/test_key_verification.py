from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from custody import CANARY, NOT_TO_BE_SEEN, Custody, StubContext, calling, custody
from hostile_provider import answer, echo, hostile_provider, send, send_and_hang
from llmrouter.v2 import byok_service_pb2
from llmrouter.v2.byok_service_pb2 import VerifyKeyRequest, VerifyKeyResponse
from llmrouter_server.errors import DomainError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from hostile_provider import Behaviour
    from llmrouter_server.runtime.database import Database

WORKS = byok_service_pb2.KEY_VERDICT_WORKS
REFUSED = byok_service_pb2.KEY_VERDICT_REFUSED
UNREACHABLE = byok_service_pb2.KEY_VERDICT_UNREACHABLE
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


async def verify(keeper: Custody, user: uuid.UUID, key_id: uuid.UUID) -> VerifyKeyResponse:
    with calling(user):
        return await keeper.byok.VerifyKey(VerifyKeyRequest(key_id=str(key_id)), StubContext())


async def refused_at(keeper: Custody, key_id: uuid.UUID) -> datetime | None:
    async with keeper.database.connection() as connection:
        return await connection.fetchval("select refused_at from user_provider_keys where id = $1", key_id)


async def refuse_long_ago(keeper: Custody, key_id: uuid.UUID) -> None:
    await keeper.execute("update user_provider_keys set refused_at = $2 where id = $1", key_id, LONG_AGO)


@pytest.mark.parametrize(
    ("behaviour", "verdict", "message"),
    [
        (answer("200 OK"), WORKS, "the provider took the key"),
        (answer("401 Unauthorized"), REFUSED, "the provider refused the key"),
        (answer("403 Forbidden"), REFUSED, "the provider refused the key"),
        (echo, REFUSED, "the provider refused the key"),
        (answer("204 No Content"), UNREACHABLE, "the provider's answer says nothing of the key"),
        (answer("302 Found", "location: http://127.0.0.1/"), UNREACHABLE, "the provider sends elsewhere"),
        (answer("404 Not Found"), UNREACHABLE, "the provider's answer says nothing of the key"),
        (answer("429 Too Many Requests"), UNREACHABLE, "the provider is taking no more requests for now"),
        (answer("500 Oops"), UNREACHABLE, "the provider has a fault of its own"),
        (send(b"garbage\r\n\r\n"), UNREACHABLE, "the provider's answer was not understood"),
    ],
)
async def test_the_verdict_is_the_status_in_our_words(
    keeper: Custody, behaviour: Behaviour, verdict: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    user = uuid.uuid4()
    async with hostile_provider(behaviour) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=f"{provider.url}/"))
        response = await verify(keeper, user, key_id)
    assert provider.requests[0].startswith("GET /v1/models HTTP/1.1\r\n")
    assert CANARY in provider.requests[0]
    assert response.verdict == verdict
    assert response.message.startswith(message)
    assert NOT_TO_BE_SEEN not in f"{response} {caplog.text}"


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [(answer("200 OK"), None), (answer("401 No"), "now"), (answer("500 Oops"), LONG_AGO)],
)
async def test_a_refusal_is_remembered_and_forgotten(
    keeper: Custody, behaviour: Behaviour, expected: datetime | str | None
) -> None:
    user = uuid.uuid4()
    async with hostile_provider(behaviour) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        await refuse_long_ago(keeper, key_id)
        await verify(keeper, user, key_id)
    marked = await refused_at(keeper, key_id)
    if expected == "now":
        assert marked is not None
        assert datetime.now(UTC) - marked < timedelta(minutes=1)
    else:
        assert marked == expected
    assert keeper.changed == ([] if expected == LONG_AGO else [user])


async def test_a_key_that_works_as_before_is_no_news(keeper: Custody) -> None:
    user = uuid.uuid4()
    async with hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        assert (await verify(keeper, user, key_id)).verdict == WORKS
    assert keeper.changed == []


async def test_the_verdict_on_a_key_that_was_replaced_meanwhile_marks_nothing(keeper: Custody) -> None:
    user = uuid.uuid4()

    async def replace(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        await keeper.store(user, provider_id, "another-key-0123456789")
        writer.write(b"HTTP/1.1 401 No\r\n\r\n")

    async with hostile_provider(replace) as provider:
        provider_id = await keeper.provider(endpoint=provider.url)
        key_id = await keeper.store(user, provider_id)
        assert (await verify(keeper, user, key_id)).verdict == REFUSED
    assert await refused_at(keeper, key_id) is None
    assert keeper.changed == []


async def test_trying_a_key_is_in_the_audit_before_the_key_leaves(keeper: Custody) -> None:
    user, seen = uuid.uuid4(), []

    async def look(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        seen.extend(await keeper.reads(user))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with hostile_provider(look) as provider:
        provider_id = await keeper.provider(endpoint=provider.url)
        key_id = await keeper.store(user, provider_id)
        await verify(keeper, user, key_id)
    (read,) = seen
    assert (read["key_id"], read["provider_id"]) == (key_id, provider_id)
    assert (read["payer"], read["reader_id"], read["purpose"]) == ("USER_KEY", user, "verify")


async def test_an_inactive_key_can_be_tried(keeper: Custody) -> None:
    user = uuid.uuid4()
    async with hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        await keeper.execute("update user_provider_keys set is_active = false where id = $1", key_id)
        assert (await verify(keeper, user, key_id)).verdict == WORKS


async def test_a_disabled_provider_is_sent_nothing(keeper: Custody) -> None:
    user = uuid.uuid4()
    async with hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url, is_enabled=False))
        response = await verify(keeper, user, key_id)
    assert (response.verdict, response.latency_ms) == (UNREACHABLE, 0)
    assert response.message == "the provider is disabled here, so it was not asked"
    assert provider.connections == 0
    assert await keeper.reads(user) == []


async def test_anthropic_is_asked_its_own_way(keeper: Custody) -> None:
    user = uuid.uuid4()
    async with hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url, provider_type="anthropic"))
        await verify(keeper, user, key_id)
    assert (provider.headers["x-api-key"], provider.headers["anthropic-version"]) == (CANARY, "2023-06-01")
    assert "authorization" not in provider.headers


async def test_a_provider_that_hangs_is_given_up(database: Database) -> None:
    user = uuid.uuid4()
    async with custody(database, total_s=0.3) as keeper, hostile_provider(send_and_hang(b"HTTP/1.1 ")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        response = await verify(keeper, user, key_id)
    assert (response.verdict, response.message) == (UNREACHABLE, "the provider did not answer in time")
    assert response.latency_ms > 0


async def test_a_private_address_is_sent_nothing_unless_it_is_allowed(database: Database) -> None:
    user = uuid.uuid4()
    async with custody(database, allow_private=False) as keeper, hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        response = await verify(keeper, user, key_id)
    assert response.verdict == UNREACHABLE
    assert response.message == "the provider's address is private, and keys are not sent there"
    assert provider.connections == 0


async def test_a_key_that_does_not_decrypt_is_our_fault(keeper: Custody) -> None:
    user = uuid.uuid4()
    async with hostile_provider(answer("200 OK")) as provider:
        key_id = await keeper.store(user, await keeper.provider(endpoint=provider.url))
        await keeper.execute("update user_provider_keys set encrypted_api_key = 'spoiled' where id = $1", key_id)
        with pytest.raises(DomainError, match="internal error"):
            await verify(keeper, user, key_id)
    assert provider.connections == 0
