"""The catalogue as it was, for what was decided by it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.catalog.store import CatalogStore

MOST_KEPT = 3
"""How many are kept in memory, those that were asked for last: one of 10,000 models has some 30 MB."""


class PastSnapshots:
    """Reads snapshots by their number, one at a time: each may have thousands of models."""

    def __init__(self, store: CatalogStore, newest: Callable[[], Awaitable[Snapshot]] | None = None) -> None:
        """`newest` returns the one that is in memory already."""
        self._store, self._newest = store, newest
        self._kept: OrderedDict[int, Snapshot] = OrderedDict()
        self._reading = asyncio.Lock()

    async def get(self, number: int) -> Snapshot:
        """Return the snapshot; RESOURCE_NOT_FOUND when it is gone."""
        if self._newest is not None and (newest := await self._newest()).number == number:
            return newest
        if number not in self._kept:
            async with self._reading:
                if number not in self._kept:
                    self._kept[number] = await self._store.load_snapshot(number)
                    if len(self._kept) > MOST_KEPT:
                        self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]
