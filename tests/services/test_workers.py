"""`llmrouter serve --workers 2` as an operator runs it: real processes, killed, stopped and started in vain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from cryptography.fernet import Fernet
from prometheus_client.parser import text_string_to_metric_families

import http_json
from llmrouter import AsyncClient
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest
from llmrouter.v2.settings_service_pb2_grpc import SettingsServiceStub
from llmrouter.v2.usage_service_pb2 import GetUsageRequest
from llmrouter.v2.usage_service_pb2_grpc import UsageServiceStub
from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.database import COMMAND_TIMEOUT_S
from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER, DevIdentity
from llmrouter_server.runtime.local_ports import accepts, free_ports
from llmrouter_server.runtime.local_process import is_alive
from llmrouter_server.runtime.postgres import EmbeddedPostgres
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from types import TracebackType

WAIT_S = 60.0
MOST_PLAYS = 3
GET_SETTINGS = "/llmrouter.v2.SettingsService/GetSettings"
NOT_MIGRATED = "the database is not migrated: run `llmrouter migrate` first"


class Service:
    """The supervisor and its workers, and all they log. `async with` makes sure that none of them is left."""

    def __init__(self, folder: Path, database_url: str, **changes: str) -> None:
        self.identity = DevIdentity.load_or_create(folder / "identity")
        self.port, self.metrics_port = free_ports(2)
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "BYOK_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "AUTH_JWKS": str(self.identity.jwks_file),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "LISTEN_ADDRESS": self.address,
            "METRICS_ADDRESS": f"127.0.0.1:{self.metrics_port}",
            "DRAIN_NOTICE_SECONDS": "0.2",
            "DRAIN_TIMEOUT_SECONDS": "4",
            "DB_POOL_MIN": "1",
            "TMPDIR": str(folder),
            **changes,
        }
        self._folder = folder
        self.output: list[str] = []

    async def __aenter__(self) -> Service:  # noqa: PYI034 - never subclassed
        command = [sys.executable, "-m", "llmrouter_server", "serve", "--workers", "2"]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pid in (self.process.pid, *self.pids):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(self._reader, WAIT_S)
        await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output.append(line.decode().rstrip("\n"))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return self.identity.mint("user")

    def logged(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.output if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    @property
    def pids(self) -> list[int]:
        """Every worker that was ever started, in that order."""
        return [line["pid"] for line in self.logged("worker started")]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so; the error shows what was logged."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not is_so():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError("\n".join(self.output)) from None

    async def ready(self, starts: int = 2) -> list[int]:
        """Wait until so many workers were started and serve; return all their pids."""
        await self.until(lambda: len(self.logged("serving")) == len(self.pids) == starts)
        return self.pids

    async def end(self) -> int:
        """Wait for the end of the supervisor and of all output, that is of every worker; return the exit code."""
        await self.until(self._reader.done)
        return await asyncio.wait_for(self.process.wait(), WAIT_S)

    def channel(self) -> grpc.aio.Channel:
        """Make a connection of its own: the kernel gives it to either worker."""
        return grpc.aio.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    async def call(self) -> None:
        """Call once, as the client library does: a lost connection is tried again."""
        async with AsyncClient(self.address, token=self.token) as client:
            await client.settings.GetSettings(GetSettingsRequest(), timeout=WAIT_S)

    def answered_by(self) -> set[int]:
        """Return the workers that have counted a call."""
        return {int(path.stem.partition("_")[2]) for path in self._folder.glob("llmrouter-metrics-*/counter_*.db")}

    async def metric(self, name: str, **labels: str) -> float | None:
        """Return what Prometheus would read."""
        answer = await asyncio.to_thread(http_json.call, "GET", f"http://127.0.0.1:{self.metrics_port}/metrics")
        samples = [sample for family in text_string_to_metric_families(answer.json) for sample in family.samples]
        return next((each.value for each in samples if (each.name, each.labels) == (name, labels)), None)

    async def good_calls(self) -> float:
        return await self.metric("llmrouter_requests_total", method=GET_SETTINGS, code="OK") or 0.0


@pytest.fixture
async def service(open_folder: Path, migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Service]:
    async with Service(open_folder, await migrated_database()) as started:
        yield started


async def test_both_workers_answer_on_one_port_and_their_metrics_are_summed(service: Service) -> None:
    pids = await service.ready()
    calls = 0
    async with asyncio.timeout(WAIT_S):
        while service.answered_by() != set(pids):
            async with service.channel() as channel:
                stub, metadata = SettingsServiceStub(channel), (("authorization", f"Bearer {service.token}"),)
                await stub.GetSettings(GetSettingsRequest(), metadata=metadata, timeout=WAIT_S)
            calls += 1
    assert await service.good_calls() == calls
    assert await service.metric("llmrouter_database_up") == 1


async def test_a_killed_worker_is_replaced_while_calls_go_on_and_nothing_counted_is_lost(service: Service) -> None:
    killed, kept = await service.ready()
    calls = 0
    for number in range(40):
        if number == 10:
            os.kill(killed, signal.SIGKILL)
            await service.until(lambda: not is_alive(killed))
        await service.call()
        calls += 1
    _, _, new = await service.ready(3)
    await service.call()
    assert [is_alive(pid) for pid in (killed, kept, new)] == [False, True, True]
    (death,) = service.logged("worker died")
    assert (death["pid"], death["exit_code"]) == (killed, -signal.SIGKILL)
    assert await service.good_calls() == calls + 1
    service.process.terminate()
    assert await service.end() == 0


async def test_a_connection_that_a_dying_worker_resets_costs_a_client_nothing(service: Service) -> None:
    """A worker that is killed still gets connections for a moment, as long as its threads end one by one."""
    await service.ready()
    for refusals in (1, 2):
        async with Proxy(f"grpc://127.0.0.1:{service.port}/") as proxy:  # a new one: clients share a connection
            proxy.refusals = refusals
            async with AsyncClient(f"127.0.0.1:{proxy.port}", token=service.token) as client:
                await client.settings.GetSettings(GetSettingsRequest(), timeout=WAIT_S)
            assert proxy.refusals == 0


@pytest.mark.parametrize("by", ["SIGTERM to the supervisor", "Ctrl-C"])
async def test_calls_in_flight_are_answered_before_the_end(
    open_folder: Path, migrated_database: Callable[[], Awaitable[str]], by: str
) -> None:
    url = await migrated_database()
    for _ in range(MOST_PLAYS):
        codes, waited_s = await answers_in_flight_at_the_end(open_folder, url, by)
        if waited_s < COMMAND_TIMEOUT_S:  # else the server gave up those that waited in Postgres
            break
    assert codes == {grpc.StatusCode.OK: 16}


async def answers_in_flight_at_the_end(folder: Path, url: str, by: str) -> tuple[Counter[grpc.StatusCode], float]:
    """Return the codes of 16 calls, and how long Postgres kept them waiting."""
    settings = {"DB_POOL_MIN": "16", "DB_POOL_MAX": "32", "DRAIN_TIMEOUT_SECONDS": "20"}
    async with Service(folder, url, **settings) as service, contextlib.AsyncExitStack() as channels:
        await service.ready()
        metadata = (("authorization", f"Bearer {service.token}"),)
        lock = await asyncpg.connect(url)
        stubs = [UsageServiceStub(await channels.enter_async_context(service.channel())) for _ in range(16)]
        async with asyncio.timeout(WAIT_S):
            while True:
                transaction = lock.transaction()
                await transaction.start()
                await lock.execute("lock table llm_usage_daily in access exclusive mode")
                began = time.monotonic()
                calls = [
                    asyncio.ensure_future(_answer(stub.GetUsage(GetUsageRequest(), metadata=metadata, timeout=WAIT_S)))
                    for stub in stubs
                ]
                if await _all_wait(lock, calls):
                    break
                await transaction.rollback()
                await asyncio.gather(*calls)
        if by == "Ctrl-C":
            os.killpg(service.process.pid, signal.SIGINT)
        else:
            service.process.terminate()
        await service.until(lambda: len(service.logged("draining")) == 2)
        await transaction.rollback()
        waited_s = time.monotonic() - began
        await lock.close()
        codes = Counter(await asyncio.gather(*calls))
        assert await service.end() == 0
    assert len(service.logged("stopped")) == 2
    assert not [line for line in service.output if "Traceback" in line]
    return codes, waited_s


async def _all_wait(lock: Any, calls: list[asyncio.Future[grpc.StatusCode]]) -> bool:
    """Wait until each call waits in Postgres; False when one has ended before: the server waits for 5 s at most."""
    while await lock.fetchval("select count(*) from pg_locks where not granted") < len(calls):
        if any(call.done() for call in calls):
            return False
        await asyncio.sleep(0.01)
    return True


async def _answer(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    return code


async def test_sigterm_while_the_workers_start_is_a_clean_end(service: Service) -> None:
    await service.until(lambda: len(service.pids) == 2)
    service.process.terminate()
    assert await service.end() == 0
    assert not [line for line in service.output if "Traceback" in line]


async def test_a_worker_that_does_not_end_is_killed(
    open_folder: Path, migrated_database: Callable[[], Awaitable[str]]
) -> None:
    async with Service(open_folder, await migrated_database(), DRAIN_TIMEOUT_SECONDS="0.5") as service:
        hung, _ = await service.ready()
        os.kill(hung, signal.SIGSTOP)
        service.process.terminate()
        assert await service.end() == signal.SIGKILL
    assert [line["pid"] for line in service.logged("worker did not end and is killed")] == [hung]


async def test_a_killed_supervisor_leaves_no_worker_behind(service: Service) -> None:
    pids = await service.ready()
    service.process.kill()
    assert await service.end() == -signal.SIGKILL
    # A process closes what it wrote to, which is the end of the output, a moment before it is gone.
    await service.until(lambda: not any(map(is_alive, pids)))
    assert not await accepts(service.port)


@pytest.mark.parametrize("which", ["LISTEN_ADDRESS", "METRICS_ADDRESS"])
async def test_a_busy_port_is_one_clear_sentence(
    open_folder: Path, migrated_database: Callable[[], Awaitable[str]], which: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        async with Service(open_folder, await migrated_database(), **{which: address}) as service:
            assert await service.end() == 1
    (line,) = map(json.loads, service.output)
    assert line["message"] == f"cannot listen on {address}: the address is taken or not this machine's"


async def test_an_unmigrated_database_is_one_clear_sentence_and_no_new_try(
    open_folder: Path, empty_database: Callable[[], Awaitable[str]]
) -> None:
    async with Service(open_folder, await empty_database()) as service:
        assert await service.end() == 1
    assert len(service.pids) == 2
    said = {json.loads(line)["message"] for line in service.output}
    assert said == {"worker started", NOT_MIGRATED}


async def test_a_missing_setting_is_one_clear_sentence_and_no_worker(open_folder: Path) -> None:
    async with Service(open_folder, "postgresql://127.0.0.1:1/nowhere", AUTH_ISSUER="") as service:
        assert await service.end() == 2
    assert service.output == ["llmrouter: cannot start: AUTH_ISSUER is required and missing"]


async def test_a_setting_that_is_gone_when_a_worker_is_replaced_ends_them_all(service: Service) -> None:
    killed, _ = await service.ready()
    service.identity.jwks_file.unlink()
    os.kill(killed, signal.SIGKILL)
    assert await service.end() == 2
    assert len(service.pids) == 3
    assert [line for line in service.output if "AUTH_JWKS must be" in line]


async def test_a_worker_that_died_while_the_database_was_away_does_not_keep_it_down(open_folder: Path) -> None:
    postgres = EmbeddedPostgres(open_folder / "postgres", durable=False)
    await postgres.start()
    try:
        await migrations.migrate(postgres.url, say=lambda _: None)
        await postgres.stop()
        async with Service(open_folder, postgres.url) as service:
            killed, _ = await service.ready()
            assert await service.metric("llmrouter_database_up") == 0
            os.kill(killed, signal.SIGKILL)
            await service.ready(3)
            await postgres.start()
            async with asyncio.timeout(WAIT_S):
                while await service.metric("llmrouter_database_up") != 1:
                    await asyncio.sleep(0.1)
    finally:
        await postgres.stop()
