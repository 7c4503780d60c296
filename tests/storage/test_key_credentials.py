from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import prometheus_client
import pytest
from cryptography.fernet import Fernet

from custody import CANARY, NOT_TO_BE_SEEN, Custody, StubContext, calling, custody
from llmrouter.v2.credential_service_pb2 import GetCredentialRequest, GetCredentialResponse
from llmrouter.v2.usage_pb2 import PAYER_PLATFORM, PAYER_USER_KEY
from llmrouter_server import errors
from llmrouter_server.byok.cipher import Cipher, Credential
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.auth import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.database import Database

PLATFORM_KEY = "sk-platform-canary-0123456789"


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


async def get(
    keeper: Custody, user: uuid.UUID, provider: uuid.UUID, *, service: uuid.UUID | None = None, decision: str = ""
) -> GetCredentialResponse:
    request = GetCredentialRequest(user_id=str(user), provider_id=str(provider), decision_id=decision)
    with calling(service or uuid.uuid4(), Role.SERVICE):
        return await keeper.service.GetCredential(request, StubContext())


async def refusal(keeper: Custody, user: uuid.UUID, provider: uuid.UUID) -> DomainError:
    with pytest.raises(DomainError) as error:
        await get(keeper, user, provider)
    return error.value


def counted(purpose: str, payer: str) -> float:
    labels = {"purpose": purpose, "payer": payer}
    return prometheus_client.REGISTRY.get_sample_value("llmrouter_key_reads_total", labels) or 0


async def test_the_users_own_key_goes_first(keeper: Custody) -> None:
    user, service, decision = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    provider = await keeper.provider(requires_byok=False, endpoint="https://own.example.com/v1")
    await keeper.platform.set(provider, Credential(PLATFORM_KEY), admin_id=uuid.uuid4())
    key_id = await keeper.store(user, provider)
    before = counted("credential", "USER_KEY")
    answer = await get(keeper, user, provider, service=service, decision=str(decision))
    assert answer == GetCredentialResponse(
        api_key=CANARY, payer=PAYER_USER_KEY, key_id=str(key_id), api_endpoint="https://own.example.com/v1"
    )
    (read,) = await keeper.reads(user)
    assert (read["key_id"], read["provider_id"], read["payer"]) == (key_id, provider, "USER_KEY")
    assert (read["reader_id"], read["purpose"], read["decision_id"]) == (service, "credential", decision)
    assert counted("credential", "USER_KEY") == before + 1


async def test_without_a_key_of_their_own_the_platform_pays_where_it_may(keeper: Custody) -> None:
    user = uuid.uuid4()
    free, byok = await keeper.provider(requires_byok=False), await keeper.provider(requires_byok=True)
    for provider in (free, byok):
        await keeper.platform.set(provider, Credential(PLATFORM_KEY), admin_id=uuid.uuid4())
    answer = await get(keeper, user, free)
    assert (answer.api_key, answer.payer, answer.key_id) == (PLATFORM_KEY, PAYER_PLATFORM, "")
    (read,) = await keeper.reads(user)
    assert (read["key_id"], read["payer"], read["decision_id"]) == (None, "PLATFORM", None)
    assert (await refusal(keeper, user, byok)).metadata == {"resource": "key"}


async def test_an_inactive_key_is_not_returned_but_a_refused_one_is(keeper: Custody) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    key_id = await keeper.store(user, provider)
    await keeper.keys.mark_tried(await keeper.keys.find(user, key_id), keeper.credentials._now())
    assert (await get(keeper, user, provider)).api_key == CANARY
    await keeper.keys.update(user, key_id, is_active=False, metadata=None)
    assert (await refusal(keeper, user, provider)).metadata == {"resource": "key"}


async def test_there_is_no_key_of_a_provider_that_is_unknown_or_disabled(keeper: Custody) -> None:
    user, disabled = uuid.uuid4(), await keeper.provider(is_enabled=False)
    await keeper.store(user, disabled)
    for provider in (uuid.uuid4(), disabled):
        assert (await refusal(keeper, user, provider)).metadata == {"resource": "provider"}
    assert await keeper.reads(user) == []


async def test_another_users_key_is_not_there(keeper: Custody) -> None:
    owner, provider = uuid.uuid4(), await keeper.provider()
    await keeper.store(owner, provider)
    assert (await refusal(keeper, uuid.uuid4(), provider)).reason == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("failure", [errors.unavailable(), RuntimeError("disk full"), ValueError("odd")])
async def test_a_key_that_cannot_be_audited_is_not_given(
    keeper: Custody, failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    await keeper.store(user, provider)

    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(keeper.audit._store, "append", fail)
    before = counted("credential", "USER_KEY")
    error = await refusal(keeper, user, provider)
    assert (error.reason, counted("credential", "USER_KEY")) == ("UNAVAILABLE", before)
    assert NOT_TO_BE_SEEN not in f"{error!r} {caplog.text}"


async def test_the_answer_waits_for_the_commit(keeper: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    await keeper.store(user, provider)
    order: list[str] = []
    really_append = keeper.audit._store.append

    async def append(*reads: object) -> None:
        await really_append(*reads)
        order.append(f"{len(await keeper.reads(user))} committed")

    monkeypatch.setattr(keeper.audit._store, "append", append)
    await get(keeper, user, provider)
    order.append("answered")
    assert order == ["1 committed", "answered"]


@pytest.mark.parametrize("spoil", ["not a token", "another user's", "another encryption key's"])
async def test_a_key_that_does_not_decrypt_is_our_fault_and_never_passed_over(
    keeper: Custody, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    user, provider = uuid.uuid4(), await keeper.provider(requires_byok=False)
    await keeper.platform.set(provider, Credential(PLATFORM_KEY), admin_id=uuid.uuid4())
    key_id = await keeper.store(user, provider)
    ciphertext = {
        "not a token": "gAAAAAspoiled",
        "another user's": keeper.cipher.encrypt(Credential(CANARY), user_id=provider, provider_id=provider),
        "another encryption key's": Cipher([Fernet.generate_key().decode()]).encrypt(
            Credential(CANARY), user_id=user, provider_id=provider
        ),
    }[spoil]
    await keeper.execute("update user_provider_keys set encrypted_api_key = $2 where id = $1", key_id, ciphertext)
    caplog.set_level(logging.DEBUG)
    error = await refusal(keeper, user, provider)
    assert error.reason == "INTERNAL"
    (record,) = [record for record in caplog.records if record.name == "llmrouter_server.byok.credentials"]
    assert vars(record)["key_id"] == str(key_id)
    for told in (str(vars(record)), caplog.text, f"{error!r}"):
        assert ciphertext not in told
        assert NOT_TO_BE_SEEN not in told
    assert await keeper.reads(user) == []


async def test_wrong_fields_are_all_told(keeper: Custody) -> None:
    with calling(uuid.uuid4(), Role.SERVICE), pytest.raises(DomainError) as error:
        await keeper.service.GetCredential(
            GetCredentialRequest(user_id="x", provider_id="", decision_id="y"), StubContext()
        )
    assert [each.field for each in error.value.violations] == ["user_id", "provider_id", "decision_id"]


async def test_neither_a_sealed_nor_an_opened_key_shows_itself(keeper: Custody) -> None:
    user, provider = uuid.uuid4(), await keeper.provider()
    key_id = await keeper.store(user, provider)
    sealed = await keeper.keys.find(user, key_id)
    opened = await keeper.credentials.for_user(user, provider, reader_id=user, purpose="gateway")
    assert opened.credential.reveal() == CANARY
    assert (opened.sealed, opened.sealed.payer) == (sealed, "USER_KEY")
    assert NOT_TO_BE_SEEN not in f"{opened} {opened!r}"
    assert sealed.ciphertext not in f"{opened} {opened!r}"
