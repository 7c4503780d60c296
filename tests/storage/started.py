"""A pool that is up. `Database.start` returns after some seconds without it, when the machine is busy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database

PATIENCE_S = 20


async def started(database: Database) -> Database:
    """Start it, wait until it has connected, and return it."""
    await database.start()
    async with asyncio.timeout(PATIENCE_S):
        while not database.is_up:
            await asyncio.sleep(0.05)
    return database
