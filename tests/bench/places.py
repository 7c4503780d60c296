"""What is measured, and where it runs: the systems on one core, the load and the mock provider on another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from bench.echo_server import AS_IT_COMES
from bench.plain_envoy import plain_config, transcoder_config
from conftest import make_open_folder
from gateway.chat_client import send
from gateway.chat_stack import ADD_MODELS, ADD_PLATFORM_KEYS, ADD_PROVIDERS, PRICE_IN, PRICE_OUT
from llmrouter_server.byok.cipher import PLATFORM_USER, Cipher, Credential
from llmrouter_server.cli import GRPC_POLLING
from llmrouter_server.runtime.envoy_config import ENVOY_ENV, envoy_command, render
from llmrouter_server.runtime.local_ports import accepts, free_ports
from llmrouter_server.runtime.local_process import Child
from llmrouter_server.runtime.local_stack import LocalStack, Ports
from llmrouter_server.runtime.resources import resource_dir
from process_meter import cpu_s, family_cpu_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from gateway.chat_client import Reply
    from llmrouter_server.runtime.envoy_config import EdgeParameters

TESTS = Path(__file__).parent.parent
USERS = 16
PROVIDERS = ("A", "B", "C")
CONTEXT = 32_000
BUDGET_USD = 1_000_000
NO_LIMIT_PER_S = 1_000_000
READY_S, SETTLED_S = 20.0, 30.0

# It takes no key, and so would serve before the mock provider.
DISABLE_LOCAL = "update llm_providers set is_enabled = false where provider_type = 'local'"
ADD_SETTINGS = """
insert into user_llm_settings (user_id, preferred_power_level, monthly_budget_usd)
select unnest($1::uuid[]), 'ECO', $2"""
# Of a big catalogue: each of them can be chosen by everybody.
MODELS_A_PROVIDER = 20
KNOWN = "select count(*) from llm_models"
LEFT = "select (select count(*) from llm_gateway_requests) + (select count(*) from llm_budget_holds)"
FORGET = """
delete from llm_gateway_requests;
delete from llm_budget_holds;
update llm_budget_ledger set held_usd = 0;"""
RECORDED = "select count(*) from llm_usage_logs where status = 'success' and not is_estimated"


@dataclass(frozen=True, slots=True)
class Cores:
    """Where to run what; None: anywhere."""

    system: int | None
    load: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Return the first two."""
        available = sorted(os.sched_getaffinity(0))
        return cls(available[0], available[1]) if len(available) > 1 else cls(None, None)

    @property
    def told(self) -> str:
        """In the report's words."""
        return "shared" if self.load is None else "pinned"


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Start processes in this block to have them on this core."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Bench:
    """Everything runs: ask it for loads, CPU times, and whether all is recorded."""

    def __init__(
        self,
        stack: LocalStack,
        edge: EdgeParameters,
        plain: Child,
        plain_port: int,
        provider_port: int,
        cores: Cores,
        pool: Any,
    ) -> None:
        self.stack, self.edge, self.plain, self.plain_port, self.cores = stack, edge, plain, plain_port, cores
        self.provider_port, self._pool = provider_port, pool
        self.tokens: Sequence[str] = ()

    async def set_up(self) -> None:
        """Put the mock provider three times into the catalogue, and users with budgets."""
        ids, users = [uuid.uuid4() for _ in PROVIDERS], [uuid.uuid4() for _ in range(USERS)]
        cipher = Cipher([(self.stack.home / "byok.key").read_text().strip()])
        sealed = [
            cipher.encrypt(Credential(f"sk-bench-{name}-0123456789"), user_id=PLATFORM_USER, provider_id=id_)
            for name, id_ in zip(PROVIDERS, ids, strict=True)
        ]
        names = [f"bench-{name}" for name in PROVIDERS]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DISABLE_LOCAL)
            urls = [f"http://127.0.0.1:{self.provider_port}/v1"] * len(ids)
            await connection.execute(ADD_PROVIDERS, ids, names, urls, [50] * len(ids))
            await connection.execute(ADD_MODELS, ids, names, [CONTEXT] * len(ids), PRICE_IN, PRICE_OUT)
            await connection.execute(ADD_PLATFORM_KEYS, ids, sealed)
            await connection.execute(ADD_SETTINGS, users, BUDGET_USD)
        self.tokens = [self.stack.identity.mint("user", user) for user in users]
        async with asyncio.timeout(READY_S):
            while (await self._get(f"/v1/models/{names[-1]}")).status != HTTPStatus.OK:  # until Envoy has the providers
                await asyncio.sleep(0.05)

    async def _get(self, path: str) -> Reply:
        return await send(self.stack.ports.http, "GET", path, {"authorization": f"Bearer {self.tokens[0]}"})

    async def models(self) -> int:
        """Return how many models the catalogue has."""
        return int(await self._pool.fetchval(KNOWN))

    async def grow(self, models: int) -> None:
        """Let the catalogue have so many models; return when the server knows them. Chat requests are to be over."""
        missing = models - await self.models()
        ids = [uuid.uuid4() for _ in range(0, missing, MODELS_A_PROVIDER)]
        owners = [ids[number // MODELS_A_PROVIDER] for number in range(missing)]
        async with self._pool.acquire() as connection, connection.transaction():
            urls = [f"http://127.0.0.1:{self.provider_port}/v1"] * len(ids)
            names = [f"more-{number}" for number in range(len(ids))]
            await connection.execute(ADD_PROVIDERS, ids, names, urls, [10] * len(ids))
            names = [f"more-{number}" for number in range(missing)]
            await connection.execute(ADD_MODELS, owners, names, [CONTEXT] * missing, PRICE_IN, PRICE_OUT)
        async with asyncio.timeout(READY_S):
            while len(await self._explained()) != models:
                await asyncio.sleep(0.05)

    async def _explained(self) -> list[Any]:
        """Return the fates of all the models that the server knows of."""
        headers = {"authorization": f"Bearer {self.tokens[0]}", "content-type": "application/json"}
        body = b'{"power_level":"ECO","explain":true}'
        reply = await send(self.stack.ports.http, "POST", "/api/v2/llm/route", headers, body)
        return list(reply.json["explanation"]["models"])

    async def load(self, module: str, load: Any) -> dict[str, Any]:
        """Run a load to its end, and return what it printed."""
        process = await self.begin(module, load)
        printed, _ = await process.communicate()
        return self.result(process, printed)

    async def begin(self, module: str, load: Any) -> asyncio.subprocess.Process:
        with on_core(self.cores.load):
            return await _python(f"bench.{module}", load.to_json())

    @staticmethod
    def result(process: asyncio.subprocess.Process, printed: bytes) -> dict[str, Any]:
        if process.returncode != 0:
            raise RuntimeError("a load failed; see what it wrote")
        result: dict[str, Any] = json.loads(printed)
        return result

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time that each part has used, in seconds."""
        pids = {"envoy": self.stack.envoy.pid, "server": self.stack.server.pid, "plain": self.plain.pid}
        used = {part: cpu_s(pid) for part, pid in pids.items()}
        return used | {"postgres": family_cpu_s(self.stack.postgres.server.pid)}

    def connection(self) -> Any:
        """Lend a connection to the database, to be used with `async with`."""
        return self._pool.acquire()

    async def recorded(self) -> int:
        """Return how many answers are recorded."""
        return int(await self._pool.fetchval(RECORDED))

    async def until_settled(self) -> None:
        """Wait until every request is recorded and no money is held."""
        async with asyncio.timeout(SETTLED_S):
            while await self._pool.fetchval(LEFT):
                await asyncio.sleep(0.02)

    async def forget_open(self) -> None:
        """Forget requests that were decided and never made."""
        await self._pool.execute(FORGET)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Run all of it until the end of the block."""
    cores, folder = Cores.of_this_machine(), make_open_folder()
    edges: list[EdgeParameters] = []

    def without_limits(parameters: EdgeParameters) -> EdgeParameters:
        edges[:] = [replace(parameters, user_requests_per_s=NO_LIMIT_PER_S, global_requests_per_s=NO_LIMIT_PER_S)]
        return edges[0]

    stack = LocalStack(
        folder / "stack",
        ports=Ports(http=0, grpc=0, metrics=0),
        server_env={"GATEWAY_CONCURRENCY": "1000"},
        adjust_edge=without_limits,
    )
    try:
        async with AsyncExitStack() as cleanup:
            with on_core(cores.load):
                provider = await _python("bench.mock_provider")
            cleanup.push_async_callback(_end, provider)
            provider_port = await port_of(provider)
            with on_core(cores.system):
                await cleanup.enter_async_context(stack)
                plain, plain_port = await _plain_envoy(folder, provider_port)
            cleanup.push_async_callback(plain.stop)
            pool = await cleanup.enter_async_context(asyncpg.create_pool(stack.database_url, min_size=0, max_size=2))
            made = Bench(stack, edges[0], plain, plain_port, provider_port, cores, pool)
            await made.set_up()
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Door:
    """An Envoy that lets the server behind it be asked in JSON."""

    http_port: int
    envoy_pid: int
    server_pid: int


@dataclass(frozen=True, slots=True)
class Echo:
    """A bare gRPC server, and a plain Envoy before it."""

    grpc_port: int
    server_pid: int
    door: Door


@asynccontextmanager
async def plain_door(bench: Bench, grpc_port: int, server_pid: int) -> AsyncIterator[Door]:
    """Run a plain Envoy before a gRPC server."""
    descriptor = resource_dir("envoy") / "llmrouter.binpb"
    async with _door(bench, server_pid, lambda port, _: transcoder_config(port, grpc_port, descriptor)) as door:
        yield door


@asynccontextmanager
async def our_door(bench: Bench, grpc_port: int, server_pid: int) -> AsyncIterator[Door]:
    """Run an Envoy with our configuration before another gRPC server, which is to answer health checks."""

    def config(port: int, folder: Path) -> str:
        its_own = {"admin_socket": folder / "a", "access_log": folder / "access", "journal": folder / "journal"}
        addresses = {"listen_address": f"127.0.0.1:{port}", "server_address": f"127.0.0.1:{grpc_port}"}
        return render(replace(bench.edge, **its_own, **addresses))  # type: ignore[arg-type]

    async with _door(bench, server_pid, config) as door:
        async with asyncio.timeout(READY_S):
            while (await send(door.http_port, "GET", "/healthz", {})).status != HTTPStatus.OK:
                await asyncio.sleep(0.05)
        yield door


@asynccontextmanager
async def _door(bench: Bench, server_pid: int, config: Callable[[int, Path], str]) -> AsyncIterator[Door]:
    (port,), folder = free_ports(1), make_open_folder()
    try:
        with on_core(bench.cores.system):
            envoy = await _envoy("another Envoy", folder, config(port, folder), port)
        try:
            yield Door(port, envoy.pid, server_pid)
        finally:
            await envoy.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def echo(bench: Bench, answer: str, how: str = AS_IT_COMES) -> AsyncIterator[Echo]:
    """Run a bare gRPC server that answers with these bytes, in base64; `how`: as echo_server has it."""
    with on_core(bench.cores.system):
        polling = dict([GRPC_POLLING]) if how else {GRPC_POLLING[0]: ""}
        server = await _python("bench.echo_server", answer, how, **polling)
    try:
        port = await port_of(server)
        async with plain_door(bench, port, server.pid) as door:
            yield Echo(port, server.pid, door)
    finally:
        await _end(server)


async def port_of(process: asyncio.subprocess.Process) -> int:
    """Return the port that it listens on and prints."""
    assert process.stdout is not None
    async with asyncio.timeout(READY_S):
        return int(await process.stdout.readline())


async def _plain_envoy(folder: Path, provider_port: int) -> tuple[Child, int]:
    (port,) = free_ports(1)
    return await _envoy("plain Envoy", folder, plain_config(port, provider_port), port), port


async def _envoy(name: str, folder: Path, config: str, port: int) -> Child:
    file = folder / f"{name}.yaml"
    file.write_text(config, encoding="utf-8")
    envoy = Child(name, folder / f"{name}.log")
    await envoy.start(envoy_command(file), env={"PATH": os.environ.get("PATH", "")} | ENVOY_ENV)
    async with asyncio.timeout(READY_S):
        while not await accepts(port):
            if not envoy.is_running:
                raise RuntimeError("\n".join([f"{name} ended", *envoy.last_lines()]))
            await asyncio.sleep(0.02)
    return envoy


async def _python(module: str, *arguments: str, **env: str) -> asyncio.subprocess.Process:
    """Start a process in a session of its own, as all of ours are: Linux shares a core among sessions."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=TESTS,
        env=os.environ | {"PYTHONUNBUFFERED": ""} | env,  # without a buffer, the rest of an interrupted write is lost
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=1 << 24,
        start_new_session=True,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
