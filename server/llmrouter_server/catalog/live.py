"""The newest snapshot of the catalogue, in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.catalog.store import CatalogStore

CHANNEL = "llmrouter_catalog"


class LiveCatalog:
    """Reads the catalogue again only when it has changed.

    `is_told` says whether changes are heard of; while they are not, each use looks whether the number has grown.
    """

    def __init__(self, store: CatalogStore, is_told: Callable[[], bool]) -> None:
        self._store, self._is_told = store, is_told
        self._snapshot: Snapshot | None = None
        self._is_stale = True
        self._looking = asyncio.Lock()
        self._begun = self._ended = 0
        self._outcome: Snapshot | errors.DomainError = errors.unavailable()
        self._hit = telemetry.CACHE.labels("catalog", "hit")
        self._miss = telemetry.CACHE.labels("catalog", "miss")

    def changed(self, _number: str = "") -> None:
        """Note that it has changed, or may have: the next use reads it again."""
        self._is_stale = True

    async def refresh(self) -> None:
        """Read it again now, so that whoever changed it sees the change next."""
        self.changed()
        await self.current()

    async def current(self) -> Snapshot:
        """Return a snapshot at least as new as every change heard of before."""
        if self._snapshot is not None and not self._is_stale and self._is_told():
            self._hit.inc()
            return self._snapshot
        return await self._read()

    async def _read(self) -> Snapshot:
        """Look at the database. All who come while a look is under way share the next one, its failure included.

        They cannot share the one under way: it may have begun before a change that they must see.
        """
        begun = self._begun
        async with self._looking:
            if self._ended <= begun:
                self._begun += 1
                number = self._begun
                try:
                    self._outcome = self._snapshot = await self._look()
                except errors.DomainError as error:
                    self._outcome = error
                self._ended = number
            if isinstance(self._outcome, errors.DomainError):
                raise self._outcome
            return self._outcome

    async def _look(self) -> Snapshot:
        known = None if self._is_stale else self._snapshot
        if known is not None and (self._is_told() or await self._store.catalog_number() == known.number):
            return known
        self._miss.inc()
        self._is_stale = False  # before the query: a change that is told from here on is not in its answer
        try:
            snapshot = await self._store.load_snapshot()
        except BaseException:
            self._is_stale = True
            raise
        telemetry.CATALOG_SNAPSHOT.set(snapshot.number)
        return snapshot
