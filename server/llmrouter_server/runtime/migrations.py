"""Applies the files of `migrations/`, in order, each once and whole: plain SQL, forward only."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server.runtime.resources import resource_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCK_ID = 0x6C6C6D72_6F757465
"""Advisory lock of the runner: the bytes `llmroute`."""

CREATE_TABLE = """
create table if not exists schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)"""
COMMENT_TABLE = "comment on table schema_migrations is 'Which migrations were applied, and what they said.'"
SELECT_APPLIED = "select version, name, checksum from schema_migrations order by version"
INSERT_APPLIED = "insert into schema_migrations (version, name, checksum) values ($1, $2, $3)"
TABLE_EXISTS = "select to_regclass('schema_migrations') is not null"


class MigrationError(Exception):
    """The database was not migrated; the message says in one sentence why. What was applied before stays."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(folder: Path | None = None) -> tuple[Migration, ...]:
    """Read the migrations in order; MigrationError when names are wrong or numbers are not 1, 2, 3 …."""
    migrations = []
    for file in sorted((folder or resource_dir("migrations")).glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", file.name)
        if match is None:
            raise MigrationError(f"{file.name} is not named NNNN_name.sql")
        migrations.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise MigrationError("the migrations' numbers must be 0001, 0002 and so on, each once")
    return tuple(migrations)


async def migrate(
    database_url: str, *, say: Callable[[str], None], migrations: tuple[Migration, ...] | None = None
) -> int:
    """Apply what is missing and return how many that was. Safe to run twice, and twice at once."""
    wanted = load() if migrations is None else migrations
    try:
        connection = await asyncpg.connect(database_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise MigrationError(f"the database cannot be reached: {_sentence(error)}") from error
    try:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK_ID):
            say("another migration is running; waiting for it to end")
            await connection.execute("select pg_advisory_lock($1)", LOCK_ID)
        return await _apply(connection, wanted, say)
    finally:
        await connection.close(timeout=5)  # which also gives the lock back


async def is_current(connection: Any) -> bool:  # noqa: ANN401 - asyncpg has no types
    """Whether every migration of this release is applied to the database."""
    if not await connection.fetchval(TABLE_EXISTS):
        return False
    applied = {row["version"] for row in await connection.fetch(SELECT_APPLIED)}
    return applied >= {migration.version for migration in load()}


async def _apply(connection: Any, wanted: tuple[Migration, ...], say: Callable[[str], None]) -> int:  # noqa: ANN401
    if not await connection.fetchval(TABLE_EXISTS):
        await connection.execute(CREATE_TABLE)
        await connection.execute(COMMENT_TABLE)
    applied = {row["version"]: row for row in await connection.fetch(SELECT_APPLIED)}
    _refuse_what_differs(applied, wanted)
    missing = [migration for migration in wanted if migration.version not in applied]
    for migration in missing:
        label = f"{migration.version:04d}_{migration.name}"
        started = time.perf_counter()
        try:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(INSERT_APPLIED, migration.version, migration.name, migration.checksum)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{label} failed and left nothing behind: {_sentence(error)}") from error
        say(f"applied {label} in {(time.perf_counter() - started) * 1000:.0f} ms")
    if not missing:
        say(f"nothing to do: the schema is at {max(applied, default=0):04d}")
    return len(missing)


def _refuse_what_differs(applied: dict[int, Any], wanted: tuple[Migration, ...]) -> None:
    known = {migration.version: migration for migration in wanted}
    for version, row in applied.items():
        migration = known.get(version)
        if migration is None:
            raise MigrationError(
                f"the database has migration {version:04d}_{row['name']}, which this release does not know: "
                "it was migrated by a newer release"
            )
        if migration.checksum != row["checksum"]:
            raise MigrationError(
                f"{version:04d}_{row['name']} was edited after it was applied; restore the file and write a new one"
            )


def _sentence(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
