"""The operator's own keys, one for each provider at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.audit.changes import Change, record_change
from llmrouter_server.byok import store
from llmrouter_server.byok.cipher import PLATFORM_USER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from llmrouter_server.byok.cipher import Cipher, Credential
    from llmrouter_server.runtime.database import Database

NO_KEY: Mapping[str, object] = {"is_set": False}


class PlatformKeyStore:
    """Stores and erases platform keys, each time with a record of which admin did it, in one transaction.

    `changed` is called after each change, so that whoever made it sees it next.
    """

    def __init__(self, database: Database, cipher: Cipher, changed: Callable[[], None] = lambda: None) -> None:
        self._database, self._cipher, self._changed = database, cipher, changed

    async def set(self, provider_id: UUID, credential: Credential, *, admin_id: UUID) -> None:
        """Store the key in place of the one before; RESOURCE_NOT_FOUND: no such provider."""
        ciphertext = self._cipher.encrypt(credential, user_id=PLATFORM_USER, provider_id=provider_id)
        async with self._database.transaction() as connection:
            if not await connection.fetchval(store.LOCK_PROVIDER, provider_id):
                raise errors.not_found("provider")
            old = await connection.fetchrow(store.GET_PLATFORM_KEY, provider_id)
            await connection.execute(store.UPSERT_PLATFORM_KEY, provider_id, ciphertext, credential.prefix)
            change = Change(
                admin_id=admin_id,
                resource="platform_key",
                resource_id=provider_id,
                action="create" if old is None else "update",
                before={} if old is None else _shown(old["key_prefix"]),
                after=_shown(credential.prefix),
            )
            await record_change(connection, change)
        self._changed()

    async def delete(self, provider_id: UUID, *, admin_id: UUID) -> None:
        """Erase the key, if there is one; RESOURCE_NOT_FOUND: no such provider."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval(store.LOCK_PROVIDER, provider_id):
                raise errors.not_found("provider")
            old = await connection.fetchrow(store.GET_PLATFORM_KEY, provider_id)
            if old is None:
                return
            await connection.execute(store.DELETE_PLATFORM_KEY, provider_id)
            change = Change(
                admin_id=admin_id,
                resource="platform_key",
                resource_id=provider_id,
                action="delete",
                before=_shown(old["key_prefix"]),
                after=NO_KEY,
            )
            await record_change(connection, change)
        self._changed()

    async def get(self, provider_id: UUID) -> Credential | None:
        """Return the key, or None. Not audited: whoever uses it must be. DecryptionError when it is not readable."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(store.GET_PLATFORM_KEY, provider_id)
        if row is None:
            return None
        return self._cipher.decrypt(row["encrypted_api_key"], user_id=PLATFORM_USER, provider_id=provider_id)


def _shown(prefix: str) -> Mapping[str, object]:
    return {"is_set": True, "key_prefix": prefix}
