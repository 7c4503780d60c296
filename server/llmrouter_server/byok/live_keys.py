"""Stored keys as they are kept in memory, still encrypted, and the operator's, kept true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.shared_look import SharedLook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

CHANNEL = "llmrouter_platform_key"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A stored key, encrypted. Where it may be sent is the catalogue's to say, when it is used."""

    key_id: UUID | None
    """None for the platform's."""
    ciphertext: str = field(repr=False)


class PlatformKeys:
    """All platform keys, by provider, read again only when one has changed.

    `read` reads them from the database. While `is_told` says that changes are not heard of, every use reads.
    """

    def __init__(self, read: Callable[[], Awaitable[Mapping[UUID, KeptKey]]], *, is_told: Callable[[], bool]) -> None:
        self._read, self._is_told = read, is_told
        self._keys: Mapping[UUID, KeptKey] | None = None
        self._is_stale = True
        self._shared = SharedLook(self._look)
        self._hit = telemetry.counter(telemetry.CACHE, "platform_keys", "hit")
        self._miss = telemetry.counter(telemetry.CACHE, "platform_keys", "miss")

    def changed(self, _payload: str = "") -> None:
        """Note that one has changed, or may have: the next use reads them again."""
        self._is_stale = True

    async def current(self) -> Mapping[UUID, KeptKey]:
        """Return the keys, with every change that was heard of before."""
        if (keys := self._known()) is not None:
            self._hit.inc()
            return keys
        return await self._shared()

    def _known(self) -> Mapping[UUID, KeptKey] | None:
        return self._keys if not self._is_stale and self._is_told() else None

    async def _look(self) -> Mapping[UUID, KeptKey]:
        if (keys := self._known()) is not None:
            return keys
        self._miss.inc()
        self._is_stale = False  # before the query: a change that is told from here on is not in its answer
        try:
            self._keys = keys = await self._read()
        except BaseException:
            self._is_stale = True
            raise
        return keys
