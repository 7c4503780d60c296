"""The doors of BYOK: ByokService for users, CredentialService for the services that call providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llmrouter.v2 import (
    byok_pb2,
    byok_service_pb2,
    byok_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    usage_pb2,
)
from llmrouter_server.byok.cipher import read_credential
from llmrouter_server.byok.verification import Verdict
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import current_caller, mark_created
from llmrouter_server.runtime.messages import struct, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.byok.cipher import Cipher
    from llmrouter_server.byok.credentials import Credentials
    from llmrouter_server.byok.store import KeyStore, ProviderKey
    from llmrouter_server.byok.verification import KeyVerifier
    from llmrouter_server.runtime.interceptor import Context

MAX_METADATA_BYTES = 4096
PAYERS = {"USER_KEY": usage_pb2.PAYER_USER_KEY, "PLATFORM": usage_pb2.PAYER_PLATFORM}
VERDICTS = {
    Verdict.WORKS: byok_service_pb2.KEY_VERDICT_WORKS,
    Verdict.REFUSED: byok_service_pb2.KEY_VERDICT_REFUSED,
    Verdict.UNREACHABLE: byok_service_pb2.KEY_VERDICT_UNREACHABLE,
}


class ByokService(byok_service_pb2_grpc.ByokServiceServicer):
    """The caller's own provider keys. `changed` is told the user after each write, before it is answered."""

    def __init__(self, store: KeyStore, cipher: Cipher, verifier: KeyVerifier, changed: Callable[[UUID], None]) -> None:
        self._store, self._cipher, self._verifier, self._changed = store, cipher, verifier, changed

    async def StoreKey(self, request: byok_service_pb2.StoreKeyRequest, context: Context) -> byok_pb2.ProviderKey:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        credential = read_credential(fields, "api_key", request.api_key)
        metadata = fields.json_object("metadata", request.metadata, most_bytes=MAX_METADATA_BYTES)
        fields.done()
        user_id = current_caller().user_id
        await self._store.take_write(user_id)
        key, is_new = await self._store.store(
            user_id=user_id,
            provider_id=provider_id,
            ciphertext=self._cipher.encrypt(credential, user_id=user_id, provider_id=provider_id),
            prefix=credential.prefix,
            metadata=metadata,
        )
        self._changed(user_id)
        if is_new:
            await mark_created(context)
        return _key(key)

    async def ListKeys(
        self, request: byok_service_pb2.ListKeysRequest, _context: Context
    ) -> byok_service_pb2.ListKeysResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        after = cast("tuple[str] | None", fields.page_token(request.page_token, str))
        fields.done()
        found = await self._store.list(current_caller().user_id, after=after[0] if after else None, limit=size + 1)
        page = found[:size]
        return byok_service_pb2.ListKeysResponse(
            keys=[_key(key) for key in page],
            next_page_token=next_page_token(page[-1].provider_name) if len(found) > size else "",
        )

    async def UpdateKey(self, request: byok_service_pb2.UpdateKeyRequest, _context: Context) -> byok_pb2.ProviderKey:
        fields = Fields()
        key_id = fields.uuid("key_id", request.key_id)
        is_active = request.is_active if request.HasField("is_active") else None
        metadata = (
            fields.json_object("metadata", request.metadata, most_bytes=MAX_METADATA_BYTES)
            if request.HasField("metadata")
            else None
        )
        fields.done()
        user_id = current_caller().user_id
        await self._store.take_write(user_id)
        key = await self._store.update(user_id, key_id, is_active=is_active, metadata=metadata)
        self._changed(user_id)
        return _key(key)

    async def VerifyKey(
        self, request: byok_service_pb2.VerifyKeyRequest, _context: Context
    ) -> byok_service_pb2.VerifyKeyResponse:
        fields = Fields()
        key_id = fields.uuid("key_id", request.key_id)
        fields.done()
        user_id = current_caller().user_id
        await self._store.take_write(user_id)
        verification = await self._verifier.verify(user_id, key_id)
        if verification.is_news:
            self._changed(user_id)
        return byok_service_pb2.VerifyKeyResponse(
            verdict=VERDICTS[verification.verdict],
            message=verification.message,
            latency_ms=verification.latency_ms,
        )

    async def DeleteKey(
        self, request: byok_service_pb2.DeleteKeyRequest, _context: Context
    ) -> byok_service_pb2.DeleteKeyResponse:
        fields = Fields()
        key_id = fields.uuid("key_id", request.key_id)
        fields.done()
        user_id = current_caller().user_id
        await self._store.take_write(user_id)
        await self._store.delete(user_id, key_id)
        self._changed(user_id)
        return byok_service_pb2.DeleteKeyResponse()


class CredentialService(credential_service_pb2_grpc.CredentialServiceServicer):
    """Plaintext keys, for services; each reading is in the audit before it is answered."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def GetCredential(
        self, request: credential_service_pb2.GetCredentialRequest, _context: Context
    ) -> credential_service_pb2.GetCredentialResponse:
        fields = Fields()
        user_id = fields.uuid("user_id", request.user_id)
        provider_id = fields.uuid("provider_id", request.provider_id)
        decision_id = fields.optional_uuid("decision_id", request.decision_id)
        fields.done()
        opened = await self._credentials.for_user(
            user_id,
            provider_id,
            reader_id=current_caller().user_id,
            purpose="credential",
            decision_id=decision_id,
        )
        sealed = opened.sealed
        return credential_service_pb2.GetCredentialResponse(
            api_key=opened.credential.reveal(),
            payer=PAYERS[sealed.payer],
            key_id=str(sealed.key_id) if sealed.key_id is not None else "",
            api_endpoint=sealed.api_endpoint,
        )


def _key(key: ProviderKey) -> byok_pb2.ProviderKey:
    return byok_pb2.ProviderKey(
        key_id=str(key.id),
        provider_id=str(key.provider_id),
        provider_name=key.provider_name,
        key_prefix=key.key_prefix,
        is_active=key.is_active,
        metadata=struct(key.metadata),
        created_at=timestamp(key.created_at),
        updated_at=timestamp(key.updated_at),
        refused_at=timestamp(key.refused_at) if key.refused_at is not None else None,
    )
