"""The door of BYOK: ByokService."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from llmrouter.v2 import byok_pb2, byok_service_pb2, byok_service_pb2_grpc
from llmrouter_server.byok.cipher import Credential
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import current_caller, mark_created
from llmrouter_server.runtime.messages import struct, timestamp

if TYPE_CHECKING:
    from llmrouter_server.byok.cipher import Cipher
    from llmrouter_server.byok.store import KeyStore, ProviderKey
    from llmrouter_server.runtime.interceptor import Context

MAX_METADATA_BYTES = 4096
API_KEY = re.compile(r"[\x21-\x7e]{16,512}")


class ByokService(byok_service_pb2_grpc.ByokServiceServicer):
    """The caller's own provider keys."""

    def __init__(self, store: KeyStore, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    async def StoreKey(self, request: byok_service_pb2.StoreKeyRequest, context: Context) -> byok_pb2.ProviderKey:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        credential = Credential(request.api_key.strip())
        if not API_KEY.fullmatch(credential.reveal()):
            fields.wrong("api_key", "must be 16 to 512 printable ASCII characters without spaces")
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

    async def DeleteKey(
        self, request: byok_service_pb2.DeleteKeyRequest, _context: Context
    ) -> byok_service_pb2.DeleteKeyResponse:
        fields = Fields()
        key_id = fields.uuid("key_id", request.key_id)
        fields.done()
        user_id = current_caller().user_id
        await self._store.take_write(user_id)
        await self._store.delete(user_id, key_id)
        return byok_service_pb2.DeleteKeyResponse()


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
    )
