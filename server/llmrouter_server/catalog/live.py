"""The newest snapshot of the catalogue, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.shared_look import SharedLook

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
        self._read = SharedLook(self._look)
        self._hit = telemetry.counter(telemetry.CACHE, "catalog", "hit")
        self._miss = telemetry.counter(telemetry.CACHE, "catalog", "miss")

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
        self._snapshot = snapshot
        telemetry.CATALOG_SNAPSHOT.set(snapshot.number)
        return snapshot
