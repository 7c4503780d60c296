"""The connection pool, which survives a database that comes and goes. Every wait on it is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server import errors
from llmrouter_server.runtime import migrations

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
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)


class DatabaseUnusableError(Exception):
    """The database answers, but not for us: wrong password or name, or not migrated. The message says which."""


class Database:
    """A pool that connects when the database is there, and says through `is_up` whether it is."""

    def __init__(self, url: str, *, min_size: int, max_size: int) -> None:
        self._url, self._min_size, self._max_size = url, min_size, max_size
        self._pool: Any = None
        self._watcher: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self.is_up = False

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` now and whenever the database comes or goes."""
        self._listeners.append(listener)
        listener(self.is_up)

    async def start(self) -> None:
        """Connect if the database is there, else go on trying; DatabaseUnusableError when trying again is no use."""
        await self._probe()
        if not self.is_up:
            log.warning("the database is away; trying again every second")
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

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection; the domain error UNAVAILABLE when the database does not answer in time."""
        if self._pool is None:
            raise errors.unavailable()
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                yield connection
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
                server_settings={"application_name": "llmrouter"},
            )
        except (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            asyncpg.ClientConfigurationError,
        ) as error:
            raise DatabaseUnusableError(f"the database refuses the connection: {error}") from None
        async with pool.acquire() as connection:
            current = await migrations.is_current(connection)
        if not current:
            pool.terminate()
            raise DatabaseUnusableError("the database is not migrated: run `llmrouter migrate` first")
        return pool

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S + ACQUIRE_TIMEOUT_S):
                if self._pool is None:
                    self._pool = await self._connect()
                async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                    await connection.execute("select 1", timeout=PROBE_TIMEOUT_S)
        except (*_AWAY, asyncpg.InterfaceError) as error:
            self._tell(up=False, why=type(error).__name__)
        else:
            self._tell(up=True)

    def _tell(self, *, up: bool, why: str = "") -> None:
        if up == self.is_up:
            return
        log.warning("database is up" if up else "database is down", extra={"error": why} if why else {})
        self.is_up = up
        for listener in self._listeners:
            listener(up)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                await self._probe()
            except Exception as error:  # whatever it is, the next probe may find it mended
                log.exception("the database cannot be used")
                self._tell(up=False, why=type(error).__name__)


async def _prepare(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
