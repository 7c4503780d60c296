"""The command `keys rotate`: encrypts every stored key with the first encryption key, while the server runs.

Each batch is one statement, so it can be stopped at any moment and run again, also twice at once. A row is written
only if it still holds what was read: a key that was replaced meanwhile is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmrouter_server.byok import store
from llmrouter_server.byok.cipher import DecryptionError
from llmrouter_server.runtime import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.byok.cipher import Cipher

BATCH = 500
Kind: TypeAlias = Literal["user key", "platform key"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row whose key does not decrypt."""

    kind: Kind
    id: UUID
    """Of the key; of the provider for a platform key."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a run came to."""

    rotated: int
    """Encrypted anew."""
    current: int
    """Were encrypted by the first key before."""
    replaced: int
    """Were replaced or erased while the run was at them, and left alone."""
    unreadable: tuple[Unreadable, ...]
    """Left as they are."""


@dataclass(frozen=True, slots=True)
class _Table:
    kind: Kind
    select: str
    update: str


_TABLES = (
    _Table("user key", store.SEALED_AFTER, store.RESEAL),
    _Table("platform key", store.SEALED_PLATFORM_AFTER, store.RESEAL_PLATFORM),
)


async def rotate(
    database_url: str, cipher: Cipher, *, progress: Callable[[int, int], None], batch: int = BATCH
) -> Rotation:
    """Encrypt all keys by the cipher's first key; `progress` is told after each batch how many of how many are done.

    Raises CommandError when the database cannot be used; what was rotated before stays so.
    """
    rotated = current = replaced = done = 0
    unreadable: list[Unreadable] = []
    async with command.connect(database_url) as connection:
        total = await connection.fetchval(store.COUNT_SEALED)
        for table in _TABLES:
            after: UUID | None = None
            while rows := await connection.fetch(table.select, after, batch):
                resealed = [_resealed(cipher, row) for row in rows]
                stale = [each for each in resealed if isinstance(each, _Resealed)]
                written = await _write(connection, table.update, stale)
                rotated, replaced = rotated + written, replaced + len(stale) - written
                current += resealed.count(None)
                unreadable += [
                    Unreadable(table.kind, row["id"])
                    for row, each in zip(rows, resealed, strict=True)
                    if isinstance(each, DecryptionError)
                ]
                after, done = rows[-1]["id"], done + len(rows)
                progress(done, max(done, total))
    return Rotation(rotated, current, replaced, tuple(unreadable))


@dataclass(frozen=True, slots=True)
class _Resealed:
    id: UUID
    old: str
    new: str


def _resealed(cipher: Cipher, row: Any) -> _Resealed | DecryptionError | None:  # noqa: ANN401 - asyncpg has no types
    """Return what to write, why the row is not readable, or None when it is by the first key already."""
    ciphertext, user_id, provider_id = row["ciphertext"], row["user_id"], row["provider_id"]
    try:
        if cipher.is_current(ciphertext):
            cipher.decrypt(ciphertext, user_id=user_id, provider_id=provider_id)  # by the first key, but this row's?
            return None
        return _Resealed(row["id"], ciphertext, cipher.reencrypt(ciphertext, user_id=user_id, provider_id=provider_id))
    except DecryptionError as error:
        return error


async def _write(connection: Any, update: str, stale: list[_Resealed]) -> int:  # noqa: ANN401 - asyncpg has no types
    """Write the rows that still hold what was read, and return how many those were."""
    if not stale:
        return 0
    ids, old, new = [each.id for each in stale], [each.old for each in stale], [each.new for each in stale]
    return len(await connection.fetch(update, ids, old, new))
