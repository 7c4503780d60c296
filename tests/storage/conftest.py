from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from databases import started
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture(scope="session")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = await started(Database(await migrated_database(), min_size=2, max_size=20))
    yield database
    await database.stop()
