"""A database that a test can use at once, also on a machine that is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database

PATIENCE_S = 20.0


async def started(database: Database) -> Database:
    """Start it, wait until it is up, which starting alone does not promise, and return it."""
    await database.start()
    async with asyncio.timeout(PATIENCE_S):
        while not database.is_up:
            await asyncio.sleep(0.02)
    return database
