"""The database connection of an operator's command: no pool, bounded waits, and failures told in one sentence."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server.runtime import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT_S = 10.0
STATEMENT_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 5.0

_FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class CommandError(Exception):
    """The command could not do its work; the message says in one sentence why."""


@contextlib.asynccontextmanager
async def connect(database_url: str) -> AsyncIterator[Any]:
    """Lend a connection to a migrated database; CommandError when it cannot be had or fails."""
    try:
        connection = await asyncpg.connect(
            database_url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            server_settings={"application_name": "llmrouter command"},
        )
    except (*_FAILURES, ValueError) as error:
        raise CommandError(f"the database cannot be reached: {_sentence(error)}") from error
    try:
        if not await migrations.is_current(connection):
            raise CommandError("the database is not migrated: run `llmrouter migrate` first")
        yield connection
    except _FAILURES as error:
        raise CommandError(f"the database failed: {_sentence(error)}") from error
    finally:
        with contextlib.suppress(*_FAILURES):
            await connection.close(timeout=CLOSE_TIMEOUT_S)


def _sentence(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
