"""The pool at the start and while the database comes and goes: what is worth another try, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socketserver
import struct
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from llmrouter_server import errors
from llmrouter_server.runtime import database as runtime_database
from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.database import Database, DatabaseUnusableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

PATIENCE_S = 20
SSL_REQUEST = struct.pack("!i", 80877103)

# What Postgres, or a pooler before it, answers to somebody who connects; and whether another try may help.
COMES_BACK = {
    "57P03": "the database system is starting up",
    "57P01": "terminating connection due to administrator command",
    "53300": "sorry, too many clients already",
    "53400": "the number of locks is exceeded",
    "55000": 'database "x" is not currently accepting connections',
    "55006": 'database "x" is being accessed by other users',
    "58000": "could not open file",
    "08P01": "server login has been failing, try again later",
    "XX000": "cache lookup failed",
    "XX001": "invalid page in block 0",
}
STAYS_WRONG = {
    "28P01": 'password authentication failed for user "router"',
    "28000": "no pg_hba.conf entry for host",
    "3D000": 'database "x" does not exist',
    "42501": 'permission denied for database "x"',
}


@contextmanager
def refusing_postgres(sqlstate: str, message: str) -> Iterator[str]:
    """Serve what looks like a Postgres that refuses whoever connects, and yield its URL."""
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", sqlstate), (b"M", message))
    )

    class Refusing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.settimeout(PATIENCE_S)
                asked = self.request.recv(4096)
                if asked[4:8] == SSL_REQUEST:
                    self.request.sendall(b"N")
                    asked = self.request.recv(4096)
                if asked:
                    self.request.sendall(b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0")

    with socketserver.TCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"postgresql://router:hunter2@127.0.0.1:{server.server_address[1]}/x"
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def watched(url: str, **sizes: int) -> AsyncIterator[Database]:
    database = Database(url, min_size=sizes.get("min_size", 1), max_size=sizes.get("max_size", 4))
    try:
        await database.start()
        yield database
    finally:
        await database.stop()


async def until(database: Database, *, up: bool) -> None:
    told = asyncio.Event()
    database.on_change(lambda is_up: told.set() if is_up is up else None)
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_database, "PROBE_INTERVAL_S", 0.01)


@pytest.mark.parametrize("sqlstate", COMES_BACK)
async def test_whatever_may_pass_is_waited_for(sqlstate: str, caplog: pytest.LogCaptureFixture) -> None:
    with refusing_postgres(sqlstate, COMES_BACK[sqlstate]) as url:
        async with watched(url) as database:
            assert not database.is_up
            with pytest.raises(errors.DomainError) as refused:
                async with database.connection():
                    pass
    assert refused.value.reason == "UNAVAILABLE"
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("sqlstate", STAYS_WRONG)
async def test_whatever_stays_wrong_is_told_in_one_sentence(sqlstate: str) -> None:
    with refusing_postgres(sqlstate, STAYS_WRONG[sqlstate]) as url, pytest.raises(DatabaseUnusableError) as refused:
        async with watched(url):
            pass
    assert str(refused.value) == f"the database refuses the connection: {STAYS_WRONG[sqlstate]}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://router:hun/ter2@db/x",
        "postgresql://router@db:hunter2/x",
        "postgresql://router:hunter2@[db/x",
        f"postgresql://router:hunter2@{'d' * 70}.example/x",
        "postgresql://router:hunter2@db/x?sslmode=hunter2",
    ],
)
async def test_a_url_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnusableError) as refused:
        async with watched(url):
            pass
    assert "ter2" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_database_that_is_not_migrated_is_told_in_one_sentence(
    empty_database: Callable[[], Awaitable[str]],
) -> None:
    with pytest.raises(DatabaseUnusableError) as refused:
        async with watched(await empty_database()):
            pass
    assert str(refused.value) == "the database is not migrated: run `llmrouter migrate` first"


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_takes_no_connections_yet_is_used_when_it_does(
    migrated_database: Callable[[], Awaitable[str]], postgres: Any
) -> None:
    url = await migrated_database()
    name = url.rpartition("/")[2]
    admin = await asyncpg.connect(postgres.url, timeout=PATIENCE_S)
    try:
        await admin.execute(f"alter database {name} with allow_connections false")
        async with watched(url) as database:
            assert not database.is_up
            await admin.execute(f"alter database {name} with allow_connections true")
            await until(database, up=True)
            async with database.connection() as connection:
                assert await connection.fetchval("select 1") == 1
    finally:
        await admin.close()


@pytest.mark.usefixtures("impatient")
async def test_the_same_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    probes = 0
    with refusing_postgres("XX000", "cache lookup failed") as url:
        async with watched(url) as database:
            real = database._connect

            async def counted() -> Any:
                nonlocal probes
                probes += 1
                return await real()

            database._connect = counted  # type: ignore[method-assign]
            async with asyncio.timeout(PATIENCE_S):
                while probes < 5:
                    await asyncio.sleep(0.01)
    told = [record for record in caplog.records if record.name == runtime_database.__name__]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING
    assert "cache lookup failed" in told[0].__dict__["error"]


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_turns_out_to_be_unusable_later_is_told_once_and_waited_for(
    caplog: pytest.LogCaptureFixture, empty_database: Callable[[], Awaitable[str]]
) -> None:
    url = await empty_database()
    away = url.replace(f":{url.rpartition(':')[2].split('/')[0]}/", ":1/")
    async with watched(away) as database:
        assert not database.is_up
        database._url = url
        async with asyncio.timeout(PATIENCE_S):
            while "not migrated" not in str([record.__dict__.get("error") for record in caplog.records]):
                await asyncio.sleep(0.01)
        await migrations.migrate(url, say=lambda _: None)
        await until(database, up=True)
    unusable = [record for record in caplog.records if "not migrated" in str(record.__dict__.get("error"))]
    assert len(unusable) == 1
    assert unusable[0].exc_info is None


async def test_a_start_that_fails_leaves_no_connection_behind(
    migrated_database: Callable[[], Awaitable[str]], postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_current(_: Any) -> bool:
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")

    monkeypatch.setattr(migrations, "is_current", is_current)
    url = await migrated_database()
    admin = await asyncpg.connect(postgres.url, timeout=PATIENCE_S)
    try:
        async with watched(url) as database:
            assert not database.is_up
            async with asyncio.timeout(PATIENCE_S):
                while await admin.fetchval(
                    "select count(*) from pg_stat_activity where datname = $1", url.rpartition("/")[2]
                ):
                    await asyncio.sleep(0.01)
    finally:
        await admin.close()


async def test_a_connection_that_cannot_be_made_is_unavailable_and_no_fault(
    migrated_database: Callable[[], Awaitable[str]], postgres: Any
) -> None:
    url = await migrated_database()
    admin = await asyncpg.connect(postgres.url, timeout=PATIENCE_S)
    try:
        async with watched(url, min_size=1, max_size=2) as database, database.connection() as first:
            assert await first.fetchval("select 1") == 1
            await admin.execute(f"alter database {url.rpartition('/')[2]} with allow_connections false")
            with pytest.raises(errors.DomainError) as refused:
                async with database.connection():
                    pass
            assert refused.value.reason == "UNAVAILABLE"
    finally:
        await admin.close()


async def test_a_fault_of_the_work_itself_is_not_taken_for_the_database_being_away(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.connection() as connection:
            await connection.fetch("select 1 from no_such_table")


async def test_a_database_of_a_newer_release_is_served(migrated_database: Callable[[], Awaitable[str]]) -> None:
    """As between the next release's `migrate` and the last old server's end."""
    url = await migrated_database()
    connection = await asyncpg.connect(url)
    await connection.execute(migrations.INSERT_APPLIED, 9999, "of_the_next_release", "made up")
    await connection.close()
    async with watched(url) as database:
        assert database.is_up
