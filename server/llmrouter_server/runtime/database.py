"""The connection pool, which survives a database that comes and goes. Every wait on it is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server import errors
from llmrouter_server.runtime import migrations, telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

log = logging.getLogger(__name__)

ACQUIRE_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 5.0
PROBE_INTERVAL_S = 1.0
PROBE_TIMEOUT_S = 2.0

# What asyncpg raises when the database is away, starting, stopping, or too slow.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # too many connections, no memory, a full disk
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
# What it answers to somebody who will be refused the next time too, until an operator does something.
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)
# What may come instead of a connection. Whatever it is, it is not the fault of the work that wanted one.
_NONE_TO_LEND = (*_AWAY, asyncpg.PostgresError, asyncpg.InterfaceError)


class DatabaseUnusableError(Exception):
    """The database answers, but not for us: wrong password or name, or not migrated. The message says which."""


class Database:
    """A pool that connects when the database is there, and says through `is_up` whether it is."""

    def __init__(self, url: str, *, min_size: int, max_size: int) -> None:
        self._url, self._min_size, self._max_size = url, min_size, max_size
        self._pool: Any = None
        self._watcher: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._trouble = ""
        self._idle = telemetry.POOL_CONNECTIONS.labels("idle")
        self._used = telemetry.POOL_CONNECTIONS.labels("used")
        telemetry.POOL_LIMIT.set(max_size)
        self._for_reports = asyncio.Semaphore(max(1, max_size // 2))
        self.is_up = False

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` now and whenever the database comes or goes."""
        self._listeners.append(listener)
        listener(self.is_up)

    async def start(self) -> None:
        """Connect if the database is there, else go on trying; DatabaseUnusableError when trying again is no use."""
        await self._probe()
        self._show_pool()
        self._watcher = asyncio.create_task(self._watch(), name="database watcher")

    async def stop(self) -> None:
        """Close every connection, politely for a while."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout=5)
            except (TimeoutError, *_AWAY):
                self._pool.terminate()
            self._pool = None
            self._show_pool()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection; the domain error UNAVAILABLE when the database does not answer in time."""
        pool = self._pool
        if pool is None:
            raise errors.unavailable()
        connection = await _acquire(pool)
        try:
            try:
                yield connection
            finally:
                await pool.release(connection)
        except _AWAY as error:
            log.warning("database away", extra={"error": type(error).__name__})
            raise errors.unavailable() from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):  # a value that does not fit its column is our own fault
                raise
            # Else the driver's word for a connection that was lost, or closed under us, in the middle of its work.
            log.warning("database connection lost", extra={"error": str(error)})
            raise errors.unavailable() from error

    @contextlib.asynccontextmanager
    async def for_reports(self) -> AsyncIterator[Any]:
        """Lend one of half of the connections, for reading what may take long; UNAVAILABLE as `connection`.

        The others are left for decisions and records, whatever a user asks for again and again.
        """
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                await self._for_reports.acquire()
        except TimeoutError:
            raise errors.unavailable() from None
        try:
            async with self.connection() as connection:
                yield connection
        finally:
            self._for_reports.release()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lend a connection inside a transaction: committed at the end, rolled back on an error."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def _connect(self) -> Any:  # noqa: ANN401 - asyncpg has no types
        try:
            pool = await asyncpg.create_pool(
                self._url,
                min_size=self._min_size,
                max_size=self._max_size,
                timeout=ACQUIRE_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                init=_prepare,
                reset=_leave_as_it_is,
                server_settings={"application_name": "llmrouter"},
            )
            is_usable = False
            try:
                async with pool.acquire() as connection:
                    is_usable = await migrations.is_current(connection)
            finally:
                if not is_usable:
                    pool.terminate()
        except _REFUSED as error:
            raise DatabaseUnusableError(f"the database refuses the connection: {error}") from None
        except asyncpg.InterfaceError:
            raise
        except ValueError:  # its text quotes the URL, and so perhaps the password
            raise DatabaseUnusableError("the database's URL cannot be read") from None
        if not is_usable:
            raise DatabaseUnusableError("the database is not migrated: run `llmrouter migrate` first")
        return pool

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S + ACQUIRE_TIMEOUT_S):
                if self._pool is None:
                    self._pool = await self._connect()
                if self._pool.get_idle_size() or self._pool.get_size() < self._max_size:
                    async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                        await connection.execute("select 1", timeout=PROBE_TIMEOUT_S)
                else:  # others have them all: a busy database is not away
                    await self._probe_apart()
        except DatabaseUnusableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next probe may find it mended
            self._tell(error)
        else:
            self._tell(None)

    async def _probe_apart(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=ACQUIRE_TIMEOUT_S)
        try:
            await connection.execute("select 1", timeout=PROBE_TIMEOUT_S)
        finally:
            connection.terminate()

    def _tell(self, error: Exception | None) -> None:
        """Take note of what a probe found; log and tell it when it is something new."""
        trouble = "" if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
        up, was_up, before = error is None, self.is_up, self._trouble
        self.is_up, self._trouble = up, trouble
        if error is None and not was_up:
            log.warning("database is up")
        elif error is not None and trouble != before:
            expected = isinstance(error, (*_NONE_TO_LEND, DatabaseUnusableError))
            log.warning(
                "database is down; trying again every second",
                extra={"error": trouble},
                exc_info=None if expected else error,
            )
        if up != was_up:
            for listener in self._listeners:
                listener(up)

    def _show_pool(self) -> None:
        size, idle = (0, 0) if self._pool is None else (self._pool.get_size(), self._pool.get_idle_size())
        self._idle.set(idle)
        self._used.set(size - idle)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                await self._probe()
            except DatabaseUnusableError as error:  # an operator may be at it
                self._tell(error)
            self._show_pool()


async def _acquire(pool: Any) -> Any:  # noqa: ANN401 - asyncpg has no types
    started = time.perf_counter()
    try:
        return await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
    except _NONE_TO_LEND as error:
        log.warning("no connection to the database", extra={"error": type(error).__name__})
        raise errors.unavailable() from error
    finally:
        telemetry.POOL_WAIT_SECONDS.observe(time.perf_counter() - started)


async def _leave_as_it_is(_: object) -> None:
    """Spare the query that would undo what is set for a session, after each use: nothing here sets any such thing.

    A transaction that is still open is rolled back by the pool itself.
    """


async def _prepare(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
