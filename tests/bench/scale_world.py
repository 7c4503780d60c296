"""A durable Postgres with databases of several sizes, and servers over any of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from cryptography.fernet import Fernet

from bench.places import TESTS, Cores, on_core
from llmrouter_server.byok.cipher import Cipher
from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER, DevIdentity
from llmrouter_server.runtime.local_ports import accepts, free_ports
from llmrouter_server.runtime.local_secrets import secret
from llmrouter_server.runtime.postgres import DATABASE, EmbeddedPostgres
from process_meter import cpu_s, family_cpu_s, resident_bytes
from up_process import children_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bench.grpc_load import Load
    from bench.scale_record_load import RecordLoad

POSTGRES_SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "8GB", "min_wal_size": "2GB"}
"""What any production sets; all else is as Postgres comes."""
WAL_FILES = 128
"""As many as min_wal_size keeps."""
START_S, STOP_S, COMMAND_S = 30.0, 30.0, 3600.0


class World:
    """`async with` starts Postgres over a folder, with what it holds from before."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.cores = folder, Cores.of_this_machine()
        self._postgres = EmbeddedPostgres(folder / "postgres")
        self.identity: DevIdentity
        self.key = ""

    @property
    def cipher(self) -> Cipher:
        """Encrypts as the servers do."""
        return Cipher([self.key])

    async def __aenter__(self) -> World:  # noqa: PYI034 - never subclassed
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.identity = DevIdentity.load_or_create(self._folder / "identity")
        self.key = secret(self._folder / "byok.key", lambda: Fernet.generate_key().decode())
        is_new = not self._postgres.data.exists()
        with on_core(self.cores.system):
            await self._postgres.start()
            if is_new:
                async with self.connection(DATABASE) as connection:
                    for name, value in POSTGRES_SETTINGS.items():
                        await connection.execute(f"alter system set {name} = '{value}'")
                await self._postgres.stop()
                await self._postgres.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._postgres.stop()

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return self._postgres.url.removesuffix(DATABASE) + database

    @asynccontextmanager
    async def connection(self, database: str) -> AsyncIterator[Any]:
        """Lend a connection of the benchmark's own, whose commands may take long."""
        connection = await asyncpg.connect(self.url(database), timeout=START_S, command_timeout=COMMAND_S)
        try:
            yield connection
        finally:
            await connection.close()

    async def make_database(self, name: str) -> None:
        """Make a migrated and seeded database, unless it is there."""
        async with self.connection(DATABASE) as connection:
            if not await connection.fetchval("select exists (select from pg_database where datname = $1)", name):
                await connection.execute(f"create database {name} template template0")
        await migrations.migrate(self.url(name), say=lambda _: None)

    async def fill_wal(self) -> None:
        """Leave Postgres as many files of its log to use again as a busy one has, so that it makes none now."""
        async with self.connection(DATABASE) as connection:
            for _ in range(WAL_FILES):
                await connection.execute("select pg_logical_emit_message(false, 'bench', '')")
                await connection.execute("select pg_switch_wal()")
            await connection.execute("checkpoint")

    async def drop_database(self, name: str) -> None:
        """Drop a database, and all that is in it."""
        async with self.connection(DATABASE) as connection:
            await connection.execute(f"drop database if exists {name} with (force)")

    def pin_postgres(self, *, pinned: bool) -> None:
        """Give Postgres the core of what is measured, or all of them."""
        cores = {self.cores.system} if pinned and self.cores.system is not None else os.sched_getaffinity(0)
        postmaster = self._postgres.server.pid
        for pid in (postmaster, *children_of(postmaster)):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(pid, cores)

    def postgres_cpu_s(self) -> float:
        """Return the CPU time that all of Postgres' processes have used."""
        return family_cpu_s(self._postgres.server.pid)

    @asynccontextmanager
    async def server(
        self, database: str, *, workers: int = 1, pinned: bool = True, **settings: str
    ) -> AsyncIterator[Server]:
        """Run `llmrouter serve` over a database until the end of the block; `settings` go into its environment.

        pinned: it and Postgres have one core together, and its loads another; else all of them have all cores.
        """
        (port,) = free_ports(1)
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = compiled | {
            "DATABASE_URL": self.url(database),
            "BYOK_ENCRYPTION_KEY": self.key,
            "AUTH_JWKS": str(self.identity.jwks_file),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "DRAIN_NOTICE_SECONDS": "0.1",
            "DRAIN_TIMEOUT_SECONDS": "2",
            **settings,
        }
        command = [sys.executable, "-m", "llmrouter_server", "serve", "--workers", str(workers)]
        log = (self._folder / f"{database}.log").open("wb")
        began = time.perf_counter()
        self.pin_postgres(pinned=pinned)
        with log, on_core(self.cores.system if pinned else None):
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            async with asyncio.timeout(START_S):
                while not await accepts(port) or (workers > 1 and len(children_of(process.pid)) < workers):
                    if process.returncode is not None:
                        raise RuntimeError(f"the server ended; see {log.name}")
                    await asyncio.sleep(0.002)
            yield Server(self, port, process.pid, workers, pinned, time.perf_counter() - began)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
            if process.returncode is None:
                process.kill()
                await process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    world: World
    port: int
    pid: int
    workers: int
    is_pinned: bool
    ready_s: float
    """From its start until it took a connection."""

    @property
    def pids(self) -> list[int]:
        """The processes that serve."""
        return [self.pid] if self.workers == 1 else sorted(children_of(self.pid))

    @property
    def resident_mb(self) -> list[float]:
        """The memory of each of them."""
        return [resident_bytes(pid) / 1e6 for pid in self.pids]

    def cpu_s(self) -> float:
        """Return the CPU time of all of them."""
        return sum(cpu_s(pid) for pid in self.pids)

    def service_token(self) -> dict[str, str]:
        """Return the metadata with which a service calls."""
        return {"authorization": f"Bearer {self.world.identity.mint('service')}"}

    async def load(self, load: Load | RecordLoad, module: str = "scale_load") -> dict[str, Any]:
        """Run a load to its end as a process on the other core, and return what it printed."""
        with on_core(self.world.cores.load if self.is_pinned else None):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"bench.{module}"),
                cwd=TESTS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                limit=1 << 26,
            )
        printed, _ = await process.communicate(load.to_json().encode())
        if process.returncode != 0:
            raise RuntimeError("a load failed; see what it wrote")
        result: dict[str, Any] = json.loads(printed)
        return result
