"""Opens keys for those who may have them, and lets nobody have one before its reading is in the audit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.audit.key_reads import KeyRead
from llmrouter_server.byok.cipher import DecryptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.audit.key_reads import Purpose
    from llmrouter_server.audit.log import AuditLog
    from llmrouter_server.byok.cipher import Cipher, Credential
    from llmrouter_server.byok.store import KeyStore, SealedKey

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A key in plaintext, with the key it was opened from."""

    credential: Credential
    sealed: SealedKey


class Credentials:
    """The one place where stored keys are decrypted to be used."""

    def __init__(self, keys: KeyStore, cipher: Cipher, audit: AuditLog, now: Callable[[], datetime]) -> None:
        self._keys, self._cipher, self._audit, self._now = keys, cipher, audit, now

    async def for_user(
        self, user_id: UUID, provider_id: UUID, *, reader_id: UUID, purpose: Purpose, decision_id: UUID | None = None
    ) -> OpenedKey:
        """Return the key to use for a user at a provider: their own active one, else the platform's.

        A key that does not decrypt is INTERNAL, never passed over: who pays does not change silently. Other errors:
        RESOURCE_NOT_FOUND: no such provider, it is disabled, or there is neither key; UNAVAILABLE: not audited.
        """
        sealed = await self._keys.find_usable(user_id, provider_id)
        credential = await self.open(
            sealed, user_id=user_id, reader_id=reader_id, purpose=purpose, decision_id=decision_id
        )
        return OpenedKey(credential, sealed)

    async def open(
        self, key: SealedKey, *, user_id: UUID, reader_id: UUID, purpose: Purpose, decision_id: UUID | None = None
    ) -> Credential:
        """Decrypt a key on a user's behalf; INTERNAL when it does not decrypt, UNAVAILABLE when not audited."""
        opened, read = self.unlock(key, user_id=user_id, reader_id=reader_id, purpose=purpose, decision_id=decision_id)
        await self._audit.record(read)
        return opened.credential

    def unlock(
        self, key: SealedKey, *, user_id: UUID, reader_id: UUID, purpose: Purpose, decision_id: UUID | None = None
    ) -> tuple[OpenedKey, KeyRead]:
        """Decrypt a key on a user's behalf, for a caller that commits the reading before anybody gets the key.

        INTERNAL when it does not decrypt.
        """
        credential = self._decrypt(key, user_id)
        read = KeyRead(
            read_at=self._now(),
            user_id=user_id,
            provider_id=key.provider_id,
            key_id=key.key_id,
            payer=key.payer,
            reader_id=reader_id,
            purpose=purpose,
            decision_id=decision_id,
        )
        return OpenedKey(credential, key), read

    def _decrypt(self, key: SealedKey, user_id: UUID) -> Credential:
        try:
            return self._cipher.decrypt(key.ciphertext, user_id=key.user_id, provider_id=key.provider_id)
        except DecryptionError as error:
            log.error(  # noqa: TRY400 - the sentence says it all
                "a stored key cannot be used",
                extra={
                    "error": str(error),
                    "key_id": str(key.key_id) if key.key_id is not None else None,
                    "provider_id": str(key.provider_id),
                    "user_id": str(user_id),
                },
            )
            raise errors.internal() from None
