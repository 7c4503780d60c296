"""Decisions are kept with what they were made from, and come out the same when they are made again."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import uuid_utils.compat as uuid_utils

from llmrouter.v2 import decision_pb2
from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.errors import DomainError
from llmrouter_server.routing import log as decision_log
from llmrouter_server.routing.eligibility import Exclusion, Need
from llmrouter_server.routing.explanation import explain
from llmrouter_server.routing.log import DecisionLog
from llmrouter_server.routing.record import DecisionRecord, Facts, choices_of
from llmrouter_server.routing.replay import Change, Replay, Replayer
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Weights
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.routing.selection import Decision

FACTS = Facts(Need(PowerLevel.BALANCED), Weights(), ONE_MILLION_EACH, "balanced", 3, task_type="chat")
PATIENCE_S = 10


@pytest.fixture(scope="module")
async def own(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    """A database of this file's own: replay looks at all decisions there are."""
    database = Database(await migrated_database(), min_size=1, max_size=5)
    await database.start()
    yield database
    await database.stop()


@pytest.fixture
def store(own: Database) -> RoutingStore:
    return RoutingStore(own)


@pytest.fixture
def catalog(own: Database) -> CatalogStore:
    return CatalogStore(own)


@pytest.fixture
async def log(store: RoutingStore) -> AsyncIterator[DecisionLog]:
    log = DecisionLog(store)
    await log.start()
    yield log
    await log.stop()


def decided(snapshot: Snapshot, facts: Facts = FACTS, at: datetime | None = None) -> tuple[DecisionRecord, Decision]:
    decision = facts.decide(snapshot.models)
    record = DecisionRecord(
        id=id_at(at) if at else uuid_utils.uuid7(),
        user_id=uuid.uuid4(),
        snapshot_number=snapshot.number,
        facts=facts,
        choices=choices_of(decision, facts.fallback_count),
        degraded=decision.degraded,
    )
    return record, decision


def id_at(at: datetime) -> uuid.UUID:
    """Make a UUIDv7 of that moment."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | uuid.uuid4().int & (1 << 62) - 1)


async def written(log: DecisionLog, record: DecisionRecord) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while log.find(record.id) is not None:
            await asyncio.sleep(0.01)


# --- written behind ---


async def test_a_decision_is_found_while_it_waits_and_after_it_is_written(
    log: DecisionLog, store: RoutingStore, catalog: CatalogStore
) -> None:
    record, decision = decided(await catalog.load_snapshot())
    log.add(record, decision.ranked)
    assert log.find(record.id) == record
    await written(log, record)
    assert await store.find_decision(record.id) == record


async def test_those_that_wait_are_written_when_it_stops(store: RoutingStore, catalog: CatalogStore) -> None:
    log, snapshot = DecisionLog(store), await catalog.load_snapshot()
    await log.start()
    records = [decided(snapshot) for _ in range(2500)]
    for record, decision in records:
        log.add(record, decision.ranked)
    await log.stop()
    for record, _ in records[::500]:
        assert await store.find_decision(record.id) == record


class Away(RoutingStore):
    """A store whose database is away for a while."""

    is_away = True
    tries = 0

    async def write_decisions(self, *arguments: Any) -> None:
        self.tries += 1
        if self.is_away:
            raise errors.unavailable()
        await super().write_decisions(*arguments)


async def test_what_could_not_be_written_is_written_when_the_database_is_back(
    own: Database, catalog: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "RETRY_DELAY_S", 0.01)
    away = Away(own)
    log = DecisionLog(away)
    await log.start()
    record, decision = decided(await catalog.load_snapshot())
    log.add(record, decision.ranked)
    async with asyncio.timeout(PATIENCE_S):
        while away.tries < 3:
            await asyncio.sleep(0.01)
    assert log.find(record.id) == record
    away.is_away = False
    await written(log, record)
    await log.stop()
    assert await away.find_decision(record.id) == record


async def test_when_too_many_wait_the_newest_are_dropped_and_nobody_waits_for_them(
    own: Database, catalog: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MAX_WAITING", 2)
    monkeypatch.setattr(decision_log, "STOP_TIMEOUT_S", 0.1)
    log, snapshot = DecisionLog(Away(own)), await catalog.load_snapshot()
    await log.start()
    records = [decided(snapshot) for _ in range(3)]
    for record, decision in records:
        log.add(record, decision.ranked)
    assert [log.find(record.id) is not None for record, _ in records] == [True, True, False]
    await log.stop()


async def test_each_day_has_its_partition_and_old_ones_are_dropped(store: RoutingStore, catalog: CatalogStore) -> None:
    snapshot, log = await catalog.load_snapshot(), DecisionLog(store)
    today = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    await log.start()
    records = [decided(snapshot, at=today - timedelta(days=days)) for days in (0, 30, 31)]
    for record, decision in records:
        log.add(record, decision.ranked)
    await log.stop()
    await store.drop_partitions(today.date() - timedelta(days=30))
    kept = [await is_kept(store, record) for record, _ in records]
    assert kept == [True, True, False]
    await store.drop_partitions(date(2027, 1, 1))
    assert not await is_kept(store, records[0][0])


async def is_kept(store: RoutingStore, record: DecisionRecord) -> bool:
    try:
        return await store.find_decision(record.id) == record
    except DomainError:
        return False


@pytest.mark.parametrize("decision_id", [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4(), uuid_utils.uuid7()])
async def test_an_id_of_no_decision_is_not_found(store: RoutingStore, decision_id: uuid.UUID) -> None:
    with pytest.raises(DomainError, match="there is no such decision"):
        await store.find_decision(decision_id)


# --- explained ---


def narrow(snapshot: Snapshot) -> Facts:
    """Return facts by which every reason of exclusion but the first two takes at least one model of the seed."""
    by_name = {model.provider_name: model.provider_id for model in snapshot.models}
    return replace(
        FACTS,
        need=Need(
            PowerLevel.ECO,
            keyed_providers=frozenset({by_name["Groq"]}),
            failing_keys=frozenset({by_name["Groq"]}),
            free_only=True,
        ),
        budget_usd=Decimal(1),
        spent_usd=Decimal("1.5"),
    )


async def test_every_model_of_the_catalogue_is_told_once_with_its_scores_or_its_reason(catalog: CatalogStore) -> None:
    snapshot = await catalog.load_snapshot()
    record, decision = decided(snapshot, narrow(snapshot))
    told = explain(record, decision)
    assert sorted(verdict.model_id for verdict in told.models) == sorted(str(each.model_id) for each in snapshot.models)
    for verdict in told.models:
        is_candidate = verdict.exclusion == decision_pb2.EXCLUSION_UNSPECIFIED
        assert verdict.HasField("rank") == verdict.HasField("composite_score") == is_candidate
        assert bool(verdict.exclusion_detail) != is_candidate
    assert [verdict.rank for verdict in told.models if verdict.HasField("rank")] == [1]
    reasons = {decision_pb2.Exclusion.Name(verdict.exclusion) for verdict in told.models}
    assert reasons == {
        "EXCLUSION_UNSPECIFIED",
        "EXCLUSION_POWER_LEVEL",
        "EXCLUSION_OVER_BUDGET",
        "EXCLUSION_KEY_FAILING",
    }
    assert (told.budget.monthly_budget_usd, told.budget.spent_usd, told.budget.downgraded) == (1, 1.5, True)


def test_every_reason_has_its_place_in_the_api() -> None:
    known = {name.removeprefix("EXCLUSION_") for name in decision_pb2.Exclusion.keys()}  # noqa: SIM118 - an enum
    assert {reason.value for reason in Exclusion} == known - {"UNSPECIFIED"}


@pytest.mark.parametrize(
    ("need", "name", "detail"),
    [
        (Need(PowerLevel.BALANCED), "gpt-4o", "OpenAI needs a key of the user's own, and there is no active one"),
        (Need(PowerLevel.ECO), "gpt-4o", "is BALANCED, ECO was routed for"),
        (
            Need(PowerLevel.BALANCED, context_tokens=65_000),
            "deepseek/deepseek-chat",
            "holds 64000 tokens, 65000 were asked for",
        ),
        (Need(PowerLevel.BALANCED, capabilities=frozenset({"vision"})), "deepseek/deepseek-chat", "lacks vision"),
    ],
)
async def test_the_figures_behind_an_exclusion_are_told(
    catalog: CatalogStore, need: Need, name: str, detail: str
) -> None:
    record, decision = decided(await catalog.load_snapshot(), replace(FACTS, need=need))
    told = explain(record, decision)
    assert [verdict.exclusion_detail for verdict in told.models if verdict.model_name == name] == [detail]


# --- made again ---


async def test_decisions_of_changing_catalogues_needs_and_latencies_come_out_the_same(
    own: Database, store: RoutingStore, catalog: CatalogStore, log: DecisionLog
) -> None:
    started = datetime.now(UTC) - timedelta(seconds=1)
    explanations: dict[uuid.UUID, decision_pb2.Decision] = {}
    for number in range(12):
        snapshot = await catalog.load_snapshot()
        providers = sorted({model.provider_id for model in snapshot.models})
        facts = replace(
            FACTS,
            need=Need(
                list(PowerLevel)[number % 3],
                keyed_providers=frozenset(providers[: number % 5]),
                unhealthy_providers=frozenset(providers[number % 4 : number % 7]),
            ),
            live_latencies={model.model_id: 100 + number for model in snapshot.models[::2]},
        )
        record, decision = decided(snapshot, facts)
        log.add(record, decision.ranked)
        explanations[record.id] = explain(record, decision)
        async with own.connection() as connection:
            await connection.execute("update llm_models set output_cost_per_1m = output_cost_per_1m + 0.0137")
    await log.stop()
    done = await Replayer(store, catalog).replay(since=started, before=datetime.now(UTC) + timedelta(seconds=1))
    assert (done.replayed, done.differing, done.without_snapshot) == (12, [], 0)
    for decision_id, told in explanations.items():
        record = await store.find_decision(decision_id)
        again = record.facts.decide((await catalog.load_snapshot(record.snapshot_number)).models)
        assert explain(record, again) == told


async def test_what_was_tampered_with_and_what_has_lost_its_catalogue_is_reported(
    own: Database, store: RoutingStore, catalog: CatalogStore, log: DecisionLog
) -> None:
    started = datetime.now(UTC)
    snapshot = await catalog.load_snapshot()
    good, tampered, orphan = (decided(snapshot) for _ in range(3))
    gone = replace(orphan[0], snapshot_number=10**9), orphan[1]
    for record, decision in (good, tampered, gone):
        log.add(record, decision.ranked)
    await log.stop()
    async with own.connection() as connection:
        outcome = await connection.fetchval("select outcome from llm_decisions where id = $1", tampered[0].id)
        outcome["choices"][0][1] += 1e-9
        await connection.execute("update llm_decisions set outcome = $2 where id = $1", tampered[0].id, outcome)
    since, before = min(each[0].decided_at for each in (good, tampered, gone)), datetime.now(UTC) + timedelta(seconds=1)
    done = await Replayer(store, catalog).replay(since=min(since, started), before=before)
    assert tampered[0].id in done.differing
    assert good[0].id not in done.differing
    assert done.without_snapshot == 1


async def test_other_weights_tell_what_they_would_change(
    store: RoutingStore, catalog: CatalogStore, log: DecisionLog
) -> None:
    snapshot = await catalog.load_snapshot()
    eco = replace(FACTS, need=Need(PowerLevel.ECO))
    record, decision = decided(snapshot, eco)
    log.add(record, decision.ranked)
    await log.stop()
    changes: list[Change] = []
    moment = record.decided_at
    done = await Replayer(store, catalog).replay(
        since=moment, before=moment + timedelta(milliseconds=1), weights=Weights(0, 0, 1), changed=changes.append
    )
    [change] = [each for each in changes if each.decision_id == record.id]
    # By quality alone the 405B (9.0, 400 ms, dearer) goes before the local Qwen (7.5, 200 ms, free).
    assert change.before.model.model_name == "Qwen/Qwen2.5-32B-Instruct"
    assert change.after.model.model_name == "meta-llama/llama-3.1-405b"
    assert done.changed == len(changes)
    one = Replay()
    one.add(change)
    assert (one.changed, one.latency_ms) == (1, 200)
    assert one.quality_rating == pytest.approx(1.5)
    assert one.cost_usd == pytest.approx(0.2)  # a million each way, at 0.10 US dollars more each
