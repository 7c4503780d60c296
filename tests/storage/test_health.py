"""What replicas tell each other of the providers, through a real Postgres; and the service."""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from databases import started
from llmrouter.v2.health_pb2 import ProviderHealth, ProviderStatus
from llmrouter.v2.health_service_pb2 import GetProviderHealthRequest, ListProviderHealthRequest
from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import Snapshot
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.errors import DomainError
from llmrouter_server.health.machine import Attempt, Health, Outcome, Status
from llmrouter_server.health.monitor import HealthMonitor
from llmrouter_server.health.service import HealthService
from llmrouter_server.health.store import HealthStore
from llmrouter_server.health.window import MinuteReport
from llmrouter_server.runtime.database import Database
from turns import in_one_go

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

START = 1_800_000_000.0
MODEL = uuid.uuid4()
OK, FAULT = Outcome.SUCCESS, Outcome.PROVIDER_FAULT


@pytest.fixture(scope="module")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    """A database for this file alone: it adds providers, and others count them."""
    database = await started(Database(await migrated_database(), min_size=2, max_size=10))
    yield database
    await database.stop()


class Link:
    """The way of one replica to the database, which may be cut."""

    def __init__(self, database: Database) -> None:
        self._database, self.is_cut = database, False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        if self.is_cut:
            raise errors.unavailable()
        async with self._database.connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.connection() as connection, connection.transaction():
            yield connection


class Replicas:
    """Two replicas with one clock, which watch one provider."""

    def __init__(self, database: Database, provider: uuid.UUID) -> None:
        self.now, self.provider, self.database = START, provider, database
        self.links = [Link(database), Link(database)]
        self.one, self.other = (self.new(link) for link in self.links)

    def new(self, link: Link) -> HealthMonitor:
        async def catalog() -> Snapshot:
            return Snapshot(1, ())

        return HealthMonitor(HealthStore(link), catalog, now=lambda: self.now)

    def tries(self, monitor: HealthMonitor, *outcomes: Outcome, latency_ms: int | None = None) -> None:
        monitor.observe(Attempt(self.now, self.provider, MODEL, each, latency_ms) for each in outcomes)

    def health(self, monitor: HealthMonitor) -> Health:
        return monitor.health(self.provider)


async def add_provider(database: Database, **values: object) -> uuid.UUID:
    row = {"id": uuid.uuid4(), "name": str(uuid.uuid4()), "is_enabled": True, "priority": 50, **values}
    async with database.connection() as connection:
        await connection.execute(
            "insert into llm_providers (id, name, provider_type, api_endpoint, is_enabled, priority)"
            " values ($1, $2, 'openai', 'https://example.com', $3, $4)",
            *row.values(),
        )
    return row["id"]


async def rows(database: Database, provider: uuid.UUID) -> list[tuple]:
    async with database.connection() as connection:
        found = await connection.fetch(
            "select minute, successes, failures, consecutive_failures from llm_provider_minutes"
            " where provider_id = $1 order by minute, successes",
            provider,
        )
    return [tuple(row) for row in found]


@pytest.fixture
async def replicas(database: Database) -> Replicas:
    return Replicas(database, await add_provider(database))


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


# --- two replicas ---


async def test_what_one_replica_saw_reaches_the_other(replicas: Replicas) -> None:
    replicas.tries(replicas.one, *[OK] * 15, FAULT, latency_ms=70)
    replicas.now += 1
    replicas.tries(replicas.other, *[OK] * 5, latency_ms=90)
    await replicas.one.write()
    assert replicas.other.view().live_latencies == {}
    await replicas.other.read()
    assert replicas.other.view().live_latencies == {MODEL: 70}
    health = replicas.health(replicas.other)
    assert (health.attempts, health.success_rate) == (21, pytest.approx(20 / 21))
    assert (health.p50_latency_ms, health.p95_latency_ms) == (70, 90)
    assert (health.last_success_at, health.last_failure_at) == (START + 1, START)
    await replicas.other.write()
    await replicas.one.read()
    assert replicas.health(replicas.one) == health


async def test_what_is_written_again_is_in_place_of_before_and_a_replica_does_not_hear_itself(
    replicas: Replicas, database: Database
) -> None:
    replicas.tries(replicas.one, OK)
    await replicas.one.write()
    replicas.tries(replicas.one, FAULT)
    await replicas.one.write()
    replicas.now += 60
    replicas.tries(replicas.one, FAULT)
    await replicas.one.write()
    await replicas.one.write()
    assert await rows(database, replicas.provider) == [(moment(START), 1, 1, 1), (moment(START + 60), 0, 1, 2)]
    await replicas.one.read()
    assert replicas.health(replicas.one).attempts == 3


async def test_a_provider_that_one_replica_found_unhealthy_is_so_for_the_other_until_either_sees_it_recover(
    replicas: Replicas,
) -> None:
    replicas.tries(replicas.one, FAULT, FAULT, FAULT)
    await replicas.one.write()
    replicas.now += 30
    await replicas.other.read()
    assert replicas.other.view().unhealthy == {replicas.provider}
    assert not replicas.other.take_probe(replicas.provider)
    for _ in range(3):
        replicas.now += 60
        assert replicas.one.take_probe(replicas.provider)
        replicas.tries(replicas.one, OK)
        await replicas.one.write()
        await replicas.other.read()
    assert replicas.one.view().unhealthy == replicas.other.view().unhealthy == frozenset()
    assert replicas.health(replicas.other).success_rate == 1.0


async def test_a_replica_that_starts_anew_learns_what_the_others_know(replicas: Replicas) -> None:
    replicas.tries(replicas.one, FAULT, FAULT, FAULT)
    await replicas.one.write()
    started = replicas.new(replicas.links[1])
    await started.start()
    assert started.view().unhealthy == {replicas.provider}
    await started.stop()
    replicas.now += 60
    replicas.tries(replicas.one, OK, OK, OK)
    replicas.tries(replicas.one, FAULT)
    await replicas.one.write()
    restarted = replicas.new(replicas.links[1])
    await restarted.read()
    health = replicas.health(restarted)
    assert (health.status, health.attempts) == (Status.HEALTHY, 4)


async def test_a_replica_that_dies_is_forgotten_after_the_window(replicas: Replicas) -> None:
    replicas.tries(replicas.one, *[OK] * 30, latency_ms=70)
    await replicas.one.write()
    await replicas.other.read()
    replicas.now += 899
    await replicas.other.read()
    assert replicas.health(replicas.other).attempts == 30
    replicas.now += 1
    await replicas.other.read()
    assert replicas.health(replicas.other) == Health(Status.UNKNOWN, 0, None, None, None, None, None, 0, None)
    assert replicas.other.view().live_latencies == {}


async def test_what_a_replica_saw_while_the_database_was_away_reaches_the_other_later(replicas: Replicas) -> None:
    replicas.links[0].is_cut = True
    await replicas.one.start()
    replicas.tries(replicas.one, FAULT, FAULT, FAULT)
    with pytest.raises(DomainError):
        await replicas.one.write()
    with pytest.raises(DomainError):
        await replicas.one.read()
    assert replicas.one.view().unhealthy == {replicas.provider}
    replicas.links[0].is_cut = False
    await replicas.one.stop()
    await replicas.other.read()
    assert replicas.other.view().unhealthy == {replicas.provider}


async def test_minutes_of_a_provider_that_is_not_there_do_not_keep_the_others_from_being_stored(
    replicas: Replicas, database: Database
) -> None:
    replicas.one.observe([Attempt(START, uuid.uuid4(), MODEL, OK, None)])
    replicas.tries(replicas.one, OK)
    await replicas.one.write()
    assert len(await rows(database, replicas.provider)) == 1


async def test_minutes_come_back_as_they_were_written(replicas: Replicas, database: Database) -> None:
    store = HealthStore(database)
    written = MinuteReport(int(START // 60), 2, 1, 1, START + 0.25, START + 59.5, {MODEL: [1, 2], uuid.uuid4(): [3]})
    empty = MinuteReport(int(START // 60) - 1, 0, 0, 0, None, None, {})
    await store.write(uuid.uuid4(), [(replicas.provider, written), (replicas.provider, empty)])
    read = (await store.read_peers(uuid.uuid4(), START))[replicas.provider]
    assert sorted(read, key=lambda each: -each.minute) == [written, empty]


async def test_thousands_of_minutes_are_read_a_few_at_a_time(migrated_database: Callable[[], Awaitable[str]]) -> None:
    database = await started(Database(await migrated_database(), min_size=1, max_size=1))
    provider, store, now = await add_provider(database), HealthStore(database), int(START // 60)
    for _ in range(20):
        reports = [MinuteReport(now - ago, 1, 0, 0, START, None, {MODEL: [1]}) for ago in range(15)]
        await store.write(uuid.uuid4(), [(provider, each) for each in reports])
    async with in_one_go() as rows:
        async with database.connection() as connection:  # the only one
            decode = rows.counted(json.loads)
            await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=decode, schema="pg_catalog")
        found = await store.read_peers(uuid.uuid4(), START)
    await database.stop()
    assert len(found[provider]) == rows.all == 300
    assert rows.most <= 50


async def test_only_minutes_of_the_window_are_read_and_only_old_ones_are_deleted(
    replicas: Replicas, database: Database
) -> None:
    store, now = HealthStore(database), int(START // 60)
    reports = [MinuteReport(now + offset, 1, 0, 0, START, None, {}) for offset in (-21, -20, -15, -14, 0, 1, 2)]
    await store.write(uuid.uuid4(), [(replicas.provider, each) for each in reports])
    read = (await store.read_peers(uuid.uuid4(), START + 59.9))[replicas.provider]
    assert sorted(each.minute - now for each in read) == [-14, 0, 1]
    await store.prune(moment(START + 59.9))
    assert [row[0] for row in await rows(database, replicas.provider)] == [
        moment(START + 60 * offset) for offset in (-20, -15, -14, 0, 1, 2)
    ]


# --- the service ---


@pytest.fixture
async def service(replicas: Replicas, database: Database) -> HealthService:
    return HealthService(replicas.one, CatalogStore(database))


async def get(service: HealthService, provider: uuid.UUID | str) -> ProviderHealth:
    return await service.GetProviderHealth(GetProviderHealthRequest(provider_id=str(provider)), None)


async def test_a_provider_that_was_never_tried_is_unknown_and_has_no_figures(
    service: HealthService, replicas: Replicas
) -> None:
    health = await get(service, replicas.provider)
    assert health.status == ProviderStatus.PROVIDER_STATUS_UNKNOWN
    assert {field.name for field, _ in health.ListFields()} == {"provider_id", "provider_name", "status"}


async def test_all_that_is_known_of_a_provider_is_told(service: HealthService, replicas: Replicas) -> None:
    replicas.tries(replicas.one, *[OK] * 3, latency_ms=50)
    replicas.now += 1.5
    replicas.tries(replicas.one, FAULT, FAULT, FAULT)
    health = await get(service, replicas.provider)
    assert health.status == ProviderStatus.PROVIDER_STATUS_UNHEALTHY
    assert (health.attempts, health.success_rate, health.consecutive_failures) == (6, 0.5, 3)
    assert (health.p50_latency_ms, health.p95_latency_ms) == (50, 50)
    assert health.last_success_at.ToDatetime(UTC) == moment(START)
    assert health.last_failure_at.ToDatetime(UTC) == moment(START + 1.5)
    assert health.next_probe_at.ToDatetime(UTC) == moment(START + 61.5)


async def test_a_provider_that_is_not_there_or_disabled_is_not_found(
    service: HealthService, database: Database
) -> None:
    for provider in (uuid.uuid4(), await add_provider(database, is_enabled=False)):
        with pytest.raises(DomainError) as raised:
            await get(service, provider)
        assert raised.value.reason == "RESOURCE_NOT_FOUND"
    with pytest.raises(DomainError) as raised:
        await get(service, "openai")
    assert [violation.field for violation in raised.value.violations] == ["provider_id"]


async def test_the_list_has_each_enabled_provider_once_in_order_with_its_enabled_models(
    migrated_database: Callable[[], Awaitable[str]], replicas: Replicas
) -> None:
    fresh = await started(Database(await migrated_database(), min_size=1, max_size=2))
    try:
        await add_provider(fresh, name="Without models", priority=1000)
        await add_provider(fresh, name="Disabled", is_enabled=False)
        service, listed, token = HealthService(replicas.one, CatalogStore(fresh)), [], ""
        while True:
            page = await service.ListProviderHealth(ListProviderHealthRequest(page_size=3, page_token=token), None)
            assert len(page.providers) == 3 or not page.next_page_token
            listed.extend(page.providers)
            token = page.next_page_token
            if not token:
                break
        whole = await service.ListProviderHealth(ListProviderHealthRequest(), None)
        expected = await CatalogStore(fresh).list_providers(enabled_only=True, after=None, limit=500)
    finally:
        await fresh.stop()
    assert listed == list(whole.providers)
    assert [(each.provider_name, each.model_count) for each in listed] == [
        (each.name, each.model_count) for each in expected
    ]
    assert listed[0].provider_name == "Without models"
    assert {each.provider_name: each.model_count for each in listed}["OpenRouter"] == 8
    assert len(listed) == 8


async def test_a_long_list_holds_nobody_up(
    service: HealthService, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_one_go() as told:
        monkeypatch.setattr(replicas.one, "health", told.counted(replicas.one.health))
        await service.ListProviderHealth(ListProviderHealthRequest(), None)
    assert told.all > told.most == 1


async def test_a_wrong_page_is_refused_with_every_wrong_field(service: HealthService) -> None:
    with pytest.raises(DomainError) as raised:
        await service.ListProviderHealth(ListProviderHealthRequest(page_size=501, page_token="x"), None)
    assert [violation.field for violation in raised.value.violations] == ["page_size", "page_token"]
