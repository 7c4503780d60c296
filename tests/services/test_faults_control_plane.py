"""A server whose database is slow, stalls, or has too few connections, and one that is killed with its buffers full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from conftest import make_open_folder
from llmrouter import AsyncClient, DeadlineExceeded, LlmrouterError, Unavailable
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.routing_service_pb2 import RouteRequest
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest
from llmrouter.v2.usage_service_pb2 import BatchRecordUsageRequest, RecordUsageRequest
from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.dev_identity import DevIdentity
from llmrouter_server.runtime.local_ports import free_ports
from llmrouter_server.runtime.postgres import EmbeddedPostgres
from proxy import Proxy
from server_process import server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from llmrouter_server.runtime.dev_identity import RoleName

DEADLINE_S = 10.0
RECOVERY_S = 60.0
SLOW_S, WARM_CALLS = 0.1, 200
PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


@dataclass
class Place:
    """One server behind a proxy to its database."""

    url: str
    proxy: Proxy
    identity: DevIdentity
    address: str
    pid_of: Callable[[], int]

    def client(self, role: RoleName = "user", user: uuid.UUID | None = None) -> AsyncClient:
        return AsyncClient(self.address, token=self.identity.mint(role, user or uuid.uuid4()), retries=False)


@pytest.fixture
async def place(migrated_database: Callable[[], Awaitable[str]], request: Any) -> AsyncIterator[Place]:
    folder, url = make_open_folder(), await migrated_database()
    identity, [port] = DevIdentity.load_or_create(folder / "identity"), free_ports(1)
    changes = getattr(request, "param", {})
    async with (
        Proxy(url) as proxy,
        server(folder, proxy.url, identity, port, Fernet.generate_key().decode(), **changes) as address,
    ):
        place = Place(url, proxy, identity, address, lambda: listener_of(port))
        async with place.client() as client:
            await until_it_answers(client)
        yield place
        proxy.is_stalled, proxy.delay_s = False, 0.0
    shutil.rmtree(folder, ignore_errors=True)


def listener_of(port: int) -> int:
    """Return the process that listens on the port."""
    from llmrouter_server.runtime.local_ports import holder_of  # noqa: PLC0415 - only one test needs it

    holder = holder_of(port)
    assert holder is not None
    return int(holder.rpartition(" ")[2])


async def until_it_answers(client: AsyncClient) -> None:
    async with asyncio.timeout(RECOVERY_S):
        while True:
            try:
                await client.routing.Route(RouteRequest())
                await client.settings.GetSettings(GetSettingsRequest())
            except LlmrouterError as error:
                assert error.reason in PASSING | {""}, error  # noqa: PT017 - what else it says is a failure
                await asyncio.sleep(0.05)
            else:
                return


async def outcome(call: Any) -> str:
    """Return OK or the reason of an error, which comes within the deadline."""
    started = time.monotonic()
    try:
        await call
    except LlmrouterError as error:
        return error.reason
    finally:
        assert time.monotonic() - started < DEADLINE_S + 1
    return "OK"


async def test_a_slow_database_slows_what_needs_it_and_no_warm_route(place: Place) -> None:
    async with place.client() as client:
        await until_it_answers(client)
        place.proxy.delay_s = SLOW_S
        started = time.monotonic()
        assert await outcome(client.settings.GetSettings(GetSettingsRequest(), timeout=DEADLINE_S)) == "OK"
        assert time.monotonic() - started > SLOW_S
        started = time.monotonic()
        for _ in range(WARM_CALLS):
            assert await outcome(client.routing.Route(RouteRequest(), timeout=DEADLINE_S)) == "OK"
        assert time.monotonic() - started < WARM_CALLS * SLOW_S  # a single query each would take twice that
        place.proxy.delay_s = 0.0
        await until_it_answers(client)


async def test_a_database_that_stalls_is_unavailable_within_the_deadline_and_recovery_is_by_itself(
    place: Place,
) -> None:
    async with place.client() as client:
        place.proxy.is_stalled = True
        calls = [outcome(client.settings.GetSettings(GetSettingsRequest(), timeout=DEADLINE_S)) for _ in range(50)]
        calls += [outcome(client.routing.Route(RouteRequest(), timeout=DEADLINE_S)) for _ in range(50)]
        assert set(await asyncio.gather(*calls)) <= PASSING | {"OK"}  # a warm Route may still have been answered
        place.proxy.is_stalled = False
        await until_it_answers(client)


@pytest.mark.parametrize("place", [{"DB_POOL_MIN": "1", "DB_POOL_MAX": "2"}], indirect=True)
async def test_with_too_few_connections_everybody_is_answered_within_the_deadline(place: Place) -> None:
    place.proxy.delay_s = 0.02
    async with contextlib.AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(place.client()) for _ in range(200)]
        answers = await asyncio.gather(*(outcome(each.routing.Route(RouteRequest(), timeout=10)) for each in strangers))
        assert set(answers) <= {"OK"} | PASSING
        assert "OK" in answers
        place.proxy.delay_s = 0.0
        await until_it_answers(strangers[0])


class Traffic:
    """Warm users who route all the time and try nothing twice; what each was answered."""

    def __init__(self, place: Place, users: int) -> None:
        self._place, self._users = place, users
        self.failures: Counter[type[LlmrouterError]] = Counter()
        self.decisions: list[str] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Traffic:  # noqa: PYI034 - never subclassed
        self._tasks = [asyncio.create_task(self._route(uuid.uuid4())) for _ in range(self._users)]
        await self.more(self._users)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, answers: int) -> None:
        """Wait until so many more were answered well."""
        known = len(self.decisions)
        async with asyncio.timeout(RECOVERY_S):
            while len(self.decisions) < known + answers:
                await asyncio.sleep(0.01)

    async def until_it_fails(self) -> None:
        async with asyncio.timeout(RECOVERY_S):
            while not self.failures:
                await asyncio.sleep(0.01)

    async def _route(self, user: uuid.UUID) -> None:
        async with self._place.client(user=user) as client:
            while not self._stop.is_set():
                try:
                    answer = await client.routing.Route(RouteRequest())
                except LlmrouterError as error:
                    self.failures[type(error)] += 1
                    await asyncio.sleep(0.05)
                else:
                    self.decisions.append(answer.decision_id)
                    await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["at once", "by a crash"])
async def test_while_the_database_restarts_routes_are_unavailable_at_worst_and_no_decision_is_lost(
    open_folder: Path, how: str
) -> None:
    postgres = EmbeddedPostgres(open_folder / "postgres", durable=False)
    await postgres.start()
    try:
        await migrations.migrate(postgres.url, say=lambda _: None)
        identity, [port] = DevIdentity.load_or_create(open_folder / "identity"), free_ports(1)
        async with (
            Proxy(postgres.url) as proxy,
            server(open_folder, proxy.url, identity, port, Fernet.generate_key().decode()) as address,
        ):
            place = Place(postgres.url, proxy, identity, address, lambda: listener_of(port))
            async with Traffic(place, 20) as traffic:
                await traffic.more(100)
                if how == "by a crash":
                    postgres.server.signal(signal.SIGQUIT)
                await postgres.stop()
                await asyncio.sleep(1)
                await traffic.until_it_fails()
                await postgres.start()
                await traffic.more(1000)
            assert Unavailable in traffic.failures
            assert set(traffic.failures) <= {Unavailable, DeadlineExceeded}
            await until_kept(place, traffic.decisions)
    finally:
        await postgres.stop()


async def until_kept(place: Place, decisions: list[str]) -> None:
    """Wait until every decision that was answered is in the database."""
    connection = await asyncpg.connect(place.url)
    async with asyncio.timeout(RECOVERY_S):
        while set(decisions) - {str(row["id"]) for row in await connection.fetch("select id from llm_decisions")}:
            await asyncio.sleep(0.1)
    await connection.close()


async def test_a_server_killed_with_its_buffers_full_has_lost_nothing_it_acknowledged(place: Place) -> None:
    user, acknowledged, killed = uuid.uuid4(), set[str](), asyncio.Event()
    async with place.client("service") as service:
        models = await service.models.ListModels(ListModelsRequest())
        model = models.models[0].model_id

        async def report(batch: int) -> None:
            for number in range(1000):
                ids = [f"{batch}-{number}-{each}" for each in range(50)]
                records = [RecordUsageRequest(user_id=str(user), request_id=name, model_id=model) for name in ids]
                try:
                    await service.usage.BatchRecordUsage(BatchRecordUsageRequest(records=records), timeout=30)
                except LlmrouterError:
                    if killed.is_set():
                        return
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.update(ids)

        reports = [asyncio.create_task(report(number)) for number in range(8)]
        async with Traffic(place, 20) as traffic:
            async with asyncio.timeout(RECOVERY_S):
                while len(acknowledged) < 1000:
                    await asyncio.sleep(0.01)
            killed.set()
            os.kill(place.pid_of(), signal.SIGKILL)
            await asyncio.gather(*reports)
        assert set(traffic.failures) <= {Unavailable}
    connection = await asyncpg.connect(place.url)
    rows = await connection.fetch("select request_id from llm_usage_logs where user_id = $1", user)
    daily = await connection.fetchval("select sum(requests) from llm_usage_daily where user_id = $1", user)
    await connection.close()
    stored = [row["request_id"] for row in rows]
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored)) == daily
