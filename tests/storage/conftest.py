from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from databases import PATIENCE_S, started
from llmrouter_server.runtime import database as runtime_database
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def be_patient(patched: pytest.MonkeyPatch) -> None:
    """Let no machine that stands still for a moment be taken for a database that is away."""
    for name in ("ACQUIRE_TIMEOUT_S", "COMMAND_TIMEOUT_S", "PROBE_TIMEOUT_S"):
        patched.setattr(runtime_database, name, PATIENCE_S)


@pytest.fixture(autouse=True)
def patient_database(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


@pytest.fixture(scope="session")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    with pytest.MonkeyPatch.context() as patched:
        be_patient(patched)
        database = await started(Database(await migrated_database(), min_size=2, max_size=20))
    yield database
    await database.stop()
