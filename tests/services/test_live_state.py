"""What routing keeps in memory, on two servers over one database: never older than the last change by a second."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from cryptography.fernet import Fernet

from conftest import make_open_folder
from live_changes import OF_THE_CATALOGUE, OF_THE_USER, SPEND, Hands
from llmrouter import AsyncClient, LlmrouterError
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server.runtime.dev_identity import DevIdentity
from llmrouter_server.runtime.local_ports import free_ports
from server_process import server
from services.stalls import Stalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HEARD_WITHIN_S = 1.0
MEASUREMENTS = 3
"""One of so many must be in time."""
STALLED_S, MOST_STALLED = 0.25, 10
"""For how long somebody stood still in a measurement that says nothing, and how many of those there may be."""
PATIENCE_S = 20.0
ENOUGH_S = 30.0
"""Longer than anybody waits for the database."""
DEADLINE_S = 4.0
REFUSALS = {"UNAVAILABLE", "DEADLINE_EXCEEDED", ""}
"""The last is the client's own, that no server has told it."""
LISTENER = "llmrouter notifications"
KILL = """
select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and datname = current_database()"""
WARM = "user_llm_settings, user_provider_keys, llm_budget_ledger, llm_catalog_version, llm_catalog_snapshots"
"""What Route would read if it were not warm."""


@dataclass
class Replicas:
    """Two servers, `here` and `there`."""

    url: str
    identity: DevIdentity
    here: str
    there: str

    def client(self, address: str, role: str = "user", user: uuid.UUID | None = None) -> AsyncClient:
        return AsyncClient(address, token=self.identity.mint(role, user or uuid.uuid4()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def replicas(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Replicas]:
    folder, url = make_open_folder(), await migrated_database()
    identity, key = DevIdentity.load_or_create(folder / "identity"), Fernet.generate_key().decode()
    first, second = free_ports(2)
    async with (
        server(folder, url, identity, first, key) as here,
        server(folder, url, identity, second, key) as there,
    ):
        yield Replicas(url, identity, here, there)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def sql(replicas: Replicas) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(replicas.url)
    yield connection
    await connection.close()


class Pair:
    """One user, with a client of each server, both warm, and those who change things through the first."""

    def __init__(self, replicas: Replicas) -> None:
        user_id = uuid.uuid4()
        self.here = replicas.client(replicas.here, "user", user_id)
        self.there = replicas.client(replicas.there, "user", user_id)
        self.hands = Hands(
            user_id, self.here, replicas.client(replicas.here, "admin"), replicas.client(replicas.here, "service")
        )

    async def warm(self) -> None:
        """Wait until both know the same."""
        async with asyncio.timeout(PATIENCE_S):
            while facts(await route(self.here)) != facts(await route(self.there)):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for client in (self.here, self.there, self.hands.admin, self.hands.service):
            await client.close()


class LateError(Exception):
    """It came to pass, but not in time."""


async def in_time(
    replicas: Replicas, measure: Callable[[Pair], Awaitable[None]], *passing: type[LlmrouterError]
) -> None:
    """Measure with a new user each time, until it is in time; `passing` are errors that may be the machine's too."""
    late = stalled = 0
    while True:
        pair, stalls = Pair(replicas), Stalls()
        try:
            async with stalls:
                await pair.warm()
                await measure(pair)
        except (LateError, *passing):
            if stalls.longest_s > STALLED_S:
                stalled += 1
            else:
                late += 1
            if late == MEASUREMENTS or stalled == MOST_STALLED:
                raise
        else:
            return
        finally:
            await pair.close()


async def route(client: AsyncClient, **options: Any) -> RouteResponse:
    return await client.routing.Route(RouteRequest(fallback_count=5, explain=True), **options)


def facts(answer: RouteResponse) -> str:
    """Return all that a decision was made from."""
    told = answer.explanation
    told.ClearField("decision_id")
    told.ClearField("decided_at")
    return str(told)


async def until_seen(is_seen: Callable[[RouteResponse], bool], *clients: AsyncClient) -> None:
    """Wait until each client's own server knows it; LateError when that took longer than it may."""
    started = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        for client in clients:
            while not is_seen(await route(client)):
                await asyncio.sleep(0.01)
    if time.monotonic() - started > HEARD_WITHIN_S:
        raise LateError


# --- changes are seen ---


@contextlib.asynccontextmanager
async def killing(sql: Any, when: str) -> AsyncIterator[None]:
    """Kill both servers' connections for notifications: never, once before, or from before all the time."""

    async def kill() -> None:
        await sql.execute(KILL, LISTENER)

    async def keep_killing() -> None:
        while not stop.is_set():
            await kill()
            await asyncio.sleep(0.05)

    stop = asyncio.Event()
    if when == "killed just before":
        await kill()
    at_it = asyncio.create_task(keep_killing()) if when == "killed all the time" else None
    try:
        yield
    finally:
        stop.set()
        if at_it is not None:
            await at_it


@pytest.mark.parametrize("listening", ["undisturbed", "killed just before", "killed all the time"])
@pytest.mark.parametrize("name", [*OF_THE_USER, *OF_THE_CATALOGUE])
async def test_a_change_is_seen_here_at_once_and_there_within_a_second(
    replicas: Replicas, sql: Any, name: str, listening: str
) -> None:
    change = (OF_THE_USER | OF_THE_CATALOGUE)[name]

    async def measure(pair: Pair) -> None:
        try:
            await change.prepare(pair.hands)
            await pair.warm()
            assert not change.is_seen(await route(pair.here))
            async with killing(sql, listening):
                await change.make(pair.hands)
                assert change.is_seen(await route(pair.here))
                await until_seen(change.is_seen, pair.there)
        finally:
            await change.undo(pair.hands)

    await in_time(replicas, measure)


@pytest.mark.parametrize("listening", ["undisturbed", "killed just before", "killed all the time"])
async def test_usage_that_uses_up_the_budget_is_heard_of_by_all_within_a_second(
    replicas: Replicas, sql: Any, listening: str
) -> None:
    async def measure(pair: Pair) -> None:
        await SPEND.prepare(pair.hands)
        await pair.warm()
        assert not SPEND.is_seen(await route(pair.there))
        async with killing(sql, listening):
            await SPEND.make(pair.hands)
            await until_seen(SPEND.is_seen, pair.here, pair.there)

    await in_time(replicas, measure)


# --- without a query ---


@contextlib.asynccontextmanager
async def nothing_to_read(sql: Any, *clients: AsyncClient) -> AsyncIterator[None]:
    """Lock all that Route would read, once every client's user is in memory: late news may have put them out again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            transaction = sql.transaction()
            await transaction.start()
            try:
                await sql.execute(f"lock table {WARM} in access exclusive mode")
                for client in clients:
                    await route(client, timeout=0.5)
                break
            except LlmrouterError:
                await transaction.rollback()
                for client in clients:
                    await route(client)
    try:
        yield
    finally:
        await transaction.rollback()


# A Postgres that stands still for half a second loses whoever listens, and then a warm Route reads too.


async def test_spend_is_heard_of_without_a_query(replicas: Replicas, sql: Any) -> None:
    async def measure(pair: Pair) -> None:
        await SPEND.prepare(pair.hands)
        async with nothing_to_read(sql, pair.here, pair.there):
            assert not SPEND.is_seen(await route(pair.there))
        await SPEND.make(pair.hands)
        async with sql.transaction():
            await sql.execute(f"lock table {WARM} in access exclusive mode")  # whoever reads now waits
            await until_seen(SPEND.is_seen, pair.here, pair.there)

    await in_time(replicas, measure, LlmrouterError)


async def test_a_warm_route_asks_the_database_nothing(replicas: Replicas, sql: Any) -> None:
    async def measure(pair: Pair) -> None:
        async with nothing_to_read(sql, pair.here, pair.there):
            for client in (pair.here, pair.there):
                for _ in range(20):
                    await route(client, timeout=ENOUGH_S)

    await in_time(replicas, measure, LlmrouterError)


async def test_a_stranger_whose_state_cannot_be_read_is_refused_within_the_deadline_and_keeps_nobody_waiting(
    replicas: Replicas, sql: Any
) -> None:
    async def measure(pair: Pair) -> None:
        async with replicas.client(replicas.here) as stranger:
            async with nothing_to_read(sql, pair.here):
                asking = asyncio.create_task(route(stranger, timeout=DEADLINE_S))
                for _ in range(20):
                    await route(pair.here, timeout=ENOUGH_S)
                has_waited = asking.done()
                with pytest.raises(LlmrouterError) as refused:
                    await asking
                assert refused.value.reason in REFUSALS
            if has_waited:
                raise LateError
            await route(stranger)

    await in_time(replicas, measure, LlmrouterError)
